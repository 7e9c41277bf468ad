//! What a coordinator tells of its last decision on a plan: everything that decided it, so that it can be read and decided
//! again. Documents of their own: the planner's types change as planning does.

use serde::{Deserialize, Serialize};

use super::Told;

/// Why experts move, or do not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, strum::Display)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum DecisionReason {
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

/// Whether to move, and why.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DecisionReport {
    /// What, and why.
    pub reason: Told<DecisionReason>,
    /// What was predicted.
    pub figures: DecisionFigures,
    /// What it was measured by.
    pub terms: DecisionTerms,
    /// What had been decided before.
    pub history: DecisionHistory,
}

/// What was predicted of carrying out a plan.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DecisionFigures {
    /// Balance ratio of the map in force.
    pub ratio_before: f64,
    /// Balance ratio once everything has moved.
    pub ratio_after: f64,
    /// Part of the experts' time in a step that is saved, 0 to 1.
    pub time_saved: f64,
    /// Experts, over all layers, that a loss which the coverage asked for names could take away now.
    pub uncovered_before: u64,
    /// The same once everything has moved.
    pub uncovered_after: u64,
    /// Transactions that are carried out.
    pub transactions: u64,
    /// Transactions of the plan that the byte budget leaves out.
    pub left_out: u64,
    /// Pages that ranks receive from others.
    pub pages: u64,
    /// Those of them that come from another node.
    pub pages_between_nodes: u64,
    /// Bytes of all of them.
    pub bytes: u64,
    /// Seconds until the busiest link has carried everything.
    pub moving_seconds: f64,
    /// Gain in balance ratio over the life of the plan.
    pub lasting_gain: f64,
    /// Seconds of the experts' time that the plan saves in its life.
    pub seconds_saved: f64,
    /// Seconds that moving takes from steps.
    pub seconds_spent: f64,
}

/// What the plan was measured by.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DecisionTerms {
    /// The least gain in balance ratio for which anything is moved.
    pub minimum_gain: f64,
    /// Bytes of one page.
    pub page_bytes: u64,
    /// Bytes per second that a rank may receive while it serves, if there is a limit.
    pub bytes_per_second: Option<f64>,
    /// Seconds for which the plan is expected to be in force.
    pub lifetime_seconds: f64,
    /// Part of the step time that is lost while pages move over a link.
    pub moving_cost: f64,
    /// Bytes that one rebalance may move, if there is a limit.
    pub byte_budget: Option<u64>,
    /// Windows after one that moved pages in which none move.
    pub cool_down: u64,
    /// By how many times itself the least gain is larger right after a move.
    pub hysteresis: f64,
}

/// What had been decided before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DecisionHistory {
    /// Windows that have closed since pages last moved, the one that was decided on included; `None` if none have moved.
    pub windows_since_move: Option<u64>,
}
