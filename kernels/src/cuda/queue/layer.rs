//! The parts of a layer that every token goes through on its own rank.

use super::super::batch::Batch;
use super::super::buffer::Buffer;
use super::super::cache::Cache;
use super::super::context::Context;
use super::super::parameters::{
    ATTEND_BF16, ATTEND_BF16_WIDE, ATTEND_F32, Address, AttendParameters, EMBED, EmbedParameters, GATED_BF16,
    GATED_BF16_90A, GATED_BF16_90A_TALL, GATED_BF16_TALL, GATED_F32, Kernel, MERGE, MOST_PADDED, MOST_TERMS,
    MappedProductParameters, NormParameters, PRODUCT_BF16, PRODUCT_BF16_90A, PRODUCT_BF16_90A_TALL,
    PRODUCT_BF16_NARROW, PRODUCT_BF16_TALL, PRODUCT_F32, ProductParameters, RMS_NORM, ROTATE, RotateParameters,
    SPLIT_ROWS, STORE, SplitParameters, StoreParameters, attend_shared, product_shared,
};
use super::super::tensor_map::TensorMap;
use super::super::weights::{Matrix, kind_word};
use super::super::{Cuda, Pages};
use super::CudaQueue;
use crate::arena::PageId;
use crate::backend::Write;
use crate::queue::Rotation;
use crate::tensor::WeightKind;

/// Outputs of a tile of a product and of one that is narrow, and rows of a low and of a tall one. All give the same bits.
const TILE_OUTPUTS: usize = 128;
const NARROW_OUTPUTS: usize = 32;
const TILE_ROWS: [usize; 2] = [16, 64];
/// The same where weights are mapped.
const MAPPED_OUTPUTS: [usize; 2] = [128, 256];
const MAPPED_ROWS: [usize; 2] = [64, 128];

