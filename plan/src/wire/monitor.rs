//! The document of what goes on now, made to be asked for several times a second: what `kubectl moe monitor` and the page at the
//! admin port show. Whoever shows it keeps the document before and works with differences: counts only rise.

use serde::{Deserialize, Serialize};

use super::{DecisionReason, DecisionReport, ModelIdentity, MoveTotals, Phase, Told, WireError, model, read};

/// `GET` [`super::path::MONITOR`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MonitorDocument {
    /// [`super::VERSION`].
    pub version: String,
    /// The model that is served.
    #[serde(deserialize_with = "model::answered")]
    pub model: ModelIdentity,
    /// Whether requests are served.
    pub ready: bool,
    /// Why they are not, if so.
    pub reason: Option<String>,
    /// Seconds since the coordinator started: the clock of the document. Less than before means another process.
    pub seconds: f64,
    /// Number of the group: rises each time that it is formed.
    pub generation: u64,
    /// Epoch of the map in force.
    pub epoch: u64,
    /// What the rebalancer does.
    pub phase: Told<Phase>,
    /// Steps run.
    pub steps: u64,
    /// Sequences that wait for a place.
    pub waiting: u64,
    /// Sequences that run.
    pub running: u64,
    /// Tokens of prompts taken.
    pub prompt_tokens: u64,
    /// Tokens generated.
    pub completion_tokens: u64,
    /// Seconds that commits added to steps, on the slowest rank.
    pub stall_seconds: f64,
    /// Latencies of the last seconds.
    pub latency: Latency,
    /// (token, expert) pairs that each rank has computed, `[layers][ranks]`, counted for 2 seconds after each request for this document:
    /// whoever asks once a second or more often sees all of them.
    pub pairs: Vec<Vec<u64>>,
    /// Ratio of the last window that closed.
    pub ratio: Option<f64>,
    /// Totals of moves.
    pub moves: MoveTotals,
    /// The last decision on a plan, with its figures.
    pub decision: Option<DecisionReport>,
    /// What happened, the oldest first: all that is kept, or what came after the number asked for.
    pub events: Vec<MonitorEvent>,
}

/// Latencies as they were over some seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Latency {
    /// The seconds that they are of.
    pub over_seconds: f64,
    /// From submission to the first token.
    pub first_token: Option<Quantiles>,
    /// From one token of a sequence to its next.
    pub inter_token: Option<Quantiles>,
    /// From sending a step, or having the answers to the one before, to having every rank's answer.
    pub step: Option<Quantiles>,
}

/// How a number of durations are spread. Seconds, within 1 %.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Quantiles {
    /// How many.
    pub count: u64,
    /// Half are no longer.
    pub p50: f64,
    /// 90 % are no longer.
    pub p90: f64,
    /// 99 % are no longer.
    pub p99: f64,
    /// None is longer.
    pub most: f64,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MonitorEvent {
    /// Its number, from 1, without gaps.
    pub number: u64,
    /// When, seconds since the coordinator started.
    pub seconds: f64,
    /// What it was.
    pub what: Happening,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Happening {
    /// The ranks form a group.
    Formed {
        /// Its number.
        generation: u64,
    },
    /// The group was lost.
    Lost {
        /// Why it was lost, in words for people.
        reason: String,
    },
    /// A window has closed.
    Window {
        /// Its number, from 1.
        number: u64,
        /// Steps in it.
        steps: u64,
        /// Its measured ratio.
        ratio: f64,
    },
    /// Whether a plan is worth it was decided.
    Decided {
        /// Why experts move, or do not.
        reason: Told<DecisionReason>,
        /// Ratio of the map in force.
        ratio_before: f64,
        /// Ratio once everything has moved.
        ratio_after: f64,
        /// Pages that move.
        pages: u64,
        /// Bytes of them.
        bytes: u64,
    },
    /// Experts will move.
    Planned {
        /// How many transactions the plan has.
        transactions: u64,
        /// Pages between ranks.
        pages: u64,
    },
    /// Nothing moves.
    Kept {
        /// Why nothing is to move, in words for people.
        reason: String,
    },
    /// A transaction is in force.
    Committed {
        /// Its layer.
        layer: u32,
        /// The epoch since.
        epoch: u64,
        /// Bytes of its pages.
        bytes: u64,
        /// The pages that went between ranks; none where shares or places on a rank alone changed.
        moved: Vec<MovedExpert>,
    },
    /// A transaction was taken back.
    Aborted {
        /// The kind of reason and what failed, in words for people.
        reason: String,
    },
    /// Every transaction of a plan is in force.
    Completed {
        /// The epoch since.
        epoch: u64,
        /// Pages between ranks.
        pages: u64,
        /// Bytes of them.
        bytes: u64,
        /// Steps from its first order to its last commit.
        steps: u64,
    },
    /// The rest of a plan was given up.
    Dropped {
        /// Why it was given up, in words for people.
        reason: String,
    },
    /// What only another release tells.
    #[serde(other)]
    Other,
}

/// A page that went from rank to rank.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MovedExpert {
    /// The expert of the layer.
    pub expert: u32,
    /// A rank that held it.
    pub from: u32,
    /// The rank that holds it now.
    pub to: u32,
}

impl MonitorDocument {
    /// Reads a document, its version first.
    ///
    /// # Errors
    /// If it is no JSON, of another version, or lacks a field.
    pub fn from_json(json: &[u8]) -> Result<Self, WireError> {
        read(json)
    }
}
