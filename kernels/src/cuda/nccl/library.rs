//! NCCL's library, looked for under the names by which it is installed, and what is called of it.

use std::ffi::{c_int, c_void};
use std::sync::OnceLock;

use cudarc::nccl::sys::{cudaStream_t, ncclComm_t, ncclConfig_t, ncclDataType_t, ncclResult_t, ncclUniqueId};
use libloading::Library;

use super::super::driver::folders;
use super::super::error::Version;
use super::said;
use crate::error::DeviceError;

/// The first that has an exchange between all ranks of its own.
const LEAST: Version = Version { major: 2, minor: 28 };

/// What packages call it, and what a folder of headers and libraries does.
const NAMES: [&str; 2] = ["libnccl.so.2", "libnccl.so"];

/// Its functions, as its header declares them.
#[derive(Debug)]
pub(super) struct Nccl {
    pub unique_id: unsafe extern "C" fn(*mut ncclUniqueId) -> ncclResult_t,
    pub join: unsafe extern "C" fn(*mut ncclComm_t, c_int, ncclUniqueId, c_int, *mut ncclConfig_t) -> ncclResult_t,
    pub async_error: unsafe extern "C" fn(ncclComm_t, *mut ncclResult_t) -> ncclResult_t,
    pub abort: unsafe extern "C" fn(ncclComm_t) -> ncclResult_t,
    pub group_start: unsafe extern "C" fn() -> ncclResult_t,
    pub group_end: unsafe extern "C" fn() -> ncclResult_t,
    pub all_to_all: unsafe extern "C" fn(
        *const c_void,
        *mut c_void,
        usize,
        ncclDataType_t,
        ncclComm_t,
        cudaStream_t,
    ) -> ncclResult_t,
    /// Where they are.
    _library: Library,
}

/// NCCL, once it was found.
///
/// # Errors
/// If it is not there, or too old; what is missing, in words.
pub(super) fn nccl() -> Result<&'static Nccl, DeviceError> {
    static FOUND: OnceLock<Nccl> = OnceLock::new();
    match FOUND.get() {
        Some(nccl) => Ok(nccl),
        None => {
            let nccl = Nccl::load()?;
            Ok(FOUND.get_or_init(|| nccl))
        }
    }
}

impl Nccl {
    fn load() -> Result<Self, DeviceError> {
        // SAFETY: this runs the initialisation of NCCL's library, which is what the user asked for.
        let found = NAMES.into_iter().find_map(|name| unsafe { Library::new(name) }.ok());
        let library = found.ok_or_else(|| unusable(format!("NCCL ({}) is not in {}", NAMES[0], folders())))?;
        let mut version = 0;
        // SAFETY: any NCCL has this function, of this type; the pointer is to a local variable.
        let asked = unsafe {
            let get: unsafe extern "C" fn(*mut c_int) -> ncclResult_t = function(&library, "ncclGetVersion")?;
            get(&raw mut version)
        };
        said("ask for NCCL's version", asked)?;
        let version = version.unsigned_abs();
        let found = Version { major: version / 10_000, minor: version % 10_000 / 100 };
        if found < LEAST {
            return Err(unusable(format!("NCCL is {found}, and {LEAST} is needed")));
        }
        // SAFETY: the types are those of its header, which has not changed any since the version that is needed at least; the library
        // is never unloaded while they can be called.
        unsafe {
            Ok(Self {
                unique_id: function(&library, "ncclGetUniqueId")?,
                join: function(&library, "ncclCommInitRankConfig")?,
                async_error: function(&library, "ncclCommGetAsyncError")?,
                abort: function(&library, "ncclCommAbort")?,
                group_start: function(&library, "ncclGroupStart")?,
                group_end: function(&library, "ncclGroupEnd")?,
                all_to_all: function(&library, "ncclAlltoAll")?,
                _library: library,
            })
        }
    }
}

/// A function of the library.
///
/// # Safety
/// It must be of this type.
unsafe fn function<T: Copy>(library: &Library, name: &str) -> Result<T, DeviceError> {
    // SAFETY: as the caller says.
    let found = unsafe { library.get::<T>(name) };
    found.map(|function| *function).map_err(|_| unusable(format!("NCCL has no {name}")))
}

const fn unusable(reason: String) -> DeviceError {
    DeviceError::Unusable { reason }
}
