//! The CUDA backend: NVIDIA GPUs through their driver, which is looked for when a device is opened. The kernels are ours, in
//! `kernels/cu`; the device layer below is the one place of the project with `unsafe`.
//!
//! Two rules make it sound. Memory is freed only when all work of the device has ended, and only outside of steps. And memory
//! that the device writes is never behind a Rust reference: what the host prepares or collects is copied, before a launch or after a
//! wait.

mod arena;
mod bandwidth;
mod batch;
mod buffer;
mod cache;
mod clock;
mod compile;
mod context;
mod driver;
mod error;
mod failure;
mod graph;
mod link;
pub mod measure;
mod memory;
mod module;
mod nccl;
pub mod parameters;
mod queue;
mod routing;
mod shape;
mod stream;
mod tensor_map;
mod transfer;
mod weights;

use std::ops::Range;
use std::sync::{Arc, OnceLock};

use bytemuck::Pod;

use self::context::Context;
use self::module::Kernels;
use self::parameters::Rows;
use self::stream::Events;
use self::transfer::Transfers;
use crate::arena::PageId;
use crate::backend::{Backend, CacheShape, PageShape};
use crate::batch::StepLimits;
use crate::device::{DeviceIdentity, DeviceMemory};
use crate::error::DeviceError;
use crate::fingerprint::{Fingerprinter, Fingerprints};
use crate::link::{LinkShape, Linking};
use crate::routing::{GroupShape, LayerRouting};
use crate::tensor::MatrixView;

pub use self::arena::Pages;
pub use self::batch::Batch;
pub use self::buffer::Buffer;
pub use self::cache::Cache;
pub use self::driver::devices;
pub use self::error::{CudaError, Version};
pub use self::queue::CudaQueue;
pub use self::routing::{Routing, Slots};
pub use self::stream::Mark;
pub use self::weights::Matrix;

/// A rank's GPU.
#[derive(Clone, Debug)]
pub struct Cuda {
    shared: Arc<Shared>,
    /// Of fingerprints.
    seed: u64,
    /// Whether steps that are alike are captured.
    captures: bool,
    /// Whether products use what this chip alone has.
    uses_maps: bool,
}

/// What queues and pages use, of all threads.
#[derive(Debug)]
struct Shared {
    // Modules, events and lanes end before their context does.
    kernels: Kernels,
    transfers: Transfers,
    events: Arc<Events>,
    context: Arc<Context>,
    /// How fast its memory is, once somebody has asked.
    bandwidth: OnceLock<f64>,
}

impl Cuda {
    /// The GPU of this number among those that the driver shows, with the kernels loaded.
    ///
    /// # Errors
    /// If there is none that can be used; in a sentence that says what to do.
    pub fn new(device: usize) -> Result<Self, CudaError> {
        let context = Context::new(device)?;
        let kernels = Kernels::load(&context)?;
        let events = Events::new(&context);
        let transfers = Transfers::new(&context, &events).map_err(|error| CudaError::not_given(device, &error))?;
        let shared = Shared { kernels, transfers, events, context, bandwidth: OnceLock::new() };
        Ok(Self { shared: Arc::new(shared), seed: 0, captures: true, uses_maps: true })
    }

    /// The same with fingerprints under another seed: who does not know it can prepare no pages that have the same one.
    #[must_use]
    pub fn with_fingerprint_seed(self, seed: u64) -> Self {
        Self { seed, ..self }
    }

    /// The same whose queues launch every operation of every step, and no graphs.
    #[must_use]
    pub fn without_graphs(self) -> Self {
        Self { captures: false, ..self }
    }

    /// Whether it has products that are not those of any chip.
    #[must_use]
    pub fn uses_tensor_maps(&self) -> bool {
        self.uses_maps && tensor_map::has_products(&self.shared.context)
    }

    /// The same whose products are those of any chip, to compare with: their bits are others.
    #[must_use]
    pub fn without_tensor_maps(self) -> Self {
        Self { uses_maps: false, ..self }
    }
}

impl Backend for Cuda {
    type Buffer<T: Pod + Send + Sync> = Buffer<T>;
    type Matrix = Matrix;
    type Lookup = Matrix;
    type Pages = Pages;
    type Cache = Cache;
    type Batch = Batch;
    type Slots = Slots;
    type Routing = Routing;
    type Queue = CudaQueue;
    type Mark = Mark;

    const PAGE_LAYOUT: &'static str = arena::LAYOUT;
    const COLLECTIVE_BYTES: u64 = nccl::BYTES;

    fn page_bytes(shape: PageShape) -> usize {
        arena::page_bytes(shape)
    }

    fn cache_bytes(shape: CacheShape) -> u64 {
        Cache::bytes(shape)
    }

    fn check_shape(limits: StepLimits, group: GroupShape, page: PageShape) -> Result<(), DeviceError> {
        shape::check(&limits, group, page)
    }

    fn step_bytes(limits: StepLimits, group: GroupShape, experts: usize, page: PageShape) -> u64 {
        let parts = [
            Batch::bytes(&limits, group, experts),
            Slots::bytes(group, experts),
            Routing::bytes(group, page),
            link::bytes(LinkShape { group, page }),
        ];
        parts.into_iter().fold(0, usize::saturating_add) as u64
    }

    fn scratch_bytes(_: CacheShape, _: &[PageShape], _: usize) -> u64 {
        // All of it is the batch's.
        0
    }

