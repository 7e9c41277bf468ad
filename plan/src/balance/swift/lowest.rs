//! The search of a packing made from scratch: the change that lowers the busiest rank most. Pages cost nothing here.

use super::packing::Packing;
use super::search::{Change, Choice, Limits, ROUNDING, search};

const STEPS_PER_SLOT: usize = 16;

/// The change with the lowest level so far.
struct Lowest {
    level: f64,
    goal: f64,
    change: Option<Change>,
}

impl Choice for Lowest {
    fn limit(&self) -> f64 {
        self.level
    }

    /// With few ranks the first are as good as any.
    fn look_further(&self, ranks: usize) -> usize {
        (ranks / 8).clamp(3, 8)
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
    search(packing, Limits { goal, far, steps }, |packing| lowest(packing.top(), goal));
}

/// The same by at most `steps` exchanges, without a change to the numbers of copies.
pub(in crate::balance) fn exchange(packing: &mut Packing<'_>, goal: f64, steps: usize) {
    search(packing, Limits { goal, far: f64::INFINITY, steps }, |packing| lowest(packing.top(), goal));
}

fn lowest(top: f64, goal: f64) -> Lowest {
    Lowest { level: top * (1.0 - ROUNDING), goal, change: None }
}
