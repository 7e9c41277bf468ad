//! How much one request may ask for: tokens of prompt and answer together, sequences, and log-probabilities. Decides from
//! numbers that the model, the options and the ranks gave.

use plan::words::counted;

use super::error::{ApiError, Code};
use super::options::TOP_LOGPROBS_AT_MOST;
use crate::scheduler::Length;

/// Log-probabilities that all answers to one request have at most, unless one as long as the context has more.
pub const SCORES_AT_MOST: usize = 1 << 20;

/// The same where the context is so many tokens.
#[must_use]
pub fn scores_at_most(context: usize) -> usize {
    SCORES_AT_MOST.max(context.saturating_mul(1 + TOP_LOGPROBS_AT_MOST as usize))
}

/// What one request may ask for at this moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestBounds {
    /// Tokens of prompt and answer together: the least of what the model was made for, what the server was told and
    /// what the ranks' KV caches hold.
    pub context: usize,
    /// Sequences: prompts times the choices of each.
    pub sequences: usize,
}

impl RequestBounds {
    /// Bounds where the model and the options allow a context of `model` tokens and the ranks' caches hold `caches`, if
    /// that is known yet.
    #[must_use]
    pub fn new(model: usize, caches: Option<usize>, sequences: usize) -> Self {
        Self { context: caches.map_or(model, |caches| caches.min(model)), sequences }
    }

    /// How long the answer to a prompt of `prompt` tokens in the field `prompt_field` may get: as long as `asked`, with
    /// the name of the field that asks, and otherwise as long as fits, up to `usual`.
    ///
    /// # Errors
    /// If prompt and answer together could be longer than the context.
    pub fn length(
        &self,
        (prompt, prompt_field): (usize, &str),
        asked: Option<(u64, &str)>,
        usual: u32,
    ) -> Result<Length, ApiError> {
        let (left, tokens) = (self.context.checked_sub(prompt), counted(prompt, "token"));
        match (asked, left) {
            (Some((asked, _)), Some(left)) if asked <= left as u64 => {
                Ok(Length::Asked(u32::try_from(asked).unwrap_or(u32::MAX)))
            }
            (None, Some(left @ 1..)) => Ok(Length::Open(usual.min(u32::try_from(left).unwrap_or(u32::MAX)))),
            (Some((asked, field)), Some(_)) => {
                let together = asked.saturating_add(prompt as u64);
                Err(self.overflow(
                    field,
                    &format!(
                        "the prompt has {tokens} and {field} is {asked}, together {together}; shorten one of them"
                    ),
                ))
            }
            (None, Some(0)) => Err(self.overflow(
                prompt_field,
                &format!("the prompt has {tokens}, which leaves none for an answer; shorten it"),
            )),
            (_, None) => Err(self.overflow(prompt_field, &format!("the prompt has {tokens}; shorten it"))),
        }
    }

    /// A refusal of what is longer than the context. Begins as OpenAI's servers and vLLM begin it, since clients know the
    /// case by these words.
    #[must_use]
    pub fn overflow(&self, field: &str, however: &str) -> ApiError {
        ApiError::field(field, Code::ContextLengthExceeded, self.exceeded(however))
    }

    /// The words of such a refusal.
    #[must_use]
    pub fn exceeded(&self, however: &str) -> String {
        format!("This model's maximum context length is {} tokens. However, {however}", self.context)
    }

    /// Tokens that a choice may have so that all together have no more log-probabilities than they may, with so many best
    /// tokens beside each.
    #[must_use]
    pub fn share(&self, choices: u32, beside: u32) -> u32 {
        u32::try_from(scores_at_most(self.context) / scores_of_token(choices, beside)).unwrap_or(u32::MAX)
    }

    /// Checks what all answers together may have: for each of `tokens` that are echoed or answered, in each of `choices`,
    /// the token and so many best ones beside it, which `field` asks for.
    ///
    /// # Errors
    /// If it is more than one request is given.
    pub fn check_scores(&self, tokens: usize, choices: u32, (beside, field): (u32, &str)) -> Result<(), ApiError> {
        let most = scores_at_most(self.context);
        if tokens.saturating_mul(scores_of_token(choices, beside)) <= most {
            return Ok(());
        }
        let each = 1 + beside;
        let message = format!(
            "the answers would have more than {most} log-probabilities: {} or more in each of {}, {each} for each token; \
             lower n, {field} or max_tokens, or send several requests",
            counted(tokens, "token"),
            counted(choices as usize, "choice")
        );
        Err(ApiError::field(if choices > 1 { "n" } else { field }, Code::InvalidValue, message))
    }

