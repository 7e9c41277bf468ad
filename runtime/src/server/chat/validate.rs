//! From a body to a request that can be served.

use std::marker::PhantomData;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Zoned;

use super::conversation::Conversation;
use super::messages::take_messages;
use crate::quoted::Quoted;
use crate::scheduler::Length;
use crate::server::Route;
use crate::server::bounds::RequestBounds;
use crate::server::error::{ApiError, Code};
use crate::server::fields::{Fields, mismatch, read};
use crate::server::jinja::Given;
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
    pub fn parse(body: &[u8], model: &ServedModel, bounds: RequestBounds, seed: u64) -> Result<Self, ApiError> {
        let mut fields = Fields::parse(body)?;
        model.check_name(&mut fields)?;
        let messages = take_messages(&mut fields, &bounds)?;
        let arguments = take_template_arguments(&mut fields, model)?;
        let max_tokens = take_max_tokens(&mut fields)?;
        let options = Options::take(&mut fields, model.defaults, seed)?;
        let logprobs = take_logprobs(&mut fields)?;
        let special_tokens = fields.take_bool("add_special_tokens")?.unwrap_or(false);
        fields.finish(Route::Chat)?;
        bounds.check_sequences(1, options.choices)?;
        let prompt = prompt_of(messages, arguments, special_tokens, (model, &bounds))?;
        model.check_prompt(&prompt, "messages")?;
        // An answer whose length is open is no longer than all choices may be together.
        let share = logprobs.map_or(u32::MAX, |beside| bounds.share(options.choices, beside));
        let length = bounds.length((prompt.len(), "messages"), max_tokens, share)?;
        if let Some(beside) = logprobs {
            bounds.check_scores(length.most(), options.choices, (beside, "top_logprobs"))?;
        }
        Ok(Self { prompt: prompt.into(), length, options, logprobs })
    }
}

fn prompt_of(
    messages: Conversation,
    arguments: Vec<(String, Given)>,
    special_tokens: bool,
    (model, bounds): (&ServedModel, &RequestBounds),
) -> Result<Vec<u32>, ApiError> {
    let refuse = |message: String| ApiError::field("messages", Code::InvalidValue, message);
    let template = model
        .chat
        .as_ref()
        .map_err(|reason| refuse(format!("the model {} cannot chat: {reason}; use /v1/completions", model.name)))?;
    let begun = Instant::now();
    let is_late = || begun.elapsed() > RENDERING_AT_MOST;
    let text = template.render(messages.given(), arguments, &Zoned::now(), &is_late).map_err(|error| {
        if error.is_too_long() {
            return bounds.overflow("messages", "the messages are longer than that; shorten them");
        }
        refuse(error.to_string())
    })?;
    model.tokens(&text, special_tokens, "messages", bounds)
}

/// A template takes milliseconds; while one is rendered, no other request is prepared on its thread.
const RENDERING_AT_MOST: Duration = Duration::from_secs(2);

/// Bytes of the further variables of a template: what they become in memory is many times what they are in a body.
pub const TEMPLATE_ARGUMENT_BYTES_AT_MOST: usize = 64 << 10;

/// Variables of a template that say what the conversation is, or that its renderer sets or reads itself; so do all names
/// of special tokens.
const OWN_VARIABLES: &[&str] = &[
    "add_generation_prompt",
    "chat_template",
    "continue_final_message",
    "conversation",
    "cycler",
    "dict",
    "documents",
    "joiner",
    "lipsum",
    "max_length",
    "messages",
    "namespace",
    "padding",
    "raise_exception",
    "range",
    "return_assistant_tokens_mask",
    "return_dict",
    "return_tensors",
    "strftime_now",
    "tokenize",
    "tokenizer_kwargs",
    "tools",
    "truncation",
];

/// Further variables of the template. Whoever inspects a request looks at its messages, so those are not replaced here.
fn take_template_arguments(fields: &mut Fields<'_>, model: &ServedModel) -> Result<Vec<(String, Given)>, ApiError> {
    let name = "chat_template_kwargs";
    let Some(arguments) = fields.take_raw(name) else { return Ok(Vec::new()) };
    let bytes = arguments.get().len();
    if bytes > TEMPLATE_ARGUMENT_BYTES_AT_MOST {
        let message = format!("{name} has {bytes} bytes, at most {TEMPLATE_ARGUMENT_BYTES_AT_MOST} are taken");
        return Err(ApiError::field(name, Code::InvalidValue, message));
    }
    let given: Given = read(name, arguments, "an object", PhantomData)?;
    let Some(arguments) = given.into_members() else {
        return Err(mismatch(name, arguments, "an object", Code::InvalidType));
    };
    let is_token = |name: &str| {
        name.ends_with("_token") || name.ends_with("_tokens") || model.tokenizer.named_token(name).is_some()
    };
    let is_own = |name: &&String| OWN_VARIABLES.contains(&name.as_str()) || is_token(name);
    match arguments.iter().map(|(name, _)| name).find(is_own) {
        Some(name) => {
            let field = format!("chat_template_kwargs.{}", Quoted::<64>::from(name));
            let message = format!("{field} is set by the server itself; leave it out");
            Err(ApiError::field(&field, Code::UnsupportedParameter, message))
        }
        None => Ok(arguments),
    }
}

/// `max_completion_tokens`, or `max_tokens` as it was named before.
fn take_max_tokens(fields: &mut Fields<'_>) -> Result<Option<(u64, &'static str)>, ApiError> {
    let mut take = |name| fields.take_whole(name, 1..=i64::MAX).map(|tokens| tokens.map(i64::cast_unsigned));
    match (take("max_completion_tokens")?, take("max_tokens")?) {
        (Some(new), Some(old)) if new != old => {
            let message = format!("max_completion_tokens is {new} and max_tokens is {old}; give one of them");
            Err(ApiError::field("max_completion_tokens", Code::InvalidValue, message))
        }
        (Some(new), _) => Ok(Some((new, "max_completion_tokens"))),
        (None, old) => Ok(old.map(|old| (old, "max_tokens"))),
    }
}

fn take_logprobs(fields: &mut Fields<'_>) -> Result<Option<u32>, ApiError> {
    let logprobs = fields.take_bool("logprobs")?.unwrap_or(false);
    let top = fields.take_whole("top_logprobs", 0..=TOP_LOGPROBS_AT_MOST.into())?.map_or(0, |top| top as u32);
    if top > 0 && !logprobs {
        let message = "top_logprobs needs logprobs = true".to_owned();
        return Err(ApiError::field("top_logprobs", Code::InvalidValue, message));
    }
    Ok(logprobs.then_some(top))
}
