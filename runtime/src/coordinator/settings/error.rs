//! Why a coordinator cannot start with its settings.

use plan::formats::FormatError;
use plan::map::MapError;
use plan::words::counted;
use std::net::SocketAddr;
use thiserror::Error;

use crate::bounds::OutOfBounds;
use crate::experts::record::RecordPathError;
use crate::model::checkpoint::CheckpointError;
use crate::quoted::Quoted;
use crate::server::{KeysError, ServedError};

/// Why a coordinator cannot start so.
#[derive(Debug, Error)]
pub enum SettingsError {
    /// A number is out of bounds.
    #[error(transparent)]
    Bounds(#[from] OutOfBounds),
    /// A sequence that generates needs one token of every step.
    #[error("max-step-tokens is {tokens}, less than the {sequences} of max-running-sequences; raise it")]
    StepTooSmall {
        /// Tokens of a step.
        tokens: usize,
        /// Sequences that run.
        sequences: usize,
    },
    /// Anybody could move experts.
    #[error("the admin API would be open to everybody on {address}; give --admin-token-file, or listen on 127.0.0.1")]
    OpenAdmin {
        /// Where it would listen.
        address: SocketAddr,
    },
    /// The keys of callers are refused.
    #[error(transparent)]
    Keys(#[from] KeysError),
    /// No map can be recorded.
    #[error("no map can be written to the expert-map-record-path {path}: {reason}")]
    RecordPath {
        /// The path.
        path: Quoted,
        /// Why not.
        reason: RecordPathError,
    },
    /// The checkpoint is refused.
    #[error("the model in {path} cannot be served")]
    Checkpoint {
        /// Its folder.
        path: Quoted,
        /// What is wrong with it.
        source: CheckpointError,
    },
    /// Its texts are refused.
    #[error("the model in {path} cannot be served")]
    Served {
        /// Its folder.
        path: Quoted,
        /// What is wrong with it.
        source: ServedError,
    },
    /// Another model was expected.
    #[error("the model has {} in each layer, {expected} were expected (expect-experts)", counted(*found, "expert"))]
    Experts {
        /// Experts of each layer of the checkpoint.
        found: usize,
        /// Experts of each layer that the option names.
        expected: usize,
    },
    /// The model cannot see so far.
    #[error("max-model-len is {asked}, the model was made for {most} tokens")]
    TooLong {
        /// Asked for.
        asked: usize,
        /// The model's bound.
        most: usize,
    },
    /// The experts cannot be placed.
    #[error(transparent)]
    Shape(#[from] MapError),
    /// The map cannot be read.
    #[error("cannot read the expert map {path}")]
    ReadMap {
        /// Its file.
        path: Quoted,
        /// What the system says.
        source: std::io::Error,
    },
    /// The map is refused.
    #[error("the expert map {path} cannot be used")]
    Map {
        /// Its file.
        path: Quoted,
        /// What is wrong with it.
        source: FormatError,
    },
    /// The map is for ranks with unequally many slots.
    #[error(
        "the expert map {path} is for ranks with unequal numbers of slots; ranks that serve here have equally many, so \
         plan a map for such ranks"
    )]
    UnequalRanks {
        /// Its file.
        path: Quoted,
    },
    /// The map does not fit the group.
    #[error(
        "the expert map {path} is for {} of {} per layer, this group has {} of {slots}; plan one for these with \
         'kubectl moe plan' from the load of a window",
        counted(*found_ranks, "rank"),
        counted(*found_slots, "slot"),
        counted(*ranks, "rank")
    )]
    MapShape {
        /// Its file.
        path: Quoted,
        /// Of the map.
        found_ranks: usize,
        /// Of the map.
        found_slots: usize,
        /// Of the group.
        ranks: usize,
        /// Of the group.
        slots: usize,
    },
}
