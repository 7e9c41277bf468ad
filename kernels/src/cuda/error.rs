//! Why this machine's GPU cannot be used.

use thiserror::Error;

use super::failure::Failure;
use crate::error::DeviceError;

/// What is missing, in a sentence that says what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CudaError {
    /// The driver's library is not there.
    #[error(
        "there is no CUDA driver: neither {names} is in {folders}; run where NVIDIA's driver is, or with --backend cpu"
    )]
    NoDriver {
        /// Names of the library that were tried.
        names: String,
        /// Where they were looked for.
        folders: String,
    },
    /// It is too old.
    #[error("the CUDA driver is for CUDA {found}, and {needs} needs {needed}; update the driver, or use --backend cpu")]
    OldDriver {
        /// Its version.
        found: Version,
        /// What needs more.
        needs: &'static str,
        /// The least version.
        needed: Version,
    },
    /// There is no such GPU.
    #[error(
        "there is no GPU {device}: the CUDA driver shows {count}; check CUDA_VISIBLE_DEVICES, or use --backend cpu"
    )]
    NoDevice {
        /// Its number.
        device: usize,
        /// How many there are.
        count: usize,
    },
    /// The chip lacks instructions that the kernels use.
    #[error(
        "GPU {device} ({name}) has compute capability {found}, and the kernels need {needed}; use a newer GPU or --backend cpu"
    )]
    OldChip {
        /// The GPU's number.
        device: usize,
        /// Its name.
        name: String,
        /// What it has.
        found: Version,
        /// The least.
        needed: Version,
    },
    /// The kernels are neither compiled nor compilable.
    #[error(
        "this build has no compiled kernels, and NVRTC (libnvrtc.so) is not in {folders} to compile them; build with \
         SWIFTBALANCER_NVCC set, see docs/gpu.md, or install NVRTC"
    )]
    NoCompiler {
        /// Where NVRTC was looked for.
        folders: String,
    },
    /// NVRTC does not take the kernels.
    #[error("NVRTC did not compile {file} for compute capability {capability}: {log}")]
    NotCompiled {
        /// The source.
        file: &'static str,
        /// Of the GPU.
        capability: Version,
        /// The end of what it says.
        log: String,
    },
    /// The driver does not take the compiled kernels.
    #[error("GPU {device} ({name}, compute capability {capability}) takes none of the kernels of {file}: {reason}")]
    NotLoaded {
        /// The GPU's number.
        device: usize,
        /// Its name.
        name: String,
        /// What it has.
        capability: Version,
        /// The source.
        file: &'static str,
        /// What the driver says.
        reason: String,
    },
    /// The driver refuses something else.
    #[error("GPU {device} cannot be used: {reason}")]
    Refused {
        /// The GPU's number.
        device: usize,
        /// What was to be done and what the driver says.
        reason: String,
    },
}

/// A version of two numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// The first.
    pub major: u32,
    /// The second.
    pub minor: u32,
}

impl std::fmt::Display for Version {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}.{}", self.major, self.minor)
    }
}

impl CudaError {
    pub(super) fn refused(device: usize, failure: Failure) -> Self {
        Self::Refused { device, reason: failure.words() }
    }

    pub(super) fn not_given(device: usize, error: &DeviceError) -> Self {
        Self::Refused { device, reason: error.to_string() }
    }
}

impl From<CudaError> for DeviceError {
    fn from(error: CudaError) -> Self {
        let reason = error.to_string();
        match error {
            // What the driver refuses one process, such as memory that another is about to free, it may give the next.
            CudaError::Refused { .. } => Self::Failed { reason, usable: false },
            CudaError::NoDriver { .. }
            | CudaError::OldDriver { .. }
            | CudaError::NoDevice { .. }
            | CudaError::OldChip { .. }
            | CudaError::NoCompiler { .. }
            | CudaError::NotCompiled { .. }
            | CudaError::NotLoaded { .. } => Self::Unusable { reason },
        }
    }
}
