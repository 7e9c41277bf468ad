//! The checkpoint's tokenizer: text to tokens as transformers' `AutoTokenizer` of the same folder gives them, and the
//! bytes of each token.

mod added;
mod class;
mod files;
mod spelling;

use std::path::Path;

use serde_json::Value;
use thiserror::Error;
use tokenizers::{ModelWrapper, NormalizedString, Normalizer as _};

use self::class::Class;
pub use self::files::TokenizerFiles;
use self::spelling::{Spelling, byte_of_char};
use crate::model::folder::FileError;
use crate::quoted::Quoted;

/// Why a checkpoint's tokenizer cannot be used.
#[derive(Debug, Error)]
pub enum TokenizerError {
    /// A file cannot be had.
    #[error(transparent)]
    File(#[from] FileError),
    /// There is no `tokenizer.json`.
    #[error(
        "tokenizer.json is missing; make it with AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER) of \
         transformers"
    )]
    Missing,
    /// A file is no JSON.
    #[error("{file} is no JSON: {reason}")]
    Json {
        /// The file.
        file: &'static str,
        /// What is wrong.
        reason: Quoted<100>,
    },
    /// A file says something that makes no tokenizer.
    #[error("{file} makes no tokenizer: {}", Quoted::<120>::from(.reason))]
    Wrong {
        /// The file.
        file: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// transformers would load it with a class that is not known here.
    #[error(
        "tokenizer_class {} is not supported, only Qwen2Tokenizer, GPT2Tokenizer, LlamaTokenizer and \
         PreTrainedTokenizerFast are; take the last one if tokenizer.json alone says how to tokenize",
        Quoted::<40>::from(.name)
    )]
    Class {
        /// The class.
        name: String,
    },
    /// Its tokens have no bytes of their own.
    #[error(
        "tokenizer.json has a decoder that is not supported, {}; ByteLevel, Metaspace and Sequence of Replace, \
         ByteFallback, Fuse and Strip are",
        Quoted::<40>::from(.name)
    )]
    Decoder {
        /// What is not supported.
        name: String,
    },
    /// A setting that would give other tokens or another text and is not done.
    #[error("{file} asks for {setting}, which is not supported; leave it out if the model can do without")]
    Setting {
        /// The file.
        file: &'static str,
        /// The setting.
        setting: &'static str,
    },
    /// A text could not be split.
    #[error("cannot tokenize the text: {0}")]
    Encode(tokenizers::Error),
}

/// A tokenizer with the bytes of every token at hand.
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    /// By token; empty where there is none.
    bytes: Vec<Vec<u8>>,
    /// By token: it never shows in text.
    special: Vec<bool>,
    spelling: Spelling,
    named: Vec<(String, String)>,
}

impl Tokenizer {
    /// Reads the tokenizer of a checkpoint.
    ///
    /// # Errors
    /// See [`Self::new`].
    pub fn load(directory: &Path) -> Result<Self, TokenizerError> {
        Self::new(&TokenizerFiles::read(directory)?)
    }

    /// Makes the tokenizer that files describe.
    ///
    /// # Errors
    /// If they describe none, or one that cannot be the same as transformers'.
    pub fn new(files: &TokenizerFiles) -> Result<Self, TokenizerError> {
        let wrong = |reason: String| TokenizerError::Wrong { file: "tokenizer.json", reason };
        let class = Class::of(files)?;
        let mut inner =
            tokenizers::Tokenizer::from_bytes(class.parts(files)?).map_err(|error| wrong(error.to_string()))?;
        check_settings(files, &inner)?;
        // transformers turns both off for a text that it is not asked to cut or to fill.
        inner.with_truncation(None).map_err(|error| wrong(error.to_string()))?;
        inner.with_padding(None);
        let splits = files.config.get("split_special_tokens").and_then(Value::as_bool);
        inner.set_encode_special_tokens(splits.unwrap_or(false));
        let named = added::add_tokens(&mut inner, files, class)?.named();
        let decoder = serde_json::to_value(inner.get_decoder())
            .map_err(|error| TokenizerError::Json { file: "tokenizer.json", reason: error.to_string().into() })?;
        let spelling = Spelling::of(&decoder).map_err(|name| TokenizerError::Decoder { name })?;
        let (bytes, special) = table(&inner, &spelling)?;
        Ok(Self { inner, bytes, special, spelling, named })
    }

