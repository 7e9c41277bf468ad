//! Qwen3-MoE, in execution order: embedding, then for each layer attention and feed-forward, then the output matrix.
//! Attention runs on this rank's own tokens; experts run where the expert table says.

use std::sync::Arc;
use std::time::{Duration, Instant};

use kernels::Backend;
use kernels::backend::{CacheShape, Choices, Groups, PageShape, Rotation, RouterShape, Span, Write};
use plan::ids::{ExpertId, LayerId};
use thiserror::Error;

use super::checkpoint::{Checkpoint, CheckpointError};
use super::config::{Config, LayerKind};
use super::dispatch::{Dispatch, Routed, Token};
use super::{sampling, weights};
use crate::experts::table::ExpertTable;
use crate::fabric::{Fabric, FabricError};
use crate::protocol::{SequenceOutput, SequenceStep};

/// Rows of logits that are held at once; a scored prompt may want many.
const LOGIT_ROWS: usize = 64;

/// A model on one rank: everything but the experts, and the KV cache of the rank's sequences.
pub struct Model<B: Backend> {
    backend: Arc<B>,
    config: Config,
    block_tokens: usize,
    blocks: usize,
    /// Most positions of a sequence.
    positions: usize,
    embedding: B::Lookup,
    layers: Vec<Layer<B>>,
    norm: B::Buffer<f32>,
    head: B::Matrix,
    angles: B::Buffer<f32>,
    /// Of each layer.
    caches: Vec<B::Cache>,
    scratch: Scratch<B>,
}

struct Layer<B: Backend> {
    input_norm: B::Buffer<f32>,
    /// Query, key and value projections, one below the other.
    projections: B::Matrix,
    query_norm: B::Buffer<f32>,
    key_norm: B::Buffer<f32>,
    output: B::Matrix,
    feed_forward_norm: B::Buffer<f32>,
    feed_forward: FeedForward<B>,
}

enum FeedForward<B: Backend> {
    Dense(Arc<B::Page>),
    /// The router, and the layer's number among MoE layers.
    Sparse(B::Matrix, LayerId),
}

/// Activations of a step.
struct Scratch<B: Backend> {
    hidden: B::Buffer<f32>,
    normed: B::Buffer<f32>,
    projected: B::Buffer<f32>,
    attended: B::Buffer<f32>,
    router: B::Buffer<f32>,
    experts: B::Buffer<u32>,
    weights: B::Buffer<f32>,
    results: B::Buffer<f32>,
    ones: B::Buffer<f32>,
    rows: B::Buffer<f32>,
    logits: B::Buffer<f32>,
    dispatch: Dispatch,
    tokens: Vec<Token>,
    ids: Vec<u32>,
    positions: Vec<u32>,
    /// 0, 1, 2, ...
    identity: Vec<u32>,
}

impl<B: Backend> Default for Scratch<B> {
    fn default() -> Self {
        Self {
            hidden: B::Buffer::default(),
            normed: B::Buffer::default(),
            projected: B::Buffer::default(),
            attended: B::Buffer::default(),
            router: B::Buffer::default(),
            experts: B::Buffer::default(),
            weights: B::Buffer::default(),
            results: B::Buffer::default(),
            ones: B::Buffer::default(),
            rows: B::Buffer::default(),
            logits: B::Buffer::default(),
            dispatch: Dispatch::default(),
            tokens: Vec::new(),
            ids: Vec::new(),
            positions: Vec::new(),
            identity: Vec::new(),
        }
    }
}

/// Where a forward pass spent time beside attention.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ForwardTiming {
    /// Waiting for and carrying rows of other ranks.
    pub exchange: Duration,
    /// Expert arithmetic.
    pub experts: Duration,
}

/// The group that a step's experts are spread over, as this rank sees it.
struct Group<'a, B: Backend> {
    table: &'a mut ExpertTable<B::Page>,
    fabric: &'a mut dyn Fabric,
    timing: ForwardTiming,
}

/// Size of a rank's KV cache.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheSize {
    /// Blocks.
    pub blocks: usize,
    /// Tokens of each; a multiple of [`kernels::backend::CACHE_TILE`].
    pub block_tokens: usize,
}

