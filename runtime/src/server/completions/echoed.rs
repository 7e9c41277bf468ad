//! How much of its prompts an answer may repeat: each choice repeats them, so a short request could ask for a very long
//! answer without a token being generated.

use super::validate::Prompt;
use crate::server::error::{ApiError, Code};

/// Bytes of text that one answer repeats.
pub const TEXT_AT_MOST: usize = 16 << 20;

/// Log-probabilities of tokens of prompts that one answer gives: a tenth of a kilobyte of memory each.
pub const SCORES_AT_MOST: usize = 1 << 20;

/// What the answer to one request repeats so far.
#[derive(Debug)]
pub struct Echoed {
    choices: usize,
    /// Log-probabilities for each token.
    scores_of_token: usize,
    text: usize,
    scores: usize,
}

impl Echoed {
    /// Nothing yet, of a request of so many choices with so many best tokens beside each token.
    pub const fn new(choices: u32, top: u32) -> Self {
        Self { choices: choices as usize, scores_of_token: top as usize + 1, text: 0, scores: 0 }
    }

    /// Adds a prompt.
    ///
    /// # Errors
    /// If the answer would repeat too much.
    pub fn add(&mut self, prompt: &Prompt) -> Result<(), ApiError> {
        self.text = self.text.saturating_add(prompt.text.len().saturating_mul(self.choices));
        let scores = prompt.offsets.len().saturating_mul(self.scores_of_token);
        self.scores = self.scores.saturating_add(scores.saturating_mul(self.choices));
        let (what, most) = if self.text > TEXT_AT_MOST {
            ("bytes of text", TEXT_AT_MOST)
        } else if self.scores > SCORES_AT_MOST {
            ("log-probabilities of prompts", SCORES_AT_MOST)
        } else {
            return Ok(());
        };
        let message = format!("echo would repeat more than {most} {what} in one answer; send several requests");
        Err(ApiError::field("echo", Code::InvalidValue, message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduler::Length;

    fn prompt(text: usize, scored: usize) -> Prompt {
        let offsets = vec![0; scored];
        Prompt { tokens: [0].into(), text: "a".repeat(text), offsets, length: Length::Asked(0) }
    }

    #[test]
    fn every_choice_of_every_prompt_counts() {
        let mut echoed = Echoed::new(4, 0);
        assert!(echoed.add(&prompt(TEXT_AT_MOST / 8, 0)).is_ok());
        assert!(echoed.add(&prompt(TEXT_AT_MOST / 8, 0)).is_ok());
        let error = echoed.add(&prompt(1, 0)).unwrap_err();
        assert_eq!((error.status.as_u16(), error.param.as_deref()), (400, Some("echo")));
        let mut scored = Echoed::new(2, 3);
        assert!(scored.add(&prompt(0, SCORES_AT_MOST / 8)).is_ok());
        assert!(scored.add(&prompt(0, 1)).unwrap_err().message.contains("log-probabilities"));
    }
}
