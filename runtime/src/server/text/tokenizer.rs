//! The checkpoint's tokenizer: text to tokens, and the bytes of each token.

use std::path::{Path, PathBuf};

use thiserror::Error;
use tokenizers::DecoderWrapper;

/// Why a checkpoint's tokenizer cannot be used.
#[derive(Debug, Error)]
pub enum TokenizerError {
    /// The file is missing or is none.
    #[error("cannot read the tokenizer {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: tokenizers::Error,
    },
    /// Its tokens are not pieces of UTF-8 written as GPT-2 writes them.
    #[error("the tokenizer {path} has a decoder that is not supported; only ByteLevel is")]
    Decoder {
        /// The file.
        path: PathBuf,
    },
    /// A text could not be split.
    #[error("cannot tokenize the text: {0}")]
    Encode(tokenizers::Error),
}

/// A byte-level tokenizer with the bytes of every token at hand.
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    /// By token; empty where there is none.
    bytes: Vec<Vec<u8>>,
    /// By token: it never shows in text.
    special: Vec<bool>,
}

impl Tokenizer {
    /// Reads `tokenizer.json` of a checkpoint.
    ///
    /// # Errors
    /// If it cannot be read, or is no byte-level tokenizer.
    pub fn load(directory: &Path) -> Result<Self, TokenizerError> {
        let path = directory.join("tokenizer.json");
        let inner = tokenizers::Tokenizer::from_file(&path)
            .map_err(|source| TokenizerError::Read { path: path.clone(), source })?;
        if !matches!(inner.get_decoder(), Some(DecoderWrapper::ByteLevel(_))) {
            return Err(TokenizerError::Decoder { path });
        }
        let vocabulary = inner.get_vocab(true);
        let size = vocabulary.values().max().map_or(0, |&last| last as usize + 1);
        let mut bytes = vec![Vec::new(); size];
        let mut special = vec![false; size];
        let alphabet = byte_of_char();
        for (token, id) in vocabulary {
            bytes[id as usize] = bytes_of(&token, &alphabet);
        }
        for (id, token) in inner.get_added_tokens_decoder() {
            bytes[id as usize] = token.content.into_bytes();
            special[id as usize] = token.special;
        }
        Ok(Self { inner, bytes, special })
    }

    /// The tokens of a text, with those that the tokenizer puts around every text if `whole` says that it is one.
    ///
    /// # Errors
    /// If the tokenizer fails.
    pub fn encode(&self, text: &str, whole: bool) -> Result<Vec<u32>, TokenizerError> {
        let encoding = self.inner.encode_fast(text, whole).map_err(TokenizerError::Encode)?;
        Ok(encoding.get_ids().to_vec())
    }

    /// The token that is written as `text`, if there is one.
    #[must_use]
    pub fn token(&self, text: &str) -> Option<u32> {
        self.inner.token_to_id(text)
    }

    /// What a token adds to a text; nothing for special ones.
    #[must_use]
    pub fn shown_bytes(&self, token: u32) -> &[u8] {
        let special = self.special.get(token as usize).copied().unwrap_or(true);
        if special { &[] } else { self.bytes(token) }
    }

    /// The bytes of a token, special or not; empty if there is no such token.
    #[must_use]
    pub fn bytes(&self, token: u32) -> &[u8] {
        self.bytes.get(token as usize).map_or(&[], Vec::as_slice)
    }

    /// A token as OpenAI's API names it: its text, or `bytes:\xe2\x82` if it is only part of a character.
    #[must_use]
    pub fn name(&self, token: u32) -> String {
        use std::fmt::Write as _;
        let bytes = self.bytes(token);
        match std::str::from_utf8(bytes) {
            Ok(text) => text.to_owned(),
            Err(_) => bytes.iter().fold("bytes:".to_owned(), |mut name, byte| {
                write!(name, "\\x{byte:02x}").expect("writing to a string does not fail");
                name
            }),
        }
    }

    /// The text of a prompt, special tokens written out; bytes that are no UTF-8 become U+FFFD.
    #[must_use]
    pub fn text_of_prompt(&self, tokens: &[u32]) -> String {
        let bytes: Vec<u8> = tokens.iter().flat_map(|&token| self.bytes(token)).copied().collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

/// A vocabulary entry's bytes. One with a character outside the alphabet is taken as it is written.
fn bytes_of(token: &str, alphabet: &[Option<u8>]) -> Vec<u8> {
    let bytes: Option<Vec<u8>> = token.chars().map(|char| *alphabet.get(char as usize)?).collect();
    bytes.unwrap_or_else(|| token.as_bytes().to_vec())
}

/// The byte that each character stands for in a byte-level vocabulary: printable Latin-1 characters stand for
/// themselves, and the other bytes, in order, are written as the characters from U+0100 on (GPT-2, `bytes_to_unicode`).
fn byte_of_char() -> Vec<Option<u8>> {
    let mut byte_of = vec![None; 0x144];
    let mut others = 0x100..;
    for byte in 0..=u8::MAX {
        let printable = matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
        let char = if printable { usize::from(byte) } else { others.next().expect("endless") };
        byte_of[char] = Some(byte);
    }
    byte_of
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_byte_alphabet_is_the_one_of_the_tokenizers_crate() {
        let ours: std::collections::BTreeSet<char> =
            (0u32..0x144).filter(|&char| byte_of_char()[char as usize].is_some()).filter_map(char::from_u32).collect();
        let theirs = tokenizers::pre_tokenizers::byte_level::ByteLevel::alphabet().into_iter().collect();
        assert_eq!(ours, theirs);
        assert_eq!(bytes_of("Ġa", &byte_of_char()), b" a");
        assert_eq!(bytes_of("Ċ", &byte_of_char()), b"\n");
    }
}
