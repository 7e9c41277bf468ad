//! The pages of a rank: weights of experts in memory that has numbers, so that to move an expert is to write another number into a
//! list. Whoever has a [`Page`] owns its number; it is free again when that is dropped.

use std::fmt::{self, Debug, Formatter};
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard};

use crate::backend::{Backend, PageShape};
use crate::error::DeviceError;
use crate::fingerprint::{CHUNK_BYTES, Fingerprints};
use crate::tensor::MatrixView;

/// Number of a page in its arena.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PageId(pub u32);

/// Pages of one shape on one device.
pub struct Arena<B: Backend> {
    backend: Arc<B>,
    shape: PageShape,
    memory: B::Pages,
    numbers: Mutex<Numbers>,
}

#[derive(Default)]
struct Numbers {
    /// Of pages that have memory and nobody owns.
    free: Vec<u32>,
    /// Pages that have memory.
    made: u32,
}

impl<B: Backend> Arena<B> {
    /// One without a page.
    ///
    /// # Errors
    /// If the device has no room for it.
    pub fn new(backend: Arc<B>, shape: PageShape) -> Result<Arc<Self>, DeviceError> {
        let memory = backend.pages(shape)?;
        Ok(Arc::new(Self { backend, shape, memory, numbers: Mutex::default() }))
    }

    /// A page that nobody owns; it gets memory if there is none. What it holds is what it held before.
    ///
    /// # Errors
    /// If the device has no memory for it.
    pub fn take(self: &Arc<Self>) -> Result<Page<B>, DeviceError> {
        let mut numbers = self.numbers();
        let id = if let Some(id) = numbers.free.pop() {
            id
        } else {
            self.backend.add_page(&self.memory, PageId(numbers.made))?;
            numbers.made += 1;
            numbers.made - 1
        };
        Ok(Page { arena: Arc::clone(self), id: PageId(id), fingerprints: None })
    }

    /// Bytes of memory that its pages have, whether anybody owns them or not: none of it is given back.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        B::page_bytes(self.shape) as u64 * u64::from(self.numbers().made)
    }

    /// Its pages, for the device.
    #[must_use]
    pub const fn memory(&self) -> &B::Pages {
        &self.memory
    }

    /// The device.
    #[must_use]
    pub const fn backend(&self) -> &Arc<B> {
        &self.backend
    }

    /// What its pages hold.
    #[must_use]
    pub const fn shape(&self) -> PageShape {
        self.shape
    }

    /// Lets the device of another arena copy pages of this one into its own.
    ///
    /// # Errors
    /// If the machine has no way between them; which, in words.
    pub fn open_to(&self, other: &Self) -> Result<(), DeviceError> {
        other.backend.reach_pages(&self.backend, &self.memory)
    }

    fn numbers(&self) -> MutexGuard<'_, Numbers> {
        self.numbers.lock().expect("no thread panics while it holds the numbers")
    }
}

/// The weights of one feed-forward network, or memory for them. While it is written it has one owner; then many may share it.
pub struct Page<B: Backend> {
    arena: Arc<Arena<B>>,
    id: PageId,
    /// Of what is whole.
    fingerprints: Option<Fingerprints>,
}

impl<B: Backend> Page<B> {
    /// Its number.
    #[must_use]
    pub const fn id(&self) -> PageId {
        self.id
    }

    /// Its weights, for the device.
    #[must_use]
    pub fn weights(&self) -> (&B::Pages, PageId) {
        (self.arena.memory(), self.id)
    }

    /// Where it is.
    #[must_use]
    pub const fn arena(&self) -> &Arc<Arena<B>> {
        &self.arena
    }

    /// Makes it a network's: `gate` and `up` are `[intermediate, hidden]`, `down` is `[hidden, intermediate]`.
    ///
    /// # Errors
    /// If the device fails; then it is not whole.
    pub fn pack(&mut self, gate: MatrixView<'_>, up: MatrixView<'_>, down: MatrixView<'_>) -> Result<(), DeviceError> {
        let Arena { backend, memory, .. } = &*self.arena;
        self.fingerprints = None;
        backend.pack(memory, self.id, [gate, up, down])?;
        self.fingerprints = Some(backend.fingerprints(memory, self.id)?);
        Ok(())
    }

    /// Overwrites bytes from `start` on.
    ///
    /// # Errors
    /// If the device fails; then they are not there.
    pub fn fill(&mut self, start: usize, bytes: &[u8]) -> Result<(), DeviceError> {
        self.arena.backend.fill(&self.arena.memory, self.id, start, bytes)
    }

    /// Copies whole chunks of another page, whose arena was [opened](Arena::open_to) to this one's, and gives the fingerprints of what is
    /// there then.
    ///
    /// # Errors
    /// If either device fails; then they are not there.
    ///
    /// # Panics
    /// If the other page is of another shape, or the place does not begin with a chunk.
    pub fn pull(&mut self, from: &Self, place: Range<usize>) -> Result<Vec<u128>, DeviceError> {
        assert_eq!(self.arena.shape, from.arena.shape, "pages of one shape");
        assert!(place.start.is_multiple_of(CHUNK_BYTES), "byte {} begins no chunk", place.start);
        self.arena.backend.pull(self.weights(), from.weights(), place)
    }

    /// Says that what was written is whole. It is not gone through again: these are the fingerprints that its chunks were found to
    /// have when they were put in their places.
    pub fn seal(&mut self, fingerprints: Fingerprints) {
        self.fingerprints = Some(fingerprints);
    }

    /// The fingerprints of its bytes.
    ///
    /// # Panics
    /// If it was never packed or sealed.
    #[must_use]
    pub const fn fingerprints(&self) -> &Fingerprints {
        self.fingerprints.as_ref().expect("a page is looked at when it is whole")
    }

    /// Its bytes from `start` on, for another rank with the same backend.
    ///
    /// # Errors
    /// If the device fails; then `into` holds anything.
    pub fn read(&self, start: usize, into: &mut [u8]) -> Result<(), DeviceError> {
        self.arena.backend.read_page(&self.arena.memory, self.id, start, into)
    }
}

impl<B: Backend> Debug for Page<B> {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        self.id.fmt(formatter)
    }
}

impl<B: Backend> Drop for Page<B> {
    fn drop(&mut self) {
        self.arena.numbers().free.push(self.id.0);
    }
}
