//! From a body to a request that can be served.

use super::prompts::{PROMPTS_AT_MOST, Prompts, ReadPrompts, TokenList};
use crate::server::error::{ApiError, Code};
use crate::server::fields::Fields;
use crate::server::options::{Options, TOP_LOGPROBS_AT_MOST};
use crate::server::served::ServedModel;

/// Tokens to generate where a request does not say, as OpenAI's API has it.
const DEFAULT_MAX_TOKENS: u32 = 16;

/// A checked request.
#[derive(Debug)]
pub struct CompletionRequest {
    /// Each with the text that `echo` shows.
    pub prompts: Vec<Prompt>,
    pub max_tokens: u32,
    pub options: Options,
    pub echo: bool,
    /// Whether to report log-probabilities, and of how many best tokens.
    pub logprobs: Option<u32>,
}

/// A prompt.
#[derive(Debug)]
pub struct Prompt {
    pub tokens: Vec<u32>,
    /// Empty unless it is to be echoed.
    pub text: String,
}

impl CompletionRequest {
    /// Checks a body. `seed` is used where it gives none.
    ///
    /// # Errors
    /// If anything in it is wrong or not supported.
    pub fn parse(body: &[u8], model: &ServedModel, seed: u64) -> Result<Self, ApiError> {
        let mut fields = Fields::parse(body)?;
        model.check_name(&mut fields)?;
        let expected = "a string, a list of strings, a list of tokens or a list of lists of tokens";
        let kept = ReadPrompts { tokens_at_most: model.max_model_len };
        let prompts = fields
            .take_with("prompt", expected, kept)?
            .ok_or_else(|| ApiError::field("prompt", Code::MissingRequiredParameter, "prompt is missing".to_owned()))?;
        let echo = fields.take("echo", "true or false")?.unwrap_or(false);
        let logprobs =
            fields.take_valid("logprobs", &format!("a whole number from 0 to {TOP_LOGPROBS_AT_MOST}"), |top| {
                (0..=TOP_LOGPROBS_AT_MOST).contains(top)
            })?;
        let max_tokens = take_max_tokens(&mut fields, echo)?;
        let options = Options::take(&mut fields, model.defaults, seed)?;
        check_best_of(&mut fields, options.choices)?;
        fields.finish()?;
        let prompts = read_prompts(prompts, max_tokens, echo, model)?;
        Ok(Self { prompts, max_tokens, options, echo, logprobs })
    }
}

fn take_max_tokens(fields: &mut Fields, echo: bool) -> Result<u32, ApiError> {
    let max_tokens = fields.take("max_tokens", "a whole number from 0")?.unwrap_or(DEFAULT_MAX_TOKENS);
    if max_tokens == 0 && !echo {
        let message = "max_tokens = 0 gives nothing unless echo is true".to_owned();
        return Err(ApiError::field("max_tokens", Code::InvalidValue, message));
    }
    Ok(max_tokens)
}

/// Choosing the best of more choices than are returned is not offered.
fn check_best_of(fields: &mut Fields, choices: u32) -> Result<(), ApiError> {
    match fields.take::<u32>("best_of", "a whole number")? {
        Some(best_of) if best_of != choices => {
            let message = format!("best_of = {best_of} is not supported with n = {choices}; leave it out");
            Err(ApiError::field("best_of", Code::UnsupportedParameter, message))
        }
        _ => Ok(()),
    }
}

fn read_prompts(prompts: Prompts, max_tokens: u32, echo: bool, model: &ServedModel) -> Result<Vec<Prompt>, ApiError> {
    let refuse = |message: String| ApiError::field("prompt", Code::InvalidValue, message);
    match prompts.count() {
        0 => return Err(refuse("prompt is an empty list".to_owned())),
        1..=PROMPTS_AT_MOST => {}
        _ => return Err(refuse(format!("prompt has more than {PROMPTS_AT_MOST} prompts; send several requests"))),
    }
    let prompts: Vec<Prompt> = match prompts {
        Prompts::Texts(texts) => texts.into_iter().map(|text| of_text(text, echo, model)).collect::<Result<_, _>>()?,
        Prompts::Tokens(lists) => {
            // Before anything is made of them: of a list that is too long only the beginning is here.
            for list in &lists {
                model.tokens_after(list.count, Some(max_tokens), "max_tokens")?;
            }
            lists.into_iter().map(|list| of_tokens(list, echo, model)).collect::<Result<_, _>>()?
        }
    };
    for prompt in &prompts {
        model.tokens_after(prompt.tokens.len(), Some(max_tokens), "max_tokens")?;
    }
    Ok(prompts)
}

fn of_text(text: String, echo: bool, model: &ServedModel) -> Result<Prompt, ApiError> {
    let tokens = model
        .tokenizer
        .encode(&text, true)
        .map_err(|error| ApiError::field("prompt", Code::InvalidValue, error.to_string()))?;
    model.check_prompt(&tokens, "prompt")?;
    Ok(Prompt { tokens, text: if echo { text } else { String::new() } })
}

fn of_tokens(list: TokenList, echo: bool, model: &ServedModel) -> Result<Prompt, ApiError> {
    let tokens = list.tokens;
    model.check_prompt(&tokens, "prompt")?;
    let text = if echo { model.tokenizer.text_of_prompt(&tokens) } else { String::new() };
    Ok(Prompt { tokens, text })
}
