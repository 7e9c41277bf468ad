//! The half of a layer that experts are: from the router's logits to sums of results, over layers in turn, so that weights come from memory.
//! Beside it the same kernels with pages one after the other, without a table, and what the same products take of cuBLAS, one after the
//! other and as one.

mod layer;

use std::cell::RefCell;
use std::sync::Arc;

use anyhow::{Result, ensure};
use kernels::backend::PageShape;
use kernels::cuda::Cuda;
use kernels::cuda::measure::{Dense, Gauge};
use kernels::drawn::Drawn;
use kernels::tensor::{MatrixView, Values, WeightKind};
use kernels::{Arena, Page, PageId};
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

use self::layer::{Step, Times};
use crate::ceilings::{rate, square};
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

/// Tokens up to which a layer is measured in a graph, as decode steps are; more are a prompt's, which is launched.
const IN_A_GRAPH: usize = 512;
const SMALL_IN_A_GRAPH: usize = 8;

/// Rows of the one product of cuBLAS that all rows of a layer are beside, at most: more are as fast.
const DENSE_ROWS: usize = 32_768;

/// Which experts tokens go to.
#[derive(Clone, Copy, PartialEq)]
enum Spread {
    Uniform,
    /// The n-th expert of a random order as often as 1 / n.
    Zipf,
}

/// What all figures are told against.
struct Ceilings<'a> {
    /// Gigabytes a second that a kernel reads.
    read: f64,
    /// cuBLAS, where there is one.
    cublas: Option<Dense<'a>>,
    /// Teraflops of one large square product of it.
    square: Option<f64>,
}

impl<'a> Ceilings<'a> {
    fn new(gauge: &'a Gauge, small: bool) -> Result<Self> {
        let region = gauge.region(if small { 1 << 18 } else { 2 << 30 })?;
        let read = rate(region.bytes(), least(3, || Ok(gauge.read(&region, 4)?))?);
        drop(region);
        let cublas = Dense::new(gauge)?;
        let size = if small { 64 } else { 8192 };
        let square = cublas.as_ref().map(|cublas| square(gauge, cublas, size)).transpose()?;
        Ok(Self { read, cublas, square })
    }
}

