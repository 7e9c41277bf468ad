//! Where the tokens of a prompt begin in its text, in characters.

use tokenizers::tokenizer::NormalizedString;
use tokenizers::tokenizer::normalizer::Range;

use super::Tokenizer;
use super::growing::take_whole;

/// Where tokens begin in the text that [`Tokenizer::text_of_prompt`] makes of them.
#[must_use]
pub fn offsets_in_own_text(tokenizer: &Tokenizer, tokens: &[u32]) -> Vec<u32> {
    let (mut partial, mut text, mut before) = (Vec::new(), String::new(), 0);
    tokenizer
        .bytes_of_text(tokens)
        .map(|bytes| {
            let offset = before;
            partial.extend_from_slice(bytes);
            take_whole(&mut partial, &mut text);
            before += text.drain(..).count() as u32;
            offset
        })
        .collect()
}

/// Where tokens begin in the text that they were made of. A token that is not written in the text, such as the one that
/// some tokenizers put before every text, begins where the next one does.
#[must_use]
pub fn offsets_in_given_text(tokenizer: &Tokenizer, text: &str, tokens: &[u32]) -> Vec<u32> {
    let as_given = NormalizedString::from(text);
    let walk = Walk::through(tokenizer, &as_given, tokens);
    if walk.is_whole {
        return walk.offsets;
    }
    // The tokenizer has written characters in another way before it made tokens of them, most often composed.
    let as_read = tokenizer.normalized(text);
    let read = Walk::through(tokenizer, &as_read, tokens);
    if read.is_whole { read.offsets } else { walk.offsets }
}

struct Walk {
    offsets: Vec<u32>,
    /// The tokens are the whole text.
    is_whole: bool,
}

impl Walk {
    /// Follows tokens through a text as it was read; offsets are those of the text as it was given.
    fn through(tokenizer: &Tokenizer, read: &NormalizedString, tokens: &[u32]) -> Self {
        let (text, given) = (read.get(), read.get_original());
        let mut at = 0;
        let (mut bytes_before, mut characters_before) = (0, 0);
        let offsets = tokenizer.bytes_of_text(tokens).map(|bytes| {
            // A token may begin within a character.
            let start = text.floor_char_boundary(at);
            let end = text.ceil_char_boundary(start + 1).min(text.len());
            let original = read.convert_offsets(Range::Normalized(start..end)).map_or(given.len(), |range| range.start);
            characters_before += given.get(bytes_before..original).map_or(0, |text| text.chars().count()) as u32;
            bytes_before = bytes_before.max(original);
            if text.as_bytes()[at..].starts_with(bytes) {
                at += bytes.len();
            }
            characters_before
        });
        let offsets = offsets.collect();
        Self { offsets, is_whole: at == text.len() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::fixture::tokenizer;

    fn offsets(text: &str) -> Vec<u32> {
        let tokenizer = tokenizer();
        offsets_in_given_text(&tokenizer, text, &tokenizer.encode(text, true).unwrap())
    }

    #[test]
    fn offsets_of_a_text_that_was_composed_are_those_of_the_text_that_was_given() {
        let composed = "caf\u{e9} au lait";
        let decomposed = "cafe\u{301} au lait";
        let tokenizer = tokenizer();
        assert_eq!(tokenizer.encode(composed, true).unwrap(), tokenizer.encode(decomposed, true).unwrap());
        let (one, other) = (offsets(composed), offsets(decomposed));
        let shifted: Vec<u32> = one.iter().map(|&offset| if offset > 3 { offset + 1 } else { offset }).collect();
        assert_eq!(other, shifted);
        assert_eq!(one, offsets_in_own_text(&tokenizer, &tokenizer.encode(composed, true).unwrap()));
    }

    #[test]
    fn a_token_within_a_character_begins_where_the_character_does() {
        let tokenizer = tokenizer();
        let text = "a\u{8a9e}\u{1f980}b";
        let tokens = tokenizer.encode(text, true).unwrap();
        let offsets = offsets(text);
        assert_eq!(offsets, offsets_in_own_text(&tokenizer, &tokens));
        assert_eq!((offsets[0], *offsets.last().unwrap()), (0, 3));
    }

    #[test]
    fn a_token_that_is_not_written_takes_no_room() {
        let tokenizer = tokenizer();
        let mut tokens = vec![tokenizer.token("<|im_start|>").unwrap()];
        tokens.extend(tokenizer.encode("The cat", true).unwrap());
        let offsets = offsets_in_given_text(&tokenizer, "The cat", &tokens);
        assert_eq!(offsets[..2], [0, 0]);
        assert_eq!(offsets[1..], super::tests::offsets("The cat"));
    }
}
