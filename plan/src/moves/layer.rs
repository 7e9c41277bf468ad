//! The transactions of one layer.

use std::collections::VecDeque;

use super::{SlotChange, Transaction};
use crate::ids::{ExpertId, LayerId, RankId, SlotIndex};
use crate::map::ExpertMap;
use crate::slots::RankSlots;

/// How one layer gets to its target.
pub(super) struct LayerMoves {
    pub(super) transactions: Vec<Transaction>,
    /// The slots after all of them, `[slots of all ranks]`.
    pub(super) slots: Vec<ExpertId>,
}

/// Both maps are of one shape.
pub(super) fn moves(old: &ExpertMap, new: &ExpertMap, layer: LayerId) -> LayerMoves {
    let mut mover = Mover::new(old, new, layer);
    mover.move_alone();
    mover.move_in_cycles();
    LayerMoves { transactions: mover.transactions, slots: mover.slots }
}

struct Mover<'a> {
    layer: LayerId,
    of_ranks: &'a RankSlots,
    slots: Vec<ExpertId>,
    /// Ranks that hold each expert, ascending, `[experts]`.
    holders: Vec<Vec<usize>>,
    /// Slots of each rank whose expert is to leave it, ascending, `[ranks]`.
    leaving: Vec<Vec<usize>>,
    /// Experts that are to arrive at each rank, ascending, as many as are to leave it, `[ranks]`.
    arriving: Vec<Vec<ExpertId>>,
    /// Number of ranks that each expert is still to leave, `[experts]`.
    departures: Vec<usize>,
    /// Pages that each rank has been named the source of, `[ranks]`.
    sent: Vec<usize>,
    transactions: Vec<Transaction>,
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
            sent: vec![0; shape.ranks],
            transactions: Vec::new(),
        };
        for rank in (0..shape.ranks).map(RankId::from) {
            let (before, after) = (old.rank(layer, rank), new.rank(layer, rank));
            let leaving: Vec<usize> = (0..before.len()).filter(|&slot| !after.contains(&before[slot])).collect();
            let mut arriving: Vec<ExpertId> = after.iter().copied().filter(|expert| !before.contains(expert)).collect();
            arriving.sort_unstable();
            for expert in before {
                mover.holders[expert.index()].push(rank.index());
            }
            for &slot in &leaving {
                mover.departures[before[slot].index()] += 1;
            }
            mover.leaving.push(leaving);
            mover.arriving.push(arriving);
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
                    let mut change = self.change(rank, slot, self.expert(source, departing));
                    change.source = source.into();
                    change
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

    /// Its source is the holder that has sent least, the first of equals.
    fn change(&self, rank: usize, slot: usize, to: ExpertId) -> SlotChange {
        let holders = &self.holders[to.index()];
        let source = holders.iter().copied().min_by_key(|&holder| self.sent[holder]);
        let source = source.expect("every expert has a holder at all times").into();
        SlotChange { rank: rank.into(), slot: SlotIndex::from(slot), from: self.expert(rank, slot), to, source }
    }

    fn commit(&mut self, changes: Vec<SlotChange>) {
        for &SlotChange { rank, slot, from, to, source } in &changes {
            let rank = rank.index();
            self.slots[self.of_ranks.of(rank.into()).start + slot.index()] = to;
            self.holders[from.index()].retain(|&holder| holder != rank);
            let place = self.holders[to.index()].partition_point(|&holder| holder < rank);
            self.holders[to.index()].insert(place, rank);
            self.departures[from.index()] -= 1;
            self.sent[source.index()] += 1;
        }
        self.transactions.push(Transaction { layer: self.layer, changes });
    }
}
