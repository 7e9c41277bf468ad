//! Stop strings across the borders of tokens. All strings of a request are one automaton, which reads each byte of a text
//! once, however many strings there are and however long they are.

use std::sync::Arc;

use aho_corasick::Anchored;
use aho_corasick::automaton::Automaton as _;
use aho_corasick::automaton::StateID;
use aho_corasick::nfa::contiguous::NFA;

/// Strings at which a text ends; the text ends before the first of them. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct StopStrings(Option<Arc<Strings>>);

#[derive(Debug)]
struct Strings {
    automaton: NFA,
    start: StateID,
    /// Bytes of a stop string that have been read in each state of the automaton, by state.
    read: Vec<(StateID, u32)>,
}

impl StopStrings {
    /// Empty strings never match.
    ///
    /// # Panics
    /// If the strings together have more than gigabytes.
    #[must_use]
    pub fn new(mut strings: Vec<String>) -> Self {
        strings.retain(|string| !string.is_empty());
        if strings.is_empty() {
            return Self(None);
        }
        let automaton = NFA::new(&strings).expect("an automaton of a request's strings fits its numbers");
        let start = automaton.start_state(Anchored::No).expect("it has a start wherever a text begins");
        let mut read = vec![(start, 0)];
        for string in &strings {
            let mut state = start;
            for (index, &byte) in string.as_bytes().iter().enumerate() {
                // What has been read is the beginning of this string, so no state for a longer one can be meant.
                state = automaton.next_state(Anchored::No, state, byte);
                read.push((state, index as u32 + 1));
            }
        }
        read.sort_unstable();
        read.dedup();
        Self(Some(Arc::new(Strings { automaton, start, read })))
    }

    /// A search through a text that has not begun.
    #[must_use]
    pub fn search(&self) -> StopSearch {
        StopSearch(self.0.as_ref().map(|strings| (Arc::clone(strings), strings.start)))
    }
}

/// A search through a text that grows.
#[derive(Debug)]
pub struct StopSearch(Option<(Arc<Strings>, StateID)>);

/// What a search says of the text so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// A stop string begins so many bytes before the end; of several, the one that begins first.
    Stop(usize),
    /// None is there, but with the last so many bytes one could begin.
    Beginning(usize),
}

impl StopSearch {
    /// Reads what comes next of the text.
    pub fn read(&mut self, text: &str) -> Seen {
        let Some((strings, state)) = &mut self.0 else { return Seen::Beginning(0) };
        let automaton = &strings.automaton;
        let mut found: Option<usize> = None;
        for (index, &byte) in text.as_bytes().iter().enumerate() {
            *state = automaton.next_state(Anchored::No, *state, byte);
            if automaton.is_match(*state) {
                let left = text.len() - index - 1;
                let ends = (0..automaton.match_len(*state)).map(|at| automaton.match_pattern(*state, at));
                let longest = ends.map(|pattern| automaton.pattern_len(pattern)).max();
                found = found.max(longest.map(|length| length + left));
            }
        }
        found.map_or_else(|| Seen::Beginning(strings.read_in(*state)), Seen::Stop)
    }
}

impl Strings {
    fn read_in(&self, state: StateID) -> usize {
        let place = self.read.binary_search_by_key(&state, |&(state, _)| state);
        place.map_or(0, |place| self.read[place].1 as usize)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn stops(strings: &[&str]) -> StopStrings {
        StopStrings::new(strings.iter().map(ToString::to_string).collect())
    }

    fn seen(strings: &[&str], text: &str) -> Seen {
        stops(strings).search().read(text)
    }

    #[test]
    fn a_text_ends_before_the_earliest_stop_string() {
        assert_eq!(seen(&["cd", "b"], "abcd"), Seen::Stop(3));
        assert_eq!(seen(&["x"], "abcd"), Seen::Beginning(0));
        assert_eq!(seen(&[""], "abcd"), Seen::Beginning(0));
        assert_eq!(seen(&["abcd", "bc"], "abcd"), Seen::Stop(4));
    }

    #[test]
    fn what_could_be_the_beginning_of_a_stop_string_is_told() {
        assert_eq!(seen(&["END"], "the E"), Seen::Beginning(1));
        assert_eq!(seen(&["END"], "the EN"), Seen::Beginning(2));
        assert_eq!(seen(&["END"], "the EX"), Seen::Beginning(0));
        assert_eq!(seen(&["aab", "é!"], "caa"), Seen::Beginning(2));
        assert_eq!(seen(&["é!"], "né"), Seen::Beginning(2));
        assert_eq!(seen(&[], "né"), Seen::Beginning(0));
    }

    /// The same, as one would look for it by hand.
    fn by_hand(strings: &[String], text: &str, unread: usize) -> Seen {
        let found = strings.iter().flat_map(|stop| {
            let ends = text.match_indices(stop.as_str()).map(|(start, stop)| (start, start + stop.len()));
            // Matches that overlap are found from each of their beginnings.
            let from = (0..text.len()).filter(|&at| text[at..].starts_with(stop.as_str()));
            ends.chain(from.map(|start| (start, start + stop.len()))).collect::<Vec<_>>()
        });
        if let Some(start) = found.filter(|&(_, end)| end > text.len() - unread).map(|(start, _)| start).min() {
            return Seen::Stop(text.len() - start);
        }
        let begins =
            |length: &usize| strings.iter().any(|stop| stop.len() > *length && text.ends_with(&stop[..*length]));
        Seen::Beginning((0..=text.len()).filter(begins).max().unwrap_or(0))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn a_text_in_pieces_is_searched_as_it_would_be_by_hand(
            strings in proptest::collection::vec("[ab]{1,5}", 1..6),
            pieces in proptest::collection::vec("[abc]{0,4}", 1..12),
        ) {
            let mut search = StopStrings::new(strings.clone()).search();
            let mut text = String::new();
            for piece in pieces {
                text.push_str(&piece);
                let seen = search.read(&piece);
                prop_assert_eq!(seen, by_hand(&strings, &text, piece.len()), "{:?} in {:?}", strings, text);
                if matches!(seen, Seen::Stop(_)) {
                    break;
                }
            }
        }
    }
}
