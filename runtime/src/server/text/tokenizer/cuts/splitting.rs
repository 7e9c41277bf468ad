//! What a pre-tokenizer makes of the two sides of a cut.

use tokenizers::SplitDelimiterBehavior;
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::metaspace::PrependScheme;

use super::Pair;
use super::pattern::Pattern;
use crate::server::text::tokenizer::spelling::byte_of_char;

/// How the `ByteLevel` pre-tokenizer splits (GPT-2).
const BYTE_LEVEL: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";

/// A step of the pre-tokenizer.
#[derive(Debug)]
pub enum Step {
    Pattern {
        pattern: Pattern,
        splits: bool,
    },
    /// Splits as a pattern if there is one, then writes bytes as characters; may put a space before each part.
    Bytes {
        pattern: Option<Pattern>,
        prefix: bool,
    },
    Metaspace {
        space: char,
        prefix: bool,
        only_first: bool,
        splits: bool,
    },
    Digits {
        individual: bool,
    },
    Punctuation,
    Space,
    Delimiter(char),
}

/// The steps of a pre-tokenizer; `None` if one of them may see across a cut.
pub fn steps(pre_tokenizer: Option<&PreTokenizerWrapper>) -> Option<Vec<Step>> {
    let isolates = |behavior| matches!(behavior, SplitDelimiterBehavior::Isolated | SplitDelimiterBehavior::Removed);
    let step = match pre_tokenizer {
        None => return Some(Vec::new()),
        Some(PreTokenizerWrapper::Sequence(sequence)) => {
            let parts: Option<Vec<Vec<Step>>> = sequence.as_ref().iter().map(|part| steps(Some(part))).collect();
            return Some(parts?.into_iter().flatten().collect());
        }
        Some(PreTokenizerWrapper::Split(split)) => {
            let pattern = serde_json::to_value(&split.pattern).ok()?;
            let pattern = match (pattern["String"].as_str(), pattern["Regex"].as_str()) {
                (Some(text), _) => Pattern::of(&regex_syntax::escape(text))?,
                (None, Some(expression)) => Pattern::of(expression)?,
                (None, None) => return None,
            };
            Step::Pattern { pattern, splits: isolates(split.behavior) }
        }
        Some(PreTokenizerWrapper::ByteLevel(bytes)) => {
            let pattern = if bytes.use_regex { Some(Pattern::of(BYTE_LEVEL)?) } else { None };
            Step::Bytes { pattern, prefix: bytes.add_prefix_space }
        }
        Some(PreTokenizerWrapper::Metaspace(metaspace)) => Step::Metaspace {
            space: metaspace.get_replacement(),
            prefix: metaspace.get_prepend_scheme() != PrependScheme::Never,
            only_first: metaspace.get_prepend_scheme() == PrependScheme::First,
            splits: metaspace.get_split(),
        },
        Some(PreTokenizerWrapper::Digits(digits)) => Step::Digits { individual: digits.individual_digits },
        Some(PreTokenizerWrapper::Punctuation(_)) => Step::Punctuation,
        Some(
            PreTokenizerWrapper::Whitespace(_)
            | PreTokenizerWrapper::WhitespaceSplit(_)
            | PreTokenizerWrapper::BertPreTokenizer(_),
        ) => Step::Space,
        Some(PreTokenizerWrapper::Delimiter(delimiter)) => Step::Delimiter(delimiter.delimiter),
        Some(PreTokenizerWrapper::UnicodeScripts(_) | PreTokenizerWrapper::FixedLength(_)) => return None,
    };
    Some(vec![step])
}

/// What a step makes of the two sides of a cut; it does the same to each side alone.
pub enum Side {
    /// They are in different parts.
    Split,
    /// They may be in one part, in which these characters are beside each other.
    Beside(Pair),
}

impl Step {
    /// What it makes of a pair; `None` if it may see across. `split` says that a step before has split the two, `last` that no step comes after.
    pub fn of(&self, pair: Pair, split: bool, last: bool) -> Option<Side> {
        let Pair { left, right } = pair;
        let beside = |splits: bool| Some(if splits { Side::Split } else { Side::Beside(pair) });
        match self {
            // What is put before the first part of a text would be put before every cut.
            Self::Metaspace { space, only_first: true, .. } if right != ' ' && right != *space => None,
            _ if split => Some(Side::Split),
            Self::Pattern { pattern, splits } => {
                if pattern.joins(left, right) {
                    return None;
                }
                beside(*splits && (pattern.covers(left) || pattern.covers(right)))
            }
            Self::Bytes { pattern, prefix } => {
                if *prefix && right != ' ' || pattern.as_ref().is_some_and(|pattern| pattern.joins(left, right)) {
                    return None;
                }
                match pattern {
                    Some(pattern) if pattern.covers(left) || pattern.covers(right) => Some(Side::Split),
                    // Further steps would see bytes.
                    _ if !last => None,
                    _ => Some(Side::Beside(Pair { left: byte_char(left, true)?, right: byte_char(right, false)? })),
                }
            }
            Self::Metaspace { space, prefix, splits, .. } => {
                let other = |char| if char == ' ' { *space } else { char };
                let pair = Pair { left: other(left), right: other(right) };
                match pair.right == *space {
                    true if *splits => Some(Side::Split),
                    false if *prefix => None,
                    _ => Some(Side::Beside(pair)),
                }
            }
            Self::Digits { individual } => {
                let (left, right) = (left.is_numeric(), right.is_numeric());
                beside(if *individual { left || right } else { left != right })
            }
            Self::Punctuation => {
                let is_other = |char: char| char.is_alphanumeric() || char.is_whitespace();
                if is_other(left) && is_other(right) { beside(false) } else { None }
            }
            Self::Space => right.is_whitespace().then_some(Side::Split),
            Self::Delimiter(delimiter) => beside(left == *delimiter || right == *delimiter),
        }
    }
}

/// The character that the last or first byte of a character is written as.
fn byte_char(char: char, last: bool) -> Option<char> {
    let mut bytes = [0; 4];
    let bytes = char.encode_utf8(&mut bytes).as_bytes();
    let byte = if last { bytes.last() } else { bytes.first() };
    let alphabet = byte_of_char();
    let code = alphabet.iter().position(|known| known.as_ref() == byte)?;
    char::from_u32(code as u32)
}
