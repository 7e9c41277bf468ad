//! The document of what the coordinator does: its ranks, its map, its windows and moves.

use serde::{Deserialize, Serialize};

use super::{DecisionReport, ModelIdentity, Told, WireError, model, read};

/// What the rebalancer is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, strum::Display)]
#[serde(rename_all = "camelCase")]
pub enum Phase {
    /// `dynamic_eplb` is off: load is counted, nothing moves unless it is asked for.
    Off,
    /// Load of the current window is being counted.
    Collecting,
    /// A window has closed; a plan is being made or waits for `num_wait_worker_iterations`.
    Planning,
    /// Transactions are being staged and committed.
    Moving,
}

/// One closed window.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WindowReport {
    /// Its number, from 1.
    pub number: u64,
    /// Steps in it.
    pub steps: u64,
    /// (token, expert) pairs counted in it, over all layers.
    pub pairs: u64,
    /// Measured `expert_load_balance_ratio` of the window: each rank's own count of tokens it computed.
    pub ratio: f64,
    /// The same per layer, `[layers]`.
    pub ratio_per_layer: Vec<f64>,
}

/// Totals since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MoveTotals {
    /// Rebalances whose every transaction was committed.
    pub rebalances: u64,
    /// Rebalances that were decided against, for lack of gain.
    pub skipped: u64,
    /// Transactions committed.
    pub committed: u64,
    /// Transactions aborted.
    pub aborted: u64,
    /// Pages received by ranks.
    pub experts_moved: u64,
    /// Bytes of those pages.
    pub bytes_moved: u64,
}

/// What the coordinator knows of one rank.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RankState {
    /// Its number.
    pub rank: u32,
    /// Whether it is connected and part of the group.
    pub connected: bool,
    /// Host and port of its move path; empty while it is not connected.
    pub address: String,
    /// Name of the node that it is on; empty while it is not connected, and from releases that do not tell it.
    #[serde(default)]
    pub node: String,
    /// What it computes on, kind and product; empty while it is not connected, and from releases that do not tell it.
    #[serde(default)]
    pub device: String,
    /// Bytes of memory that its weights, pages and cache can have at most; 0 while that is not known, as of `device`.
    #[serde(default)]
    pub memory: u64,
    /// How it exchanges rows with the other ranks; empty while it is not connected, where it is alone, and from releases that do not
    /// tell it.
    #[serde(default)]
    pub exchange: String,
}

/// `GET` [`super::path::STATE`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct State {
    /// [`VERSION`].
    pub version: String,
    /// The model that is served.
    #[serde(deserialize_with = "model::answered")]
    pub model: ModelIdentity,
    /// Whether requests are served: every rank is part of the group.
    pub ready: bool,
    /// Number of the group: rises each time that ranks are lost and the group is formed again.
    pub generation: u64,
    /// Every rank, in order.
    pub ranks: Vec<RankState>,
    /// Epoch of the map in force.
    pub epoch: u64,
    /// Content hash of the map in force.
    pub map_hash: String,
    /// Whether the serving started from a given map.
    pub static_map: bool,
    /// Steps run.
    pub steps: u64,
    /// What the rebalancer does.
    pub phase: Told<Phase>,
    /// Steps of the current window so far.
    pub window_steps: u64,
    /// The last closed window.
    pub last_window: Option<WindowReport>,
    /// The first window of this serving, kept: it tells what a static map was worth.
    pub first_window: Option<WindowReport>,
    /// Transactions planned and not yet committed or aborted.
    pub pending_transactions: u64,
    /// Totals since the start.
    pub moves: MoveTotals,
    /// Content hash of the last recorded map, if there is one.
    pub recorded_map_hash: Option<String>,
    /// The last decision on a plan, with its figures.
    pub last_decision: Option<DecisionReport>,
    /// Why the rebalancer cannot do its work, if so.
    pub degraded: Option<String>,
    /// Why requests are refused until somebody changes something, if so: a rank that cannot serve its checkpoint, in
    /// its own words. It ends when that rank is replaced by one that can.
    pub failure: Option<String>,
}

impl State {
    /// Reads a document, its version first.
    ///
    /// # Errors
    /// If it is no JSON, of another version, or lacks a field.
    pub fn from_json(json: &[u8]) -> Result<Self, WireError> {
        read(json)
    }
}
