//! Weights as the kernels read them, and how those of a checkpoint become so.

use half::bf16;

use super::Shared;
use super::arena::{Pages, element_bytes, page_bytes};
use super::buffer::Buffer;
use super::memory::Allocation;
use super::parameters::{Address, DrawParameters, KIND_BF16, KIND_F32};
use super::queue::keeps_busy;
use super::shape::{WIDTHS, check_width};
use super::tensor_map::{Matrices, TensorMap};
use crate::arena::PageId;
use crate::drawn::Drawn;
use crate::error::DeviceError;
use crate::tensor::{MatrixView, Values, WeightKind};

/// How parameters of kernels name a kind.
pub(super) const fn kind_word(kind: WeightKind) -> u32 {
    match kind {
        WeightKind::Bf16 => KIND_BF16,
        WeightKind::F32 => KIND_F32,
    }
}

/// A matrix as the checkpoint has it, in rows; also a table to look rows up in.
#[derive(Debug)]
pub struct Matrix {
    pub(super) rows: usize,
    pub(super) columns: usize,
    pub(super) kind: WeightKind,
    /// Where products by it are through its map.
    pub(super) map: Option<TensorMap>,
    memory: Allocation,
    bias: Option<Buffer<f32>>,
}

impl Matrix {
    /// # Panics
    /// If the bias has not one element for each row.
    pub(super) fn new(
        Shared { context, transfers, kernels, .. }: &Shared,
        view: MatrixView<'_>,
        bias: Option<&[f32]>,
    ) -> Result<Self, DeviceError> {
        assert!(bias.is_none_or(|bias| bias.len() == view.rows()), "one bias for each of {} rows", view.rows());
        check_width("a layer", view.columns())?;
        let (rows, columns, kind) = (view.rows(), view.columns(), view.values().kind());
        let bytes = rows * columns * element_bytes(kind);
        let memory = Allocation::new(context, bytes)?;
        if let Some(drawn) = drawn(view, (memory.address(), WIDTHS)) {
            transfers.draw(kernels, &drawn)?;
        } else {
            let mut source = Source::new([view], kind);
            transfers.write(memory.address(), bytes, |start, part| {
                let row_bytes = columns * element_bytes(kind);
                each_row(start, part, row_bytes, |row, from, into| source.copy((0, row), from, into));
            })?;
        }
        let bias = bias.map(|values| {
            let buffer = Buffer::new(context, values.len())?;
            transfers.put(buffer.address(), bytemuck::cast_slice(values))?;
            Ok::<_, DeviceError>(buffer)
        });
        let map = if kind == WeightKind::Bf16 && keeps_busy(context, rows) {
            let (address, page_bytes) = (memory.address(), rows * columns * element_bytes(kind));
            TensorMap::new(context, Matrices { address, page_bytes, pages: 1, rows, columns })?
        } else {
            None
        };
        Ok(Self { rows, columns, kind, map, memory, bias: bias.transpose()? })
    }

    /// Where it is.
    pub(super) const fn address(&self) -> Address {
        self.memory.address()
    }

    /// Where its bias is; 0 if it has none.
    pub(super) fn bias(&self) -> Address {
        self.bias.as_ref().map_or(0, Buffer::address)
    }
}

/// What draws a matrix whose values are drawn, to an address and with so many rows of the memory for eight of its own.
fn drawn(view: MatrixView<'_>, (to, stride): (Address, usize)) -> Option<Vec<DrawParameters>> {
    let (columns, values) = (view.columns(), view.values());
    let (mut parameters, mut row) = (Vec::new(), 0);
    for Drawn { key, first, len, middle, unit } in values.drawn(0, values.len())? {
        assert!(len % columns == 0 && (stride == WIDTHS || row == 0), "a part of a drawn matrix is rows of it");
        let (to, rows) = (to + (row * columns * element_bytes(values.kind())) as u64, len / columns);
        let (kind, rows, columns) = (kind_word(values.kind()), rows as u32, columns as u32);
        parameters.push(DrawParameters { to, key, first, middle, unit, kind, rows, columns, stride: stride as u32 });
        row += len / view.columns();
    }
    Some(parameters)
}

/// Draws a matrix whose values are drawn into memory that nothing uses yet.
///
/// # Panics
/// If they are not.
pub(super) fn draw(shared: &Shared, view: MatrixView<'_>, to: Address) -> Result<(), DeviceError> {
    let parts = drawn(view, (to, WIDTHS)).expect("values that are drawn");
    shared.transfers.draw(&shared.kernels, &parts)
}

