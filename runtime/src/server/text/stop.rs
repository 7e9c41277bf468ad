//! Stop strings across the borders of tokens.

/// Strings at which a text ends; the text ends before the first of them.
#[derive(Clone, Debug, Default)]
pub struct StopStrings(Vec<String>);

impl StopStrings {
    /// Empty strings never match.
    #[must_use]
    pub fn new(strings: Vec<String>) -> Self {
        Self(strings.into_iter().filter(|string| !string.is_empty()).collect())
    }

    /// Where the text ends: the first byte of the earliest stop string in it.
    #[must_use]
    pub fn find(&self, text: &str) -> Option<usize> {
        self.0.iter().filter_map(|stop| text.find(stop.as_str())).min()
    }

    /// Bytes of `text` that no stop string can begin in, however it goes on.
    #[must_use]
    pub fn safe_length(&self, text: &str) -> usize {
        let begins = |stop: &String| {
            let longest = text.len().min(stop.len() - 1);
            (text.len() - longest..text.len())
                .find(|&start| text.is_char_boundary(start) && stop.as_bytes().starts_with(&text.as_bytes()[start..]))
        };
        self.0.iter().filter_map(begins).min().unwrap_or(text.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stops(strings: &[&str]) -> StopStrings {
        StopStrings::new(strings.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn a_text_ends_before_the_earliest_stop_string() {
        assert_eq!(stops(&["cd", "b"]).find("abcd"), Some(1));
        assert_eq!(stops(&["x"]).find("abcd"), None);
        assert_eq!(stops(&[""]).find("abcd"), None);
    }

    #[test]
    fn what_could_be_the_beginning_of_a_stop_string_is_not_safe() {
        assert_eq!(stops(&["END"]).safe_length("the E"), 4);
        assert_eq!(stops(&["END"]).safe_length("the EN"), 4);
        assert_eq!(stops(&["END"]).safe_length("the EX"), 6);
        assert_eq!(stops(&["aab", "é!"]).safe_length("caa"), 1);
        assert_eq!(stops(&["é!"]).safe_length("né"), 1);
        assert_eq!(stops(&[]).safe_length("né"), 3);
    }
}
