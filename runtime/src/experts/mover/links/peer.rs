//! Pages of a rank of the same process: this rank's device copies them out of the other's memory, and no host has them in between.

use std::io;
use std::ops::Range;
use std::sync::{Arc, Weak};
use std::time::Duration;

use kernels::{Backend, Page};
use plan::ids::RankId;

use super::{NotReceived, PageLink};
use crate::experts::pages::{RankPages, Reserved};
use crate::fabric::framing::ConnectionError;
use crate::protocol::PageRequest;

/// Chunks that are copied at once: 4 MiB. All of them are checked by one kernel, which takes about as long for one chunk, and to put
/// a copy and a kernel on a stream takes as long for any number.
const MOST_CHUNKS: usize = 64;

/// See the module's documentation.
pub(in crate::experts::mover) struct PeerLink<B: Backend> {
    source: RankId,
    /// Gone when that rank has left the group.
    pages: Weak<RankPages<B>>,
    /// What was asked for. Whoever holds it keeps it from being written, also where no slot points at it any more.
    asked: Option<Arc<Page<B>>>,
}

impl<B: Backend> PeerLink<B> {
    /// To a rank with these pages.
    pub const fn new(source: RankId, pages: Weak<RankPages<B>>) -> Self {
        Self { source, pages, asked: None }
    }

    /// The rank's pages, if it is still there.
    fn pages(&self) -> Result<Arc<RankPages<B>>, ConnectionError> {
        self.pages.upgrade().ok_or_else(|| ConnectionError::Closed { peer: self.source.to_string() })
    }
}

impl<B: Backend> PageLink<B> for PeerLink<B> {
    fn ask(&mut self, request: &PageRequest, _: Duration) -> Result<Vec<u128>, ConnectionError> {
        self.asked = self.pages()?.page(request.layer, request.expert);
        Ok(self.asked.as_ref().map_or_else(Vec::new, |page| page.fingerprints().chunks().to_vec()))
    }

    fn most_chunks(&self) -> usize {
        MOST_CHUNKS
    }

    fn receive(&mut self, into: &mut Reserved<B>, place: Range<usize>, _: Duration) -> Result<Vec<u128>, NotReceived> {
        // A rank that leaves needs its memory: what is left of the page comes from another.
        self.pages()?;
        let end = place.end;
        let nothing = || ConnectionError::Io { peer: self.source.to_string(), source: io::ErrorKind::NotFound.into() };
        let page = self.asked.as_deref().ok_or_else(nothing)?;
        let found = into.pull(page, place).map_err(NotReceived::Copy)?;
        if end == into.page_bytes() {
            self.asked = None;
        }
        Ok(found)
    }
}
