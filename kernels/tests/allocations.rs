//! No operation of the CPU asks the system for memory, on any of its threads: all there is was made before the first step.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod counting;

use std::sync::Arc;

use half::bf16;
use kernels::backend::{CacheShape, HeadShape, PageShape, RouterShape, Write};
use kernels::batch::{Asked, Draw, StepLimits};
use kernels::cpu::{Batch, Buffer, Cache, Cpu, CpuQueue, Lookup, Matrix, Routing, Slots};
use kernels::queue::{Arrived, Home, Rotation};
use kernels::routing::{Copies, GroupShape, LayerRouting, Pair, Slot};
use kernels::tensor::{MatrixView, Values, WeightKind};
use kernels::times::Activity;
use kernels::{Arena, Backend as _, Page, PageId, Queue as _, StepArea};

const HIDDEN: usize = 64;
const HEADS: HeadShape = HeadShape { query: 4, key_value: 2, dimension: 16 };
const EXPERTS: usize = 8;
const SLOTS: usize = EXPERTS / 2;
const TOP_K: usize = 3;
const TOKENS: usize = 96;
const VOCABULARY: usize = 3000;
const BLOCKS: usize = 64;
const BLOCK_TOKENS: usize = 16;
/// The first of two ranks.
const GROUP: GroupShape = GroupShape { ranks: 2, rank: 0, layers: 1, slots: SLOTS, top_k: TOP_K, tokens: TOKENS };
const EXPERT: PageShape = PageShape { hidden: HIDDEN, intermediate: 96, kind: WeightKind::Bf16 };
/// Wider than an expert.
const DENSE: PageShape = PageShape { intermediate: 160, ..EXPERT };

/// A layer of a model with the memory of its steps.
struct Layer {
    queue: CpuQueue,
    embedding: Lookup,
    norm: Buffer<f32>,
    head_norm: Buffer<f32>,
    angles: Buffer<f32>,
    projection: Matrix,
    output: Matrix,
    router: Matrix,
    head: Matrix,
    experts: Vec<Page<Cpu>>,
    dense: Page<Cpu>,
    cache: Cache,
    area: StepArea,
    batch: Batch,
    slots: Slots,
    routing: Routing,
    hidden: Buffer<f32>,
    normed: Buffer<f32>,
    projected: Buffer<f32>,
    attended: Buffer<f32>,
    logits: Buffer<f32>,
    results: Buffer<f32>,
    rows: Buffer<f32>,
    /// What the other rank sends.
    foreign: (Vec<f32>, Vec<Pair>),
}

/// Weights, another number each.
fn weights(rows: usize, columns: usize) -> Vec<bf16> {
    (0..rows * columns).map(|at| bf16::from_f32((at * 7919 % 1009) as f32 / 4036.0 - 0.125)).collect()
}

/// Each expert once; the slots that are here hold theirs in this order.
fn layer_routing(pages: Vec<PageId>) -> LayerRouting {
    let slots = (0..EXPERTS).map(|expert| Slot { rank: (expert / SLOTS) as u32, index: (expert % SLOTS) as u32 });
    let copies = Copies { starts: (0..=EXPERTS as u32).collect(), slots: slots.collect(), bounds: vec![0; EXPERTS] };
    LayerRouting { layer: 0, copies, pages }
}

impl Layer {
    fn new(threads: usize) -> Self {
        let cpu = Arc::new(Cpu::new(threads));
        let queue = cpu.queue().unwrap();
        let matrix = |rows: usize, columns: usize| {
            let values = weights(rows, columns);
            cpu.matrix(MatrixView::new(rows, columns, Values::Bf16(&values)), None).unwrap()
        };
        let page = |arena: &Arc<Arena<Cpu>>| {
            let PageShape { hidden, intermediate, .. } = arena.shape();
            let (wide, high) = (weights(intermediate, hidden), weights(hidden, intermediate));
            let wide = MatrixView::new(intermediate, hidden, Values::Bf16(&wide));
            let mut page = arena.take().unwrap();
            page.pack(wide, wide, MatrixView::new(hidden, intermediate, Values::Bf16(&high))).unwrap();
            page
        };
        let [arena, dense] = [EXPERT, DENSE].map(|shape| Arena::new(Arc::clone(&cpu), shape).unwrap());
        let experts: Vec<Page<Cpu>> = (0..SLOTS).map(|_| page(&arena)).collect();
        let limits = StepLimits { tokens: TOKENS, blocks: BLOCKS, vocabulary: VOCABULARY, ..StepLimits::default() };
        let slots = cpu.slots(GROUP, vec![layer_routing(experts.iter().map(Page::id).collect())]).unwrap();
        let table = weights(VOCABULARY, HIDDEN);
        let buffer = |elements: usize| cpu.buffer(elements).unwrap();
        let foreign = (0..TOKENS).map(|row| Pair { slot: (row % SLOTS) as u32, row: row as u32 }).collect();
        Self {
            embedding: cpu.lookup(MatrixView::new(VOCABULARY, HIDDEN, Values::Bf16(&table))).unwrap(),
            norm: cpu.filled(&[0.5; HIDDEN]).unwrap(),
            head_norm: cpu.filled(&[0.5; HEADS.dimension]).unwrap(),
            angles: cpu.filled(&vec![0.6; BLOCKS * BLOCK_TOKENS * HEADS.dimension]).unwrap(),
            projection: matrix(HEADS.projected_width(), HIDDEN),
            output: matrix(HIDDEN, HEADS.query_width()),
            router: matrix(EXPERTS, HIDDEN),
            head: matrix(VOCABULARY, HIDDEN),
            dense: page(&dense),
            cache: cpu
                .cache(CacheShape { heads: HEADS, blocks: BLOCKS, block_tokens: BLOCK_TOKENS, kind: WeightKind::F32 })
                .unwrap(),
            area: StepArea::with_room(&limits).unwrap(),
            batch: cpu.batch(limits, &slots).unwrap(),
            routing: cpu.routing(GROUP, EXPERT).unwrap(),
            hidden: buffer(TOKENS * HIDDEN),
            normed: buffer(GROUP.rows() * HIDDEN),
            projected: buffer(TOKENS * HEADS.projected_width()),
            attended: buffer(TOKENS * HEADS.query_width()),
            logits: buffer(TOKENS * VOCABULARY),
            results: buffer(GROUP.results() * HIDDEN),
            rows: buffer(TOKENS * HIDDEN),
            foreign: (vec![0.25; GROUP.results() * HIDDEN], foreign),
            queue,
            experts,
            slots,
        }
    }

