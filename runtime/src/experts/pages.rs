//! The pages of one rank in one group, and their one owner: those that slots point at, which other ranks may ask for, those that a
//! step may still read, and the staging memory that pages are received into. The routing knows pages by number alone.
//!
//! The engine's thread never waits here: what it commits it sends on a channel, and whoever needs to know takes note of that
//! first. So the view is exact, and no lock is ever held by both paths.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, unbounded};
use kernels::fingerprint::{Fingerprinter, Fingerprints};
use kernels::{Arena, Backend, DeviceError, Page};
use plan::ids::{ExpertId, LayerId, RankId};
use plan::map::ExpertMap;

use crate::cancel::Cancel;
use crate::protocol::Commit;

/// How often a wait for a staging page looks whether a page that was replaced is no longer read.
const RECLAIM_INTERVAL: Duration = Duration::from_millis(10);

/// Pages by what they hold.
pub type HeldPages<B> = BTreeMap<(LayerId, ExpertId), Arc<Page<B>>>;

/// The pages of one rank in one group.
pub struct RankPages<B: Backend> {
    arena: Arc<Arena<B>>,
    returns: Sender<Returned<B>>,
    returned: Receiver<Returned<B>>,
    state: Mutex<State<B>>,
}

struct State<B: Backend> {
    map: ExpertMap,
    held: HeldPages<B>,
    free: Vec<Page<B>>,
    /// Pages that no slot points at any more; staging memory once nobody reads them.
    retired: Vec<Retired<B>>,
}

/// A page that no slot points at.
struct Retired<B: Backend> {
    /// Whoever sends it to another rank has it too.
    page: Arc<Page<B>>,
    /// The last step that may read it, if that has not passed.
    last: Option<B::Mark>,
}

/// What comes back from wherever it was used.
enum Returned<B: Backend> {
    /// A commit is in force: the new page of each changed slot of this rank, and the last step that was put on the queue before
    /// it, if there is one.
    Swapped { commit: Commit, pages: Vec<Swap<B>>, mark: Option<B::Mark> },
    /// Staging memory was not used, or what was received is not wanted.
    Staging(Page<B>),
}

/// A slot that points at another page.
pub struct Swap<B: Backend> {
    /// What the slot held.
    pub from: ExpertId,
    /// What it holds.
    pub to: ExpertId,
    /// The page of `to`.
    pub page: Arc<Page<B>>,
}

/// Why no staging page was reserved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotReserved {
    /// None became free in time.
    Deadline,
    /// It is not wanted any more.
    Cancelled,
}

impl<B: Backend> RankPages<B> {
    /// The pages of a rank that holds `held` under `map`, with `staging_pages` pages of staging memory.
    ///
    /// # Errors
    /// If the device has no memory for those.
    pub fn new(
        arena: Arc<Arena<B>>,
        map: ExpertMap,
        held: HeldPages<B>,
        staging_pages: u32,
    ) -> Result<Arc<Self>, DeviceError> {
        let free = (0..staging_pages).map(|_| arena.take()).collect::<Result<_, _>>()?;
        let (returns, returned) = unbounded();
        let state = Mutex::new(State { map, held, free, retired: Vec::new() });
        Ok(Arc::new(Self { arena, returns, returned, state }))
    }

    /// Length of each page in bytes.
    #[must_use]
    pub fn page_bytes(&self) -> usize {
        B::page_bytes(self.arena.shape())
    }

    /// The page of an expert that a slot of this rank points at.
    #[must_use]
    pub fn page(&self, layer: LayerId, expert: ExpertId) -> Option<Arc<Page<B>>> {
        self.lock().held.get(&(layer, expert)).cloned()
    }

    /// Every page that a slot of this rank points at.
    #[must_use]
    pub fn held(&self) -> HeldPages<B> {
        self.lock().held.clone()
    }

    /// The ranks that hold an expert.
    #[must_use]
    pub fn holders(&self, layer: LayerId, expert: ExpertId) -> Vec<RankId> {
        self.lock().map.copies(layer, expert).into_iter().map(|(rank, _)| rank).collect()
    }

    /// Lets the device of another rank copy these into its own.
    ///
    /// # Errors
    /// If the machine has no way between them; which, in words.
    pub fn open_to(&self, other: &Self) -> Result<(), DeviceError> {
        self.arena.open_to(&other.arena)
    }

    /// Staging pages that are free.
    #[must_use]
    pub fn free(&self) -> usize {
        self.lock().free.len()
    }

