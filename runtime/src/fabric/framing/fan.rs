//! Messages to many peers and one back from each, on one thread that waits for all of them at once. Where nothing is in the
//! way a message costs one call of the system, however many peers there are.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Closer, Connection, ConnectionError, MAX_MESSAGE_BYTES};

/// Bytes of a message's length.
const HEAD: usize = 4;

/// Bytes that are received at once: most messages in whole.
const ROOM: usize = 64 << 10;

/// Peers that are heard of at once.
const EVENTS_AT_ONCE: usize = 64;

/// The connections to some peers, in their order.
#[derive(Debug)]
pub struct Fan {
    spokes: Vec<Spoke>,
    readiness: OwnedFd,
    /// What is received passes it.
    room: Vec<u8>,
}

#[derive(Debug)]
struct Spoke {
    connection: Connection,
    /// Bytes of messages that are to be sent, of which so many have been.
    out: Vec<u8>,
    sent: usize,
    /// Bytes that have been received and are no whole message yet, or one that is not asked for yet.
    received: Vec<u8>,
    readable: bool,
    /// What is there is the last.
    ends: bool,
}

/// A peer that is of no more use.
#[derive(Debug)]
pub struct Broken {
    /// Its place.
    pub place: usize,
    /// Why.
    pub error: ConnectionError,
}

impl Fan {
    /// Takes connections on which nothing is under way.
    ///
    /// # Errors
    /// If the system refuses to watch one: which.
    pub fn new(connections: Vec<Connection>) -> Result<Self, Broken> {
        let (peer, refused) = (connections.first().map_or("nobody", Connection::peer), |error: Errno| error.into());
        let broken = |place, peer: &str, error: io::Error| Broken { place, error: ConnectionError::of(peer, error) };
        let readiness = epoll::create(CreateFlags::CLOEXEC).map_err(|error| broken(0, peer, refused(error)))?;
        let mut spokes = Vec::with_capacity(connections.len());
        for (place, connection) in connections.into_iter().enumerate() {
            // Edge-triggered: what is watched for is never said anew, and every use ends with nothing left or "not now".
            let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
            epoll::add(&readiness, &connection.stream, EventData::new_u64(place as u64), flags)
                .map_err(|error| broken(place, connection.peer(), refused(error)))?;
            let (out, received) = (Vec::new(), Vec::new());
            spokes.push(Spoke { connection, out, sent: 0, received, readable: false, ends: false });
        }
        Ok(Self { spokes, readiness, room: vec![0; ROOM] })
    }

    /// Peers.
    #[must_use]
    pub fn len(&self) -> usize {
        self.spokes.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.spokes.is_empty()
    }

    /// Ends every connection.
    pub fn close(&self) {
        self.spokes.iter().for_each(|spoke| spoke.connection.close());
    }

    /// Something that can end each of them from elsewhere, in their order.
    ///
    /// # Errors
    /// If the system has no more descriptors: for which.
    pub fn closers(&self) -> Result<Vec<Closer>, Broken> {
        let closer =
            |(place, spoke): (usize, &Spoke)| spoke.connection.closer().map_err(|error| Broken { place, error });
        self.spokes.iter().enumerate().map(closer).collect()
    }

    /// Sends a peer as much of a message as it takes without waiting; the rest goes while answers are gathered.
    ///
    /// # Errors
    /// If the peer is gone, or the message is longer than [`MAX_MESSAGE_BYTES`].
    pub fn send<T: Serialize>(&mut self, place: usize, message: &T) -> Result<(), Broken> {
        let spoke = &mut self.spokes[place];
        spoke.put(message).and_then(|()| spoke.flush()).map_err(|error| Broken { place, error })
    }

    /// The next message of each peer, in their order, of which each has at most `limits` bytes. What comes after it is kept for
    /// the next time.
    ///
    /// # Errors
    /// If a peer is gone, sends no such message, or has not sent it in whole by `deadline`.
    pub fn gather<T: DeserializeOwned>(&mut self, limits: &[usize], deadline: Instant) -> Result<Vec<T>, Broken> {
        let mut messages: Vec<Option<T>> = self.spokes.iter().map(|_| None).collect();
        let mut moved: Vec<usize> = (0..self.spokes.len()).collect();
        loop {
            for &place in &moved {
                let (spoke, message) = (&mut self.spokes[place], &mut messages[place]);
                let gone_on = spoke.flush().and_then(|()| match message {
                    Some(_) => Ok(()),
                    None => spoke.next(limits[place], &mut self.room).map(|next| *message = next),
                });
                gone_on.map_err(|error| Broken { place, error })?;
            }
            let Some(missing) = messages.iter().position(Option::is_none) else {
                return Ok(messages.into_iter().flatten().collect());
            };
            let waited = self.wait(deadline, &mut moved);
            let broken = |error| Broken {
                place: missing,
                error: ConnectionError::of(self.spokes[missing].connection.peer(), error),
            };
            waited.map_err(broken)?;
        }
    }

