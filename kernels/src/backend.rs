//! What a device must be able to do. Statically dispatched; buffers, weights and pages are the backend's own types.
//!
//! Activations are row-major f32 buffers, `[rows, width]`. The order of operations on one backend is the order of the
//! calls. Shapes are checked by assertion: a wrong one is a mistake of the model code, never of its input.

use std::borrow::Cow;
use std::sync::Arc;

use bytemuck::Pod;
use thiserror::Error;

use crate::tensor::{MatrixView, WeightKind};

/// Heads of an attention layer. A row of projections holds all query heads, then all key heads, then all value heads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
}

/// The system gives no memory for the KV cache of a layer. It may give some for fewer blocks, or later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the system does not give the {bytes} bytes that the KV cache of a layer takes")]
pub struct CacheError {
    /// What was asked for.
    pub bytes: u64,
}

/// Keys that attention takes at a time; a block of the cache holds a multiple of it.
pub const CACHE_TILE: usize = 16;

/// Consecutive tokens of one sequence within a batch.
#[derive(Clone, Copy, Debug)]
pub struct Span<'a> {
    /// Number of tokens, each one row of the batch.
    pub tokens: usize,
    /// Position of the first of them in its sequence.
    pub position: usize,
    /// Cache blocks of the sequence, from position 0 to at least the last of the tokens.
    pub blocks: &'a [u32],
}

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

/// Where the rows of a grouped feed-forward come from: group `g` is `rows[starts[g]..starts[g + 1]]`.
#[derive(Clone, Copy, Debug)]
pub struct Groups<'a> {
    /// One more than there are groups; ascending.
    pub starts: &'a [u32],
    /// Input row of each output row.
    pub rows: &'a [u32],
}

/// Rows that are added up to one, `top_k` for each.
#[derive(Clone, Copy, Debug)]
pub struct Choices<'a> {
    /// `[rows, top_k]`.
    pub rows: &'a [u32],
    /// How many for each row.
    pub top_k: usize,
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

