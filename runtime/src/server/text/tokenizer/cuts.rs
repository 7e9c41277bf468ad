//! Where a text may be cut so that the tokens of its parts are those of the whole. A cut is between two characters, and
//! it is safe only if no step of the tokenizer can see across: added tokens, normalizer, pre-tokenizer and model. What is
//! not known to be safe is not cut.

mod pattern;

use std::collections::{HashMap, HashSet};

use tokenizers::normalizers::{NormalizerWrapper, Sequence};
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::metaspace::PrependScheme;
use tokenizers::{ModelWrapper, NormalizedString, Normalizer as _, SplitDelimiterBehavior, Tokenizer};

use self::pattern::Pattern;

/// How the `ByteLevel` pre-tokenizer splits (GPT-2).
const BYTE_LEVEL: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";

/// Pairs whose answer is kept while one text is cut.
const PAIRS_KEPT: usize = 4_096;

/// The two characters beside a cut, as far as the tokenizer has come with them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Pair {
    left: char,
    right: char,
}

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Cuts {
    added: Added,
    /// Without these nothing is cut but before added tokens.
    steps: Option<Steps>,
}

#[derive(Debug)]
struct Steps {
    normalizing: Vec<Change>,
    splitting: Vec<Step>,
    model: Model,
}

/// Added tokens, as far as they matter to cuts.
#[derive(Debug, Default)]
struct Added {
    /// Characters that stand beside each other within one.
    within: HashSet<(char, char)>,
    /// Characters at whose right or left a token looks for white space or words.
    seen_before: HashSet<char>,
    seen_after: HashSet<char>,
    /// Tokens that are found wherever they are written, by their first character, which no other token has elsewhere.
    heads: HashMap<char, Vec<String>>,
}

/// What a normalizer does with each character alone.
#[derive(Debug)]
enum Change {
    /// What it does not change alone, it does not change beside others either, if those neither compose nor are marks.
    Alone(NormalizerWrapper),
    /// Another text for one character.
    Character(char, char),
    /// Another text for what does not touch the two.
    Text(String),
    Matches(Pattern),
}

/// A step of the pre-tokenizer.
#[derive(Debug)]
enum Step {
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

/// What joins characters that were not split.
#[derive(Debug)]
enum Model {
    /// Characters that stand before a space of one of these forms in no token.
    Merges { before: HashMap<char, HashSet<char>>, known: HashSet<char> },
    /// It may join any.
    Any,
}

impl Cuts {
    /// Where texts of a tokenizer may be cut.
    pub fn of(tokenizer: &Tokenizer) -> Self {
        let normalizing = changes(tokenizer.get_normalizer());
        let splitting = steps(tokenizer.get_pre_tokenizer());
        let steps = normalizing.zip(splitting).map(|(normalizing, splitting)| {
            let model = Model::of(tokenizer.get_model());
            Steps { normalizing, splitting, model }
        });
        Self { added: Added::of(tokenizer), steps }
    }

    /// Where the first part of a text ends that is at most `usual` bytes long, and longer only if there is no safe cut.
    pub fn end(&self, text: &str, usual: usize) -> usize {
        if text.len() <= usual {
            return text.len();
        }
        let mut known = HashMap::new();
        let middle = text.floor_char_boundary(usual);
        let least = text.ceil_char_boundary(usual / 2).max(1);
        let back = (least..=middle).rev().filter(|&at| text.is_char_boundary(at));
        let on = (middle + 1..text.len()).filter(|&at| text.is_char_boundary(at));
        back.chain(on).find(|&at| self.is_safe(text, at, &mut known)).unwrap_or(text.len())
    }

