//! The step path between ranks: every rank connected with every other, and an exchange of any sizes between all of
//! them that cannot deadlock. One thread, sockets that never block, no allocation once buffers have grown.

mod meet;
mod peer;

use std::io;
use std::mem::MaybeUninit;
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use plan::ids::RankId;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use thiserror::Error;

pub use self::meet::StepPort;
use self::meet::{CANCEL_CHECK, call_until};
use self::peer::Peer;
use super::framing::{Closer, ConnectionError};
use super::purpose::GroupId;
use super::secret::Secret;
use super::{Fabric, FabricError, Frame};
use crate::cancel::Cancel;
use crate::protocol::RankAddress;

/// Peers whose readiness one call reports; more are reported by the next.
const EVENTS_AT_ONCE: usize = 32;

/// Why a group did not come together. All can be tried again in the next group.
#[derive(Debug, Error)]
pub enum MeshError {
    /// A rank does not answer.
    #[error("{peer} cannot be reached")]
    Unreachable {
        /// The rank that was not reached.
        peer: RankId,
        /// What the last attempt says.
        source: ConnectionError,
    },
    /// Ranks did not call in time.
    #[error("{missing:?} did not connect within {seconds} s")]
    Incomplete {
        /// The ranks that have not come.
        missing: Vec<RankId>,
        /// How long was waited.
        seconds: u64,
    },
    /// The group was dissolved meanwhile.
    #[error("forming the group was cancelled")]
    Cancelled,
    /// The system refuses.
    #[error("the step path failed")]
    System(#[from] io::Error),
}

/// The connections of one rank to all others.
#[derive(Debug)]
pub struct Mesh {
    rank: RankId,
    /// `[ranks]`; `None` at this rank's own place.
    peers: Vec<Option<Peer>>,
    readiness: OwnedFd,
    exchange: u64,
    dissolved: Arc<AtomicBool>,
}

/// Ends a mesh from another thread.
#[derive(Debug)]
pub struct Dissolver {
    dissolved: Arc<AtomicBool>,
    closers: Vec<Closer>,
}

impl Dissolver {
    /// Closes every connection; an exchange that waits fails at once with [`FabricError::Dissolved`].
    pub fn dissolve(&self) {
        self.dissolved.store(true, Ordering::Release);
        self.closers.iter().for_each(Closer::close);
    }
}

/// The most that a rank sends another in one exchange; more is a broken peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Largest {
    /// Indices of a frame.
    pub indices: usize,
    /// Values of a frame.
    pub values: usize,
}

impl Largest {
    /// The most that a rank of `tokens` tokens a step sends, each to `top_k` experts in rows of `width`: a row for each, of
    /// one slot.
    #[must_use]
    pub const fn of_step(tokens: usize, top_k: usize, width: usize) -> Self {
        let pairs = tokens.saturating_mul(top_k);
        Self { indices: pairs.saturating_mul(2).saturating_add(1), values: pairs.saturating_mul(width) }
    }
}

/// Who a mesh connects.
#[derive(Clone, Copy, Debug)]
pub struct MeshSetup<'a> {
    /// The group.
    pub group: GroupId,
    /// What its ranks prove themselves by.
    pub secret: &'a Secret,
    /// This rank.
    pub rank: RankId,
    /// Every rank in order.
    pub ranks: &'a [RankAddress],
    /// What it may be sent.
    pub largest: Largest,
}

impl Mesh {
    /// Connects this rank with every other: it calls the ranks below it and is called by those above.
    ///
    /// # Errors
    /// If the group does not come together within `timeout`, or `cancel` ends it.
    pub fn connect(
        setup: MeshSetup<'_>,
        port: &StepPort,
        timeout: Duration,
        cancel: &Cancel,
    ) -> Result<Self, MeshError> {
        let deadline = Instant::now() + timeout;
        let own = setup.rank.index();
        let expecting = port.expect(setup);
        let mut streams: Vec<Option<TcpStream>> = setup.ranks.iter().map(|_| None).collect();
        for address in &setup.ranks[..own] {
            let connection = call_until(setup, address, deadline, cancel)?;
            streams[address.rank.index()] = Some(connection.into_stream());
        }
        loop {
            let missing: Vec<RankId> = missing(&streams, own).collect();
            if missing.is_empty() {
                return Self::new(setup.rank, streams, setup.largest);
            }
            if cancel.is_cancelled() {
                return Err(MeshError::Cancelled);
            }
            if Instant::now() >= deadline {
                return Err(MeshError::Incomplete { missing, seconds: timeout.as_secs() });
            }
            if let Ok((from, connection)) = expecting.callers.recv_timeout(CANCEL_CHECK) {
                streams[from.index()] = Some(connection.into_stream());
            }
        }
    }