    /// Waits until something can go on; `moved` are the peers with which it can.
    fn wait(&mut self, deadline: Instant, moved: &mut Vec<usize>) -> io::Result<()> {
        moved.clear();
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "it took too long"));
        }
        let mut events = [const { MaybeUninit::uninit() }; EVENTS_AT_ONCE];
        let events: &[epoll::Event] = match epoll::wait(&self.readiness, events.as_mut_slice(), Some(&timespec(left))) {
            Ok((events, _)) => events,
            Err(Errno::INTR) => &[],
            Err(error) => return Err(error.into()),
        };
        let ends = EventFlags::ERR | EventFlags::HUP | EventFlags::RDHUP;
        for event in events {
            // By value: the record is packed.
            let (flags, place) = (event.flags, event.data.u64() as usize);
            let spoke = &mut self.spokes[place];
            spoke.ends |= flags.intersects(ends);
            spoke.readable |= flags.intersects(EventFlags::IN | ends);
            moved.push(place);
        }
        Ok(())
    }
}

fn timespec(duration: Duration) -> Timespec {
    Timespec { tv_sec: duration.as_secs() as i64, tv_nsec: i64::from(duration.subsec_nanos()) }
}

impl Spoke {
    fn put<T: Serialize>(&mut self, message: &T) -> Result<(), ConnectionError> {
        let start = self.out.len();
        let mut out = std::mem::take(&mut self.out);
        out.extend_from_slice(&[0; HEAD]);
        self.out = postcard::to_extend(message, out).map_err(|source| self.connection.malformed(source))?;
        let bytes = self.out.len() - start - HEAD;
        self.connection.check_length(bytes, MAX_MESSAGE_BYTES)?;
        self.out[start..start + HEAD].copy_from_slice(&(bytes as u32).to_le_bytes());
        Ok(())
    }

    /// Sends what the peer takes now.
    fn flush(&mut self) -> Result<(), ConnectionError> {
        while self.sent < self.out.len() {
            let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
            match send(&self.connection.stream, &self.out[self.sent..], flags) {
                Ok(bytes) => self.sent += bytes,
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(error) => return Err(self.connection.io(error.into())),
            }
        }
        self.out.clear();
        self.sent = 0;
        Ok(())
    }

    /// The next message, if it is there in whole.
    fn next<T: DeserializeOwned>(&mut self, limit: usize, room: &mut [u8]) -> Result<Option<T>, ConnectionError> {
        loop {
            if let Some(message) = self.whole(limit)? {
                return Ok(Some(message));
            }
            if !self.readable {
                return Ok(None);
            }
            match recv(&self.connection.stream, &mut *room, RecvFlags::DONTWAIT) {
                Ok((_, 0)) => {
                    return Err(self.connection.io(io::ErrorKind::UnexpectedEof.into()));
                }
                Ok((_, bytes)) => {
                    self.received.extend_from_slice(&room[..bytes]);
                    // Less than there was room for is all that there was.
                    self.readable = bytes == room.len() || self.ends;
                }
                Err(Errno::AGAIN) => self.readable = false,
                Err(Errno::INTR) => {}
                Err(error) => return Err(self.connection.io(error.into())),
            }
        }
    }

    /// A message of what has been received. What was only announced costs no memory.
    fn whole<T: DeserializeOwned>(&mut self, limit: usize) -> Result<Option<T>, ConnectionError> {
        let Some((head, rest)) = self.received.split_first_chunk::<HEAD>() else { return Ok(None) };
        let bytes = u32::from_le_bytes(*head) as usize;
        self.connection.check_length(bytes, limit)?;
        let Some(message) = rest.get(..bytes) else { return Ok(None) };
        let message = match postcard::take_from_bytes(message) {
            Ok((message, [])) => message,
            Ok(_) => return Err(self.connection.malformed(postcard::Error::DeserializeBadEncoding)),
            Err(source) => return Err(self.connection.malformed(source)),
        };
        self.received.drain(..HEAD + bytes);
        Ok(Some(message))
    }
}

#[cfg(test)]
mod tests;