/// Shape of the pages that hold a checkpoint's experts.
#[must_use]
pub fn expert_shape(checkpoint: &Checkpoint) -> PageShape {
    weights::expert_shape(checkpoint)
}

/// Reads one expert from a checkpoint.
///
/// # Errors
/// If it cannot be read.
///
/// # Panics
/// If the model has no such layer.
pub fn load_expert<B: Backend>(
    backend: &B,
    checkpoint: &Checkpoint,
    layer: LayerId,
    expert: ExpertId,
) -> Result<B::Page, CheckpointError> {
    weights::expert(backend, checkpoint, layer, expert)
}

impl<B: Backend> Model<B> {
    /// Reads everything but the experts.
    ///
    /// # Errors
    /// If a tensor cannot be read.
    ///
    /// # Panics
    /// If a cache block does not hold whole tiles.
    pub fn load(backend: Arc<B>, checkpoint: &Checkpoint, cache: CacheSize) -> Result<Self, CheckpointError> {
        let config = checkpoint.config().clone();
        let mut sparse = 0;
        let mut layers = Vec::with_capacity(config.layers.len());
        for index in 0..config.layers.len() {
            layers.push(load_layer(&*backend, checkpoint, index, &mut sparse)?);
        }
        let embedding = checkpoint.tensor(weights::EMBEDDING)?;
        let head = if config.tied_embeddings { None } else { Some(checkpoint.tensor(weights::HEAD)?) };
        // A sequence never has more positions than the cache has places, whatever the configuration allows.
        let positions = config.max_positions.min(cache.blocks * cache.block_tokens);
        let shape = CacheShape { heads: config.heads, blocks: cache.blocks, block_tokens: cache.block_tokens };
        Ok(Self {
            block_tokens: cache.block_tokens,
            blocks: cache.blocks,
            positions,
            head: backend.matrix(head.as_ref().unwrap_or(&embedding).matrix(config.vocabulary), None),
            embedding: backend.lookup(embedding.matrix(config.vocabulary)),
            norm: weights::vector(&*backend, checkpoint, weights::NORM)?,
            angles: weights::buffer(&*backend, &rope_angles(&config, positions)),
            caches: layers.iter().map(|_| backend.cache(shape)).collect(),
            scratch: Scratch::default(),
            layers,
            config,
            backend,
        })
    }

    /// Its configuration.
    #[must_use]
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// The device that it is on.
    #[must_use]
    pub const fn backend(&self) -> &Arc<B> {
        &self.backend
    }

    /// Runs a step over this rank's sequences and chooses and scores tokens. Every rank of the group calls it for
    /// every step, with an empty batch if it has no sequence. Counts pairs in `table`.
    ///
    /// # Errors
    /// If the batch names tokens, positions or blocks that do not exist (nothing has been done then), or an exchange
    /// fails.
    pub fn step(
        &mut self,
        batch: &[SequenceStep],
        table: &mut ExpertTable<B::Page>,
        fabric: &mut dyn Fabric,
    ) -> Result<(Vec<SequenceOutput>, ForwardTiming), ForwardError> {
        let timing = self.forward(batch, table, fabric)?;
        let mut sampler = sampling::Outputs::new(batch);
        self.logits(&wanted(batch), |logits| sampler.take(logits));
        Ok((sampler.finish(), timing))
    }

    /// As [`Self::step`], but gives the logits of every token, `[tokens, vocabulary]`.
    ///
    /// # Errors
    /// As [`Self::step`].
    pub fn all_logits(
        &mut self,
        batch: &[SequenceStep],
        table: &mut ExpertTable<B::Page>,
        fabric: &mut dyn Fabric,
    ) -> Result<Vec<f32>, ForwardError> {
        self.forward(batch, table, fabric)?;
        let rows: Vec<u32> = (0..batch.iter().map(|step| step.tokens.len() as u32).sum()).collect();
        let mut all = Vec::with_capacity(rows.len() * self.config.vocabulary);
        self.logits(&rows, |logits| all.extend_from_slice(logits));
        Ok(all)
    }

