//! The one execution order, of every family: embedding, then for each layer attention and feed-forward, then the output matrix.
//! Attention runs on this rank's own tokens; experts run where the routing says.
//!
//! A step is three moves, all in [`Model::step`]: it is brought to the device (`prepare`), the whole pass is put on the queue
//! (`enqueue`), and what it gave is waited for (`collect`). Nothing in between is read by the host but what an exchange carries.

mod bucket;
mod cache;
mod error;
mod load;
mod pass;
mod workspace;

use std::sync::Arc;

use kernels::backend::{Backend, PageShape, Write};
use kernels::batch::MOST_BEST;
use kernels::routing::LayerRouting;
use kernels::times::StepTimes;
use kernels::{DeviceError, Page, Queue};
use plan::ids::{ExpertId, LayerId};

pub use self::cache::{Angles, KvCache};
pub use self::error::{ForwardError, LoadModelError, LoadPageError};
use self::load::load_layer;
pub(in crate::model) use self::pass::Pass;
pub use self::workspace::Workspace;
use super::attention::AttentionWeights;
use super::checkpoint::Checkpoint;
use super::config::Config;
use super::{sampling, weights};
use crate::fabric::exchange::Exchange;
use crate::protocol::{SequenceOutput, SequenceStep, SlotPairs, StepExtent};

/// Rows of logits that are held at once; a scored prompt may want many.
const LOGIT_ROWS: usize = 64;

/// Whoever is told of a step while it is made: a closure, of its place on the queue.
pub trait Watch<B: Backend> {
    /// It is on the queue, at this place, and is not waited for yet.
    fn enqueued(&mut self, place: B::Mark);

    /// Whether it takes the logits. Such a step is like no other.
    const READS_LOGITS: bool = false;

    /// The logits of what is asked are computed, of these rows.
    fn logits(&mut self, _queue: &B::Queue, _rows: &B::Buffer<f32>) {}
}

impl<B: Backend, F: FnMut(B::Mark)> Watch<B> for F {
    fn enqueued(&mut self, place: B::Mark) {
        self(place);
    }
}

/// A model on one rank: everything but the experts.
pub struct Model<B: Backend> {
    backend: Arc<B>,
    queue: B::Queue,
    config: Config,
    embedding: B::Lookup,
    layers: Vec<Layer<B>>,
    norm: B::Buffer<f32>,
    head: B::Matrix,
}

struct Layer<B: Backend> {
    attention_norm: B::Buffer<f32>,
    attention: AttentionWeights<B>,
    feed_forward_norm: B::Buffer<f32>,
    feed_forward: FeedForward<B>,
}

enum FeedForward<B: Backend> {
    Dense(Page<B>),
    /// The router, and the layer's number among MoE layers.
    Sparse(B::Matrix, usize),
}

/// What a rank computes in a step.
#[derive(Clone, Debug)]
pub struct StepInput<'a> {
    /// Its sequences, of which it may have none: every rank of a group takes part in every step.
    pub batch: &'a [SequenceStep],
    /// The routing of the layers where that changes before the step.
    pub changes: Vec<LayerRouting>,
    /// The same on all ranks.
    pub extent: StepExtent,
}

impl<'a> StepInput<'a> {
    /// A step of a rank that is alone, or of ranks that all have as much.
    #[must_use]
    pub fn alone(batch: &'a [SequenceStep], changes: Vec<LayerRouting>) -> Self {
        Self { batch, changes, extent: StepExtent::of_rank(batch.iter().map(|step| step.tokens.len())) }
    }
}

