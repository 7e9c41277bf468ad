//! What is timed of a layer: all between the router's logits and the sums of results, and all of that but the products.

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Result, ensure};
use kernels::backend::{HeadShape, RouterShape};
use kernels::batch::StepLimits;
use kernels::cuda::{Batch, Buffer, Cuda, CudaQueue, Routing, Slots};
use kernels::drawn::Drawn;
use kernels::routing::{Copies, GroupShape, LayerRouting, Slot};
use kernels::tensor::{MatrixView, Values, WeightKind};
use kernels::{Backend, PageId, Queue, StepArea};

use super::{Layers, Shape};

/// Tokens of which the sums are looked at.
const LOOKED_AT: usize = 512;
/// Seconds that a repetition is to take about.
const REPETITION: f64 = 0.03;

/// What goes through the layers.
pub struct Step<'a> {
    pub tokens: usize,
    /// The experts of each token.
    pub chosen: &'a [usize],
    /// The pages of each layer's experts.
    pub numbers: &'a [PageId],
    /// Whether products look pages up, or take them one after the other from each layer's first.
    pub has_table: bool,
    /// Whether layers are launched as one graph.
    pub in_graph: bool,
    pub small: bool,
}

/// Seconds of a layer, and what it gave.
pub struct Times {
    /// Of all from the router's logits to the sums.
    pub half: f64,
    /// Of its products: what the rest takes is taken away.
    pub products: f64,
    /// Of the last layer, where they are few.
    pub sums: Vec<f32>,
}

/// What the operations of a layer read and write.
struct State {
    batch: Batch,
    slots: Slots,
    routing: Routing,
    logits: Buffer<f32>,
    x: Buffer<f32>,
    results: Buffer<f32>,
    out: Buffer<f32>,
}

/// Operations of layers in turn.
struct Work<'a> {
    layers: &'a Layers<'a>,
    step: &'a Step<'a>,
    queue: &'a CudaQueue,
}

impl Layers<'_> {
    /// Times of a layer.
    pub fn step(&self, gpu: &Arc<Cuda>, step: &Step<'_>) -> Result<Times> {
        let queue = gpu.queue()?;
        let work = Work { layers: self, step, queue: &queue };
        work.times(&mut self.state(gpu, &queue, step)?)
    }

    fn state(&self, gpu: &Arc<Cuda>, queue: &CudaQueue, step: &Step<'_>) -> Result<State> {
        let &Shape { hidden, intermediate, experts, top_k, layers, .. } = self.shape;
        let &Step { tokens, chosen, numbers, .. } = step;
        let group = GroupShape { ranks: 1, rank: 0, layers, slots: experts, top_k, tokens };
        let layer = |layer: usize| LayerRouting {
            layer,
            copies: Copies {
                starts: (0..=experts as u32).collect(),
                slots: (0..experts as u32).map(|index| Slot { rank: 0, index }).collect(),
                bounds: vec![0; experts],
            },
            pages: numbers[layer * experts..][..experts].to_vec(),
        };
        let limits = StepLimits {
            tokens,
            blocks: 1,
            block_tokens: 16,
            logit_rows: 1,
            vocabulary: tokens,
            hidden,
            intermediate,
            heads: HeadShape { query: 1, key_value: 1, dimension: 8 },
        };
        let slots = gpu.slots(group, (0..layers).map(layer).collect())?;
        let (batch, routing) = (gpu.batch(limits, &slots)?, gpu.routing(group, self.arena.shape())?);
        let mut area = StepArea::default();
        for token in 0..tokens as u32 {
            area.push(token, 0, &[token], &[]);
        }
        let mut logits = vec![0.0_f32; tokens * experts];
        for (pair, &expert) in chosen.iter().enumerate() {
            logits[pair / top_k * experts + expert] = 10.0 + (pair % top_k) as f32 / top_k as f32;
        }
        let router = gpu.lookup(MatrixView::new(tokens, experts, Values::F32(&logits)))?;
        let drawn = [Drawn::new(1, "rows", tokens * hidden, (0.0, 1.0))];
        let values = Values::Drawn { kind: WeightKind::Bf16, parts: &drawn };
        let table = gpu.lookup(MatrixView::new(tokens, hidden, values))?;
        let (logits, results) = (gpu.buffer(tokens * experts)?, gpu.buffer(tokens * top_k * hidden)?);
        let (x, out) = (gpu.buffer(tokens * hidden)?, gpu.buffer(tokens * hidden)?);
        let mut state = State { batch, slots, routing, logits, x, results, out };
        let State { batch, slots, logits, x, out, .. } = &mut state;
        queue.upload(&area, batch, slots);
        queue.begin(batch, slots);
        // What is looked up has as many rows as the step has tokens.
        queue.embed(&router, batch, logits);
        queue.embed(&table, batch, x);
        queue.embed(&table, batch, out);
        // The tables go before the step does.
        queue.finish(batch, slots);
        queue.collect(batch, slots)?;
        Ok(state)
    }
}

