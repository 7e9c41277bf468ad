//! A link on which things go wrong on purpose.

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use kernels::Backend;

use super::{NotReceived, PageLink};
use crate::cancel::Cancel;
use crate::experts::pages::Reserved;
use crate::fabric::framing::ConnectionError;
use crate::protocol::PageRequest;

/// What goes wrong on purpose while pages are received; nothing by default. Pages are counted from 1 over all that one mover asks
/// for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// The first chunks of this page come as other bytes; `u64::MAX` means every page.
    pub corrupt: Option<u64>,
    /// The link ends in the middle of this page; `u64::MAX` means every page.
    pub cut: Option<u64>,
    /// Each page comes this much later.
    pub delay: Duration,
}

impl Faults {
    fn hits(fault: Option<u64>, page: u64) -> bool {
        fault.is_some_and(|wanted| wanted == page || wanted == u64::MAX)
    }
}

/// Who is at the other end of a link that fails.
const PEER: &str = "a link with faults";

/// A link with faults.
pub(super) struct Faulty<L> {
    link: L,
    faults: Faults,
    /// Pages that were asked for over all links.
    asked: Arc<AtomicU64>,
    /// The number of the page that comes.
    page: u64,
    /// Whether its first chunk is still to come.
    begins: bool,
}

impl<L> Faulty<L> {
    pub fn around(link: L, faults: Faults, asked: &Arc<AtomicU64>) -> Self {
        Self { link, faults, asked: Arc::clone(asked), page: 0, begins: false }
    }
}

impl<B: Backend, L: PageLink<B>> PageLink<B> for Faulty<L> {
    fn ask(&mut self, request: &PageRequest, patience: Duration) -> Result<Vec<u128>, ConnectionError> {
        (self.page, self.begins) = (self.asked.fetch_add(1, Ordering::Relaxed) + 1, true);
        let delay = self.faults.delay;
        Cancel::default().wait(delay.min(patience));
        if delay > patience {
            return Err(ConnectionError::Io { peer: PEER.to_owned(), source: io::ErrorKind::TimedOut.into() });
        }
        self.link.ask(request, patience)
    }

    fn most_chunks(&self) -> usize {
        self.link.most_chunks()
    }

    fn receive(
        &mut self,
        into: &mut Reserved<B>,
        place: Range<usize>,
        patience: Duration,
    ) -> Result<Vec<u128>, NotReceived> {
        let (start, begins) = (place.start, std::mem::take(&mut self.begins));
        let found = self.link.receive(into, place.clone(), patience)?;
        if begins && Faults::hits(self.faults.cut, self.page) {
            return Err(ConnectionError::Closed { peer: PEER.to_owned() }.into());
        }
        if begins && Faults::hits(self.faults.corrupt, self.page) {
            let other = vec![!found.first().map_or(0, |first| *first as u8); place.len()];
            into.fill(start, &other)?;
            return Ok(into.fingerprinter().of(&other).chunks().to_vec());
        }
        Ok(found)
    }
}
