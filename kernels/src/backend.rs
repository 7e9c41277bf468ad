//! A device: its memory, the weights in it, and the queues that work is put on. Statically dispatched; buffers, weights and pages
//! are the backend's own types.
//!
//! Memory is made while a model is loaded or a group is formed, never in a step. Shapes are checked by assertion: a wrong one
//! is a mistake of the model code, never of its input.

use std::ops::Range;

use bytemuck::Pod;

use crate::arena::PageId;
use crate::batch::StepLimits;
use crate::device::{DeviceIdentity, DeviceMemory};
use crate::error::DeviceError;
use crate::fingerprint::{Fingerprinter, Fingerprints};
use crate::link::Linking;
use crate::queue::Queue;
use crate::routing::{GroupShape, LayerRouting};
use crate::tensor::{MatrixView, WeightKind};

/// Heads of an attention layer. A row of projections holds all query heads, then all key heads, then all value heads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HeadShape {
    /// Query heads; a multiple of `key_value`.
    pub query: usize,
    /// Key heads, and as many value heads.
    pub key_value: usize,
    /// Elements of each head; even.
    pub dimension: usize,
}

impl HeadShape {
    /// Width of a row of queries.
    #[must_use]
    pub const fn query_width(&self) -> usize {
        self.query * self.dimension
    }

    /// Width of a row of queries, keys and values.
    #[must_use]
    pub const fn projected_width(&self) -> usize {
        (self.query + 2 * self.key_value) * self.dimension
    }
}

/// Size of the KV cache of one layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheShape {
    /// Heads of the layer.
    pub heads: HeadShape,
    /// Number of blocks.
    pub blocks: usize,
    /// Tokens of a block; a multiple of [`CACHE_TILE`].
    pub block_tokens: usize,
    /// How keys and values are kept; a backend that has them in f32 only takes no notice.
    pub kind: WeightKind,
}

/// Keys that attention takes at a time; a block of the cache holds a multiple of it.
pub const CACHE_TILE: usize = 16;

/// Shape of a gated feed-forward network: `down(silu(gate(x)) * up(x))`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PageShape {
    /// Width of its input and output.
    pub hidden: usize,
    /// Width between.
    pub intermediate: usize,
    /// How its weights are kept.
    pub kind: WeightKind,
}

/// How a router chooses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouterShape {
    /// Experts.
    pub experts: usize,
    /// Experts of each token.
    pub top_k: usize,
    /// Whether the weights of the chosen are scaled to sum 1.
    pub normalise: bool,
}

/// What becomes of the old value of an output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Write {
    /// It is replaced.
    Replace,
    /// The result is added to it.
    Add,
}

