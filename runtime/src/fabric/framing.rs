//! Messages on a TCP connection: 4 bytes of length, little endian, then that many bytes of postcard.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use serde::Serialize;
use serde::de::DeserializeOwned;
use socket2::{SockRef, TcpKeepalive};
use thiserror::Error;

use crate::protocol::FIRST_THAT_PROVES;

/// The longest message, bytes: room for a step of 100,000 sequences, and little enough to hold.
pub const MAX_MESSAGE_BYTES: usize = 64 << 20;

/// Bytes that a message may have before it is received in parts.
const LEAST_ROOM: usize = 64 << 10;

/// How long sent bytes may stay unacknowledged, and an idle connection unanswered, before it counts as cut.
pub const CUT_AFTER: Duration = Duration::from_secs(6);

/// How long connecting may take.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// Why a connection is of no more use.
#[derive(Debug, Error)]
pub enum ConnectionError {
    /// Nobody answers.
    #[error("cannot connect to {peer}: {source}")]
    Connect {
        /// Who was to answer.
        peer: String,
        /// What the system says.
        source: io::Error,
    },
    /// The peer is gone.
    #[error("{peer} closed the connection")]
    Closed {
        /// Who.
        peer: String,
    },
    /// The link failed.
    #[error("connection to {peer} failed: {source}")]
    Io {
        /// Who is at its other end.
        peer: String,
        /// What the system says.
        source: io::Error,
    },
    /// A message is longer than any that exists.
    #[error("{peer} announces a message of {bytes} bytes, more than {limit}; it speaks something else")]
    TooLong {
        /// Who.
        peer: String,
        /// The length announced.
        bytes: usize,
        /// The longest there may be.
        limit: usize,
    },
    /// A message that makes no sense.
    #[error("{peer} sent a message that cannot be read: {source}")]
    Malformed {
        /// Who.
        peer: String,
        /// What the decoder says.
        source: postcard::Error,
    },
    /// The peer has another secret.
    #[error("{peer} cannot be trusted: the secret differs; both must read the same --secret-file")]
    SecretDiffers {
        /// Who.
        peer: String,
    },
    /// The peer speaks another version.
    #[error("{peer} speaks protocol {found}, this process {expected}; run the same version everywhere")]
    OtherVersion {
        /// Who.
        peer: String,
        /// Its version.
        found: u16,
        /// The version here.
        expected: u16,
    },
    /// The peer does not serve what it was called for, or not now.
    #[error("{peer} does not expect this call now")]
    NotExpected {
        /// Who.
        peer: String,
    },
    /// The peer is something else.
    #[error("{peer} speaks something else, or a version before {FIRST_THAT_PROVES}")]
    NotOurs {
        /// Who.
        peer: String,
    },
}

impl ConnectionError {
    /// What the system says of a connection.
    pub(super) fn of(peer: &str, source: io::Error) -> Self {
        let peer = peer.to_owned();
        match source.kind() {
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
                Self::Closed { peer }
            }
            _ => Self::Io { peer, source },
        }
    }
}

/// One TCP connection that carries messages, with the buffer that they pass through. Every byte between members passes one,
/// or the stream that one was: this is where TLS would be put around it.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    peer: String,
    buffer: Vec<u8>,
}

impl Connection {
    /// Takes a stream that is connected; `peer` is its name in errors.
    ///
    /// # Errors
    /// If the system refuses the socket's options.
    pub fn new(stream: TcpStream, peer: impl Into<String>) -> Result<Self, ConnectionError> {
        let peer = peer.into();
        match tune(&stream) {
            Ok(()) => Ok(Self { stream, peer, buffer: Vec::new() }),
            Err(source) => Err(ConnectionError::Io { peer, source }),
        }
    }

    /// Connects to `host:port`.
    ///
    /// # Errors
    /// If the name has no address, or none of its addresses answers within `timeout` each.
    pub fn connect(address: &str, peer: impl Into<String>, timeout: Duration) -> Result<Self, ConnectionError> {
        let peer = format!("{} ({address})", peer.into());
        let connected = address.to_socket_addrs().and_then(|addresses| {
            let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
            for address in addresses {
                match TcpStream::connect_timeout(&address, timeout) {
                    Ok(stream) => return Ok(stream),
                    Err(source) => last = source,
                }
            }
            Err(last)
        });
        match connected {
            Ok(stream) => Self::new(stream, peer),
            Err(source) => Err(ConnectionError::Connect { peer, source }),
        }
    }

