//! Messages on a TCP connection: 4 bytes of length, little endian, then that many bytes of postcard.

mod error;
mod fan;

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, TcpStream, ToSocketAddrs};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use socket2::{SockRef, TcpKeepalive};

pub use self::error::ConnectionError;
pub use self::fan::{Broken, Fan};

/// The longest message, bytes: room for a step of 100,000 sequences, and little enough to hold.
pub const MAX_MESSAGE_BYTES: usize = 64 << 20;

/// Bytes that a message may have before it is received in parts.
const LEAST_ROOM: usize = 64 << 10;

/// How long sent bytes may stay unacknowledged, and an idle connection unanswered, before it counts as cut.
pub const CUT_AFTER: Duration = Duration::from_secs(6);

/// How long connecting may take.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

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
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.clear();
        buffer.extend_from_slice(&[0; 4]);
        self.buffer = postcard::to_extend(message, buffer)
            .map_err(|source| ConnectionError::Malformed { peer: self.peer.clone(), source })?;
        let bytes = self.buffer.len() - 4;
        self.check_length(bytes, MAX_MESSAGE_BYTES)?;
        self.buffer[..4].copy_from_slice(&(bytes as u32).to_le_bytes());
        let sent = self.stream.write_all(&self.buffer);
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
        let mut length = [0; 4];
        let read = self.stream.read_exact(&mut length);
        read.map_err(|source| self.io(source))?;
        let bytes = u32::from_le_bytes(length) as usize;
        self.check_length(bytes, limit)?;
        self.fill(bytes).map_err(|source| self.io(source))?;
        match postcard::take_from_bytes(&self.buffer) {
            Ok((message, [])) => Ok(message),
            Ok(_) => Err(self.malformed(postcard::Error::DeserializeBadEncoding)),
            Err(source) => Err(self.malformed(source)),
        }
    }

    /// Receives so many bytes into the buffer. It grows as they arrive: a length that was only announced costs nothing.
    fn fill(&mut self, bytes: usize) -> io::Result<()> {
        let mut received = 0;
        while received < bytes {
            let room = self.buffer.capacity().max(received * 2).max(LEAST_ROOM);
            self.buffer.resize(bytes.min(room), 0);
            self.stream.read_exact(&mut self.buffer[received..])?;
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
    fn closing_from_another_thread_ends_a_waiting_read() {
        let (_left, right) = loopback_pair();
        let mut right = Connection::new(right, "left").unwrap();
        let closer = right.closer().unwrap();
        let reader = std::thread::spawn(move || right.receive::<u64>().is_err());
        closer.close();
        assert!(reader.join().unwrap());
    }
}
