//! NCCL's library, looked for under the names by which it is installed, and what is called of it.

use std::ffi::{c_int, c_void};
use std::sync::OnceLock;

use cudarc::nccl::sys::{cudaStream_t, ncclComm_t, ncclConfig_t, ncclDataType_t, ncclResult_t, ncclUniqueId};
use libloading::Library;

use super::super::driver::folders;
use super::super::error::Version;
use super::said;
use crate::error::DeviceError;

/// The first whose configuration has all that is said in it here.
const LEAST: Version = Version { major: 2, minor: 28 };

/// What packages call it, and what a folder of headers and libraries does.
const NAMES: [&str; 2] = ["libnccl.so.2", "libnccl.so"];

/// NCCL's functions that are called, as its header declares them.
macro_rules! functions {
    ($($field:ident = $name:literal: fn($($argument:ty),*);)*) => {
        /// See the module's documentation.
        #[derive(Debug)]
        pub(super) struct Nccl {
            $(pub $field: unsafe extern "C" fn($($argument),*) -> ncclResult_t,)*
            /// Where they are.
            _library: Library,
        }

        impl Nccl {
            /// Of a library that is NCCL's, of the version that is needed at least.
            fn of(library: Library) -> Result<Self, DeviceError> {
                Ok(Self {
                    // SAFETY: the type is that of its header, which has not changed any since that version; the library is unloaded
                    // with the last that can be called.
                    $($field: unsafe { function(&library, $name) }?,)*
                    _library: library,
                })
            }
        }
    };
}

functions! {
    unique_id = "ncclGetUniqueId": fn(*mut ncclUniqueId);
    join = "ncclCommInitRankConfig": fn(*mut ncclComm_t, c_int, ncclUniqueId, c_int, *mut ncclConfig_t);
    async_error = "ncclCommGetAsyncError": fn(ncclComm_t, *mut ncclResult_t);
    abort = "ncclCommAbort": fn(ncclComm_t);
    group_start = "ncclGroupStart": fn();
    group_end = "ncclGroupEnd": fn();
    send = "ncclSend": fn(*const c_void, usize, ncclDataType_t, c_int, ncclComm_t, cudaStream_t);
    receive = "ncclRecv": fn(*mut c_void, usize, ncclDataType_t, c_int, ncclComm_t, cudaStream_t);
}

/// NCCL, once it was found.
///
/// # Errors
/// If it is not there, or too old; what is missing, in words.
pub(super) fn nccl() -> Result<&'static Nccl, DeviceError> {
    static FOUND: OnceLock<Nccl> = OnceLock::new();
    if let Some(nccl) = FOUND.get() {
        return Ok(nccl);
    }
    let nccl = Nccl::load()?;
    Ok(FOUND.get_or_init(|| nccl))
}

impl Nccl {
    fn load() -> Result<Self, DeviceError> {
        // SAFETY: this runs the initialisation of NCCL's library, which is what the user asked for.
        let found = NAMES.into_iter().find_map(|name| unsafe { Library::new(name) }.ok());
        let library = found
            .ok_or_else(|| DeviceError::Unusable { reason: format!("NCCL ({}) is not in {}", NAMES[0], folders()) })?;
        // SAFETY: any NCCL has this function, of this type.
        let get: unsafe extern "C" fn(*mut c_int) -> ncclResult_t = unsafe { function(&library, "ncclGetVersion") }?;
        let mut version = 0;
        // SAFETY: the pointer is to a local variable.
        let asked = unsafe { get(&raw mut version) };
        said("ask for NCCL's version", asked)?;
        let version = version.unsigned_abs();
        let found = Version { major: version / 10_000, minor: version % 10_000 / 100 };
        if found < LEAST {
            return Err(DeviceError::Unusable { reason: format!("NCCL is {found}, and {LEAST} is needed") });
        }
        Self::of(library)
    }
}

/// A function of the library.
///
/// # Safety
/// It must be of this type.
unsafe fn function<T: Copy>(library: &Library, name: &str) -> Result<T, DeviceError> {
    // SAFETY: as the caller says.
    let found = unsafe { library.get::<T>(name) };
    found.map(|function| *function).map_err(|_| DeviceError::Unusable { reason: format!("NCCL has no {name}") })
}
