//! The gated feed-forward network of a page, for the rows of its group.

use std::ops::Range;

use super::page::Network;
use super::product::{Packed, Product, Rows};
use super::simd::{Instructions, Kernel, LANES, Vector};
use crate::arena::PageId;
use crate::backend::{PageShape, Write};

/// Rows that go through a page together; what is between its layers then stays in the first-level cache.
const BLOCK_ROWS: usize = 32;

/// Scratch that the networks of a shape need.
pub(crate) const fn scratch_len(shape: PageShape) -> usize {
    shape.intermediate.saturating_mul(2 * BLOCK_ROWS)
}

/// Where the rows of a grouped feed-forward come from: group `g` is `rows[starts[g]..starts[g + 1]]`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Groups<'a> {
    /// Of each group.
    pub pages: &'a [PageId],
    /// One more than there are groups; ascending.
    pub starts: &'a [u32],
    /// Input row of each output row.
    pub rows: &'a [u32],
}

impl Groups<'_> {
    /// The group of an output row.
    fn of(&self, row: usize) -> usize {
        self.starts.partition_point(|&start| start as usize <= row) - 1
    }

    /// Where to split output rows of which at least 8 stay together, so that about half of them is on either side: between two groups,
    /// or within one of more than `most` rows, whose parts are multiples of 8. `None` if they are no more than that.
    fn cut(&self, rows: Range<usize>, most: usize) -> Option<usize> {
        if rows.len() <= most {
            return None;
        }
        let middle = rows.start + rows.len() / 2;
        let group = self.of(middle);
        let (start, end) = (self.starts[group] as usize, self.starts[group + 1] as usize);
        if end - start > most {
            let below = start + (middle - start) / 8 * 8;
            return Some(if below > rows.start { below } else { below + 8 });
        }
        let nearest_first = if middle - start <= end - middle { [start, end] } else { [end, start] };
        nearest_first.into_iter().find(|&cut| rows.start < cut && cut < rows.end)
    }
}

/// Consecutive output rows of a grouped feed-forward; they may be of several groups.
pub(crate) struct GroupedRows<'a> {
    pub groups: Groups<'a>,
    /// Length of a row.
    pub width: usize,
    /// The first of them.
    pub first: usize,
    /// Where they are written.
    pub out: &'a mut [f32],
}

impl GroupedRows<'_> {
    /// Two parts of them, if they are more than so many.
    pub fn halve(self, most: usize) -> (Self, Option<Self>) {
        let Self { groups, width, first, .. } = self;
        let Some(cut) = groups.cut(first..first + self.out.len() / width, most) else { return (self, None) };
        let (out, rest) = self.out.split_at_mut((cut - first) * width);
        (Self { groups, width, first, out }, Some(Self { groups, width, first: cut, out: rest }))
    }

    /// Those of each group: its page, the first of them, and where they are written.
    pub fn each(self, mut run: impl FnMut(PageId, usize, &mut [f32])) {
        let Self { groups, width, mut first, mut out } = self;
        let group = groups.of(first);
        for (page, end) in groups.pages[group..].iter().zip(&groups.starts[group + 1..]) {
            let rows = (*end as usize - first).min(out.len() / width);
            let (piece, rest) = out.split_at_mut(rows * width);
            if rows > 0 {
                run(*page, first, piece);
            }
            (first, out) = (first + rows, rest);
            if out.is_empty() {
                break;
            }
        }
    }
}

/// One piece of a group: rows of `x` to the rows of `out`.
pub(crate) struct FeedForward<'a> {
    pub page: Network<'a>,
    pub x: Rows<'a>,
    pub out: &'a mut [f32],
    pub write: Write,
}

