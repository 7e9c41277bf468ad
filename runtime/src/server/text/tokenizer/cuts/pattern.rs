//! What a regular expression can match across a place in a text. Says only what holds for every text: where it cannot
//! know, there is no [`Pattern`].

use regex_syntax::hir::{Class, Hir, HirKind};

/// White space up to its last character, which belongs to the word after it: every published tokenizer's expression that
/// looks ahead does it for this. What it looks at is the next character alone.
const BUT_THE_LAST: &str = r"\s+(?!\S)";

/// Places of characters in one expression; more than any tokenizer's has.
const MOST: usize = 2_000;

/// An expression as a set of places of characters, and which of them may follow one another in a match (Glushkov's
/// construction).
#[derive(Debug)]
pub(super) struct Pattern {
    places: Vec<Vec<(char, char)>>,
    follows: Vec<(usize, usize)>,
    /// Places that are a whole match alone.
    alone: Vec<usize>,
}

impl Pattern {
    /// What is known of an expression.
    pub fn of(expression: &str) -> Option<Self> {
        let all = Self::without_looks(&expression.replace(BUT_THE_LAST, r"\s+"))?;
        // What it needs to see after it may not be there, so it counts on as little alone as can be.
        let sure = Self::without_looks(&expression.replace(BUT_THE_LAST, r"\s+[a&&b]"))?;
        let alone = sure.alone.iter().map(|&place| all.places.len() + place).collect();
        Some(Self { places: all.places.into_iter().chain(sure.places).collect(), follows: all.follows, alone })
    }

    fn without_looks(expression: &str) -> Option<Self> {
        let parsed = regex_syntax::parse(expression).ok()?;
        let mut pattern = Self { places: Vec::new(), follows: Vec::new(), alone: Vec::new() };
        let whole = pattern.part(&parsed)?;
        // What matches nothing matches everywhere.
        if whole.nullable {
            return None;
        }
        pattern.alone = whole.first.iter().copied().filter(|place| whole.last.contains(place)).collect();
        Some(pattern)
    }

    /// Whether a match may have one character right before the other.
    pub fn joins(&self, left: char, right: char) -> bool {
        self.follows.iter().any(|&(before, after)| self.has(before, left) && self.has(after, right))
    }

    /// Whether every match that is tried at a character succeeds.
    pub fn covers(&self, char: char) -> bool {
        self.alone.iter().any(|&place| self.has(place, char))
    }

    /// Whether a match may have a character.
    pub fn touches(&self, char: char) -> bool {
        (0..self.places.len()).any(|place| self.has(place, char))
    }

    fn has(&self, place: usize, char: char) -> bool {
        let ranges = &self.places[place];
        ranges
            .binary_search_by(|&(first, last)| match (first > char, last < char) {
                (true, _) => std::cmp::Ordering::Greater,
                (_, true) => std::cmp::Ordering::Less,
                _ => std::cmp::Ordering::Equal,
            })
            .is_ok()
    }

    fn place(&mut self, ranges: Vec<(char, char)>) -> Option<Part> {
        self.places.push(ranges);
        let place = self.places.len() - 1;
        (place < MOST).then(|| Part { nullable: false, first: vec![place], last: vec![place] })
    }

    fn part(&mut self, expression: &Hir) -> Option<Part> {
        match expression.kind() {
            HirKind::Empty => Some(Part { nullable: true, ..Part::default() }),
            HirKind::Literal(literal) => {
                let text = std::str::from_utf8(&literal.0).ok()?;
                text.chars().try_fold(Part { nullable: true, ..Part::default() }, |before, char| {
                    let after = self.place(vec![(char, char)])?;
                    Some(self.then(before, after))
                })
            }
            HirKind::Class(Class::Unicode(class)) => {
                self.place(class.ranges().iter().map(|range| (range.start(), range.end())).collect())
            }
            HirKind::Capture(capture) => self.part(&capture.sub),
            HirKind::Repetition(repetition) => {
                let mut part = self.part(&repetition.sub)?;
                if repetition.max != Some(0) && repetition.max != Some(1) {
                    self.follow(&part.last, &part.first);
                }
                part.nullable |= repetition.min == 0;
                Some(part)
            }
            HirKind::Concat(parts) => {
                parts.iter().try_fold(Part { nullable: true, ..Part::default() }, |before, part| {
                    let after = self.part(part)?;
                    Some(self.then(before, after))
                })
            }
            HirKind::Alternation(parts) => parts.iter().try_fold(Part::default(), |mut all, part| {
                let part = self.part(part)?;
                all.nullable |= part.nullable;
                all.first.extend(part.first);
                all.last.extend(part.last);
                Some(all)
            }),
            // As what never matches is written.
            HirKind::Class(Class::Bytes(class)) if class.ranges().is_empty() => self.place(Vec::new()),
            // What is beside a match decides about it.
            HirKind::Look(_) | HirKind::Class(Class::Bytes(_)) => None,
        }
    }

    fn then(&mut self, before: Part, after: Part) -> Part {
        self.follow(&before.last, &after.first);
        let (mut first, mut last) = (before.first, after.last);
        if before.nullable {
            first.extend(after.first);
        }
        if after.nullable {
            last.extend(before.last);
        }
        Part { nullable: before.nullable && after.nullable, first, last }
    }

    fn follow(&mut self, before: &[usize], after: &[usize]) {
        self.follows.extend(before.iter().flat_map(|&before| after.iter().map(move |&after| (before, after))));
    }
}

/// Where matches of a part of an expression begin and end.
#[derive(Default)]
struct Part {
    nullable: bool,
    first: Vec<usize>,
    last: Vec<usize>,
}

#[cfg(test)]
mod tests {
    use super::*;

    const QWEN2: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

    #[test]
    fn published_expressions_never_match_across_the_beginning_of_a_word() {
        let gpt2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
        let llama3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
        let o200k = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
        for expression in [gpt2, QWEN2, llama3, o200k] {
            let pattern = Pattern::of(expression).unwrap();
            for (left, right) in [('a', ' '), ('語', ' '), ('1', '\n'), ('d', '\n')] {
                assert!(!pattern.joins(left, right), "{left:?} {right:?} in {expression}");
                assert!(pattern.covers(left) && pattern.covers(right));
            }
            assert!(pattern.joins('a', 'b') && pattern.joins(' ', 'b') && pattern.joins(' ', ' '));
        }
        assert!(Pattern::of(QWEN2).unwrap().joins('.', '\n'));
        assert!(!Pattern::of(QWEN2).unwrap().joins('1', '1'));
        assert!(Pattern::of(llama3).unwrap().joins('1', '1'));
    }

    #[test]
    fn what_looks_elsewhere_or_matches_nothing_is_not_known() {
        for expression in [r"(?<=a)b", r"a(?=b)", r"\bword\b", r"^a", r"a*", r"(a)\1", r"a|", "("] {
            assert!(Pattern::of(expression).is_none(), "{expression}");
        }
        // White space that is followed by more may not be matched by this alone.
        assert!(!Pattern::of(r"\s+(?!\S)").unwrap().covers(' '));
        assert!(Pattern::of("ab").unwrap().touches('b') && !Pattern::of("ab").unwrap().covers('a'));
    }
}
