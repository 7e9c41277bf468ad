//! Values of lists that grow from release to release.

use std::fmt::{self, Display, Formatter};

use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer, Serialize};

/// A value of a list that may grow: one that this release knows, or the word that another release has for one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Told<T> {
    /// This release knows it.
    Known(T),
    /// Another does.
    Other(Word),
}

impl<T> Told<T> {
    /// The value, if this release knows it.
    #[must_use]
    pub const fn known(&self) -> Option<&T> {
        match self {
            Self::Known(value) => Some(value),
            Self::Other(_) => None,
        }
    }
}

impl<T> From<T> for Told<T> {
    fn from(value: T) -> Self {
        Self::Known(value)
    }
}

impl<T: PartialEq> PartialEq<T> for Told<T> {
    fn eq(&self, other: &T) -> bool {
        self.known() == Some(other)
    }
}

impl<T: Display> Display for Told<T> {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Known(value) => value.fmt(formatter),
            Self::Other(word) => word.fmt(formatter),
        }
    }
}

/// A word of another release: letters, digits, `-` and `_`, 64 at most. Anything else is the word `unknown`, so that
/// whatever answers, nothing but a word is shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Word(String);

impl Word {
    const MOST: usize = 64;

    fn new(text: &str) -> Self {
        let is_part = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_');
        let is_word = (1..=Self::MOST).contains(&text.len()) && text.chars().all(is_part);
        Self(if is_word { text } else { "unknown" }.to_owned())
    }
}

impl Display for Word {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Word {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Value {
            Text(String),
            Other(IgnoredAny),
        }
        Ok(match Value::deserialize(deserializer)? {
            Value::Text(text) => Self::new(&text),
            Value::Other(IgnoredAny) => Self::new(""),
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::Phase;
    use super::*;

    fn told(value: &Value) -> Told<Phase> {
        serde_json::from_value(value.clone()).unwrap()
    }

    #[test]
    fn a_value_that_is_known_is_that_value_and_is_written_as_it_was() {
        assert_eq!(told(&json!("moving")), Phase::Moving);
        assert_eq!(serde_json::to_value(told(&json!("moving"))).unwrap(), json!("moving"));
        assert_ne!(told(&json!("moving")), Phase::Off);
        assert_eq!(told(&json!("moving")).to_string(), "Moving");
    }

    #[test]
    fn the_word_of_another_release_is_kept_and_nothing_but_a_word_is() {
        let word = told(&json!("recovering_2"));
        assert_eq!((word.known(), word.to_string().as_str()), (None, "recovering_2"));
        assert_eq!(serde_json::to_value(&word).unwrap(), json!("recovering_2"));
        let others =
            [json!("\u{1b}[2J"), json!("x".repeat(65)), json!(""), json!("a b"), json!(7), json!({"moving": 1})];
        for other in others.into_iter().chain([json!(null), json!(["moving"])]) {
            assert_eq!(told(&other).to_string(), "unknown", "{other}");
        }
    }
}