    /// Leaves the last layer's output of every token in `scratch.hidden`.
    fn forward(
        &mut self,
        batch: &[SequenceStep],
        table: &mut ExpertTable<B::Page>,
        fabric: &mut dyn Fabric,
    ) -> Result<ForwardTiming, ForwardError> {
        self.check(batch)?;
        self.scratch.take_batch(batch);
        let spans: Vec<Span<'_>> = batch.iter().map(span).collect();
        let mut group = Group { table, fabric, timing: ForwardTiming::default() };
        let Self { backend, config, layers, caches, scratch, embedding, angles, .. } = self;
        let pass = Pass { backend: &**backend, config, angles };
        backend.embed(embedding, &scratch.ids, &mut scratch.hidden);
        for (layer, cache) in layers.iter().zip(caches) {
            pass.attention(layer, cache, &spans, scratch);
            backend.rms_norm(&scratch.hidden, &layer.feed_forward_norm, config.rms_epsilon, &mut scratch.normed);
            match &layer.feed_forward {
                FeedForward::Dense(page) => pass.dense(page, scratch),
                FeedForward::Sparse(router, number) => {
                    pass.route(router, scratch);
                    pass.experts(*number, &mut group, scratch)?;
                }
            }
        }
        Ok(group.timing)
    }

    /// Gives the logits of some tokens to `take`, one row after the other.
    fn logits(&mut self, rows: &[u32], mut take: impl FnMut(&[f32])) {
        let Self { backend, config, scratch, norm, head, .. } = self;
        let backend = &**backend;
        for rows in rows.chunks(LOGIT_ROWS) {
            backend.gather(&scratch.hidden, config.hidden, rows, &mut scratch.rows);
            backend.rms_norm(&scratch.rows, norm, config.rms_epsilon, &mut scratch.normed);
            backend.matmul(&scratch.normed, head, Write::Replace, &mut scratch.logits);
            backend.read(&scratch.logits).chunks_exact(config.vocabulary).for_each(&mut take);
        }
    }

    fn check(&self, batch: &[SequenceStep]) -> Result<(), ForwardError> {
        for step in batch {
            let end = step.position as usize + step.tokens.len();
            let wrong = |what, value: u64, limit: usize| {
                Err(ForwardError::Batch { sequence: step.sequence.0, what, value, limit: limit as u64 })
            };
            if let Some(token) = step.tokens.iter().find(|token| **token as usize >= self.config.vocabulary) {
                return wrong("token", u64::from(*token), self.config.vocabulary);
            }
            if end > self.positions {
                return wrong("position", end as u64 - 1, self.positions);
            }
            if end > step.blocks.len() * self.block_tokens {
                return wrong("position without a block", end as u64 - 1, step.blocks.len() * self.block_tokens);
            }
            if let Some(block) = step.blocks.iter().find(|block| **block as usize >= self.blocks) {
                return wrong("block", u64::from(*block), self.blocks);
            }
            if !step.score.is_empty() && step.score.len() != step.tokens.len() {
                return wrong("number of scores", step.score.len() as u64, step.tokens.len());
            }
            if let Some(token) = step.score.iter().flatten().find(|token| **token as usize >= self.config.vocabulary) {
                return wrong("token to score", u64::from(*token), self.config.vocabulary);
            }
        }
        Ok(())
    }
}

impl<B: Backend> Scratch<B> {
    fn take_batch(&mut self, batch: &[SequenceStep]) {
        self.tokens.clear();
        self.ids.clear();
        self.positions.clear();
        for step in batch {
            for (position, token) in (step.position..).zip(&step.tokens) {
                self.tokens.push(Token { sequence: step.sequence, position });
                self.ids.push(*token);
                self.positions.push(position);
            }
        }
        let known = self.identity.len();
        self.identity.extend(known as u32..self.ids.len().max(known) as u32);
    }
}

fn span(step: &SequenceStep) -> Span<'_> {
    Span { tokens: step.tokens.len(), position: step.position as usize, blocks: &step.blocks }
}

