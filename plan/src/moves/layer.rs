//! The way of one layer to its target.

mod shares;

use std::collections::VecDeque;

use self::shares::{After, last_steps, shares_in};
use super::ShareChange;
use super::holdings::{self, Holdings};
use super::lists::Lists;
use crate::holders::Holders;
use crate::ids::{ExpertId, LayerId, RankId, SlotIndex};
use crate::map::{ExpertMap, even_shares};
use crate::slots::RankSlots;

/// Changes that are applied at once.
pub(super) struct Step {
    pub(super) changes: Vec<Change>,
    pub(super) shares: Vec<ShareChange>,
}

/// A slot gets another expert.
pub(super) struct Change {
    pub(super) rank: RankId,
    pub(super) slot: SlotIndex,
    /// What it holds until then, if it is not empty.
    pub(super) from: Option<ExpertId>,
    pub(super) to: ExpertId,
    /// The ranks that hold `to` before the step, ascending; none if it has no copy.
    pub(super) holders: Vec<RankId>,
}

/// Slots and shares of the layer when the target is reached from what ranks hold; `None` where shares are even.
pub(super) fn after(held: Vec<Option<ExpertId>>, new: &ExpertMap, layer: LayerId) -> (Vec<ExpertId>, Option<Vec<u32>>) {
    let mut mover = Mover::new(held, new, layer, Record::Nothing);
    mover.restore();
    mover.fill();
    mover.finish();
    let slots = full(&mover.slots);
    let shares = shares_in(&slots, new, layer);
    (slots, shares)
}

/// Between maps of the same ranks.
pub(super) fn moves(old: &ExpertMap, new: &ExpertMap, layer: LayerId) -> Vec<Step> {
    let held = old.layer(layer).iter().copied().map(Some).collect();
    let mut mover = Mover::new(held, new, layer, Record::Steps);
    mover.finish();
    let (slots, mut steps) = (full(&mover.slots), mover.steps);
    let shares = shares_in(&slots, new, layer);
    if old.shares(layer).is_some() || shares.is_some() {
        let even = even_shares(&slots, old.shape().experts);
        let wanted = shares.as_deref().unwrap_or(&even);
        let places: Vec<(RankId, SlotIndex)> = old.slots_of_layer().collect();
        let after = After { slots: &mover.slots, even: &even, wanted };
        let rest = after.set_shares(&mut steps, &old.parts(layer), &places);
        if !rest.is_empty() {
            steps.push(Step { changes: Vec::new(), shares: rest });
        }
    }
    steps
}

/// Steps of one change each until every expert has a copy, and from there until no slot is empty.
pub(super) struct Fills {
    pub(super) restore: Vec<Step>,
    pub(super) fill: Vec<Step>,
}

/// From what ranks hold.
pub(super) fn fills(start: &Holdings, new: &ExpertMap, layer: LayerId) -> Fills {
    let mut mover = Mover::new(start.layer(layer).to_vec(), new, layer, Record::Steps);
    mover.restore();
    let restored = mover.steps.len();
    mover.fill();
    let (slots, mut steps) = (&mover.slots, std::mem::take(&mut mover.steps));
    let before = start.parts(layer);
    let even = holdings::even(slots, new.shape().experts);
    let wanted = mover.shares_so_far(new, layer, (&even, before), &steps);
    let places: Vec<(RankId, SlotIndex)> = new.slots_of_layer().collect();
    After { slots, even: &even, wanted: &wanted }.set_shares(&mut steps, before, &places);
    let fill = steps.split_off(restored);
    Fills { restore: steps, fill }
}

fn full(slots: &[Option<ExpertId>]) -> Vec<ExpertId> {
    slots.iter().map(|expert| expert.expect("every slot has an expert at the end")).collect()
}

/// What is kept of the way.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Record {
    /// Only where it ends.
    Nothing,
    /// Each step and who could be the sources of its changes.
    Steps,
}

struct Mover<'a> {
    record: Record,
    of_ranks: &'a RankSlots,
    slots: Vec<Option<ExpertId>>,
    holders: Holders,
    /// Slots of each rank that are empty or whose expert is to leave it, ascending.
    leaving: Lists<'a, SlotIndex>,
    /// Experts that are to arrive at each rank, ascending, as many as it has slots in `leaving`.
    arriving: Lists<'a, ExpertId>,
    /// Number of ranks that each expert is still to leave, `[experts]`.
    departures: Vec<usize>,
    /// Experts without a copy.
    absent: usize,
    steps: Vec<Step>,
}

