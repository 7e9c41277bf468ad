//! The checkpoint's tokenizer: text to tokens as transformers' `AutoTokenizer` of the same folder gives them, and the
//! bytes of each token.

mod added;
mod class;
mod cuts;
mod expressions;
mod fewest;
mod files;
mod growth;
mod spelling;

use std::path::Path;

use plan::words::counted;
use serde_json::Value;
use thiserror::Error;
use tokenizers::tokenizer::pre_tokenizer::{OffsetType, PreTokenizedString};
use tokenizers::{
    Encoding, Model as _, ModelWrapper, NormalizedString, Normalizer as _, NormalizerWrapper, OffsetReferential,
    PreTokenizer as _, PreTokenizerWrapper, TruncationDirection,
};

use self::class::Class;
use self::cuts::Cuts;
use self::expressions::translate_all;
use self::fewest::Fewest;
pub use self::files::TokenizerFiles;
use self::growth::growth;
use self::spelling::{Spelling, byte_of_char};
use crate::model::folder::FileError;
use crate::quoted::Quoted;
use crate::threads::{attempt, survive};

/// A text with letters, digits, signs and a character of several bytes, which every tokenizer has to take.
const TRIAL: &str = "A trial, of 1 text: é.";

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
    /// A text has more white space than an expression that looks ahead can go back over.
    #[error(
        "the text has {run} white space characters in a row, more than the {WHITE_SPACE} that are supported; shorten it"
    )]
    WhiteSpace {
        /// How many.
        run: usize,
    },
    /// A text has more tokens than are wanted of it.
    #[error("the text has at least {}", counted(*at_least, "token"))]
    TooMany {
        /// Tokens that it has, or more.
        at_least: usize,
    },
}

/// Bytes of text that tokens are made of at a time: what is in between takes a hundred times as much memory.
const PIECE: usize = 16 << 10;

/// White space characters in a row: twice as many fill the stack of an expression that looks ahead, which then would
/// match nothing more without a word.
const WHITE_SPACE: usize = 500_000;

/// How many times as long a normalizer may make a text; those of models that people serve make it 12 times as long.
const GROWTH: usize = 64;

/// Words whose tokens each thread keeps: those of 255 bytes take 8 KiB each.
const WORDS_KEPT: usize = 1_024;

