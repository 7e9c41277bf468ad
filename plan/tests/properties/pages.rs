//! The memory of a group while experts move: each rank has a page for each of its slots and staging pages beside them,
//! pages are received from ranks that hold them, and slots exchange their page for a staging page. Knows nothing of how
//! transactions are found, and shares no code with what applies them to maps.

use std::collections::BTreeMap;

use plan::ids::{ExpertId, LayerId, RankId};
use plan::map::ExpertMap;
use plan::moves::{Fill, PageSource, Transaction};
use plan::slots::RankSlots;

/// The pages of one rank.
struct RankPages {
    /// What is in each page; nothing in a staging page that receives nothing.
    pages: Vec<Option<(LayerId, ExpertId)>>,
    /// The page of each slot, `[layers][slots]`.
    table: Vec<Vec<usize>>,
    staging: Vec<usize>,
}

/// The pages of all ranks.
pub(crate) struct Pages {
    ranks: Vec<RankPages>,
    /// Slots with a complete page of an expert, over all ranks.
    holders: BTreeMap<(LayerId, ExpertId), usize>,
    /// The most staging pages of a rank that were in use at once.
    pub(crate) most_in_use: usize,
    /// Pages that were received.
    pub(crate) received: usize,
    /// Those of them that came from the checkpoint.
    pub(crate) loaded: usize,
}

impl Pages {
    pub(crate) fn new(map: &ExpertMap, staging_pages: usize) -> Self {
        Self::left_of(map, map.slots_of_ranks(), staging_pages)
    }

    /// The pages of a map on the ranks that are live then: those that were not before have pages with nothing in them.
    pub(crate) fn left_of(map: &ExpertMap, live: &RankSlots, staging_pages: usize) -> Self {
        let mut holders = BTreeMap::new();
        let rank = |rank: usize| {
            let slots = live.count(RankId::from(rank));
            let mut pages = Vec::new();
            let mut table = Vec::new();
            for layer in map.layers() {
                let experts = map.rank(layer, RankId::from(rank));
                table.push((pages.len()..pages.len() + slots).collect());
                pages.extend((0..slots).map(|slot| experts.get(slot).map(|&expert| (layer, expert))));
            }
            let staging = (pages.len()..pages.len() + staging_pages).collect();
            pages.resize(pages.len() + staging_pages, None);
            RankPages { pages, table, staging }
        };
        let ranks: Vec<RankPages> = (0..map.shape().ranks).map(rank).collect();
        for held in ranks.iter().flat_map(|rank| &rank.pages).flatten() {
            *holders.entry(*held).or_default() += 1;
        }
        Self { ranks, holders, most_in_use: 0, received: 0, loaded: 0 }
    }

    /// Receives the page of a fill and puts it into its slot.
    pub(crate) fn fill(&mut self, fill: &Fill) -> Result<(), String> {
        let &Fill { layer, rank, slot, from, to, source, .. } = fill;
        let copies = self.holders.get(&(layer, to)).copied().unwrap_or(0);
        match source {
            PageSource::Checkpoint if copies > 0 => {
                return Err(format!("{to} is loaded though ranks hold it: {fill:?}"));
            }
            PageSource::Checkpoint => self.loaded += 1,
            PageSource::Rank(sender) => self.check_sender(sender, (layer, to))?,
        }
        let receiver = &mut self.ranks[rank.index()];
        let page = receiver.staging.pop().ok_or_else(|| format!("{rank} has no staging page left: {fill:?}"))?;
        receiver.pages[page] = Some((layer, to));
        self.received += 1;
        self.most_in_use = self.most_in_use.max(1);
        let freed = std::mem::replace(&mut receiver.table[layer.index()][slot.index()], page);
        let held = receiver.pages[freed].take();
        if held != from.map(|expert| (layer, expert)) {
            return Err(format!("{rank} held {held:?}: {fill:?}"));
        }
        receiver.staging.push(freed);
        *self.holders.entry((layer, to)).or_default() += 1;
        let Some(held) = held else { return Ok(()) };
        *self.holders.entry(held).or_default() -= 1;
        if self.holders[&held] == 0 { Err(format!("no rank has {} any more: {fill:?}", held.1)) } else { Ok(()) }
    }

    fn check_sender(&self, sender: RankId, page: (LayerId, ExpertId)) -> Result<(), String> {
        let source = &self.ranks[sender.index()];
        let sends = source.table[page.0.index()].iter().any(|&place| source.pages[place] == Some(page));
        if sends { Ok(()) } else { Err(format!("{sender} has no page of {} to send", page.1)) }
    }

    /// Receives the pages of a transaction and commits it.
    pub(crate) fn carry_out(&mut self, transaction: &Transaction) -> Result<(), String> {
        let layer = transaction.layer;
        let mut arrived = Vec::new();
        for change in &transaction.changes {
            self.check_sender(change.source, (layer, change.to))?;
            let receiver = &mut self.ranks[change.rank.index()];
            let Some(page) = receiver.staging.pop() else {
                return Err(format!("{} has no staging page left: {transaction:?}", change.rank));
            };
            receiver.pages[page] = Some((layer, change.to));
            self.received += 1;
            arrived.push(page);
            let in_use =
                arrived.iter().zip(&transaction.changes).filter(|(_, other)| other.rank == change.rank).count();
            self.most_in_use = self.most_in_use.max(in_use);
        }
        for (change, page) in transaction.changes.iter().zip(arrived) {
            let receiver = &mut self.ranks[change.rank.index()];
            let slot = &mut receiver.table[layer.index()][change.slot.index()];
            let freed = std::mem::replace(slot, page);
            if receiver.pages[freed] != Some((layer, change.from)) {
                return Err(format!("{} held something else than {}: {transaction:?}", change.rank, change.from));
            }
            receiver.pages[freed] = None;
            receiver.staging.push(freed);
            *self.holders.entry((layer, change.to)).or_default() += 1;
            *self.holders.entry((layer, change.from)).or_default() -= 1;
        }
        let gone = transaction.changes.iter().find(|change| self.holders[&(layer, change.from)] == 0);
        gone.map_or(Ok(()), |change| Err(format!("no rank has {} any more: {transaction:?}", change.from)))
    }

    /// Whether every slot has the page of the expert that a map has there.
    pub(crate) fn are_of(&self, map: &ExpertMap) -> bool {
        map.layers().all(|layer| {
            self.ranks.iter().enumerate().all(|(number, rank)| {
                let held = rank.table[layer.index()].iter().map(|&page| rank.pages[page]);
                held.eq(map.rank(layer, RankId::from(number)).iter().map(|&expert| Some((layer, expert))))
            })
        })
    }
}