impl FeedForward<'_> {
    /// Does it.
    ///
    /// # Panics
    /// If the scratch is less than [`scratch_len`].
    pub fn run(self, scratch: &mut [f32], instructions: Instructions) {
        let shape = self.page.shape;
        let scratch = &mut scratch[..scratch_len(shape)];
        let packed = |rows, columns, lines| Packed { rows, columns, kind: shape.kind, lines, bias: None };
        let (gate_scratch, up_scratch) = scratch.split_at_mut(BLOCK_ROWS * shape.intermediate);
        for (block, out) in self.out.chunks_mut(BLOCK_ROWS * shape.hidden).enumerate() {
            let rows = out.len() / shape.hidden;
            let x = Rows { first: self.x.first + block * BLOCK_ROWS, ..self.x };
            let gate = &mut gate_scratch[..rows * shape.intermediate];
            let up = &mut up_scratch[..rows * shape.intermediate];
            for (lines, out) in [(self.page.gate(), &mut *gate), (self.page.up(), &mut *up)] {
                let weights = packed(shape.intermediate, shape.hidden, lines);
                instructions.run(Product { x, weights, write: Write::Replace, out });
            }
            instructions.run(Gate { gate, up });
            let weights = packed(shape.hidden, shape.intermediate, self.page.down());
            let x = Rows { values: gate, width: shape.intermediate, first: 0, list: None };
            instructions.run(Product { x, weights, write: self.write, out });
        }
    }
}

/// `gate = silu(gate) * up`, with `silu(x) = x / (1 + e^-x)`.
pub(crate) struct Gate<'a> {
    pub gate: &'a mut [f32],
    pub up: &'a [f32],
}

impl Kernel for Gate<'_> {
    type Output = ();

    #[inline(always)]
    fn run<X: Vector>(self, x: X) {
        for (gate, up) in self.gate.chunks_mut(LANES).zip(self.up.chunks(LANES)) {
            let value = x.load_part(gate);
            let denominator = x.add(x.splat(1.0), x.exp(x.sub(x.splat(0.0), value)));
            x.store_part(x.mul(x.div(value, denominator), x.load_part(up)), gate);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The parts of the rows of groups of these lengths: of each, the page and the rows of each of its groups.
    fn parts(lengths: &[u32], most: usize) -> Vec<Vec<(u32, Range<usize>)>> {
        let pages: Vec<PageId> = (0..lengths.len() as u32).map(PageId).collect();
        let starts: Vec<u32> = (0..=lengths.len()).map(|group| lengths[..group].iter().sum()).collect();
        let rows = vec![0; lengths.iter().sum::<u32>() as usize];
        let (groups, mut out) = (Groups { pages: &pages, starts: &starts, rows: &rows }, vec![0.0; 3 * rows.len()]);
        let mut open = vec![GroupedRows { groups, width: 3, first: 0, out: &mut out }];
        let mut parts = Vec::new();
        while let Some(rows) = open.pop() {
            match rows.halve(most) {
                (first, Some(second)) => open.extend([second, first]),
                (rows, None) => {
                    let mut part = Vec::new();
                    rows.each(|page, first, out| part.push((page.0, first..first + out.len() / 3)));
                    parts.push(part);
                }
            }
        }
        parts
    }

    #[test]
    fn parts_are_all_rows_of_all_groups_in_order_and_none_is_larger_than_it_may_be() {
        for lengths in [
            &[3, 0, 5, 1, 0][..],
            &[0, 0, 40, 0, 7, 7, 7, 0],
            &[100],
            &[9],
            &[8, 8, 8, 8],
            &[1; 64],
            &[0, 2, 300, 0, 1, 17],
            &[0, 0],
        ] {
            let rows: Vec<(u32, usize)> = (0..)
                .zip(lengths)
                .flat_map(|(page, &length)| (0..length).map(move |_| page))
                .enumerate()
                .map(|(row, page)| (page, row))
                .collect();
            for most in [8, 16, 64, usize::MAX] {
                let found = parts(lengths, most);
                let all: Vec<(u32, usize)> =
                    found.iter().flatten().flat_map(|(page, rows)| rows.clone().map(|row| (*page, row))).collect();
                assert_eq!(all, rows, "{lengths:?} {most}");
                let longest = found.iter().map(|part| part.iter().map(|(_, rows)| rows.len()).sum::<usize>()).max();
                assert!(longest.unwrap() <= most, "{lengths:?} {most}: {found:?}");
            }
        }
    }

    #[test]
    fn a_group_is_split_only_if_it_is_large_and_then_between_rows_that_are_taken_together() {
        for part in parts(&[7, 7, 7, 7, 7], 8) {
            assert!(part.iter().all(|(_, rows)| rows.len() == 7), "{part:?}");
        }
        for (_, rows) in parts(&[5, 100], 16).iter().flatten().filter(|(page, _)| *page == 1) {
            assert!((rows.start - 5).is_multiple_of(8), "{rows:?}");
        }
    }
}