/// Kernels of a product, or of the first half of a feed-forward network.
#[derive(Clone, Copy)]
pub(super) struct Products {
    bf16: [&'static Kernel; 2],
    mapped: [&'static Kernel; 2],
    narrow: Option<&'static Kernel>,
    f32: &'static Kernel,
}

/// Rows to rows.
pub(super) const PRODUCT: Products = Products {
    bf16: [&PRODUCT_BF16, &PRODUCT_BF16_TALL],
    mapped: [&PRODUCT_BF16_90A, &PRODUCT_BF16_90A_TALL],
    narrow: Some(&PRODUCT_BF16_NARROW),
    f32: &PRODUCT_F32,
};
/// Rows to what is between the layers of a network.
pub(super) const GATED: Products = Products {
    bf16: [&GATED_BF16, &GATED_BF16_TALL],
    mapped: [&GATED_BF16_90A, &GATED_BF16_90A_TALL],
    narrow: None,
    f32: &GATED_F32,
};

/// Whether a product of so many outputs by mapped weights has work for every multiprocessor, however few rows there are: its tiles
/// are wide, and one that has fewer of them waits for its weights less where tiles may be narrow.
pub(in crate::cuda) fn keeps_busy(context: &Context, outputs: usize) -> bool {
    outputs.div_ceil(MAPPED_OUTPUTS[0]) >= context.multiprocessors as usize
}

impl CudaQueue {
    /// Puts a product on the queue whose groups have about so many rows together. Whether the weights have a map decides bits, and
    /// is the same for all of their rows for ever; the number of rows decides none.
    pub(super) fn product(
        &self,
        products: Products,
        (kind, map): (WeightKind, Option<&TensorMap>),
        rows: usize,
        parameters: &ProductParameters,
    ) {
        if let Some(map) = map.filter(|_| self.uses_maps) {
            self.mapped_product(products.mapped, map, rows, parameters);
            return;
        }
        let most = parameters.rows.most as usize;
        let (groups, n) = (parameters.groups as usize, parameters.n as usize);
        let shared = |kernel: &Kernel| product_shared(kernel, groups, MOST_TERMS);
        // Some chips have too little shared memory for tall tiles of two terms and many groups.
        let has_room = shared(products.bf16[1]) <= self.device.context.shared as usize;
        let is_tall = rows > groups * TILE_ROWS[1] / 2 && has_room;
        // Groups end within tiles.
        let tiles = most / TILE_ROWS[usize::from(is_tall)] + groups.min(most);
        let is_little = !is_tall && tiles * n.div_ceil(TILE_OUTPUTS) < self.device.context.multiprocessors as usize;
        let (kernel, outputs) = match (kind, products.narrow.filter(|_| is_little)) {
            (WeightKind::F32, _) => (products.f32, TILE_OUTPUTS),
            (WeightKind::Bf16, Some(narrow)) => (narrow, NARROW_OUTPUTS),
            (WeightKind::Bf16, None) => (products.bf16[usize::from(is_tall)], TILE_OUTPUTS),
        };
        let parameters = ProductParameters { terms: MOST_TERMS as u32, ..*parameters };
        self.launch_with(kernel, tiles * n.div_ceil(outputs), shared(kernel), &parameters);
    }

    fn mapped_product(
        &self,
        kernels: [&'static Kernel; 2],
        map: &TensorMap,
        rows: usize,
        parameters: &ProductParameters,
    ) {
        let most = parameters.rows.most as usize;
        let (groups, n) = (parameters.groups as usize, parameters.n as usize);
        let height = usize::from(rows > groups * MAPPED_ROWS[0]);
        let tiles = (most / MAPPED_ROWS[height] + groups.min(most)) * n.div_ceil(MAPPED_OUTPUTS[height]);
        let product = ProductParameters { terms: MOST_TERMS as u32, ..*parameters };
        let parameters = MappedProductParameters { weights: map.0, product };
        self.launch_with(kernels[height], tiles, product_shared(kernels[height], groups, MOST_TERMS), &parameters);
    }

    /// Rows as products by weights of this kind read them.
    ///
    /// # Panics
    /// If there is no room for them.
    pub(super) fn operand(&self, x: &Buffer<f32>, kind: WeightKind, width: usize) -> Address {
        if kind == WeightKind::F32 {
            return x.address();
        }
        let scratch = self.scratch();
        let to = scratch.terms.address();
        if self.split.get() != x.address() {
            assert!(x.len() <= scratch.terms_elements, "{} elements to split", x.len());
            let rows = x.all_rows(width);
            let parameters = SplitParameters { rows, x: x.address(), terms: to, width: width as u32, unused: 0 };
            self.launch(&SPLIT_ROWS, x.len().div_ceil(4 * 256), &parameters);
            self.split.set(x.address());
        }
        to
    }

    /// Where the terms of a buffer go as it is written; nowhere if there is no room.
    fn splitting(&self, out: &Buffer<f32>) -> Address {
        let room = self.scratch.borrow().upgrade().filter(|scratch| out.len() <= scratch.terms_elements);
        let to = room.map_or(0, |scratch| scratch.terms.address());
        self.split.set(if to == 0 { self.split.get() } else { out.address() });
        to
    }

    pub(super) fn look_up(&self, table: &Matrix, batch: &Batch, out: &mut Buffer<f32>) {
        out.set(batch.token_rows(), table.columns);
        self.changed(out);
        let parameters = EmbedParameters {
            rows: out.rows(),
            table: table.address(),
            ids: batch.list(batch.layout().ids),
            out: out.address(),
            error: batch.error(),
            kind: kind_word(table.kind),
            width: table.columns as u32,
            vocabulary: table.rows as u32,
            unused: 0,
        };
        self.launch(&EMBED, batch.tokens(), &parameters);
    }

    pub(super) fn norm(&self, x: &Buffer<f32>, weight: &Buffer<f32>, epsilon: f32, out: &mut Buffer<f32>) {
        let width = weight.len();
        out.set(x.rows(), width);
        self.changed(out);
        let parameters = NormParameters {
            rows: x.rows(),
            x: x.address(),
            weight: weight.address(),
            out: out.address(),
            terms: self.splitting(out),
            width: width as u32,
            epsilon,
        };
        self.launch(&RMS_NORM, x.rows().most as usize, &parameters);
    }

    pub(super) fn multiply(&self, x: &Buffer<f32>, weights: &Matrix, write: Write, out: &mut Buffer<f32>) {
        let rows = x.rows();
        let operand = self.operand(x, weights.kind, weights.columns);
        out.set(rows, weights.rows);
        self.changed(out);
        let parameters = ProductParameters {
            rows,
            arena: weights.address(),
            page_bytes: 0,
            offset: 0,
            page_of: 0,
            starts: 0,
            list: 0,
            x: operand,
            bias: weights.bias(),
            out: out.address(),
            error: 0,
            groups: 1,
            page: 0,
            pages: 1,
            n: weights.rows as u32,
            k: weights.columns as u32,
            add: u32::from(write == Write::Add),
            terms: 0,
            unused: 0,
        };
        self.product(PRODUCT, (weights.kind, weights.map.as_ref()), rows.most as usize, &parameters);
    }

    pub(super) fn rotate_heads(&self, projected: &mut Buffer<f32>, batch: &Batch, rotation: &Rotation<'_, Cuda>) {
        let Rotation { heads, query_norm, key_norm, epsilon, angles } = *rotation;
        self.changed(projected);
        let parameters = RotateParameters {
            rows: projected.rows(),
            projected: projected.address(),
            row_positions: batch.list(batch.layout().positions),
            query_norm: query_norm.address(),
            key_norm: key_norm.address(),
            angles: angles.address(),
            error: batch.error(),
            query: heads.query as u32,
            key_value: heads.key_value as u32,
            dimension: heads.dimension as u32,
            positions: (angles.len() / heads.dimension) as u32,
            epsilon,
            unused: 0,
        };
        // A warp for each head.
        let work = (projected.rows().most as usize * (heads.query + heads.key_value)).div_ceil(8);
        self.launch(&ROTATE, work, &parameters);
    }

    pub(super) fn store_heads(&self, cache: &Cache, projected: &Buffer<f32>, batch: &Batch) {
        let parameters = StoreParameters {
            cache: cache.table(),
            projected: projected.address(),
            items: batch.items(),
            item_count: batch.item_count(),
            blocks: batch.list(batch.layout().blocks),
            error: batch.error(),
        };
        self.launch(&STORE, batch.tokens(), &parameters);
    }

    pub(super) fn attend_heads(&self, cache: &Cache, projected: &Buffer<f32>, batch: &Batch, out: &mut Buffer<f32>) {
        out.set(batch.token_rows(), cache.heads().query_width());
        self.changed(out);
        let parameters = AttendParameters {
            cache: cache.table(),
            projected: projected.address(),
            items: batch.items(),
            item_count: batch.item_count(),
            blocks: batch.list(batch.layout().blocks),
            partials: self.scratch().partials.address(),
            out: out.address(),
            terms: self.splitting(out),
            error: batch.error(),
        };
        let work = batch.attention() * cache.heads().key_value;
        let (kernel, shared) = self.attention(cache);
        self.launch_with(kernel, work, shared, &parameters);
        self.launch(&MERGE, batch.tokens() * cache.heads().query, &parameters);
    }

    /// The kernel that attends over a cache, and its shared memory: on tensor cores where keys and values are bfloat16, the heads
    /// not too wide and the chip's shared memory not too small.
    fn attention(&self, cache: &Cache) -> (&'static Kernel, usize) {
        let dimension = cache.heads().dimension;
        let shared = attend_shared(dimension);
        match cache.kind() {
            WeightKind::F32 => (&ATTEND_F32, 0),
            WeightKind::Bf16 if dimension <= MOST_PADDED && shared <= self.device.context.shared as usize => {
                (&ATTEND_BF16, shared)
            }
            WeightKind::Bf16 => (&ATTEND_BF16_WIDE, 0),
        }
    }

    /// A feed-forward network that every row goes through.
    pub(super) fn dense(&self, pages: &Pages, page: PageId, x: &Buffer<f32>, out: &mut Buffer<f32>) {
        let (shape, rows, scratch) = (pages.shape(), x.rows(), self.scratch());
        self.note_pages(pages);
        let elements = rows.most as usize * shape.intermediate;
        let map = |half: usize, outputs| pages.map(half).filter(|_| keeps_busy(&self.device.context, outputs));
        assert!(elements <= scratch.between_elements, "{elements} elements between the layers of a network");
        let first = ProductParameters {
            rows,
            page: page.0,
            x: self.operand(x, shape.kind, shape.hidden),
            out: scratch.between.address(),
            groups: 1,
            ..gated(pages)
        };
        self.product(GATED, (shape.kind, map(0, 2 * shape.intermediate)), rows.most as usize, &first);
        let x = scratch.between.address();
        let second = ProductParameters { rows, page: page.0, x, out: out.address(), groups: 1, add: 1, ..down(pages) };
        self.changed(out);
        self.product(PRODUCT, (shape.kind, map(1, shape.hidden)), rows.most as usize, &second);
    }
}

/// The first half of networks in pages.
pub(super) fn gated(pages: &Pages) -> ProductParameters {
    let shape = pages.shape();
    ProductParameters { n: 2 * shape.intermediate as u32, k: shape.hidden as u32, ..of_pages(pages) }
}

/// The second half.
pub(super) fn down(pages: &Pages) -> ProductParameters {
    let shape = pages.shape();
    let offset = pages.down_offset() as u64;
    ProductParameters { offset, n: shape.hidden as u32, k: shape.intermediate as u32, ..of_pages(pages) }
}

fn of_pages(pages: &Pages) -> ProductParameters {
    ProductParameters {
        arena: pages.address(),
        page_bytes: pages.page_length() as u64,
        pages: pages.count(),
        ..bytemuck::Zeroable::zeroed()
    }
}
