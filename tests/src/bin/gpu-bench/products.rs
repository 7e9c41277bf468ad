//! The half of a layer that experts are: from the router's logits to sums of results, over layers in turn, so that weights come from memory.
//! Beside it what the same products take of cuBLAS, one after the other.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Result, ensure};
use kernels::backend::{HeadShape, PageShape, RouterShape};
use kernels::batch::StepLimits;
use kernels::cuda::Cuda;
use kernels::cuda::measure::{Dense, Gauge};
use kernels::drawn::Drawn;
use kernels::routing::{Copies, GroupShape, LayerRouting, Slot};
use kernels::tensor::{MatrixView, Values, WeightKind};
use kernels::{Arena, Backend, Page, PageId, Queue, StepArea};
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

use crate::ceilings::rate;
use crate::figures::{Figures, percent, rounded};
use crate::least;

/// What is measured of all.
#[derive(Debug, Default)]
pub struct Chosen {
    pub shape: Option<String>,
    pub tokens: Option<usize>,
}

struct Shape {
    name: &'static str,
    hidden: usize,
    intermediate: usize,
    experts: usize,
    top_k: usize,
    /// Whose weights are more than the caches of any chip hold.
    layers: usize,
}

const SHAPES: [Shape; 3] = [
    Shape { name: "qwen3-30b-a3b", hidden: 2048, intermediate: 768, experts: 128, top_k: 8, layers: 4 },
    Shape { name: "qwen3-235b-a22b", hidden: 4096, intermediate: 1536, experts: 128, top_k: 8, layers: 2 },
    Shape { name: "gemma-like", hidden: 2816, intermediate: 704, experts: 128, top_k: 8, layers: 4 },
];
const SMALL: [Shape; 1] = [Shape { name: "small", hidden: 64, intermediate: 32, experts: 8, top_k: 2, layers: 2 }];

/// The most valuable first: decode, then prefill, then the rest.
const TOKENS: [usize; 10] = [32, 4096, 128, 4, 1, 64, 512, 16, 8, 32768];
const SMALL_TOKENS: [usize; 2] = [4, 17];

/// Which experts tokens go to.
#[derive(Clone, Copy, PartialEq)]
enum Spread {
    Uniform,
    /// The n-th expert of a random order as often as 1 / n.
    Zipf,
}

pub fn run(small: bool, chosen: &Chosen, figures: &Figures) -> Result<()> {
    let gpu = Arc::new(Cuda::new(0)?);
    let gauge = Gauge::new(&gpu)?;
    let read = {
        let region = gauge.region(if small { 1 << 18 } else { 2 << 30 })?;
        rate(region.bytes(), least(3, || Ok(gauge.read(&region, 4)?))?)
    };
    let (shapes, tokens) = if small { (&SMALL[..], &SMALL_TOKENS[..]) } else { (&SHAPES[..], &TOKENS[..]) };
    let is_wanted = |shape: &&Shape| chosen.shape.as_ref().is_none_or(|name| name == shape.name);
    let mut measured = 0;
    for shape in shapes.iter().filter(is_wanted) {
        let layers = Layers::new(&gpu, shape)?;
        for &tokens in tokens.iter().filter(|tokens| chosen.tokens.is_none_or(|chosen| chosen == **tokens)) {
            for spread in [Spread::Uniform, Spread::Zipf] {
                layers.measure(&gauge, (tokens, spread), (read, small), figures)?;
                measured += 1;
            }
        }
    }
    ensure!(measured > 0, "no shape and number of tokens is {chosen:?}");
    Ok(())
}

/// The experts of some layers, in pages.
struct Layers<'a> {
    gpu: &'a Arc<Cuda>,
    shape: &'a Shape,
    arena: Arc<Arena<Cuda>>,
    pages: Vec<Page<Cuda>>,
}

impl<'a> Layers<'a> {
    fn new(gpu: &'a Arc<Cuda>, shape: &'a Shape) -> Result<Self> {
        let &Shape { hidden, intermediate, experts, layers, .. } = shape;
        let arena = Arena::new(Arc::clone(gpu), PageShape { hidden, intermediate, kind: WeightKind::Bf16 })?;
        let page = |number: usize| {
            let mut page = arena.take()?;
            let parts = ["gate", "up", "down"].map(|name| {
                let deviation = 1.0 / (if name == "down" { intermediate } else { hidden } as f32).sqrt();
                [Drawn::new(number as u64, name, hidden * intermediate, (0.0, deviation))]
            });
            let view = |index: usize, rows, columns| {
                MatrixView::new(rows, columns, Values::Drawn { kind: WeightKind::Bf16, parts: &parts[index] })
            };
            page.pack(view(0, intermediate, hidden), view(1, intermediate, hidden), view(2, hidden, intermediate))?;
            Ok(page)
        };
        let pages = (0..experts * layers).map(page).collect::<Result<_>>()?;
        Ok(Self { gpu, shape, arena, pages })
    }