/// A device with its memory.
pub trait Backend: Send + Sync + Sized + 'static {
    /// An array in device memory that can grow.
    type Buffer<T: Pod + Send + Sync>: Default + Send + Sync;
    /// A linear layer's weights as the device multiplies by them.
    type Matrix: Send + Sync;
    /// Rows to be looked up.
    type Lookup: Send + Sync;
    /// The weights of one feed-forward network (an expert, or a dense layer's) in one piece of memory.
    type Page: Send + Sync;
    /// A page that is being received.
    type Staging: Send + Sync;
    /// Keys and values of one layer, in blocks.
    type Cache: Send;

    /// Sets the length; what fits is kept, new elements are zero.
    fn resize<T: Pod + Send + Sync>(&self, buffer: &mut Self::Buffer<T>, len: usize);
    /// Overwrites elements from `start` on.
    fn write<T: Pod + Send + Sync>(&self, buffer: &mut Self::Buffer<T>, start: usize, values: &[T]);
    /// The elements, where the host can read them. Waits for the operations that write them.
    fn read<'a, T: Pod + Send + Sync>(&self, buffer: &'a Self::Buffer<T>) -> Cow<'a, [T]>;

    /// Prepares a linear layer; a bias has one element for each row of the matrix.
    fn matrix(&self, view: MatrixView<'_>, bias: Option<&[f32]>) -> Self::Matrix;
    /// Prepares a table.
    fn lookup(&self, view: MatrixView<'_>) -> Self::Lookup;
    /// Prepares a feed-forward network: `gate` and `up` are `[intermediate, hidden]`, `down` is `[hidden, intermediate]`.
    fn page(&self, shape: PageShape, gate: MatrixView<'_>, up: MatrixView<'_>, down: MatrixView<'_>) -> Self::Page;
    /// Length of a page in bytes.
    fn page_bytes(&self, shape: PageShape) -> usize;
    /// The page as bytes, for another rank with the same backend.
    fn page_data<'a>(&self, page: &'a Self::Page) -> Cow<'a, [u8]>;
    /// Fingerprint of those bytes (XXH3, 128 bits, under the backend's seed), taken when the page was made.
    fn fingerprint(&self, page: &Self::Page) -> u128;
    /// Memory to receive a page into.
    fn staging(&self, shape: PageShape) -> Self::Staging;
    /// Makes a page's memory staging memory again.
    fn recycle(&self, page: Self::Page) -> Self::Staging;
    /// Overwrites bytes of a staging page from `start` on.
    fn fill(&self, staging: &mut Self::Staging, start: usize, bytes: &[u8]);
    /// Takes the fingerprint of what was received and makes it a page.
    fn seal(&self, staging: Self::Staging) -> Self::Page;
    /// An empty cache.
    ///
    /// # Errors
    /// If the system has no memory for it.
    fn cache(&self, shape: CacheShape) -> Result<Self::Cache, CacheError>;

    /// `out[i] = table[rows[i]]`, widened.
    fn embed(&self, table: &Self::Lookup, rows: &[u32], out: &mut Self::Buffer<f32>);
    /// `out[i] = x[rows[i]]`, rows of `width`.
    fn gather(&self, x: &Self::Buffer<f32>, width: usize, rows: &[u32], out: &mut Self::Buffer<f32>);
    /// Root mean square norm: `out = x / sqrt(mean(x^2) + epsilon) * weight`, rows of the weight's length.
    fn rms_norm(&self, x: &Self::Buffer<f32>, weight: &Self::Buffer<f32>, epsilon: f32, out: &mut Self::Buffer<f32>);
    /// `out = x * weights^T + bias`, rows of the matrix's columns to rows of its rows.
    fn matmul(&self, x: &Self::Buffer<f32>, weights: &Self::Matrix, write: Write, out: &mut Self::Buffer<f32>);
    /// Norms each query and key head and rotates it by its token's position ("rotate half"), in place.
    fn rotate(&self, projected: &mut Self::Buffer<f32>, heads: HeadShape, rotation: &Rotation<'_, Self>);
    /// Puts keys and values into the cache. Rows of `projected` are the tokens of `spans` in order.
    fn store(&self, cache: &mut Self::Cache, projected: &Self::Buffer<f32>, spans: &[Span<'_>]);
    /// Causal attention of each token over its sequence's keys so far, which are in the cache.
    fn attend(
        &self,
        cache: &Self::Cache,
        projected: &Self::Buffer<f32>,
        spans: &[Span<'_>],
        out: &mut Self::Buffer<f32>,
    );
    /// Softmax over all experts, then the `top_k` best of each row, best first, equal ones by ascending number.
    fn route(
        &self,
        logits: &Self::Buffer<f32>,
        shape: RouterShape,
        experts: &mut Self::Buffer<u32>,
        weights: &mut Self::Buffer<f32>,
    );
    /// Feed-forward of each group's rows by its page; `out` rows are in the groups' order. `out` may hold more rows.
    fn feed_forward(
        &self,
        pages: &[Arc<Self::Page>],
        groups: Groups<'_>,
        x: &Self::Buffer<f32>,
        out: &mut Self::Buffer<f32>,
    );
    /// `out[i] += sum over j of weights[i, j] * x[rows[i, j]]`, in the order of `j`.
    fn combine(
        &self,
        x: &Self::Buffer<f32>,
        rows: Choices<'_>,
        weights: &Self::Buffer<f32>,
        out: &mut Self::Buffer<f32>,
    );
}

/// What [`Backend::rotate`] needs beside the rows.
#[derive(Debug)]
pub struct Rotation<'a, B: Backend> {
    /// Norm weights of query heads, `[dimension]`.
    pub query_norm: &'a B::Buffer<f32>,
    /// Norm weights of key heads, `[dimension]`.
    pub key_norm: &'a B::Buffer<f32>,
    /// Of both norms.
    pub epsilon: f32,
    /// `[positions, dimension]`: for each position the cosines, then the sines, of `dimension / 2` angles.
    pub angles: &'a B::Buffer<f32>,
    /// Position of each row.
    pub positions: &'a [u32],
}
