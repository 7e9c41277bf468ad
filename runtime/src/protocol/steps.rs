//! A step on its way to a rank, and its answer.

use std::borrow::Cow;

use plan::moves::Transaction;
use serde::{Deserialize, Serialize};

use super::{Batch, SequenceId, SlotPairs, StepExtent, TransactionId};

/// One step, to one rank. Every rank runs every step, since every rank holds experts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Step<'a> {
    /// The group it belongs to.
    pub generation: u64,
    /// Counts from 1 within the coordinator's life.
    pub number: u64,
    /// Map changes that take effect at the start of this step; the same on every rank.
    pub commits: Cow<'a, [Commit]>,
    /// How much it is where it is most; the same on every rank.
    pub extent: StepExtent,
    /// What the rank's sequences are from now on and what is done to them.
    pub batch: Batch,
}

/// A transaction whose every receiver has staged its pages.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Commit {
    /// The transaction.
    pub transaction: TransactionId,
    /// Epoch of the map after it.
    pub epoch: u64,
    /// What it changes, as it was planned.
    pub work: Transaction,
}

/// How to choose a token. Equal logits, settings and position give the equal token on every rank.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Sampling {
    /// 0 is greedy.
    pub temperature: f32,
    /// In (0, 1]; 1 is off.
    pub top_p: f32,
    /// 0 is off.
    pub top_k: u32,
    /// Seed of the request.
    pub seed: u64,
    /// Whether to report the chosen token's log-probability (of the unmodified logits).
    pub logprob: bool,
}

impl Sampling {
    /// The best token, whatever it is, and nothing told of it.
    pub const GREEDY: Self = Self { temperature: 0.0, top_p: 1.0, top_k: 0, seed: 0, logprob: false };
}

/// A rank's answer to a step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepDone {
    /// The group.
    pub generation: u64,
    /// The step.
    pub number: u64,
    /// One entry for each sequence of the batch, in its order.
    pub outputs: Vec<SequenceOutput>,
    /// What this rank computed in each of its slots.
    pub slot_pairs: SlotPairs,
    /// Where the step's time went, microseconds.
    pub timing: StepTiming,
}

/// Where a step's time went on one rank, microseconds: all of it and the commits by the host's clock, the rest by the device's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepTiming {
    /// From receipt of the step to its answer.
    pub total: u32,
    /// Applying commits.
    pub commit: u32,
    /// Waiting for and carrying rows of other ranks.
    pub exchange: u32,
    /// Expert arithmetic.
    pub experts: u32,
}

/// What a step gave for one sequence.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SequenceOutput {
    /// The sequence.
    pub sequence: SequenceId,
    /// The token sampled, if one was asked for.
    pub token: Option<TokenScore>,
    /// Scores asked for, in the order of `tokens`; `None` where none was.
    pub scores: Vec<Option<TokenScore>>,
    /// Logits that it asked for were no numbers: nothing can be chosen or scored by them, now or later.
    pub no_numbers: bool,
}

/// A token and how likely it was.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TokenScore {
    /// The token.
    pub token: u32,
    /// Its log-probability under the unmodified logits; 0 where it was not asked for.
    pub logprob: f32,
    /// The best tokens, best first, with their log-probabilities.
    pub top: Vec<(u32, f32)>,
}
