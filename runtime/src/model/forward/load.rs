//! What a rank reads of a checkpoint before it has any expert.

use std::sync::Arc;

use kernels::Backend;

use super::{FeedForward, Layer, LoadModelError};
use crate::model::attention::AttentionWeights;
use crate::model::checkpoint::Checkpoint;
use crate::model::config::FeedForward as Kind;
use crate::model::weights;

/// Reads layer `index` without its experts; `sparse` counts the MoE layers.
pub(super) fn load_layer<B: Backend>(
    backend: &Arc<B>,
    checkpoint: &Checkpoint,
    index: usize,
    sparse: &mut usize,
) -> Result<Layer<B>, LoadModelError> {
    let config = checkpoint.config();
    let (names, layer) = (config.names, config.names.layer(index));
    let vector = |name: &str| weights::vector(&**backend, checkpoint, &format!("{layer}.{name}.weight"));
    Ok(Layer {
        attention_norm: vector(names.attention_norm)?,
        attention: AttentionWeights::load(&**backend, checkpoint, &layer)?,
        feed_forward_norm: vector(names.feed_forward_norm)?,
        feed_forward: match config.layers[index] {
            Kind::Dense { name, intermediate } => {
                FeedForward::Dense(weights::dense(backend, checkpoint, &format!("{layer}.{name}"), intermediate)?)
            }
            Kind::Sparse => {
                let router = weights::linear(&**backend, checkpoint, (&layer, config.router.linear), config.hidden)?;
                *sparse += 1;
                FeedForward::Sparse(router, *sparse - 1)
            }
        },
    })
}
