//! Why a process of ranks ends other than by being told to.

use std::io;
use std::net::SocketAddr;

use kernels::DeviceError;
use plan::ids::RankId;
use thiserror::Error;

use super::session::EngineHangs;
use crate::experts::load::LoadError;
use crate::fabric::exchange::means::Refusal;
use crate::memory::TooLarge;
use crate::model::checkpoint::CheckpointError;
use crate::model::forward::LoadModelError;
use crate::threads::ThreadEnded;

/// See the module's documentation.
#[derive(Debug, Error)]
pub enum WorkerError {
    /// Its model cannot be served.
    #[error("the checkpoint cannot be served")]
    Checkpoint(#[from] CheckpointError),
    /// It would take more memory than there is.
    #[error(transparent)]
    Memory(#[from] TooLarge),
    /// There is no memory for its KV cache now.
    #[error("{0} for its KV cache; lower kv-blocks, or leave it more memory")]
    Cache(DeviceError),
    /// Its experts cannot be loaded.
    #[error("the experts cannot be loaded")]
    Experts(#[source] LoadError),
    /// It cannot exchange rows with others as it is asked to.
    #[error(transparent)]
    Exchange(Refusal),
    /// Its device cannot be used.
    #[error("the device cannot be used")]
    Device(#[from] DeviceError),
    /// An address cannot be used.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address that was to be listened on.
        address: SocketAddr,
        /// What the system says of it.
        source: io::Error,
    },
    /// The system gives no threads.
    #[error("the system gives no threads")]
    System(#[from] io::Error),
    /// A thread that it cannot do without has ended.
    #[error(transparent)]
    Thread(#[from] ThreadEnded),
    /// Its engine does not come back from a step.
    #[error(transparent)]
    Engine(#[from] EngineHangs),
    /// The coordinator does not want it.
    #[error("the coordinator refused this rank: {reason}")]
    Refused {
        /// Why, and what to do.
        reason: String,
    },
    /// One rank of several in a process has ended, and with it the process.
    #[error("{rank} of this process cannot go on")]
    OfSeveral {
        /// The one that has ended first.
        rank: RankId,
        /// Why it did.
        source: Box<WorkerError>,
    },
}

impl WorkerError {
    /// Whether starting again is of no use until somebody changes the checkpoint or the device.
    pub(super) fn is_permanent(&self) -> bool {
        match self {
            Self::Checkpoint(error) => error.is_permanent(),
            Self::Experts(error) => error.is_permanent(),
            Self::Memory(_) | Self::Exchange(_) => true,
            Self::Device(error) => error.is_permanent(),
            Self::OfSeveral { source, .. } => source.is_permanent(),
            Self::Cache(_)
            | Self::Listen { .. }
            | Self::System(_)
            | Self::Thread(_)
            | Self::Engine(_)
            | Self::Refused { .. } => false,
        }
    }

    /// Why there is no KV cache.
    pub(super) fn of_cache(error: DeviceError) -> Self {
        if matches!(error, DeviceError::Memory { .. }) { Self::Cache(error) } else { Self::Device(error) }
    }
}

impl From<LoadModelError> for WorkerError {
    fn from(error: LoadModelError) -> Self {
        match error {
            LoadModelError::Checkpoint(error) => Self::Checkpoint(error),
            LoadModelError::Device(error) => Self::Device(error),
        }
    }
}
