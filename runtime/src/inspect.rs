//! What a folder holds, or why it cannot be served: what a start checks of it, by the same code, and the weights beside
//! it, which only ranks read. Starts nothing.

use std::path::Path;
use std::sync::Arc;

use plan::wire::ModelIdentity;
use serde::Serialize;

use crate::coordinator::settings::{SettingsError, folder_name, load_texts, open_checkpoint};
use crate::quoted::Quoted;
use crate::server::ModelLimits;

/// What a folder holds.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Which model it is.
    pub model: ModelIdentity,
    /// Tokens of prompt and answer together that it was made for.
    pub max_model_len: usize,
    /// Number of weights.
    pub parameters: u64,
    /// Bytes of all weights on disk.
    pub bytes: u64,
    /// The files that hold them.
    pub weight_files: Vec<String>,
    /// How far they were checked.
    pub weights: WeightCheck,
    /// Tokens that exist.
    pub vocabulary: usize,
    /// Tokens that end an answer.
    pub end_tokens: Arc<[u32]>,
    /// How tokens are chosen where a request does not say.
    pub sampling: Sampling,
    /// Whether it can chat.
    pub chat: Chat,
}

/// How far weights were checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum WeightCheck {
    /// Every tensor is there, of its shape and type; no weight was read.
    NamesAndShapes,
    /// Every weight was read, and is a finite number.
    EveryWeight,
}

/// How tokens are chosen where a request does not say.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Sampling {
    /// 0 is greedy.
    pub temperature: f32,
    /// 1 is off.
    pub top_p: f32,
    /// 0 is off.
    pub top_k: u32,
}

/// Whether chats are served.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Chat {
    /// Whether there is a template that can be used.
    pub served: bool,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Checks all that a coordinator checks of a folder, and with `reads_weights` all that its ranks find together.
///
/// # Errors
/// What a start with this folder says.
pub fn inspect(folder: &Path, reads_weights: bool) -> Result<Report, SettingsError> {
    let checkpoint = open_checkpoint(folder)?;
    let (name, config) = (folder_name(folder), checkpoint.config());
    let limits = ModelLimits { max_model_len: config.max_positions, vocab_size: config.vocabulary };
    let served = load_texts(folder, name.clone(), &limits, 0)?;
    let mut weights = WeightCheck::NamesAndShapes;
    if reads_weights {
        let refused = |source| SettingsError::Checkpoint { path: Quoted::path(folder), source };
        checkpoint.check_weights().map_err(refused)?;
        weights = WeightCheck::EveryWeight;
    }
    let sampling = served.defaults;
    Ok(Report {
        model: checkpoint.identity(&name),
        max_model_len: served.max_model_len,
        parameters: checkpoint.parameters(),
        bytes: checkpoint.bytes(),
        weight_files: checkpoint.weight_files().map(str::to_owned).collect(),
        weights,
        vocabulary: served.vocab_size,
        end_tokens: served.end_tokens,
        sampling: Sampling { temperature: sampling.temperature, top_p: sampling.top_p, top_k: sampling.top_k },
        chat: Chat {
            served: served.chat.is_ok(),
            reason: served.chat.err().map(|error| Quoted::<200>::new(error).to_string()),
        },
    })
}