/// Rows whose logits a batch asks for, in the order of [`sampling::Outputs`].
fn wanted(batch: &[SequenceStep]) -> Vec<u32> {
    let mut rows = Vec::with_capacity(batch.len());
    let mut first = 0;
    for step in batch {
        rows.extend(
            (0..step.tokens.len()).filter(|index| sampling::wants(step, *index)).map(|index| first + index as u32),
        );
        first += step.tokens.len() as u32;
    }
    rows
}

fn load_layer<B: Backend>(
    backend: &B,
    checkpoint: &Checkpoint,
    index: usize,
    sparse: &mut usize,
) -> Result<Layer<B>, CheckpointError> {
    let config = checkpoint.config();
    let prefix = weights::prefix(index);
    let vector = |name: &str| weights::vector(backend, checkpoint, &format!("{prefix}.{name}.weight"));
    let linear = |names: &[&str], columns: usize| {
        let named = |kind: &str| names.iter().map(|name| format!("{prefix}.{name}.{kind}")).collect::<Vec<_>>();
        let biases = if config.attention_bias { named("bias") } else { Vec::new() };
        weights::linear(backend, checkpoint, &named("weight"), &biases, columns)
    };
    Ok(Layer {
        input_norm: vector("input_layernorm")?,
        projections: linear(&["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"], config.hidden)?,
        query_norm: vector("self_attn.q_norm")?,
        key_norm: vector("self_attn.k_norm")?,
        output: linear(&["self_attn.o_proj"], config.heads.query_width())?,
        feed_forward_norm: vector("post_attention_layernorm")?,
        feed_forward: match config.layers[index] {
            LayerKind::Dense => FeedForward::Dense(Arc::new(weights::dense(backend, checkpoint, index)?)),
            LayerKind::Sparse => {
                let router = [format!("{prefix}.mlp.gate.weight")];
                *sparse += 1;
                FeedForward::Sparse(
                    weights::linear(backend, checkpoint, &router, &[], config.hidden)?,
                    LayerId::from(*sparse - 1),
                )
            }
        },
    })
}

/// `[positions, dimension]`: cosines, then sines, of `position / theta^(2i / dimension)`. The exponent, the power, its
/// inverse and the angle are each rounded to f32, as in the reference implementation: at position 30,000 one rounding
/// less turns a head by several thousandths.
fn rope_angles(config: &Config, positions: usize) -> Vec<f32> {
    let dimension = config.heads.dimension;
    let frequency = |index: usize| {
        let exponent = (2 * index) as f32 / dimension as f32;
        1.0 / f64::from(config.rope_theta as f32).powf(f64::from(exponent)) as f32
    };
    let frequencies: Vec<f32> = (0..dimension / 2).map(frequency).collect();
    let mut angles = Vec::with_capacity(positions * dimension);
    for position in 0..positions {
        let angle = |frequency: &f32| f64::from(position as f32 * frequency);
        angles.extend(frequencies.iter().map(|frequency| angle(frequency).cos() as f32));
        angles.extend(frequencies.iter().map(|frequency| angle(frequency).sin() as f32));
    }
    angles
}

/// What every layer of a forward pass needs.
struct Pass<'a, B: Backend> {
    backend: &'a B,
    config: &'a Config,
    angles: &'a B::Buffer<f32>,
}