    fn is_safe(&self, text: &str, at: usize, known: &mut HashMap<Pair, bool>) -> bool {
        let (Some(left), Some(right)) = (text[..at].chars().next_back(), text[at..].chars().next()) else {
            return false;
        };
        if self.added.heads.get(&right).is_some_and(|tokens| tokens.iter().any(|token| text[at..].starts_with(token))) {
            return true;
        }
        // What comes next may make another character of the one after the cut.
        if !text[at + right.len_utf8()..].chars().next().is_none_or(is_simple) {
            return false;
        }
        let pair = Pair { left, right };
        if let Some(&safe) = known.get(&pair) {
            return safe;
        }
        let safe =
            self.steps.as_ref().is_some_and(|steps| self.added.allows(pair) && steps.separate(pair, &self.added));
        if known.len() < PAIRS_KEPT {
            known.insert(pair, safe);
        }
        safe
    }
}

impl Steps {
    /// Whether what is on one side of a pair is the same whatever is on the other.
    fn separate(&self, pair: Pair, added: &Added) -> bool {
        // White space before white space, or before a word, is split by all of it.
        if pair.left.is_whitespace() || !is_simple(pair.left) || !is_simple(pair.right) {
            return false;
        }
        let Some(mut pair) = self.normalizing.iter().try_fold(pair, |pair, change| change.of(pair)) else {
            return false;
        };
        if pair.left.is_whitespace() || !added.allows(pair) {
            return false;
        }
        let mut split = false;
        for (index, step) in self.splitting.iter().enumerate() {
            match step.of(pair, split, index + 1 == self.splitting.len()) {
                None => return false,
                Some(Side::Split) => split = true,
                Some(Side::Beside(next)) => pair = next,
            }
        }
        split || self.model.separates(pair)
    }
}

/// Characters that neither compose with what is before them, in any of Unicode's forms, nor are marks, and that composing
/// leaves as they are. Many more are so; these are enough to cut texts of the scripts that most is written in.
pub(super) fn is_simple(char: char) -> bool {
    matches!(char,
        '\0'..='\x7f'
        | '\u{a1}'..='\u{2af}'
        | '\u{370}'..='\u{373}'
        | '\u{386}'
        | '\u{388}'..='\u{481}'
        | '\u{48a}'..='\u{52f}'
        | '\u{5d0}'..='\u{5ea}'
        | '\u{620}'..='\u{64a}'
        | '\u{905}'..='\u{939}'
        | '\u{e01}'..='\u{e30}'
        | '\u{2010}'..='\u{2027}'
        | '\u{2500}'..='\u{27bf}'
        | '\u{3000}'..='\u{3002}'
        | '\u{3041}'..='\u{3096}'
        | '\u{30a1}'..='\u{30fa}'
        | '\u{4e00}'..='\u{9fff}'
        | '\u{ac00}'..='\u{d7a3}'
        | '\u{ff01}'..='\u{ff1f}'
        | '\u{1f300}'..='\u{1faff}'
        | '\u{20000}'..='\u{2a6df}')
}

impl Added {
    fn of(tokenizer: &Tokenizer) -> Self {
        let mut added = Self::default();
        let tokens = tokenizer.get_added_tokens_decoder();
        let mut first = HashMap::<char, Vec<String>>::new();
        let mut elsewhere = HashSet::new();
        for token in tokens.values() {
            let mut forms = vec![token.content.clone()];
            if token.normalized {
                let mut form = NormalizedString::from(token.content.as_str());
                // As the tokenizer looks for it.
                let _ = tokenizer.get_normalizer().map(|normalizer| normalizer.normalize(&mut form));
                forms.push(form.get().to_owned());
            }
            for form in forms {
                added.within.extend(form.chars().zip(form.chars().skip(1)));
                let (head, last) = (form.chars().next(), form.chars().next_back());
                if token.rstrip || token.single_word {
                    added.seen_after.extend(last);
                }
                if token.lstrip || token.single_word {
                    added.seen_before.extend(head);
                }
            }
            if !token.normalized {
                elsewhere.extend(token.content.chars().skip(1));
                let Some(head) = token.content.chars().next() else { continue };
                first.entry(head).or_default().push(token.content.clone());
                if token.lstrip || token.single_word || head.is_alphanumeric() || head.is_whitespace() || head == '_' {
                    elsewhere.insert(head);
                }
            }
        }
        if !tokenizer.get_encode_special_tokens() {
            first.retain(|head, _| !elsewhere.contains(head));
            added.heads = first;
        }
        added
    }

