//! What an error or a log line says of words that somebody else wrote: on one line, no longer than it may be, and with
//! nothing in it that a terminal obeys.

use std::fmt::{self, Display, Formatter, Write as _};
use std::path::Path;

use plan::words::is_hidden;

/// Stands for what was left out.
const GAP: &str = "...";

/// At most `MOST` characters of a text. Where it is longer its middle is left out, since names and paths say most at
/// their ends; what cannot be seen and does something is escaped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quoted<const MOST: usize = 64>(String);

impl<const MOST: usize> Quoted<MOST> {
    /// Of anything that can be shown.
    #[must_use]
    pub fn new(text: impl Display) -> Self {
        Self(shortened(&text.to_string(), MOST))
    }

    /// Of a path; bytes that are no text are shown as U+FFFD.
    #[must_use]
    pub fn path(path: &Path) -> Self {
        Self::new(path.display())
    }
}

impl<const MOST: usize> Display for Quoted<MOST> {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl<const MOST: usize, T: AsRef<str>> From<T> for Quoted<MOST> {
    fn from(text: T) -> Self {
        Self(shortened(text.as_ref(), MOST))
    }
}

/// `text` on one line, in at most `most` characters.
#[must_use]
pub fn shortened(text: &str, most: usize) -> String {
    // An escape is never cut, so both ends are taken in whole characters of the text.
    let whole: String = escaped(text.chars().take(most + 1)).concat();
    if text.chars().nth(most).is_none() && whole.chars().count() <= most {
        return whole;
    }
    let room = most.saturating_sub(GAP.len());
    let last = room / 3;
    let head = fitting(escaped(text.chars().take(room)), room - last);
    let mut tail = fitting(escaped(text.chars().rev().take(last)), last);
    tail.reverse();
    format!("{}{GAP}{}", head.concat(), tail.concat())
}

/// `text` on one line, whole.
#[must_use]
pub fn one_line(text: &str) -> String {
    escaped(text.chars()).concat()
}

/// As many of `parts` as fit in `room` characters.
fn fitting(parts: Vec<String>, room: usize) -> Vec<String> {
    let mut used = 0;
    let fits = |part: &String| {
        used += part.chars().count();
        used <= room
    };
    parts.into_iter().take_while(fits).collect()
}

fn escaped(characters: impl Iterator<Item = char>) -> Vec<String> {
    characters.map(escape).collect()
}

fn escape(character: char) -> String {
    let mut text = String::new();
    let written =
        if is_hidden(character) { write!(text, "{}", character.escape_default()) } else { text.write_char(character) };
    written.expect("writing to a string does not fail");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fits_is_said_whole_and_of_the_rest_both_ends() {
        assert_eq!(shortened("model.norm.weight", 17), "model.norm.weight");
        assert_eq!(shortened("model.layers.17.norm.weight", 15), "model.la...ight");
        assert_eq!(shortened("", 8), "");
        assert_eq!(Quoted::<8>::new("é".repeat(9)).to_string(), "éééé...é");
    }

    #[test]
    fn nothing_reaches_a_terminal_that_it_would_obey_and_no_line_is_begun() {
        assert_eq!(
            shortened("a\nb\u{1b}[31m\u{202e}\u{200b}\u{feff}", 64),
            "a\\nb\\u{1b}[31m\\u{202e}\\u{200b}\\u{feff}"
        );
        let hostile: String = (0..0x3000).filter_map(char::from_u32).collect();
        for most in 0..200 {
            let said = shortened(&hostile, most);
            assert!(said.chars().count() <= most.max(GAP.len()), "{most}: {said}");
            assert!(!said.contains(is_hidden), "{most}: {said}");
        }
    }

    #[test]
    fn an_escape_is_never_cut() {
        for most in 6..40 {
            let said = shortened(&"\u{1b}".repeat(100), most);
            assert_eq!(said.replace("\\u{1b}", "").replace(GAP, ""), "", "{most}: {said}");
        }
    }
}
