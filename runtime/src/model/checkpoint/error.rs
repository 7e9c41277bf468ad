//! Why a checkpoint is refused.

use thiserror::Error;

use super::files::INDEX;
use crate::model::config::ConfigError;
use crate::model::folder::FileError;
use crate::quoted::Quoted;

/// Why a checkpoint is refused.
#[derive(Debug, Error)]
pub enum CheckpointError {
    /// A file cannot be had, or is something else.
    #[error(transparent)]
    File(#[from] FileError),
    /// A file is truncated or not what it claims to be.
    #[error("{file} is corrupt or truncated: {reason}")]
    Corrupt {
        /// The file.
        file: Quoted<40>,
        /// What is wrong.
        reason: Quoted<130>,
    },
    /// The configuration is refused.
    #[error("config.json: {0}")]
    Config(ConfigError),
    /// Weights are there in another form only, or not at all.
    #[error("the folder has no weights in transformers' safetensors form{}", other_form(.found.as_ref()))]
    NoWeights {
        /// A file with weights of another form.
        found: Option<Quoted>,
    },
    /// A file with weights has a name that nothing can name.
    #[error("the folder has a file with weights whose name, {file}, is no UTF-8 text: rename it")]
    NotText {
        /// Its name; bytes that are no text are shown as U+FFFD.
        file: Quoted,
    },
    /// A part of the weights has not come.
    #[error("there is no {file}, which {named_by} asks for: download the folder again, it is incomplete")]
    MissingFile {
        /// The file.
        file: Quoted<48>,
        /// The file that says so.
        named_by: Quoted<48>,
    },
    /// Weights of an adapter lie beside the model's.
    #[error("{file} is of an adapter (LoRA), and adapters are not applied: merge it into the model, or remove it")]
    Adapter {
        /// The file.
        file: Quoted,
    },
    /// A tensor is missing.
    #[error("tensor {tensor} is missing: no weight file has it, and config.json or the index asks for it")]
    Missing {
        /// Its name.
        tensor: Quoted,
    },
    /// A tensor is not part of the model.
    #[error("tensor {tensor} is not part of this model; ignoring it could give wrong answers")]
    Extra {
        /// Its name.
        tensor: Quoted,
    },
    /// Far more tensors than any such model has.
    #[error("{file} has more tensors than the {most} that are read of a model with this config.json")]
    TooMany {
        /// The file where the bound is passed.
        file: Quoted,
        /// The bound.
        most: usize,
    },
    /// A tensor is in two files.
    #[error("tensor {tensor} is in {first} and in {second}: remove the file that is not in use")]
    Duplicate {
        /// Its name.
        tensor: Quoted<56>,
        /// A file that has it.
        first: Quoted<40>,
        /// Another one.
        second: Quoted<40>,
    },
    /// A file and the index disagree.
    #[error("{index} does not name {file} for tensor {tensor}", index = INDEX)]
    Index {
        /// The tensor.
        tensor: Quoted,
        /// The file it was found in.
        file: Quoted,
    },
    /// A tensor has the wrong shape.
    #[error(
        "tensor {tensor} has shape {found}, but config.json asks for {expected} (keys that it lacks have the values of \
         transformers)"
    )]
    Shape {
        /// Its name.
        tensor: Quoted<56>,
        /// Its shape.
        found: Quoted<32>,
        /// The shape that the configuration gives.
        expected: Quoted<32>,
    },
    /// A tensor has a type that is not supported.
    #[error(
        "tensor {tensor} has type {found}, only BF16, F16 and F32 are supported: take the release with such weights"
    )]
    Type {
        /// Its name.
        tensor: Quoted,
        /// Its type.
        found: Quoted<24>,
    },
    /// A weight is no number, so no output would be.
    #[error("tensor {tensor} has a weight that is infinite or not a number, element {element}")]
    NotFinite {
        /// Its name.
        tensor: Quoted,
        /// Which element, in row-major order.
        element: usize,
    },
    /// The output matrix is stored, differs from the embedding, and is said to be tied to it.
    #[error("tie_word_embeddings is true, but lm_head.weight differs from model.embed_tokens.weight")]
    Untied,
}

fn other_form(found: Option<&Quoted>) -> String {
    match found {
        Some(found) => format!(", only {found}: take that form, as save_pretrained of transformers writes it"),
        None => " (*.safetensors): download it again".to_owned(),
    }
}

impl CheckpointError {
    /// Whether there are no weights, or not all files of them.
    #[must_use]
    pub const fn is_without_weights(&self) -> bool {
        matches!(self, Self::NoWeights { .. } | Self::MissingFile { .. })
    }

    /// Whether trying again is of no use until somebody changes the checkpoint.
    #[must_use]
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::File(error) => error.is_permanent(),
            // What is missing may still be on its way.
            Self::NoWeights { found: None } | Self::MissingFile { .. } => false,
            Self::NoWeights { found: Some(_) }
            | Self::NotText { .. }
            | Self::Corrupt { .. }
            | Self::Config(_)
            | Self::Adapter { .. }
            | Self::Missing { .. }
            | Self::Extra { .. }
            | Self::TooMany { .. }
            | Self::Duplicate { .. }
            | Self::Index { .. }
            | Self::Shape { .. }
            | Self::Type { .. }
            | Self::NotFinite { .. }
            | Self::Untied => true,
        }
    }
}
