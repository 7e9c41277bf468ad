//! The step path between ranks: every rank connected with every other, and an exchange of any sizes between all of
//! them that cannot deadlock. One thread, sockets that never block, no allocation once buffers have grown.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use plan::ids::RankId;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use thiserror::Error;

use super::framing::{CONNECT_TIMEOUT, Closer, Connection, ConnectionError};
use super::hello::{GroupId, Purpose};
use super::{Fabric, FabricError, Frame};
use crate::cancel::Cancel;
use crate::protocol::RankAddress;

/// Ahead of each frame: the number of the exchange (8 bytes), how many indices and how many values follow (4 each).
/// Numbers are little endian, as is every machine that this runs on.
const HEAD_BYTES: usize = 16;

/// The most indices or values of a frame: 16,384 tokens of 8 experts and 8,192 values are 2^30; more is a broken peer.
const MAX_ITEMS: usize = 1 << 30;

/// Peers whose readiness one call reports; more are reported by the next.
const EVENTS_AT_ONCE: usize = 32;

/// How often a wait looks whether it was cancelled.
const CANCEL_CHECK: Duration = Duration::from_millis(50);

/// How long a rank that is called may take to answer before it is called again: it answers once its experts are loaded.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);

/// Why a group did not come together. All can be tried again in the next group.
#[derive(Debug, Error)]
pub enum MeshError {
    /// A rank does not answer.
    #[error("{peer} cannot be reached")]
    Unreachable {
        /// Which.
        peer: RankId,
        /// What the last attempt says.
        source: ConnectionError,
    },
    /// Ranks did not call in time.
    #[error("{missing:?} did not connect within {seconds} s")]
    Incomplete {
        /// Who.
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

#[derive(Debug)]
struct Peer {
    rank: RankId,
    stream: TcpStream,
    /// False from a read (or write) that found nothing until the system says otherwise.
    readable: bool,
    writable: bool,
    head_out: [u8; HEAD_BYTES],
    sent: usize,
    head_in: [u8; HEAD_BYTES],
    received: usize,
}

/// Who a mesh connects.
#[derive(Clone, Copy, Debug)]
pub struct Members<'a> {
    /// The group.
    pub group: GroupId,
    /// This rank.
    pub rank: RankId,
    /// Every rank in order.
    pub ranks: &'a [RankAddress],
}

impl Mesh {
    /// Connects this rank with every other: it calls the ranks below it and is called by those above.
    ///
    /// # Errors
    /// If the group does not come together within `timeout`, or `cancel` ends it.
    pub fn connect(
        members: Members<'_>,
        listener: &TcpListener,
        timeout: Duration,
        cancel: &Cancel,
    ) -> Result<Self, MeshError> {
        let deadline = Instant::now() + timeout;
        let own = members.rank.index();
        let mut streams: Vec<Option<TcpStream>> = members.ranks.iter().map(|_| None).collect();
        for address in &members.ranks[..own] {
            streams[address.rank.index()] = Some(call(members, address, deadline, cancel)?);
        }
        listener.set_nonblocking(true)?;
        while let Some(missing) = missing(&streams, own) {
            if cancel.is_cancelled() {
                return Err(MeshError::Cancelled);
            }
            if Instant::now() >= deadline {
                return Err(MeshError::Incomplete { missing, seconds: timeout.as_secs() });
            }
            if let Some((from, stream)) = answer(members, listener)? {
                streams[from.index()] = Some(stream);
            }
        }
        Self::new(members.rank, streams)
    }

