//! The search of a packing made from scratch: the change that lowers the busiest rank most. Pages cost nothing here.

use super::packing::Packing;
use super::search::{Change, Choice, Limits, ROUNDING, search};
use crate::tuning::Tuning;

const STEPS_PER_SLOT: usize = 16;

/// The change with the lowest level so far.
struct Lowest {
    level: f64,
    goal: f64,
    change: Option<Change>,
    /// Ranks for each of which one more is looked at, and how many there are at least and at most.
    ranks_a_look: usize,
    least_further: usize,
    most_further: usize,
}

impl Choice for Lowest {
    fn limit(&self) -> f64 {
        self.level
    }

    /// With few ranks the first are as good as any.
    fn look_further(&self, ranks: usize) -> usize {
        (ranks / self.ranks_a_look).max(self.least_further).min(self.most_further)
    }

    fn least_cost(&self, _: &Packing<'_>, _: usize) -> f64 {
        0.0
    }

    fn limit_at(&self, _: f64) -> f64 {
        self.level
    }

    fn limit_of(&self, _: &Packing<'_>, _: Change) -> f64 {
        self.level
    }

    fn offer(&mut self, _: &Packing<'_>, level: f64, change: Change) {
        if level < self.level {
            self.level = level;
            self.change = Some(change);
        }
    }

    fn taken(&self) -> Option<Change> {
        self.change
    }

    fn is_enough(&self) -> bool {
        self.change.is_some() && self.level <= self.goal
    }
}

/// Improves the busiest rank until its level is at most `goal` or nothing helps. Numbers of copies change only while it is
/// above `far`.
pub(in crate::balance) fn improve(packing: &mut Packing<'_>, goal: f64, far: f64) {
    let steps = STEPS_PER_SLOT * packing.slots().len();
    search(packing, Limits { goal, far, steps }, |packing| lowest(packing, goal));
}

/// The same by at most `steps` exchanges, without a change to the numbers of copies.
pub(in crate::balance) fn exchange(packing: &mut Packing<'_>, goal: f64, steps: usize) {
    search(packing, Limits { goal, far: f64::INFINITY, steps }, |packing| lowest(packing, goal));
}

fn lowest(packing: &Packing<'_>, goal: f64) -> Lowest {
    let &Tuning { ranks_a_look, least_further, look_further: most_further, .. } = packing.ranks().tuning();
    let level = packing.top() * (1.0 - ROUNDING);
    Lowest { level, goal, change: None, ranks_a_look, least_further, most_further }
}
