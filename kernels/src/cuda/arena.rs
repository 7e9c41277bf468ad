//! The pages of an arena: one range of addresses as long as the device's memory, of which as much has memory as there are pages.
//! So a page has an address for ever, whatever is added behind it, and a kernel finds every page by its number.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use cudarc::driver::sys::{
    self, CUdevice, CUmemAccess_flags, CUmemAccessDesc, CUmemAllocationGranularity_flags, CUmemAllocationHandleType,
    CUmemAllocationProp, CUmemAllocationType, CUmemGenericAllocationHandle, CUmemLocation, CUmemLocationType,
};

use super::context::Context;
use super::failure::{Failure, check};
use super::shape::check_page;
use super::tensor_map::{Matrices, TensorMap};
use crate::arena::PageId;
use crate::backend::PageShape;
use crate::error::DeviceError;
use crate::tensor::WeightKind;

/// How the bytes of a page lie: gate and up rows, eight of each in turn, then down, all row by row, then zeros up to a whole
/// kibibyte, so that every page begins where the widest loads may, and every chunk of it is long enough for one kind of fingerprint.
pub(super) const LAYOUT: &str = "rows-8-by-8";

/// Length of a page in bytes.
pub(super) const fn page_bytes(shape: PageShape) -> usize {
    (3 * shape.intermediate * shape.hidden * element_bytes(shape.kind)).next_multiple_of(1 << 10)
}

/// Bytes of a weight.
pub(super) const fn element_bytes(kind: WeightKind) -> usize {
    match kind {
        WeightKind::Bf16 => 2,
        WeightKind::F32 => 4,
    }
}

/// The pages of an arena. Nobody ever waits for one: who writes a page is its only owner.
#[derive(Debug)]
pub struct Pages {
    shape: PageShape,
    range: Mutex<Range>,
    address: u64,
    /// Of both halves of networks of all pages that there may ever be, where products are through maps.
    maps: [Option<TensorMap>; 2],
    /// Pages that there are.
    count: Arc<AtomicU32>,
}

/// Addresses, and the memory behind the first of them.
#[derive(Debug)]
struct Range {
    context: Arc<Context>,
    address: u64,
    /// Of all of it.
    bytes: usize,
    /// What memory comes in.
    granularity: usize,
    /// Pieces of memory, one after the other.
    pieces: Vec<Piece>,
    /// Bytes that have memory.
    mapped: usize,
    /// Other GPUs that may use it.
    others: Vec<CUdevice>,
}

#[derive(Debug)]
struct Piece {
    handle: CUmemGenericAllocationHandle,
    bytes: usize,
}

fn properties(context: &Context) -> CUmemAllocationProp {
    // SAFETY: all of it is numbers, enumerations with a variant for zero and a pointer that may be null.
    let nothing: CUmemAllocationProp = unsafe { std::mem::zeroed() };
    CUmemAllocationProp {
        type_: CUmemAllocationType::CU_MEM_ALLOCATION_TYPE_PINNED,
        requestedHandleTypes: CUmemAllocationHandleType::CU_MEM_HANDLE_TYPE_NONE,
        location: location(context.device()),
        ..nothing
    }
}

fn location(device: CUdevice) -> CUmemLocation {
    CUmemLocation { type_: CUmemLocationType::CU_MEM_LOCATION_TYPE_DEVICE, id: device }
}

impl Pages {
    pub(super) fn new(context: &Arc<Context>, shape: PageShape) -> Result<Self, DeviceError> {
        check_page(shape)?;
        context.bind()?;
        let (mut granularity, properties) = (0, properties(context));
        let least = CUmemAllocationGranularity_flags::CU_MEM_ALLOC_GRANULARITY_MINIMUM;
        // SAFETY: both pointers are to local variables, and the context is current.
        let asked = unsafe { sys::cuMemGetAllocationGranularity(&raw mut granularity, &raw const properties, least) };
        check("ask what memory comes in", asked)?;
        let granularity = granularity.max(1);
        let bytes = (context.memory as usize).max(page_bytes(shape)).next_multiple_of(granularity);
        let mut address = 0;
        // SAFETY: the pointer is to a local variable, and the context is current; any address will do.
        let asked = unsafe { sys::cuMemAddressReserve(&raw mut address, bytes, 0, 0, 0) };
        check("reserve addresses for pages", asked)?;
        let context = Arc::clone(context);
        let range = Range { context, address, bytes, granularity, pieces: Vec::new(), mapped: 0, others: Vec::new() };
        let maps = maps(&range, shape)?;
        Ok(Self { shape, range: Mutex::new(range), address, maps, count: Arc::default() })
    }

    /// The map of the first or second half of networks.
    pub(super) const fn map(&self, half: usize) -> Option<&TensorMap> {
        self.maps[half].as_ref()
    }

    /// What its pages hold.
    pub(super) const fn shape(&self) -> PageShape {
        self.shape
    }

    /// Where its first page is.
    pub(super) const fn address(&self) -> u64 {
        self.address
    }

    /// Length of a page in bytes.
    pub(super) const fn page_length(&self) -> usize {
        page_bytes(self.shape)
    }

    /// Where the second half of a network begins in its page.
    pub(super) const fn down_offset(&self) -> usize {
        down_offset(self.shape)
    }

    /// Pages that there are.
    pub(super) fn count(&self) -> u32 {
        self.count.load(Ordering::Relaxed)
    }

    /// The same, as it is and will be.
    pub(super) fn shared_count(&self) -> (Arc<AtomicU32>, u32) {
        (Arc::clone(&self.count), self.count())
    }

