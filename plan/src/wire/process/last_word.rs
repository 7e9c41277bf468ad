//! The last word of a process.

use serde::{Deserialize, Serialize};

use super::super::{VERSION, WireError, read};

/// Stands for what was left out.
const GAP: &str = "...";

/// Why a process ended, as it says itself before it does: what [`variable::TERMINATION_FILE`](super::variable::TERMINATION_FILE)
/// names holds it then, and nothing else. A process that was told to end, or that is killed, leaves none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LastWord {
    /// [`VERSION`].
    version: String,
    /// Why, in one sentence.
    pub words: String,
}

impl LastWord {
    /// Bytes of the document at most. Kubernetes keeps 4,096 of a container.
    pub const MOST_BYTES: usize = 768;

    /// A last word; where it would be longer than may be, the middle of its words is left out: errors say what failed first and
    /// why last.
    #[must_use]
    pub fn new(words: &str) -> Self {
        let of = |words: String| Self { version: VERSION.to_owned(), words };
        let room = Self::MOST_BYTES - of(String::new()).to_json().len();
        if fitting(words.chars(), room) == words {
            return of(words.to_owned());
        }
        let last = (room - GAP.len()) / 3;
        let head: String = fitting(words.chars(), room - GAP.len() - last);
        let tail: String = fitting(words.chars().rev(), last);
        of(format!("{head}{GAP}{}", tail.chars().rev().collect::<String>()))
    }

    /// The document.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("a last word is plain data")
    }

    /// Reads a document, its version first. The end of a log, which Kubernetes gives where there is none, is no document.
    ///
    /// # Errors
    /// If it is no JSON, of another version, or has no words.
    pub fn from_json(json: &[u8]) -> Result<Self, WireError> {
        read(json)
    }
}

/// As many letters as fit in `room` bytes of a document.
fn fitting(letters: impl Iterator<Item = char>, room: usize) -> String {
    let mut used = 0;
    let fits = |letter: &char| {
        used += bytes(*letter);
        used <= room
    };
    letters.take_while(fits).collect()
}

/// Bytes that a letter takes in a document.
fn bytes(letter: char) -> usize {
    serde_json::to_string(&letter).expect("a letter is plain data").len() - 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_last_word_is_this_document_and_is_read_again() {
        let word = LastWord::new("the checkpoint cannot be served: \"x\" is missing");
        let json = r#"{"version":"swiftbalancer.io/v1","words":"the checkpoint cannot be served: \"x\" is missing"}"#;
        assert_eq!(word.to_json(), json);
        assert_eq!(LastWord::from_json(json.as_bytes()), Ok(word));
    }

    #[test]
    fn words_of_any_length_and_letters_fit_and_keep_their_ends() {
        for letter in ["x", "\u{1b}", "\"", "\u{e9}", "\u{1d11e}", "\n"] {
            for count in [1, 100, 117, 118, 236, 700, 710, 711, 712, 1 << 16] {
                let text = format!("first {} last", letter.repeat(count));
                let word = LastWord::new(&text);
                let json = word.to_json();
                assert!(json.len() <= LastWord::MOST_BYTES, "{letter:?} {count}: {} bytes", json.len());
                assert!(word.words.starts_with("first ") && word.words.ends_with(" last"), "{}", word.words);
                let whole = serde_json::to_string(&text).unwrap().len() - 2 + LastWord::new("").to_json().len();
                assert_eq!(word.words == text, whole <= LastWord::MOST_BYTES, "{letter:?} {count}");
                assert_eq!(LastWord::from_json(json.as_bytes()), Ok(word));
            }
        }
    }

    #[test]
    fn the_end_of_a_log_is_no_last_word() {
        for log in [
            "",
            "Error: no",
            "{}",
            r#"{"timestamp":"2026-01-01T00:00:00Z","level":"ERROR"}"#,
            r#"{"version":"swiftbalancer.io/v1"}"#,
        ] {
            assert!(LastWord::from_json(log.as_bytes()).is_err(), "{log}");
        }
    }
}