    /// Takes streams that are connected, `[ranks]`, with `None` at this rank's own place.
    ///
    /// # Errors
    /// If the system refuses to watch them.
    pub fn new(rank: RankId, streams: Vec<Option<TcpStream>>) -> Result<Self, MeshError> {
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
            peers.push(Some(Peer {
                rank: index.into(),
                stream,
                readable: true,
                writable: true,
                head_out: [0; HEAD_BYTES],
                sent: 0,
                head_in: [0; HEAD_BYTES],
                received: 0,
            }));
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

impl Peer {
    fn start(&mut self, exchange: u64, frame: &Frame) -> Result<(), FabricError> {
        let (indices, values) = (frame.indices.len(), frame.values.len());
        if indices.max(values) > MAX_ITEMS {
            return Err(self.protocol(format!("a frame of {indices} indices and {values} values is too long for it")));
        }
        self.head_out[..8].copy_from_slice(&exchange.to_le_bytes());
        self.head_out[8..12].copy_from_slice(&(indices as u32).to_le_bytes());
        self.head_out[12..].copy_from_slice(&(values as u32).to_le_bytes());
        (self.sent, self.received) = (0, 0);
        Ok(())
    }

    /// Sends what the system takes; true when all of the frame is sent.
    fn write_some(&mut self, frame: &Frame) -> Result<bool, FabricError> {
        let parts: [&[u8]; 3] =
            [&self.head_out, bytemuck::cast_slice(&frame.indices), bytemuck::cast_slice(&frame.values)];
        let total: usize = parts.iter().map(|part| part.len()).sum();
        while self.sent < total && self.writable {
            let mut start = self.sent;
            let rest = parts.map(|part| {
                let skipped = start.min(part.len());
                start -= skipped;
                IoSlice::new(&part[skipped..])
            });
            match self.stream.write_vectored(&rest) {
                Ok(bytes) => self.sent += bytes,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.writable = false,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(FabricError::Lost { rank: self.rank, source }),
            }
        }
        Ok(self.sent == total)
    }

    /// Receives what has arrived of this exchange and no byte of the next; true when all of it has.
    fn read_some(&mut self, exchange: u64, frame: &mut Frame) -> Result<bool, FabricError> {
        loop {
            let heading = self.received < HEAD_BYTES;
            let read = if heading {
                if !self.readable {
                    return Ok(false);
                }
                self.stream.read(&mut self.head_in[self.received..])
            } else {
                let indices: &mut [u8] = bytemuck::cast_slice_mut(&mut frame.indices);
                let values: &mut [u8] = bytemuck::cast_slice_mut(&mut frame.values);
                let body = self.received - HEAD_BYTES;
                if body == indices.len() + values.len() {
                    return Ok(true);
                }
                if !self.readable {
                    return Ok(false);
                }
                let (in_indices, in_values) = (body.min(indices.len()), body.saturating_sub(indices.len()));
                self.stream.read_vectored(&mut [
                    IoSliceMut::new(&mut indices[in_indices..]),
                    IoSliceMut::new(&mut values[in_values..]),
                ])
            };
            match read {
                Ok(0) => {
                    let source = io::Error::new(io::ErrorKind::UnexpectedEof, "it closed the connection");
                    return Err(FabricError::Lost { rank: self.rank, source });
                }
                Ok(bytes) => self.received += bytes,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.readable = false,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(FabricError::Lost { rank: self.rank, source }),
            }
            if heading && self.received == HEAD_BYTES {
                self.make_room(exchange, frame)?;
            }
        }
    }

    /// Gives a frame the lengths that its head announces.
    fn make_room(&self, expected: u64, frame: &mut Frame) -> Result<(), FabricError> {
        let (number, counts) = self.head_in.split_at(8);
        let found = u64::from_le_bytes(number.try_into().expect("8 bytes"));
        if found != expected {
            return Err(self.protocol(format!("it is in exchange {found}, this rank in {expected}")));
        }
        let (indices, values) = counts.split_at(4);
        let count = |bytes: &[u8]| u32::from_le_bytes(bytes.try_into().expect("4 bytes")) as usize;
        let (indices, values) = (count(indices), count(values));
        if indices.max(values) > MAX_ITEMS {
            return Err(self.protocol(format!("it announces {indices} indices and {values} values")));
        }
        frame.indices.resize(indices, 0);
        frame.values.resize(values, 0.0);
        Ok(())
    }

    fn protocol(&self, reason: String) -> FabricError {
        FabricError::Protocol { rank: self.rank, reason }
    }
}

fn missing(streams: &[Option<TcpStream>], own: usize) -> Option<Vec<RankId>> {
    let missing = (0..streams.len()).filter(|&rank| rank != own && streams[rank].is_none()).map(RankId::from);
    let missing: Vec<RankId> = missing.collect();
    (!missing.is_empty()).then_some(missing)
}

/// Calls a lower rank until it answers under the same group.
fn call(
    members: Members<'_>,
    address: &RankAddress,
    deadline: Instant,
    cancel: &Cancel,
) -> Result<TcpStream, MeshError> {
    loop {
        if cancel.is_cancelled() {
            return Err(MeshError::Cancelled);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        let error = match try_call(members, address) {
            Ok(stream) => return Ok(stream),
            Err(error) => error,
        };
        if left.is_zero() {
            return Err(MeshError::Unreachable { peer: address.rank, source: error });
        }
        std::thread::park_timeout(left.min(CANCEL_CHECK));
    }
}

fn try_call(members: Members<'_>, address: &RankAddress) -> Result<TcpStream, ConnectionError> {
    let mut connection = Connection::connect(&address.step, address.rank.to_string(), CONNECT_TIMEOUT)?;
    Purpose::Mesh { group: members.group, from: members.rank, to: address.rank }.introduce(&mut connection)?;
    connection.set_timeout(Some(ANSWER_TIMEOUT))?;
    confirm(members.group, &mut connection)?;
    // The other rank hears that this call was not given up meanwhile.
    connection.send(&members.group)?;
    connection.set_timeout(None)?;
    Ok(connection.into_stream())
}

fn confirm(group: GroupId, connection: &mut Connection) -> Result<(), ConnectionError> {
    let found: GroupId = connection.receive_up_to(size_of::<GroupId>() * 2)?;
    if found == group {
        return Ok(());
    }
    let peer = connection.peer().to_owned();
    Err(ConnectionError::Stranger { peer, found: format!("{found:?}"), expected: format!("{group:?}") })
}

/// Answers one caller, if there is one within [`CANCEL_CHECK`]; `None` if it is not of this group.
fn answer(members: Members<'_>, listener: &TcpListener) -> Result<Option<(RankId, TcpStream)>, MeshError> {
    let patience = Timespec { tv_sec: 0, tv_nsec: CANCEL_CHECK.as_nanos() as i64 };
    poll(&mut [PollFd::new(listener, PollFlags::IN)], Some(&patience)).map_err(io::Error::from)?;
    let (stream, address) = match listener.accept() {
        Ok(accepted) => accepted,
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    match greet(members, stream, &address.to_string()) {
        Ok(found) => Ok(Some(found)),
        Err(error) => {
            tracing::debug!(%error, "a caller of the step path was turned away");
            Ok(None)
        }
    }
}

fn greet(members: Members<'_>, stream: TcpStream, address: &str) -> Result<(RankId, TcpStream), ConnectionError> {
    stream.set_nonblocking(false).map_err(|source| ConnectionError::Io { peer: address.to_owned(), source })?;
    let mut connection = Connection::new(stream, address)?;
    let purpose = Purpose::hear(&mut connection)?;
    match purpose {
        Purpose::Mesh { group, from, to }
            if (group, to) == (members.group, members.rank) && to < from && from.index() < members.ranks.len() =>
        {
            connection.send(&members.group)?;
            connection.set_timeout(Some(ANSWER_TIMEOUT))?;
            confirm(members.group, &mut connection)?;
            connection.set_timeout(None)?;
            Ok((from, connection.into_stream()))
        }
        _ => Err(ConnectionError::Stranger {
            peer: address.to_owned(),
            found: format!("{purpose:?}"),
            expected: format!("a rank above {} of {:?}", members.rank, members.group),
        }),
    }
}

#[cfg(test)]
mod tests;
