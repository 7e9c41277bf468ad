//! Qwen3-MoE, in execution order: embedding, then for each layer attention and feed-forward, then the output matrix.
//! Attention runs on this rank's own tokens; experts run where the expert table says.

mod load;
mod pass;

use std::sync::Arc;
use std::time::Duration;

use kernels::Backend;
use kernels::backend::{CacheError, CacheShape, PageShape, Span, Write};
use plan::ids::{ExpertId, LayerId};
use thiserror::Error;

use self::load::{load_layer, rope_angles};
use self::pass::{Group, Pass};
use super::checkpoint::{Checkpoint, CheckpointError};
use super::config::Config;
use super::dispatch::{Dispatch, Token};
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
    /// If a tensor cannot be read, or there is no memory for the cache.
    ///
    /// # Panics
    /// If a cache block does not hold whole tiles.
    pub fn load(backend: Arc<B>, checkpoint: &Checkpoint, cache: CacheSize) -> Result<Self, LoadModelError> {
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
            caches: layers.iter().map(|_| backend.cache(shape)).collect::<Result<_, _>>()?,
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

/// Why a model could not be loaded.
#[derive(Debug, Error)]
pub enum LoadModelError {
    /// Its checkpoint.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// Its cache.
    #[error(transparent)]
    Cache(#[from] CacheError),
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
