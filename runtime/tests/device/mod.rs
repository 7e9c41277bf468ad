//! A device that counts what is asked of it, and is late or fails when it is told to. The arithmetic is the CPU's.

#![allow(dead_code, reason = "each test uses its own part of it")]
#![allow(clippy::unwrap_used, reason = "what goes wrong ends the test")]

use std::borrow::Cow;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bytemuck::Pod;
use kernels::backend::{CacheShape, PageShape, RouterShape, Write};
use kernels::batch::{Collected, StepLimits};
use kernels::cpu::{self, Cpu, CpuQueue};
use kernels::fingerprint::{Fingerprinter, Fingerprints};
use kernels::queue::{Arrived, Home, Leaving, Returning, Rotation};
use kernels::routing::{GroupShape, LayerRouting};
use kernels::tensor::{MatrixView, WeightKind};
use kernels::times::Activity;
use kernels::{Backend, DeviceError, DeviceIdentity, DeviceMemory, PageId, Queue, StepArea};

/// What was asked of a device.
#[derive(Debug, Default)]
pub struct Counts {
    pub uploads: AtomicU64,
    /// Each is a download and a wait.
    pub collects: AtomicU64,
    /// Reads of a buffer by the host.
    pub reads: AtomicU64,
    /// Memory of any kind that was made.
    pub allocations: AtomicU64,
    /// Times that an exchange through the host waited for the device.
    pub stops: AtomicU64,
    pub marks: AtomicU64,
    /// Times that operations asked the system for memory, as [`Watched::asked`] says.
    pub in_operations: AtomicU64,
}

impl Counts {
    /// All of them, in the order of the fields.
    pub fn all(&self) -> [u64; 7] {
        let Self { uploads, collects, reads, allocations, stops, marks, in_operations } = self;
        [uploads, collects, reads, allocations, stops, marks, in_operations].map(|count| count.load(Ordering::Relaxed))
    }
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// What a device keeps of a matrix.
fn bytes_of(view: MatrixView<'_>) -> usize {
    let width = match view.values().kind() {
        WeightKind::Bf16 => 2,
        WeightKind::F32 => 4,
    };
    view.values().len() * width
}

/// The device.
pub struct Watched {
    cpu: Cpu,
    pub counts: Arc<Counts>,
    /// Marks up to this one have passed.
    pub passed: AtomicU64,
    pub fault: Fault,
    /// What its pages fail with when they are filled.
    pub filling: Fault,
    /// When they are read.
    pub reading: Fault,
    /// When their fingerprints are taken.
    pub fingerprinting: Fault,
    /// What it fails with when memory for steps is asked of it.
    pub batches: Fault,
    /// What it has to itself, and which device of its machine it is, if it is not the machine's.
    pub own: Option<(DeviceMemory, &'static str)>,
    /// Bytes of all memory that was made, but for batches, slots and routing.
    pub bytes: AtomicU64,
    /// How often the calling thread asked the system for memory so far.
    pub asked: fn() -> u64,
}

/// What a device's steps, or whatever else it is for, fail with, after some more that do not: once. Clones are the same.
#[derive(Clone, Default)]
pub struct Fault(Arc<Mutex<Option<(u64, DeviceError)>>>);

impl Fault {
    /// After so many steps more, one fails, and the device can be used after that or not.
    pub fn after(&self, steps: u64, usable: bool) {
        self.with(steps, DeviceError::Failed { reason: "it was told to".to_owned(), usable });
    }

    /// After so many times more, it fails with this.
    pub fn with(&self, times: u64, error: DeviceError) {
        *self.0.lock().unwrap() = Some((times, error));
    }

    /// Whether it is still to come.
    pub fn is_due(&self) -> bool {
        self.0.lock().unwrap().is_some()
    }

