//! The operations of a model on a device. Those of one queue run in the order in which they were put there, and none of them
//! says whether it succeeded: what goes wrong is kept and told by [`Queue::collect`].
//!
//! Activations are row-major f32 buffers, `[rows, width]`.

use std::borrow::Cow;
use std::ops::Range;

use bytemuck::Pod;

use crate::arena::PageId;
use crate::backend::{Backend, HeadShape, RouterShape, Write};
use crate::batch::{Collected, StepArea};
use crate::error::DeviceError;
use crate::routing::{Destination, Pair};
use crate::times::Activity;

/// Operations in order.
pub trait Queue<B: Backend> {
    /// Puts a step where the device gets it from: its batch, and the routing of the layers where that changes.
    fn upload(&self, area: &StepArea, batch: &mut B::Batch, slots: &mut B::Slots);
    /// The first operation of a step: takes what was uploaded, and counts pairs from zero.
    fn begin(&self, batch: &mut B::Batch, slots: &mut B::Slots);
    /// The last operation of a step: leaves what it gave for the host.
    fn finish(&self, batch: &mut B::Batch, slots: &mut B::Slots);
    /// Does `work`, which puts all of a step on the queue, from [`Self::begin`] to [`Self::finish`], that was uploaded with a bucket: the
    /// same operations with the same memory whenever it has this key, whatever the step is. What was put there once a device
    /// may keep in the batch that `batch` finds, and put there again without asking `work`; buffers then say nothing of their rows until
    /// they are written again. Gives why it does not, the first time that it finds that it cannot.
    ///
    /// # Errors
    /// What `work` says.
    fn repeat<S, E>(
        &self,
        key: usize,
        state: &mut S,
        batch: impl Fn(&mut S) -> &mut B::Batch,
        work: impl FnMut(&mut S) -> Result<(), E>,
    ) -> Result<Option<DeviceError>, E>;
    /// The one wait of a step that is finished: what it left for the host.
    ///
    /// # Errors
    /// If an operation failed since the last time; nothing of the step can be used then.
    fn collect<'a>(&self, batch: &'a B::Batch, slots: &'a B::Slots) -> Result<Collected<'a>, DeviceError>;
    /// Marks what is on the queue by now.
    fn mark(&self) -> B::Mark;
    /// Says what the operations are that come next, until this is said again: how long the device is at each is told with the
    /// step. At most four times for each layer with experts, the last time that it is [`Activity::Other`]: what is under way at
    /// the end of a step is not told by all devices.
    fn turn_to(&self, activity: Activity, batch: &mut B::Batch);
    /// The elements of a buffer, where the host can read them. Waits.
    fn read<'a, T: Pod + Send + Sync>(&self, buffer: &'a B::Buffer<T>) -> Cow<'a, [T]>;

    /// `out[i] = table[id of token i]`, widened.
    fn embed(&self, table: &B::Lookup, batch: &B::Batch, out: &mut B::Buffer<f32>);
    /// Root mean square norm: `out = x / sqrt(mean(x^2) + epsilon) * weight`, rows of the weight's length.
    fn rms_norm(&self, x: &B::Buffer<f32>, weight: &B::Buffer<f32>, epsilon: f32, out: &mut B::Buffer<f32>);
    /// `out = x * weights^T + bias`, rows of the matrix's columns to rows of its rows.
    fn matmul(&self, x: &B::Buffer<f32>, weights: &B::Matrix, write: Write, out: &mut B::Buffer<f32>);
    /// Norms each query and key head and rotates it by its token's position ("rotate half"), in place.
    fn rotate(&self, projected: &mut B::Buffer<f32>, batch: &B::Batch, rotation: &Rotation<'_, B>);
    /// Puts keys and values of the batch's tokens into the cache.
    fn store(&self, cache: &mut B::Cache, projected: &B::Buffer<f32>, batch: &B::Batch);
    /// Causal attention of each token over its sequence's keys so far, which are in the cache.
    fn attend(&self, cache: &B::Cache, projected: &B::Buffer<f32>, batch: &B::Batch, out: &mut B::Buffer<f32>);
    /// Adds the feed-forward of each row to the same row of `out`.
    fn feed_forward(&self, page: (&B::Pages, PageId), x: &B::Buffer<f32>, out: &mut B::Buffer<f32>);

    /// Softmax over all experts, then the `top_k` best of each row, best first, equal ones by ascending number.
    fn route(&self, logits: &B::Buffer<f32>, shape: RouterShape, routing: &mut B::Routing);
    /// Chooses the slot of each token's experts, see [`Copies::choose`](crate::routing::Copies::choose).
    fn choose(&self, batch: &B::Batch, slots: &B::Slots, layer: usize, routing: &mut B::Routing);
    /// Sorts the pairs that are computed here by slot, and counts them.
    fn sort(&self, slots: &mut B::Slots, layer: usize, routing: &mut B::Routing);
    /// Sends each pair's row through the page of its slot. `x` has the rows of this rank's tokens, then those that arrived.
    fn experts(&self, pages: &B::Pages, routing: &B::Routing, x: &B::Buffer<f32>, results: &mut B::Buffer<f32>);
    /// `out[i] += sum over j of weight[i, j] * result[i, j]`, in the order of `j`: the order in which the router chose.
    fn combine(&self, results: &B::Buffer<f32>, routing: &B::Routing, out: &mut B::Buffer<f32>);

    /// `out[i] = x[row of what is asked i]` for some of what is asked, rows of `width`.
    fn gather(&self, x: &B::Buffer<f32>, batch: &B::Batch, asked: Range<usize>, out: &mut B::Buffer<f32>);
    /// Answers some of what is asked, one row of `logits` for each.
    fn sample(&self, logits: &B::Buffer<f32>, asked: Range<usize>, batch: &mut B::Batch);

    /// For an exchange through the host: where each pair of this rank's tokens goes, and their rows. Waits.
    fn leaving<'a>(&self, routing: &'a B::Routing, x: &'a B::Buffer<f32>) -> Leaving<'a>;
    /// Rows of other ranks' tokens, which go behind those that are here, and the pairs that they are in.
    fn arrive(&self, routing: &mut B::Routing, arrived: Arrived<'_>, x: &mut B::Buffer<f32>);
    /// For an exchange through the host: the results of pairs that arrived, in the order in which they did. Waits.
    fn returning<'a>(&self, routing: &'a B::Routing, results: &'a B::Buffer<f32>) -> Returning<'a>;
    /// Results of this rank's tokens that another rank computed; they go behind those that are here. All other ranks come home, in
    /// their order.
    fn come_home(&self, routing: &mut B::Routing, home: Home<'_>, results: &mut B::Buffer<f32>);
}

/// What [`Queue::rotate`] needs beside the rows.
#[derive(Debug)]
pub struct Rotation<'a, B: Backend> {
    /// The heads of a row.
    pub heads: HeadShape,
    /// Norm weights of query heads, `[dimension]`.
    pub query_norm: &'a B::Buffer<f32>,
    /// Norm weights of key heads, `[dimension]`.
    pub key_norm: &'a B::Buffer<f32>,
    /// Of both norms.
    pub epsilon: f32,
    /// `[positions, dimension]`: for each position the cosines, then the sines, of `dimension / 2` angles.
    pub angles: &'a B::Buffer<f32>,
}

/// What leaves a rank for others.
#[derive(Clone, Debug)]
pub struct Leaving<'a> {
    /// Of each (token, expert) pair.
    pub destinations: Cow<'a, [Destination]>,
    /// The tokens' rows.
    pub values: Cow<'a, [f32]>,
}

/// What comes from one other rank.
#[derive(Clone, Copy, Debug)]
pub struct Arrived<'a> {
    /// Length of a row.
    pub width: usize,
    /// The rows, one after the other, `[rows, width]`.
    pub values: &'a [f32],
    /// Pairs, by rows of which those of this frame follow all that are here.
    pub pairs: &'a [Pair],
}

/// What a rank computed for others.
#[derive(Clone, Debug)]
pub struct Returning<'a> {
    /// For each pair that arrived: its row of the results.
    pub rows: Cow<'a, [u32]>,
    /// All results.
    pub values: Cow<'a, [f32]>,
}

/// What another rank computed for this one.
#[derive(Clone, Copy, Debug)]
pub struct Home<'a> {
    /// The rank.
    pub from: usize,
    /// Length of a row.
    pub width: usize,
    /// A row for each pair that it was given, in their order.
    pub values: &'a [f32],
}
