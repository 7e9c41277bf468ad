//! The transactions of one layer.

use std::collections::VecDeque;

use super::{LayerState, ShareChange, SlotChange, Transaction};
use crate::ids::{ExpertId, LayerId, RankId, SlotIndex};
use crate::map::{ExpertMap, even_shares};
use crate::slots::RankSlots;

/// How one layer gets to its target.
pub(super) struct LayerMoves {
    pub(super) transactions: Vec<Transaction>,
    /// The ranks that could be the source of each change, ascending: those that hold its expert before its transaction.
    pub(super) holders: Vec<Vec<RankId>>,
    /// The layer after all of them.
    pub(super) after: LayerState,
}

/// Both maps are of one shape. The source of each change is the first that could be.
pub(super) fn moves(old: &ExpertMap, new: &ExpertMap, layer: LayerId) -> LayerMoves {
    let mut mover = Mover::new(old, new, layer);
    mover.move_alone();
    mover.move_in_cycles();
    let Mover { slots, mut transactions, sources: holders, .. } = mover;
    let mut after = LayerState::new(old, layer);
    after.slots = slots;
    if old.shares(layer).is_some() || new.shares(layer).is_some() {
        set_shares([old, new], layer, &mut transactions, &mut after);
    }
    LayerMoves { transactions, holders, after }
}

/// Has the last transaction that touches an expert set its shares, and one at the end those of experts that none
/// touches. `after` has the layer's last slots and gets its last shares.
fn set_shares(maps: [&ExpertMap; 2], layer: LayerId, transactions: &mut Vec<Transaction>, after: &mut LayerState) {
    let [old, new] = maps;
    let places: Vec<(RankId, SlotIndex)> = old.slots_of_layer().collect();
    let experts = old.shape().experts;
    let (before, wanted) = (old.parts(layer), new.parts(layer));
    let wanted = after.slots.iter().zip(&places).map(|(expert, &(rank, _))| {
        let held = new.rank(layer, rank).iter().position(|other| other == expert);
        wanted[new.slots_of_ranks().of(rank).start + held.expect("the layer ends in the placement of the target")]
    });
    let (wanted, even): (Vec<u32>, Vec<u32>) = (wanted.collect(), even_shares(&after.slots, experts));
    let mut last: Vec<Option<usize>> = vec![None; experts];
    for (index, transaction) in transactions.iter().enumerate() {
        for change in &transaction.changes {
            (last[change.from.index()], last[change.to.index()]) = (Some(index), Some(index));
        }
    }
    let mut differs = vec![false; experts];
    for (slot, expert) in after.slots.iter().map(|expert| expert.index()).enumerate() {
        differs[expert] |= wanted[slot] != if last[expert].is_some() { even[slot] } else { before[slot] };
    }
    let mut rest = Vec::new();
    for (slot, expert) in after.slots.iter().map(|expert| expert.index()).enumerate().filter(|&(_, e)| differs[e]) {
        let (rank, place) = places[slot];
        let change = ShareChange { rank, slot: place, share: wanted[slot] };
        last[expert].map_or(&mut rest, |index| &mut transactions[index].shares).push(change);
    }
    if !rest.is_empty() {
        transactions.push(Transaction { layer, changes: Vec::new(), shares: rest });
    }
    after.shares = (wanted != even).then_some(wanted);
}

struct Mover<'a> {
    layer: LayerId,
    of_ranks: &'a RankSlots,
    slots: Vec<ExpertId>,
    /// Ranks that hold each expert that is to leave or to arrive somewhere, ascending, `[experts]`.
    holders: Vec<Vec<usize>>,
    /// Slots of each rank whose expert is to leave it, ascending, `[ranks]`.
    leaving: Vec<Vec<usize>>,
    /// Experts that are to arrive at each rank, ascending, as many as are to leave it, `[ranks]`.
    arriving: Vec<Vec<ExpertId>>,
    /// Number of ranks that each expert is still to leave, `[experts]`.
    departures: Vec<usize>,
    transactions: Vec<Transaction>,
    /// As [`LayerMoves::holders`].
    sources: Vec<Vec<RankId>>,
}

impl<'a> Mover<'a> {
    fn new(old: &'a ExpertMap, new: &ExpertMap, layer: LayerId) -> Self {
        let shape = old.shape();
        let mut mover = Self {
            layer,
            of_ranks: old.slots_of_ranks(),
            slots: old.layer(layer).to_vec(),
            holders: vec![Vec::new(); shape.experts],
            leaving: Vec::with_capacity(shape.ranks),
            arriving: Vec::with_capacity(shape.ranks),
            departures: vec![0; shape.experts],
            transactions: Vec::new(),
            sources: Vec::new(),
        };
        for rank in (0..shape.ranks).map(RankId::from) {
            let (before, after) = (old.rank(layer, rank), new.rank(layer, rank));
            let leaving: Vec<usize> = (0..before.len()).filter(|&slot| !after.contains(&before[slot])).collect();
            let mut arriving: Vec<ExpertId> = after.iter().copied().filter(|expert| !before.contains(expert)).collect();
            arriving.sort_unstable();
            for &slot in &leaving {
                mover.departures[before[slot].index()] += 1;
            }
            mover.leaving.push(leaving);
            mover.arriving.push(arriving);
        }
        let mut concerned = vec![false; shape.experts];
        for expert in mover.arriving.iter().flatten() {
            concerned[expert.index()] = true;
        }
        for (expert, departures) in mover.departures.iter().enumerate() {
            concerned[expert] |= *departures > 0;
        }
        for rank in 0..shape.ranks {
            for expert in old.rank(layer, rank.into()).iter().filter(|expert| concerned[expert.index()]) {
                mover.holders[expert.index()].push(rank);
            }
        }
        mover
    }