    /// Whether no added token reaches, or looks, from one character of a pair to the other.
    fn allows(&self, Pair { left, right }: Pair) -> bool {
        !self.within.contains(&(left, right)) && !self.seen_after.contains(&left) && !self.seen_before.contains(&right)
    }
}

fn changes(normalizer: Option<&NormalizerWrapper>) -> Option<Vec<Change>> {
    let change = |normalizer: &NormalizerWrapper| match normalizer {
        NormalizerWrapper::NFC(_)
        | NormalizerWrapper::NFD(_)
        | NormalizerWrapper::NFKC(_)
        | NormalizerWrapper::NFKD(_)
        | NormalizerWrapper::StripAccents(_)
        | NormalizerWrapper::Lowercase(_) => Some(vec![Change::Alone(normalizer.clone())]),
        NormalizerWrapper::Sequence(sequence) => sequence_of(sequence),
        NormalizerWrapper::Replace(replace) => {
            let pattern = serde_json::to_value(replace).ok()?["pattern"].clone();
            if let Some(expression) = pattern["Regex"].as_str() {
                return Some(vec![Change::Matches(Pattern::of(expression)?)]);
            }
            let text = pattern["String"].as_str().filter(|text| !text.is_empty())?;
            let (mut from, mut to) = (text.chars(), replace.content.chars());
            Some(vec![match (from.next(), from.next(), to.next(), to.next()) {
                (Some(from), None, Some(to), None) => Change::Character(from, to),
                _ => Change::Text(text.to_owned()),
            }])
        }
        NormalizerWrapper::BertNormalizer(_)
        | NormalizerWrapper::StripNormalizer(_)
        | NormalizerWrapper::Nmt(_)
        | NormalizerWrapper::Precompiled(_)
        | NormalizerWrapper::Prepend(_)
        | NormalizerWrapper::ByteLevel(_) => None,
    };
    normalizer.map_or(Some(Vec::new()), change)
}

fn sequence_of(sequence: &Sequence) -> Option<Vec<Change>> {
    let parts: Option<Vec<Vec<Change>>> = sequence.as_ref().iter().map(|part| changes(Some(part))).collect();
    Some(parts?.into_iter().flatten().collect())
}

impl Change {
    fn of(&self, pair: Pair) -> Option<Pair> {
        match self {
            Self::Alone(normalizer) => {
                let alone = |char: char| {
                    let mut text = NormalizedString::from(char.to_string());
                    normalizer.normalize(&mut text).ok()?;
                    let (mut chars, is_case) =
                        (text.get().chars(), matches!(normalizer, NormalizerWrapper::Lowercase(_)));
                    let only = chars.next().filter(|_| chars.next().is_none())?;
                    (only == char || is_case).then_some(only)
                };
                Some(Pair { left: alone(pair.left)?, right: alone(pair.right)? })
            }
            Self::Character(from, to) => {
                let other = |char| if char == *from { *to } else { char };
                Some(Pair { left: other(pair.left), right: other(pair.right) })
            }
            Self::Text(text) => (!text.contains([pair.left, pair.right])).then_some(pair),
            Self::Matches(pattern) => (!pattern.touches(pair.left) && !pattern.touches(pair.right)).then_some(pair),
        }
    }
}

fn steps(pre_tokenizer: Option<&PreTokenizerWrapper>) -> Option<Vec<Step>> {
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
enum Side {
    /// They are in different parts.
    Split,
    /// They may be in one part, in which these characters are beside each other.
    Beside(Pair),
}

impl Step {
    /// `split` says that a step before has split the two, `last` that no step comes after.
    fn of(&self, pair: Pair, split: bool, last: bool) -> Option<Side> {
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
    let alphabet = super::spelling::byte_of_char();
    let code = alphabet.iter().position(|known| known.as_ref() == byte)?;
    char::from_u32(code as u32)
}

impl Model {
    fn of(model: &ModelWrapper) -> Self {
        let ModelWrapper::BPE(merges) = model else { return Self::Any };
        if merges.continuing_subword_prefix.is_some() || merges.end_of_word_suffix.is_some() {
            return Self::Any;
        }
        let mut before: HashMap<char, HashSet<char>> =
            [' ', '\u{2581}', '\u{120}'].map(|space| (space, HashSet::new())).into();
        let mut known = HashSet::new();
        for token in merges.get_vocab().into_keys() {
            let mut last = None;
            for char in token.chars() {
                if let (Some(set), Some(last)) = (before.get_mut(&char), last) {
                    set.insert(last);
                }
                if last.is_none() && token.len() == char.len_utf8() {
                    known.insert(char);
                }
                last = Some(char);
            }
        }
        Self::Merges { before, known }
    }

    /// Whether it never makes one token of the characters of a pair and what is around them.
    fn separates(&self, Pair { left, right }: Pair) -> bool {
        match self {
            Self::Merges { before, known } => {
                // What is not known may be made one unknown token.
                known.contains(&left)
                    && known.contains(&right)
                    && before.get(&right).is_some_and(|before| !before.contains(&left))
            }
            Self::Any => false,
        }
    }
}
