//! What a normalizer makes of the two sides of a cut.

use tokenizers::normalizers::{NormalizerWrapper, Sequence};
use tokenizers::{NormalizedString, Normalizer as _};

use super::Pair;
use super::pattern::Pattern;

/// What a normalizer does with each character alone.
#[derive(Debug)]
pub enum Change {
    /// What it does not change alone, it does not change beside others either, if those neither compose nor are marks.
    Alone(NormalizerWrapper),
    /// Another text for one character.
    Character(char, char),
    /// Another text for what does not touch the two.
    Text(String),
    Matches(Pattern),
}

/// What a normalizer does, one thing after another; `None` if it may see across a cut.
pub fn changes(normalizer: Option<&NormalizerWrapper>) -> Option<Vec<Change>> {
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
    /// The pair as it is afterwards; `None` if it may be seen across.
    pub fn of(&self, pair: Pair) -> Option<Pair> {
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
