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
    /// Operations failed; nothing that they gave can be used.
    #[error("the device failed: {reason}")]
    Failed {
        /// What it says.
        reason: String,
        /// Whether the device can still be used, in a group that is formed again.
        usable: bool,
    },
}

impl DeviceError {
    /// Whether the same may succeed when it is tried again by this process. Where it may not, see
    /// [`Self::is_permanent`].
    #[must_use]
    pub const fn is_worth_a_retry(&self) -> bool {
        match self {
            Self::Memory { .. } | Self::Threads { .. } => true,
            Self::Unusable { .. } => false,
            Self::Failed { usable, .. } => *usable,
        }
    }

    /// Whether starting the process again is of no use either, until somebody changes the device, the model or the settings. A
    /// device that was lost is another's for another process; one that cannot be used is as useless to the next.
    #[must_use]
    pub const fn is_permanent(&self) -> bool {
        match self {
            Self::Memory { .. } | Self::Threads { .. } | Self::Failed { .. } => false,
            Self::Unusable { .. } => true,
        }
    }
}
