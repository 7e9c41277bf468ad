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
    /// What NVRTC makes is for newer drivers.
    #[error(
        "the CUDA driver is for CUDA {found}, and takes nothing that NVRTC {compiler} compiles; update the driver, install NVRTC \
         {found}, or use --backend cpu"
    )]
    NewCompiler {
        /// The driver's version.
        found: Version,
        /// NVRTC's.
        compiler: Version,
    },
    /// NVRTC does not take the kernels.
    #[error(
        "NVRTC {compiler} did not compile {file} for compute capability {capability}: {log}; install one that is made for this \
         GPU, or use --backend cpu"
    )]
    NotCompiled {
        /// NVRTC's version.
        compiler: Version,
        /// The source.
        file: &'static str,
        /// Of the GPU.
        capability: Version,
        /// The end of what it says.
        log: String,
    },
    /// The driver does not take the compiled kernels.
    #[error(
        "GPU {device} ({name}, compute capability {capability}) takes none of the kernels of {file} by {compiler} with its driver for \
         CUDA {driver}: {reason}; update the driver, or use --backend cpu"
    )]
    NotLoaded {
        /// The GPU's number.
        device: usize,
        /// Its name.
        name: String,
        /// What it has.
        capability: Version,
        /// The source.
        file: &'static str,
        /// What compiled it, with its version.
        compiler: String,
        /// The driver's version.
        driver: Version,
        /// What the driver says.
        reason: String,
    },
    /// The driver refuses something else.
    #[error(
        "GPU {device} cannot be used: {reason}; see whether nvidia-smi shows it in good order and another process has it to itself, or \
         use --backend cpu"
    )]
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
            | CudaError::NewCompiler { .. }
            | CudaError::NotCompiled { .. }
            | CudaError::NotLoaded { .. } => Self::Unusable { reason },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_driver_refuses_says_what_was_found_what_is_needed_and_what_to_do() {
        let version = |major, minor| Version { major, minor };
        let name = "NVIDIA RTX PRO 6000 Blackwell".to_owned();
        let reason =
            "CUDA_ERROR_UNSUPPORTED_PTX_VERSION (the provided PTX was compiled with an unsupported toolchain.)";
        let not_loaded = CudaError::NotLoaded {
            device: 0,
            name,
            capability: version(12, 0),
            file: "product.cu",
            compiler: "CUDA 13.0".to_owned(),
            driver: version(12, 4),
            reason: reason.to_owned(),
        };
        let refused = CudaError::Refused {
            device: 0,
            reason:
                "could not open it: CUDA_ERROR_DEVICE_UNAVAILABLE (CUDA-capable device(s) is/are busy or unavailable)"
                    .to_owned(),
        };
        let not_compiled = CudaError::NotCompiled {
            compiler: version(12, 0),
            file: "attention_bf16.cu",
            capability: version(12, 0),
            log: "e".repeat(120),
        };
        for (error, begin, end, is_permanent) in [
            (
                not_loaded,
                "GPU 0 (NVIDIA RTX PRO 6000 Blackwell, compute capability 12.0) takes none of the kernels of product.cu by CUDA 13.0 \
                 with its driver for CUDA 12.4: CUDA_ERROR_UNSUPPORTED_PTX_VERSION",
                "; update the driver, or use --backend cpu",
                true,
            ),
            (
                refused,
                "GPU 0 cannot be used: could not open it: CUDA_ERROR_DEVICE_UNAVAILABLE",
                "; see whether nvidia-smi shows it in good order and another process has it to itself, or use --backend cpu",
                false,
            ),
            (
                not_compiled,
                "NVRTC 12.0 did not compile attention_bf16.cu for compute capability 12.0: eee",
                "; install one that is made for this GPU, or use --backend cpu",
                true,
            ),
        ] {
            let error = DeviceError::from(error);
            let said = match &error {
                DeviceError::Unusable { reason } | DeviceError::Failed { reason, .. } => reason,
                other => panic!("{other}"),
            };
            assert!(said.starts_with(begin) && said.ends_with(end), "{said}");
            assert!(said.chars().count() <= 300, "{} characters: {said}", said.chars().count());
            assert_eq!(error.is_permanent(), is_permanent, "{said}");
        }
    }
}
