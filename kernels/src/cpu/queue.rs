//! Operations as the CPU does them: at once, by the thread that asks and those that it has beside it.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use bytemuck::Pod;

use super::attention::{Attend, Tokens, scratch_len, spans};
use super::buffer::Buffer;
use super::feed_forward::{FeedForward, GroupedRows};
use super::matrix::{Lookup, Matrix};
use super::norm::{RmsNorm, Rotate};
use super::page::{Network, Open, Pages};
use super::product::{Product, Rows};
use super::router::{Combine, Route};
use super::routing::{Routing, Slots};
use super::sample::Batch;
use super::scratch::Lent;
use super::simd::Instructions;
use super::threads::Threads;
use super::{Cache, Cpu};
use crate::arena::PageId;
use crate::backend::{RouterShape, Write};
use crate::batch::{Collected, StepArea};
use crate::error::DeviceError;
use crate::queue::{Arrived, Home, Leaving, Queue, Returning, Rotation};
use crate::times::Activity;

/// The thread that made it, which is one of its threads.
#[derive(Debug)]
pub struct CpuQueue {
    instructions: Instructions,
    threads: Threads,
    /// An operation was to read a page that somebody writes.
    failed: AtomicBool,
}

impl CpuQueue {
    pub(super) const fn new(instructions: Instructions, threads: Threads) -> Self {
        Self { instructions, threads, failed: AtomicBool::new(false) }
    }

    /// Rows through the network of a page.
    fn through(
        &self,
        (pages, page): (&Open<'_>, PageId),
        (x, out, write): (Rows<'_>, &mut [f32], Write),
        scratch: &mut Lent,
    ) {
        let run = |page: Network<'_>| FeedForward { page, x, out, write }.run(&mut scratch.numbers, self.instructions);
        if pages.look(page, run).is_none() {
            self.failed.store(true, Ordering::Relaxed);
        }
    }
}

impl Queue<Cpu> for CpuQueue {
    fn upload(&self, area: &StepArea, batch: &mut Batch, slots: &mut Slots) {
        batch.begin(area);
        slots.begin(&area.changes);
    }

    fn begin(&self, _: &mut Batch, _: &mut Slots) {}

    fn finish(&self, _: &mut Batch, _: &mut Slots) {}

    fn repeat<S, E>(
        &self,
        _: usize,
        state: &mut S,
        _: impl Fn(&mut S) -> &mut Batch,
        mut work: impl FnMut(&mut S) -> Result<(), E>,
    ) -> Result<Option<DeviceError>, E> {
        work(state).map(|()| None)
    }

    fn collect<'a>(&self, batch: &'a Batch, slots: &'a Slots) -> Result<Collected<'a>, DeviceError> {
        if self.failed.swap(false, Ordering::Relaxed) {
            let reason = "a slot points at a page that is being written".to_owned();
            return Err(DeviceError::Failed { reason, usable: true });
        }
        let (sampled, best) = batch.sampled();
        Ok(Collected {
            sampled: Cow::Borrowed(sampled),
            best: Cow::Borrowed(best),
            pairs: Cow::Borrowed(slots.pairs()),
            times: batch.clock.times(Instant::now()),
        })
    }

    fn mark(&self) {}

    fn turn_to(&self, activity: Activity, batch: &mut Batch) {
        batch.clock.begin(activity, Instant::now());
    }

    fn read<'a, T: Pod + Send + Sync>(&self, buffer: &'a Buffer<T>) -> Cow<'a, [T]> {
        Cow::Borrowed(buffer)
    }

    fn embed(&self, table: &Lookup, batch: &Batch, out: &mut Buffer<f32>) {
        let ids = &batch.area.ids;
        out.set_len(ids.len() * table.width());
        for (id, out) in ids.iter().zip(out.chunks_exact_mut(table.width())) {
            table.read(*id as usize, out);
        }
    }

    fn rms_norm(&self, x: &Buffer<f32>, weight: &Buffer<f32>, epsilon: f32, out: &mut Buffer<f32>) {
        out.set_len(x.len());
        let width = weight.len();
        let rows = self.threads.rows(x.len() / width, width);
        self.threads.each_rows(out, width, rows, |first, out| {
            self.instructions.run(RmsNorm { x: &x[first * width..][..out.len()], weight, epsilon, out });
        });
    }

    fn matmul(&self, x: &Buffer<f32>, weights: &Matrix, write: Write, out: &mut Buffer<f32>) {
        let rows = x.len() / weights.columns;
        out.set_len(rows * weights.rows);
        let piece = self.threads.rows(rows, weights.rows * weights.columns);
        self.threads.each_rows(out, weights.rows, piece, |first, out| {
            let x = Rows { values: x, width: weights.columns, first, list: None };
            self.instructions.run(Product { x, weights: weights.packed(), write, out });
        });
    }

    fn rotate(&self, projected: &mut Buffer<f32>, batch: &Batch, rotation: &Rotation<'_, Cpu>) {
        let Rotation { heads, query_norm, key_norm, epsilon, angles } = *rotation;
        let width = heads.projected_width();
        let rows = self.threads.rows(projected.len() / width, 2 * width);
        self.threads.each_rows(projected, width, rows, |first, projected| {
            let positions = &batch.area.positions[first..];
            self.instructions.run(Rotate { projected, heads, query_norm, key_norm, epsilon, angles, positions });
        });
    }

