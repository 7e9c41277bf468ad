//! Operations as the GPU does them: each is a launch or two on one stream, in the order in which they are asked for. Between the
//! upload of a step and its collection the host waits for nothing, makes no memory and copies nothing, unless an exchange through
//! the host asks for rows.

mod expert;
mod host;
mod layer;
mod logits;
mod repeat;

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use bytemuck::Pod;

pub(super) use self::expert::PagesOf;
pub(super) use self::layer::keeps_busy;
use self::repeat::Noted;
use super::batch::{Batch, Scratch};
use super::buffer::Buffer;
use super::cache::Cache;
use super::module::Launch;
use super::nccl::{AllToAll, Communicator};
use super::parameters::{
    Address, BEGIN, BeginParameters, Blocks, FINISH, FinishParameters, Kernel, Parameters, error_text,
};
use super::routing::{Routing, Slots};
use super::stream::{Mark, Precedence, Stream};
use super::transfer::Stages;
use super::weights::Matrix;
use super::{Cuda, Pages, Shared};
use crate::arena::PageId;
use crate::backend::{RouterShape, Write};
use crate::batch::{Collected, StepArea};
use crate::error::DeviceError;
use crate::queue::{Arrived, Home, Leaving, Queue, Returning, Rotation};
use crate::times::Activity;

/// Of all queues of the process, so that what was captured for one is never taken for another's.
static NUMBER: AtomicU64 = AtomicU64::new(0);

/// The stream of the thread that made it.
#[derive(Debug)]
pub struct CudaQueue {
    number: u64,
    /// Whether steps that are alike are captured.
    captures: bool,
    /// Whether products by mapped weights go through their map.
    uses_maps: bool,
    /// What is noted of a capture while it goes on.
    capturing: RefCell<Option<Noted>>,
    device: Arc<Shared>,
    stream: Stream,
    /// For what the host brings and takes between operations.
    stages: RefCell<Stages>,
    /// What went wrong first since the last time that this was told.
    failed: RefCell<Option<DeviceError>>,
    /// Of the step that was uploaded last, while its memory is there.
    scratch: RefCell<Weak<Scratch>>,
    /// Where the rows are that the scratch has in terms; 0 if nowhere.
    split: Cell<Address>,
    /// Where kernels of that step say what they met.
    error: Cell<Address>,
}

impl CudaQueue {
    pub(super) fn new(device: &Arc<Shared>, (captures, uses_maps): (bool, bool)) -> Result<Self, DeviceError> {
        let stream = Stream::new(&device.context, Precedence::First)?;
        let stages = RefCell::new(Stages::new(&device.context, &device.events)?);
        Ok(Self {
            number: NUMBER.fetch_add(1, Ordering::Relaxed),
            captures,
            uses_maps,
            capturing: RefCell::default(),
            device: Arc::clone(device),
            stream,
            stages,
            failed: RefCell::default(),
            scratch: RefCell::default(),
            split: Cell::new(0),
            error: Cell::new(0),
        })
    }

    /// Keeps what went wrong until the step is collected.
    fn keep(&self, done: Result<(), impl Into<DeviceError>>) {
        if let Err(failure) = done {
            self.failed.borrow_mut().get_or_insert(failure.into());
        }
    }

    /// Puts a kernel on the queue that is worth so many blocks at most; none of no work.
    pub(super) fn launch<P: Parameters>(&self, kernel: &'static Kernel, work: usize, parameters: &P) {
        self.launch_with(kernel, work, 0, parameters);
    }

    /// The same with so many bytes of shared memory beside its own.
    fn launch_with<P: Parameters>(&self, kernel: &'static Kernel, work: usize, shared: usize, parameters: &P) {
        if work == 0 {
            return;
        }
        // Blocks share the work evenly, so more than run at once would wait for a second turn.
        let most = self.device.kernels.resident(kernel);
        let blocks = if kernel.blocks == Blocks::One { 1 } else { work.min(most) as u32 };
        let launch = Launch { kernel, blocks, shared: shared as u32 };
        // SAFETY: addresses in parameters are of allocations of this backend and of memory mapped for it, which are freed only when
        // all work of the device has ended. Their capacities are those that their operation needs by construction (batch, routing)
        // or by the assertions of `Buffer::set` and of the operations; lists that the host filled are checked by the kernels
        // against the sizes that they are given. What a kernel writes is borrowed as mutable by its operation, so nothing else is
        // on this queue that uses it out of order, and other queues have their own.
        let launched = unsafe { self.device.kernels.launch(&self.stream, launch, parameters) };
        self.keep(launched);
    }

