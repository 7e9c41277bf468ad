//! What a rank reads of a checkpoint before it has any expert.

use std::sync::Arc;

use kernels::Backend;

use super::{FeedForward, Layer, LoadModelError};
use crate::model::checkpoint::Checkpoint;
use crate::model::config::{Config, LayerKind};
use crate::model::weights;

/// Reads layer `index` without its experts; `sparse` counts the MoE layers.
pub(super) fn load_layer<B: Backend>(
    backend: &Arc<B>,
    checkpoint: &Checkpoint,
    index: usize,
    sparse: &mut usize,
) -> Result<Layer<B>, LoadModelError> {
    let config = checkpoint.config();
    let (tensors, prefix) = (config.names, config.names.layer(index));
    let vector = |name: &str| weights::vector(&**backend, checkpoint, &format!("{prefix}.{name}.weight"));
    let linear = |names: &[&str], columns: usize| {
        let named = |kind: &str| names.iter().map(|name| format!("{prefix}.{name}.{kind}")).collect::<Vec<_>>();
        let biases = if config.attention_bias { named("bias") } else { Vec::new() };
        weights::linear(&**backend, checkpoint, &named("weight"), &biases, columns)
    };
    Ok(Layer {
        input_norm: vector(tensors.attention_norm)?,
        projections: linear(&tensors.projections, config.hidden)?,
        query_norm: vector(tensors.head_norms[0])?,
        key_norm: vector(tensors.head_norms[1])?,
        output: linear(&[tensors.output], config.heads.query_width())?,
        feed_forward_norm: vector(tensors.feed_forward_norm)?,
        feed_forward: match config.layers[index] {
            LayerKind::Dense => FeedForward::Dense(weights::dense(backend, checkpoint, index)?),
            LayerKind::Sparse => {
                let router = [format!("{prefix}.{}.weight", tensors.router)];
                *sparse += 1;
                FeedForward::Sparse(weights::linear(&**backend, checkpoint, &router, &[], config.hidden)?, *sparse - 1)
            }
        },
    })
}

/// `[positions, dimension]`: cosines, then sines, of `position / theta^(2i / dimension)`. The exponent, the power, its
/// inverse and the angle are each rounded to f32, as in the reference implementation: at position 30,000 one rounding
/// less turns a head by several thousandths.
pub(super) fn rope_angles(config: &Config, positions: usize) -> Vec<f32> {
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
