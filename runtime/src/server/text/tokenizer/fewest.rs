//! The fewest tokens that a text can have, found without making them: a text that no context can hold is refused for what
//! reading a context's worth of it costs, however long it is and whatever its words are.

use std::collections::HashSet;

use tokenizers::normalizers::NormalizerWrapper;
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::{ModelWrapper, SplitDelimiterBehavior, Tokenizer};

use super::cuts::is_simple;
use super::spelling::byte_of_char;

/// The bytes of all tokens as a tree, children of a node in a row. Only of tokenizers whose tokens are the text, byte by
/// byte, but for characters that are composed.
#[derive(Debug)]
pub(super) struct Fewest {
    /// By node: its last byte, its first child and whether a token ends with it. The root is the first.
    labels: Vec<u8>,
    children: Vec<u32>,
    ends: Vec<bool>,
    longest: usize,
    composes: bool,
}

impl Fewest {
    /// Of a tokenizer; of some, nothing is known.
    pub fn of(tokenizer: &Tokenizer) -> Option<Self> {
        let composes = match tokenizer.get_normalizer() {
            None => false,
            Some(NormalizerWrapper::NFC(_)) => true,
            Some(_) => return None,
        };
        let ModelWrapper::BPE(model) = tokenizer.get_model() else { return None };
        let keeps_bytes = keeps_all(tokenizer.get_pre_tokenizer(), true)
            && model.continuing_subword_prefix.is_none()
            && model.end_of_word_suffix.is_none();
        let added = tokenizer.get_added_tokens_decoder();
        if !keeps_bytes || added.values().any(|token| token.lstrip || token.rstrip) {
            return None;
        }
        let alphabet = byte_of_char();
        let bytes = |token: &str| token.chars().map(|char| *alphabet.get(char as usize)?).collect::<Option<Vec<u8>>>();
        let tokens = model.get_vocab().into_keys();
        let mut tokens: Vec<Vec<u8>> =
            tokens.map(|token| bytes(&token).unwrap_or_else(|| token.into_bytes())).collect();
        // A byte without a token would be left out.
        if tokens.iter().filter(|token| token.len() == 1).collect::<HashSet<_>>().len() < 256 {
            return None;
        }
        tokens.extend(added.values().map(|token| token.content.clone().into_bytes()));
        tokens.sort_unstable();
        tokens.dedup();
        Some(Self::of_tokens(&tokens, composes))
    }

    /// Of tokens in order.
    fn of_tokens(tokens: &[Vec<u8>], composes: bool) -> Self {
        let longest = tokens.iter().map(Vec::len).max().unwrap_or(0);
        let mut tree = Self { labels: vec![0], children: Vec::new(), ends: Vec::new(), longest, composes };
        let mut level = vec![tokens];
        for depth in 0.. {
            let mut next = Vec::new();
            for of_node in level {
                let is_end = of_node.first().is_some_and(|token| token.len() == depth);
                tree.ends.push(is_end);
                tree.children.push(tree.labels.len() as u32);
                for of_child in of_node[usize::from(is_end)..].chunk_by(|one, other| one[depth] == other[depth]) {
                    tree.labels.push(of_child[0][depth]);
                    next.push(of_child);
                }
            }
            if next.is_empty() {
                break;
            }
            level = next;
        }
        tree.children.push(tree.labels.len() as u32);
        tree
    }

    /// How many tokens a text has at least, if they are more than `most`. Looks no further than it must.
    pub fn beyond(&self, text: &str, most: usize) -> Option<usize> {
        // `count` tokens reach to `reach` at most; one more, from wherever there, to `further`.
        let (mut count, mut reach, mut further) = (0, 0, 0);
        let composes = self.composes && !text.is_ascii();
        for at in 0..text.len() {
            further = further.max(self.end(text, at, composes)).max(at + 1);
            if further == text.len() {
                return (reach < text.len() && count == most).then_some(count + 1);
            }
            if at == reach {
                (count, reach) = (count + 1, further);
                if count > most {
                    return Some(count);
                }
            }
        }
        None
    }