    /// Puts exchanges with other ranks on the queue.
    pub(super) fn exchange(&self, communicator: &Communicator, parts: &[AllToAll]) {
        let bound = self.device.context.bind();
        self.keep(bound.map_err(DeviceError::from).and_then(|()| communicator.exchange(&self.stream, parts)));
    }

    /// Waits for what is on the queue by now; for nothing while that is captured, and one launch.
    pub(super) fn catch_up(&self) {
        if !self.is_capturing() {
            self.keep(self.stream.finish());
        }
    }

    /// Where kernels of the step say what they met.
    pub(super) const fn error(&self) -> Address {
        self.error.get()
    }

    /// Room for what is between operations.
    ///
    /// # Panics
    /// If no step was uploaded.
    fn scratch(&self) -> Arc<Scratch> {
        self.scratch.borrow().upgrade().expect("operations belong to a step that was uploaded")
    }

    /// Says that a buffer has other rows now: the terms that there are of it are not of these.
    fn changed<T>(&self, buffer: &Buffer<T>) {
        if self.split.get() == buffer.address() {
            self.split.set(0);
        }
    }

    /// Whether nothing has failed that was told of by now.
    fn is_well(&self) -> bool {
        self.failed.borrow().is_none()
    }

    /// What went wrong since this was asked last.
    fn told(&self, word: u32) -> Result<(), DeviceError> {
        if let Some(error) = self.failed.take() {
            return Err(error);
        }
        match word {
            0 => Ok(()),
            word => Err(DeviceError::Failed { reason: error_text(word).to_owned(), usable: true }),
        }
    }
}

impl Queue<Cuda> for CudaQueue {
    fn upload(&self, area: &StepArea, batch: &mut Batch, slots: &mut Slots) {
        if batch.is_under_way() {
            self.keep(self.stream.finish());
        }
        batch.prepare(area, slots);
        *self.scratch.borrow_mut() = Arc::downgrade(batch.scratch());
        self.split.set(0);
        self.error.set(batch.error());
    }

    fn begin(&self, batch: &mut Batch, slots: &mut Slots) {
        let limits = batch.limits();
        let parameters = BeginParameters {
            area: batch.area(),
            batch: batch.copy(),
            items: batch.items(),
            item_count: batch.item_count(),
            error: batch.error(),
            slots: slots.tables(),
            layout: batch.layout(),
            most_tokens: limits.tokens as u32,
            most_blocks: limits.blocks as u32,
            most_changes: slots.group().layers as u32,
            most_partials: batch.most_partials() as u32,
        };
        self.launch(&BEGIN, 1, &parameters);
    }

    fn finish(&self, batch: &mut Batch, slots: &mut Slots) {
        let ([sampled_out, best_out, error_out], (pairs_out, pairs)) = (batch.answers(), slots.pairs());
        let parameters = FinishParameters {
            asked: batch.asked_count(),
            sampled: batch.sampled(),
            best: batch.best(),
            pairs: slots.tables().pairs,
            error: batch.error(),
            sampled_out,
            best_out,
            pairs_out,
            error_out,
            pair_count: pairs as u32,
            unused: 0,
        };
        self.launch(&FINISH, 1 + (batch.most_asked() + pairs / 32) / 64, &parameters);
    }

    fn collect<'a>(&self, batch: &'a Batch, slots: &'a Slots) -> Result<Collected<'a>, DeviceError> {
        let waited = self.device.events.record(&self.stream).and_then(|mark| mark.wait());
        self.keep(waited);
        batch.has_ended();
        self.told(if self.is_well() { batch.error_word() } else { 0 })?;
        let times = batch.clock.times()?;
        Ok(Collected {
            sampled: Cow::Owned(batch.sampled_rows()),
            best: Cow::Owned(batch.best_tokens()),
            pairs: Cow::Owned(slots.counted()),
            times,
        })
    }