impl Work<'_> {
    fn times(&self, state: &mut State) -> Result<Times> {
        let &Shape { layers, .. } = self.layers.shape;
        let &Step { tokens, small, in_graph, .. } = self.step;
        self.seconds(state, layers, (true, false))?;
        let one = self.seconds(state, 2 * layers, (true, false))?;
        let times = if small { layers } else { (REPETITION / one).clamp(8.0, 400.0) as usize };
        if in_graph {
            // Seen, and captured.
            for with_products in [true, true, false, false] {
                self.seconds(state, times, (with_products, true))?;
            }
        }
        let (mut half, mut rest) = (f64::INFINITY, f64::INFINITY);
        for _ in 0..if small { 1 } else { 3 } {
            rest = rest.min(self.seconds(state, times, (false, in_graph))?);
            half = half.min(self.seconds(state, times, (true, in_graph))?);
        }
        let sums = if tokens <= LOOKED_AT { self.queue.read(&state.out).into_owned() } else { Vec::new() };
        // Of an emulated device the clock may say anything.
        Ok(Times { half, products: (half - rest).max(half * 1e-3), sums })
    }

    /// Seconds that each of so many layers takes.
    fn seconds(&self, state: &mut State, times: usize, (with_products, in_graph): (bool, bool)) -> Result<f64> {
        let queue = self.queue;
        let layers = |state: &mut State| (0..times).try_for_each(|time| self.layer(state, time, with_products));
        let started = Instant::now();
        if in_graph {
            let key = 2 * times + usize::from(with_products);
            let refused = queue.repeat(key, state, |state| &mut state.batch, layers)?;
            ensure!(refused.is_none(), "layers are not captured: {refused:?}");
        } else {
            layers(state)?;
        }
        queue.finish(&mut state.batch, &mut state.slots);
        queue.collect(&state.batch, &state.slots)?;
        Ok(started.elapsed().as_secs_f64() / times as f64)
    }

    fn layer(&self, state: &mut State, time: usize, with_products: bool) -> Result<()> {
        let (queue, Step { numbers, has_table, .. }) = (self.queue, self.step);
        let &Shape { experts, top_k, layers, .. } = self.layers.shape;
        let State { batch, slots, routing, logits, x, results, out } = state;
        let (layer, pages) = (time % layers, self.layers.arena.memory());
        queue.route(logits, RouterShape { experts, top_k, normalise: true }, routing);
        queue.choose(batch, slots, layer, routing);
        queue.sort(slots, layer, routing);
        if with_products && *has_table {
            queue.experts(pages, routing, x, results);
        } else if with_products {
            let of_layer = &numbers[layer * experts..][..experts];
            ensure!(of_layer.windows(2).all(|pair| pair[0].0 + 1 == pair[1].0), "pages are not in a row: {of_layer:?}");
            queue.experts_in_a_row((pages, of_layer[0]), routing, x, results);
        }
        queue.combine(results, routing, out);
        Ok(())
    }
}
