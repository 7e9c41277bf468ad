//! The gated feed-forward network of a page, for the rows of its group.

use super::page::Network;
use super::product::{Packed, Product, Rows};
use super::scratch;
use super::simd::{Instructions, Kernel, LANES, Vector};
use crate::arena::PageId;
use crate::backend::Write;

/// Rows that go through a page together; what is between its layers then stays in the first-level cache.
const BLOCK_ROWS: usize = 32;

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

/// One piece of a group: rows of `x` to the rows of `out`.
pub(crate) struct FeedForward<'a> {
    pub page: Network<'a>,
    pub x: Rows<'a>,
    pub out: &'a mut [f32],
    pub write: Write,
}

impl FeedForward<'_> {
    /// Does it.
    pub fn run(self, instructions: Instructions) {
        scratch::lend(2 * BLOCK_ROWS * self.page.shape.intermediate, |scratch| self.run_in(scratch, instructions));
    }

    fn run_in(self, scratch: &mut [f32], instructions: Instructions) {
        let shape = self.page.shape;
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