    /// Takes streams that are connected, `[ranks]`, with `None` at this rank's own place.
    ///
    /// # Errors
    /// If the system refuses to watch them.
    pub fn new(rank: RankId, streams: Vec<Option<TcpStream>>, largest: Largest) -> Result<Self, MeshError> {
        let readiness = epoll::create(CreateFlags::CLOEXEC).map_err(io::Error::from)?;
        let mut peers = Vec::with_capacity(streams.len());
        for (index, stream) in streams.into_iter().enumerate() {
            let Some(stream) = stream else {
                peers.push(None);
                continue;
            };
            stream.set_nonblocking(true)?;
            // Edge-triggered: watched once for both directions, and every use ends with the system saying "not now".
            let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
            epoll::add(&readiness, &stream, EventData::new_u64(index as u64), flags).map_err(io::Error::from)?;
            peers.push(Some(Peer::new(index.into(), stream, largest)));
        }
        Ok(Self { rank, peers, readiness, exchange: 0, dissolved: Arc::default() })
    }

    /// What ends it from another thread.
    ///
    /// # Errors
    /// If the system has no more descriptors.
    pub fn dissolver(&self) -> io::Result<Dissolver> {
        let closers: io::Result<_> = self.peers.iter().flatten().map(|peer| Closer::of(&peer.stream)).collect();
        Ok(Dissolver { dissolved: Arc::clone(&self.dissolved), closers: closers? })
    }

    fn exchange(&mut self, outgoing: &[Frame], incoming: &mut [Frame]) -> Result<(), FabricError> {
        self.exchange += 1;
        for peer in self.peers.iter_mut().flatten() {
            peer.start(self.exchange, &outgoing[peer.rank.index()])?;
        }
        loop {
            let mut finished = true;
            for peer in self.peers.iter_mut().flatten() {
                let index = peer.rank.index();
                finished &= peer.write_some(&outgoing[index])?;
                finished &= peer.read_some(self.exchange, &mut incoming[index])?;
            }
            if finished {
                return Ok(());
            }
            self.wait()?;
        }
    }

    fn wait(&mut self) -> Result<(), FabricError> {
        let mut events = [const { MaybeUninit::uninit() }; EVENTS_AT_ONCE];
        let events: &[epoll::Event] = match epoll::wait(&self.readiness, events.as_mut_slice(), None) {
            Ok((events, _)) => events,
            Err(rustix::io::Errno::INTR) => &[],
            Err(error) => return Err(FabricError::Wait(error.into())),
        };
        let broken = EventFlags::ERR | EventFlags::HUP | EventFlags::RDHUP;
        for event in events {
            // By value: the record is packed.
            let (flags, index) = (event.flags, event.data.u64() as usize);
            if let Some(peer) = &mut self.peers[index] {
                peer.readable |= flags.intersects(EventFlags::IN | broken);
                peer.writable |= flags.intersects(EventFlags::OUT | broken);
            }
        }
        Ok(())
    }
}

/// The ranks that have no stream yet.
fn missing(streams: &[Option<TcpStream>], own: usize) -> impl Iterator<Item = RankId> {
    (0..streams.len()).filter(move |&rank| rank != own && streams[rank].is_none()).map(RankId::from)
}

impl Fabric for Mesh {
    fn rank(&self) -> RankId {
        self.rank
    }

    fn ranks(&self) -> usize {
        self.peers.len()
    }

    fn all_to_all(&mut self, outgoing: &[Frame], incoming: &mut [Frame]) -> Result<(), FabricError> {
        assert_eq!((outgoing.len(), incoming.len()), (self.peers.len(), self.peers.len()), "one frame for each rank");
        self.exchange(outgoing, incoming)
            .map_err(|error| if self.dissolved.load(Ordering::Acquire) { FabricError::Dissolved } else { error })
    }
}

#[cfg(test)]
mod tests;
