//! From a body to a request that can be served.

use std::sync::Arc;

use super::prompts::{PROMPTS_AT_MOST, Prompts, ReadPrompts, TokenList};
use crate::scheduler::Length;
use crate::server::Route;
use crate::server::bounds::RequestBounds;
use crate::server::error::{ApiError, Code};
use crate::server::fields::Fields;
use crate::server::options::{Options, TOP_LOGPROBS_AT_MOST};
use crate::server::served::ServedModel;
use crate::server::text::{offsets_in_given_text, offsets_in_own_text};

/// Tokens to generate where a request does not say, as OpenAI's API has it.
const DEFAULT_MAX_TOKENS: u32 = 16;

/// A checked request.
#[derive(Debug)]
pub struct CompletionRequest {
    pub prompts: Vec<Prompt>,
    pub options: Options,
    pub echo: bool,
    /// Whether to report log-probabilities, and of how many best tokens.
    pub logprobs: Option<u32>,
}

/// A prompt, and how long its answers may get.
#[derive(Debug)]
pub struct Prompt {
    pub tokens: Arc<[u32]>,
    /// Empty unless it is to be echoed.
    pub text: String,
    /// Where the tokens begin in the text, in characters; empty unless they are to be scored.
    pub offsets: Vec<u32>,
    pub length: Length,
}

impl CompletionRequest {
    /// Checks a body. `seed` is used where it gives none.
    ///
    /// # Errors
    /// If anything in it is wrong or not supported.
    pub fn parse(body: &[u8], model: &ServedModel, bounds: RequestBounds, seed: u64) -> Result<Self, ApiError> {
        let mut fields = Fields::parse(body)?;
        model.check_name(&mut fields)?;
        let expected = "a string, a list of strings, a list of tokens or a list of lists of tokens";
        let kept = ReadPrompts { tokens_at_most: bounds.context };
        let prompts = fields
            .take_with("prompt", expected, kept)?
            .ok_or_else(|| ApiError::field("prompt", Code::MissingRequiredParameter, "prompt is missing".to_owned()))?;
        let echo = fields.take_bool("echo")?.unwrap_or(false);
        let logprobs = fields.take_whole("logprobs", 0..=TOP_LOGPROBS_AT_MOST.into())?.map(|top| top as u32);
        let max_tokens = take_max_tokens(&mut fields, echo)?;
        let special_tokens = fields.take_bool("add_special_tokens")?.unwrap_or(true);
        let options = Options::take(&mut fields, model.defaults, seed)?;
        check_best_of(&mut fields, options.choices)?;
        fields.finish(Route::Completions)?;
        let reader = Reader { model, bounds, max_tokens, echo, scored: echo && logprobs.is_some(), special_tokens };
        let mut tokens = 0_usize;
        let count = |prompt: &Prompt| {
            let Some(beside) = logprobs else { return Ok(()) };
            tokens = tokens.saturating_add(prompt.length.most() + if echo { prompt.tokens.len() } else { 0 });
            bounds.check_scores(tokens, options.choices, (beside, "logprobs"))
        };
        let prompts = reader.read(prompts, options.choices, count)?;
        Ok(Self { prompts, options, echo, logprobs })
    }

    /// Whether the tokens of the prompts are scored.
    pub const fn scores_prompts(&self) -> bool {
        self.echo && self.logprobs.is_some()
    }
}

fn take_max_tokens(fields: &mut Fields<'_>, echo: bool) -> Result<Option<u64>, ApiError> {
    let max_tokens = fields.take_whole("max_tokens", 0..=i64::MAX)?.map(i64::cast_unsigned);
    if max_tokens == Some(0) && !echo {
        let message = "max_tokens = 0 gives nothing unless echo is true".to_owned();
        return Err(ApiError::field("max_tokens", Code::InvalidValue, message));
    }
    Ok(max_tokens)
}

/// Choosing the best of more choices than are returned is not offered.
fn check_best_of(fields: &mut Fields<'_>, choices: u32) -> Result<(), ApiError> {
    match fields.take_whole("best_of", 1..=i64::MAX)? {
        Some(best_of) if best_of != i64::from(choices) => {
            let message = format!("best_of = {best_of} is not supported with n = {choices}; leave it out");
            Err(ApiError::field("best_of", Code::UnsupportedParameter, message))
        }
        _ => Ok(()),
    }
}

/// What a prompt becomes under the rest of its request.
struct Reader<'a> {
    model: &'a ServedModel,
    bounds: RequestBounds,
    max_tokens: Option<u64>,
    echo: bool,
    /// Whether the tokens of what is echoed are scored.
    scored: bool,
    special_tokens: bool,
}

impl Reader<'_> {
    /// Everything that can be counted is counted before anything is made of a prompt, and what all have together by
    /// `count` before the next one.
    fn read(
        &self,
        prompts: Prompts,
        choices: u32,
        mut count: impl FnMut(&Prompt) -> Result<(), ApiError>,
    ) -> Result<Vec<Prompt>, ApiError> {
        let refuse = |message: String| ApiError::field("prompt", Code::InvalidValue, message);
        match prompts.count() {
            0 => return Err(refuse("prompt is an empty list".to_owned())),
            1..=PROMPTS_AT_MOST => {}
            _ => return Err(refuse(format!("prompt has more than {PROMPTS_AT_MOST} prompts; send several requests"))),
        }
        self.bounds.check_sequences(prompts.count(), choices)?;
        let mut add = |prompt: Result<Prompt, ApiError>| prompt.and_then(|prompt| count(&prompt).map(|()| prompt));
        match prompts {
            Prompts::Texts(texts) => {
                texts.iter().try_for_each(|text| self.model.check_text(text, "prompt", &self.bounds))?;
                texts.into_iter().map(|text| add(self.of_text(text))).collect()
            }
            Prompts::Tokens(lists) => {
                // Of a list that is too long only the beginning is here.
                lists.iter().try_for_each(|list| self.length(list.count).map(drop))?;
                lists.into_iter().map(|list| add(self.of_tokens(list))).collect()
            }
        }
    }

    fn of_text(&self, text: String) -> Result<Prompt, ApiError> {
        let tokens = self.model.tokens(&text, self.special_tokens, "prompt", &self.bounds)?;
        self.model.check_prompt(&tokens, "prompt")?;
        let length = self.length(tokens.len())?;
        let scored = || offsets_in_given_text(&self.model.tokenizer, &text, &tokens);
        let offsets = if self.scored { scored() } else { Vec::new() };
        Ok(Prompt { tokens: tokens.into(), length, text: if self.echo { text } else { String::new() }, offsets })
    }

    fn of_tokens(&self, list: TokenList) -> Result<Prompt, ApiError> {
        let tokens = list.tokens;
        self.model.check_prompt(&tokens, "prompt")?;
        let length = self.length(tokens.len())?;
        let tokenizer = &self.model.tokenizer;
        let text = if self.echo { tokenizer.text_of_prompt(&tokens) } else { String::new() };
        let offsets = if self.scored { offsets_in_own_text(tokenizer, &tokens) } else { Vec::new() };
        Ok(Prompt { tokens: tokens.into(), length, text, offsets })
    }

    fn length(&self, prompt: usize) -> Result<Length, ApiError> {
        let asked = self.max_tokens.map(|asked| (asked, "max_tokens"));
        self.bounds.length((prompt, "prompt"), asked, DEFAULT_MAX_TOKENS)
    }
}