    /// Where the longest token ends that may begin at a place of a text, some of which may be composed.
    fn end(&self, text: &str, at: usize, composes: bool) -> usize {
        let (mut node, mut end) = (0, at);
        for (index, &byte) in text.as_bytes().iter().enumerate().skip(at) {
            if composes && !is_fixed(text, index) {
                return end_beyond(text, index, self.longest - (index - at));
            }
            let children = self.children[node] as usize..self.children[node + 1] as usize;
            let Ok(child) = self.labels[children.clone()].binary_search(&byte) else { break };
            node = children.start + child;
            if self.ends[node] {
                end = index + 1;
            }
        }
        end
    }
}

/// Where a token ends at most that goes on, with so many bytes, where characters may have been composed.
fn end_beyond(text: &str, from: usize, bytes: usize) -> usize {
    /// Bytes of which composing makes one, at most: three Hangul letters are one syllable, of as many bytes as each.
    const COMPOSED: usize = 3;
    /// Bytes that are composed with others beyond the token.
    const BESIDE: usize = 16;
    let mut left = COMPOSED * (bytes + BESIDE);
    for index in from..text.len() {
        let takes = if is_fixed(text, index) { COMPOSED } else { 1 };
        if left < takes {
            return index;
        }
        left -= takes;
    }
    text.len()
}

/// Whether a byte is of a character that composing leaves as it is, beside these neighbours.
fn is_fixed(text: &str, index: usize) -> bool {
    let bytes = text.as_bytes();
    if bytes[index].is_ascii() && bytes.get(index + 1).is_none_or(u8::is_ascii) {
        return true;
    }
    let mut chars = text[text.floor_char_boundary(index)..].chars();
    chars.next().is_none_or(is_simple) && chars.next().is_none_or(is_simple)
}

/// Whether every byte of a text is a byte of a token.
fn keeps_all(pre_tokenizer: Option<&PreTokenizerWrapper>, last: bool) -> bool {
    match pre_tokenizer {
        Some(PreTokenizerWrapper::ByteLevel(_)) => last,
        Some(PreTokenizerWrapper::Sequence(sequence)) if last => {
            let parts = sequence.as_ref();
            parts.iter().enumerate().all(|(index, part)| keeps_all(Some(part), index + 1 == parts.len()))
        }
        Some(PreTokenizerWrapper::Split(split)) => !last && split.behavior != SplitDelimiterBehavior::Removed,
        Some(PreTokenizerWrapper::Punctuation(split)) => !last && split.behavior != SplitDelimiterBehavior::Removed,
        Some(PreTokenizerWrapper::Digits(_)) => !last,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(tokens: &[&str], composes: bool) -> Fewest {
        let mut tokens: Vec<Vec<u8>> = tokens.iter().map(|token| token.as_bytes().to_vec()).collect();
        tokens.sort();
        Fewest::of_tokens(&tokens, composes)
    }

    #[test]
    fn no_cover_of_a_text_is_shorter() {
        let tree = tree(&["a", "b", "ab", "bab", "aaaa"], false);
        assert_eq!(tree.beyond("aaaaaaaaa", 2), Some(3));
        assert_eq!(tree.beyond("aaaaaaaaa", 3), None);
        assert_eq!(tree.beyond("abab", 1), Some(2));
        assert_eq!(tree.beyond("abab", 2), None);
        assert_eq!(tree.beyond("xyz", 2), Some(3), "what is no token is one a byte at least");
        assert_eq!(tree.beyond("", 0), None);
    }

    #[test]
    fn only_as_much_is_read_as_shows_it() {
        let tree = tree(&["a", "aaaa"], false);
        let begin = "a".repeat(100);
        assert_eq!(tree.beyond(&format!("{begin}{}", "b".repeat(1 << 20)), 10), Some(11));
    }

    #[test]
    fn what_may_be_composed_counts_for_less() {
        let words = ["a", "e", "\u{e9}", "aaaaaaaa"];
        let text = "e\u{301}".repeat(100);
        assert_eq!(tree(&words, true).beyond(&text, 10), None);
        assert_eq!(tree(&words, false).beyond(&text, 10), Some(11));
        assert_eq!(tree(&words, true).beyond(&"e\u{301}".repeat(1000), 10), Some(11));
        assert_eq!(tree(&words, true).beyond(&"\u{e9}e".repeat(100), 10), Some(11));
    }
}