    fn store(&self, cache: &mut Cache, projected: &Buffer<f32>, batch: &Batch) {
        cache.store(projected, spans(&batch.area));
    }

    fn attend(&self, cache: &Cache, projected: &Buffer<f32>, batch: &Batch, out: &mut Buffer<f32>) {
        let heads = cache.heads();
        out.set_len(batch.area.ids.len() * heads.query_width());
        let tokens = Tokens::of(&batch.area, heads, projected, out);
        let keys = tokens.keys();
        // Each sequence is worth a thread, however few keys it has: the product before has woken them.
        let pieces = self.threads.pieces(2 * keys * heads.query_width()).max(batch.area.spans.len());
        let most = keys.div_ceil(pieces.max(1));
        self.threads.each(
            tokens,
            |tokens| tokens.halve(most),
            |tokens, scratch| {
                tokens.each(|span, projected, out| {
                    let scratch = &mut scratch.numbers[..scratch_len(span.position + span.tokens - 1)];
                    self.instructions.run(Attend { cache, projected, span, scratch, out });
                });
            },
        );
    }

    fn feed_forward(&self, (pages, page): (&Pages, PageId), x: &Buffer<f32>, out: &mut Buffer<f32>) {
        let shape = pages.shape();
        let rows = x.len() / shape.hidden;
        let piece = self.threads.rows(rows, 3 * shape.hidden * shape.intermediate);
        let pages = pages.open();
        self.threads.each_rows(out, shape.hidden, piece, |first, out| {
            let x = Rows { values: x, width: shape.hidden, first, list: None };
            self.threads.lend(|scratch| self.through((&pages, page), (x, out, Write::Add), scratch));
        });
    }

    fn route(&self, logits: &Buffer<f32>, shape: RouterShape, routing: &mut Routing) {
        let rows = logits.len() / shape.experts;
        let (experts, weights) = routing.routed(rows);
        self.instructions.run(Route { logits, shape, experts, weights });
    }

    fn choose(&self, batch: &Batch, slots: &Slots, layer: usize, routing: &mut Routing) {
        routing.choose(slots, layer, &batch.area.sequences, &batch.area.positions);
    }

    fn sort(&self, slots: &mut Slots, layer: usize, routing: &mut Routing) {
        routing.sort(slots, layer);
    }

    fn experts(&self, pages: &Pages, routing: &Routing, x: &Buffer<f32>, results: &mut Buffer<f32>) {
        let (shape, pages, groups) = (pages.shape(), pages.open(), routing.groups());
        results.set_len(groups.rows.len() * shape.hidden);
        let pieces = self.threads.pieces(groups.rows.len() * 3 * shape.hidden * shape.intermediate);
        let most = if pieces == 1 { usize::MAX } else { groups.rows.len().div_ceil(pieces).next_multiple_of(8) };
        self.threads.each(
            GroupedRows { groups, width: shape.hidden, first: 0, out: results },
            |rows| rows.halve(most),
            |rows, scratch| {
                rows.each(|page, first, out| {
                    let x = Rows { values: x, width: shape.hidden, first, list: Some(groups.rows) };
                    self.through((&pages, page), (x, out, Write::Replace), scratch);
                });
            },
        );
    }

    fn combine(&self, results: &Buffer<f32>, routing: &Routing, out: &mut Buffer<f32>) {
        let top_k = routing.top_k();
        let (rows, weights) = routing.results();
        if rows.is_empty() {
            return;
        }
        let tokens = rows.len() / top_k;
        let width = out.len() / tokens;
        let piece = self.threads.rows(tokens, top_k * width);
        self.threads.each_rows(out, width, piece, |first, out| {
            let range = first * top_k..(first + out.len() / width) * top_k;
            let (rows, weights) = (&rows[range.clone()], &weights[range]);
            self.instructions.run(Combine { x: results, width, rows, weights, top_k, out });
        });
    }

    fn gather(&self, x: &Buffer<f32>, batch: &Batch, asked: Range<usize>, out: &mut Buffer<f32>) {
        let asked = &batch.area.asked[batch.of_asked(asked)];
        let width = x.len() / batch.area.ids.len().max(1);
        out.set_len(asked.len() * width);
        for (asked, out) in asked.iter().zip(out.chunks_exact_mut(width)) {
            out.copy_from_slice(&x[asked.row as usize * width..][..width]);
        }
    }

    fn sample(&self, logits: &Buffer<f32>, asked: Range<usize>, batch: &mut Batch) {
        batch.sample(&self.threads, logits, asked);
    }

    fn leaving<'a>(&self, routing: &'a Routing, x: &'a Buffer<f32>) -> Leaving<'a> {
        Leaving { destinations: Cow::Borrowed(routing.destinations()), values: Cow::Borrowed(x) }
    }

    fn arrive(&self, routing: &mut Routing, arrived: Arrived<'_>, x: &mut Buffer<f32>) {
        let Arrived { values, pairs, width } = arrived;
        routing.arrive(x.len() / width, pairs);
        x.append(values);
    }

    fn returning<'a>(&self, routing: &'a Routing, results: &'a Buffer<f32>) -> Returning<'a> {
        Returning { rows: Cow::Borrowed(routing.returning()), values: Cow::Borrowed(results) }
    }

    fn come_home(&self, routing: &mut Routing, home: Home<'_>, results: &mut Buffer<f32>) {
        let Home { from, width, values } = home;
        assert_eq!(results.len() / width, routing.home(from), "ranks come home in their order");
        results.append(values);
    }
}
