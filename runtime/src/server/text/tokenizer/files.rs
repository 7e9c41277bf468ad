//! The files of a checkpoint that make its tokenizer, read and not yet understood.

use std::path::Path;

use serde_json::{Map, Value};

use super::TokenizerError;
use crate::model::{folder, json};

/// What the files say.
#[derive(Clone, Debug, Default)]
pub struct TokenizerFiles {
    /// `tokenizer.json` as it is.
    pub(super) tokenizer: Vec<u8>,
    /// `tokenizer_config.json`.
    pub(super) config: Map<String, Value>,
    /// `special_tokens_map.json`.
    pub(super) special_tokens_map: Option<Map<String, Value>>,
    /// `added_tokens.json`.
    pub(super) added_tokens: Option<Map<String, Value>>,
    /// `tokenizer_class` of `config.json`, which counts where `tokenizer_config.json` has none.
    pub(super) class_of_model: Option<String>,
}

impl TokenizerFiles {
    /// Reads them.
    ///
    /// # Errors
    /// If `tokenizer.json` is missing, or one cannot be read or is no JSON object.
    pub fn read(directory: &Path) -> Result<Self, TokenizerError> {
        const TOKENIZER: &str = "tokenizer.json";
        let tokenizer = folder::read_if_there(directory, TOKENIZER, folder::LARGEST_TEXT)?;
        let tokenizer = tokenizer.ok_or(TokenizerError::Missing)?;
        let model = read_object(directory, "config.json")?.unwrap_or_default();
        Ok(Self {
            tokenizer,
            config: read_object(directory, "tokenizer_config.json")?.unwrap_or_default(),
            special_tokens_map: read_object(directory, "special_tokens_map.json")?,
            added_tokens: read_object(directory, "added_tokens.json")?,
            class_of_model: model.get("tokenizer_class").and_then(Value::as_str).map(str::to_owned),
        })
    }

    /// `chat_template` of `tokenizer_config.json`.
    #[must_use]
    pub fn chat_template(&self) -> Option<&Value> {
        self.config.get("chat_template").filter(|template| !template.is_null())
    }

    /// `tokenizer.json` as JSON.
    pub(super) fn tokenizer_json(&self) -> Result<Map<String, Value>, TokenizerError> {
        object("tokenizer.json", &self.tokenizer)
    }
}

fn read_object(directory: &Path, file: &'static str) -> Result<Option<Map<String, Value>>, TokenizerError> {
    let bytes = folder::read_if_there(directory, file, folder::LARGEST_TEXT)?;
    bytes.map(|bytes| object(file, &bytes)).transpose()
}

fn object(file: &'static str, bytes: &[u8]) -> Result<Map<String, Value>, TokenizerError> {
    let document =
        json::parse(bytes).map_err(|error| TokenizerError::Json { file, reason: error.to_string().into() })?;
    match document.value {
        Value::Object(object) => Ok(object),
        _ => Err(TokenizerError::Wrong { file, reason: "it is no JSON object".to_owned() }),
    }
}