    /// Where a page is.
    pub(super) const fn page(&self, page: PageId) -> u64 {
        self.address + page.0 as u64 * page_bytes(self.shape) as u64
    }

    /// Lets another GPU copy them.
    pub(super) fn open_to(&self, other: &Context) -> Result<(), DeviceError> {
        let mut range = self.range.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(range.open_to(other.device())?)
    }

    /// Gives memory to the next page.
    ///
    /// # Panics
    /// If it is another.
    pub(super) fn add(&self, page: PageId) -> Result<(), DeviceError> {
        let mut range = self.range.lock().unwrap_or_else(PoisonError::into_inner);
        assert_eq!(self.count(), page.0, "pages are numbered in order");
        range.grow((page.0 as usize + 1) * self.page_length())?;
        // Who uses the page hears of it from the caller, not by this.
        self.count.store(page.0 + 1, Ordering::Relaxed);
        Ok(())
    }
}

const fn down_offset(shape: PageShape) -> usize {
    2 * shape.intermediate * shape.hidden * element_bytes(shape.kind)
}

/// Maps of both halves of the networks in a range, made once: a page that comes or moves is another coordinate.
fn maps(range: &Range, shape: PageShape) -> Result<[Option<TensorMap>; 2], DeviceError> {
    if shape.kind == WeightKind::F32 {
        return Ok([None; 2]);
    }
    let (page_bytes, PageShape { hidden, intermediate, .. }) = (page_bytes(shape), shape);
    let map = |offset: usize, rows, columns| {
        let (address, pages) = (range.address + offset as u64, range.bytes / page_bytes);
        TensorMap::new(&range.context, Matrices { address, page_bytes, pages, rows, columns })
    };
    Ok([map(0, 2 * intermediate, hidden)?, map(down_offset(shape), hidden, intermediate)?])
}

impl Range {
    /// Has memory behind so many bytes at least.
    fn grow(&mut self, bytes: usize) -> Result<(), DeviceError> {
        let missing = bytes.saturating_sub(self.mapped).next_multiple_of(self.granularity);
        if missing == 0 {
            return Ok(());
        }
        if self.mapped + missing > self.bytes {
            return Err(DeviceError::Memory { bytes: missing as u64 });
        }
        self.context.bind()?;
        let (mut handle, properties) = (0, properties(&self.context));
        // SAFETY: both pointers are to local variables, and the context is current.
        let asked = unsafe { sys::cuMemCreate(&raw mut handle, missing, &raw const properties, 0) };
        match check("give memory for pages", asked) {
            Err(failure) if failure.is_of_memory() => return Err(DeviceError::Memory { bytes: missing as u64 }),
            asked => asked?,
        }
        self.map(handle, missing).inspect_err(|_| {
            // SAFETY: the handle was made above, and nothing is mapped to it.
            let _ = unsafe { sys::cuMemRelease(handle) };
        })?;
        self.pieces.push(Piece { handle, bytes: missing });
        self.mapped += missing;
        Ok(())
    }

    /// Puts a piece of memory behind the next addresses.
    fn map(&self, handle: CUmemGenericAllocationHandle, bytes: usize) -> Result<(), Failure> {
        let address = self.address + self.mapped as u64;
        // SAFETY: the addresses are reserved and have no memory yet; the handle has as many bytes.
        check("map memory for pages", unsafe { sys::cuMemMap(address, bytes, 0, handle, 0) })?;
        let devices: Vec<CUdevice> =
            std::iter::once(self.context.device()).chain(self.others.iter().copied()).collect();
        self.allow((address, bytes), &devices).inspect_err(|_| {
            // SAFETY: they were mapped above, and nothing knows of them.
            let _ = unsafe { sys::cuMemUnmap(address, bytes) };
        })
    }

    /// Lets GPUs use addresses that have memory.
    fn allow(&self, (address, bytes): (u64, usize), devices: &[CUdevice]) -> Result<(), Failure> {
        let flags = CUmemAccess_flags::CU_MEM_ACCESS_FLAGS_PROT_READWRITE;
        let access: Vec<_> =
            devices.iter().map(|device| CUmemAccessDesc { location: location(*device), flags }).collect();
        self.context.bind()?;
        // SAFETY: all of the addresses are mapped; the pointer is to as many local values as it is said.
        let allowed = unsafe { sys::cuMemSetAccess(address, bytes, access.as_ptr(), access.len()) };
        check("allow access to memory for pages", allowed)
    }

    /// Lets another GPU use what has memory, and what will have.
    fn open_to(&mut self, device: CUdevice) -> Result<(), Failure> {
        if device == self.context.device() || self.others.contains(&device) {
            return Ok(());
        }
        if self.mapped > 0 {
            self.allow((self.address, self.mapped), &[device])?;
        }
        self.others.push(device);
        Ok(())
    }
}

impl Drop for Range {
    fn drop(&mut self) {
        // A device that says no more is of no more use to this process, which ends.
        let _ = self.context.finish();
        self.context.freed();
        let mut address = self.address;
        for Piece { handle, bytes } in self.pieces.drain(..) {
            // SAFETY: these addresses were mapped to this piece, and all work that could use them has ended.
            let _ = unsafe { sys::cuMemUnmap(address, bytes) };
            // SAFETY: the handle was made by this range, and is released once.
            let _ = unsafe { sys::cuMemRelease(handle) };
            address += bytes as u64;
        }
        // SAFETY: this range reserved it, and nothing is mapped there any more.
        let _ = unsafe { sys::cuMemAddressFree(self.address, self.bytes) };
    }
}
