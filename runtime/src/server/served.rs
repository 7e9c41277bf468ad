//! What the server knows of the model it serves: its name, its text, how it ends and how long it may get.

use std::path::Path;
use std::sync::Arc;

use plan::words::counted;
use serde_json::{Map, Value};
use thiserror::Error;

use super::bounds::RequestBounds;
use super::chat::{ChatTemplate, TemplateError};
use super::error::{ApiError, Code};
use super::fields::Fields;
use super::generation_config::{self, EndTokens, GenerationConfig, WrongSetting};
use super::text::{Tokenizer, TokenizerError, TokenizerFiles};
use crate::model::folder::{self, FileError};
use crate::model::json;
use crate::quoted::Quoted;

const CONFIG: &str = "config.json";
/// Bytes that any chat may have before its tokens are counted, however small the context is.
const SHORTEST_CHAT: usize = 1 << 20;

/// Why a checkpoint cannot be served as text.
#[derive(Debug, Error)]
pub enum ServedError {
    /// A file cannot be had.
    #[error(transparent)]
    File(#[from] FileError),
    /// A file is not what it should be.
    #[error("{file} cannot be used: {reason}")]
    Parse {
        /// The file.
        file: &'static str,
        /// What is wrong with it, shortened.
        reason: Quoted<100>,
    },
    /// A file says what no request may say.
    #[error(transparent)]
    Setting(#[from] WrongSetting),
    /// The tokenizer.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
}

/// A model as requests see it.
pub struct ServedModel {
    /// Its name in requests.
    pub name: String,
    /// Tokens of prompt and answer together, at most.
    pub max_model_len: usize,
    /// Tokens that exist.
    pub vocab_size: usize,
    /// Its tokenizer.
    pub tokenizer: Tokenizer,
    /// Its chat template, or why it cannot chat.
    pub chat: Result<ChatTemplate, TemplateError>,
    /// Tokens that end an answer.
    pub end_tokens: Arc<[u32]>,
    /// How tokens are chosen where a request does not say.
    pub defaults: SamplingDefaults,
    /// Unix time that it is served since, seconds.
    pub created: i64,
}

/// How tokens are chosen where a request does not say: as the checkpoint's `generation_config.json` does.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SamplingDefaults {
    /// 0 is greedy.
    pub temperature: f32,
    /// 1 is off.
    pub top_p: f32,
    /// 0 is off.
    pub top_k: u32,
}

/// Sizes that the checkpoint's configuration gives.
#[derive(Clone, Debug)]
pub struct ModelLimits {
    /// Tokens of prompt and answer together, at most.
    pub max_model_len: usize,
    /// Tokens that exist.
    pub vocab_size: usize,
    /// Whether it must have a tokenizer. Texts of a model that is there to be measured are bytes if it has none.
    pub has_texts: bool,
}

impl ServedModel {
    /// Reads what is needed of a checkpoint.
    ///
    /// # Errors
    /// If a file is missing or not what it should be.
    pub fn load(directory: &Path, name: String, limits: &ModelLimits, created: i64) -> Result<Self, ServedError> {
        let files = match TokenizerFiles::read(directory) {
            Err(TokenizerError::Missing) if !limits.has_texts => TokenizerFiles::of_bytes(limits.vocab_size)?,
            files => files?,
        };
        let tokenizer = Tokenizer::new(&files)?;
        let around = tokenizer.encode("", true)?;
        if let Some(token) = around.iter().find(|&&token| token as usize >= limits.vocab_size) {
            let reason =
                format!("it puts token {token} around every text, and the model has {} tokens", limits.vocab_size);
            return Err(ServedError::Parse { file: "tokenizer.json", reason: reason.into() });
        }
        let longest = limits.max_model_len.saturating_mul(tokenizer.longest_token()).max(SHORTEST_CHAT);
        let chat = ChatTemplate::load(directory, files.chat_template(), tokenizer.named_tokens(), longest);
        if let Err(reason) = &chat {
            tracing::warn!(%reason, "the model cannot chat; /v1/completions is served");
        }
        let generation = GenerationConfig::new(&read_object(directory, generation_config::FILE)?)?;
        let of_model = EndTokens::of(CONFIG, &read_object(directory, CONFIG)?)?;
        for (key, value) in generation.without_effect() {
            tracing::warn!(%key, %value, "generation_config.json asks for what is not supported; requests are served without it");
        }
        let defaults = generation.defaults;
        let ModelLimits { max_model_len, vocab_size, .. } = *limits;
        let ends = generation.ends.or(of_model).unwrap_or_default();
        let EndTokens { tokens: mut ends, ignored } = ends.within(vocab_size);
        if !ignored.is_empty() {
            tracing::warn!(eos_token_id = ?ignored, vocab_size, "no token has such a number, so none of these ends an answer");
        }
        let named = tokenizer.named_token("eos_token").and_then(|token| tokenizer.token(token));
        ends.extend(named.filter(|&token| (token as usize) < vocab_size));
        let end_tokens = ends.into_iter().collect();
        Ok(Self { name, max_model_len, vocab_size, tokenizer, chat, end_tokens, defaults, created })
    }