impl<'a> Mover<'a> {
    /// From the slots of a layer, which are those of `new`'s ranks.
    fn new(held: Vec<Option<ExpertId>>, new: &'a ExpertMap, layer: LayerId, record: Record) -> Self {
        let (shape, of_ranks) = (new.shape(), new.slots_of_ranks());
        let mut mover = Self {
            record,
            of_ranks,
            slots: held,
            holders: Holders::new(shape.experts, shape.ranks),
            leaving: Lists::new(of_ranks, SlotIndex(0)),
            arriving: Lists::new(of_ranks, ExpertId(0)),
            departures: vec![0; shape.experts],
            absent: 0,
            steps: Vec::new(),
        };
        // The last rank that each expert stays on or arrives at, counted from 1.
        let mut last = vec![0; shape.experts];
        for rank in 0..shape.ranks {
            let (before, after) = (&mover.slots[of_ranks.of(rank.into())], new.rank(layer, rank.into()));
            for expert in before.iter().flatten() {
                mover.holders.insert(rank, expert.index());
            }
            for &expert in after {
                last[expert.index()] = rank + 1;
                if !mover.holders.has(rank, expert.index()) {
                    mover.arriving.push(rank, expert);
                }
            }
            mover.arriving.of_mut(rank).sort_unstable();
            let stays = |expert: ExpertId| last[expert.index()] == rank + 1;
            for (slot, expert) in before.iter().enumerate().filter(|(_, expert)| !expert.is_some_and(stays)) {
                mover.leaving.push(rank, slot.into());
                if let Some(expert) = expert {
                    mover.departures[expert.index()] += 1;
                }
            }
        }
        mover.absent = (0..shape.experts).filter(|&expert| mover.holders.count(expert) == 0).count();
        mover
    }

    /// Gives every expert that has no copy one of those that it is to have. Where none of the slots for them can change yet,
    /// another change comes first.
    ///
    /// There always is one: when no slot can change alone, every expert that is to leave a rank has one copy, so it is to arrive
    /// at one too, and as many arrive as leave. That leaves no arrival for an expert without a copy.
    fn restore(&mut self) {
        while self.absent > 0 {
            let absent = self.absent;
            for rank in 0..self.of_ranks.ranks() {
                while let Some((slot, expert)) = self.free(rank).zip(self.arrival(rank, |count, _| count == 0)) {
                    self.change_alone(rank, slot, expert);
                }
            }
            if self.absent == absent {
                self.make_way();
            }
        }
    }

    /// Changes a slot that can change alone, if there is one for an expert whose only copy is to leave another rank.
    fn make_way(&mut self) {
        let ranks = 0..self.of_ranks.ranks();
        let change = |rank: usize| Some((rank, self.free(rank)?, self.waiting(rank)));
        let best = ranks.filter_map(change).min_by_key(|&(_, _, waiting)| waiting.is_none());
        let (rank, slot, waiting) = best.expect("while an expert has no copy, a slot can change alone");
        self.change_alone(rank, slot, waiting.unwrap_or(0));
    }

    /// Gives every empty slot an expert.
    fn fill(&mut self) {
        for rank in 0..self.of_ranks.ranks() {
            let empty =
                |mover: &Self| mover.leaving.of(rank).iter().position(|&slot| mover.expert(rank, slot).is_none());
            while let Some(slot) = empty(self) {
                self.change_alone(rank, slot, self.waiting(rank).unwrap_or(0));
            }
        }
    }

    /// Brings every expert to where it is to go, once each has a copy and no slot is empty.
    fn finish(&mut self) {
        self.move_alone();
        self.move_in_cycles();
    }

    /// Changes every slot that can change alone, because its expert has another copy, until none is left.
    fn move_alone(&mut self) {
        let mut progress = true;
        while progress {
            progress = false;
            for rank in 0..self.of_ranks.ranks() {
                while let Some(slot) = self.free(rank) {
                    self.change_alone(rank, slot, self.waiting(rank).unwrap_or(0));
                    progress = true;
                }
            }
        }
    }

