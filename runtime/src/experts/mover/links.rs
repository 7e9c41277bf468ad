//! Ways to the pages of other ranks. Which rank is asked for what, and when it is given up, is not decided here.

mod faulty;
mod peer;
mod tcp;

use std::ops::Range;
use std::time::Duration;

use kernels::{Backend, DeviceError};
use plan::ids::RankId;
use thiserror::Error;

pub use self::faulty::Faults;
use self::faulty::Faulty;
pub(super) use self::peer::PeerLink;
use self::tcp::TcpLink;
use super::{PageRoute, Shared, unreachable};
use crate::experts::pages::Reserved;
use crate::fabric::framing::{CONNECT_TIMEOUT, ConnectionError};
use crate::fabric::handshake::call;
use crate::fabric::purpose::Purpose;
use crate::protocol::{NotStaged, PageRequest};

/// A way to the pages of one rank.
pub(super) trait PageLink<B: Backend> {
    /// Asks for a page, from one of its chunks on. Gives the fingerprints of all of its chunks, as its sender says; none if it
    /// is not held there.
    fn ask(&mut self, request: &PageRequest, patience: Duration) -> Result<Vec<u128>, ConnectionError>;

    /// Chunks that it is best asked for at once, at most.
    fn most_chunks(&self) -> usize;

    /// Puts the next chunks in their places, and gives the fingerprints of what is there then.
    fn receive(
        &mut self,
        into: &mut Reserved<B>,
        place: Range<usize>,
        patience: Duration,
    ) -> Result<Vec<u128>, NotReceived>;
}

/// Why chunks are not in their places.
#[derive(Debug, Error)]
pub(super) enum NotReceived {
    /// They did not come.
    #[error(transparent)]
    Connection(#[from] ConnectionError),
    /// A copy between two devices failed, this rank's or the other's.
    #[error(transparent)]
    Copy(DeviceError),
    /// This rank's device did not take them.
    #[error(transparent)]
    Device(#[from] DeviceError),
}

/// A new way to a rank, with what goes wrong on it on purpose; and what pages that come over it are counted as.
pub(super) fn connect<B: Backend>(
    shared: &Shared<B>,
    source: RankId,
    patience: Duration,
) -> Result<(Box<dyn PageLink<B>>, PageRoute), NotStaged> {
    let setup = &shared.setup;
    let Some(address) = setup.ranks.get(source.index()) else {
        return Err(unreachable(format!("{source} is not part of the group")));
    };
    if let Some(pages) = setup.near.pages(source) {
        return Ok((with_faults(shared, PeerLink::new(source, pages)), PageRoute::Peer));
    }
    let purpose = (Purpose::Moves { group: setup.group, from: setup.rank, to: source }, &setup.secret);
    let connection = call(&address.moves, source.to_string(), purpose, patience.min(CONNECT_TIMEOUT))
        .map_err(|error| unreachable(error.to_string()))?;
    let own = setup.ranks.get(setup.rank.index());
    let route = if own.is_some_and(|own| own.node == address.node) { PageRoute::Node } else { PageRoute::Network };
    Ok((with_faults(shared, TcpLink::new(connection, setup.pages.page_bytes())), route))
}

fn with_faults<B: Backend>(shared: &Shared<B>, link: impl PageLink<B> + 'static) -> Box<dyn PageLink<B>> {
    match shared.setup.faults {
        faults if faults == Faults::default() => Box::new(link),
        faults => Box::new(Faulty::around(link, faults, &shared.asked)),
    }
}