    /// Checks that a request means this model.
    ///
    /// # Errors
    /// If it names another one.
    pub fn check_name(&self, fields: &mut Fields) -> Result<(), ApiError> {
        match fields.take::<String>("model", "a string")? {
            Some(name) if name != self.name => Err(ApiError {
                status: axum::http::StatusCode::NOT_FOUND,
                ..ApiError::field("model", Code::ModelNotFound, self.other_name(&name))
            }),
            _ => Ok(()),
        }
    }

    /// Why a request for another model is refused.
    #[must_use]
    pub fn other_name(&self, name: &str) -> String {
        format!("the model \"{}\" is not served here, only \"{}\"", Quoted::<64>::from(name), self.name)
    }

    /// Checks a text by its length, before it costs anything.
    ///
    /// # Errors
    /// If no context could hold it, however long its tokens are.
    pub fn check_text(&self, text: &str, field: &str, bounds: &RequestBounds) -> Result<(), ApiError> {
        let longest = self.tokenizer.longest_token();
        if text.len() > bounds.context.saturating_mul(longest) {
            let bytes = text.len();
            let however =
                format!("{field} has {bytes} bytes of text, and no token has more than {longest}; shorten it");
            return Err(bounds.overflow(field, &however));
        }
        Ok(())
    }

    /// The tokens of a text, with those that the tokenizer puts around every text if `whole` says that it is one.
    ///
    /// # Errors
    /// If it is too long for any context, or cannot be made tokens of.
    pub fn tokens(&self, text: &str, whole: bool, field: &str, bounds: &RequestBounds) -> Result<Vec<u32>, ApiError> {
        self.check_text(text, field, bounds)?;
        self.tokenizer.encode_at_most(text, whole, bounds.context).map_err(|error| match error {
            TokenizerError::TooMany { at_least } => {
                bounds.overflow(field, &format!("the prompt has at least {}; shorten it", counted(at_least, "token")))
            }
            error => ApiError::field(field, Code::InvalidValue, error.to_string()),
        })
    }

    /// Checks a prompt given as tokens.
    ///
    /// # Errors
    /// If it is empty or a token does not exist.
    pub fn check_prompt(&self, prompt: &[u32], field: &str) -> Result<(), ApiError> {
        if prompt.is_empty() {
            let message = format!("{field} has no token; it needs at least one");
            return Err(ApiError::field(field, Code::InvalidValue, message));
        }
        match prompt.iter().find(|&&token| token as usize >= self.vocab_size) {
            Some(token) => {
                let message = format!("{field} has token {token}, the vocabulary has {}", self.vocab_size);
                Err(ApiError::field(field, Code::InvalidValue, message))
            }
            None => Ok(()),
        }
    }
}

/// The members of a JSON file; none if there is no such file.
fn read_object(directory: &Path, file: &'static str) -> Result<Map<String, Value>, ServedError> {
    let Some(bytes) = folder::read_if_there(directory, file, folder::LARGEST_TEXT)? else { return Ok(Map::new()) };
    let wrong = |reason: String| ServedError::Parse { file, reason: reason.into() };
    match json::parse(&bytes).map_err(|error| wrong(error.to_string()))?.value {
        Value::Object(members) => Ok(members),
        _ => Err(wrong("it is no JSON object".to_owned())),
    }
}
