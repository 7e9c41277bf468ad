//! The CPU backend.

// Kernels must be compiled into the function that was started for an instruction set, or they are compiled without it.
#![allow(clippy::inline_always)]

mod attention;
mod buffer;
mod clock;
mod feed_forward;
mod matrix;
mod norm;
mod page;
mod product;
mod queue;
mod router;
mod routing;
mod sample;
mod scratch;
mod simd;
mod threads;
mod untouched;

use std::ops::Range;
use std::sync::Arc;

use bytemuck::Pod;

use self::scratch::Scratch;
use self::threads::Threads;
use crate::arena::PageId;
use crate::backend::{Backend, CacheShape, PageShape};
use crate::batch::StepLimits;
use crate::device::{DeviceIdentity, DeviceMemory};
use crate::error::DeviceError;
use crate::fingerprint::{Fingerprinter, Fingerprints};
use crate::routing::{GroupShape, LayerRouting};
use crate::tensor::MatrixView;

pub use self::attention::Cache;
pub use self::buffer::Buffer;
pub use self::matrix::{Lookup, Matrix};
pub use self::page::Pages;
pub use self::queue::CpuQueue;
pub use self::routing::{Routing, Slots};
pub use self::sample::Batch;
pub use self::simd::Instructions;

/// A rank's share of a CPU. Clones are the same.
#[derive(Clone, Debug)]
pub struct Cpu {
    instructions: Instructions,
    threads: usize,
    /// Of the threads of its queue, as large as what was made on it needs.
    scratch: Arc<Scratch>,
    /// Of fingerprints.
    seed: u64,
}

impl Cpu {
    /// With the best instructions there are, and this many threads for each queue.
    #[must_use]
    pub fn new(threads: usize) -> Self {
        Self::with_instructions(Instructions::available().first().copied().unwrap_or(Instructions::Scalar), threads)
    }

    /// With given instructions.
    #[must_use]
    pub fn with_instructions(instructions: Instructions, threads: usize) -> Self {
        let threads = threads.max(1);
        Self { instructions, threads, scratch: Arc::new(Scratch::new(threads)), seed: 0 }
    }

    /// The same with fingerprints under another seed: who does not know it can prepare no pages that have the same one.
    #[must_use]
    pub fn with_fingerprint_seed(self, seed: u64) -> Self {
        Self { seed, ..self }
    }
}

impl Backend for Cpu {
    type Buffer<T: Pod + Send + Sync> = Buffer<T>;
    type Matrix = Matrix;
    type Lookup = Lookup;
    type Pages = Pages;
    type Cache = Cache;
    type Batch = Batch;
    type Slots = Slots;
    type Routing = Routing;
    type Queue = CpuQueue;
    type Mark = ();

    const PAGE_LAYOUT: &'static str = page::LAYOUT;

    fn page_bytes(shape: PageShape) -> usize {
        page::page_bytes(shape)
    }

    fn cache_bytes(shape: CacheShape) -> u64 {
        Cache::bytes(shape)
    }

    fn step_bytes(limits: StepLimits, group: GroupShape, experts: usize, _: PageShape) -> u64 {
        let parts = [Batch::bytes(limits), Slots::bytes(group, experts), Routing::bytes(group)];
        parts.into_iter().fold(0, u64::saturating_add)
    }

    fn scratch_bytes(cache: CacheShape, pages: &[PageShape], vocabulary: usize) -> u64 {
        let networks = pages.iter().map(|shape| feed_forward::scratch_len(*shape));
        let numbers = networks.fold(attention_scratch(cache), usize::max);
        Scratch::bytes(numbers, vocabulary)
    }

    fn identity(&self) -> DeviceIdentity {
        // All instructions give the same bits, and all threads of a machine share its memory.
        DeviceIdentity { kind: "cpu".to_owned(), name: self.instructions.to_string(), unit: "cpu".to_owned() }
    }

    fn memory(&self) -> Result<Option<DeviceMemory>, DeviceError> {
        Ok(None)
    }

