//! Feed-forward networks' weights, each in one piece of memory: packed gate, up and down matrices, in this order.

use std::ops::Range;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use bytemuck::Zeroable;

use super::matrix::{pack, packed_lines};
use super::simd::Line;
use super::untouched::Untouched;
use crate::arena::PageId;
use crate::backend::PageShape;
use crate::error::DeviceError;
use crate::fingerprint::{CHUNK_BYTES, Fingerprinter, Fingerprints};
use crate::tensor::MatrixView;

/// The pages of an arena. Each has memory of its own, which the system gives when it is written. Nobody ever waits for one:
/// who writes a page is its only owner.
#[derive(Debug)]
pub struct Pages {
    shape: PageShape,
    pages: RwLock<Vec<Arc<RwLock<Lines>>>>,
}

#[derive(Debug)]
struct Lines {
    lines: Untouched,
    /// It was not written since the system gave its memory.
    is_zero: bool,
}

/// The pages that there are, for an operation.
pub(crate) struct Open<'a> {
    shape: PageShape,
    pages: RwLockReadGuard<'a, Vec<Arc<RwLock<Lines>>>>,
}

impl Open<'_> {
    /// Looks at a page; `None` while somebody writes it.
    pub fn look<T>(&self, page: PageId, look: impl FnOnce(Network<'_>) -> T) -> Option<T> {
        let page = self.pages[page.0 as usize].try_read().ok()?;
        Some(look(Network { shape: self.shape, lines: page.lines.lines() }))
    }
}

/// Where the matrices lie, in lines.
#[derive(Clone, Copy)]
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

    const fn total(self) -> usize {
        2 * self.gate + self.down
    }
}

/// A network's matrices.
#[derive(Clone, Copy)]
pub(crate) struct Network<'a> {
    pub shape: PageShape,
    lines: &'a [Line],
}

impl<'a> Network<'a> {
    pub fn gate(self) -> &'a [Line] {
        &self.lines[..Layout::of(self.shape).gate]
    }

    pub fn up(self) -> &'a [Line] {
        let gate = Layout::of(self.shape).gate;
        &self.lines[gate..2 * gate]
    }

    pub fn down(self) -> &'a [Line] {
        &self.lines[2 * Layout::of(self.shape).gate..]
    }
}

impl Pages {
    pub(crate) const fn new(shape: PageShape) -> Self {
        Self { shape, pages: RwLock::new(Vec::new()) }
    }

    /// What they hold.
    #[must_use]
    pub const fn shape(&self) -> PageShape {
        self.shape
    }

    /// Gives memory to the next page.
    ///
    /// # Panics
    /// If it is another.
    pub(crate) fn add(&self, page: PageId) -> Result<(), DeviceError> {
        let lines = Untouched::zeroed(Layout::of(self.shape).total())?;
        let mut pages = self.pages.write().unwrap_or_else(PoisonError::into_inner);
        assert_eq!(pages.len(), page.0 as usize, "pages are numbered in order");
        pages.push(Arc::new(RwLock::new(Lines { lines, is_zero: true })));
        Ok(())
    }

    pub(crate) fn open(&self) -> Open<'_> {
        Open { shape: self.shape, pages: self.pages.read().unwrap_or_else(PoisonError::into_inner) }
    }

    fn page(&self, page: PageId) -> Arc<RwLock<Lines>> {
        Arc::clone(&self.open().pages[page.0 as usize])
    }

    /// Writes a page. `zeroed` is whether all of it must be zero before.
    fn write(&self, page: PageId, zeroed: bool, write: impl FnOnce(&mut [Line])) {
        let page = self.page(page);
        let mut page = page.write().unwrap_or_else(PoisonError::into_inner);
        if zeroed && !page.is_zero {
            page.lines.lines_mut().fill(Line::zeroed());
        }
        page.is_zero = false;
        write(page.lines.lines_mut());
    }

    /// Does something while a page is being written.
    #[cfg(test)]
    pub(crate) fn while_written(&self, page: PageId, something: impl FnOnce()) {
        let page = self.page(page);
        let _writing = page.write().unwrap();
        something();
    }

    pub(crate) fn pack(&self, page: PageId, [gate, up, down]: [MatrixView<'_>; 3]) {
        let shape = self.shape;
        for view in [gate, up] {
            assert_eq!((view.rows(), view.columns()), (shape.intermediate, shape.hidden), "gate and up of a page");
        }
        assert_eq!((down.rows(), down.columns()), (shape.hidden, shape.intermediate), "down of a page");
        self.write(page, true, |lines| {
            let layout = Layout::of(shape);
            let (first, rest) = lines.split_at_mut(layout.gate);
            let (second, third) = rest.split_at_mut(layout.gate);
            pack(gate, shape.kind, first);
            pack(up, shape.kind, second);
            pack(down, shape.kind, third);
        });
    }

    pub(crate) fn fill(&self, page: PageId, start: usize, bytes: &[u8]) {
        self.write(page, false, |lines| {
            let page: &mut [u8] = bytemuck::cast_slice_mut(lines);
            page[start..start + bytes.len()].copy_from_slice(bytes);
        });
    }

    pub(crate) fn read(&self, page: PageId, start: usize, into: &mut [u8]) {
        let page = self.page(page);
        let page = page.read().unwrap_or_else(PoisonError::into_inner);
        let bytes: &[u8] = bytemuck::cast_slice(page.lines.lines());
        into.copy_from_slice(&bytes[start..start + into.len()]);
    }

    /// Copies chunks of a page to the same place of one of these, and gives their fingerprints.
    pub(crate) fn pull(
        &self,
        page: PageId,
        (others, from): (&Self, PageId),
        place: Range<usize>,
        fingerprinter: Fingerprinter,
    ) -> Vec<u128> {
        let from = others.page(from);
        let from = from.read().unwrap_or_else(PoisonError::into_inner);
        let from: &[u8] = bytemuck::cast_slice(from.lines.lines());
        let mut found = Vec::with_capacity(place.len().div_ceil(CHUNK_BYTES));
        self.write(page, false, |lines| {
            let page: &mut [u8] = bytemuck::cast_slice_mut(lines);
            let chunks = page[place.clone()].chunks_mut(CHUNK_BYTES).zip(from[place].chunks(CHUNK_BYTES));
            for (chunk, from) in chunks {
                chunk.copy_from_slice(from);
                // It is in the processor's cache.
                found.push(fingerprinter.chunk(chunk));
            }
        });
        found
    }

    pub(crate) fn fingerprints(&self, page: PageId, fingerprinter: Fingerprinter) -> Fingerprints {
        let page = self.page(page);
        let page = page.read().unwrap_or_else(PoisonError::into_inner);
        fingerprinter.of(bytemuck::cast_slice(page.lines.lines()))
    }
}

/// Names the bytes that [`pack`] makes of a page's matrices, and their order. Another name is due when either changes.
pub(crate) const LAYOUT: &str = "lines of 16, gate, up, down";

/// Length of a page in bytes.
pub(crate) const fn page_bytes(shape: PageShape) -> usize {
    Layout::of(shape).total() * size_of::<Line>()
}
