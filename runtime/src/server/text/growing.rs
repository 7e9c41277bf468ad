//! The text of one choice as its tokens come in: never half a character, never part of a stop string.

use std::collections::VecDeque;

use crate::protocol::TokenScore;

use super::stop::{Seen, StopSearch};
use super::{StopStrings, Tokenizer};

/// A token of a choice and where its text begins.
#[derive(Clone, Debug, PartialEq)]
pub struct PieceToken {
    /// The token and its log-probability.
    pub score: TokenScore,
    /// Characters of the choice's text before it.
    pub offset: usize,
}

/// What can be shown next.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Piece {
    /// Text that follows what was shown before.
    pub text: String,
    /// The tokens that begin in it.
    pub tokens: Vec<PieceToken>,
    /// A stop string was found: nothing follows.
    pub stopped: bool,
}

/// Text that grows token by token.
pub struct GrowingText {
    stops: StopSearch,
    /// Bytes at the end that are not a whole character yet.
    partial: Vec<u8>,
    /// Text that could be the beginning of a stop string.
    held: String,
    /// Characters given out.
    shown: usize,
    /// Tokens that begin in what is not given out yet.
    tokens: VecDeque<PieceToken>,
}

impl GrowingText {
    /// An empty text that begins after `offset` characters.
    #[must_use]
    pub fn new(stops: &StopStrings, offset: usize) -> Self {
        Self { stops: stops.search(), partial: Vec::new(), held: String::new(), shown: offset, tokens: VecDeque::new() }
    }

    /// Adds a token.
    pub fn push(&mut self, tokenizer: &Tokenizer, score: TokenScore) -> Piece {
        self.partial.extend_from_slice(tokenizer.shown_bytes(score.token));
        self.push_silent(score);
        let read = self.held.len();
        take_whole(&mut self.partial, &mut self.held);
        match self.stops.read(&self.held[read..]) {
            Seen::Stop(before_end) => {
                let piece = self.show(self.held.len() - before_end);
                Piece { stopped: true, ..piece }
            }
            Seen::Beginning(held) => self.show(self.held.len() - held),
        }
    }

    /// Adds a token without its text: the one that ended the text is no part of it, even if it is a plain word.
    pub fn push_silent(&mut self, score: TokenScore) {
        let offset = self.shown + self.held.chars().count();
        self.tokens.push_back(PieceToken { score, offset });
    }

    /// What is left when no token follows; the part of a last, incomplete character is dropped.
    pub fn finish(&mut self) -> Piece {
        let text = std::mem::take(&mut self.held);
        Piece { text, tokens: self.tokens.drain(..).collect(), stopped: false }
    }

    fn show(&mut self, bytes: usize) -> Piece {
        let text: String = self.held.drain(..bytes).collect();
        self.shown += text.chars().count();
        let begun = self.tokens.iter().take_while(|token| token.offset < self.shown).count();
        Piece { text, tokens: self.tokens.drain(..begun).collect(), stopped: false }
    }
}

/// Moves whole characters from `bytes` to `text`; bytes that can never become one are shown as U+FFFD.
pub(super) fn take_whole(bytes: &mut Vec<u8>, text: &mut String) {
    loop {
        match std::str::from_utf8(bytes) {
            Ok(whole) => {
                text.push_str(whole);
                bytes.clear();
                return;
            }
            Err(error) => {
                let valid = error.valid_up_to();
                text.push_str(&String::from_utf8_lossy(&bytes[..valid]));
                let Some(invalid) = error.error_len() else {
                    bytes.drain(..valid);
                    return;
                };
                text.push(char::REPLACEMENT_CHARACTER);
                bytes.drain(..valid + invalid);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::fixture::tokenizer;

    fn grow(text: &mut GrowingText, tokens: &[u32]) -> Vec<Piece> {
        let tokenizer = tokenizer();
        tokens.iter().map(|&token| text.push(&tokenizer, TokenScore { token, logprob: 0.0, top: Vec::new() })).collect()
    }

    fn stops(strings: &[&str]) -> StopStrings {
        StopStrings::new(strings.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn a_character_is_shown_when_its_last_byte_is_there() {
        let tokens = tokenizer().encode("a→語é🦀", false).unwrap();
        assert!(tokens.len() > 5, "the tokenizer splits these characters into bytes");
        let mut text = GrowingText::new(&StopStrings::default(), 0);
        let pieces = grow(&mut text, &tokens);
        assert!(pieces.iter().all(|piece| !piece.text.contains(char::REPLACEMENT_CHARACTER)));
        assert_eq!(pieces.iter().map(|piece| piece.text.as_str()).collect::<String>(), "a→語é🦀");
        let cut = &tokens[..tokens.len() - 1];
        let mut text = GrowingText::new(&StopStrings::default(), 0);
        let shown: String = grow(&mut text, cut).into_iter().map(|piece| piece.text).collect();
        assert_eq!((shown.as_str(), text.finish().text.as_str()), ("a→語é", ""));
    }

    #[test]
    fn bytes_that_are_no_character_do_not_hold_back_the_text() {
        let mut text = String::new();
        let mut bytes = vec![b'a', 0xff, b'b', 0xe2, 0x86];
        take_whole(&mut bytes, &mut text);
        assert_eq!((text.as_str(), bytes.as_slice()), ("a\u{fffd}b", [0xe2, 0x86].as_slice()));
    }

    #[test]
    fn no_part_of_a_stop_string_is_shown_though_tokens_cut_it() {
        let tokens = tokenizer().encode("one two\n\nthree", false).unwrap();
        let mut text = GrowingText::new(&stops(&["o\n\nth"]), 0);
        let pieces = grow(&mut text, &tokens);
        let end = pieces.iter().position(|piece| piece.stopped).expect("the stop string is there");
        let shown: String = pieces[..=end].iter().map(|piece| piece.text.as_str()).collect();
        assert_eq!(shown, "one tw");
    }

    #[test]
    fn what_looked_like_a_stop_string_is_shown_once_it_is_none() {
        let tokens = tokenizer().encode("one two", false).unwrap();
        let mut text = GrowingText::new(&stops(&["two three"]), 0);
        let mut shown: String = grow(&mut text, &tokens).into_iter().map(|piece| piece.text).collect();
        assert_eq!(shown, "one ");
        shown.push_str(&text.finish().text);
        assert_eq!(shown, "one two");
    }

    #[test]
    fn every_token_comes_out_once_with_the_text_that_it_begins() {
        let tokens = tokenizer().encode("naïve café 語", false).unwrap();
        let mut text = GrowingText::new(&stops(&["café au lait"]), 10);
        let mut pieces = grow(&mut text, &tokens);
        pieces.push(text.finish());
        let out: Vec<PieceToken> = pieces.into_iter().flat_map(|piece| piece.tokens).collect();
        assert_eq!(out.iter().map(|token| token.score.token).collect::<Vec<_>>(), tokens);
        assert_eq!(out[0].offset, 10);
        assert!(out.is_sorted_by_key(|token| token.offset));
    }
}
