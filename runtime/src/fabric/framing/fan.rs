//! Messages to many peers and one back from each, on one thread. Where nothing is in the way a message costs one call of the system.
//!
//! All answers are wanted, so the thread waits for one after the other and is not woken by each: while it waits for one that is
//! missing, others arrive. It waits for the last first: who was sent a message first has mostly answered when the last has. To wake a
//! thread costs more than to receive ten answers that are there.

use std::io;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Closer, Connection, ConnectionError, MAX_MESSAGE_BYTES};

/// Bytes of a message's length.
const HEAD: usize = 4;

/// Bytes that are received at once: most messages in whole.
const ROOM: usize = 64 << 10;

/// The connections to some peers, in their order.
#[derive(Debug)]
pub struct Fan {
    spokes: Vec<Spoke>,
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
}

/// A peer that is of no more use.
#[derive(Debug)]
pub struct Broken {
    /// Its place.
    pub place: usize,
    /// What became of its connection.
    pub error: ConnectionError,
}

impl Fan {
    /// Takes connections on which nothing is under way.
    #[must_use]
    pub fn new(connections: Vec<Connection>) -> Self {
        let spoke = |connection| Spoke { connection, out: Vec::new(), sent: 0, received: Vec::new() };
        Self { spokes: connections.into_iter().map(spoke).collect(), room: vec![0; ROOM] }
    }

    /// How many peers it has.
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
        for place in (0..messages.len()).rev() {
            loop {
                self.take_in(place, limits[place], &mut messages[place])?;
                if messages[place].is_some() {
                    break;
                }
                let is_missing = |other: &usize| messages[*other].is_none();
                let missing: Vec<usize> = (0..messages.len()).filter(is_missing).collect();
                for other in self.wait_for(place, &missing, deadline)? {
                    self.take_in(other, limits[other], &mut messages[other])?;
                }
            }
        }
        Ok(messages.into_iter().flatten().collect())
    }

    /// Sends a peer what it takes now, and takes the next of its messages if it is there and none has been taken.
    fn take_in<T: DeserializeOwned>(
        &mut self,
        place: usize,
        limit: usize,
        message: &mut Option<T>,
    ) -> Result<(), Broken> {
        let (spoke, room) = (&mut self.spokes[place], &mut self.room);
        let next = spoke.flush().and_then(|()| match message {
            Some(_) => Ok(()),
            None => spoke.next(limit, room).map(|next| *message = next),
        });
        next.map_err(|error| Broken { place, error })
    }

    /// Waits until a peer has sent something, or one of those that are missing takes more or goes away: with whom there is something
    /// to do.
    fn wait_for(&self, awaited: usize, missing: &[usize], deadline: Instant) -> Result<Vec<usize>, Broken> {
        let spoke = |place: usize| &self.spokes[place];
        let broken = |error| Broken { place: awaited, error: spoke(awaited).connection.io(error) };
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(broken(io::Error::new(io::ErrorKind::TimedOut, "it took too long")));
        }
        let watch = |&place: &usize| {
            let mut flags = PollFlags::RDHUP;
            flags.set(PollFlags::IN, place == awaited);
            flags.set(PollFlags::OUT, !spoke(place).out.is_empty());
            PollFd::new(&spoke(place).connection.stream, flags)
        };
        let mut watched: Vec<PollFd<'_>> = missing.iter().map(watch).collect();
        match poll(&mut watched, Some(&timespec(left))) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(broken(error.into())),
        }
        let moved = watched.iter().zip(missing).filter(|(watched, _)| !watched.revents().is_empty());
        Ok(moved.map(|(_, &place)| place).collect())
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

    /// The next message, if it is there in whole. One that arrives alone, as most do, is read where it arrived.
    fn next<T: DeserializeOwned>(&mut self, limit: usize, room: &mut [u8]) -> Result<Option<T>, ConnectionError> {
        loop {
            if let Some((message, used)) = self.whole(&self.received, limit)? {
                self.received.drain(..used);
                return Ok(Some(message));
            }
            let arrived = match recv(&self.connection.stream, &mut *room, RecvFlags::DONTWAIT) {
                Ok((_, 0)) => return Err(self.connection.io(io::ErrorKind::UnexpectedEof.into())),
                Ok((_, bytes)) => &room[..bytes],
                Err(Errno::AGAIN) => return Ok(None),
                Err(Errno::INTR) => continue,
                Err(error) => return Err(self.connection.io(error.into())),
            };
            let alone = if self.received.is_empty() { self.whole(arrived, limit)? } else { None };
            let used = alone.as_ref().map_or(0, |(_, used)| *used);
            self.received.extend_from_slice(&arrived[used..]);
            if let Some((message, _)) = alone {
                return Ok(Some(message));
            }
        }
    }

    /// The first message of some bytes and how many it takes, if it is there in whole. What was only announced costs no memory.
    fn whole<T: DeserializeOwned>(&self, bytes: &[u8], limit: usize) -> Result<Option<(T, usize)>, ConnectionError> {
        let Some((head, rest)) = bytes.split_first_chunk::<HEAD>() else { return Ok(None) };
        let length = u32::from_le_bytes(*head) as usize;
        self.connection.check_length(length, limit)?;
        let Some(message) = rest.get(..length) else { return Ok(None) };
        match postcard::take_from_bytes(message) {
            Ok((message, [])) => Ok(Some((message, HEAD + length))),
            Ok(_) => Err(self.connection.malformed(postcard::Error::DeserializeBadEncoding)),
            Err(source) => Err(self.connection.malformed(source)),
        }
    }
}

#[cfg(test)]
mod tests;