    fn identity(&self) -> DeviceIdentity {
        let Context { name, capability, .. } = &*self.shared.context;
        let kind = format!("cuda sm_{}{}", capability.major, capability.minor);
        DeviceIdentity { kind, name: name.clone(), unit: self.shared.context.unit.clone() }
    }

    fn memory(&self) -> Result<Option<DeviceMemory>, DeviceError> {
        let context = &self.shared.context;
        Ok(Some(DeviceMemory { total: context.memory, free: context.free_memory()? }))
    }

    fn bandwidth(&self) -> Result<Option<f64>, DeviceError> {
        let Shared { bandwidth, .. } = &*self.shared;
        if bandwidth.get().is_none() {
            // Who asks at the same time measures for nothing.
            let _ = bandwidth.set(bandwidth::bytes_per_second(&self.shared)?);
        }
        Ok(bandwidth.get().copied())
    }

    fn linking(&self) -> Option<&dyn Linking<Self>> {
        Some(self)
    }

    fn queue(&self) -> Result<CudaQueue, DeviceError> {
        CudaQueue::new(&self.shared, (self.captures, self.uses_maps))
    }

    fn buffer<T: Pod + Send + Sync>(&self, capacity: usize) -> Result<Buffer<T>, DeviceError> {
        Buffer::new(&self.shared.context, capacity)
    }

    fn made<T: Pod + Send + Sync>(
        &self,
        elements: usize,
        element: impl Fn(usize) -> T,
    ) -> Result<Buffer<T>, DeviceError> {
        let (mut buffer, width) = (Buffer::new(&self.shared.context, elements)?, size_of::<T>());
        self.shared.transfers.write(buffer.address(), elements * width, |start, part| {
            for (place, value) in part.chunks_exact_mut(width).enumerate() {
                value.copy_from_slice(bytemuck::bytes_of(&element(start / width + place)));
            }
        })?;
        buffer.set(Rows { count: 0, first: 0, most: elements as u32 }, 1);
        Ok(buffer)
    }

    fn batch(&self, limits: StepLimits, slots: &Slots) -> Result<Batch, DeviceError> {
        Batch::new(&self.shared.context, limits, slots)
    }

    fn slots(&self, group: GroupShape, layers: Vec<LayerRouting>) -> Result<Slots, DeviceError> {
        Slots::new((&self.shared.context, &self.shared.transfers), group, &layers)
    }

    fn routing(&self, group: GroupShape, page: PageShape) -> Result<Routing, DeviceError> {
        Routing::new(&self.shared.context, group, page)
    }

    fn matrix(&self, view: MatrixView<'_>, bias: Option<&[f32]>) -> Result<Matrix, DeviceError> {
        Matrix::new(&self.shared, view, bias)
    }

    fn lookup(&self, view: MatrixView<'_>) -> Result<Matrix, DeviceError> {
        Matrix::new(&self.shared, view, None)
    }

    fn pages(&self, shape: PageShape) -> Result<Pages, DeviceError> {
        Pages::new(&self.shared.context, shape)
    }

    fn add_page(&self, pages: &Pages, page: PageId) -> Result<(), DeviceError> {
        pages.add(page)
    }

    fn pack(&self, pages: &Pages, page: PageId, matrices: [MatrixView<'_>; 3]) -> Result<(), DeviceError> {
        weights::pack(&self.shared, pages, page, matrices)
    }

    fn fill(&self, pages: &Pages, page: PageId, start: usize, bytes: &[u8]) -> Result<(), DeviceError> {
        assert!(start + bytes.len() <= pages.page_length(), "{} bytes at {start} of a page", bytes.len());
        self.shared.transfers.put(pages.page(page) + start as u64, bytes)
    }

    fn read_page(&self, pages: &Pages, page: PageId, start: usize, into: &mut [u8]) -> Result<(), DeviceError> {
        assert!(start + into.len() <= pages.page_length(), "{} bytes at {start} of a page", into.len());
        self.shared.transfers.get(pages.page(page) + start as u64, into)
    }

    fn reach_pages(&self, other: &Self, pages: &Pages) -> Result<(), DeviceError> {
        self.shared.context.reach(&other.shared.context)?;
        pages.open_to(&self.shared.context)
    }

    fn pull(
        &self,
        (pages, page): (&Pages, PageId),
        (others, from): (&Pages, PageId),
        place: Range<usize>,
    ) -> Result<Vec<u128>, DeviceError> {
        assert_eq!(pages.shape(), others.shape(), "pages of one shape");
        assert!(place.end <= pages.page_length(), "bytes {place:?} of a page");
        let Shared { transfers, kernels, .. } = &*self.shared;
        let [to, from] = [(pages, page), (others, from)].map(|(pages, page)| pages.page(page) + place.start as u64);
        transfers.pull(kernels, (to, from), place.len(), self.seed)
    }

    fn fingerprinter(&self) -> Fingerprinter {
        Fingerprinter::new(self.seed)
    }

    fn fingerprints(&self, pages: &Pages, page: PageId) -> Result<Fingerprints, DeviceError> {
        let (Shared { transfers, kernels, .. }, bytes) = (&*self.shared, (pages.page(page), pages.page_length()));
        Ok(self.fingerprinter().page(transfers.fingerprints(kernels, bytes, self.seed)?))
    }

    fn has_passed(&self, mark: &Mark) -> bool {
        mark.has_passed()
    }

    fn cache(&self, shape: CacheShape) -> Result<Cache, DeviceError> {
        Cache::new(&self.shared.context, shape)
    }
}