    fn mark(&self) -> Mark {
        self.device.events.record(&self.stream).unwrap_or_else(|failure| {
            self.keep(Err(failure));
            Mark::never()
        })
    }

    fn turn_to(&self, activity: Activity, batch: &mut Batch) {
        self.keep(batch.clock.mark(activity, &self.stream, self.is_capturing()));
    }

    fn repeat<S, E>(
        &self,
        key: usize,
        state: &mut S,
        batch: impl Fn(&mut S) -> &mut Batch,
        work: impl FnMut(&mut S) -> Result<(), E>,
    ) -> Result<Option<DeviceError>, E> {
        self.repeat_step(key, state, batch, work)
    }

    fn read<'a, T: Pod + Send + Sync>(&self, buffer: &'a Buffer<T>) -> Cow<'a, [T]> {
        Cow::Owned(self.fetch(buffer.address(), buffer.len()))
    }

    fn embed(&self, table: &Matrix, batch: &Batch, out: &mut Buffer<f32>) {
        self.look_up(table, batch, out);
    }

    fn rms_norm(&self, x: &Buffer<f32>, weight: &Buffer<f32>, epsilon: f32, out: &mut Buffer<f32>) {
        self.norm(x, weight, epsilon, out);
    }

    fn matmul(&self, x: &Buffer<f32>, weights: &Matrix, write: Write, out: &mut Buffer<f32>) {
        self.multiply(x, weights, write, out);
    }

    fn rotate(&self, projected: &mut Buffer<f32>, batch: &Batch, rotation: &Rotation<'_, Cuda>) {
        self.rotate_heads(projected, batch, rotation);
    }

    fn store(&self, cache: &mut Cache, projected: &Buffer<f32>, batch: &Batch) {
        self.store_heads(cache, projected, batch);
    }

    fn attend(&self, cache: &Cache, projected: &Buffer<f32>, batch: &Batch, out: &mut Buffer<f32>) {
        self.attend_heads(cache, projected, batch, out);
    }

    fn feed_forward(&self, (pages, page): (&Pages, PageId), x: &Buffer<f32>, out: &mut Buffer<f32>) {
        self.dense(pages, page, x, out);
    }

    fn route(&self, logits: &Buffer<f32>, shape: RouterShape, routing: &mut Routing) {
        self.route_rows(logits, shape, routing);
    }

    fn choose(&self, batch: &Batch, slots: &Slots, layer: usize, routing: &mut Routing) {
        self.choose_slots(batch, slots, layer, routing);
    }

    fn sort(&self, slots: &mut Slots, layer: usize, routing: &mut Routing) {
        self.sort_pairs(slots, layer, routing);
    }

    fn experts(&self, pages: &Pages, routing: &Routing, x: &Buffer<f32>, results: &mut Buffer<f32>) {
        self.run_experts(pages, routing, x, results);
    }

    fn combine(&self, results: &Buffer<f32>, routing: &Routing, out: &mut Buffer<f32>) {
        self.combine_results(results, routing, out);
    }

    fn gather(&self, x: &Buffer<f32>, batch: &Batch, asked: Range<usize>, out: &mut Buffer<f32>) {
        self.gather_rows(x, batch, asked, out);
    }

    fn sample(&self, logits: &Buffer<f32>, asked: Range<usize>, batch: &mut Batch) {
        self.sample_rows(logits, asked, batch);
    }

    fn leaving<'a>(&self, routing: &'a Routing, x: &'a Buffer<f32>) -> Leaving<'a> {
        self.give_away(routing, x)
    }

    fn arrive(&self, routing: &mut Routing, arrived: Arrived<'_>, x: &mut Buffer<f32>) {
        self.take_in(routing, arrived, x);
    }

    fn returning<'a>(&self, routing: &'a Routing, results: &'a Buffer<f32>) -> Returning<'a> {
        self.give_back(routing, results)
    }

    fn come_home(&self, routing: &mut Routing, home: Home<'_>, results: &mut Buffer<f32>) {
        self.take_home(routing, home, results);
    }
}
