//! Attention of a layer: which tensors it has, its weights on a device, and what it does with a step's tokens.

use kernels::backend::{Backend, CacheShape, HeadShape, Write};
use kernels::queue::{Queue, Rotation};
use kernels::tensor::WeightKind;

use super::checkpoint::{Checkpoint, CheckpointError};
use super::config::{Attention, Config, Grouped, HeadNorm};
use super::forward::{CacheSize, KvCache, LoadModelError, Pass, Workspace};
use super::weights::{self, Expect};

/// The weights of a layer's attention.
pub(super) struct AttentionWeights<B: Backend> {
    /// Query, key and value projections, one below the other.
    projections: B::Matrix,
    query_norm: B::Buffer<f32>,
    key_norm: B::Buffer<f32>,
    output: B::Matrix,
}

/// The heads of every layer.
pub(super) const fn heads(config: &Config) -> HeadShape {
    let Attention::Grouped(Grouped { heads, .. }) = config.attention;
    heads
}

/// What every layer caches.
#[must_use]
pub fn cache_shape(config: &Config, cache: CacheSize) -> CacheShape {
    CacheShape { heads: heads(config), blocks: cache.blocks, block_tokens: cache.block_tokens, kind: WeightKind::F32 }
}

/// Gives `add` the name and the shape of every tensor of a layer, until it refuses one.
pub(super) fn expect(config: &Config, layer: &str, add: &mut Expect<'_>) -> Result<(), CheckpointError> {
    let Attention::Grouped(Grouped { heads, norm, projections, output }) = config.attention;
    let (query, key_value) = (heads.query_width(), heads.key_value * heads.dimension);
    weights::expect_linear(layer, projections, (&[query, key_value, key_value], config.hidden), add)?;
    weights::expect_linear(layer, output, (&[config.hidden], query), add)?;
    let HeadNorm::Each(names) = norm;
    for name in names {
        add(format!("{layer}.{name}.weight"), &[heads.dimension])?;
    }
    Ok(())
}

impl<B: Backend> AttentionWeights<B> {
    /// Reads those of a layer.
    pub fn load(backend: &B, checkpoint: &Checkpoint, layer: &str) -> Result<Self, LoadModelError> {
        let config = checkpoint.config();
        let Attention::Grouped(Grouped { heads, norm, projections, output }) = config.attention;
        let HeadNorm::Each([query_norm, key_norm]) = norm;
        let vector = |name: &str| weights::vector(backend, checkpoint, &format!("{layer}.{name}.weight"));
        Ok(Self {
            projections: weights::linear(backend, checkpoint, (layer, projections), config.hidden)?,
            query_norm: vector(query_norm)?,
            key_norm: vector(key_norm)?,
            output: weights::linear(backend, checkpoint, (layer, output), heads.query_width())?,
        })
    }

    /// Projections of what is normed, rotation, attention over the cache, output projection; added to `hidden`.
    pub fn enqueue(&self, &Pass { queue, config, .. }: &Pass<'_, B>, layer: usize, workspace: &mut Workspace<B>) {
        let Workspace { batch, cache: KvCache { angles, layers, .. }, hidden, normed, projected, attended, .. } =
            workspace;
        let cache = &mut layers[layer];
        queue.matmul(normed, &self.projections, Write::Replace, projected);
        let rotation = Rotation {
            heads: heads(config),
            query_norm: &self.query_norm,
            key_norm: &self.key_norm,
            epsilon: config.norm_epsilon,
            angles: &**angles,
        };
        queue.rotate(projected, batch, &rotation);
        queue.store(cache, projected, batch);
        queue.attend(cache, projected, batch, attended);
        queue.matmul(attended, &self.output, Write::Add, hidden);
    }
}
