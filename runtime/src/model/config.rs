//! What a checkpoint's `config.json` says, in the styles of transformers 4 and 5. Every key is either used, known not to
//! change the computation, or refused by name: nothing is ignored. A key that is missing has the value that transformers gives it
//! in that family; shapes then have to fit. What a family is, its file in [`family`] says; everything else knows this description alone.

mod error;
mod family;
mod keys;
mod known;

use kernels::backend::HeadShape;
use serde_json::Value;

pub use self::error::ConfigError;
pub use self::family::TensorNames;
use self::keys::ConfigKeys;
use super::json::{self, Document};

/// A model, whatever family it is of.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// How many tokens the model knows.
    pub vocabulary: usize,
    /// Width of the residual stream.
    pub hidden: usize,
    /// Attention heads.
    pub heads: HeadShape,
    /// Whether the attention projections have biases.
    pub attention_bias: bool,
    /// Of every norm.
    pub rms_epsilon: f32,
    /// Base of the rotary embedding.
    pub rope_theta: f64,
    /// Positions that the model was made for.
    pub max_positions: usize,
    /// Whether the output matrix is the embedding.
    pub tied_embeddings: bool,
    /// Of each layer, in order.
    pub layers: Vec<LayerKind>,
    /// Width within a dense layer's feed-forward; 0 if there is no dense layer.
    pub dense_intermediate: usize,
    /// Logical experts of each MoE layer.
    pub experts: usize,
    /// Experts of each token.
    pub top_k: usize,
    /// Whether the weights of a token's experts are scaled to sum 1.
    pub normalise_top_k: bool,
    /// Width within an expert.
    pub expert_intermediate: usize,
    /// What its tensors are called.
    pub names: &'static TensorNames,
}

/// What a layer's feed-forward is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LayerKind {
    /// One network for all tokens.
    Dense,
    /// A router and experts.
    Sparse,
}

impl Config {
    /// Reads `config.json`. Another family is told before anything else is.
    ///
    /// # Errors
    /// If it is no JSON object, of another architecture, lacks a key, has a value out of range, or asks for something
    /// that is not supported; the error names the key and the value.
    pub fn from_json(json: &[u8]) -> Result<Self, ConfigError> {
        let Document { value, twice } =
            json::parse(json).map_err(|error| ConfigError::Json { reason: error.to_string().into() })?;
        let Value::Object(object) = value else {
            return Err(ConfigError::Json { reason: "it is another JSON value".into() });
        };
        let mut keys = ConfigKeys::of(object);
        let family = keys.family()?;
        if let Some(key) = twice {
            return Err(ConfigError::Twice { key: key.into() });
        }
        keys.quantization()?;
        keys.features(family.fixed)?;
        let config = (family.describe)(&mut keys)?;
        keys.none_left()?;
        Ok(config)
    }

    /// More tensors than any way to store such a model has: its own in the finest form, some times over, so that one
    /// tensor too many is still told by its name.
    pub(super) fn most_tensors(&self) -> usize {
        const MOST: usize = 1_000_000;
        let each = self.experts.saturating_mul(3).saturating_add(20);
        self.layers.len().saturating_mul(each).saturating_mul(4).saturating_add(1000).min(MOST)
    }

    /// Number of MoE layers.
    #[must_use]
    pub fn sparse_layers(&self) -> usize {
        self.layers.iter().filter(|kind| **kind == LayerKind::Sparse).count()
    }
}

#[cfg(test)]
mod tests;