/// A device with its memory. Shared by all threads; each thread that puts work on it has a [`Queue`] of its own.
pub trait Backend: Send + Sync + Sized + 'static {
    /// An array in device memory: of fixed capacity, with as many elements as the operation said that wrote it last.
    type Buffer<T: Pod + Send + Sync>: Send + Sync;
    /// A linear layer's weights as the device multiplies by them.
    type Matrix: Send + Sync;
    /// Rows to be looked up.
    type Lookup: Send + Sync;
    /// Weights of feed-forward networks of one shape, by number; an [`Arena`](crate::Arena) says who owns which.
    type Pages: Send + Sync;
    /// Keys and values of one layer, in blocks.
    type Cache: Send;
    /// What a step computes, and what it leaves for the host.
    type Batch: Send;
    /// Where the copies of all layers' experts are, and how many pairs this rank's slots computed.
    type Slots: Send;
    /// What goes where in one layer: the experts of each token, the slots that compute them, and where their results are.
    type Routing: Send;
    /// Where operations are put, in order; used by the thread that made it.
    type Queue: Queue<Self>;
    /// A place in the order of a queue, for other threads.
    type Mark: Clone + Send + Sync;

    /// Names how the bytes of a page lie: a page that is read from one device can be filled into another whose pages have the same
    /// layout and length.
    const PAGE_LAYOUT: &'static str;
    /// Bytes of its memory that what links ranks of any processes takes for itself at most, beside the frames in what a step takes.
    const COLLECTIVE_BYTES: u64 = 0;

    /// Length of a page in bytes.
    fn page_bytes(shape: PageShape) -> usize;
    /// Bytes that a cache takes.
    fn cache_bytes(shape: CacheShape) -> u64;
    /// Whether it can serve a model in a group of these shapes at all; said before anything of either is read.
    ///
    /// # Errors
    /// If it cannot, in a sentence that says what to do.
    fn check_shape(_limits: StepLimits, _group: GroupShape, _page: PageShape) -> Result<(), DeviceError> {
        Ok(())
    }
    /// Bytes of its memory that the batch, the slots and the routing of a group take together, in a model with so many experts in each
    /// layer and pages of this shape.
    fn step_bytes(limits: StepLimits, group: GroupShape, experts: usize, page: PageShape) -> u64;
    /// Bytes of its memory that each thread of a queue keeps between the parts of operations, beside that of a batch, once caches of
    /// this shape, these pages and rows of so many logits were made.
    fn scratch_bytes(cache: CacheShape, pages: &[PageShape], vocabulary: usize) -> u64;

    /// What it is.
    fn identity(&self) -> DeviceIdentity;
    /// Its own memory; none if all that is made on it is in the host's.
    ///
    /// # Errors
    /// If it does not say.
    fn memory(&self) -> Result<Option<DeviceMemory>, DeviceError>;

    /// Bytes that its own memory reads and writes in a second, measured when that is first asked; none if all that is made on it is in the host's.
    ///
    /// # Errors
    /// If it fails.
    fn bandwidth(&self) -> Result<Option<f64>, DeviceError> {
        Ok(None)
    }

    /// How its rows get to the devices of other ranks with no host in between; none if they do not.
    fn linking(&self) -> Option<&dyn Linking<Self>> {
        None
    }

    /// A queue for the calling thread.
    ///
    /// # Errors
    /// If the device has none.
    fn queue(&self) -> Result<Self::Queue, DeviceError>;

    /// An empty buffer of this many elements at most.
    ///
    /// # Errors
    /// If there is no memory for it.
    fn buffer<T: Pod + Send + Sync>(&self, capacity: usize) -> Result<Self::Buffer<T>, DeviceError>;
    /// A buffer of so many elements, which are those that `element` gives of their places. They are made where the buffer is, or a few at
    /// a time: there is no list of all of them in the host's memory beside it.
    ///
    /// # Errors
    /// If there is no memory for it.
    fn made<T: Pod + Send + Sync>(
        &self,
        elements: usize,
        element: impl Fn(usize) -> T,
    ) -> Result<Self::Buffer<T>, DeviceError>;
    /// A buffer with these values.
    ///
    /// # Errors
    /// If there is no memory for it.
    fn filled<T: Pod + Send + Sync>(&self, values: &[T]) -> Result<Self::Buffer<T>, DeviceError> {
        self.made(values.len(), |place| values[place])
    }
    /// Memory for the steps of a model over these slots.
    ///
    /// # Errors
    /// If there is none.
    fn batch(&self, limits: StepLimits, slots: &Self::Slots) -> Result<Self::Batch, DeviceError>;
    /// The slots of a group, by the routing of each layer in order.
    ///
    /// # Errors
    /// If there is no memory for them.
    fn slots(&self, group: GroupShape, layers: Vec<LayerRouting>) -> Result<Self::Slots, DeviceError>;
    /// Memory for the routing of a layer's tokens, through pages of this shape.
    ///
    /// # Errors
    /// If there is none.
    fn routing(&self, group: GroupShape, page: PageShape) -> Result<Self::Routing, DeviceError>;

    /// Prepares a linear layer; a bias has one element for each row of the matrix.
    ///
    /// # Errors
    /// If there is no memory for it.
    fn matrix(&self, view: MatrixView<'_>, bias: Option<&[f32]>) -> Result<Self::Matrix, DeviceError>;
    /// Prepares a table.
    ///
    /// # Errors
    /// If there is no memory for it.
    fn lookup(&self, view: MatrixView<'_>) -> Result<Self::Lookup, DeviceError>;
    /// Room for pages of one shape.
    ///
    /// # Errors
    /// If there is none.
    fn pages(&self, shape: PageShape) -> Result<Self::Pages, DeviceError>;
    /// Gives memory to the page of the next number.
    ///
    /// # Errors
    /// If there is none.
    fn add_page(&self, pages: &Self::Pages, page: PageId) -> Result<(), DeviceError>;
    /// Makes a page a network's: `gate` and `up` are `[intermediate, hidden]`, `down` is `[hidden, intermediate]`. All of it is
    /// there when this returns.
    ///
    /// # Errors
    /// If the device does not take it; then the page holds anything.
    fn pack(&self, pages: &Self::Pages, page: PageId, matrices: [MatrixView<'_>; 3]) -> Result<(), DeviceError>;
    /// Overwrites bytes of a page from a place on. They are there when this returns.
    ///
    /// # Errors
    /// If the device does not take them; then those bytes are anything.
    fn fill(&self, pages: &Self::Pages, page: PageId, start: usize, bytes: &[u8]) -> Result<(), DeviceError>;
    /// Bytes of a page from a place on, for another rank with the same backend.
    ///
    /// # Errors
    /// If the device does not give them; then `into` holds anything.
    fn read_page(&self, pages: &Self::Pages, page: PageId, start: usize, into: &mut [u8]) -> Result<(), DeviceError>;
    /// Lets it [pull](Self::pull) out of pages of a device of its kind, which may be the same: those that are there, and those that are
    /// added.
    ///
    /// # Errors
    /// If the machine has no way between them; which, in words.
    fn reach_pages(&self, other: &Self, pages: &Self::Pages) -> Result<(), DeviceError>;
    /// Copies chunks of a page that it [reaches](Self::reach_pages) to the same place in one of its own, of the same shape, through no
    /// memory of the host where a device has its own. They are there when this returns; gives the fingerprints of what is there.
    /// Whoever has the other page lets nobody write it meanwhile.
    ///
    /// # Errors
    /// If either device fails; then those bytes are anything.
    fn pull(
        &self,
        to: (&Self::Pages, PageId),
        from: (&Self::Pages, PageId),
        place: Range<usize>,
    ) -> Result<Vec<u128>, DeviceError>;
    /// What takes the fingerprints of its pages, under its seed.
    fn fingerprinter(&self) -> Fingerprinter;
    /// The fingerprints of a page's bytes.
    ///
    /// # Errors
    /// If the device does not say.
    fn fingerprints(&self, pages: &Self::Pages, page: PageId) -> Result<Fingerprints, DeviceError>;
    /// Whether everything has been done that was on the queue when the mark was made. Does not wait.
    fn has_passed(&self, mark: &Self::Mark) -> bool;
    /// An empty cache.
    ///
    /// # Errors
    /// If there is no memory for it.
    fn cache(&self, shape: CacheShape) -> Result<Self::Cache, DeviceError>;
}
