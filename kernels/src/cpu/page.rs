//! One feed-forward network's weights in one piece of memory: packed gate, up and down matrices, in this order.

use super::matrix::{pack, packed_lines};
use super::simd::{LANES, Line};
use crate::backend::PageShape;
use crate::fingerprint::{Fingerprinter, Fingerprints};
use crate::tensor::MatrixView;

/// A page; immutable, with the fingerprints of its bytes.
#[derive(Debug)]
pub struct Page {
    shape: PageShape,
    lines: Vec<Line>,
    fingerprints: Fingerprints,
}

/// A page that is being received.
#[derive(Debug)]
pub struct Staging {
    shape: PageShape,
    lines: Vec<Line>,
}

/// Where the matrices lie, in lines.
struct Layout {
    gate: usize,
    down: usize,
}

impl Layout {
    const fn of(shape: PageShape) -> Self {
        Self {
            gate: packed_lines(shape.intermediate, shape.hidden, shape.kind),
            down: packed_lines(shape.hidden, shape.intermediate, shape.kind),
        }
    }

    const fn total(&self) -> usize {
        2 * self.gate + self.down
    }
}

impl Page {
    pub(crate) fn new(shape: PageShape, [gate, up, down]: [MatrixView<'_>; 3], fingerprinter: Fingerprinter) -> Self {
        for view in [gate, up] {
            assert_eq!((view.rows(), view.columns()), (shape.intermediate, shape.hidden), "gate and up of a page");
        }
        assert_eq!((down.rows(), down.columns()), (shape.hidden, shape.intermediate), "down of a page");
        let layout = Layout::of(shape);
        let mut staging = Staging::new(shape);
        let (first, rest) = staging.lines.split_at_mut(layout.gate);
        let (second, third) = rest.split_at_mut(layout.gate);
        pack(gate, shape.kind, first);
        pack(up, shape.kind, second);
        pack(down, shape.kind, third);
        let fingerprints = fingerprinter.of(bytemuck::cast_slice(&staging.lines));
        staging.seal(fingerprints)
    }

    pub(crate) const fn shape(&self) -> PageShape {
        self.shape
    }

    pub(crate) fn gate(&self) -> &[Line] {
        &self.lines[..Layout::of(self.shape).gate]
    }

    pub(crate) fn up(&self) -> &[Line] {
        let gate = Layout::of(self.shape).gate;
        &self.lines[gate..2 * gate]
    }

    pub(crate) fn down(&self) -> &[Line] {
        &self.lines[2 * Layout::of(self.shape).gate..]
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        bytemuck::cast_slice(&self.lines)
    }

    pub(crate) const fn fingerprints(&self) -> &Fingerprints {
        &self.fingerprints
    }

    pub(crate) fn recycle(self) -> Staging {
        Staging { shape: self.shape, lines: self.lines }
    }
}

impl Staging {
    pub(crate) fn new(shape: PageShape) -> Self {
        Self { shape, lines: vec![Line([0; LANES]); Layout::of(shape).total()] }
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        bytemuck::cast_slice_mut(&mut self.lines)
    }

    pub(crate) fn seal(self, fingerprints: Fingerprints) -> Page {
        Page { shape: self.shape, lines: self.lines, fingerprints }
    }
}

/// Length of a page in bytes.
pub(crate) const fn page_bytes(shape: PageShape) -> usize {
    Layout::of(shape).total() * size_of::<Line>()
}
