//! The driver's library, found and asked what it can do before anything else is called: a symbol that it lacks would be a panic.

use std::env;

use cudarc::driver::sys;

use super::error::{CudaError, Version};
use super::failure::check;

/// The least driver for what is called here, whatever compiled the kernels: virtual memory that grows, and instructions of the oldest chip.
const LEAST: Version = Version { major: 12, minor: 0 };

/// The driver's version, once it is loaded and ready.
///
/// # Errors
/// If it is not there, too old, or shows no GPU.
pub(super) fn load() -> Result<Version, CudaError> {
    // SAFETY: this runs the initialisation of the driver's library, which is what the user asked for.
    if !unsafe { sys::is_culib_present() } {
        let names = "libcuda.so nor libcuda.so.1".to_owned();
        return Err(CudaError::NoDriver { names, folders: folders() });
    }
    let mut version = 0;
    // SAFETY: the pointer is to a local variable; the function may be called before `cuInit`.
    let asked = check("ask for the version of the driver", unsafe { sys::cuDriverGetVersion(&raw mut version) });
    asked.map_err(|failure| CudaError::refused(0, failure))?;
    let found = Version { major: version as u32 / 1000, minor: version as u32 % 1000 / 10 };
    if found < LEAST {
        return Err(CudaError::OldDriver { found, needs: "this runtime", needed: LEAST });
    }
    // SAFETY: it takes no pointers, and may be called more than once.
    match check("initialise the driver", unsafe { sys::cuInit(0) }) {
        Err(failure) if failure.is_of_no_device() => Err(CudaError::NoDevice { device: 0, count: 0 }),
        initialised => initialised.map(|()| found).map_err(|failure| CudaError::refused(0, failure)),
    }
}

/// How many GPUs this process may use.
///
/// # Errors
/// As the driver's: there is none, or one that is of no use here.
pub fn devices() -> Result<usize, CudaError> {
    load()?;
    count()
}

pub(super) fn count() -> Result<usize, CudaError> {
    let mut count = 0;
    // SAFETY: the pointer is to a local variable; `cuInit` has succeeded.
    let asked = check("count the GPUs", unsafe { sys::cuDeviceGetCount(&raw mut count) });
    asked.map_err(|failure| CudaError::refused(0, failure))?;
    Ok(usize::try_from(count).unwrap_or(0))
}

/// Where the system looks for libraries.
pub(super) fn folders() -> String {
    const MOST: usize = 60;
    match env::var("LD_LIBRARY_PATH") {
        Ok(path) if !path.is_empty() => {
            let mut shown: String = path.chars().take(MOST).collect();
            if shown.len() < path.len() {
                shown.push('…');
            }
            format!("LD_LIBRARY_PATH ({shown}) nor the system's folders")
        }
        _ => "the system's library folders".to_owned(),
    }
}