    /// Which of the slots that a rank's experts are to leave can change alone: the first that is empty or whose expert has
    /// another copy.
    fn free(&self, rank: usize) -> Option<usize> {
        let free =
            |&slot: &SlotIndex| self.expert(rank, slot).is_none_or(|expert| self.holders.count(expert.index()) > 1);
        self.leaving.of(rank).iter().position(free)
    }

    /// Which of the experts that are to arrive at a rank comes first: one whose only copy is to leave another rank. Once it is
    /// here, the slot there can change alone too.
    fn waiting(&self, rank: usize) -> Option<usize> {
        self.arrival(rank, |count, departures| count == 1 && departures > 0)
    }

    /// The first expert that is to arrive at a rank of which that holds, given its copies and the ranks that it is to leave.
    fn arrival(&self, rank: usize, holds: impl Fn(usize, usize) -> bool) -> Option<usize> {
        let holds = |expert: &ExpertId| holds(self.holders.count(expert.index()), self.departures[expert.index()]);
        self.arriving.of(rank).iter().position(holds)
    }

    fn expert(&self, rank: usize, slot: SlotIndex) -> Option<ExpertId> {
        self.slots[self.of_ranks.of(rank.into()).start + slot.index()]
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
                    (rank, slot, self.leaves(source, departing))
                });
                let mut changes: Vec<(usize, SlotIndex, ExpertId)> = changes.collect();
                changes.sort_unstable_by_key(|&(rank, _, _)| rank);
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
                let next = destination[self.leaves(rank, slot).index()];
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

    /// The expert that is to leave a slot.
    fn leaves(&self, rank: usize, slot: SlotIndex) -> ExpertId {
        self.expert(rank, slot).expect("empty slots change alone, and before all others")
    }

    /// Has the slot at an index of `leaving` take the expert at one of `arriving`.
    fn change_alone(&mut self, rank: usize, slot: usize, expert: usize) {
        let (slot, expert) = (self.leaving.take(rank, slot), self.arriving.take(rank, expert));
        self.commit(&[(rank, slot, expert)]);
    }

    /// Carries out a step: slots and what they get.
    fn commit(&mut self, changes: &[(usize, SlotIndex, ExpertId)]) {
        if self.record == Record::Steps {
            let change = |&(rank, slot, to): &(usize, SlotIndex, ExpertId)| Change {
                rank: rank.into(),
                slot,
                from: self.expert(rank, slot),
                to,
                holders: self.holders.of(to.index()).map(RankId::from).collect(),
            };
            self.steps.push(Step { changes: changes.iter().map(change).collect(), shares: Vec::new() });
        }
        for &(rank, slot, to) in changes {
            if self.absent > 0 && self.holders.count(to.index()) == 0 {
                self.absent -= 1;
            }
            let place = self.of_ranks.of(rank.into()).start + slot.index();
            if let Some(from) = self.slots[place].replace(to) {
                self.holders.remove(rank, from.index());
                self.departures[from.index()] -= 1;
            }
            self.holders.insert(rank, to.index());
        }
    }

    /// The shares that slots are to have once empty slots are filled: those of the target for experts that a step touched and
    /// none will any more, and what they have anyway for all others.
    fn shares_so_far(
        &self,
        new: &ExpertMap,
        layer: LayerId,
        (even, before): (&[u32], &[u32]),
        steps: &[Step],
    ) -> Vec<u32> {
        let last = last_steps(steps, self.departures.len());
        let mut moves_on: Vec<bool> = self.departures.iter().map(|&departures| departures > 0).collect();
        for expert in (0..self.of_ranks.ranks()).flat_map(|rank| self.arriving.of(rank)) {
            moves_on[expert.index()] = true;
        }
        let targets = new.parts(layer);
        let mut wanted = before.to_vec();
        for rank in (0..self.of_ranks.ranks()).map(RankId::from) {
            for slot in self.of_ranks.of(rank) {
                let Some(expert) = self.slots[slot] else { continue };
                if last[expert.index()].is_none() {
                    continue;
                }
                let target = new.rank(layer, rank).iter().position(|&other| other == expert);
                wanted[slot] = match target {
                    Some(place) if !moves_on[expert.index()] => targets[self.of_ranks.of(rank).start + place],
                    _ => even[slot],
                };
            }
        }
        wanted
    }
}