    /// So many tokens of a sequence from a position on, and one of another; what is asked of each in turn is different.
    fn prepare(&mut self, position: usize, tokens: usize) {
        self.area.clear();
        let (ids, blocks): (Vec<u32>, Vec<u32>) = ((0..tokens as u32).collect(), (0..BLOCKS as u32 - 1).collect());
        if tokens > 1 {
            self.area.push(1, position as u32, &ids[1..], &blocks);
        }
        self.area.push(2, 3, &ids[..1], &[BLOCKS as u32 - 1]);
        let draw = |top_p, top_k| Some(Draw { temperature: 0.7, top_p, top_k, uniform: 0.9 });
        self.area.asked.extend((0..tokens as u32).map(|row| match row % 4 {
            0 => Asked { draw: draw(0.9, 0), ..Asked::nothing(row) },
            1 => Asked { draw: draw(1.0, 40), sum: true, ..Asked::nothing(row) },
            2 => Asked { best: 20, sum: true, score: Some(7), ..Asked::nothing(row) },
            _ => Asked { draw: draw(1.0, 0), best: 1, ..Asked::nothing(row) },
        }));
        let mut pages: Vec<PageId> = self.experts.iter().map(Page::id).collect();
        pages.rotate_left(tokens % SLOTS);
        self.area.changes = vec![layer_routing(pages)];
    }

    /// Every operation that there is.
    fn step(&mut self) {
        let Self { queue, area, batch, slots, routing, hidden, normed, .. } = self;
        let Self { projected, attended, logits, results, rows, cache, foreign, .. } = self;
        queue.upload(area, batch, slots);
        queue.begin(batch, slots);
        queue.embed(&self.embedding, batch, hidden);
        queue.rms_norm(hidden, &self.norm, 1e-6, normed);
        queue.matmul(normed, &self.projection, Write::Replace, projected);
        let (query_norm, key_norm, angles) = (&self.head_norm, &self.head_norm, &self.angles);
        queue.rotate(projected, batch, &Rotation { heads: HEADS, query_norm, key_norm, epsilon: 1e-6, angles });
        queue.store(cache, projected, batch);
        queue.attend(cache, projected, batch, attended);
        queue.matmul(attended, &self.output, Write::Add, hidden);
        queue.rms_norm(hidden, &self.norm, 1e-6, normed);
        queue.feed_forward(self.dense.weights(), normed, hidden);
        queue.rms_norm(hidden, &self.norm, 1e-6, normed);
        queue.matmul(normed, &self.router, Write::Replace, logits);
        queue.route(logits, RouterShape { experts: EXPERTS, top_k: TOP_K, normalise: true }, routing);
        queue.choose(batch, slots, 0, routing);
        let given = {
            let leaving = queue.leaving(routing, normed);
            leaving.destinations.iter().filter(|destination| destination.slot.rank == 1).count()
        };
        let arriving = area.ids.len();
        let (values, pairs) = (&foreign.0[..arriving * HIDDEN], &foreign.1[..arriving]);
        queue.arrive(routing, Arrived { width: HIDDEN, values, pairs }, normed);
        queue.turn_to(Activity::Experts, batch);
        queue.sort(slots, 0, routing);
        queue.experts(self.experts[0].weights().0, routing, normed, results);
        assert_eq!(queue.returning(routing, results).rows.len(), arriving);
        let home = Home { from: 1, width: HIDDEN, values: &foreign.0[..given * HIDDEN] };
        queue.come_home(routing, home, results);
        queue.combine(results, routing, hidden);
        let asked = 0..area.asked.len();
        queue.gather(hidden, batch, asked.clone(), rows);
        queue.matmul(rows, &self.head, Write::Replace, logits);
        queue.sample(logits, asked, batch);
        queue.finish(batch, slots);
        queue.mark();
        let collected = queue.collect(batch, slots).unwrap();
        assert!(collected.sampled.iter().all(|sampled| sampled.is_ordered));
        assert_eq!(queue.read(hidden).len(), area.ids.len() * HIDDEN);
    }
}

#[test]
fn no_operation_asks_for_memory_on_any_thread() {
    for threads in [1, 2, 4] {
        // A thread belongs to one pool only.
        std::thread::scope(|scope| {
            let run = || {
                let mut layer = Layer::new(threads);
                // From the first step on, and each larger than all before it.
                for (position, tokens) in [(0, 1), (0, 2), (2, 8), (10, 40), (100, TOKENS), (1000 - TOKENS, TOKENS)] {
                    layer.prepare(position, tokens);
                    let before = counting::of_all_threads();
                    layer.step();
                    let asked = counting::of_all_threads() - before;
                    assert_eq!(asked, 0, "{threads} threads, {tokens} tokens from {position}");
                }
                let before = counting::of_all_threads();
                drop(std::hint::black_box(vec![0_u8; 100]));
                assert_eq!(counting::of_all_threads() - before, 1, "it counts");
            };
            scope.spawn(run).join().unwrap();
        });
    }
}
