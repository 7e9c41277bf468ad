//! The tokens of a batch, and where to split them so that the parts of attention are about equal work.

use super::CachedSpan;
use crate::backend::HeadShape;
use crate::batch::StepArea;

/// Rows that the parts of a span are multiples of, but its last: as many as are taken together.
const TOGETHER: usize = super::QUERY_ROWS;

/// Consecutive tokens of a batch, each one row; they may be of several sequences.
pub(crate) struct Tokens<'a> {
    area: &'a StepArea,
    heads: HeadShape,
    /// The span of the first of them.
    span: usize,
    /// Tokens of that span before them.
    before: usize,
    /// Keys that all of them look at.
    keys: usize,
    /// Their projections.
    projected: &'a [f32],
    /// Their outputs.
    out: &'a mut [f32],
}

/// Where some tokens are split.
struct Cut {
    /// Tokens before it.
    tokens: usize,
    /// Keys that those look at.
    keys: usize,
    /// The span in which it is.
    span: usize,
    /// Tokens of that span before it.
    before: usize,
}

/// Keys that so many tokens look at, of which the first has this position.
const fn keys(position: usize, tokens: usize) -> usize {
    tokens * position + tokens * (tokens + 1) / 2
}

impl<'a> Tokens<'a> {
    /// All of a batch.
    pub fn of(area: &'a StepArea, heads: HeadShape, projected: &'a [f32], out: &'a mut [f32]) -> Self {
        let keys = area.spans.iter().map(|span| keys(span.position as usize, span.tokens as usize)).sum();
        Self { area, heads, span: 0, before: 0, keys, projected, out }
    }

    /// Keys that all of them look at; each costs two multiply-adds for each element of the query heads.
    pub const fn keys(&self) -> usize {
        self.keys
    }