    /// Checks the number of sequences before anything is built for them.
    ///
    /// # Errors
    /// If there are more than may wait.
    pub fn check_sequences(&self, prompts: usize, choices: u32) -> Result<(), ApiError> {
        let sequences = prompts.saturating_mul(choices as usize);
        if sequences <= self.sequences {
            return Ok(());
        }
        let most = self.sequences;
        let (field, message) = if choices == 1 {
            ("prompt", format!("prompt has {prompts} prompts, at most {most} are taken in one request"))
        } else {
            (
                "n",
                format!(
                    "n = {choices} choices of {} are {sequences} answers, at most {most} are given in one request",
                    counted(prompts, "prompt")
                ),
            )
        };
        Err(ApiError::field(field, Code::InvalidValue, message))
    }
}

/// Log-probabilities for a token of every choice.
const fn scores_of_token(choices: u32, beside: u32) -> usize {
    choices as usize * (1 + beside as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: RequestBounds = RequestBounds { context: 100, sequences: 256 };

    #[test]
    fn the_context_is_the_least_of_all_that_bound_it() {
        assert_eq!(RequestBounds::new(40_960, None, 1).context, 40_960);
        assert_eq!(RequestBounds::new(40_960, Some(32_768), 1).context, 32_768);
        assert_eq!(RequestBounds::new(40_960, Some(65_536), 1).context, 40_960);
    }

    #[test]
    fn what_does_not_say_gets_what_is_left_and_what_asks_for_more_is_refused() {
        let length = |prompt, asked: Option<u64>| {
            BOUNDS.length((prompt, "prompt"), asked.map(|asked| (asked, "max_tokens")), u32::MAX).map_err(|error| {
                assert!(error.message.starts_with("This model's maximum context length is 100 tokens"), "{error}");
                error.param
            })
        };
        assert_eq!(length(60, None), Ok(Length::Open(40)));
        assert_eq!(length(99, None), Ok(Length::Open(1)));
        assert_eq!(length(60, Some(40)), Ok(Length::Asked(40)));
        assert_eq!(length(100, Some(0)), Ok(Length::Asked(0)));
        assert_eq!(length(60, Some(41)), Err(Some("max_tokens".to_owned())));
        assert_eq!(length(100, None), Err(Some("prompt".to_owned())));
        assert_eq!(length(101, Some(1)), Err(Some("prompt".to_owned())));
        assert_eq!(BOUNDS.length((1, "prompt"), None, 16), Ok(Length::Open(16)));
    }

    #[test]
    fn log_probabilities_are_bounded_by_tokens_choices_and_what_is_beside_each() {
        let check = |tokens, choices, beside| BOUNDS.check_scores(tokens, choices, (beside, "logprobs"));
        let most = SCORES_AT_MOST;
        for (tokens, choices, beside) in [(most, 1, 0), (most / 128, 128, 0), (most / 128 / 16, 128, 15), (0, 128, 20)]
        {
            assert_eq!(check(tokens, choices, beside), Ok(()), "{tokens} {choices} {beside}");
        }
        for (tokens, choices, beside, field) in [
            (most + 1, 1, 0, "logprobs"),
            (most / 2 + 1, 1, 1, "logprobs"),
            (most / 128 + 1, 128, 0, "n"),
            (1001, 128, 20, "n"),
            (usize::MAX, 128, 20, "n"),
        ] {
            let error = check(tokens, choices, beside).unwrap_err();
            assert_eq!((error.param.as_deref(), error.code), (Some(field), Code::InvalidValue), "{error}");
            assert!(error.message.contains("1048576") && error.message.chars().count() <= 300, "{error}");
        }
        // One answer is as long as the context, whatever is beside its tokens.
        let long = RequestBounds { context: 1 << 20, sequences: 1 };
        assert_eq!(long.check_scores(1 << 20, 1, (20, "logprobs")), Ok(()));
        assert_eq!((long.share(1, 20), BOUNDS.share(128, 20), BOUNDS.share(4, 0)), (1 << 20, 390, 1 << 18));
    }

    #[test]
    fn answers_are_counted_without_overflow() {
        assert!(BOUNDS.check_sequences(2, 128).is_ok());
        assert_eq!(BOUNDS.check_sequences(3, 128).unwrap_err().param.as_deref(), Some("n"));
        assert_eq!(BOUNDS.check_sequences(257, 1).unwrap_err().param.as_deref(), Some("prompt"));
        assert!(BOUNDS.check_sequences(usize::MAX, 128).is_err());
    }
}
