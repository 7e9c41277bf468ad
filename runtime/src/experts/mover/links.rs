//! Ways to the pages of other ranks. Which rank is asked for what, and when it is given up, is not decided here.

mod faulty;
mod tcp;

use std::ops::Range;
use std::time::Duration;

use kernels::{Backend, DeviceError};
use plan::ids::RankId;
use thiserror::Error;

pub use self::faulty::Faults;
use self::faulty::Faulty;
use self::tcp::TcpLink;
use super::{Shared, unreachable};
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

    /// Puts the next chunk in its place, and gives the fingerprint of what is there then.
    fn receive(&mut self, into: &mut Reserved<B>, place: Range<usize>, patience: Duration)
    -> Result<u128, NotReceived>;
}

/// Why a chunk is not in its place.
#[derive(Debug, Error)]
pub(super) enum NotReceived {
    /// It did not come.
    #[error(transparent)]
    Connection(#[from] ConnectionError),
    /// This rank's device did not take it.
    #[error(transparent)]
    Device(#[from] DeviceError),
}

/// A new way to a rank, with what goes wrong on it on purpose.
pub(super) fn connect<B: Backend>(
    shared: &Shared<B>,
    source: RankId,
    patience: Duration,
) -> Result<Box<dyn PageLink<B>>, NotStaged> {
    let setup = &shared.setup;
    let Some(address) = setup.ranks.get(source.index()) else {
        return Err(unreachable(format!("{source} is not part of the group")));
    };
    let purpose = (Purpose::Moves { group: setup.group, from: setup.rank, to: source }, &setup.secret);
    let connection = call(&address.moves, source.to_string(), purpose, patience.min(CONNECT_TIMEOUT))
        .map_err(|error| unreachable(error.to_string()))?;
    let link = TcpLink::new(connection, setup.pages.page_bytes());
    Ok(match setup.faults {
        faults if faults == Faults::default() => Box::new(link),
        faults => Box::new(Faulty::around(link, faults, &shared.asked)),
    })
}
