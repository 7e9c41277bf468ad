//! Matrix products. Output `[row, column]` is `sum over k of x[row, k] * weights[column, k]` as one chain of fused
//! multiply-adds in the order of `k`, starting from zero, whatever tile it is computed in.

use super::matrix::{Bf16, F32, Matrix, PANEL, Weights, row_lines};
use super::simd::{Kernel, LANES, Line, Vector};
use crate::backend::Write;
use crate::tensor::WeightKind;

/// Steps of `k` between two checks of the loop.
const UNROLL: usize = 8;

/// Adds the products of `M` rows with `P` panels to `sums`.
#[inline(always)]
pub(crate) fn accumulate<X: Vector, W: Weights<V>, const V: usize, const M: usize, const P: usize>(
    x: X,
    rows: [&[f32]; M],
    panels: [&[Line]; P],
    sums: &mut [[[X::F32; V]; P]; M],
) {
    let depth = rows[0].len();
    let (chunks, rest) = (depth / UNROLL, depth % UNROLL);
    let mut local = *sums;
    for chunk in 0..chunks {
        let mut values = [&[0.0_f32; UNROLL]; M];
        for (values, row) in values.iter_mut().zip(&rows) {
            *values = row[chunk * UNROLL..].first_chunk().expect("rows are of one length");
        }
        let mut lines = [&panels[0][..0]; P];
        for (lines, panel) in lines.iter_mut().zip(&panels) {
            *lines = &panel[chunk * UNROLL * W::LINES..][..UNROLL * W::LINES];
        }
        for step in 0..UNROLL {
            for panel in 0..P {
                let weights = W::load(x, &lines[panel][step * W::LINES..][..W::LINES]);
                for row in 0..M {
                    let value = x.splat(values[row][step]);
                    for vector in 0..V {
                        local[row][panel][vector] = x.fma(value, weights[vector], local[row][panel][vector]);
                    }
                }
            }
        }
    }
    for step in depth - rest..depth {
        for panel in 0..P {
            let weights = W::load(x, &panels[panel][step * W::LINES..][..W::LINES]);
            for row in 0..M {
                let value = x.splat(rows[row][step]);
                for vector in 0..V {
                    local[row][panel][vector] = x.fma(value, weights[vector], local[row][panel][vector]);
                }
            }
        }
    }
    *sums = local;
}

/// Rows to multiply: all of a buffer, or those that a list names.
#[derive(Clone, Copy)]
pub(crate) struct Rows<'a> {
    /// Rows of `width`.
    pub values: &'a [f32],
    /// Length of a row.
    pub width: usize,
    /// First row, or first entry of `list`.
    pub first: usize,
    /// Which rows.
    pub list: Option<&'a [u32]>,
}

impl<'a> Rows<'a> {
    /// Row `index`.
    #[inline(always)]
    pub fn get(&self, index: usize) -> &'a [f32] {
        let index = self.first + index;
        let row = self.list.map_or(index, |list| list[index] as usize);
        &self.values[row * self.width..][..self.width]
    }
}

/// A packed matrix without its owner.
#[derive(Clone, Copy)]
pub(crate) struct Packed<'a> {
    pub rows: usize,
    pub columns: usize,
    pub kind: WeightKind,
    pub lines: &'a [Line],
    pub bias: Option<&'a [f32]>,
}

impl Matrix {
    pub(crate) fn packed(&self) -> Packed<'_> {
        Packed {
            rows: self.rows,
            columns: self.columns,
            kind: self.kind,
            lines: self.lines(),
            bias: self.bias.as_deref(),
        }
    }
}

/// `out[i] = x[i] * weights^T + bias` for the rows of `out`.
pub(crate) struct Product<'a> {
    pub x: Rows<'a>,
    pub weights: Packed<'a>,
    pub write: Write,
    pub out: &'a mut [f32],
}

impl Kernel for Product<'_> {
    type Output = ();

    #[inline(always)]
    fn run<X: Vector>(self, x: X) {
        match self.weights.kind {
            WeightKind::Bf16 => panels::<X, Bf16>(x, self),
            WeightKind::F32 => panels::<X, F32>(x, self),
        }
    }
}