    /// Changes every slot that can change alone, because its expert has another copy, until none is left.
    fn move_alone(&mut self) {
        let mut progress = true;
        while progress {
            progress = false;
            for rank in 0..self.leaving.len() {
                while let Some(index) = self.leaving[rank].iter().position(|&slot| self.copies(rank, slot) > 1) {
                    let slot = self.leaving[rank].remove(index);
                    let to = self.take_arrival(rank);
                    let change = self.change(rank, slot, to);
                    self.commit(vec![change]);
                    progress = true;
                }
            }
        }
    }

    fn copies(&self, rank: usize, slot: usize) -> usize {
        self.holders[self.expert(rank, slot).index()].len()
    }

    fn expert(&self, rank: usize, slot: usize) -> ExpertId {
        self.slots[self.of_ranks.of(rank.into()).start + slot]
    }

    /// Of the experts that are to arrive, one whose only copy is to leave another rank comes first: once it is here,
    /// the slot there can change alone too.
    fn take_arrival(&mut self, rank: usize) -> ExpertId {
        let waits = |expert: &ExpertId| self.holders[expert.index()].len() == 1 && self.departures[expert.index()] > 0;
        let index = self.arriving[rank].iter().position(waits).unwrap_or(0);
        self.arriving[rank].remove(index)
    }

    /// Moves the experts that are left. Each has one copy, so it has one rank to leave and one to arrive at.
    fn move_in_cycles(&mut self) {
        let mut destination = vec![usize::MAX; self.holders.len()];
        for (rank, experts) in self.arriving.iter().enumerate() {
            for expert in experts {
                destination[expert.index()] = rank;
            }
        }
        for start in 0..self.leaving.len() {
            while !self.leaving[start].is_empty() {
                let cycle = self.shortest_cycle(start, &destination);
                let changes = (0..cycle.len()).map(|hop| {
                    let (source, departing) = cycle[hop];
                    let (rank, slot) = cycle[(hop + 1) % cycle.len()];
                    self.change(rank, slot, self.expert(source, departing))
                });
                let mut changes: Vec<SlotChange> = changes.collect();
                changes.sort_unstable_by_key(|change| change.rank);
                for &(rank, slot) in &cycle {
                    self.leaving[rank].retain(|&other| other != slot);
                }
                self.commit(changes);
            }
        }
    }

    /// The (rank, slot) pairs of a shortest cycle through a rank: the expert of each moves to the rank of the next.
    fn shortest_cycle(&self, start: usize, destination: &[usize]) -> Vec<(usize, usize)> {
        let mut came_from: Vec<Option<(usize, usize)>> = vec![None; self.leaving.len()];
        let mut queue = VecDeque::from([start]);
        while let Some(rank) = queue.pop_front() {
            for &slot in &self.leaving[rank] {
                let next = destination[self.expert(rank, slot).index()];
                if came_from[next].is_none() {
                    came_from[next] = Some((rank, slot));
                    queue.push_back(next);
                }
            }
            if came_from[start].is_some() {
                break;
            }
        }
        let mut cycle = Vec::new();
        let mut rank = start;
        while cycle.is_empty() || rank != start {
            let hop = came_from[rank].expect("as many experts leave each rank as arrive there");
            cycle.push(hop);
            rank = hop.0;
        }
        cycle.reverse();
        cycle
    }

    fn change(&self, rank: usize, slot: usize, to: ExpertId) -> SlotChange {
        let source = self.holders[to.index()].first().copied();
        let source = source.expect("every expert has a holder at all times").into();
        SlotChange { rank: rank.into(), slot: SlotIndex::from(slot), from: self.expert(rank, slot), to, source }
    }

    fn commit(&mut self, changes: Vec<SlotChange>) {
        let sources = changes.iter().map(|change| self.holders[change.to.index()].iter().map(|&rank| rank.into()));
        self.sources.extend(sources.map(Iterator::collect::<Vec<RankId>>));
        for &SlotChange { rank, slot, from, to, source: _ } in &changes {
            let rank = rank.index();
            self.slots[self.of_ranks.of(rank.into()).start + slot.index()] = to;
            self.holders[from.index()].retain(|&holder| holder != rank);
            let place = self.holders[to.index()].partition_point(|&holder| holder < rank);
            self.holders[to.index()].insert(place, rank);
            self.departures[from.index()] -= 1;
        }
        self.transactions.push(Transaction { layer: self.layer, changes, shares: Vec::new() });
    }
}
