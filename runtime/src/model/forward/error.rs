//! Why a model, or a page of it, is not loaded, and why a step is not run.

use kernels::DeviceError;
use thiserror::Error;

use crate::fabric::FabricError;
use crate::model::checkpoint::CheckpointError;

/// Why a network could not be loaded into a page.
#[derive(Debug, Error)]
pub enum LoadPageError {
    /// Its tensors cannot be read.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The device does not take them.
    #[error(transparent)]
    Device(#[from] DeviceError),
}

impl From<LoadPageError> for LoadModelError {
    fn from(error: LoadPageError) -> Self {
        match error {
            LoadPageError::Checkpoint(error) => Self::Checkpoint(error),
            LoadPageError::Device(error) => Self::Device(error),
        }
    }
}

/// Why a model could not be loaded.
#[derive(Debug, Error)]
pub enum LoadModelError {
    /// Its checkpoint.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The device that it is to be on.
    #[error(transparent)]
    Device(#[from] DeviceError),
}

/// Why a step could not be run.
#[derive(Debug, Error)]
pub enum ForwardError {
    /// The batch is impossible: the coordinator has a mistake.
    #[error("sequence {sequence}: {what} {value} is out of range, the limit is {limit}")]
    Batch {
        /// The sequence.
        sequence: u64,
        /// What is wrong.
        what: &'static str,
        /// Its value.
        value: u64,
        /// The first value that is too large, or the number expected.
        limit: u64,
    },
    /// Rows could not be exchanged.
    #[error(transparent)]
    Fabric(#[from] FabricError),
    /// The device failed.
    #[error(transparent)]
    Device(#[from] DeviceError),
}