    /// Measures so many tokens through pages in order and in disorder.
    fn measure(
        &self,
        gauge: &Gauge,
        (tokens, spread): (usize, Spread),
        (read, small): (f64, bool),
        figures: &Figures,
    ) -> Result<()> {
        let mut random = StdRng::seed_from_u64(tokens as u64);
        let chosen = chosen(self.shape, tokens, spread, &mut random);
        let mut rows = vec![0; self.shape.experts];
        for &expert in &chosen {
            rows[expert] += 1;
        }
        let dense = if small { None } else { self.by_cublas(gauge, &rows)? };
        let mut numbers: Vec<PageId> = self.pages.iter().map(Page::id).collect();
        let in_order = self.step(self.gpu, tokens, (&chosen, &numbers), small)?;
        numbers.shuffle(&mut random);
        let in_disorder = self.step(self.gpu, tokens, (&chosen, &numbers), small)?;
        // Where the chip has products of its own, those of any chip too.
        let plain = if self.gpu.uses_tensor_maps() {
            let plain = Arc::new(Cuda::clone(self.gpu).without_tensor_maps());
            Some(self.step(&plain, tokens, (&chosen, &numbers), small)?.products)
        } else {
            None
        };
        let &Shape { hidden, intermediate, name, .. } = self.shape;
        let (active, pairs) = (rows.iter().filter(|rows| **rows > 0).count(), chosen.len());
        // Weights once, rows in and between and out once each.
        let bytes = active * 3 * hidden * intermediate * 2 + pairs * (2 * hidden + 4 * intermediate + 4 * hidden);
        let flops = 6.0 * hidden as f64 * intermediate as f64 * pairs as f64;
        let Times { half, products } = in_disorder;
        let or_nothing = |seconds: Option<f64>| seconds.map_or(Value::Null, |seconds| rounded(seconds * 1e6));
        figures.tell(
            name,
            &[
                ("tokens", json!(tokens)),
                ("spread", json!(if spread == Spread::Uniform { "uniform" } else { "zipf" })),
                ("active", json!(active)),
                ("half us", rounded(half * 1e6)),
                ("products us", rounded(products * 1e6)),
                ("half of read %", percent(rate(bytes, half), read)),
                ("products of read %", percent(rate(bytes, products), read)),
                ("TFLOP/s", rounded(flops / products / 1e12)),
                ("disorder %", rounded(100.0 * (products / in_order.products - 1.0))),
                ("mma.sync us", or_nothing(plain)),
                ("of mma.sync %", plain.map_or(Value::Null, |plain| percent(plain, products))),
                ("cuBLAS us", or_nothing(dense)),
                ("of cuBLAS %", dense.map_or(Value::Null, |dense| percent(dense, products))),
            ],
        );
        Ok(())
    }

    /// Seconds that the same products take of cuBLAS.
    fn by_cublas(&self, gauge: &Gauge, rows: &[usize]) -> Result<Option<f64>> {
        let Some(dense) = Dense::new(gauge)? else { return Ok(None) };
        let &Shape { hidden, intermediate, experts, layers, .. } = self.shape;
        let most = rows.iter().copied().max().unwrap_or(1);
        let (wide, matrix) = (hidden.max(2 * intermediate), 2 * 2 * hidden * intermediate);
        let weights = gauge.region((layers * experts * matrix).min(2 << 30))?;
        let (x, out) = (gauge.region(2 * most * wide)?, RefCell::new(gauge.region(2 * most * wide)?));
        let both = || {
            let mut out = out.borrow_mut();
            let first = dense.products(rows, (2 * intermediate, hidden), (&weights, &x, &mut out), 3)?;
            Ok(first + dense.products(rows, (hidden, intermediate), (&weights, &x, &mut out), 3)?)
        };
        Ok(Some(least(2, both)?))
    }