/// Makes a page a network's.
///
/// # Panics
/// If the matrices are not those of a page.
pub(super) fn pack(
    Shared { transfers, kernels, .. }: &Shared,
    pages: &Pages,
    page: PageId,
    [gate, up, down]: [MatrixView<'_>; 3],
) -> Result<(), DeviceError> {
    let shape = pages.shape();
    for view in [gate, up] {
        assert_eq!((view.rows(), view.columns()), (shape.intermediate, shape.hidden), "gate and up of a page");
    }
    assert_eq!((down.rows(), down.columns()), (shape.hidden, shape.intermediate), "down of a page");
    let element = element_bytes(shape.kind);
    let (wide, narrow) = (shape.hidden * element, shape.intermediate * element);
    let (first, both) = (2 * shape.intermediate * wide, 2 * shape.intermediate * wide + shape.hidden * narrow);
    let address = pages.page(page);
    let places =
        [(address, 2 * WIDTHS), (address + (WIDTHS * wide) as u64, 2 * WIDTHS), (address + first as u64, WIDTHS)];
    let made: Option<Vec<_>> = [gate, up, down].into_iter().zip(places).map(|(view, to)| drawn(view, to)).collect();
    if let Some(made) = made {
        transfers.draw(kernels, &made.concat())?;
        let padding = page_bytes(shape) - both;
        return if padding == 0 { Ok(()) } else { transfers.zero(address + both as u64, padding) };
    }
    let mut source = Source::new([gate, up, down], shape.kind);
    transfers.write(pages.page(page), page_bytes(shape), |start, part| {
        let (upper, rest) = part.split_at_mut(first.saturating_sub(start).min(part.len()));
        // Eight rows of gate, then eight of up.
        let place = |row: usize| (row / WIDTHS % 2, row / (2 * WIDTHS) * WIDTHS + row % WIDTHS);
        each_row(start, upper, wide, |row, from, into| source.copy(place(row), from, into));
        let start = start.max(first);
        let (lower, padding) = rest.split_at_mut(both.saturating_sub(start).min(rest.len()));
        each_row(start - first, lower, narrow, |row, from, into| source.copy((2, row), from, into));
        padding.fill(0);
    })
}

/// Calls `copy` for each row of `row_bytes` that has bytes in `part`, which begins `start` bytes from the first row: with its
/// number, the first of its bytes that are wanted, and where they go.
fn each_row(start: usize, part: &mut [u8], row_bytes: usize, mut copy: impl FnMut(usize, usize, &mut [u8])) {
    let (mut at, mut rest) = (start, part);
    while !rest.is_empty() {
        let (row, from) = (at / row_bytes, at % row_bytes);
        let (into, left) = rest.split_at_mut((row_bytes - from).min(rest.len()));
        at += into.len();
        copy(row, from, into);
        rest = left;
    }
}

/// Matrices whose rows are wanted as bytes of one kind.
struct Source<'a, const N: usize> {
    views: [MatrixView<'a>; N],
    kind: WeightKind,
    /// The last row that had to be widened.
    widened: Vec<f32>,
    place: Option<(usize, usize)>,
}

impl<'a, const N: usize> Source<'a, N> {
    const fn new(views: [MatrixView<'a>; N], kind: WeightKind) -> Self {
        Self { views, kind, widened: Vec::new(), place: None }
    }

    /// Bytes of a row of a matrix from `from` on.
    ///
    /// # Panics
    /// If its values do not fit the kind exactly.
    fn copy(&mut self, place: (usize, usize), from: usize, into: &mut [u8]) {
        let view = self.views[place.0];
        let range = place.1 * view.columns()..(place.1 + 1) * view.columns();
        let bytes: &[u8] = match (view.values(), self.kind) {
            (Values::Bf16(values), WeightKind::Bf16) => bytemuck::cast_slice::<bf16, u8>(&values[range]),
            (Values::F32(values), WeightKind::F32) => bytemuck::cast_slice(&values[range]),
            (_, WeightKind::Bf16) => unreachable!("only bfloat16 is packed as bfloat16"),
            (values, WeightKind::F32) => {
                if self.place != Some(place) {
                    self.widened.clear();
                    self.widened.extend(range.map(|index| values.get(index)));
                    self.place = Some(place);
                }
                bytemuck::cast_slice(&self.widened)
            }
        };
        into.copy_from_slice(&bytes[from..from + into.len()]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_found_wherever_a_part_begins_and_ends() {
        let all: Vec<u8> = (0..60).collect();
        for (start, end) in [(0, 60), (0, 7), (3, 11), (10, 20), (19, 60), (25, 25)] {
            let mut part = vec![0; end - start];
            each_row(start, &mut part, 10, |row, from, into| {
                into.copy_from_slice(&all[row * 10 + from..][..into.len()]);
            });
            assert_eq!(part, all[start..end]);
        }
    }

    #[test]
    fn a_row_of_any_kind_is_given_in_the_kind_that_is_wanted() {
        let values: Vec<f32> = (0..12).map(|value| value as f32 / 4.0).collect();
        let narrow: Vec<bf16> = values.iter().copied().map(bf16::from_f32).collect();
        let halves: Vec<half::f16> = values.iter().copied().map(half::f16::from_f32).collect();
        for (stored, kind) in [
            (Values::F32(&values), WeightKind::F32),
            (Values::F16(&halves), WeightKind::F32),
            (Values::Bf16(&narrow), WeightKind::F32),
            (Values::Bf16(&narrow), WeightKind::Bf16),
        ] {
            let mut source = Source::new([MatrixView::new(3, 4, stored)], kind);
            for (row, from) in [(1, 0), (1, 4), (2, 4), (0, 0)] {
                let mut bytes = vec![0; 4];
                source.copy((0, row), from, &mut bytes);
                let (found, index) = match kind {
                    WeightKind::F32 => (f32::from_le_bytes(bytes.try_into().unwrap()), row * 4 + from / 4),
                    WeightKind::Bf16 => (bf16::from_le_bytes([bytes[0], bytes[1]]).to_f32(), row * 4 + from / 2),
                };
                assert!((found - values[index]).abs() < f32::EPSILON, "{kind:?} {row} {from}");
            }
        }
    }
}
