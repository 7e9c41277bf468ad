//! What a checkpoint's `config.json` says, in the styles of transformers 4 and 5. Every key is either used, known not to
//! change the computation, or refused by name: nothing is ignored. A key that is missing has the value that transformers gives it
//! in that family; shapes then have to fit. What a family is, its file in [`family`] says; everything else knows this description alone.

mod error;
mod family;
mod keys;
mod known;

use kernels::backend::{HeadShape, RouterShape};
use serde_json::Value;

pub use self::error::ConfigError;
pub use self::family::{TensorNames, registered_tokenizer};
use self::keys::ConfigKeys;
use super::json::{self, Document};

/// A model, whatever family it is of. Each part of it says what it is called in a checkpoint, so nothing is named that is not there.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// How many tokens the model knows.
    pub vocabulary: usize,
    /// Width of the residual stream.
    pub hidden: usize,
    /// Of every norm.
    pub norm_epsilon: f32,
    /// Positions that the model was made for.
    pub max_positions: usize,
    /// Whether the output matrix is the embedding.
    pub tied_embeddings: bool,
    /// Of every layer.
    pub attention: Attention,
    /// How positions turn queries and keys.
    pub rotary: Rotary,
    /// Of each layer, in order.
    pub layers: Vec<FeedForward>,
    /// Of every layer with experts.
    pub router: Router,
    /// Of every layer with experts.
    pub experts: Experts,
    /// What its other tensors are called.
    pub names: &'static TensorNames,
}

/// How tokens look at those before them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attention {
    /// Some query heads share each key and value head.
    Grouped(Grouped),
}

/// Attention with keys and values of its own for each group of query heads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grouped {
    /// Its heads.
    pub heads: HeadShape,
    /// What queries and keys are normed by before they are rotated.
    pub norm: HeadNorm,
    /// Projections to queries, keys and values.
    pub projections: Linear,
    /// Projection of what was attended to.
    pub output: Linear,
}

/// A norm of queries and keys, with the names of the one and the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadNorm {
    /// Of each head, all by the same weights.
    Each([&'static str; 2]),
}

/// A linear layer, stored in one part or several, whose outputs are one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Linear {
    /// Of each part; `.weight` or `.bias` follows.
    pub names: &'static [&'static str],
    /// Whether it has a bias.
    pub bias: bool,
}

/// An embedding of positions that rotates.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rotary {
    /// Of the frequencies: element pair `i` turns by `position / base^(2i / dimension)`.
    pub base: f64,
    /// Elements of each head that are rotated; even.
    pub dimension: usize,
}

/// What a layer does with each token after attention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FeedForward {
    /// One network for all tokens.
    Dense {
        /// Its name.
        name: &'static str,
        /// Its width within.
        intermediate: usize,
    },
    /// A router and experts.
    Sparse,
}

/// How experts are chosen: those with the largest softmax over all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Router {
    /// What gives each expert's logit.
    pub linear: Linear,
    /// Experts of each token.
    pub top_k: usize,
    /// Whether the weights of a token's experts are scaled to sum 1.
    pub normalise: bool,
}

/// The experts of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Experts {
    /// Logical experts.
    pub count: usize,
    /// Width within each.
    pub intermediate: usize,
    /// What they are called together: each after its number, or all fused.
    pub name: &'static str,
    /// Gate and up matrices of all, and their down matrices, where they are fused.
    pub fused: [&'static str; 2],
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
        let each = self.experts.count.saturating_mul(3).saturating_add(20);
        self.layers.len().saturating_mul(each).saturating_mul(4).saturating_add(1000).min(MOST)
    }

    /// Number of MoE layers.
    #[must_use]
    pub fn sparse_layers(&self) -> usize {
        self.layers.iter().filter(|layer| **layer == FeedForward::Sparse).count()
    }

    /// How its router chooses.
    #[must_use]
    pub const fn router_shape(&self) -> RouterShape {
        let Router { top_k, normalise, .. } = self.router;
        RouterShape { experts: self.experts.count, top_k, normalise }
    }

    /// Whether a tensor belongs to experts.
    #[must_use]
    pub fn is_of_an_expert(&self, tensor: &str) -> bool {
        let name = self.experts.name;
        let after = |(place, _)| tensor[..place].ends_with('.') && tensor[place + name.len()..].starts_with('.');
        tensor.match_indices(name).any(after)
    }
}