/// What a step gave.
#[derive(Clone, Debug, PartialEq)]
pub struct StepOutcome {
    /// One for each sequence of the batch, in its order.
    pub outputs: Vec<SequenceOutput>,
    /// What this rank computed in each of its slots.
    pub slot_pairs: SlotPairs,
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

/// Reads one expert from a checkpoint into a page.
///
/// # Errors
/// If it cannot be read, or the device does not take it.
///
/// # Panics
/// If the model has no such layer.
pub fn load_expert<B: Backend>(
    checkpoint: &Checkpoint,
    layer: LayerId,
    expert: ExpertId,
    page: &mut Page<B>,
) -> Result<(), LoadPageError> {
    weights::expert(checkpoint, layer, expert, page)
}

impl<B: Backend> Model<B> {
    /// Reads everything but the experts. What it gives belongs to the calling thread, as its queue does.
    ///
    /// # Errors
    /// If a tensor cannot be read, or the device has no memory for it.
    pub fn load(backend: Arc<B>, checkpoint: &Checkpoint) -> Result<Self, LoadModelError> {
        let config = checkpoint.config().clone();
        let mut sparse = 0;
        let mut layers = Vec::with_capacity(config.layers.len());
        for index in 0..config.layers.len() {
            layers.push(load_layer(&backend, checkpoint, index, &mut sparse)?);
        }
        let (rows, names) = (config.vocabulary, config.names);
        let stored = checkpoint.tensor(names.embedding)?;
        let embedding = backend.lookup(stored.matrix(rows))?;
        let tied = if config.tied_embeddings { Some(backend.matrix(stored.matrix(rows), None)?) } else { None };
        // Its memory is what the output matrix is read into.
        drop(stored);
        let head = match tied {
            Some(head) => head,
            None => backend.matrix(checkpoint.tensor(names.head)?.matrix(rows), None)?,
        };
        Ok(Self {
            head,
            embedding,
            norm: weights::vector(&*backend, checkpoint, names.norm)?,
            queue: backend.queue()?,
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

    /// A whole step; `watch` is told of it on the way.
    ///
    /// # Errors
    /// If the batch is larger than the workspace, or than the step is said to be on any rank, or names tokens, positions or blocks that do
    /// not exist, when nothing has been done; if an exchange fails; or if the device did since the last step.
    pub fn step<W: Watch<B>>(
        &mut self,
        input: StepInput<'_>,
        workspace: &mut Workspace<B>,
        exchange: &mut dyn Exchange<B>,
        mut watch: W,
    ) -> Result<(StepOutcome, StepTimes), ForwardError> {
        let batch = input.batch;
        self.prepare(input, workspace, exchange, W::READS_LOGITS)?;
        if let Err(error) = self.enqueue(workspace, exchange, &mut watch) {
            return Err(self.abandon(error, workspace));
        }
        watch.enqueued(self.queue.mark());
        let collected = self.collect(batch, workspace);
        match (exchange.end(), collected) {
            // Where a rank was given up the device failed for want of its rows, unless it is lost itself.
            (Err(error), Ok(_)) => Err(error.into()),
            (Err(error), Err(failed)) if failed.is_worth_a_retry() => Err(error.into()),
            (_, collected) => Ok(collected?),
        }
    }

    /// Puts a step where the device gets it from. One on whose way the host does something is like no other: it reads the logits, or
    /// carries rows to other ranks.
    fn prepare(
        &self,
        StepInput { batch, changes, extent }: StepInput<'_>,
        workspace: &mut Workspace<B>,
        exchange: &dyn Exchange<B>,
        is_read: bool,
    ) -> Result<(), ForwardError> {
        self.check(batch, workspace)?;
        let (own, most) = (StepInput::alone(batch, Vec::new()).extent, workspace.limits.tokens);
        check_extent(batch, (own, extent), most)?;
        workspace.fill(batch, changes);
        let has_host = is_read || exchange.ranks() > 1 && !exchange.is_on_device();
        let shared = if exchange.is_uniform() { extent } else { own };
        workspace.area.bucket = if has_host { None } else { bucket::of(shared, most) };
        workspace.padded = bucket::padded(extent.tokens as usize, most);
        sampling::ask(batch, &mut workspace.area.asked);
        workspace.upload(&self.queue);
        Ok(())
    }

    /// Puts a prepared step on the queue: as it was put there before, where it is like others. The exchange's step begins with it.
    fn enqueue(
        &mut self,
        workspace: &mut Workspace<B>,
        exchange: &mut dyn Exchange<B>,
        watch: &mut impl Watch<B>,
    ) -> Result<(), ForwardError> {
        exchange.begin(workspace.padded);
        let Some(tokens) = workspace.area.bucket else { return self.pass(workspace, exchange, watch) };
        let again = |workspace: &mut Workspace<B>| self.pass(workspace, exchange, watch);
        let refused = self.queue.repeat(tokens, workspace, |workspace| &mut workspace.batch, again)?;
        if let Some(error) = refused {
            tracing::warn!(tokens, %error, "steps of so many sequences are asked of the device operation by operation");
        }
        Ok(())
    }

    fn pass(
        &self,
        workspace: &mut Workspace<B>,
        exchange: &mut dyn Exchange<B>,
        watch: &mut impl Watch<B>,
    ) -> Result<(), ForwardError> {
        workspace.begin(&self.queue);
        self.layers(workspace, exchange)?;
        self.logits(workspace, watch);
        workspace.finish(&self.queue);
        Ok(())
    }

    /// Waits for what a step gave, of the batch that was prepared, and how long the device was at what.
    fn collect(
        &self,
        batch: &[SequenceStep],
        workspace: &Workspace<B>,
    ) -> Result<(StepOutcome, StepTimes), DeviceError> {
        let collected = self.queue.collect(&workspace.batch, &workspace.slots)?;
        let outputs = sampling::outputs(batch, self.config.vocabulary, &collected);
        Ok((StepOutcome { outputs, slot_pairs: SlotPairs::from(&*collected.pairs) }, collected.times))
    }

    /// What became of a step of which not all is on the queue: what the device failed with belongs to it, not to the next.
    fn abandon(&self, error: ForwardError, workspace: &Workspace<B>) -> ForwardError {
        let collected = self.queue.collect(&workspace.batch, &workspace.slots);
        collected.err().map_or(error, ForwardError::Device)
    }

    /// Leaves the last layer's output of every token in `workspace.hidden`.
    fn layers(&self, workspace: &mut Workspace<B>, exchange: &mut dyn Exchange<B>) -> Result<(), ForwardError> {
        let Self { queue, config, layers, embedding, .. } = self;
        let mut pass = Pass { queue, config, exchange };
        queue.embed(embedding, &workspace.batch, &mut workspace.hidden);
        for (number, layer) in layers.iter().enumerate() {
            queue.rms_norm(&workspace.hidden, &layer.attention_norm, config.norm_epsilon, &mut workspace.normed);
            layer.attention.enqueue(&pass, number, workspace);
            queue.rms_norm(&workspace.hidden, &layer.feed_forward_norm, config.norm_epsilon, &mut workspace.normed);
            match &layer.feed_forward {
                FeedForward::Dense(page) => {
                    queue.feed_forward(page.weights(), &workspace.normed, &mut workspace.hidden);
                }
                FeedForward::Sparse(router, number) => pass.experts(router, *number, workspace)?,
            }
        }
        Ok(())
    }

    /// Answers what is asked of logits, some rows at a time.
    fn logits<W: Watch<B>>(&self, workspace: &mut Workspace<B>, watch: &mut W) {
        let Self { queue, config, norm, head, .. } = self;
        let Workspace { area, batch, hidden, normed, rows, logits, .. } = workspace;
        let most = area.most_asked();
        for first in (0..most).step_by(LOGIT_ROWS) {
            let asked = first..most.min(first + LOGIT_ROWS);
            queue.gather(hidden, batch, asked.clone(), rows);
            queue.rms_norm(rows, norm, config.norm_epsilon, normed);
            queue.matmul(normed, head, Write::Replace, logits);
            if W::READS_LOGITS {
                watch.logits(queue, logits);
            }
            queue.sample(logits, asked, batch);
        }
    }

    fn check(&self, batch: &[SequenceStep], workspace: &Workspace<B>) -> Result<(), ForwardError> {
        let (mut tokens, mut blocks) = (0, 0);
        let KvCache { positions, size: CacheSize { blocks: places, block_tokens }, .. } = workspace.cache;
        for step in batch {
            let end = step.position as usize + step.tokens.len();
            let wrong = |what, value: u64, limit: usize| {
                Err(ForwardError::Batch { sequence: step.sequence.0, what, value, limit: limit as u64 })
            };
            (tokens, blocks) = (tokens + step.tokens.len(), blocks + step.blocks.len());
            if tokens > workspace.limits.tokens {
                return wrong("number of tokens of the step", tokens as u64, workspace.limits.tokens);
            }
            if blocks > workspace.limits.blocks {
                return wrong("number of blocks of the step", blocks as u64, workspace.limits.blocks);
            }
            if step.top_logprobs as usize > MOST_BEST {
                return wrong("number of best tokens", u64::from(step.top_logprobs), MOST_BEST);
            }
            if let Some(token) = step.tokens.iter().find(|token| **token as usize >= self.config.vocabulary) {
                return wrong("token", u64::from(*token), self.config.vocabulary);
            }
            if end > positions {
                return wrong("position", end as u64 - 1, positions);
            }
            if end > step.blocks.len() * block_tokens {
                return wrong("position without a block", end as u64 - 1, step.blocks.len() * block_tokens);
            }
            if let Some(block) = step.blocks.iter().find(|block| **block as usize >= places) {
                return wrong("block", u64::from(*block), places);
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

/// That a rank's part of a step is no larger than the step is said to be where it is largest, and that no larger than it may be.
fn check_extent(
    batch: &[SequenceStep],
    (own, extent): (StepExtent, StepExtent),
    most: usize,
) -> Result<(), ForwardError> {
    let sequence = batch.first().map_or(0, |step| step.sequence.0);
    for (what, value, limit) in [
        ("number of tokens of the step on this rank", own.tokens, extent.tokens),
        ("number of tokens of a sequence of the step", own.tokens_of_sequence, extent.tokens_of_sequence),
        ("number of tokens of the step on any rank", extent.tokens, most as u32),
    ] {
        if value > limit {
            return Err(ForwardError::Batch { sequence, what, value: value.into(), limit: limit.into() });
        }
    }
    Ok(())
}
