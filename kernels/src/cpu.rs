//! The CPU backend.

// Kernels must be compiled into the function that was started for an instruction set, or they are compiled without it.
#![allow(clippy::inline_always)]
// A buffer is a `Vec`: operations set the length of their outputs.
#![allow(clippy::ptr_arg)]

mod attention;
mod feed_forward;
mod matrix;
mod norm;
mod page;
mod product;
mod router;
mod simd;
mod threads;

use std::borrow::Cow;
use std::sync::Arc;

use bytemuck::Pod;
use thiserror::Error;

use self::attention::{Attend, scratch_len};
use self::feed_forward::{BLOCK_ROWS, FeedForward};
use self::norm::{RmsNorm, Rotate};
use self::product::{Product, Rows};
use self::router::{Combine, Route};
use self::threads::Threads;
use crate::backend::{
    Backend, CacheError, CacheShape, Choices, Groups, HeadShape, PageShape, Rotation, RouterShape, Span, Write,
};
use crate::tensor::MatrixView;

pub use self::attention::Cache;
pub use self::matrix::{Lookup, Matrix};
pub use self::page::{Page, Staging};
pub use self::simd::Instructions;

/// A rank's share of a CPU. Made and used by one thread, which is one of its `threads`.
#[derive(Debug)]
pub struct Cpu {
    instructions: Instructions,
    threads: Threads,
    /// Of fingerprints.
    seed: u64,
}

/// Bytes that the keys and values of one layer take.
#[must_use]
pub fn cache_bytes(shape: CacheShape) -> u64 {
    Cache::bytes(shape)
}

/// Bytes of a page.
#[must_use]
pub const fn page_bytes(shape: PageShape) -> usize {
    page::page_bytes(shape)
}

impl Cpu {
    /// With the best instructions there are.
    ///
    /// # Errors
    /// If the threads cannot be started.
    pub fn new(threads: usize) -> Result<Self, CpuError> {
        Self::with_instructions(Instructions::available().first().copied().unwrap_or(Instructions::Scalar), threads)
    }

    /// With given instructions.
    ///
    /// # Errors
    /// If the threads cannot be started.
    pub fn with_instructions(instructions: Instructions, threads: usize) -> Result<Self, CpuError> {
        let threads =
            Threads::new(threads.max(1)).map_err(|error| CpuError::Threads { threads, reason: error.to_string() })?;
        Ok(Self { instructions, threads, seed: 0 })
    }

    /// The same with fingerprints under another seed: who does not know it can prepare no pages that have the same one.
    #[must_use]
    pub fn with_fingerprint_seed(self, seed: u64) -> Self {
        Self { seed, ..self }
    }
}

/// Why there is no CPU backend.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CpuError {
    /// Threads could not be started.
    #[error("could not start {threads} compute threads: {reason}")]
    Threads {
        /// Threads asked for.
        threads: usize,
        /// What the system says.
        reason: String,
    },
}

impl Backend for Cpu {
    type Buffer<T: Pod + Send + Sync> = Vec<T>;
    type Matrix = Matrix;
    type Lookup = Lookup;
    type Page = Page;
    type Staging = Staging;
    type Cache = Cache;

    fn resize<T: Pod + Send + Sync>(&self, buffer: &mut Vec<T>, len: usize) {
        buffer.resize(len, T::zeroed());
    }

    fn write<T: Pod + Send + Sync>(&self, buffer: &mut Vec<T>, start: usize, values: &[T]) {
        buffer[start..start + values.len()].copy_from_slice(values);
    }

