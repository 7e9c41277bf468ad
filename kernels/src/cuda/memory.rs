//! Memory of a GPU, and memory of the host that it reads and writes in place.

use std::ffi::c_void;
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use bytemuck::Pod;
use cudarc::driver::sys;

use super::context::Context;
use super::failure::check;
use crate::error::DeviceError;

/// Memory on the device. It is freed when everything on the device has ended that could use it: nothing is freed while a model
/// steps, so what that waits for costs no step anything.
#[derive(Debug)]
pub(super) struct Allocation {
    context: Arc<Context>,
    address: u64,
}

impl Allocation {
    /// So many bytes, of any content.
    pub fn new(context: &Arc<Context>, bytes: usize) -> Result<Self, DeviceError> {
        context.bind()?;
        let mut address = 0;
        // SAFETY: the pointer is to a local variable, and the context is current. Nothing of no bytes can be asked for.
        let asked = check("give memory", unsafe { sys::cuMemAlloc_v2(&raw mut address, bytes.max(16)) });
        match asked {
            Ok(()) => Ok(Self { context: Arc::clone(context), address }),
            Err(failure) if failure.is_of_memory() => Err(DeviceError::Memory { bytes: bytes as u64 }),
            Err(failure) => Err(failure.into()),
        }
    }

    /// Where it is.
    pub const fn address(&self) -> u64 {
        self.address
    }
}

impl Drop for Allocation {
    fn drop(&mut self) {
        // A device that says no more is of no more use to this process, which ends.
        let _ = self.context.finish();
        self.context.freed();
        // SAFETY: it was given by the driver, is freed once, and all work that could use it has ended.
        let _ = unsafe { sys::cuMemFree_v2(self.address) };
    }
}

/// Memory of the host that the device reads and writes where it is, and copies from and to at full speed.
///
/// Who writes it from the host does so while no kernel and no copy that uses it is under way, and reads it after a wait for
/// those; both copy, so nobody ever holds a reference to what the device may change.
#[derive(Debug)]
pub(super) struct Mapped {
    context: Arc<Context>,
    host: NonNull<u8>,
    address: u64,
    bytes: usize,
}

// SAFETY: it is plain memory with one owner.
unsafe impl Send for Mapped {}
// SAFETY: through a shared reference it is only read, by copying, or used as atomic numbers.
unsafe impl Sync for Mapped {}

impl Mapped {
    /// So many bytes, all zero.
    pub fn new(context: &Arc<Context>, bytes: usize) -> Result<Self, DeviceError> {
        context.bind()?;
        let bytes = bytes.max(16);
        let mut host: *mut c_void = ptr::null_mut();
        let flags = sys::CU_MEMHOSTALLOC_DEVICEMAP | sys::CU_MEMHOSTALLOC_PORTABLE;
        // SAFETY: the pointer is to a local variable, and the context is current.
        let asked = check("give memory of the host", unsafe { sys::cuMemHostAlloc(&raw mut host, bytes, flags) });
        let host = match (asked, NonNull::new(host.cast::<u8>())) {
            (Ok(()), Some(host)) => host,
            (Err(failure), _) if !failure.is_of_memory() => return Err(failure.into()),
            _ => return Err(DeviceError::Memory { bytes: bytes as u64 }),
        };
        let mut mapped = Self { context: Arc::clone(context), host, address: 0, bytes };
        // SAFETY: the memory has so many bytes, which nobody else knows of yet.
        unsafe { ptr::write_bytes(host.as_ptr(), 0, bytes) };
        // SAFETY: the first pointer is to a field of a local variable; the second is of memory that was asked for to be mapped.
        let asked = unsafe { sys::cuMemHostGetDevicePointer_v2(&raw mut mapped.address, host.as_ptr().cast(), 0) };
        check("map memory of the host", asked)?;
        Ok(mapped)
    }

    /// Where the device finds it.
    pub const fn address(&self) -> u64 {
        self.address
    }

    /// Where the host finds it, for copies by the driver.
    pub const fn host(&self) -> *mut c_void {
        self.host.as_ptr().cast()
    }

    /// The same, so many bytes from its beginning.
    ///
    /// # Panics
    /// If that is beyond its end.
    pub fn host_at(&self, start: usize) -> *mut c_void {
        assert!(start < self.bytes, "byte {start} of {}", self.bytes);
        // SAFETY: it is inside of the memory (checked above).
        unsafe { self.host.as_ptr().add(start) }.cast()
    }

    /// Puts values there, `start` bytes from its beginning. Nothing on the device uses it meanwhile.
    ///
    /// # Panics
    /// If they go beyond its end.
    pub fn write<T: Pod>(&mut self, start: usize, values: &[T]) {
        let bytes: &[u8] = bytemuck::cast_slice(values);
        assert!(start + bytes.len() <= self.bytes, "{} bytes at {start} of {}", bytes.len(), self.bytes);
        // SAFETY: the range is inside of the memory (checked above).
        let to = unsafe { self.host.as_ptr().add(start) };
        // SAFETY: there is room for all of it; the source is other memory, since this is borrowed as mutable.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len()) };
    }

    /// Copies from there, `start` bytes from its beginning, what the device wrote before a wait for it.
    ///
    /// # Panics
    /// If that goes beyond its end.
    pub fn read<T: Pod>(&self, start: usize, into: &mut [T]) {
        let bytes: &mut [u8] = bytemuck::cast_slice_mut(into);
        assert!(start + bytes.len() <= self.bytes, "{} bytes at {start} of {}", bytes.len(), self.bytes);
        // SAFETY: the range is inside of the memory (checked above).
        let from = unsafe { self.host.as_ptr().add(start) };
        // SAFETY: all of it is there; the target is other memory, of bytes that may be anything.
        unsafe { ptr::copy_nonoverlapping(from, bytes.as_mut_ptr(), bytes.len()) };
    }

    /// Puts a number there, `start` bytes from its beginning, also while the device reads it: it gets the old one or this.
    ///
    /// # Panics
    /// If that is not within it, or not at a multiple of 8.
    pub fn tell(&self, start: usize, value: u64) {
        assert!(start.is_multiple_of(8) && start + 8 <= self.bytes, "8 bytes at {start} of {}", self.bytes);
        // SAFETY: the range is inside of the memory (checked above).
        let to = unsafe { self.host.as_ptr().add(start) };
        // SAFETY: the driver gives memory that begins at a page, so the place is aligned; the memory lives as long as this, and no
        // thread of the host uses the number otherwise.
        let number = unsafe { AtomicU64::from_ptr(to.cast()) };
        number.store(value, Ordering::Release);
    }

    /// The word that the device left there, `start` bytes from its beginning, also while it may leave another.
    ///
    /// # Panics
    /// As [`Self::tell`].
    pub fn heard(&self, start: usize) -> u32 {
        assert!(start.is_multiple_of(8) && start + 8 <= self.bytes, "8 bytes at {start} of {}", self.bytes);
        // SAFETY: as of `tell`.
        let from = unsafe { self.host.as_ptr().add(start) };
        // SAFETY: as of `tell`.
        let word = unsafe { AtomicU32::from_ptr(from.cast()) };
        word.load(Ordering::Acquire)
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // As of memory on the device.
        let _ = self.context.finish();
        self.context.freed();
        // SAFETY: it was given by the driver, is freed once, and all work that could use it has ended.
        let _ = unsafe { sys::cuMemFreeHost(self.host()) };
    }
}
