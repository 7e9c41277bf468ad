//! Whether the moves to a target map are worth it. Knows nothing of how the target was found.

mod figures;

use serde::{Deserialize, Serialize};
use strum::{Display, EnumIter, IntoStaticStr};

use crate::coverage::Coverage;
use crate::expected::Expected;
use crate::map::ExpertMap;
use crate::moves::Transaction;
use crate::topology::Topology;
use crate::tuning::Tuning;

pub use figures::{Figures, moving_seconds};

/// The gain in balance ratio from which on pages move, usually: [`Tuning::minimum_gain`].
pub const MINIMUM_GAIN: f64 = Tuning::PRODUCT.minimum_gain;

/// What plans are measured by.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Terms {
    /// The least gain in balance ratio, over the expected life of the plan, for which anything is moved.
    pub minimum_gain: f64,
    /// Bytes of one page, which is one expert of one layer.
    pub page_bytes: u64,
    /// Bytes per second that a rank may receive while it serves, if there is a limit beside its links.
    pub bytes_per_second: Option<f64>,
    /// Seconds for which the plan is expected to be in force, usually the length of a window.
    pub lifetime_seconds: f64,
    /// Part of the step time that is lost while pages move over a link.
    pub moving_cost: f64,
    /// Bytes that one rebalance may move, if there is a limit: of a larger plan, the part that pays most is carried out.
    pub byte_budget: Option<u64>,
    /// Windows after one that moved pages in which none move.
    pub cool_down: u64,
    /// The least gain right after a move is larger by this many times itself, half as many with each further window: what
    /// was moved is not moved back for the noise of a window.
    pub hysteresis: f64,
}

impl Terms {
    /// Terms without limits for pages of a size and plans of a life, with what is usual otherwise.
    #[must_use]
    pub const fn usual(page_bytes: u64, lifetime_seconds: f64) -> Self {
        Self::tuned(page_bytes, lifetime_seconds, &Tuning::PRODUCT)
    }

    /// The same with other numbers than the product's.
    #[must_use]
    pub const fn tuned(page_bytes: u64, lifetime_seconds: f64, tuning: &Tuning) -> Self {
        Self {
            minimum_gain: tuning.minimum_gain,
            page_bytes,
            bytes_per_second: None,
            lifetime_seconds,
            moving_cost: tuning.moving_cost,
            byte_budget: None,
            cool_down: 0,
            hysteresis: tuning.hysteresis,
        }
    }

    /// The least gain after a history.
    fn wanted_gain(&self, history: &History) -> f64 {
        let band = history
            .windows_since_move
            .map_or(0.0, |windows| self.hysteresis * 0.5_f64.powi(windows.saturating_sub(1).min(64) as i32));
        self.minimum_gain * (1.0 + band)
    }
}

/// What was decided before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct History {
    /// Windows that have closed since pages last moved, this one included; `None` if none have.
    pub windows_since_move: Option<u64>,
}

/// Why experts move, or do not.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Display, EnumIter, IntoStaticStr,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum Reason {
    /// Moves: the gain is worth the bytes.
    WorthIt,
    /// Moves: the part of the plan that the byte budget allows is worth its bytes.
    CutToBudget,
    /// Moves: more experts survive the losses that the coverage asked for names, whatever it gains.
    Covers,
    /// Moves: only shares change, which costs no byte.
    SharesOnly,
    /// Stays: the target is the map in force.
    SamePlacement,
    /// Stays: the target balances the load too little better.
    GainTooSmall,
    /// Stays: the gain would be enough, but pages have moved lately.
    WithinBand,
    /// Stays: pages have moved so lately that no gain would be enough.
    CoolingDown,
    /// Stays: the gain would be enough, but not for what is left of the plan's life once its pages have moved.
    MovesTooLong,
    /// Stays: the time that moving costs is more than what it saves.
    CostsMoreThanItSaves,
    /// Stays: the byte budget allows no part of the plan.
    OverBudget,
}

impl Reason {
    /// Whether anything moves.
    #[must_use]
    pub const fn moves(self) -> bool {
        matches!(self, Self::WorthIt | Self::CutToBudget | Self::Covers | Self::SharesOnly)
    }
}

/// Whether to move, and everything that decided it. It can be logged, read and decided again.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Decision {
    /// What, and why.
    pub reason: Reason,
    /// What was predicted.
    pub figures: Figures,
    /// What it was measured by.
    pub terms: Terms,
    /// What had been decided before.
    pub history: History,
}

impl Decision {
    /// Whether anything moves: the first [`Figures::transactions`] transactions then.
    #[must_use]
    pub const fn moves(&self) -> bool {
        self.reason.moves()
    }

    /// The reason again, from figures, terms and history.
    #[must_use]
    pub fn replay(&self) -> Reason {
        judge(&self.figures, &self.terms, &self.history, &Tuning::PRODUCT)
    }
}

/// A plan to decide on.
#[derive(Clone, Copy, Debug)]
pub struct Case<'a> {
    /// What the plan was made for.
    pub expected: &'a Expected,
    /// The map in force.
    pub current: &'a ExpertMap,
    /// Its ranks.
    pub topology: &'a Topology,
    /// Transactions that apply to it one after the other, those first that pay most.
    pub transactions: &'a [Transaction],
    /// What may be lost with every expert still present.
    pub min_coverage: Coverage,
}

/// Decides whether a plan is worth its bytes. Everything of the case is of one model and group.
#[must_use]
pub fn decide(case: &Case<'_>, terms: &Terms, history: History) -> Decision {
    decide_with(case, terms, history, &Tuning::PRODUCT)
}

/// [`decide`] with other numbers than the product's.
pub(crate) fn decide_with(case: &Case<'_>, terms: &Terms, history: History, tuning: &Tuning) -> Decision {
    let figures = figures::predict(case, terms);
    Decision { reason: judge(&figures, terms, &history, tuning), figures, terms: *terms, history }
}

fn judge(figures: &Figures, terms: &Terms, history: &History, tuning: &Tuning) -> Reason {
    let gain = figures.ratio_after - figures.ratio_before;
    let enough = |gain: f64, least: f64| gain > 0.0 && gain >= least;
    if figures.transactions == 0 {
        return if figures.left_out == 0 { Reason::SamePlacement } else { Reason::OverBudget };
    }
    if figures.uncovered_after < figures.uncovered_before {
        return Reason::Covers;
    }
    if figures.pages == 0 {
        return if enough(gain, tuning.least_gain_of_shares) { Reason::SharesOnly } else { Reason::GainTooSmall };
    }
    if history.windows_since_move.is_some_and(|windows| windows <= terms.cool_down) {
        return Reason::CoolingDown;
    }
    if !enough(gain, terms.minimum_gain) {
        return Reason::GainTooSmall;
    }
    if !enough(gain, terms.wanted_gain(history)) {
        return Reason::WithinBand;
    }
    if !enough(figures.lasting_gain, terms.minimum_gain) {
        return Reason::MovesTooLong;
    }
    if figures.seconds_saved <= figures.seconds_spent {
        return Reason::CostsMoreThanItSaves;
    }
    if figures.left_out > 0 { Reason::CutToBudget } else { Reason::WorthIt }
}

#[cfg(test)]
mod tests;