pub fn run(small: bool, chosen: &Chosen, figures: &Figures) -> Result<()> {
    let gpu = Arc::new(Cuda::new(0)?);
    let gauge = Gauge::new(&gpu)?;
    let ceilings = Ceilings::new(&gauge, small)?;
    let (shapes, tokens) = if small { (&SMALL[..], &SMALL_TOKENS[..]) } else { (&SHAPES[..], &TOKENS[..]) };
    let is_wanted = |shape: &&Shape| chosen.shape.as_ref().is_none_or(|name| name == shape.name);
    let mut measured = 0;
    for shape in shapes.iter().filter(is_wanted) {
        let layers = Layers::new(&gpu, shape)?;
        for &tokens in tokens.iter().filter(|tokens| chosen.tokens.is_none_or(|chosen| chosen == **tokens)) {
            for spread in [Spread::Uniform, Spread::Zipf] {
                layers.measure(&gauge, (tokens, spread), (&ceilings, small), figures)?;
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

    /// Measures so many tokens through pages in disorder, and in order with and without a table.
    fn measure(
        &self,
        gauge: &Gauge,
        (tokens, spread): (usize, Spread),
        (ceilings, small): (&Ceilings<'_>, bool),
        figures: &Figures,
    ) -> Result<()> {
        let mut random = StdRng::seed_from_u64(tokens as u64);
        let chosen = chosen(self.shape, tokens, spread, &mut random);
        let mut rows = vec![0; self.shape.experts];
        for &expert in &chosen {
            rows[expert] += 1;
        }
        let in_graph = tokens <= if small { SMALL_IN_A_GRAPH } else { IN_A_GRAPH };
        let mut numbers: Vec<PageId> = self.pages.iter().map(Page::id).collect();
        let step = |gpu: &Arc<Cuda>, numbers: &[PageId], has_table| {
            self.step(gpu, &Step { tokens, chosen: &chosen, numbers, has_table, in_graph, small })
        };
        // What a table costs does not depend on which experts are liked.
        let in_order = if spread == Spread::Uniform {
            let (with, without) = (step(self.gpu, &numbers, true)?, step(self.gpu, &numbers, false)?);
            ensure!(with.sums == without.sums, "{tokens} tokens: other bits without a table");
            Some((with.products, without.products))
        } else {
            None
        };
        numbers.shuffle(&mut random);
        let Times { half, products, .. } = step(self.gpu, &numbers, true)?;
        // Where the chip has products of its own, those of any chip too.
        let plain = if self.gpu.uses_tensor_maps() {
            let plain = Arc::new(Cuda::clone(self.gpu).without_tensor_maps());
            Some(step(&plain, &numbers, true)?.products)
        } else {
            None
        };
        let &Shape { hidden, intermediate, name, .. } = self.shape;
        let (active, pairs) = (rows.iter().filter(|rows| **rows > 0).count(), chosen.len());
        // Weights once, rows in and between and out once each.
        let bytes = active * 3 * hidden * intermediate * 2 + pairs * (2 * hidden + 4 * intermediate + 4 * hidden);
        let teraflops = 6.0 * hidden as f64 * intermediate as f64 * pairs as f64 / products / 1e12;
        let cublas = ceilings.cublas.as_ref().map(|dense| self.by_cublas(gauge, dense, &rows)).transpose()?;
        let or_nothing = |value: Option<Value>| value.unwrap_or(Value::Null);
        let more = |products: f64, than: f64| rounded(100.0 * (products / than - 1.0));
        figures.tell(
            name,
            &[
                ("tokens", json!(tokens)),
                ("spread", json!(if spread == Spread::Uniform { "uniform" } else { "zipf" })),
                ("as", json!(if in_graph { "graph" } else { "launches" })),
                ("active", json!(active)),
                ("half us", rounded(half * 1e6)),
                ("products us", rounded(products * 1e6)),
                ("half of read %", percent(rate(bytes, half), ceilings.read)),
                ("products of read %", percent(rate(bytes, products), ceilings.read)),
                ("TFLOP/s", rounded(teraflops)),
                ("table %", or_nothing(in_order.map(|(with, without)| more(with, without)))),
                ("disorder %", or_nothing(in_order.map(|(_, without)| more(products, without)))),
                ("mma.sync us", or_nothing(plain.map(|plain| rounded(plain * 1e6)))),
                ("of mma.sync %", or_nothing(plain.map(|plain| percent(plain, products)))),
                ("cuBLAS us", or_nothing(cublas.as_ref().map(|cublas| rounded(cublas.each * 1e6)))),
                ("of cuBLAS %", or_nothing(cublas.as_ref().map(|cublas| percent(cublas.each, products)))),
                ("of dense %", or_nothing(cublas.as_ref().map(|cublas| percent(cublas.as_one, products)))),
                ("of 8192 %", or_nothing(ceilings.square.map(|square| percent(teraflops, square)))),
            ],
        );
        Ok(())
    }

    /// What the same products take of cuBLAS.
    fn by_cublas(&self, gauge: &Gauge, dense: &Dense<'_>, rows: &[usize]) -> Result<OfCublas> {
        let &Shape { hidden, intermediate, experts, layers, .. } = self.shape;
        let pairs: usize = rows.iter().sum();
        let (together, wide) = (pairs.min(DENSE_ROWS), hidden.max(2 * intermediate));
        let most = rows.iter().copied().max().unwrap_or(1).max(together);
        let matrix = 2 * 2 * hidden * intermediate;
        let weights = gauge.region((layers * experts * matrix).min(2 << 30))?;
        let (x, out) = (gauge.region(2 * most * wide)?, RefCell::new(gauge.region(2 * most * wide)?));
        let both = |rows: &[usize]| {
            let mut out = out.borrow_mut();
            let first = dense.products(rows, (2 * intermediate, hidden), (&weights, &x, &mut out), 3)?;
            Ok(first + dense.products(rows, (hidden, intermediate), (&weights, &x, &mut out), 3)?)
        };
        let each = least(2, || both(rows))?;
        let as_one = least(2, || both(&[together]))? * pairs as f64 / together as f64;
        Ok(OfCublas { each, as_one })
    }
}

/// Seconds of both products of a layer.
struct OfCublas {
    /// One product for each expert, one after the other.
    each: f64,
    /// One product for all rows, as if all had one expert: the dense rate in these shapes.
    as_one: f64,
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
