//! Gets one page: asks whom [`Sources`] says over a link, and puts what comes in its place.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::time::Instant;

use kernels::Backend;
use plan::ids::{ExpertId, LayerId, RankId};
use plan::moves::SlotChange;

use super::arriving::{Arriving, Corrupt};
use super::links::{NotReceived, PageLink, connect};
use super::serve::IDLE_LIMIT;
use super::sources::{Next, Sources};
use super::{NotRead, Order, PageRoute, Shared, not_taken, unreachable};
use crate::experts::pages::{Reserved, StagedPage};
use crate::protocol::{MoveFailure, NotStaged, PageRequest};

/// One thread's links to other ranks.
pub(super) struct Fetcher<'a, B: Backend> {
    shared: &'a Shared<B>,
    links: BTreeMap<RankId, Open<B>>,
}

/// A link that is open.
struct Open<B: Backend> {
    link: Box<dyn PageLink<B>>,
    /// What pages that come over it are counted as.
    route: PageRoute,
    /// When it was last used.
    used: Instant,
}

impl<'a, B: Backend> Fetcher<'a, B> {
    pub fn new(shared: &'a Shared<B>) -> Self {
        Self { shared, links: BTreeMap::new() }
    }

    /// The page of `change.to` and the bytes that came from other ranks for it.
    pub fn fetch(
        &mut self,
        order: &Order,
        (change, expected): (&SlotChange, u128),
        into: Reserved<B>,
    ) -> Result<(StagedPage<B>, u64), NotStaged> {
        let setup = &self.shared.setup;
        let (layer, expert, bytes) = (order.work.layer, change.to, setup.pages.page_bytes() as u64);
        let holders = setup.pages.holders(layer, expert);
        let mut sources = Sources::new(change.source, holders, setup.rank, order.deadline);
        let mut arriving = Arriving::new(into, expected);
        loop {
            match sources.next(Instant::now()) {
                Next::Ask(source) => match self.ask(source, (order, expert), &sources, &mut arriving) {
                    Ok(route) => {
                        (setup.count_page)(route);
                        return Ok((arriving.finish(), bytes));
                    }
                    Err(failure) => {
                        let told = sources.failed(failure, Instant::now());
                        tracing::warn!(%layer, %expert, %source, reason = told.message, "a page did not arrive");
                    }
                },
                Next::Checkpoint(failure) => {
                    let into = arriving.into_reserved();
                    let page = self.read((layer, expert), expected, (into, failure))?;
                    (setup.count_page)(PageRoute::Checkpoint);
                    return Ok((page, 0));
                }
                Next::GiveUp(failure) => return Err(failure),
            }
        }
    }

    /// Asks a rank for what is missing, and says which way that came. Its link is kept only if it has given all of that: what is
    /// still on its way would be taken for the answer to the next request.
    fn ask(
        &mut self,
        source: RankId,
        (order, expert): (&Order, ExpertId),
        sources: &Sources,
        arriving: &mut Arriving<B>,
    ) -> Result<PageRoute, NotStaged> {
        let shared = self.shared;
        let lost = |error: &dyn Display| unreachable(format!("{source} did not send the page: {error}"));
        let corrupt =
            |Corrupt| NotStaged { reason: MoveFailure::Corrupt, message: format!("the page from {source} is corrupt") };
        let patience = || sources.patience(Instant::now());
        let (mut link, route) = match self.links.remove(&source) {
            // Its other end closes it when it has been idle for twice as long.
            Some(Open { link, route, used }) if used.elapsed() < IDLE_LIMIT / 2 => (link, route),
            _ => connect(shared, source, patience()?)?,
        };
        let (generation, layer, from) = (shared.setup.group.generation, order.work.layer, arriving.there() as u32);
        let request = PageRequest { generation, layer, expert, from };
        let chunks = link.ask(&request, patience()?).map_err(|error| lost(&error))?;
        if chunks.is_empty() {
            return Err(lost(&"it does not hold it"));
        }
        // What they must be is what every holder has said, not what this one says now.
        arriving.told(chunks).map_err(corrupt)?;
        let most = shared.part(link.most_chunks());
        while let Some((place, into)) = arriving.next(most) {
            let wait = shared.pay(place.len());
            if order.cancel.wait(wait) {
                return Err(NotStaged { reason: MoveFailure::Aborted, message: "aborted".to_owned() });
            }
            let found = link.receive(into, place, patience()?).map_err(|error| match error {
                NotReceived::Connection(error) => lost(&error),
                // Which of the two has failed shows where another gives the page.
                NotReceived::Copy(error) if error.is_worth_a_retry() => lost(&error),
                NotReceived::Copy(error) | NotReceived::Device(error) => not_taken(&error),
            })?;
            arriving.put(&found).map_err(corrupt)?;
        }
        self.links.insert(source, Open { link, route, used: Instant::now() });
        Ok(route)
    }

    /// The page as the checkpoint has it, if no rank gave it.
    fn read(
        &self,
        (layer, expert): (LayerId, ExpertId),
        expected: u128,
        (mut into, failure): (Reserved<B>, NotStaged),
    ) -> Result<StagedPage<B>, NotStaged> {
        let (setup, NotStaged { reason, message }) = (&self.shared.setup, failure);
        match (setup.load_page)(layer, expert, into.page()) {
            Ok(()) if into.page().fingerprints().page() == expected => Ok(into.packed()),
            Ok(()) => Err(NotStaged {
                reason: MoveFailure::Corrupt,
                message: format!("{message}; the checkpoint holds other weights than the group"),
            }),
            Err(NotRead::Device(error)) => Err(not_taken(&error)),
            Err(unreadable @ NotRead::Unreadable { .. }) => {
                Err(NotStaged { reason, message: format!("{message}; nor from the checkpoint: {unreadable}") })
            }
        }
    }
}
