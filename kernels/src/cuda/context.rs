//! One GPU as this process uses it: its primary context, which all ranks of the process on that GPU share.

use std::ffi::CStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use cudarc::driver::sys::{self, CUcontext, CUdevice, CUdevice_attribute};

use super::driver;
use super::error::{CudaError, Version};
use super::failure::{Failure, check};
use crate::error::DeviceError;

/// The chips whose instructions the kernels use: asynchronous copies and products of bfloat16 tiles.
const LEAST_CHIP: Version = Version { major: 8, minor: 0 };

/// A GPU in use.
#[derive(Debug)]
pub(super) struct Context {
    number: usize,
    device: CUdevice,
    handle: CUcontext,
    /// The driver's version.
    pub driver: Version,
    /// What the GPU is called.
    pub name: String,
    /// Its address on the machine's bus, which no other has.
    pub unit: String,
    /// Its compute capability.
    pub capability: Version,
    /// Its multiprocessors.
    pub multiprocessors: u32,
    /// Bytes of shared memory that a block may have.
    pub shared: u32,
    /// Bytes that all of its memory has.
    pub memory: u64,
    /// How often something was given back whose address a graph may hold.
    frees: AtomicU64,
}

// SAFETY: a context may be current in any number of threads at once, and the driver's functions may be called by all of them.
unsafe impl Send for Context {}
// SAFETY: as above; nothing of it changes once it is made but a counter.
unsafe impl Sync for Context {}

impl Context {
    /// The GPU of this number among those that the driver shows.
    ///
    /// # Errors
    /// If there is none that can be used.
    pub fn new(number: usize) -> Result<Arc<Self>, CudaError> {
        let driver = driver::load()?;
        let count = driver::count()?;
        if number >= count {
            return Err(CudaError::NoDevice { device: number, count });
        }
        let refused = |failure| CudaError::refused(number, failure);
        let device = device(number).map_err(refused)?;
        let name = name(device).map_err(refused)?;
        let unit = unit(device).map_err(refused)?;
        let attribute = |attribute| attribute_of(device, attribute).map_err(refused);
        let capability = Version {
            major: attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
            minor: attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
        };
        if capability < LEAST_CHIP {
            return Err(CudaError::OldChip { device: number, name, found: capability, needed: LEAST_CHIP });
        }
        let multiprocessors = attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?.max(1);
        let shared = attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)?;
        let memory = memory(device).map_err(refused)?;
        let mut handle = std::ptr::null_mut();
        // SAFETY: the pointer is to a local variable; the device is one of the driver's. It is released when this is dropped.
        let retained = check("open it", unsafe { sys::cuDevicePrimaryCtxRetain(&raw mut handle, device) });
        retained.map_err(refused)?;
        Ok(Arc::new(Self {
            number,
            device,
            handle,
            driver,
            name,
            unit,
            capability,
            multiprocessors,
            shared,
            memory,
            frees: AtomicU64::new(0),
        }))
    }

    /// Its number among those that the driver shows.
    pub const fn number(&self) -> usize {
        self.number
    }

    /// Its handle.
    pub const fn device(&self) -> CUdevice {
        self.device
    }

    /// Makes it the calling thread's, as all that is called on it needs.
    pub fn bind(&self) -> Result<(), Failure> {
        // SAFETY: the context is retained for as long as this lives.
        check("use it from this thread", unsafe { sys::cuCtxSetCurrent(self.handle) })
    }

    /// Waits for everything that was put on any of its streams.
    pub fn finish(&self) -> Result<(), Failure> {
        self.bind()?;
        // SAFETY: it takes no pointers, and the context is current.
        check("wait for its work", unsafe { sys::cuCtxSynchronize() })
    }

    /// Lets kernels on it use the memory of another GPU, or of this one, which is so anyway.
    ///
    /// # Errors
    /// If there is no way between them.
    pub fn reach(&self, other: &Self) -> Result<(), DeviceError> {
        if self.device == other.device {
            return Ok(());
        }
        let mut can = 0;
        // SAFETY: the pointer is to a local variable; both devices are the driver's.
        let asked = unsafe { sys::cuDeviceCanAccessPeer(&raw mut can, self.device, other.device) };
        check("ask which GPU's memory it may use", asked)?;
        if can == 0 {
            let (from, to) = (self.number, other.number);
            return Err(DeviceError::Unusable { reason: format!("GPU {from} cannot use the memory of GPU {to}") });
        }
        self.bind()?;
        // SAFETY: this context is current; the other is retained for as long as `other` lives, which whoever uses its memory holds.
        let enabled = check("use the memory of another GPU", unsafe { sys::cuCtxEnablePeerAccess(other.handle, 0) });
        match enabled {
            Err(failure) if !failure.is_done() => Err(failure.into()),
            _ => Ok(()),
        }
    }

    /// How often something was given back that launches may use.
    pub fn frees(&self) -> u64 {
        self.frees.load(Ordering::Relaxed)
    }

    /// Says that something is given back that launches may use, such as memory: what was captured before is not launched again.
    pub fn freed(&self) {
        self.frees.fetch_add(1, Ordering::Relaxed);
    }

    /// Bytes of memory that nobody uses now, and all.
    ///
    /// # Errors
    /// What the driver says.
    pub fn free_memory(&self) -> Result<u64, DeviceError> {
        self.bind()?;
        let (mut free, mut total) = (0, 0);
        // SAFETY: both pointers are to local variables, and the context is current.
        check("ask for its free memory", unsafe { sys::cuMemGetInfo_v2(&raw mut free, &raw mut total) })?;
        Ok(free as u64)
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: it was retained when this was made, and everything that used it holds this and is gone.
        let _ = unsafe { sys::cuDevicePrimaryCtxRelease_v2(self.device) };
    }
}

fn device(number: usize) -> Result<CUdevice, Failure> {
    let mut device = 0;
    // SAFETY: the pointer is to a local variable; `cuInit` has succeeded.
    check("find it", unsafe { sys::cuDeviceGet(&raw mut device, number as i32) })?;
    Ok(device)
}

fn name(device: CUdevice) -> Result<String, Failure> {
    let mut name = [0_u8; 128];
    // SAFETY: the driver writes at most as many bytes as it is told there are, with a zero behind them.
    let asked = unsafe { sys::cuDeviceGetName(name.as_mut_ptr().cast(), name.len() as i32, device) };
    check("ask for its name", asked)?;
    let name = CStr::from_bytes_until_nul(&name).unwrap_or(c"of no name");
    Ok(name.to_string_lossy().into_owned())
}

fn unit(device: CUdevice) -> Result<String, Failure> {
    let mut unit = [0_u8; 32];
    // SAFETY: as of the name.
    let asked = unsafe { sys::cuDeviceGetPCIBusId(unit.as_mut_ptr().cast(), unit.len() as i32, device) };
    check("ask where it is", asked)?;
    Ok(CStr::from_bytes_until_nul(&unit).unwrap_or(c"somewhere").to_string_lossy().into_owned())
}

fn attribute_of(device: CUdevice, attribute: CUdevice_attribute) -> Result<u32, Failure> {
    let mut value = 0;
    // SAFETY: the pointer is to a local variable; the device is one of the driver's.
    check("ask what it is", unsafe { sys::cuDeviceGetAttribute(&raw mut value, attribute, device) })?;
    Ok(value as u32)
}

fn memory(device: CUdevice) -> Result<u64, Failure> {
    let mut bytes = 0;
    // SAFETY: as above.
    check("ask for its memory", unsafe { sys::cuDeviceTotalMem_v2(&raw mut bytes, device) })?;
    Ok(bytes as u64)
}
