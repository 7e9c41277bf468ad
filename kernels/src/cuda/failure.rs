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

    /// Whether the context can still be used: after a fault of a kernel or of the hardware every call of the process fails. Codes that
    /// are not known to leave everything as it was, such as those of drivers to come, count as such faults: a process that ends for
    /// nothing is started again, and one that goes on with a lost device forms one group after the other for ever.
    pub fn leaves_the_device_usable(self) -> bool {
        matches!(
            self.code,
            // A call that was wrong, or for something that is not there.
            CUresult::CUDA_ERROR_INVALID_VALUE
                | CUresult::CUDA_ERROR_INVALID_HANDLE
                | CUresult::CUDA_ERROR_ILLEGAL_STATE
                | CUresult::CUDA_ERROR_NOT_FOUND
                | CUresult::CUDA_ERROR_NOT_READY
                | CUresult::CUDA_ERROR_NOT_PERMITTED
                | CUresult::CUDA_ERROR_NOT_SUPPORTED
                // One for which there is no room now.
                | CUresult::CUDA_ERROR_OUT_OF_MEMORY
                | CUresult::CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES
                | CUresult::CUDA_ERROR_OPERATING_SYSTEM
                | CUresult::CUDA_ERROR_MAP_FAILED
                // One about another device's memory.
                | CUresult::CUDA_ERROR_PEER_ACCESS_UNSUPPORTED
                | CUresult::CUDA_ERROR_PEER_ACCESS_ALREADY_ENABLED
                | CUresult::CUDA_ERROR_PEER_ACCESS_NOT_ENABLED
                | CUresult::CUDA_ERROR_TOO_MANY_PEERS
                // One that spoils a capture, and nothing that runs.
                | CUresult::CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED
                | CUresult::CUDA_ERROR_STREAM_CAPTURE_INVALIDATED
                | CUresult::CUDA_ERROR_STREAM_CAPTURE_MERGE
                | CUresult::CUDA_ERROR_STREAM_CAPTURE_UNMATCHED
                | CUresult::CUDA_ERROR_STREAM_CAPTURE_UNJOINED
                | CUresult::CUDA_ERROR_STREAM_CAPTURE_ISOLATION
                | CUresult::CUDA_ERROR_STREAM_CAPTURE_IMPLICIT
                | CUresult::CUDA_ERROR_CAPTURED_EVENT
                | CUresult::CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD
                | CUresult::CUDA_ERROR_GRAPH_EXEC_UPDATE_FAILURE
        )
    }

    /// What the driver says of it.
    pub fn said(self) -> String {
        let Self { code, .. } = self;
        let (mut name, mut words) = (ptr::null(), ptr::null());
        // SAFETY: both pointers are to local variables, which the driver sets to strings of its own or leaves as they are.
        let _ = unsafe { sys::cuGetErrorName(code, &raw mut name) };
        // SAFETY: as above.
        let _ = unsafe { sys::cuGetErrorString(code, &raw mut words) };
        format!("{} ({})", text(name, "error"), text(words, &format!("{}", code as u32)))
    }

    /// What failed and what the driver says of it.
    pub fn words(self) -> String {
        format!("could not {}: {}", self.what, self.said())
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

#[cfg(test)]
mod tests {
    use super::*;

    fn usable(code: CUresult) -> bool {
        check("do it", code).unwrap_err().leaves_the_device_usable()
    }

    #[test]
    fn a_device_is_given_up_after_a_fault_of_it_and_after_what_nobody_knows_and_kept_after_a_call_that_was_refused() {
        assert_eq!(check("do it", CUresult::CUDA_SUCCESS), Ok(()));
        for refused in [
            CUresult::CUDA_ERROR_INVALID_VALUE,
            CUresult::CUDA_ERROR_OUT_OF_MEMORY,
            CUresult::CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES,
            CUresult::CUDA_ERROR_PEER_ACCESS_UNSUPPORTED,
            CUresult::CUDA_ERROR_NOT_SUPPORTED,
            CUresult::CUDA_ERROR_STREAM_CAPTURE_INVALIDATED,
        ] {
            assert!(usable(refused), "{refused:?}");
        }
        for fault in [
            // The driver or the context is gone.
            CUresult::CUDA_ERROR_DEINITIALIZED,
            CUresult::CUDA_ERROR_CONTEXT_IS_DESTROYED,
            CUresult::CUDA_ERROR_INVALID_CONTEXT,
            CUresult::CUDA_ERROR_DEVICE_UNAVAILABLE,
            // The hardware.
            CUresult::CUDA_ERROR_ECC_UNCORRECTABLE,
            CUresult::CUDA_ERROR_NVLINK_UNCORRECTABLE,
            CUresult::CUDA_ERROR_CONTAINED,
            CUresult::CUDA_ERROR_EXTERNAL_DEVICE,
            // A kernel.
            CUresult::CUDA_ERROR_ILLEGAL_ADDRESS,
            CUresult::CUDA_ERROR_LAUNCH_TIMEOUT,
            CUresult::CUDA_ERROR_ASSERT,
            CUresult::CUDA_ERROR_HARDWARE_STACK_ERROR,
            CUresult::CUDA_ERROR_ILLEGAL_INSTRUCTION,
            CUresult::CUDA_ERROR_MISALIGNED_ADDRESS,
            CUresult::CUDA_ERROR_INVALID_ADDRESS_SPACE,
            CUresult::CUDA_ERROR_INVALID_PC,
            CUresult::CUDA_ERROR_LAUNCH_FAILED,
            CUresult::CUDA_ERROR_TENSOR_MEMORY_LEAK,
            // Another process of the same server.
            CUresult::CUDA_ERROR_MPS_CLIENT_TERMINATED,
            CUresult::CUDA_ERROR_MPS_RPC_FAILURE,
            // What nobody knows, or nobody has thought of here.
            CUresult::CUDA_ERROR_UNKNOWN,
            CUresult::CUDA_ERROR_TIMEOUT,
            CUresult::CUDA_ERROR_KEY_ROTATION,
        ] {
            assert!(!usable(fault), "{fault:?}");
        }
    }
}
