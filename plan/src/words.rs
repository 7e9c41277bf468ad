//! What every program here does with words that end up in a line of a log or on a terminal.

use std::error::Error;
use std::fmt::Write as _;

/// Whether a character cannot be seen and does something: it controls a terminal, begins a line, turns the direction of
/// what follows, or makes words look like others that they are not. These are controls, separators of lines, and what
/// Unicode calls ignorable by default.
#[must_use]
pub fn is_hidden(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{ad}'
                | '\u{34f}'
                | '\u{61c}'
                | '\u{115f}'
                | '\u{1160}'
                | '\u{17b4}'
                | '\u{17b5}'
                | '\u{180b}'..='\u{180f}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{3164}'
                | '\u{fe00}'..='\u{fe0f}'
                | '\u{feff}'
                | '\u{ffa0}'
                | '\u{fff0}'..='\u{fffb}'
                | '\u{1bca0}'..='\u{1bca3}'
                | '\u{1d173}'..='\u{1d17a}'
                | '\u{e0000}'..='\u{e0fff}'
        )
}

/// An error with everything that caused it, in one sentence. What the sentence already ends with is not said twice: some
/// errors end with what caused them.
#[must_use]
pub fn with_causes(error: &dyn Error) -> String {
    let (mut text, mut next) = (error.to_string(), error.source());
    while let Some(cause) = next {
        let said = cause.to_string();
        if !text.ends_with(&said) {
            text = format!("{text}: {said}");
        }
        next = cause.source();
    }
    text
}

/// Bytes as hexadecimal digits, two for each, in lower case.
#[must_use]
pub fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a string does not fail");
        text
    })
}

/// A number of things: 1 window, 2 windows.
#[must_use]
pub fn counted(number: usize, what: &str) -> String {
    if number == 1 { format!("1 {what}") } else { format!("{number} {}", several(what)) }
}

/// What several of a thing are called: windows, copies.
#[must_use]
pub fn several(what: &str) -> String {
    match what.strip_suffix('y') {
        Some(stem) if !stem.ends_with(['a', 'e', 'o', 'u']) => format!("{stem}ies"),
        _ => format!("{what}s"),
    }
}

#[cfg(test)]
mod tests {
    use thiserror::Error;

    use super::*;

    #[derive(Debug, Error)]
    #[error("no space")]
    struct NoSpace;

    #[derive(Debug, Error)]
    enum Wrong {
        #[error("failed to write a map")]
        Silent(#[source] NoSpace),
        #[error("failed to write a map: {0}")]
        Told(#[source] NoSpace),
        #[error("failed to record")]
        Outer(#[source] Box<Self>),
    }

    #[test]
    fn an_error_is_told_with_its_causes_and_each_once() {
        for inner in [Wrong::Silent(NoSpace), Wrong::Told(NoSpace)] {
            assert_eq!(with_causes(&inner), "failed to write a map: no space");
            let outer = Wrong::Outer(Box::new(inner));
            assert_eq!(with_causes(&outer), "failed to record: failed to write a map: no space");
        }
        assert_eq!(with_causes(&NoSpace), "no space");
    }

    #[test]
    fn what_controls_turns_or_cannot_be_seen_is_hidden_and_letters_of_any_script_are_not() {
        let hidden =
            "\0\n\u{1b}\u{9b}\u{ad}\u{61c}\u{200b}\u{200d}\u{200e}\u{2028}\u{202e}\u{2060}\u{2066}\u{2069}\u{3164}";
        assert!(hidden.chars().all(is_hidden));
        assert!("\u{fe0f}\u{feff}\u{fffb}\u{e0041}\u{e01ef}".chars().all(is_hidden));
        assert!(
            !"a é\u{301}\u{5d0}\u{627}\u{905}\u{6f22}\u{ac00}\u{1f980}\u{2027}\u{202f}\u{fffd}..."
                .chars()
                .any(is_hidden)
        );
    }

    #[test]
    fn one_thing_is_told_in_the_singular() {
        assert_eq!([counted(1, "node"), counted(0, "node")], ["1 node", "0 nodes"]);
        assert_eq!([counted(2, "copy"), counted(2, "key"), counted(2, "day")], ["2 copies", "2 keys", "2 days"]);
    }
}