    fn queue(&self) -> Result<CpuQueue, DeviceError> {
        let threads = self.threads;
        let error = |error: rayon::ThreadPoolBuildError| DeviceError::Threads { threads, reason: error.to_string() };
        Ok(CpuQueue::new(self.instructions, Threads::new(threads, Arc::clone(&self.scratch)).map_err(error)?))
    }

    fn buffer<T: Pod + Send + Sync>(&self, capacity: usize) -> Result<Buffer<T>, DeviceError> {
        Buffer::new(capacity)
    }

    fn made<T: Pod + Send + Sync>(
        &self,
        elements: usize,
        element: impl Fn(usize) -> T,
    ) -> Result<Buffer<T>, DeviceError> {
        let mut buffer = Buffer::new(elements)?;
        buffer.set_len(elements);
        buffer.iter_mut().enumerate().for_each(|(place, value)| *value = element(place));
        Ok(buffer)
    }

    fn batch(&self, limits: StepLimits, _: &Slots) -> Result<Batch, DeviceError> {
        self.scratch.fit_tokens(limits.vocabulary)?;
        Batch::new(limits)
    }

    fn slots(&self, group: GroupShape, layers: Vec<LayerRouting>) -> Result<Slots, DeviceError> {
        Slots::new(group, layers)
    }

    fn routing(&self, group: GroupShape, _: PageShape) -> Result<Routing, DeviceError> {
        Routing::new(group)
    }

    fn matrix(&self, view: MatrixView<'_>, bias: Option<&[f32]>) -> Result<Matrix, DeviceError> {
        Matrix::new(view, bias)
    }

    fn lookup(&self, view: MatrixView<'_>) -> Result<Lookup, DeviceError> {
        Lookup::new(view)
    }

    fn pages(&self, shape: PageShape) -> Result<Pages, DeviceError> {
        self.scratch.fit_numbers(feed_forward::scratch_len(shape))?;
        Ok(Pages::new(shape))
    }

    fn add_page(&self, pages: &Pages, page: PageId) -> Result<(), DeviceError> {
        pages.add(page)
    }

    fn pack(&self, pages: &Pages, page: PageId, matrices: [MatrixView<'_>; 3]) -> Result<(), DeviceError> {
        pages.pack(page, matrices);
        Ok(())
    }

    fn fill(&self, pages: &Pages, page: PageId, start: usize, bytes: &[u8]) -> Result<(), DeviceError> {
        pages.fill(page, start, bytes);
        Ok(())
    }

    fn read_page(&self, pages: &Pages, page: PageId, start: usize, into: &mut [u8]) -> Result<(), DeviceError> {
        pages.read(page, start, into);
        Ok(())
    }

    fn reach_pages(&self, _: &Self, _: &Pages) -> Result<(), DeviceError> {
        // All of it is the host's memory.
        Ok(())
    }

    fn pull(
        &self,
        (pages, page): (&Pages, PageId),
        from: (&Pages, PageId),
        place: Range<usize>,
    ) -> Result<Vec<u128>, DeviceError> {
        Ok(pages.pull(page, from, place, self.fingerprinter()))
    }

    fn fingerprinter(&self) -> Fingerprinter {
        Fingerprinter::new(self.seed)
    }

    fn fingerprints(&self, pages: &Pages, page: PageId) -> Result<Fingerprints, DeviceError> {
        Ok(pages.fingerprints(page, self.fingerprinter()))
    }

    fn has_passed(&self, (): &()) -> bool {
        true
    }

    fn cache(&self, shape: CacheShape) -> Result<Cache, DeviceError> {
        let cache = Cache::new(shape)?;
        self.scratch.fit_numbers(attention_scratch(shape))?;
        Ok(cache)
    }
}

/// Numbers that attention over all positions of a cache needs between its parts.
const fn attention_scratch(shape: CacheShape) -> usize {
    attention::scratch_len(shape.blocks.saturating_mul(shape.block_tokens).saturating_sub(1))
}

#[cfg(test)]
mod tests;
