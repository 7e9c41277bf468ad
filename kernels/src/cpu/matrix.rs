//! Weights in the layout that matrix products read: panels of 32 outputs, each `[columns][32]`, so that one vector
//! holds outputs and a product adds up over `columns` in order.
//!
//! A bfloat16 panel row is one cache line: word `i` holds output `i` in its low and output `i + 16` in its high half.
//! An f32 panel row is two lines. Outputs beyond the matrix are zero.

use half::bf16;

use super::simd::{LANES, Line, Vector};
use super::untouched::Untouched;
use crate::drawn::Drawn;
use crate::error::DeviceError;
use crate::host::{list, listed};
use crate::tensor::{MatrixView, Values, WeightKind};

/// Outputs of a panel.
pub(crate) const PANEL: usize = 2 * LANES;

/// How the lines of one panel row become `V` vectors.
pub(crate) trait Weights<const V: usize> {
    /// Lines of a panel row.
    const LINES: usize;
    /// The row.
    fn load<X: Vector>(x: X, lines: &[Line]) -> [X::F32; V];
}

/// Panels of [`WeightKind::Bf16`].
pub(crate) struct Bf16;
/// Panels of [`WeightKind::F32`].
pub(crate) struct F32;

impl Weights<2> for Bf16 {
    const LINES: usize = 1;

    #[inline(always)]
    fn load<X: Vector>(x: X, lines: &[Line]) -> [X::F32; 2] {
        x.widen(&lines[0].0)
    }
}

impl Weights<2> for F32 {
    const LINES: usize = 2;

    #[inline(always)]
    fn load<X: Vector>(x: X, lines: &[Line]) -> [X::F32; 2] {
        [x.load(lines[0].floats()), x.load(lines[1].floats())]
    }
}

/// Half as wide: tiles of the cache.
impl Weights<1> for F32 {
    const LINES: usize = 1;

    #[inline(always)]
    fn load<X: Vector>(x: X, lines: &[Line]) -> [X::F32; 1] {
        [x.load(lines[0].floats())]
    }
}

/// Lines of a panel row of `kind`.
pub(crate) const fn row_lines(kind: WeightKind) -> usize {
    match kind {
        WeightKind::Bf16 => 1,
        WeightKind::F32 => 2,
    }
}

/// Lines of a packed matrix.
pub(crate) const fn packed_lines(rows: usize, columns: usize, kind: WeightKind) -> usize {
    rows.div_ceil(PANEL) * columns * row_lines(kind)
}

/// Packs a matrix into `packed_lines` zeroed lines.
///
/// # Panics
/// If the matrix's values do not fit `kind` exactly.
pub(crate) fn pack(view: MatrixView<'_>, kind: WeightKind, lines: &mut [Line]) {
    let (columns, values) = (view.columns(), view.values());
    let panel_lines = columns * row_lines(kind);
    for (index, panel) in lines.chunks_exact_mut(panel_lines).enumerate() {
        let (first, outputs) = (index * PANEL, (view.rows() - index * PANEL).min(PANEL));
        if let Some(parts) = values.drawn(first * columns, outputs * columns) {
            match values.kind() {
                WeightKind::Bf16 => {
                    let made: Vec<bf16> = parts.into_iter().flat_map(Drawn::to_bf16).collect();
                    pack(MatrixView::new(outputs, columns, Values::Bf16(&made)), kind, panel);
                }
                WeightKind::F32 => {
                    let made: Vec<f32> = parts.into_iter().flat_map(Drawn::to_f32).collect();
                    pack(MatrixView::new(outputs, columns, Values::F32(&made)), kind, panel);
                }
            }
            continue;
        }
        match kind {
            WeightKind::Bf16 => {
                let Values::Bf16(values) = values else { unreachable!("only bfloat16 is packed as bfloat16") };
                pack_bf16(&values[first * columns..][..outputs * columns], columns, panel);
            }
            WeightKind::F32 => {
                for output in 0..outputs {
                    let start = (first + output) * columns;
                    for (column, row) in panel.chunks_exact_mut(2).enumerate() {
                        row[output / LANES].0[output % LANES] = values.get(start + column).to_bits();
                    }
                }
            }
        }
    }
}

