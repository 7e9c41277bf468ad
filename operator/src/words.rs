//! Words of pods, as conditions, logs and terminals repeat them: on one line, of bounded length, with nothing in them that a
//! terminal obeys. Pure.

use plan::words::is_hidden;

/// Longest words of a pod that a message repeats.
const LONGEST: usize = 400;

/// Words on one line, no longer than a message repeats.
#[must_use]
pub fn shorten(text: &str) -> String {
    // What is left out need not be looked at: a pod may say megabytes.
    let start: String = text.chars().take(2 * LONGEST).map(|c| if is_hidden(c) { ' ' } else { c }).collect();
    let line = start.split_whitespace().collect::<Vec<_>>().join(" ");
    let is_cut = text.chars().nth(2 * LONGEST).is_some();
    match line.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}...", &line[..end]),
        None if is_cut => format!("{line}..."),
        None => line,
    }
}

/// What to show after `shown` of a pod that says `now` and said `before`: words that are new are shown when they have been
/// said twice, so that a pod that says something else each time is shown by its first words and causes no write.
#[must_use]
pub fn settle(shown: Option<&str>, before: Option<&str>, now: Option<&str>) -> Option<String> {
    match (shown, now) {
        (Some(shown), Some(now)) if before != Some(now) => Some(shown.to_owned()),
        (_, now) => now.map(str::to_owned),
    }
}

/// Whether two messages say the same but for what a machine puts in anew each time: addresses, ports, times, identities, counts,
/// and the order of a list.
#[must_use]
pub fn say_the_same(one: &str, other: &str) -> bool {
    one == other || essence(one) == essence(other)
}

/// The words of a message without those that have a digit, in alphabetical order.
fn essence(text: &str) -> Vec<&str> {
    let is_between = |c: char| c.is_whitespace() || matches!(c, '"' | '\'' | ',' | ';' | '(' | ')' | '[' | ']');
    let words = text.split(is_between).filter(|word| !word.is_empty());
    let mut essence: Vec<&str> =
        words.map(|word| if word.contains(|c: char| c.is_ascii_digit()) { "#" } else { word }).collect();
    essence.sort_unstable();
    essence
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_that_differ_in_what_a_machine_counts_say_the_same() {
        let same = [
            (
                "read tcp 172.30.0.1:30017->10.96.4.7:443: connection reset by peer",
                "read tcp 172.30.0.1:41890->10.96.4.7:443: connection reset by peer",
            ),
            (
                "exceeded quota: q, requested: pods=1, used: pods=3, limited: pods=3",
                "exceeded quota: q, requested: pods=1, used: pods=4, limited: pods=4",
            ),
            ("admission denied the request (id 3f1c-77aa)", "admission denied the request (id 9e0b-12fd)"),
            (
                "0/3 nodes are available: 1 Insufficient memory, 2 x",
                "0/5 nodes are available: 2 x, 3 Insufficient memory",
            ),
        ];
        for (one, other) in same {
            assert!(say_the_same(one, other), "{other}");
        }
        for (one, other) in
            [("no such host", "no such route"), ("a", ""), ("exceeded quota: pods=1", "exceeded limit: pods=1")]
        {
            assert!(!say_the_same(one, other), "{other}");
        }
    }

    #[test]
    fn words_are_one_line_that_controls_no_terminal() {
        assert_eq!(shorten("a \u{1b}[2Jb\r\n\tc\u{202e}\u{61c}d\u{0}"), "a [2Jb c d");
        assert_eq!(shorten("  "), "");
    }

    #[test]
    fn words_of_any_length_are_bounded() {
        for text in ["x".repeat(401), "\u{1d11e}".repeat(5000), " ".repeat(5000), "x ".repeat(1 << 20)] {
            let shown = shorten(&text);
            assert!(shown.chars().count() <= 403 && shown.ends_with("..."), "{} of {}", shown.len(), text.len());
        }
        assert_eq!(shorten(&"x".repeat(400)).len(), 400);
    }

    #[test]
    fn words_that_differ_each_time_are_shown_as_they_were_first() {
        let mut shown = None;
        let mut before = None;
        for number in 0..100 {
            let now = format!("failed at {number}");
            shown = settle(shown.as_deref(), before.as_deref(), Some(&now));
            before = Some(now);
            assert_eq!(shown.as_deref(), Some("failed at 0"));
        }
    }

    #[test]
    fn other_words_are_shown_when_they_are_said_again_and_none_at_once() {
        assert_eq!(settle(None, None, Some("a")).as_deref(), Some("a"));
        assert_eq!(settle(Some("a"), Some("a"), Some("b")).as_deref(), Some("a"));
        assert_eq!(settle(Some("a"), Some("b"), Some("b")).as_deref(), Some("b"));
        assert_eq!(settle(Some("a"), Some("a"), None), None);
        assert_eq!(settle(None, None, None), None);
    }
}
