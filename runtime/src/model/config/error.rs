//! Why a configuration is refused.

use plan::words::counted;
use thiserror::Error;

use super::family;
use crate::quoted::Quoted;

/// Why a configuration is refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ConfigError {
    /// It is no JSON object.
    #[error("it is no JSON object: {reason}")]
    Json {
        /// What the parser says.
        reason: Quoted<100>,
    },
    /// It is another model.
    #[error("model_type {model_type} with architectures {architectures} is not supported; only {} is", family::all())]
    Architecture {
        /// `model_type`.
        model_type: Quoted<40>,
        /// `architectures`.
        architectures: Quoted<48>,
    },
    /// A key is there twice, and readers differ in which counts.
    #[error("{key} is there twice: keep one")]
    Twice {
        /// The key.
        key: Quoted,
    },
    /// Weights are quantized.
    #[error(
        "{key} says that weights are quantized by {method}, which is not supported: take the release with BF16 weights"
    )]
    Quantized {
        /// The key that says so.
        key: &'static str,
        /// The method's name, or what there is of it.
        method: Quoted,
    },
    /// It asks for something that is not supported.
    #[error("{key} = {value} is not supported, only {supported}")]
    Unsupported {
        /// The key.
        key: &'static str,
        /// Its value.
        value: Quoted,
        /// What it could be.
        supported: &'static str,
    },
    /// A key is not known, so it might change the computation.
    #[error("{key} = {value}: this key is not known, and so neither is whether ignoring it would give wrong answers")]
    Unknown {
        /// The key.
        key: Quoted<40>,
        /// Its value.
        value: Quoted<48>,
    },
    /// A value is impossible.
    #[error("{key} = {value}, expected {expected}")]
    Range {
        /// The key.
        key: &'static str,
        /// Its value.
        value: Quoted,
        /// What it should be.
        expected: String,
    },
    /// Two keys disagree.
    #[error("{keys} disagree: {values}")]
    Contradiction {
        /// The keys.
        keys: &'static str,
        /// Their values.
        values: Quoted<100>,
    },
    /// More experts for each token than there are.
    #[error("num_experts_per_tok = {top_k} is more than {}, all that there are", counted(*experts, "expert"))]
    TopK {
        /// Experts of each token.
        top_k: usize,
        /// Experts.
        experts: usize,
    },
    /// Query heads cannot be shared out.
    #[error("num_attention_heads = {query} is no multiple of num_key_value_heads = {key_value}")]
    Heads {
        /// Query heads.
        query: usize,
        /// Key and value heads.
        key_value: usize,
    },
    /// There is nothing to balance.
    #[error(
        "no layer has experts (num_experts, num_hidden_layers, decoder_sparse_step, mlp_only_layers): this is no MoE model"
    )]
    NoSparseLayer,
}
