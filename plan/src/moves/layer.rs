//! The transactions of one layer.

use std::collections::VecDeque;

use super::lists::Lists;
use super::{ShareChange, SlotChange, Transaction};
use crate::holders::Holders;
use crate::ids::{ExpertId, LayerId, RankId, SlotIndex};
use crate::map::{ExpertMap, even_shares};
use crate::slots::RankSlots;

/// How one layer gets to its target.
pub(super) struct LayerMoves {
    pub(super) transactions: Vec<Transaction>,
    /// The ranks that could be the source of each change, ascending: those that hold its expert before its transaction.
    pub(super) holders: Vec<Vec<RankId>>,
}

/// Slots and shares of the layer after [`moves`]; `None` where shares are even.
pub(super) fn after(old: &ExpertMap, new: &ExpertMap, layer: LayerId) -> (Vec<ExpertId>, Option<Vec<u32>>) {
    let Mover { slots, .. } = Mover::moved(old, new, layer, Record::Nothing);
    let shares = shares_in(&slots, new, layer);
    (slots, shares)
}

/// Both maps are of one shape. The source of each change is the first that could be.
pub(super) fn moves(old: &ExpertMap, new: &ExpertMap, layer: LayerId) -> LayerMoves {
    let Mover { slots, mut transactions, sources: holders, .. } = Mover::moved(old, new, layer, Record::Transactions);
    let shares = shares_in(&slots, new, layer);
    if old.shares(layer).is_some() || shares.is_some() {
        set_shares(old, layer, &mut transactions, (&slots, shares.as_deref()));
    }
    LayerMoves { transactions, holders }
}

/// The shares of `new` for slots in which each rank holds what it holds there, in any order.
fn shares_in(slots: &[ExpertId], new: &ExpertMap, layer: LayerId) -> Option<Vec<u32>> {
    let shares = new.shares(layer)?;
    let of_ranks = new.slots_of_ranks();
    let (mut share_of, mut ordered) = (vec![0; new.shape().experts], Vec::with_capacity(slots.len()));
    for rank in (0..new.shape().ranks).map(|rank| of_ranks.of(rank.into())) {
        for slot in rank.clone() {
            share_of[new.layer(layer)[slot].index()] = shares[slot];
        }
        ordered.extend(slots[rank].iter().map(|expert| share_of[expert.index()]));
    }
    Some(ordered)
}

/// Has the last transaction that touches an expert set its shares, and one at the end those of experts that none
/// touches. `after` is the layer's last slots and its last shares.
fn set_shares(
    old: &ExpertMap,
    layer: LayerId,
    transactions: &mut Vec<Transaction>,
    after: (&[ExpertId], Option<&[u32]>),
) {
    let (slots, shares) = after;
    let places: Vec<(RankId, SlotIndex)> = old.slots_of_layer().collect();
    let experts = old.shape().experts;
    let (before, even) = (old.parts(layer), even_shares(slots, experts));
    let wanted = shares.unwrap_or(&even);
    let mut last: Vec<Option<usize>> = vec![None; experts];
    for (index, transaction) in transactions.iter().enumerate() {
        for change in &transaction.changes {
            (last[change.from.index()], last[change.to.index()]) = (Some(index), Some(index));
        }
    }
    let mut differs = vec![false; experts];
    for (slot, expert) in slots.iter().map(|expert| expert.index()).enumerate() {
        differs[expert] |= wanted[slot] != if last[expert].is_some() { even[slot] } else { before[slot] };
    }
    let mut rest = Vec::new();
    for (slot, expert) in slots.iter().map(|expert| expert.index()).enumerate().filter(|&(_, e)| differs[e]) {
        let (rank, place) = places[slot];
        let change = ShareChange { rank, slot: place, share: wanted[slot] };
        last[expert].map_or(&mut rest, |index| &mut transactions[index].shares).push(change);
    }
    if !rest.is_empty() {
        transactions.push(Transaction { layer, changes: Vec::new(), shares: rest });
    }
}

/// What is kept of the way.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Record {
    /// Only where it ends.
    Nothing,
    /// Each transaction and who could be the sources of its changes.
    Transactions,
}

struct Mover<'a> {
    layer: LayerId,
    record: Record,
    of_ranks: &'a RankSlots,
    slots: Vec<ExpertId>,
    holders: Holders,
    /// Slots of each rank whose expert is to leave it, ascending.
    leaving: Lists<'a, SlotIndex>,
    /// Experts that are to arrive at each rank, ascending, as many as are to leave it.
    arriving: Lists<'a, ExpertId>,
    /// Number of ranks that each expert is still to leave, `[experts]`.
    departures: Vec<usize>,
    transactions: Vec<Transaction>,
    /// As [`LayerMoves::holders`].
    sources: Vec<Vec<RankId>>,
}

impl<'a> Mover<'a> {
    /// With every expert where it is to go.
    fn moved(old: &'a ExpertMap, new: &ExpertMap, layer: LayerId, record: Record) -> Self {
        let mut mover = Self::new(old, new, layer, record);
        mover.move_alone();
        mover.move_in_cycles();
        mover
    }

