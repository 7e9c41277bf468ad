//! What a driver's call says when it fails, and what that means for the device.

use std::ffi::CStr;
use std::ptr;

use cudarc::driver::sys::{self, CUresult};

use crate::error::DeviceError;

/// A call that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    /// What was to be done, as in "could not ...".
    what: &'static str,
    code: CUresult,
}

/// Whether a call succeeded.
pub(super) fn check(what: &'static str, code: CUresult) -> Result<(), Failure> {
    if code == CUresult::CUDA_SUCCESS { Ok(()) } else { Err(Failure { what, code }) }
}

impl Failure {
    /// Whether it is for want of memory.
    pub fn is_of_memory(self) -> bool {
        self.code == CUresult::CUDA_ERROR_OUT_OF_MEMORY
    }

    /// Whether it was done before.
    pub fn is_done(self) -> bool {
        self.code == CUresult::CUDA_ERROR_PEER_ACCESS_ALREADY_ENABLED
    }

    /// Whether there is no device at all.
    pub fn is_of_no_device(self) -> bool {
        matches!(self.code, CUresult::CUDA_ERROR_NO_DEVICE | CUresult::CUDA_ERROR_INVALID_DEVICE)
    }

    /// Whether the context can still be used. After a fault of a kernel or of the hardware every call of the process fails.
    pub fn leaves_the_device_usable(self) -> bool {
        !matches!(
            self.code,
            CUresult::CUDA_ERROR_DEINITIALIZED
                | CUresult::CUDA_ERROR_ECC_UNCORRECTABLE
                | CUresult::CUDA_ERROR_NVLINK_UNCORRECTABLE
                | CUresult::CUDA_ERROR_ILLEGAL_ADDRESS
                | CUresult::CUDA_ERROR_LAUNCH_TIMEOUT
                | CUresult::CUDA_ERROR_CONTEXT_IS_DESTROYED
                | CUresult::CUDA_ERROR_ASSERT
                | CUresult::CUDA_ERROR_HARDWARE_STACK_ERROR
                | CUresult::CUDA_ERROR_ILLEGAL_INSTRUCTION
                | CUresult::CUDA_ERROR_MISALIGNED_ADDRESS
                | CUresult::CUDA_ERROR_INVALID_ADDRESS_SPACE
                | CUresult::CUDA_ERROR_INVALID_PC
                | CUresult::CUDA_ERROR_LAUNCH_FAILED
                | CUresult::CUDA_ERROR_EXTERNAL_DEVICE
                | CUresult::CUDA_ERROR_UNKNOWN
        )
    }

    /// What failed and what the driver says of it.
    pub fn words(self) -> String {
        let Self { what, code } = self;
        let (mut name, mut words) = (ptr::null(), ptr::null());
        // SAFETY: both pointers are to local variables, which the driver sets to strings of its own or leaves as they are.
        let _ = unsafe { sys::cuGetErrorName(code, &raw mut name) };
        // SAFETY: as above.
        let _ = unsafe { sys::cuGetErrorString(code, &raw mut words) };
        format!("could not {what}: {} ({})", text(name, "error"), text(words, &format!("{}", code as u32)))
    }
}

/// A string of the driver.
fn text(pointer: *const std::ffi::c_char, otherwise: &str) -> String {
    if pointer.is_null() {
        return otherwise.to_owned();
    }
    // SAFETY: the driver set it to one of its constant strings, which end with zero and live as long as the library.
    let text = unsafe { CStr::from_ptr(pointer) };
    text.to_string_lossy().into_owned()
}

impl From<Failure> for DeviceError {
    fn from(failure: Failure) -> Self {
        Self::Failed { reason: failure.words(), usable: failure.leaves_the_device_usable() }
    }
}
