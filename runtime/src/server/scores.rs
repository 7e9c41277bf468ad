//! Log-probabilities as they are kept until they are sent: without names and without an allocation for each, since an
//! answer can have a million of them.

use crate::protocol::TokenScore;

/// Bytes that are kept of a token's log-probability.
pub const TOKEN_BYTES: usize = size_of::<Kept>();

/// Bytes that are kept of each of the best tokens beside it.
const BEST_BYTES: usize = size_of::<(u32, f32)>();

/// Those of some tokens, in order.
#[derive(Debug, Default)]
pub struct Scores {
    tokens: Vec<Kept>,
    best: Vec<(u32, f32)>,
}

#[derive(Clone, Copy, Debug)]
struct Kept {
    token: u32,
    logprob: f32,
    offset: u32,
    /// Where its best tokens end; they begin where those of the token before end.
    best: u32,
}

/// A token's log-probability.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Score<'a> {
    /// The token.
    pub token: u32,
    /// Its log-probability.
    pub logprob: f32,
    /// Characters of the text before it.
    pub offset: u32,
    /// The best tokens, best first, with theirs.
    pub best: &'a [(u32, f32)],
}

impl<'a> Score<'a> {
    /// As a rank gave it, of a token before which there are so many characters.
    #[must_use]
    pub fn new(offset: usize, TokenScore { token, logprob, top }: &'a TokenScore) -> Self {
        Self { token: *token, logprob: *logprob, offset: u32::try_from(offset).unwrap_or(u32::MAX), best: top }
    }
}

impl Scores {
    /// Bytes that are kept of so many tokens with so many best ones beside each.
    #[must_use]
    pub const fn bytes_of(tokens: usize, best: usize) -> usize {
        tokens.saturating_mul(TOKEN_BYTES.saturating_add(best.saturating_mul(BEST_BYTES)))
    }

    /// Adds one; gives the bytes that are kept of it.
    pub fn push(&mut self, score: Score<'_>) -> usize {
        let Score { token, logprob, offset, best } = score;
        self.best.extend_from_slice(best);
        self.tokens.push(Kept { token, logprob, offset, best: self.best.len() as u32 });
        Self::bytes_of(1, best.len())
    }

    /// How many tokens there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.tokens.len()
    }

    /// One of them.
    ///
    /// # Panics
    /// If there are not so many.
    #[must_use]
    pub fn at(&self, index: usize) -> Score<'_> {
        let Kept { token, logprob, offset, best } = self.tokens[index];
        let begin = index.checked_sub(1).map_or(0, |before| self.tokens[before].best as usize);
        Score { token, logprob, offset, best: &self.best[begin..best as usize] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_put_in_comes_out_at_a_few_bytes_each() {
        let mut scores = Scores::default();
        let given = [
            TokenScore { token: 7, logprob: -0.5, top: vec![(7, -0.5), (8, -1.5)] },
            TokenScore { token: 8, logprob: -2.5, top: Vec::new() },
            TokenScore { token: 9, logprob: 0.0, top: vec![(9, 0.0)] },
        ];
        let bytes: usize = given.iter().enumerate().map(|(at, score)| scores.push(Score::new(at * 10, score))).sum();
        assert_eq!((bytes, Scores::bytes_of(1000, 20)), (3 * 16 + 3 * 8, 1000 * (16 + 20 * 8)));
        assert_eq!(scores.len(), 3);
        for (index, score) in given.iter().enumerate() {
            assert_eq!(scores.at(index), Score::new(index * 10, score));
        }
    }
}
