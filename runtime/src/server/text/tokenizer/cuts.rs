//! Where a text may be cut so that the tokens of its parts are those of the whole. A cut is between two characters, and
//! it is safe only if no step of the tokenizer can see across: added tokens, normalizer, pre-tokenizer and model. What is
//! not known to be safe is not cut.

mod normalizing;
mod pattern;
mod splitting;

use std::collections::{HashMap, HashSet};

use tokenizers::{ModelWrapper, NormalizedString, Normalizer as _, Tokenizer};

use self::normalizing::{Change, changes};
use self::splitting::{Side, Step, steps};

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
