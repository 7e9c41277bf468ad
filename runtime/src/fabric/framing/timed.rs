//! Reading and writing before a deadline.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// A stream of which everything is read and written before a deadline, if there is one: the timeout of its socket, which is
/// what is left of the time, is set anew before each call.
pub(super) struct Timed<'a> {
    pub stream: &'a TcpStream,
    pub deadline: Option<Instant>,
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