    /// The parts of spans that they are: of each, index, tokens before, tokens and position.
    fn parts(&self) -> impl Iterator<Item = (usize, usize, usize, usize)> + use<'a> {
        let (area, first, skipped) = (self.area, self.span, self.before);
        let mut left = self.out.len() / self.heads.query_width();
        area.spans[first..].iter().enumerate().map_while(move |(index, span)| {
            let before = if index == 0 { skipped } else { 0 };
            let tokens = left.min(span.tokens as usize - before);
            let more = left > 0;
            left -= tokens;
            more.then_some((first + index, before, tokens, span.position as usize + before))
        })
    }

    /// Where they are split so that about half of the keys is on either side; `None` if they stay together.
    fn cut(&self) -> Option<Cut> {
        let (count, half) = (self.out.len() / self.heads.query_width(), self.keys / 2);
        let (mut passed, mut looked_at) = (0, 0);
        for (span, before, tokens, position) in self.parts() {
            let all = keys(position, tokens);
            if looked_at + all < half {
                (passed, looked_at) = (passed + tokens, looked_at + all);
                continue;
            }
            let reached = (0..tokens).find(|&tokens| looked_at + keys(position, tokens) >= half).unwrap_or(tokens);
            let above = reached.next_multiple_of(TOGETHER).min(tokens);
            let below = reached.saturating_sub(1) / TOGETHER * TOGETHER;
            let cut = [above, below].into_iter().find(|taken| (1..count).contains(&(passed + taken)))?;
            let keys = looked_at + keys(position, cut);
            return Some(Cut { tokens: passed + cut, keys, span, before: before + cut });
        }
        None
    }

    /// Two parts of them, if they look at more than so many keys.
    pub fn halve(self, most_keys: usize) -> (Self, Option<Self>) {
        let cut = if self.keys > most_keys { self.cut() } else { None };
        let Some(cut) = cut else { return (self, None) };
        let Self { heads, projected, .. } = self;
        let (out, rest) = self.out.split_at_mut(cut.tokens * heads.query_width());
        let (projected, projected_rest) = projected.split_at(cut.tokens * heads.projected_width());
        let first = Self { keys: cut.keys, projected, out, ..self };
        let keys = self.keys - cut.keys;
        let (span, before) = (cut.span, cut.before);
        (first, Some(Self { span, before, keys, projected: projected_rest, out: rest, ..self }))
    }

    /// Each span of them with its projections and its outputs.
    pub fn each(self, mut attend: impl FnMut(CachedSpan<'a>, &'a [f32], &mut [f32])) {
        let (parts, area) = (self.parts(), self.area);
        let Self { heads, mut projected, mut out, .. } = self;
        for (span, _, tokens, position) in parts.filter(|&(_, _, tokens, _)| tokens > 0) {
            let (rows, projected_rest) = projected.split_at(tokens * heads.projected_width());
            let (piece, rest) = out.split_at_mut(tokens * heads.query_width());
            let blocks = &area.blocks[area.spans[span].first_block as usize..];
            attend(CachedSpan { tokens, position, blocks }, rows, piece);
            (projected, out) = (projected_rest, rest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADS: HeadShape = HeadShape { query: 1, key_value: 1, dimension: 2 };

    /// The spans of each part of a batch of these positions and numbers of tokens, and the keys that each part looks at.
    fn parts(sequences: &[(usize, usize)], most_keys: usize) -> Vec<(usize, Vec<(usize, usize)>)> {
        let mut area = StepArea::default();
        for &(position, tokens) in sequences {
            area.push(0, position as u32, &vec![0; tokens], &[]);
        }
        let (projected, mut out) = (vec![0.0; 6 * area.ids.len()], vec![0.0; 2 * area.ids.len()]);
        let mut open = vec![Tokens::of(&area, HEADS, &projected, &mut out)];
        let mut parts = Vec::new();
        while let Some(tokens) = open.pop() {
            match tokens.halve(most_keys) {
                (first, Some(second)) => open.extend([second, first]),
                (tokens, None) => {
                    let (keys, mut spans) = (tokens.keys(), Vec::new());
                    tokens.each(|span, projected, out| {
                        assert_eq!((projected.len(), out.len()), (6 * span.tokens, 2 * span.tokens));
                        spans.push((span.position, span.tokens));
                    });
                    parts.push((keys, spans));
                }
            }
        }
        parts
    }

    #[test]
    fn parts_are_all_tokens_in_order_and_know_what_they_cost() {
        for sequences in [
            &[(0, 100)][..],
            &[(7, 1), (1000, 1), (3, 1), (0, 33), (500, 9)],
            &[(0, 0), (5, 16), (0, 0), (0, 1)],
            &[(0, 7), (40, 8), (40, 9)],
            &[],
        ] {
            for most_keys in [1, 10, 100, 1000, usize::MAX] {
                let (mut found, mut cost) = (Vec::new(), 0);
                for (keys, spans) in parts(sequences, most_keys) {
                    let tokens = spans.iter().flat_map(|&(position, tokens)| position..position + tokens);
                    found.extend(tokens.clone());
                    assert_eq!(keys, tokens.map(|position| position + 1).sum::<usize>(), "{sequences:?} {spans:?}");
                    cost += keys;
                    // One of several spans can be split, and one of more tokens than are taken together.
                    let together = matches!(spans[..], [] | [(_, ..=8)]);
                    assert!(keys <= most_keys || together, "{sequences:?} {spans:?}");
                }
                let expected: Vec<usize> =
                    sequences.iter().flat_map(|&(position, tokens)| position..position + tokens).collect();
                assert_eq!(found, expected, "{sequences:?} {most_keys}");
                assert_eq!(cost, expected.iter().map(|position| position + 1).sum::<usize>());
            }
        }
    }

    #[test]
    fn a_long_span_is_split_between_rows_that_are_taken_together() {
        let found = parts(&[(0, 64)], keys(0, 64) / 4);
        assert!(found.len() >= 4, "{found:?}");
        assert!(found.iter().all(|(_, spans)| spans[0].0.is_multiple_of(TOGETHER)), "{found:?}");
        let most = found.iter().map(|(keys, _)| *keys).max().unwrap();
        assert!(most <= keys(0, 64) / 4, "{found:?}");
        assert_eq!(parts(&[(10, 1), (2000, 1)], 100), [(11, vec![(10, 1)]), (2001, vec![(2000, 1)])]);
    }
}
