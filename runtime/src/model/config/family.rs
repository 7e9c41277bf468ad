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
    /// The tokenizer class that transformers has registered for it, which counts where a checkpoint names none.
    pub tokenizer_class: &'static str,
    /// Takes its keys; what is left over then is refused.
    pub describe: fn(&mut ConfigKeys) -> Result<Config, ConfigError>,
}

/// What the tensors of a family are called that every model has. Those of a layer come after its own name and are followed by
/// `.weight`.
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
    /// The norm before feed-forward.
    pub feed_forward_norm: &'static str,
    /// Gate, up and down matrices of a network, be it a dense layer's or an expert's.
    pub network: [&'static str; 3],
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
}

/// The tokenizer class that transformers has registered for models of this `model_type`, if they are served.
#[must_use]
pub fn registered_tokenizer(model_type: &str) -> Option<&'static str> {
    FAMILIES.iter().find(|family| family.model_type == model_type).map(|family| family.tokenizer_class)
}

/// What is served, for people.
pub(super) fn all() -> String {
    let names: Vec<String> =
        FAMILIES.iter().map(|one| format!("\"{}\" with [\"{}\"]", one.model_type, one.architecture)).collect();
    names.join(", ")
}
