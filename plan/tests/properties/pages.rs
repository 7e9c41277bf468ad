//! The memory of a group while experts move: each rank has a page for each of its slots and staging pages beside them,
//! pages are received from ranks that hold them, and slots exchange their page for a staging page. Knows nothing of how
//! transactions are found, and shares no code with what applies them to maps.

use std::collections::BTreeMap;

use plan::ids::{ExpertId, LayerId, RankId};
use plan::map::ExpertMap;
use plan::moves::Transaction;

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
}

impl Pages {
    pub(crate) fn new(map: &ExpertMap, staging_pages: usize) -> Self {
        let mut holders = BTreeMap::new();
        let rank = |rank: usize| {
            let mut pages = Vec::new();
            let mut table = Vec::new();
            for layer in map.layers() {
                let experts = map.rank(layer, RankId::from(rank));
                table.push((pages.len()..pages.len() + experts.len()).collect());
                pages.extend(experts.iter().map(|&expert| Some((layer, expert))));
            }
            let staging = (pages.len()..pages.len() + staging_pages).collect();
            pages.resize(pages.len() + staging_pages, None);
            RankPages { pages, table, staging }
        };
        let ranks: Vec<RankPages> = (0..map.shape().ranks).map(rank).collect();
        for held in ranks.iter().flat_map(|rank| &rank.pages).flatten() {
            *holders.entry(*held).or_default() += 1;
        }
        Self { ranks, holders, most_in_use: 0, received: 0 }
    }

    /// Receives the pages of a transaction and commits it.
    pub(crate) fn carry_out(&mut self, transaction: &Transaction) -> Result<(), String> {
        let layer = transaction.layer;
        let mut arrived = Vec::new();
        for change in &transaction.changes {
            let source = &self.ranks[change.source.index()];
            let sends = source.table[layer.index()].iter().any(|&page| source.pages[page] == Some((layer, change.to)));
            if !sends {
                return Err(format!("{} has no page of {} to send: {transaction:?}", change.source, change.to));
            }
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
