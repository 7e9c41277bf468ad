//! The families of models that are served. Each is data in a file of its own: the keys of its `config.json` with what is usual where
//! one is missing, the values that are fixed, and what its tensors are called. Nothing else knows of any family.

mod qwen3_moe;

use super::keys::ConfigKeys;
use super::known::Fixed;
use super::{Config, ConfigError};

/// All of them.
pub(super) const FAMILIES: &[&Family] = &[&qwen3_moe::FAMILY];

/// See the module's documentation.
pub(super) struct Family {
    /// The `model_type` of its configurations.
    pub model_type: &'static str,
    /// The only name in their `architectures`.
    pub architecture: &'static str,
    /// Keys of which one value is supported, beside those of every family.
    pub fixed: &'static [Fixed],
    /// Takes its keys; what is left over then is refused.
    pub describe: fn(&mut ConfigKeys) -> Result<Config, ConfigError>,
}

/// What the tensors of a family are called. Those of a layer come after its own name; but for the fused ones they are followed by
/// `.weight` or `.bias`.
#[derive(Debug, PartialEq, Eq)]
pub struct TensorNames {
    /// The vectors of tokens, whole.
    pub embedding: &'static str,
    /// The output matrix, whole.
    pub head: &'static str,
    /// The last norm, whole.
    pub norm: &'static str,
    /// What the names of layers begin with, before their numbers.
    pub layers: &'static str,
    /// The norm before attention.
    pub attention_norm: &'static str,
    /// Projections to queries, keys and values.
    pub projections: [&'static str; 3],
    /// Projection of what was attended to.
    pub output: &'static str,
    /// Norms of each query and key head.
    pub head_norms: [&'static str; 2],
    /// The norm before feed-forward.
    pub feed_forward_norm: &'static str,
    /// A dense layer's network.
    pub dense: &'static str,
    /// The router.
    pub router: &'static str,
    /// Experts: each after its number, or all fused.
    pub experts: &'static str,
    /// A network's gate, up and down matrices.
    pub network: [&'static str; 3],
    /// Gate and up matrices of all experts, and their down matrices, where they are fused.
    pub fused: [&'static str; 2],
    /// What is stored in old checkpoints and follows from the configuration.
    pub derived: &'static str,
}

impl TensorNames {
    /// What the names of a layer's tensors begin with.
    #[must_use]
    pub fn layer(&self, layer: usize) -> String {
        format!("{}.{layer}", self.layers)
    }

    /// Whether a tensor is no weight: old checkpoints hold what follows from the configuration.
    #[must_use]
    pub fn is_derived(&self, name: &str) -> bool {
        name.ends_with(self.derived)
    }

    /// Whether a tensor belongs to experts.
    #[must_use]
    pub fn is_of_an_expert(&self, name: &str) -> bool {
        let after = |(place, _)| name[..place].ends_with('.') && name[place + self.experts.len()..].starts_with('.');
        name.match_indices(self.experts).any(after)
    }
}

/// What is served, for people.
pub(super) fn all() -> String {
    let names: Vec<String> =
        FAMILIES.iter().map(|one| format!("\"{}\" with [\"{}\"]", one.model_type, one.architecture)).collect();
    names.join(", ")
}