    /// Takes `count` staging pages, all or none, and waits for them until `deadline`.
    ///
    /// # Errors
    /// If they do not become free in time, or `cancel` ends the wait.
    pub fn reserve(
        self: &Arc<Self>,
        count: usize,
        deadline: Instant,
        cancel: &Cancel,
    ) -> Result<Vec<Reserved<B>>, NotReserved> {
        loop {
            let mut state = self.lock();
            if state.free.len() >= count {
                let from = state.free.len() - count;
                let reserve = |page| Reserved { pages: Arc::clone(self), page: Some(page) };
                return Ok(state.free.drain(from..).map(reserve).collect());
            }
            drop(state);
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(NotReserved::Deadline);
            }
            if cancel.wait(left.min(RECLAIM_INTERVAL)) {
                return Err(NotReserved::Cancelled);
            }
        }
    }

    /// Takes note of a commit that is in force for every step after the mark. Does not wait.
    pub fn swapped(&self, commit: Commit, pages: Vec<Swap<B>>, mark: Option<B::Mark>) {
        self.give_back(Returned::Swapped { commit, pages, mark });
    }

    fn give_back(&self, returned: Returned<B>) {
        // Cannot fail: this very value holds the other end.
        let _ = self.returns.send(returned);
    }

    /// The state with everything that was given back.
    fn lock(&self) -> MutexGuard<'_, State<B>> {
        let mut state = self.state.lock().expect("no thread panics while it holds the pages");
        while let Ok(returned) = self.returned.try_recv() {
            state.take_back(returned);
        }
        state.reclaim(self.arena.backend());
        state
    }
}

impl<B: Backend> State<B> {
    fn take_back(&mut self, returned: Returned<B>) {
        match returned {
            Returned::Staging(page) => self.free.push(page),
            Returned::Swapped { commit, pages, mark } => {
                let layer = commit.work.layer;
                self.map.apply_in_place(&commit.work).expect("the routing has applied it");
                let before: Vec<_> =
                    pages.iter().filter_map(|swap| self.held.remove_entry(&(layer, swap.from))).collect();
                self.held.extend(pages.into_iter().map(|swap| ((layer, swap.to), swap.page)));
                // A page that has only changed its slot is still pointed at.
                let is_gone =
                    |(of, page): &(_, Arc<Page<B>>)| self.held.get(of).is_none_or(|now| !Arc::ptr_eq(now, page));
                let gone = before.into_iter().filter(is_gone);
                self.retired.extend(gone.map(|(_, page)| Retired { page, last: mark.clone() }));
            }
        }
    }

    /// Makes pages that nobody reads any more staging memory.
    fn reclaim(&mut self, backend: &B) {
        for Retired { page, last } in std::mem::take(&mut self.retired) {
            let last = last.filter(|mark| !backend.has_passed(mark));
            match Arc::try_unwrap(page) {
                Ok(page) if last.is_none() => self.free.push(page),
                Ok(page) => self.retired.push(Retired { page: Arc::new(page), last }),
                Err(page) => self.retired.push(Retired { page, last }),
            }
        }
    }
}

/// A staging page that is received into; free again when it is dropped.
pub struct Reserved<B: Backend> {
    pages: Arc<RankPages<B>>,
    /// `None` once it is staged.
    page: Option<Page<B>>,
}

impl<B: Backend> Reserved<B> {
    /// The page, to be written.
    ///
    /// # Panics
    /// Never: only what is not yet staged can be.
    pub fn page(&mut self) -> &mut Page<B> {
        self.page.as_mut().expect("a page is staged once")
    }

    /// Overwrites bytes of it from `start` on.
    ///
    /// # Errors
    /// If the device fails; then they are not there.
    pub fn fill(&mut self, start: usize, bytes: &[u8]) -> Result<(), DeviceError> {
        self.page().fill(start, bytes)
    }

    /// Copies whole chunks of a page of a rank that is [open](RankPages::open_to) to this one, and gives the fingerprints of what is
    /// there then.
    ///
    /// # Errors
    /// If either device fails; then they are not there.
    pub fn pull(&mut self, from: &Page<B>, place: Range<usize>) -> Result<Vec<u128>, DeviceError> {
        self.page().pull(from, place)
    }

    /// Length of the page in bytes.
    #[must_use]
    pub fn page_bytes(&self) -> usize {
        self.pages.page_bytes()
    }

    /// What takes the fingerprints of what is received.
    #[must_use]
    pub fn fingerprinter(&self) -> Fingerprinter {
        self.pages.arena.backend().fingerprinter()
    }

    /// Makes what was received a page for a slot: these are the fingerprints that its chunks were found to have.
    #[must_use]
    pub fn seal(mut self, fingerprints: Fingerprints) -> StagedPage<B> {
        self.page().seal(fingerprints);
        self.packed()
    }

    /// Becomes a page for a slot; its network was packed into it.
    #[must_use]
    pub fn packed(mut self) -> StagedPage<B> {
        StagedPage { pages: Arc::clone(&self.pages), page: self.page.take() }
    }
}

impl<B: Backend> Drop for Reserved<B> {
    fn drop(&mut self) {
        if let Some(page) = self.page.take() {
            self.pages.give_back(Returned::Staging(page));
        }
    }
}

/// A page that was received and checked; its memory is free again when it is dropped instead of committed.
pub struct StagedPage<B: Backend> {
    pages: Arc<RankPages<B>>,
    /// `None` once it was taken.
    page: Option<Page<B>>,
}

impl<B: Backend> StagedPage<B> {
    /// The page, to be put in a slot; the one that it replaces becomes staging memory in its stead.
    ///
    /// # Panics
    /// Never: only what is not yet committed can be.
    #[must_use]
    pub fn commit(mut self) -> Arc<Page<B>> {
        Arc::new(self.page.take().expect("a page is committed once"))
    }
}

impl<B: Backend> Drop for StagedPage<B> {
    fn drop(&mut self) {
        if let Some(page) = self.page.take() {
            self.pages.give_back(Returned::Staging(page));
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
