//! From a body to a request that can be served.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::types::Message;
use crate::quoted::Quoted;
use crate::scheduler::Length;
use crate::server::bounds::Bounds;
use crate::server::error::{ApiError, Code};
use crate::server::fields::Fields;
use crate::server::options::{Options, TOP_LOGPROBS_AT_MOST};
use crate::server::served::ServedModel;

/// A checked request.
#[derive(Debug)]
pub struct ChatRequest {
    pub prompt: Arc<[u32]>,
    pub length: Length,
    pub options: Options,
    /// Whether to report log-probabilities, and of how many best tokens.
    pub logprobs: Option<u32>,
}

impl ChatRequest {
    /// Checks a body. `seed` is used where it gives none.
    ///
    /// # Errors
    /// If anything in it is wrong or not supported.
    pub fn parse(body: &[u8], model: &ServedModel, bounds: Bounds, seed: u64) -> Result<Self, ApiError> {
        let mut fields = Fields::parse(body)?;
        model.check_name(&mut fields)?;
        let messages = take_messages(&mut fields)?;
        let arguments = take_template_arguments(&mut fields)?;
        let max_tokens = take_max_tokens(&mut fields)?;
        let options = Options::take(&mut fields, model.defaults, seed)?;
        let logprobs = take_logprobs(&mut fields)?;
        fields.finish()?;
        let prompt = prompt_of(&messages, &arguments, model)?;
        model.check_prompt(&prompt, "messages")?;
        let length = bounds.length((prompt.len(), "messages"), max_tokens, u32::MAX)?;
        bounds.check_sequences(1, options.choices)?;
        Ok(Self { prompt: prompt.into(), length, options, logprobs })
    }
}

fn prompt_of(messages: &[Message], arguments: &Map<String, Value>, model: &ServedModel) -> Result<Vec<u32>, ApiError> {
    let refuse = |message: String| ApiError::field("messages", Code::InvalidValue, message);
    let template = model
        .chat
        .as_ref()
        .ok_or_else(|| refuse(format!("the model {} has no chat template; use /v1/completions", model.name)))?;
    let text = template.render(&messages, arguments).map_err(|error| refuse(error.to_string()))?;
    model.tokenizer.encode(&text, false).map_err(|error| refuse(error.to_string()))
}

fn take_template_arguments(fields: &mut Fields) -> Result<Map<String, Value>, ApiError> {
    if let Some(false) = fields.take("add_generation_prompt", "true or false")? {
        let message = "add_generation_prompt = false is not supported; leave it out".to_owned();
        return Err(ApiError::field("add_generation_prompt", Code::UnsupportedParameter, message));
    }
    Ok(fields.take("chat_template_kwargs", "an object")?.unwrap_or_default())
}

/// `max_completion_tokens`, or `max_tokens` as it was named before.
fn take_max_tokens(fields: &mut Fields) -> Result<Option<(u32, &'static str)>, ApiError> {
    const EXPECTED: &str = "a whole number from 1";
    let old = fields.take_valid("max_tokens", EXPECTED, |&tokens: &u32| tokens > 0)?;
    let new = fields.take_valid("max_completion_tokens", EXPECTED, |&tokens: &u32| tokens > 0)?;
    match (new, old) {
        (Some(new), Some(old)) if new != old => {
            let message = format!("max_completion_tokens is {new} and max_tokens is {old}; give one of them");
            Err(ApiError::field("max_completion_tokens", Code::InvalidValue, message))
        }
        (Some(new), _) => Ok(Some((new, "max_completion_tokens"))),
        (None, old) => Ok(old.map(|old| (old, "max_tokens"))),
    }
}

fn take_logprobs(fields: &mut Fields) -> Result<Option<u32>, ApiError> {
    let logprobs = fields.take("logprobs", "true or false")?.unwrap_or(false);
    let top =
        fields.take_valid("top_logprobs", &format!("a whole number from 0 to {TOP_LOGPROBS_AT_MOST}"), |top| {
            (0..=TOP_LOGPROBS_AT_MOST).contains(top)
        })?;
    match (logprobs, top) {
        (false, Some(1..)) => {
            let message = "top_logprobs needs logprobs = true".to_owned();
            Err(ApiError::field("top_logprobs", Code::InvalidValue, message))
        }
        (logprobs, top) => Ok(logprobs.then_some(top.unwrap_or(0))),
    }
}

fn take_messages(fields: &mut Fields) -> Result<Vec<Message>, ApiError> {
    let messages: Vec<Map<String, Value>> = fields
        .take("messages", "a list of objects")?
        .ok_or_else(|| ApiError::field("messages", Code::MissingRequiredParameter, "messages is missing".to_owned()))?;
    if messages.is_empty() {
        return Err(ApiError::field("messages", Code::InvalidValue, "messages is empty".to_owned()));
    }
    messages
        .into_iter()
        .enumerate()
        .map(|(index, message)| message_of(&format!("messages[{index}]"), message))
        .collect()
}

fn message_of(path: &str, mut message: Map<String, Value>) -> Result<Message, ApiError> {
    let field = format!("{path}.role");
    let role = match message.remove("role") {
        None => return Err(ApiError::field(&field, Code::MissingRequiredParameter, format!("{field} is missing"))),
        // `developer` is what newer clients call the system's message; templates know only the old name.
        Some(role) if role == "system" || role == "developer" => "system",
        Some(role) if role == "user" => "user",
        Some(role) if role == "assistant" => "assistant",
        Some(role) => {
            let message =
                format!("{field} must be system, developer, user or assistant, not {}", Quoted::<64>::new(role));
            return Err(ApiError::field(&field, Code::InvalidValue, message));
        }
    };
    let content = content_of(&format!("{path}.content"), message.remove("content"))?;
    let name = match message.remove("name") {
        None | Some(Value::Null) => None,
        Some(Value::String(name)) => Some(name),
        Some(_) => {
            let field = format!("{path}.name");
            return Err(ApiError::field(&field, Code::InvalidType, format!("{field} must be a string")));
        }
    };
    match message.iter().find(|(_, value)| !value.is_null()) {
        Some((other, _)) => {
            let field = format!("{path}.{}", Quoted::<64>::from(other));
            let message = format!("{field} is not supported; leave it out");
            Err(ApiError::field(&field, Code::UnsupportedParameter, message))
        }
        None => Ok(Message { role, content, name }),
    }
}

fn content_of(field: &str, content: Option<Value>) -> Result<String, ApiError> {
    match content {
        Some(Value::String(text)) => Ok(text),
        Some(Value::Array(parts)) => {
            parts.iter().enumerate().map(|(index, part)| text_of(&format!("{field}[{index}]"), part)).collect()
        }
        None | Some(Value::Null) => {
            Err(ApiError::field(field, Code::MissingRequiredParameter, format!("{field} is missing")))
        }
        Some(_) => {
            let message = format!("{field} must be a string or a list of text parts");
            Err(ApiError::field(field, Code::InvalidType, message))
        }
    }
}

fn text_of(field: &str, part: &Value) -> Result<String, ApiError> {
    if part["type"] != "text" {
        let message = format!("{field}.type must be text, not {}", Quoted::<64>::new(&part["type"]));
        return Err(ApiError::field(&format!("{field}.type"), Code::UnsupportedParameter, message));
    }
    part["text"].as_str().map(str::to_owned).ok_or_else(|| {
        let field = format!("{field}.text");
        ApiError::field(&field, Code::InvalidType, format!("{field} must be a string"))
    })
}
