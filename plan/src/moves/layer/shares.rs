//! With which steps the shares of a layer change. Knows nothing of how the steps came to be.

use super::Step;
use crate::ids::{ExpertId, LayerId, RankId, SlotIndex};
use crate::map::ExpertMap;
use crate::moves::ShareChange;

/// The shares of `new` for slots in which each rank holds what it holds there, in any order.
pub(super) fn shares_in(slots: &[ExpertId], new: &ExpertMap, layer: LayerId) -> Option<Vec<u32>> {
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

/// Slots of a layer after steps, the shares that they have then if nothing is said of them, and those that are wanted.
pub(super) struct After<'a> {
    pub slots: &'a [Option<ExpertId>],
    pub even: &'a [u32],
    pub wanted: &'a [u32],
}

impl After<'_> {
    /// Has the last step that touches an expert set its shares; what is wanted for those that none touches and that have
    /// other shares `before`.
    pub fn set_shares(&self, steps: &mut [Step], before: &[u32], places: &[(RankId, SlotIndex)]) -> Vec<ShareChange> {
        let experts = self.slots.iter().flatten().map(|expert| expert.index() + 1).max().unwrap_or(0);
        let last = last_steps(steps, experts);
        let held = || self.slots.iter().enumerate().filter_map(|(slot, expert)| Some((slot, expert.as_ref()?.index())));
        let mut differs = vec![false; experts];
        for (slot, expert) in held() {
            let unsaid = if last[expert].is_some() { self.even[slot] } else { before[slot] };
            differs[expert] |= self.wanted[slot] != unsaid;
        }
        let mut rest = Vec::new();
        for (slot, expert) in held().filter(|&(_, expert)| differs[expert]) {
            let (rank, place) = places[slot];
            let change = ShareChange { rank, slot: place, share: self.wanted[slot] };
            last[expert].map_or(&mut rest, |index| &mut steps[index].shares).push(change);
        }
        rest
    }
}

/// The last step that touches each expert, `[experts]`; experts beyond those are no matter.
pub(super) fn last_steps(steps: &[Step], experts: usize) -> Vec<Option<usize>> {
    let mut last = vec![None; experts];
    for (index, step) in steps.iter().enumerate() {
        for expert in step.changes.iter().flat_map(|change| change.from.into_iter().chain([change.to])) {
            if let Some(last) = last.get_mut(expert.index()) {
                *last = Some(index);
            }
        }
    }
    last
}
