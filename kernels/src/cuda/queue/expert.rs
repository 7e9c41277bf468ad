//! Which experts compute what, and their arithmetic.

use super::super::Pages;
use super::super::batch::Batch;
use super::super::buffer::Buffer;
use super::super::parameters::{
    CHOOSE, COMBINE, ChooseParameters, CombineParameters, NUMBER, ProductParameters, ROUTE, RouteParameters, Rows,
    SORT, SortParameters,
};
use super::super::routing::{Routing, Slots};
use super::CudaQueue;
use super::layer::{GATED, PRODUCT, down, gated};
use crate::arena::PageId;
use crate::backend::RouterShape;

/// Where products find the pages of slots.
#[derive(Clone, Copy)]
pub(in crate::cuda) enum PagesOf {
    /// In the table of the routing's layer.
    Table,
    /// One after the other, from this one on: what that saves is what the table costs.
    Row(PageId),
}

/// Pairs that are worth a block of their own where each block goes through all that come before.
const PAIRS_EACH: usize = 1024;

impl CudaQueue {
    pub(super) fn route_rows(&self, logits: &Buffer<f32>, shape: RouterShape, routing: &mut Routing) {
        let rows = logits.rows();
        assert!(rows.most as usize <= routing.group().tokens, "rows of a step");
        routing.begin(rows.most as usize);
        let parameters = RouteParameters {
            rows,
            logits: logits.address(),
            routing: routing.tables(),
            experts: shape.experts as u32,
            normalise: u32::from(shape.normalise),
        };
        // A warp for each row.
        self.launch(&ROUTE, (rows.most as usize).div_ceil(4), &parameters);
    }

    pub(super) fn choose_slots(&self, batch: &Batch, slots: &Slots, layer: usize, routing: &mut Routing) {
        routing.begin(batch.tokens());
        let parameters = ChooseParameters {
            rows: batch.token_rows(),
            sequences: batch.list(batch.layout().sequences),
            positions: batch.list(batch.layout().positions),
            slots: slots.tables(),
            routing: routing.tables(),
            error: batch.error(),
            layer: layer as u32,
            unused: 0,
        };
        self.launch(&CHOOSE, 1 + routing.chosen() / 256, &parameters);
        // Each block counts what comes before its part.
        self.launch(&NUMBER, 1 + routing.chosen() / PAIRS_EACH, &parameters);
    }

    pub(super) fn sort_pairs(&self, slots: &Slots, layer: usize, routing: &mut Routing) {
        let tables = slots.tables();
        let layer = layer as u32;
        routing.page_of = tables.pages + u64::from(layer * tables.slots_here) * size_of::<u32>() as u64;
        let parameters =
            SortParameters { slots: tables, routing: routing.tables(), error: self.error.get(), layer, unused: 0 };
        let pairs = routing.result_rows().most as usize;
        self.launch(&SORT, 1 + pairs / PAIRS_EACH, &parameters);
    }

    pub(super) fn run_experts(&self, pages: &Pages, routing: &Routing, x: &Buffer<f32>, results: &mut Buffer<f32>) {
        self.run_experts_of((pages, PagesOf::Table), routing, x, results);
    }

    pub(in crate::cuda) fn run_experts_of(
        &self,
        (pages, of): (&Pages, PagesOf),
        routing: &Routing,
        x: &Buffer<f32>,
        results: &mut Buffer<f32>,
    ) {
        let (shape, tables) = (pages.shape(), routing.tables());
        let (page_of, page) = match of {
            PagesOf::Table => (routing.page_of, 0),
            PagesOf::Row(first) => (0, first.0),
        };
        let rows = routing.result_rows();
        self.note_pages(pages);
        results.set(rows, shape.hidden);
        self.changed(results);
        let groups = ProductParameters {
            rows: Rows { first: 0, ..rows },
            page_of,
            page,
            starts: tables.starts,
            error: self.error.get(),
            groups: routing.group().slots as u32,
            ..bytemuck::Zeroable::zeroed()
        };
        let of = |half: ProductParameters| ProductParameters {
            arena: half.arena,
            page_bytes: half.page_bytes,
            offset: half.offset,
            pages: half.pages,
            n: half.n,
            k: half.k,
            ..groups
        };
        let operand = routing.linked.map_or_else(|| self.operand(x, shape.kind, shape.hidden), |linked| linked.rows);
        // What the host knows of how many rows there are decides the height of tiles, and no bit.
        let expected = if routing.linked.is_some() { routing.chosen().max(1) } else { rows.most as usize };
        let first = ProductParameters { list: tables.rows, x: operand, out: routing.between(), ..of(gated(pages)) };
        self.product(GATED, (shape.kind, pages.map(0)), expected, &first);
        let second = ProductParameters { x: routing.between(), out: results.address(), ..of(down(pages)) };
        self.product(PRODUCT, (shape.kind, pages.map(1)), expected, &second);
    }

    pub(super) fn combine_results(&self, results: &Buffer<f32>, routing: &Routing, out: &Buffer<f32>) {
        let rows = Rows { count: out.rows().count, first: 0, most: routing.tokens as u32 };
        if routing.tokens == 0 {
            return;
        }
        self.changed(out);
        let parameters = CombineParameters {
            rows,
            results: results.address(),
            homes: routing.linked.map_or(0, |linked| linked.homes),
            out: out.address(),
            routing: routing.tables(),
            width: (out.len() / routing.tokens) as u32,
            home_each: routing.linked.map_or(0, |linked| linked.home_each),
        };
        self.launch(&COMBINE, routing.tokens, &parameters);
    }
}