    fn read<'a, T: Pod + Send + Sync>(&self, buffer: &'a Vec<T>) -> Cow<'a, [T]> {
        Cow::Borrowed(buffer)
    }

    fn matrix(&self, view: MatrixView<'_>, bias: Option<&[f32]>) -> Matrix {
        Matrix::new(view, bias)
    }

    fn lookup(&self, view: MatrixView<'_>) -> Lookup {
        Lookup::new(view)
    }

    fn page(&self, shape: PageShape, gate: MatrixView<'_>, up: MatrixView<'_>, down: MatrixView<'_>) -> Page {
        Page::new(shape, [gate, up, down], self.seed)
    }

    fn page_bytes(&self, shape: PageShape) -> usize {
        page::page_bytes(shape)
    }

    fn page_data<'a>(&self, page: &'a Page) -> Cow<'a, [u8]> {
        Cow::Borrowed(page.bytes())
    }

    fn fingerprint(&self, page: &Page) -> u128 {
        page.fingerprint()
    }

    fn staging(&self, shape: PageShape) -> Staging {
        Staging::new(shape)
    }

    fn recycle(&self, page: Page) -> Staging {
        page.recycle()
    }

    fn fill(&self, staging: &mut Staging, start: usize, bytes: &[u8]) {
        staging.bytes_mut()[start..start + bytes.len()].copy_from_slice(bytes);
    }

    fn seal(&self, staging: Staging) -> Page {
        staging.seal(self.seed)
    }

    fn cache(&self, shape: CacheShape) -> Result<Cache, CacheError> {
        Cache::new(shape)
    }

    fn embed(&self, table: &Lookup, rows: &[u32], out: &mut Vec<f32>) {
        out.resize(rows.len() * table.width(), 0.0);
        for (row, out) in rows.iter().zip(out.chunks_exact_mut(table.width())) {
            table.read(*row as usize, out);
        }
    }

    fn gather(&self, x: &Vec<f32>, width: usize, rows: &[u32], out: &mut Vec<f32>) {
        out.resize(rows.len() * width, 0.0);
        for (row, out) in rows.iter().zip(out.chunks_exact_mut(width)) {
            out.copy_from_slice(&x[*row as usize * width..][..width]);
        }
    }

    fn rms_norm(&self, x: &Vec<f32>, weight: &Vec<f32>, epsilon: f32, out: &mut Vec<f32>) {
        out.resize(x.len(), 0.0);
        let width = weight.len();
        let rows = self.threads.rows(x.len() / width, width);
        self.threads.each_rows(out, width, rows, |first, out| {
            self.instructions.run(RmsNorm { x: &x[first * width..][..out.len()], weight, epsilon, out });
        });
    }

    fn matmul(&self, x: &Vec<f32>, weights: &Matrix, write: Write, out: &mut Vec<f32>) {
        let rows = x.len() / weights.columns;
        out.resize(rows * weights.rows, 0.0);
        let piece = self.threads.rows(rows, weights.rows * weights.columns);
        self.threads.each_rows(out, weights.rows, piece, |first, out| {
            let x = Rows { values: x, width: weights.columns, first, list: None };
            self.instructions.run(Product { x, weights: weights.packed(), write, out });
        });
    }

    fn rotate(&self, projected: &mut Vec<f32>, heads: HeadShape, rotation: &Rotation<'_, Self>) {
        let width = heads.projected_width();
        let rows = self.threads.rows(projected.len() / width, 2 * width);
        self.threads.each_rows(projected, width, rows, |first, projected| {
            self.instructions.run(Rotate {
                positions: &rotation.positions[first..],
                projected,
                heads,
                query_norm: rotation.query_norm,
                key_norm: rotation.key_norm,
                epsilon: rotation.epsilon,
                angles: rotation.angles,
            });
        });
    }

    fn store(&self, cache: &mut Cache, projected: &Vec<f32>, spans: &[Span<'_>]) {
        cache.store(projected, spans);
    }

    fn attend(&self, cache: &Cache, projected: &Vec<f32>, spans: &[Span<'_>], out: &mut Vec<f32>) {
        attend(self, cache, projected, spans, out);
    }

    fn route(&self, logits: &Vec<f32>, shape: RouterShape, experts: &mut Vec<u32>, weights: &mut Vec<f32>) {
        let rows = logits.len() / shape.experts;
        experts.resize(rows * shape.top_k, 0);
        weights.resize(rows * shape.top_k, 0.0);
        self.instructions.run(Route { logits, shape, experts, weights });
    }

    fn feed_forward(&self, pages: &[Arc<Page>], groups: Groups<'_>, x: &Vec<f32>, out: &mut Vec<f32>) {
        feed_forward(self, pages, groups, x, out);
    }

    fn combine(&self, x: &Vec<f32>, choices: Choices<'_>, weights: &Vec<f32>, out: &mut Vec<f32>) {
        let Choices { rows, top_k } = choices;
        let tokens = rows.len() / top_k;
        if tokens == 0 {
            return;
        }
        let width = out.len() / tokens;
        let piece = self.threads.rows(tokens, top_k * width);
        self.threads.each_rows(out, width, piece, |first, out| {
            let range = first * top_k..(first + out.len() / width) * top_k;
            let (rows, weights) = (&rows[range.clone()], &weights[range]);
            self.instructions.run(Combine { x, width, rows, weights, top_k, out });
        });
    }
}

/// Splits the spans into pieces of about equal work.
fn attend(cpu: &Cpu, cache: &Cache, projected: &[f32], spans: &[Span<'_>], out: &mut Vec<f32>) {
    let heads = cache.heads();
    let (width, projected_width) = (heads.query_width(), heads.projected_width());
    let tokens: usize = spans.iter().map(|span| span.tokens).sum();
    out.resize(tokens * width, 0.0);
    // Keys that all tokens look at; each costs two multiply-adds for each element of the query heads.
    let keys = |span: &Span<'_>| span.tokens * span.position + span.tokens * (span.tokens + 1) / 2;
    let total: usize = spans.iter().map(keys).sum();
    let pieces = cpu.threads.pieces(2 * total * width);
    let share = total.div_ceil(pieces);
    let mut work = Vec::with_capacity(spans.len() + pieces);
    let (mut rest, mut projected) = (&mut out[..], projected);
    for span in spans {
        let mut first = 0;
        while first < span.tokens {
            let (mut count, mut cost) = (0, 0);
            while first + count < span.tokens && (cost < share || count % 8 != 0) {
                cost += span.position + first + count + 1;
                count += 1;
            }
            let (piece, left) = rest.split_at_mut(count * width);
            let (rows, projected_left) = projected.split_at(count * projected_width);
            work.push((Span { tokens: count, position: span.position + first, ..*span }, rows, piece));
            (rest, projected) = (left, projected_left);
            first += count;
        }
    }
    cpu.threads.each(work, |(span, projected, out)| {
        let mut scratch = vec![0.0; scratch_len(span.position + span.tokens - 1)];
        cpu.instructions.run(Attend { cache, projected, span, scratch: &mut scratch, out });
    });
}

/// Splits the groups into pieces of about equal work.
fn feed_forward(cpu: &Cpu, pages: &[Arc<Page>], groups: Groups<'_>, x: &[f32], out: &mut [f32]) {
    let Some(shape) = pages.first().map(|page| page.shape()) else { return };
    let (first, end) = (groups.starts[0] as usize, groups.starts[pages.len()] as usize);
    let pieces = cpu.threads.pieces((end - first) * 3 * shape.hidden * shape.intermediate);
    let most = if pieces == 1 { usize::MAX } else { (end - first).div_ceil(pieces).next_multiple_of(8) };
    let mut work = Vec::with_capacity(pages.len() + pieces);
    let mut rest = &mut out[first * shape.hidden..];
    for (group, page) in pages.iter().enumerate() {
        let (mut row, end) = (groups.starts[group] as usize, groups.starts[group + 1] as usize);
        while row < end {
            let rows = most.min(end - row);
            let (piece, left) = std::mem::take(&mut rest).split_at_mut(rows * shape.hidden);
            work.push((&**page, row, piece));
            rest = left;
            row += rows;
        }
    }
    let run = |(page, first, out): (&Page, usize, &mut [f32]), scratch: &mut [f32]| {
        let x = Rows { values: x, width: shape.hidden, first, list: Some(groups.rows) };
        FeedForward { page, x, out, scratch }.run(cpu.instructions);
    };
    let scratch_len = 2 * BLOCK_ROWS * shape.intermediate;
    if pieces == 1 {
        let mut scratch = vec![0.0; scratch_len];
        for piece in work {
            run(piece, &mut scratch);
        }
    } else {
        cpu.threads.each(work, |piece| run(piece, &mut vec![0.0; scratch_len]));
    }
}

#[cfg(test)]
mod tests;