    /// The tokens of a text, with those that the tokenizer puts around every text if `whole` says that it is one.
    ///
    /// # Errors
    /// If the tokenizer fails.
    pub fn encode(&self, text: &str, whole: bool) -> Result<Vec<u32>, TokenizerError> {
        let encoding = self.inner.encode_fast(text, whole).map_err(TokenizerError::Encode)?;
        Ok(encoding.get_ids().to_vec())
    }

    /// A text as it is before tokens are made of it; as it was given if the tokenizer cannot say.
    #[must_use]
    pub fn normalized(&self, text: &str) -> NormalizedString {
        let mut normalized = NormalizedString::from(text);
        match self.inner.get_normalizer().map(|normalizer| normalizer.normalize(&mut normalized)) {
            None | Some(Ok(())) => normalized,
            Some(Err(_)) => NormalizedString::from(text),
        }
    }

    /// The token that is written as `text`, if there is one.
    #[must_use]
    pub fn token(&self, text: &str) -> Option<u32> {
        self.inner.token_to_id(text)
    }

    /// Names and texts of the special tokens, as chat templates see them.
    #[must_use]
    pub fn named_tokens(&self) -> &[(String, String)] {
        &self.named
    }

    /// The text of a named special token.
    #[must_use]
    pub fn named_token(&self, name: &str) -> Option<&str> {
        self.named.iter().find(|(known, _)| known == name).map(|(_, text)| text.as_str())
    }

    /// Bytes of the longest token.
    #[must_use]
    pub fn longest_token(&self) -> usize {
        self.bytes.iter().map(Vec::len).max().unwrap_or(0)
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

    /// The bytes of each token of a whole text, special tokens written out. Some tokenizers put a space before every
    /// text, which is left out again.
    pub fn bytes_of_text<'a>(&'a self, tokens: &'a [u32]) -> impl Iterator<Item = &'a [u8]> {
        tokens.iter().enumerate().map(|(index, &token)| {
            let bytes = self.bytes(token);
            if index == 0 { self.spelling.at_beginning(bytes) } else { bytes }
        })
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
        let bytes: Vec<u8> = self.bytes_of_text(tokens).flatten().copied().collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

/// The bytes of each token, and whether it is special.
fn table(inner: &tokenizers::Tokenizer, spelling: &Spelling) -> Result<(Vec<Vec<u8>>, Vec<bool>), TokenizerError> {
    /// The largest vocabularies have some 260,000 tokens; a file that names one beyond would cost memory for nothing.
    const LARGEST: usize = 1 << 24;
    let vocabulary = inner.get_vocab(true);
    let size = vocabulary.values().max().map_or(0, |&last| last as usize + 1);
    if size > LARGEST {
        let reason = format!("its last token is {}, more than the {LARGEST} that are supported", size - 1);
        return Err(TokenizerError::Wrong { file: "tokenizer.json", reason });
    }
    let mut bytes = vec![Vec::new(); size];
    let mut special = vec![false; size];
    let alphabet = byte_of_char();
    for (token, id) in vocabulary {
        bytes[id as usize] = spelling.bytes(&token, false, &alphabet);
    }
    for (id, token) in inner.get_added_tokens_decoder() {
        bytes[id as usize] = spelling.bytes(&token.content, true, &alphabet);
        special[id as usize] = inner.get_added_vocabulary().is_special_token(&token.content);
    }
    Ok((bytes, special))
}

/// Refuses what would give other tokens or another text and is not done.
fn check_settings(files: &TokenizerFiles, inner: &tokenizers::Tokenizer) -> Result<(), TokenizerError> {
    let is_set = |name: &str| files.config.get(name).is_some_and(|value| value == true);
    let of_config = |setting| Err(TokenizerError::Setting { file: "tokenizer_config.json", setting });
    let is_bpe = match inner.get_model() {
        ModelWrapper::BPE(model) if model.dropout.is_some_and(|dropout| dropout > 0.0) => {
            return Err(TokenizerError::Setting { file: "tokenizer.json", setting: "dropout" });
        }
        ModelWrapper::BPE(_) => true,
        ModelWrapper::Unigram(_) | ModelWrapper::WordLevel(_) | ModelWrapper::WordPiece(_) => false,
    };
    if is_set("clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output") {
        return of_config("clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output");
    }
    if !is_bpe && is_set("clean_up_tokenization_spaces") {
        return of_config("clean_up_tokenization_spaces");
    }
    let versions = files.config.get("fast_tokenizer_files").and_then(Value::as_array);
    let names = versions.into_iter().flatten().filter_map(Value::as_str);
    if names.into_iter().any(|name| name != "tokenizer.json") {
        return of_config("fast_tokenizer_files");
    }
    Ok(())
}