    /// Who is at the other end.
    #[must_use]
    pub fn peer(&self) -> &str {
        &self.peer
    }

    /// Gives the other end another name, once it is known.
    pub fn rename(&mut self, peer: impl Into<String>) {
        self.peer = peer.into();
    }

    /// A second owner of the same connection, for another thread.
    ///
    /// # Errors
    /// If the system has no more descriptors.
    pub fn share(&self) -> Result<Self, ConnectionError> {
        let stream = self.stream.try_clone().map_err(|source| self.io(source))?;
        Ok(Self { stream, peer: self.peer.clone(), buffer: Vec::new() })
    }

    /// Something that can close it from elsewhere.
    ///
    /// # Errors
    /// If the system has no more descriptors.
    pub fn closer(&self) -> Result<Closer, ConnectionError> {
        self.stream.try_clone().map(Closer).map_err(|source| self.io(source))
    }

    /// Ends it for every owner.
    pub fn close(&self) {
        close(&self.stream);
    }

    /// The stream itself, for what is no message.
    #[must_use]
    pub fn into_stream(self) -> TcpStream {
        self.stream
    }

    /// Limits how long a single read or write may take; `None` is no limit.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn set_timeout(&self, timeout: Option<Duration>) -> Result<(), ConnectionError> {
        let set = self.stream.set_read_timeout(timeout).and_then(|()| self.stream.set_write_timeout(timeout));
        set.map_err(|source| self.io(source))
    }

    /// Sends one message.
    ///
    /// # Errors
    /// If the peer is gone, or the message is longer than [`MAX_MESSAGE_BYTES`].
    pub fn send<T: Serialize>(&mut self, message: &T) -> Result<(), ConnectionError> {
        self.send_within(message, None)
    }

    /// As [`Self::send`], in whole before `deadline`.
    ///
    /// # Errors
    /// As [`Self::send`], and if the peer takes it too slowly.
    pub fn send_by<T: Serialize>(&mut self, message: &T, deadline: Instant) -> Result<(), ConnectionError> {
        self.send_within(message, Some(deadline))
    }

    fn send_within<T: Serialize>(&mut self, message: &T, deadline: Option<Instant>) -> Result<(), ConnectionError> {
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.clear();
        buffer.extend_from_slice(&[0; 4]);
        self.buffer = postcard::to_extend(message, buffer)
            .map_err(|source| ConnectionError::Malformed { peer: self.peer.clone(), source })?;
        let bytes = self.buffer.len() - 4;
        self.check_length(bytes, MAX_MESSAGE_BYTES)?;
        self.buffer[..4].copy_from_slice(&(bytes as u32).to_le_bytes());
        let sent = Timed { stream: &self.stream, deadline }.write_all(&self.buffer);
        sent.map_err(|source| self.io(source))
    }

    /// Waits for one message.
    ///
    /// # Errors
    /// If the peer is gone, or what it sends is no such message.
    pub fn receive<T: DeserializeOwned>(&mut self) -> Result<T, ConnectionError> {
        self.receive_up_to(MAX_MESSAGE_BYTES)
    }

    /// As [`Self::receive`], where a message can only be so long.
    ///
    /// # Errors
    /// As [`Self::receive`], and if the message is longer than `limit`.
    pub fn receive_up_to<T: DeserializeOwned>(&mut self, limit: usize) -> Result<T, ConnectionError> {
        self.receive_within(limit, None)
    }

    /// As [`Self::receive_up_to`], in whole before `deadline`: a peer that sends a byte now and then gains nothing.
    ///
    /// # Errors
    /// As [`Self::receive_up_to`], and if the message is not there in time.
    pub fn receive_by<T: DeserializeOwned>(&mut self, limit: usize, deadline: Instant) -> Result<T, ConnectionError> {
        self.receive_within(limit, Some(deadline))
    }

    fn receive_within<T: DeserializeOwned>(
        &mut self,
        limit: usize,
        deadline: Option<Instant>,
    ) -> Result<T, ConnectionError> {
        let mut length = [0; 4];
        let read = Timed { stream: &self.stream, deadline }.read_exact(&mut length);
        read.map_err(|source| self.io(source))?;
        let bytes = u32::from_le_bytes(length) as usize;
        self.check_length(bytes, limit)?;
        self.fill(bytes, deadline).map_err(|source| self.io(source))?;
        match postcard::take_from_bytes(&self.buffer) {
            Ok((message, [])) => Ok(message),
            Ok(_) => Err(self.malformed(postcard::Error::DeserializeBadEncoding)),
            Err(source) => Err(self.malformed(source)),
        }
    }

    /// Receives so many bytes into the buffer. It grows as they arrive: a length that was only announced costs nothing.
    fn fill(&mut self, bytes: usize, deadline: Option<Instant>) -> io::Result<()> {
        let mut received = 0;
        while received < bytes {
            let room = self.buffer.capacity().max(received * 2).max(LEAST_ROOM);
            self.buffer.resize(bytes.min(room), 0);
            Timed { stream: &self.stream, deadline }.read_exact(&mut self.buffer[received..])?;
            received = self.buffer.len();
        }
        self.buffer.truncate(bytes);
        Ok(())
    }

    /// Sends bytes that are no message.
    ///
    /// # Errors
    /// If the peer is gone.
    pub fn send_bytes(&mut self, bytes: &[u8]) -> Result<(), ConnectionError> {
        let sent = self.stream.write_all(bytes);
        sent.map_err(|source| self.io(source))
    }

    /// Fills `bytes` with what is no message.
    ///
    /// # Errors
    /// If the peer is gone or silent for longer than the timeout.
    pub fn receive_bytes(&mut self, bytes: &mut [u8]) -> Result<(), ConnectionError> {
        let read = self.stream.read_exact(bytes);
        read.map_err(|source| self.io(source))
    }

    fn check_length(&self, bytes: usize, limit: usize) -> Result<(), ConnectionError> {
        if bytes > limit {
            return Err(ConnectionError::TooLong { peer: self.peer.clone(), bytes, limit });
        }
        Ok(())
    }

    fn malformed(&self, source: postcard::Error) -> ConnectionError {
        ConnectionError::Malformed { peer: self.peer.clone(), source }
    }

    fn io(&self, source: io::Error) -> ConnectionError {
        ConnectionError::of(&self.peer, source)
    }
}