    /// Times of a layer, with these experts of each token, in pages of these numbers.
    fn step(
        &self,
        gpu: &Arc<Cuda>,
        tokens: usize,
        (chosen, numbers): (&[usize], &[PageId]),
        small: bool,
    ) -> Result<Times> {
        let &Shape { hidden, intermediate, experts, top_k, layers, .. } = self.shape;
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
        let queue = gpu.queue()?;
        let mut slots = gpu.slots(group, (0..layers).map(layer).collect())?;
        let mut batch = gpu.batch(limits, &slots)?;
        let mut routing = gpu.routing(group, self.arena.shape())?;
        let mut area = StepArea::default();
        for token in 0..tokens as u32 {
            area.push(token, 0, &[token], &[]);
        }
        let mut logits = vec![0.0_f32; tokens * experts];
        for (pair, &expert) in chosen.iter().enumerate() {
            logits[pair / top_k * experts + expert] = 10.0 + (pair % top_k) as f32 / top_k as f32;
        }
        let router = gpu.lookup(MatrixView::new(tokens, experts, Values::F32(&logits)))?;
        let mut logits = gpu.buffer(tokens * experts)?;
        let drawn = [Drawn::new(1, "rows", tokens * hidden, (0.0, 1.0))];
        let values = Values::Drawn { kind: WeightKind::Bf16, parts: &drawn };
        let table = gpu.lookup(MatrixView::new(tokens, hidden, values))?;
        let mut x = gpu.buffer(tokens * hidden)?;
        let mut out = gpu.buffer(tokens * hidden)?;
        let mut results = gpu.buffer(tokens * top_k * hidden)?;
        queue.upload(&area, &mut batch, &mut slots);
        queue.begin(&mut batch, &mut slots);
        // What is looked up has as many rows as the step has tokens.
        queue.embed(&router, &batch, &mut logits);
        queue.embed(&table, &batch, &mut x);
        queue.embed(&table, &batch, &mut out);
        let shape = RouterShape { experts, top_k, normalise: true };
        let mut some = |times: usize, with_products: bool| -> Result<f64> {
            queue.finish(&mut batch, &mut slots);
            queue.collect(&batch, &slots)?;
            let started = Instant::now();
            for time in 0..times {
                let layer = time % layers;
                queue.route(&logits, shape, &mut routing);
                queue.choose(&batch, &slots, layer, &mut routing);
                queue.sort(&mut slots, layer, &mut routing);
                if with_products || time == 0 {
                    queue.experts(self.arena.memory(), &routing, &x, &mut results);
                }
                queue.combine(&results, &routing, &mut out);
            }
            queue.finish(&mut batch, &mut slots);
            queue.collect(&batch, &slots)?;
            Ok(started.elapsed().as_secs_f64() / times as f64)
        };
        some(layers, true)?;
        let times = if small { layers } else { (0.04 / some(2 * layers, true)?).clamp(8.0, 400.0) as usize };
        let rounds = if small { 1 } else { 3 };
        let (mut half, mut rest) = (f64::INFINITY, f64::INFINITY);
        for _ in 0..rounds {
            half = half.min(some(times, true)?);
            rest = rest.min(some(times, false)?);
        }
        Ok(Times { half, products: (half - rest).max(half * 1e-3) })
    }
}

/// Seconds of a layer.
struct Times {
    /// Of all from the router's logits to the sums.
    half: f64,
    /// Of its products: what the rest takes is taken away.
    products: f64,
}

/// The experts of each token, all different.
fn chosen(shape: &Shape, tokens: usize, spread: Spread, random: &mut StdRng) -> Vec<usize> {
    let mut order: Vec<usize> = (0..shape.experts).collect();
    order.shuffle(random);
    let mut weights = vec![0.0; shape.experts];
    for (place, &expert) in order.iter().enumerate() {
        weights[expert] = if spread == Spread::Uniform { 1.0 } else { 1.0 / (place + 1) as f64 };
    }
    let mut chosen = Vec::with_capacity(tokens * shape.top_k);
    for _ in 0..tokens {
        let mut left = weights.clone();
        for _ in 0..shape.top_k {
            let mut at = random.random::<f64>() * left.iter().sum::<f64>();
            // Whatever rounding leaves of the last.
            let drawn = left.iter().position(|weight| {
                at -= weight;
                *weight > 0.0 && at < 0.0
            });
            let expert = drawn.or_else(|| left.iter().rposition(|weight| *weight > 0.0)).expect("more experts");
            chosen.push(expert);
            left[expert] = 0.0;
        }
    }
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_token_has_different_experts_and_zipf_has_favourites() {
        let shape = &SHAPES[0];
        let counts = |spread| {
            let mut random = StdRng::seed_from_u64(3);
            let chosen = chosen(shape, 512, spread, &mut random);
            assert_eq!(chosen.len(), 512 * shape.top_k);
            for token in chosen.chunks(shape.top_k) {
                let mut token = token.to_vec();
                token.sort_unstable();
                assert!(token.windows(2).all(|pair| pair[0] < pair[1]));
            }
            let mut counts = vec![0; shape.experts];
            for expert in chosen {
                counts[expert] += 1;
            }
            counts.into_iter().max().unwrap_or(0)
        };
        let mean = 512 * shape.top_k / shape.experts;
        assert!(counts(Spread::Uniform) < 2 * mean && counts(Spread::Zipf) > 8 * mean);
    }
}
