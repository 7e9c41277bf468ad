//! Reading and writing before a deadline.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// A timeout of a socket that is set anew only when it has to be: where every message has a deadline of its own, setting it
/// each time would cost a small step as many calls of the system as its messages do.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Timeout {
    /// What is in force, as far as is known.
    in_force: Option<Duration>,
}

impl Timeout {
    /// What to set for a call that may take what is `left`, or `None` where what is in force will do: it ends in time, and not
    /// so early that waiting means calling again and again. Half of what is left is in force for the next deadline, too.
    fn wanted(self, left: Duration) -> Option<Duration> {
        /// Below this a wait is exact rather than repeated.
        const SHORT: Duration = Duration::from_millis(20);
        let will_do = |timeout: Duration| timeout <= left && timeout >= left.min(SHORT).max(left / 4);
        match self.in_force {
            Some(timeout) if will_do(timeout) => None,
            _ if left <= SHORT => Some(left),
            _ => Some(left / 2),
        }
    }
}

/// The timeouts of both directions of a socket.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Timeouts {
    read: Timeout,
    write: Timeout,
}

/// A stream of which everything is read and written before a deadline, if there is one.
pub(super) struct Timed<'a> {
    pub stream: &'a TcpStream,
    pub deadline: Option<Instant>,
    pub timeouts: &'a mut Timeouts,
}

impl Timed<'_> {
    /// Calls until something has happened or the deadline is over.
    fn call(
        &mut self,
        direction: impl Fn(&mut Timeouts) -> &mut Timeout,
        set: impl Fn(&TcpStream, Option<Duration>) -> io::Result<()>,
        mut call: impl FnMut(&TcpStream) -> io::Result<usize>,
    ) -> io::Result<usize> {
        let Some(deadline) = self.deadline else { return call(self.stream) };
        let timeout = direction(self.timeouts);
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "it took too long"));
            }
            if let Some(wanted) = timeout.wanted(left) {
                set(self.stream, Some(wanted))?;
                timeout.in_force = Some(wanted);
            }
            match call(self.stream) {
                // What the system says when a socket's timeout is over.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                done => return done,
            }
        }
    }
}

impl Read for Timed<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.call(|timeouts| &mut timeouts.read, TcpStream::set_read_timeout, |mut stream| stream.read(bytes))
    }
}

impl Write for Timed<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.call(|timeouts| &mut timeouts.write, TcpStream::set_write_timeout, |mut stream| stream.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeout_is_set_once_for_many_deadlines_and_never_ends_after_one() {
        let mut timeout = Timeout::default();
        let mut set = 0;
        // Every call has a little less or a little more than the one before it, as steps have.
        for left in (0..1000_u64).map(|call| Duration::from_micros(59_999_999 - 701 * (call % 7))) {
            if let Some(wanted) = timeout.wanted(left) {
                timeout.in_force = Some(wanted);
                set += 1;
            }
            assert!(timeout.in_force.is_some_and(|timeout| timeout <= left));
        }
        assert_eq!(set, 1);
    }

    #[test]
    fn what_is_left_is_waited_for_in_few_calls() {
        let (mut timeout, mut left, mut calls) = (Timeout::default(), Duration::from_mins(1), 0);
        while left > Duration::ZERO {
            timeout.in_force = timeout.wanted(left).or(timeout.in_force);
            left -= timeout.in_force.unwrap();
            calls += 1;
        }
        assert!(calls <= 14, "{calls}");
    }

    #[test]
    fn a_timeout_of_another_deadline_is_not_kept() {
        let long = Timeout { in_force: Some(Duration::from_secs(30)) };
        assert_eq!(long.wanted(Duration::from_secs(2)), Some(Duration::from_secs(1)));
        let short = Timeout { in_force: Some(Duration::from_millis(1)) };
        assert_eq!(short.wanted(Duration::from_secs(2)), Some(Duration::from_secs(1)));
    }
}
