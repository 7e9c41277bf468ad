//! The files of a checkpoint that make its tokenizer, read and not yet understood.

use std::path::Path;

use plan::words::counted;
use serde_json::{Map, Value, json};

use super::TokenizerError;
use super::spelling::byte_of_char;
use crate::model::config::registered_tokenizer;
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
    /// What transformers has registered for the `model_type` of `config.json`, which counts where no file names a class.
    pub(super) registered_class: Option<&'static str>,
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
        let text = |key: &str| model.get(key).and_then(Value::as_str);
        Ok(Self {
            tokenizer,
            config: read_object(directory, "tokenizer_config.json")?.unwrap_or_default(),
            special_tokens_map: read_object(directory, "special_tokens_map.json")?,
            added_tokens: read_object(directory, "added_tokens.json")?,
            class_of_model: text("tokenizer_class").map(str::to_owned),
            registered_class: text("model_type").and_then(registered_tokenizer),
        })
    }

    /// Those of a model that has none: each byte of a text is a token, and a token beyond these is written as its number, with a
    /// space before it. So any text is a prompt, and answers can be read.
    ///
    /// # Errors
    /// If there are not as many tokens as bytes.
    pub fn of_bytes(tokens: usize) -> Result<Self, TokenizerError> {
        const BYTES: usize = 256;
        if tokens < BYTES {
            let found = counted(tokens, "token");
            let reason = format!(
                "there is none, and a text without one needs a token for each of 256 bytes; the model has {found}"
            );
            return Err(TokenizerError::Wrong { file: "tokenizer.json", reason });
        }
        let bytes = byte_of_char().into_iter().enumerate();
        let bytes = bytes.filter_map(|(char, byte)| Some((char::from_u32(char as u32)?.to_string(), byte?.into())));
        let numbers = (BYTES..tokens).map(|token| (format!("Ġ{token}"), token));
        let vocabulary: Map<String, Value> = bytes.chain(numbers).map(|(text, token)| (text, token.into())).collect();
        let byte_level =
            json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false});
        let model = json!({"type": "BPE", "vocab": vocabulary, "merges": []});
        let tokenizer = json!({"version": "1.0", "pre_tokenizer": byte_level, "decoder": byte_level, "model": model});
        let config = Map::from_iter([("tokenizer_class".to_owned(), "PreTrainedTokenizerFast".into())]);
        Ok(Self { tokenizer: tokenizer.to_string().into_bytes(), config, ..Self::default() })
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