/// A stream of which everything is read and written before a deadline, if there is one: the timeout of its socket, which is
/// what is left of the time, is set anew before each call.
struct Timed<'a> {
    stream: &'a TcpStream,
    deadline: Option<Instant>,
}

impl Timed<'_> {
    fn left(&self) -> io::Result<Option<Duration>> {
        let Some(deadline) = self.deadline else { return Ok(None) };
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(late()) } else { Ok(Some(left)) }
    }

    /// What the system says when a socket's timeout is over is what it says where nothing is there yet.
    fn told(&self, result: io::Result<usize>) -> io::Result<usize> {
        match result {
            Err(error) if self.deadline.is_some() && error.kind() == io::ErrorKind::WouldBlock => Err(late()),
            other => other,
        }
    }
}

fn late() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "it took too long")
}

impl Read for Timed<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        if let Some(left) = self.left()? {
            self.stream.set_read_timeout(Some(left))?;
        }
        let read = self.stream.read(bytes);
        self.told(read)
    }
}

impl Write for Timed<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(left) = self.left()? {
            self.stream.set_write_timeout(Some(left))?;
        }
        let written = self.stream.write(bytes);
        self.told(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

/// Closes a connection that another thread reads or writes; that thread gets an error at once.
#[derive(Debug)]
pub struct Closer(TcpStream);

impl Closer {
    /// A closer of a stream.
    ///
    /// # Errors
    /// If the system has no more descriptors.
    pub fn of(stream: &TcpStream) -> io::Result<Self> {
        stream.try_clone().map(Self)
    }

    /// Another closer of the same connection.
    ///
    /// # Errors
    /// As [`Self::of`].
    pub fn share(&self) -> io::Result<Self> {
        Self::of(&self.0)
    }

    /// Closes it; nothing happens if it is closed already.
    pub fn close(&self) {
        close(&self.0);
    }
}

fn close(stream: &TcpStream) {
    // The only failure is that it is not connected any more, which is what is wanted.
    let _ = stream.shutdown(Shutdown::Both);
}

/// Sets what every connection of a group needs: no delay for small messages, and a cut link noticed in
/// [`CUT_AFTER`] whether or not bytes are on their way.
///
/// # Errors
/// If the system refuses an option.
pub fn tune(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    let interval = Duration::from_secs(1);
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(CUT_AFTER / 2).with_interval(interval).with_retries(3))?;
    socket.set_tcp_user_timeout(Some(CUT_AFTER))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fabric::loopback_pair;

    #[test]
    fn a_message_arrives_as_it_was_sent() {
        let (left, right) = loopback_pair();
        let (mut left, mut right) = (Connection::new(left, "right").unwrap(), Connection::new(right, "left").unwrap());
        let message = (7_u64, "text".to_owned(), vec![1_u32, 2, 3]);
        left.send(&message).unwrap();
        left.send(&vec![9_u8; 100_000]).unwrap();
        assert_eq!(right.receive::<(u64, String, Vec<u32>)>().unwrap(), message);
        assert_eq!(right.receive::<Vec<u8>>().unwrap(), vec![9; 100_000]);
    }

    #[test]
    fn a_peer_that_speaks_something_else_is_named_before_anything_is_held() {
        let (mut left, right) = loopback_pair();
        let mut right = Connection::new(right, "browser").unwrap();
        left.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
        let error = right.receive::<u64>().unwrap_err();
        assert!(matches!(&error, ConnectionError::TooLong { peer, .. } if peer == "browser"), "{error}");
        assert!(right.buffer.is_empty());
    }

    #[test]
    fn a_length_that_is_only_announced_costs_no_memory() {
        let (mut left, right) = loopback_pair();
        let mut right = Connection::new(right, "left").unwrap();
        left.write_all(&(MAX_MESSAGE_BYTES as u32).to_le_bytes()).unwrap();
        left.write_all(&[1; 1000]).unwrap();
        drop(left);
        assert!(right.receive::<Vec<u8>>().is_err());
        assert!(right.buffer.capacity() <= LEAST_ROOM, "{}", right.buffer.capacity());
    }

    #[test]
    fn a_message_with_bytes_left_over_is_refused() {
        let (left, right) = loopback_pair();
        let (mut left, mut right) = (Connection::new(left, "right").unwrap(), Connection::new(right, "left").unwrap());
        left.send(&(1_u8, 2_u8)).unwrap();
        assert!(matches!(right.receive::<u8>(), Err(ConnectionError::Malformed { .. })));
    }

    #[test]
    fn a_peer_that_goes_away_is_named() {
        let (left, right) = loopback_pair();
        let mut right = Connection::new(right, "rank 3").unwrap();
        drop(left);
        let error = right.receive::<u64>().unwrap_err();
        assert_eq!(error.to_string(), "rank 3 closed the connection");
    }

    #[test]
    fn a_message_that_drips_or_is_not_taken_is_over_at_its_deadline() {
        let (left, right) = loopback_pair();
        let (mut left, mut right) = (Connection::new(left, "right").unwrap(), Connection::new(right, "left").unwrap());
        let (over, ended) = std::sync::mpsc::channel::<()>();
        let dripping = std::thread::spawn(move || {
            left.send_bytes(&1000_u32.to_le_bytes()).unwrap();
            while ended.recv_timeout(Duration::from_millis(10)) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
                left.send_bytes(&[1]).unwrap();
            }
            left
        });
        let (started, soon) = (Instant::now(), Duration::from_millis(200));
        let error = right.receive_by::<Vec<u8>>(1000, started + soon).unwrap_err();
        assert_eq!(error.to_string(), "connection to left failed: it took too long");
        assert!((soon..soon * 20).contains(&started.elapsed()), "{:?}", started.elapsed());
        drop(over);
        let _left = dripping.join().unwrap();
        let long = "x".repeat(MAX_MESSAGE_BYTES / 2);
        let started = Instant::now();
        let error = right.send_by(&long, started + soon).unwrap_err();
        assert!(error.to_string().ends_with("it took too long"), "{error}");
        assert!((soon..soon * 20).contains(&started.elapsed()), "{:?}", started.elapsed());
    }

    #[test]
    fn closing_from_another_thread_ends_a_waiting_read() {
        let (_left, right) = loopback_pair();
        let mut right = Connection::new(right, "left").unwrap();
        let closer = right.closer().unwrap();
        let reader = std::thread::spawn(move || right.receive::<u64>().is_err());
        closer.close();
        assert!(reader.join().unwrap());
    }
}