#[inline(always)]
fn panels<X: Vector, W: Weights<2>>(x: X, mut product: Product<'_>) {
    let weights = product.weights;
    let rows = product.out.len() / weights.rows;
    let panel_lines = weights.columns * row_lines(weights.kind);
    let panel = |index: usize| &weights.lines[index * panel_lines..][..panel_lines];
    let count = weights.rows.div_ceil(PANEL);
    let mut index = 0;
    // A few rows need several panels at once to keep the multipliers busy.
    while X::TILE_ROWS >= 8 && rows == 1 && index + 4 <= count {
        tile::<X, W, 1, 4>(
            x,
            &mut product,
            0,
            index,
            [panel(index), panel(index + 1), panel(index + 2), panel(index + 3)],
        );
        index += 4;
    }
    while X::TILE_ROWS >= 2 && rows <= 3 && index + 2 <= count {
        let both = [panel(index), panel(index + 1)];
        match rows {
            1 => tile::<X, W, 1, 2>(x, &mut product, 0, index, both),
            2 => tile::<X, W, 2, 2>(x, &mut product, 0, index, both),
            3 if X::TILE_ROWS >= 8 => tile::<X, W, 3, 2>(x, &mut product, 0, index, both),
            _ => break,
        }
        index += 2;
    }
    for index in index..count {
        column::<X, W>(x, &mut product, rows, index, panel(index));
    }
}

/// All rows with one panel.
#[inline(always)]
fn column<X: Vector, W: Weights<2>>(x: X, product: &mut Product<'_>, rows: usize, index: usize, panel: &[Line]) {
    let mut row = 0;
    while row < rows {
        let left = rows - row;
        if X::TILE_ROWS >= 8 {
            match left {
                8.. => {
                    tile::<X, W, 8, 1>(x, product, row, index, [panel]);
                    row += 8;
                    continue;
                }
                6.. => {
                    tile::<X, W, 6, 1>(x, product, row, index, [panel]);
                    row += 6;
                    continue;
                }
                4.. => {
                    tile::<X, W, 4, 1>(x, product, row, index, [panel]);
                    row += 4;
                    continue;
                }
                _ => {}
            }
        }
        if X::TILE_ROWS >= 3 && left >= 3 {
            tile::<X, W, 3, 1>(x, product, row, index, [panel]);
            row += 3;
        } else if X::TILE_ROWS >= 2 && left >= 2 {
            tile::<X, W, 2, 1>(x, product, row, index, [panel]);
            row += 2;
        } else {
            tile::<X, W, 1, 1>(x, product, row, index, [panel]);
            row += 1;
        }
    }
}

/// `M` rows from `row` with `P` panels from `index`.
#[inline(always)]
fn tile<X: Vector, W: Weights<2>, const M: usize, const P: usize>(
    x: X,
    product: &mut Product<'_>,
    row: usize,
    index: usize,
    panels: [&[Line]; P],
) {
    let mut inputs: [&[f32]; M] = [&[]; M];
    for (i, input) in inputs.iter_mut().enumerate() {
        *input = product.x.get(row + i);
    }
    let mut sums = [[[x.splat(0.0); 2]; P]; M];
    accumulate::<X, W, 2, M, P>(x, inputs, panels, &mut sums);
    let width = product.weights.rows;
    for (i, sums) in sums.iter().enumerate() {
        let out = &mut product.out[(row + i) * width..][..width];
        for (p, sums) in sums.iter().enumerate() {
            for (v, sum) in sums.iter().enumerate() {
                let start = (index + p) * PANEL + v * LANES;
                if start < width {
                    let end = width.min(start + LANES);
                    let mut value = *sum;
                    if let Some(bias) = product.weights.bias {
                        value = x.add(value, x.load_part(&bias[start..end]));
                    }
                    if product.write == Write::Add {
                        value = x.add(x.load_part(&out[start..end]), value);
                    }
                    x.store_part(value, &mut out[start..end]);
                }
            }
        }
    }
}
