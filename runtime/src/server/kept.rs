//! What is kept of one choice until its answer is sent as a whole.

use super::scores::{Score, Scores};
use super::text::Piece;

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct Kept {
    /// What it says.
    pub text: String,
    /// Log-probabilities of its tokens, if they are asked for.
    pub scores: Scores,
    /// OpenAI's `finish_reason`, when it has ended.
    pub finish: Option<&'static str>,
}

impl Kept {
    /// Adds what the choice gave next, with log-probabilities if it is `scored`; gives the bytes that are kept of it.
    pub fn grow(&mut self, piece: &Piece, finish: Option<&'static str>, scored: bool) -> usize {
        self.text.push_str(&piece.text);
        self.finish = finish.or(self.finish);
        let tokens = if scored { &piece.tokens[..] } else { &[] };
        let of_tokens: usize =
            tokens.iter().map(|token| self.scores.push(Score::new(token.offset, &token.score))).sum();
        piece.text.len() + of_tokens
    }
}