/// A tokenizer with the bytes of every token at hand.
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    /// By token; empty where there is none.
    bytes: Vec<Vec<u8>>,
    /// By token: it never shows in text.
    special: Vec<bool>,
    spelling: Spelling,
    named: Vec<(String, String)>,
    cuts: Cuts,
    fewest: Option<Fewest>,
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
        // Some files that make no tokenizer end in a panic of the reader.
        survive(|| Self::make(files))
            .unwrap_or_else(|reason| Err(TokenizerError::Wrong { file: "tokenizer.json", reason }))
    }

    fn make(files: &TokenizerFiles) -> Result<Self, TokenizerError> {
        let class = Class::of(files)?;
        let parts = class.parts(files)?;
        let mut inner = read_or_wrong(|| tokenizers::Tokenizer::from_bytes(parts))?;
        check_settings(files, &inner)?;
        check_growth(&inner)?;
        read_or_wrong(|| inner.encode_fast(TRIAL, true).map(|_| ()))?;
        // transformers turns both off for a text that it is not asked to cut or to fill.
        read_or_wrong(|| inner.with_truncation(None).map(|_| ()))?;
        inner.with_padding(None);
        let splits = files.config.get("split_special_tokens").and_then(Value::as_bool);
        inner.set_encode_special_tokens(splits.unwrap_or(false));
        keep_few_words(&mut inner);
        translate_expressions(&mut inner)?;
        let named = added::add_tokens(&mut inner, files, class)?.named();
        let decoder = serde_json::to_value(inner.get_decoder())
            .map_err(|error| TokenizerError::Json { file: "tokenizer.json", reason: error.to_string().into() })?;
        let spelling = Spelling::of(&decoder).map_err(|name| TokenizerError::Decoder { name })?;
        let (bytes, special) = table(&inner, &spelling)?;
        let (cuts, fewest) = (Cuts::of(&inner), Fewest::of(&inner));
        Ok(Self { inner, bytes, special, spelling, named, cuts, fewest })
    }

    /// The tokens of a text, with those that the tokenizer puts around every text if `whole` says that it is one.
    ///
    /// # Errors
    /// If the tokenizer fails.
    pub fn encode(&self, text: &str, whole: bool) -> Result<Vec<u32>, TokenizerError> {
        self.encode_at_most(text, whole, usize::MAX)
    }

    /// The same of a text that is not wanted if it has more than `most` tokens: what it costs is bounded by those, and not
    /// by its length.
    ///
    /// # Errors
    /// If it was found to have more before all of them were made, or the tokenizer fails.
    pub fn encode_at_most(&self, text: &str, whole: bool, most: usize) -> Result<Vec<u32>, TokenizerError> {
        self.encode_in_pieces(text, whole, most, PIECE)
    }

    /// The same, of pieces that are at most so many bytes long where they can be cut.
    ///
    /// # Errors
    /// As [`Self::encode_at_most`].
    pub fn encode_in_pieces(
        &self,
        text: &str,
        whole: bool,
        most: usize,
        piece: usize,
    ) -> Result<Vec<u32>, TokenizerError> {
        // Tokens of less than four bytes cost no more to make than to count.
        if let Some(fewest) = &self.fewest
            && text.len() > piece
            && text.len() / 4 > most
            && let Some(at_least) = fewest.beyond(text, most)
        {
            return Err(TokenizerError::TooMany { at_least });
        }
        let (mut tokens, mut done) = (Vec::new(), 0);
        for next in self.pieces(text, piece) {
            check_white_space(next)?;
            survive(|| self.add_tokens_of(next, &mut tokens, most, piece))
                .unwrap_or_else(|panic| Err(panic.into()))
                .map_err(TokenizerError::Encode)?;
            done += next.len();
            if tokens.len() > most && (done < text.len() || next.len() > piece) {
                return Err(TokenizerError::TooMany { at_least: tokens.len() });
            }
        }
        let single = tokens.into_iter().map(|token| (token, String::new(), (0, 0), None, 0));
        let all = self.inner.post_process(single.collect::<Encoding>(), None, whole).map_err(TokenizerError::Encode)?;
        Ok(all.get_ids().to_vec())
    }

    /// The pieces of a text, each with the tokens that it has within the text.
    pub fn pieces<'t>(&self, text: &'t str, usual: usize) -> impl Iterator<Item = &'t str> {
        let mut rest = text;
        std::iter::from_fn(move || {
            let (next, after) = rest.split_at(self.cuts.end(rest, usual));
            rest = after;
            (!next.is_empty()).then_some(next)
        })
    }

    /// Adds the tokens of a piece of a text; not all of them if it is longer than usual and they are more than `most`.
    fn add_tokens_of(
        &self,
        text: &str,
        tokens: &mut Vec<u32>,
        most: usize,
        usual: usize,
    ) -> Result<(), tokenizers::Error> {
        let inner = &self.inner;
        let mut parts: PreTokenizedString =
            inner.get_added_vocabulary().extract_and_normalize(inner.get_normalizer(), text);
        if let Some(pre_tokenizer) = inner.get_pre_tokenizer() {
            pre_tokenizer.pre_tokenize(&mut parts)?;
        }
        let enough = (text.len() > usual).then(|| most.saturating_sub(tokens.len()).saturating_add(1));
        inner
            .get_model()
            .tokenize_in_pretokenized(&mut parts, enough.map(|enough| (enough, TruncationDirection::Right)))?;
        let parts = parts.get_splits(OffsetReferential::Original, OffsetType::None);
        tokens.extend(parts.iter().filter_map(|(_, _, made)| made.as_ref()).flatten().map(|token| token.id));
        Ok(())
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

/// Checks a piece of a text, which white space is never cut in.
fn check_white_space(text: &str) -> Result<(), TokenizerError> {
    if text.len() <= WHITE_SPACE {
        return Ok(());
    }
    let runs = text.split(|char: char| !char.is_whitespace()).map(|run| run.chars().count());
    match runs.max() {
        Some(run) if run > WHITE_SPACE => Err(TokenizerError::WhiteSpace { run }),
        _ => Ok(()),
    }
}

/// Does what the crate panics at with some files, and with some only when it is given a text.
fn read_or_wrong<T>(read: impl FnOnce() -> tokenizers::Result<T>) -> Result<T, TokenizerError> {
    let wrong = |reason: String| TokenizerError::Wrong { file: "tokenizer.json", reason };
    let read = attempt(read).map_err(|panic| wrong(format!("reading it fails with {panic}")))?;
    read.map_err(|error| wrong(error.to_string()))
}

/// Refuses a normalizer with which a short text would cost as much as a long one.
fn check_growth(inner: &tokenizers::Tokenizer) -> Result<(), TokenizerError> {
    const FILE: &str = "tokenizer.json";
    let normalizer = serde_json::to_value(inner.get_normalizer())
        .map_err(|error| TokenizerError::Json { file: FILE, reason: error.to_string().into() })?;
    if growth(&normalizer) > GROWTH {
        let setting = "a normalizer that can make a text more than 64 times as long";
        return Err(TokenizerError::Setting { file: FILE, setting });
    }
    Ok(())
}

/// Makes the tokenizer read its expressions as transformers' does.
fn translate_expressions(inner: &mut tokenizers::Tokenizer) -> Result<(), TokenizerError> {
    const FILE: &str = "tokenizer.json";
    let unsupported = |setting| TokenizerError::Setting { file: FILE, setting };
    let json = |error: serde_json::Error| TokenizerError::Json { file: FILE, reason: error.to_string().into() };
    let mut normalizer = serde_json::to_value(inner.get_normalizer()).map_err(json)?;
    if translate_all(&mut normalizer).map_err(unsupported)? {
        let normalizer: NormalizerWrapper = serde_json::from_value(normalizer).map_err(json)?;
        let with = inner.with_normalizer(Some(normalizer));
        with.map_err(|error| TokenizerError::Wrong { file: FILE, reason: error.to_string() })?;
    }
    let mut pre_tokenizer = serde_json::to_value(inner.get_pre_tokenizer()).map_err(json)?;
    if translate_all(&mut pre_tokenizer).map_err(unsupported)? {
        inner.with_pre_tokenizer(Some(serde_json::from_value::<PreTokenizerWrapper>(pre_tokenizer).map_err(json)?));
    }
    Ok(())
}

/// Makes the model keep the tokens of few words: which ones it keeps, requests decide.
fn keep_few_words(inner: &mut tokenizers::Tokenizer) {
    let mut model = inner.get_model().clone();
    match &mut model {
        ModelWrapper::BPE(model) => model.resize_cache(WORDS_KEPT),
        ModelWrapper::Unigram(model) => model.resize_cache(WORDS_KEPT),
        ModelWrapper::WordLevel(_) | ModelWrapper::WordPiece(_) => return,
    }
    inner.with_model(model);
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
