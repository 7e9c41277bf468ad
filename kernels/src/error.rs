//! What goes wrong on a device.

use thiserror::Error;

/// Why a device did not do something. What goes wrong while operations run is kept, and told when their step is collected.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum DeviceError {
    /// It gives no memory. It may give less, or later.
    #[error("the device does not give {bytes} bytes of memory")]
    Memory {
        /// What was asked for.
        bytes: u64,
    },
    /// Its threads could not be started.
    #[error("could not start {threads} compute threads: {reason}")]
    Threads {
        /// Threads asked for.
        threads: usize,
        /// What the system says.
        reason: String,
    },
    /// It cannot be used at all, or not for this model.
    #[error("{reason}")]
    Unusable {
        /// What was found, what is needed and what to do.
        reason: String,
    },
    /// Operations of a step failed; nothing that the step gave can be used.
    #[error("the device failed in a step: {reason}")]
    Failed {
        /// What it says.
        reason: String,
        /// Whether the device can still be used, in a group that is formed again.
        usable: bool,
    },
}

impl DeviceError {
    /// Whether the same may succeed when it is tried again by this process.
    #[must_use]
    pub const fn is_worth_a_retry(&self) -> bool {
        match self {
            Self::Memory { .. } | Self::Threads { .. } => true,
            Self::Unusable { .. } => false,
            Self::Failed { usable, .. } => *usable,
        }
    }
}
