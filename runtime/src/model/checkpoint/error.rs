//! Why a checkpoint is refused.

use thiserror::Error;

use super::files::INDEX;
use crate::model::config::ConfigError;

/// Why a checkpoint is refused.
#[derive(Debug, Error)]
pub enum CheckpointError {
    /// A file cannot be read.
    #[error("failed to read {file} of the checkpoint")]
    Read {
        /// The file.
        file: String,
        /// What the system says.
        source: std::io::Error,
    },
    /// A file is truncated or not what it claims to be.
    #[error("{file} is corrupt or truncated: {reason}")]
    Corrupt {
        /// The file.
        file: String,
        /// What is wrong.
        reason: String,
    },
    /// The configuration is refused.
    #[error("the model's config.json is refused: {0}")]
    Config(ConfigError),
    /// A tensor is missing.
    #[error("tensor {tensor} is missing: no weight file has it, and config.json or the index asks for it")]
    Missing {
        /// Its name.
        tensor: String,
    },
    /// A tensor is not part of the model.
    #[error("tensor {tensor} is not part of this model; ignoring it could give wrong answers")]
    Extra {
        /// Its name.
        tensor: String,
    },
    /// A tensor is in two files.
    #[error("tensor {tensor} is in two files")]
    Duplicate {
        /// Its name.
        tensor: String,
    },
    /// A file and the index disagree.
    #[error("{index} does not name {file} for tensor {tensor}", index = INDEX)]
    Index {
        /// The tensor.
        tensor: String,
        /// The file it was found in.
        file: String,
    },
    /// A tensor has the wrong shape.
    #[error(
        "tensor {tensor} has shape {found:?}, but config.json (with transformers' values of the keys that it lacks) \
         asks for {expected:?}"
    )]
    Shape {
        /// Its name.
        tensor: String,
        /// Its shape.
        found: Vec<usize>,
        /// The shape that the configuration gives.
        expected: Vec<usize>,
    },
    /// A tensor has a type that is not supported.
    #[error("tensor {tensor} has type {found}, only BF16, F16 and F32 are supported")]
    Type {
        /// Its name.
        tensor: String,
        /// Its type.
        found: String,
    },
    /// A weight is no number, so no output would be.
    #[error("tensor {tensor} has a weight that is infinite or not a number, element {element}")]
    NotFinite {
        /// Its name.
        tensor: String,
        /// Which element, in row-major order.
        element: usize,
    },
    /// The output matrix is stored, differs from the embedding, and is said to be tied to it.
    #[error("tie_word_embeddings is true, but lm_head.weight differs from model.embed_tokens.weight")]
    Untied,
}

impl CheckpointError {
    /// Whether trying again is of no use until somebody changes the checkpoint.
    #[must_use]
    pub fn is_permanent(&self) -> bool {
        match self {
            // A file that is shorter than its own header says stays so.
            Self::Read { source, .. } => source.kind() == std::io::ErrorKind::UnexpectedEof,
            Self::Corrupt { .. }
            | Self::Config(_)
            | Self::Missing { .. }
            | Self::Extra { .. }
            | Self::Duplicate { .. }
            | Self::Index { .. }
            | Self::Shape { .. }
            | Self::Type { .. }
            | Self::NotFinite { .. }
            | Self::Untied => true,
        }
    }
}