    fn happen(&self) -> Result<(), DeviceError> {
        let mut fault = self.0.lock().unwrap();
        match &mut *fault {
            Some((0, _)) => fault.take().map_or(Ok(()), |(_, error)| Err(error)),
            Some((steps, _)) => {
                *steps -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }
}

impl Watched {
    pub fn new() -> Self {
        Self::of(Cpu::new(1), Fault::default())
    }

    /// That fails as it is told to.
    pub fn of(cpu: Cpu, fault: Fault) -> Self {
        let (counts, passed) = (Arc::default(), AtomicU64::new(u64::MAX));
        let (filling, reading, fingerprinting, batches) = Default::default();
        let (bytes, asked) = (AtomicU64::new(0), || 0);
        Self { cpu, counts, passed, fault, filling, reading, fingerprinting, batches, own: None, bytes, asked }
    }

    fn allocate<T>(&self, made: T) -> T {
        count(&self.counts.allocations);
        made
    }

    fn allocate_bytes<T>(&self, bytes: usize, made: T) -> T {
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        self.allocate(made)
    }
}

impl Backend for Watched {
    type Buffer<T: Pod + Send + Sync> = cpu::Buffer<T>;
    type Matrix = cpu::Matrix;
    type Lookup = cpu::Lookup;
    type Pages = cpu::Pages;
    type Cache = cpu::Cache;
    type Batch = cpu::Batch;
    type Slots = cpu::Slots;
    type Routing = cpu::Routing;
    type Queue = WatchedQueue;
    type Mark = u64;

    const PAGE_LAYOUT: &'static str = Cpu::PAGE_LAYOUT;

    fn page_bytes(shape: PageShape) -> usize {
        Cpu::page_bytes(shape)
    }

    fn cache_bytes(shape: CacheShape) -> u64 {
        Cpu::cache_bytes(shape)
    }

    fn step_bytes(limits: StepLimits, group: GroupShape, experts: usize, page: PageShape) -> u64 {
        Cpu::step_bytes(limits, group, experts, page)
    }

    fn scratch_bytes(cache: CacheShape, pages: &[PageShape], vocabulary: usize) -> u64 {
        Cpu::scratch_bytes(cache, pages, vocabulary)
    }

    fn identity(&self) -> DeviceIdentity {
        let identity = self.cpu.identity();
        match self.own {
            Some((_, unit)) => DeviceIdentity { unit: unit.to_owned(), ..identity },
            None => identity,
        }
    }

    fn memory(&self) -> Result<Option<DeviceMemory>, DeviceError> {
        Ok(self.own.map(|(memory, _)| memory))
    }

    fn queue(&self) -> Result<WatchedQueue, DeviceError> {
        let (counts, fault) = (Arc::clone(&self.counts), self.fault.clone());
        Ok(WatchedQueue { queue: self.cpu.queue()?, counts, fault, asked: self.asked })
    }

    fn buffer<T: Pod + Send + Sync>(&self, capacity: usize) -> Result<cpu::Buffer<T>, DeviceError> {
        self.allocate_bytes(capacity * size_of::<T>(), self.cpu.buffer(capacity))
    }

    fn made<T: Pod + Send + Sync>(
        &self,
        elements: usize,
        element: impl Fn(usize) -> T,
    ) -> Result<cpu::Buffer<T>, DeviceError> {
        self.allocate_bytes(elements * size_of::<T>(), self.cpu.made(elements, element))
    }

    fn batch(&self, limits: StepLimits, slots: &cpu::Slots) -> Result<cpu::Batch, DeviceError> {
        self.batches.happen()?;
        self.allocate(self.cpu.batch(limits, slots))
    }

    fn slots(&self, group: GroupShape, layers: Vec<LayerRouting>) -> Result<cpu::Slots, DeviceError> {
        self.allocate(self.cpu.slots(group, layers))
    }

    fn routing(&self, group: GroupShape, page: PageShape) -> Result<cpu::Routing, DeviceError> {
        self.allocate(self.cpu.routing(group, page))
    }

    fn matrix(&self, view: MatrixView<'_>, bias: Option<&[f32]>) -> Result<cpu::Matrix, DeviceError> {
        self.allocate_bytes(bytes_of(view) + bias.map_or(0, size_of_val), self.cpu.matrix(view, bias))
    }

    fn lookup(&self, view: MatrixView<'_>) -> Result<cpu::Lookup, DeviceError> {
        self.allocate_bytes(bytes_of(view), self.cpu.lookup(view))
    }

    fn pages(&self, shape: PageShape) -> Result<cpu::Pages, DeviceError> {
        self.allocate(self.cpu.pages(shape))
    }

    fn add_page(&self, pages: &cpu::Pages, page: PageId) -> Result<(), DeviceError> {
        self.allocate_bytes(Cpu::page_bytes(pages.shape()), self.cpu.add_page(pages, page))
    }

    fn pack(&self, pages: &cpu::Pages, page: PageId, matrices: [MatrixView<'_>; 3]) -> Result<(), DeviceError> {
        self.cpu.pack(pages, page, matrices)
    }

    fn fill(&self, pages: &cpu::Pages, page: PageId, start: usize, bytes: &[u8]) -> Result<(), DeviceError> {
        self.filling.happen()?;
        self.cpu.fill(pages, page, start, bytes)
    }

    fn read_page(&self, pages: &cpu::Pages, page: PageId, start: usize, into: &mut [u8]) -> Result<(), DeviceError> {
        self.reading.happen()?;
        self.cpu.read_page(pages, page, start, into)
    }

    fn reach_pages(&self, other: &Self, pages: &cpu::Pages) -> Result<(), DeviceError> {
        self.cpu.reach_pages(&other.cpu, pages)
    }

    fn pull(
        &self,
        to: (&cpu::Pages, PageId),
        from: (&cpu::Pages, PageId),
        place: Range<usize>,
    ) -> Result<Vec<u128>, DeviceError> {
        self.filling.happen()?;
        self.cpu.pull(to, from, place)
    }

    fn fingerprinter(&self) -> Fingerprinter {
        self.cpu.fingerprinter()
    }

    fn fingerprints(&self, pages: &cpu::Pages, page: PageId) -> Result<Fingerprints, DeviceError> {
        self.fingerprinting.happen()?;
        self.cpu.fingerprints(pages, page)
    }

    fn has_passed(&self, mark: &u64) -> bool {
        *mark <= self.passed.load(Ordering::Relaxed)
    }

    fn cache(&self, shape: CacheShape) -> Result<cpu::Cache, DeviceError> {
        self.allocate_bytes(Cpu::cache_bytes(shape) as usize, self.cpu.cache(shape))
    }
}

/// Its queue.
pub struct WatchedQueue {
    queue: CpuQueue,
    counts: Arc<Counts>,
    fault: Fault,
    asked: fn() -> u64,
}

impl WatchedQueue {
    fn counted<T>(&self, operation: impl FnOnce(&CpuQueue) -> T) -> T {
        let before = (self.asked)();
        let done = operation(&self.queue);
        self.counts.in_operations.fetch_add((self.asked)() - before, Ordering::Relaxed);
        done
    }
}

impl Queue<Watched> for WatchedQueue {
    fn upload(&self, area: &StepArea, batch: &mut cpu::Batch, slots: &mut cpu::Slots) {
        count(&self.counts.uploads);
        self.counted(|queue| queue.upload(area, batch, slots));
    }

    fn begin(&self, batch: &mut cpu::Batch, slots: &mut cpu::Slots) {
        self.counted(|queue| queue.begin(batch, slots));
    }

    fn finish(&self, batch: &mut cpu::Batch, slots: &mut cpu::Slots) {
        self.counted(|queue| queue.finish(batch, slots));
    }

    fn repeat<S, E>(
        &self,
        key: usize,
        state: &mut S,
        batch: impl Fn(&mut S) -> &mut cpu::Batch,
        work: impl FnMut(&mut S) -> Result<(), E>,
    ) -> Result<Option<DeviceError>, E> {
        self.queue.repeat(key, state, batch, work)
    }

    fn collect<'a>(&self, batch: &'a cpu::Batch, slots: &'a cpu::Slots) -> Result<Collected<'a>, DeviceError> {
        count(&self.counts.collects);
        self.fault.happen()?;
        self.counted(|queue| queue.collect(batch, slots))
    }

    fn mark(&self) -> u64 {
        count(&self.counts.marks);
        self.counts.marks.load(Ordering::Relaxed)
    }

    fn turn_to(&self, activity: Activity, batch: &mut cpu::Batch) {
        self.counted(|queue| queue.turn_to(activity, batch));
    }

    fn read<'a, T: Pod + Send + Sync>(&self, buffer: &'a cpu::Buffer<T>) -> Cow<'a, [T]> {
        count(&self.counts.reads);
        self.counted(|queue| queue.read(buffer))
    }

    fn embed(&self, table: &cpu::Lookup, batch: &cpu::Batch, out: &mut cpu::Buffer<f32>) {
        self.counted(|queue| queue.embed(table, batch, out));
    }

    fn rms_norm(&self, x: &cpu::Buffer<f32>, weight: &cpu::Buffer<f32>, epsilon: f32, out: &mut cpu::Buffer<f32>) {
        self.counted(|queue| queue.rms_norm(x, weight, epsilon, out));
    }

    fn matmul(&self, x: &cpu::Buffer<f32>, weights: &cpu::Matrix, write: Write, out: &mut cpu::Buffer<f32>) {
        self.counted(|queue| queue.matmul(x, weights, write, out));
    }

    fn rotate(&self, projected: &mut cpu::Buffer<f32>, batch: &cpu::Batch, rotation: &Rotation<'_, Watched>) {
        let Rotation { heads, query_norm, key_norm, epsilon, angles } = *rotation;
        self.counted(|queue| {
            queue.rotate(projected, batch, &Rotation { heads, query_norm, key_norm, epsilon, angles });
        });
    }

    fn store(&self, cache: &mut cpu::Cache, projected: &cpu::Buffer<f32>, batch: &cpu::Batch) {
        self.counted(|queue| queue.store(cache, projected, batch));
    }

    fn attend(&self, cache: &cpu::Cache, projected: &cpu::Buffer<f32>, batch: &cpu::Batch, out: &mut cpu::Buffer<f32>) {
        self.counted(|queue| queue.attend(cache, projected, batch, out));
    }

    fn feed_forward(&self, page: (&cpu::Pages, PageId), x: &cpu::Buffer<f32>, out: &mut cpu::Buffer<f32>) {
        self.counted(|queue| queue.feed_forward(page, x, out));
    }

    fn route(&self, logits: &cpu::Buffer<f32>, shape: RouterShape, routing: &mut cpu::Routing) {
        self.counted(|queue| queue.route(logits, shape, routing));
    }

    fn choose(&self, batch: &cpu::Batch, slots: &cpu::Slots, layer: usize, routing: &mut cpu::Routing) {
        self.counted(|queue| queue.choose(batch, slots, layer, routing));
    }

    fn sort(&self, slots: &mut cpu::Slots, layer: usize, routing: &mut cpu::Routing) {
        self.counted(|queue| queue.sort(slots, layer, routing));
    }

    fn experts(
        &self,
        pages: &cpu::Pages,
        routing: &cpu::Routing,
        x: &cpu::Buffer<f32>,
        results: &mut cpu::Buffer<f32>,
    ) {
        self.counted(|queue| queue.experts(pages, routing, x, results));
    }

    fn combine(&self, results: &cpu::Buffer<f32>, routing: &cpu::Routing, out: &mut cpu::Buffer<f32>) {
        self.counted(|queue| queue.combine(results, routing, out));
    }

    fn gather(&self, x: &cpu::Buffer<f32>, batch: &cpu::Batch, asked: Range<usize>, out: &mut cpu::Buffer<f32>) {
        self.counted(|queue| queue.gather(x, batch, asked, out));
    }

    fn sample(&self, logits: &cpu::Buffer<f32>, asked: Range<usize>, batch: &mut cpu::Batch) {
        self.counted(|queue| queue.sample(logits, asked, batch));
    }

    fn leaving<'a>(&self, routing: &'a cpu::Routing, x: &'a cpu::Buffer<f32>) -> Leaving<'a> {
        count(&self.counts.stops);
        self.counted(|queue| queue.leaving(routing, x))
    }

    fn arrive(&self, routing: &mut cpu::Routing, arrived: Arrived<'_>, x: &mut cpu::Buffer<f32>) {
        self.counted(|queue| queue.arrive(routing, arrived, x));
    }

    fn returning<'a>(&self, routing: &'a cpu::Routing, results: &'a cpu::Buffer<f32>) -> Returning<'a> {
        count(&self.counts.stops);
        self.counted(|queue| queue.returning(routing, results))
    }

    fn come_home(&self, routing: &mut cpu::Routing, home: Home<'_>, results: &mut cpu::Buffer<f32>) {
        self.counted(|queue| queue.come_home(routing, home, results));
    }
}