/// Packs the rows of one panel, some columns of all of them after the other: the lines that they go to stay in the nearest cache.
fn pack_bf16(values: &[bf16], columns: usize, panel: &mut [Line]) {
    const COLUMNS: usize = 128;
    for (block, lines) in panel.chunks_mut(COLUMNS).enumerate() {
        let (first, len) = (block * COLUMNS, lines.len());
        let part = |output: usize| values.get(output * columns + first..output * columns + first + len);
        for lane in 0..LANES {
            match (part(lane), part(lane + LANES)) {
                (Some(low), Some(high)) => {
                    for ((line, low), high) in lines.iter_mut().zip(low).zip(high) {
                        line.0[lane] = u32::from(low.to_bits()) | u32::from(high.to_bits()) << 16;
                    }
                }
                (Some(low), None) => {
                    for (line, low) in lines.iter_mut().zip(low) {
                        line.0[lane] = u32::from(low.to_bits());
                    }
                }
                (None, _) => break,
            }
        }
    }
}

/// A linear layer with packed weights.
#[derive(Debug)]
pub struct Matrix {
    pub(crate) rows: usize,
    pub(crate) columns: usize,
    pub(crate) kind: WeightKind,
    lines: Untouched,
    pub(crate) bias: Option<Vec<f32>>,
}

impl Matrix {
    pub(crate) fn lines(&self) -> &[Line] {
        self.lines.lines()
    }

    /// # Panics
    /// If the bias has not one element for each row.
    pub(crate) fn new(view: MatrixView<'_>, bias: Option<&[f32]>) -> Result<Self, DeviceError> {
        assert!(bias.is_none_or(|bias| bias.len() == view.rows()), "one bias for each of {} rows", view.rows());
        let kind = view.values().kind();
        let mut lines = Untouched::zeroed(packed_lines(view.rows(), view.columns(), kind))?;
        pack(view, kind, lines.lines_mut());
        let bias = bias.map(|bias| listed(bias.iter().copied())).transpose()?;
        Ok(Self { rows: view.rows(), columns: view.columns(), kind, lines, bias })
    }
}

/// Rows to be looked up, as the checkpoint has them.
#[derive(Debug)]
pub struct Lookup {
    width: usize,
    values: Stored,
}

#[derive(Debug)]
enum Stored {
    Bf16(Vec<bf16>),
    F32(Vec<f32>),
}

impl Lookup {
    pub(crate) fn new(view: MatrixView<'_>) -> Result<Self, DeviceError> {
        let values = match view.values() {
            Values::Bf16(values) => Stored::Bf16(listed(values.iter().copied())?),
            Values::F16(values) => Stored::F32(listed(values.iter().map(|value| value.to_f32()))?),
            Values::F32(values) => Stored::F32(listed(values.iter().copied())?),
            Values::Drawn { kind: WeightKind::Bf16, parts } => {
                let mut values = list(view.values().len())?;
                values.extend(parts.iter().copied().flat_map(Drawn::to_bf16));
                Stored::Bf16(values)
            }
            Values::Drawn { kind: WeightKind::F32, parts } => {
                let mut values = list(view.values().len())?;
                values.extend(parts.iter().copied().flat_map(Drawn::to_f32));
                Stored::F32(values)
            }
        };
        Ok(Self { width: view.columns(), values })
    }

    pub(crate) const fn width(&self) -> usize {
        self.width
    }

    /// Widens row `row` into `out`.
    pub(crate) fn read(&self, row: usize, out: &mut [f32]) {
        let range = row * self.width..(row + 1) * self.width;
        match &self.values {
            Stored::Bf16(values) => {
                for (out, value) in out.iter_mut().zip(&values[range]) {
                    *out = f32::from_bits(u32::from(value.to_bits()) << 16);
                }
            }
            Stored::F32(values) => out.copy_from_slice(&values[range]),
        }
    }
}
