//! What the coordinator and the ranks say to each other. Plain data: framing and sockets are the fabric's.
//!
//! A rank has two connections to the coordinator. The step connection carries [`Step`] down and [`StepDone`] up and
//! nothing else; the rank's engine thread owns it. The control connection carries everything that is not a step
//! ([`ToRank`], [`FromRank`]), so nothing on it can delay one. Pages go between ranks, each asked for by a [`PageRequest`].

mod control;
mod pages;
mod sequences;
mod slot_pairs;
mod steps;

use serde::{Deserialize, Serialize};

pub use self::control::{FromRank, MoveFailure, MoveReport, NotStaged, RankAddress, RankDevice, ToRank};
pub use self::pages::{PageHead, PageRequest};
pub use self::sequences::{Batch, NotKnown, SequenceStep, SequenceWork, Sequences, StepExtent, Tokens};
pub use self::slot_pairs::SlotPairs;
pub use self::steps::{Commit, Sampling, SequenceOutput, Step, StepDone, StepTiming, TokenScore};

/// Version of this protocol; coordinator and ranks of one group must be of one version.
pub const PROTOCOL: u16 = 13;

/// The first version whose members prove themselves: what came before begins a connection otherwise.
pub const FIRST_THAT_PROVES: u16 = 4;

/// Characters of words from a peer that are logged or shown at most; a rank's own reasons have no more.
pub const MOST_WORDS: usize = 1000;

/// A request's sequence, as the coordinator numbers them; never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SequenceId(pub u64);

/// Number of a transaction, as the coordinator numbers them; never reused within a generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TransactionId(pub u64);

/// Number of a rank's process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ProcessId(pub u128);

#[cfg(test)]
pub(crate) mod tests;