impl<B: Backend> Pass<'_, B> {
    /// Norm, projections, rotation, attention over the cache, output projection; added to `hidden`.
    fn attention(&self, layer: &Layer<B>, cache: &mut B::Cache, spans: &[Span<'_>], scratch: &mut Scratch<B>) {
        let Self { backend, config, angles } = *self;
        let Scratch { hidden, normed, projected, attended, positions, .. } = scratch;
        backend.rms_norm(hidden, &layer.input_norm, config.rms_epsilon, normed);
        backend.matmul(normed, &layer.projections, Write::Replace, projected);
        let rotation = Rotation {
            query_norm: &layer.query_norm,
            key_norm: &layer.key_norm,
            epsilon: config.rms_epsilon,
            angles,
            positions,
        };
        backend.rotate(projected, config.heads, &rotation);
        backend.store(cache, projected, spans);
        backend.attend(cache, projected, spans, attended);
        backend.matmul(attended, &layer.output, Write::Add, hidden);
    }

    /// One network for all tokens; added to `hidden`.
    fn dense(&self, page: &Arc<B::Page>, scratch: &mut Scratch<B>) {
        let Self { backend, config, .. } = *self;
        let Scratch { hidden, normed, results, ones, ids, identity, .. } = scratch;
        let rows = &identity[..ids.len()];
        backend.resize(ones, rows.len());
        backend.write(ones, 0, &vec![1.0; rows.len()]);
        backend.resize(results, rows.len() * config.hidden);
        let groups = Groups { starts: &[0, rows.len() as u32], rows };
        backend.feed_forward(std::slice::from_ref(page), groups, normed, results);
        backend.combine(results, Choices { rows, top_k: 1 }, ones, hidden);
    }

    /// Chooses the experts of every token.
    fn route(&self, router: &B::Matrix, scratch: &mut Scratch<B>) {
        let Config { experts, top_k, normalise_top_k, .. } = *self.config;
        let shape = RouterShape { experts, top_k, normalise: normalise_top_k };
        self.backend.matmul(&scratch.normed, router, Write::Replace, &mut scratch.router);
        self.backend.route(&scratch.router, shape, &mut scratch.experts, &mut scratch.weights);
    }

    /// Runs the chosen experts where they are and adds their weighted outputs to `hidden`.
    fn experts(&self, layer: LayerId, group: &mut Group<'_, B>, scratch: &mut Scratch<B>) -> Result<(), ForwardError> {
        let Self { backend, config, .. } = *self;
        let Group { table, fabric, timing } = group;
        let Scratch { hidden, normed, experts, weights, results, dispatch, tokens, .. } = scratch;
        let (ranks, slots, width) = (fabric.ranks(), table.shape().slots_per_rank, config.hidden);
        dispatch.begin(ranks, width);
        let routed = Routed { tokens, experts: &backend.read(experts), values: &backend.read(normed) };
        dispatch.choose(table, layer, routed);
        if ranks > 1 {
            let start = Instant::now();
            let mut len = tokens.len() * width;
            dispatch.exchange(*fabric, slots, |rows| append(backend, normed, &mut len, rows))?;
            timing.exchange += start.elapsed();
        }
        let start = Instant::now();
        let mut len = dispatch.pairs() * width;
        backend.resize(results, len);
        backend.feed_forward(table.pages(layer), dispatch.group(slots), normed, results);
        for slot in 0..slots {
            table.count(layer, slot.into(), dispatch.pairs_of(slot));
        }
        timing.experts += start.elapsed();
        if ranks > 1 {
            let start = Instant::now();
            dispatch.give_back(*fabric, &backend.read(results))?;
            dispatch.received(fabric.rank().index()).for_each(|rows| append(backend, results, &mut len, rows));
            timing.exchange += start.elapsed();
        }
        let rows = dispatch.results(fabric.rank().0);
        backend.combine(results, Choices { rows, top_k: config.top_k }, weights, hidden);
        Ok(())
    }
}

/// Puts rows behind the first `len` elements of a buffer.
fn append<B: Backend>(backend: &B, buffer: &mut B::Buffer<f32>, len: &mut usize, rows: &[f32]) {
    backend.resize(buffer, *len + rows.len());
    backend.write(buffer, *len, rows);
    *len += rows.len();
}

/// Why a step could not be run.
#[derive(Debug, Error)]
pub enum ForwardError {
    /// The batch is impossible: the coordinator has a mistake.
    #[error("sequence {sequence}: {what} {value} is out of range, the limit is {limit}")]
    Batch {
        /// The sequence.
        sequence: u64,
        /// What is wrong.
        what: &'static str,
        /// Its value.
        value: u64,
        /// The first value that is too large, or the number expected.
        limit: u64,
    },
    /// Rows could not be exchanged.
    #[error(transparent)]
    Fabric(#[from] FabricError),
}

#[cfg(test)]
mod tests;