    fn new(old: &'a ExpertMap, new: &ExpertMap, layer: LayerId, record: Record) -> Self {
        let (shape, of_ranks) = (old.shape(), old.slots_of_ranks());
        let mut mover = Self {
            layer,
            record,
            of_ranks,
            slots: old.layer(layer).to_vec(),
            holders: Holders::new(shape.experts, shape.ranks),
            leaving: Lists::new(of_ranks, SlotIndex(0)),
            arriving: Lists::new(of_ranks, ExpertId(0)),
            departures: vec![0; shape.experts],
            transactions: Vec::new(),
            sources: Vec::new(),
        };
        // The last rank that each expert stays on or arrives at, counted from 1.
        let mut last = vec![0; shape.experts];
        for rank in 0..shape.ranks {
            let (before, after) = (old.rank(layer, rank.into()), new.rank(layer, rank.into()));
            for expert in before {
                mover.holders.insert(rank, expert.index());
            }
            for &expert in after {
                last[expert.index()] = rank + 1;
                if !mover.holders.has(rank, expert.index()) {
                    mover.arriving.push(rank, expert);
                }
            }
            mover.arriving.of_mut(rank).sort_unstable();
            for (slot, expert) in before.iter().enumerate().filter(|(_, expert)| last[expert.index()] != rank + 1) {
                mover.leaving.push(rank, slot.into());
                mover.departures[expert.index()] += 1;
            }
        }
        mover
    }

    /// Changes every slot that can change alone, because its expert has another copy, until none is left.
    fn move_alone(&mut self) {
        let mut progress = true;
        while progress {
            progress = false;
            for rank in 0..self.of_ranks.ranks() {
                while let Some(index) = self.leaving.of(rank).iter().position(|&slot| self.copies(rank, slot) > 1) {
                    let slot = self.leaving.take(rank, index);
                    let to = self.take_arrival(rank);
                    let change = self.change(rank, slot, to);
                    self.commit(&[change]);
                    progress = true;
                }
            }
        }
    }

    /// Copies of the expert in a slot.
    fn copies(&self, rank: usize, slot: SlotIndex) -> usize {
        self.holders.count(self.expert(rank, slot).index())
    }

    fn expert(&self, rank: usize, slot: SlotIndex) -> ExpertId {
        self.slots[self.of_ranks.of(rank.into()).start + slot.index()]
    }

    /// Of the experts that are to arrive, one whose only copy is to leave another rank comes first: once it is here,
    /// the slot there can change alone too.
    fn take_arrival(&mut self, rank: usize) -> ExpertId {
        let waits = |expert: &ExpertId| self.departures[expert.index()] > 0 && self.holders.count(expert.index()) == 1;
        let index = self.arriving.of(rank).iter().position(waits).unwrap_or(0);
        self.arriving.take(rank, index)
    }

    /// Moves the experts that are left. Each has one copy, so it has one rank to leave and one to arrive at.
    fn move_in_cycles(&mut self) {
        let ranks = self.of_ranks.ranks();
        let mut destination = vec![usize::MAX; self.departures.len()];
        for rank in 0..ranks {
            for expert in self.arriving.of(rank) {
                destination[expert.index()] = rank;
            }
        }
        for start in 0..ranks {
            while !self.leaving.of(start).is_empty() {
                let cycle = self.shortest_cycle(start, &destination);
                let changes = (0..cycle.len()).map(|hop| {
                    let (source, departing) = cycle[hop];
                    let (rank, slot) = cycle[(hop + 1) % cycle.len()];
                    self.change(rank, slot, self.expert(source, departing))
                });
                let mut changes: Vec<SlotChange> = changes.collect();
                changes.sort_unstable_by_key(|change| change.rank);
                for &(rank, slot) in &cycle {
                    let index = self.leaving.of(rank).iter().position(|&other| other == slot);
                    self.leaving.take(rank, index.expect("the cycle goes through slots that are to change"));
                }
                self.commit(&changes);
            }
        }
    }

    /// The (rank, slot) pairs of a shortest cycle through a rank: the expert of each moves to the rank of the next.
    fn shortest_cycle(&self, start: usize, destination: &[usize]) -> Vec<(usize, SlotIndex)> {
        let mut came_from: Vec<Option<(usize, SlotIndex)>> = vec![None; self.of_ranks.ranks()];
        let mut queue = VecDeque::from([start]);
        while let Some(rank) = queue.pop_front() {
            for &slot in self.leaving.of(rank) {
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

    fn change(&self, rank: usize, slot: SlotIndex, to: ExpertId) -> SlotChange {
        let source = self.holders.of(to.index()).next();
        let source = source.expect("every expert has a holder at all times").into();
        SlotChange { rank: rank.into(), slot, from: self.expert(rank, slot), to, source }
    }

    fn commit(&mut self, changes: &[SlotChange]) {
        if self.record == Record::Transactions {
            let holders = changes.iter().map(|change| self.holders.of(change.to.index()));
            self.sources.extend(holders.map(|holders| holders.map(RankId::from).collect()));
            self.transactions.push(Transaction { layer: self.layer, changes: changes.to_vec(), shares: Vec::new() });
        }
        for &SlotChange { rank, slot, from, to, source: _ } in changes {
            self.slots[self.of_ranks.of(rank).start + slot.index()] = to;
            self.holders.remove(rank.index(), from.index());
            self.holders.insert(rank.index(), to.index());
            self.departures[from.index()] -= 1;
        }
    }
}
