//! Greets whoever connects to a port, on one thread and without ever waiting for one of them. Until a caller has proved that
//! it belongs it costs a descriptor, some two hundred bytes and no thread, and not for long; a caller too many takes the place
//! of the oldest that has proved nothing, which a rank needs for milliseconds only.

mod visitors;

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;

use self::visitors::Visitors;
use super::framing::Connection;
use super::handshake::{Claim, TurnedAway, answer};
use super::purpose::{HELLO_BYTES, Purpose};
use super::secret::{PROOF_BYTES, Secret, random};
use crate::descriptors::{callers as callers_of, of_this_process};

/// How long a caller may take to prove itself, however many bytes it sends meanwhile. Twice as long as a caller waits.
const GREETING_TIMEOUT: Duration = Duration::from_secs(4);

/// Callers that are taken in before those that are there are looked at again: a flood does not keep a rank from its proof.
const ACCEPTS_AT_ONCE: usize = 32;

/// How long nobody is accepted after the system had no descriptor for it.
const DEAF: Duration = Duration::from_millis(100);

/// Accepts and greets the callers of one port.
#[derive(Debug)]
pub struct Greeter {
    listener: TcpListener,
    wake: Arc<Wake>,
    callers: VecDeque<Caller>,
    places: usize,
    deaf_until: Option<Instant>,
    visitors: Visitors,
}

/// Ends a greeter from elsewhere when it is dropped.
#[derive(Debug)]
pub struct Stopper(Arc<Wake>);

#[derive(Debug)]
struct Wake {
    stopped: AtomicBool,
    event: OwnedFd,
}

/// Somebody who has not proved anything yet.
#[derive(Debug)]
struct Caller {
    stream: TcpStream,
    address: SocketAddr,
    deadline: Instant,
    /// Room for the longest that it may have to say.
    bytes: [u8; HELLO_BYTES],
    received: usize,
    /// Once it has said what it wants.
    claim: Option<Claim>,
}

/// What became of listening to a caller.
enum Heard {
    /// There is more to come.
    Waiting,
    /// It belongs.
    Proved(Purpose),
    Gone(TurnedAway),
}

impl Drop for Stopper {
    fn drop(&mut self) {
        self.0.stopped.store(true, Ordering::Release);
        // Fails only if the counter is full, and then it wakes as well.
        let _ = rustix::io::write(&self.0.event, &1_u64.to_ne_bytes());
    }
}

impl Greeter {
    /// A greeter of a port, by the name that it has in logs, and what ends it.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn new(listener: TcpListener, port: &'static str) -> io::Result<(Self, Stopper)> {
        listener.set_nonblocking(true)?;
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let wake = Arc::new(Wake { stopped: AtomicBool::new(false), event });
        let stopper = Stopper(Arc::clone(&wake));
        let (callers, visitors) = (VecDeque::new(), Visitors::new(port));
        Ok((
            Self { listener, wake, callers, places: callers_of(of_this_process()), deaf_until: None, visitors },
            stopper,
        ))
    }

    /// Greets until it is stopped. `admit` gives the secret of what is expected here; `welcome` gets who has proved it, and
    /// must not wait.
    pub fn run(mut self, admit: impl Fn(&Purpose) -> Option<Secret>, mut welcome: impl FnMut(Purpose, Connection)) {
        while !self.wake.stopped.load(Ordering::Acquire) {
            let ready = match self.wait() {
                Ok(ready) => ready,
                Err(error) => {
                    tracing::error!(port = self.visitors.port(), %error, "callers cannot be waited for");
                    self.become_deaf();
                    // Waiting again at once would fail again at once.
                    std::thread::park_timeout(DEAF);
                    Vec::new()
                }
            };
            let now = Instant::now();
            // Who is there goes before who comes.
            self.hear_all(&ready, now, &admit, &mut welcome);
            if self.is_listening(now) {
                self.accept(now, &admit, &mut welcome);
            }
        }
    }

    fn is_listening(&self, now: Instant) -> bool {
        self.deaf_until.is_none_or(|until| until <= now)
    }

    /// Waits for anything to happen; which callers have said something, `[callers]`.
    fn wait(&mut self) -> io::Result<Vec<bool>> {
        let now = Instant::now();
        let listening = self.is_listening(now);
        if listening {
            self.deaf_until = None;
        }
        let next = self.callers.front().map(|caller| caller.deadline).into_iter().chain(self.deaf_until).min();
        let timeout = next.map(|next| next.saturating_duration_since(now) + Duration::from_millis(1));
        let timeout =
            timeout.map(|left| Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() });
        let mut watched = Vec::with_capacity(2 + self.callers.len());
        watched.push(PollFd::new(&self.wake.event, PollFlags::IN));
        watched.push(PollFd::new(&self.listener, if listening { PollFlags::IN } else { PollFlags::empty() }));
        watched.extend(self.callers.iter().map(|caller| PollFd::new(&caller.stream, PollFlags::IN)));
        match poll(&mut watched, timeout.as_ref()) {
            Ok(_) => Ok(watched[2..].iter().map(|watched| !watched.revents().is_empty()).collect()),
            Err(Errno::INTR) => Ok(Vec::new()),
            Err(error) => Err(error.into()),
        }
    }

    /// Hears every caller that has said something, and lets go of those whose time is over.
    fn hear_all(
        &mut self,
        ready: &[bool],
        now: Instant,
        admit: &impl Fn(&Purpose) -> Option<Secret>,
        welcome: &mut impl FnMut(Purpose, Connection),
    ) {
        for (index, mut caller) in std::mem::take(&mut self.callers).into_iter().enumerate() {
            let said = ready.get(index).copied().unwrap_or(false);
            match if said { caller.hear(admit) } else { Heard::Waiting } {
                Heard::Waiting if caller.deadline <= now => {
                    self.visitors.turned_away(caller.address, TurnedAway::Silent);
                }
                Heard::Waiting => self.callers.push_back(caller),
                Heard::Proved(purpose) => take_in(caller, purpose, welcome),
                Heard::Gone(reason) => self.visitors.turned_away(caller.address, reason),
            }
        }
    }

    fn accept(
        &mut self,
        now: Instant,
        admit: &impl Fn(&Purpose) -> Option<Secret>,
        welcome: &mut impl FnMut(Purpose, Connection),
    ) {
        for _ in 0..ACCEPTS_AT_ONCE {
            let accepted = self.listener.accept().and_then(|(stream, address)| {
                stream.set_nonblocking(true)?;
                Ok((stream, address))
            });
            let (stream, address) = match accepted {
                Ok(accepted) => accepted,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(error) if is_exhausted(&error) => {
                    tracing::warn!(port = self.visitors.port(), %error, "a connection could not be accepted");
                    return self.become_deaf();
                }
                Err(error) => {
                    tracing::debug!(port = self.visitors.port(), %error, "a connection could not be accepted");
                    continue;
                }
            };
            let deadline = now + GREETING_TIMEOUT;
            let mut caller = Caller { stream, address, deadline, bytes: [0; HELLO_BYTES], received: 0, claim: None };
            match caller.hear(admit) {
                Heard::Waiting => self.seat(caller),
                Heard::Proved(purpose) => take_in(caller, purpose, welcome),
                Heard::Gone(reason) => self.visitors.turned_away(address, reason),
            }
        }
    }

    /// Gives a caller a place; the oldest that has not even said what it wants goes first, then the oldest of all.
    fn seat(&mut self, caller: Caller) {
        if self.callers.len() >= self.places {
            let oldest = self.callers.iter().position(|caller| caller.claim.is_none()).unwrap_or(0);
            if let Some(oldest) = self.callers.remove(oldest) {
                self.visitors.turned_away(oldest.address, TurnedAway::Crowded);
            }
        }
        self.callers.push_back(caller);
    }

    /// Without descriptors, accepting again at once would only burn a core. Those of callers are given back.
    fn become_deaf(&mut self) {
        self.deaf_until = Some(Instant::now() + DEAF);
        for caller in std::mem::take(&mut self.callers) {
            self.visitors.turned_away(caller.address, TurnedAway::Crowded);
        }
    }
}

impl Caller {
    /// Takes what it has said and answers; never waits, and never takes a byte that comes after its proof.
    fn hear(&mut self, admit: &impl Fn(&Purpose) -> Option<Secret>) -> Heard {
        loop {
            let wanted = if self.claim.is_none() { HELLO_BYTES } else { PROOF_BYTES };
            match self.stream.read(&mut self.bytes[self.received..wanted]) {
                Ok(0) => return Heard::Gone(TurnedAway::Closed),
                Ok(count) => self.received += count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Heard::Waiting,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Heard::Gone(TurnedAway::Closed),
            }
            if self.received < wanted {
                continue;
            }
            self.received = 0;
            match &self.claim {
                None => match self.answer(admit) {
                    Ok(claim) => self.claim = Some(claim),
                    Err(reason) => return Heard::Gone(reason),
                },
                Some(claim) => {
                    let proof = std::array::from_fn(|index| self.bytes[index]);
                    return claim.check(&proof).map_or_else(Heard::Gone, Heard::Proved);
                }
            }
        }
    }

    fn answer(&mut self, admit: &impl Fn(&Purpose) -> Option<Secret>) -> Result<Claim, TurnedAway> {
        let challenge = random().map_err(|_| TurnedAway::Closed)?;
        let (bytes, claim) = match answer(&self.bytes, challenge, admit) {
            Ok((bytes, claim)) => (Some(bytes), Ok(claim)),
            Err((bytes, reason)) => (bytes, Err(reason)),
        };
        if let Some(bytes) = bytes {
            // A new connection has room for it, unless its other end has seen to it that it has not.
            let sent = self.stream.write(&bytes).map_err(|_| TurnedAway::Closed)?;
            if sent < bytes.len() {
                return Err(TurnedAway::Closed);
            }
        }
        claim
    }
}

fn take_in(caller: Caller, purpose: Purpose, welcome: &mut impl FnMut(Purpose, Connection)) {
    let Caller { stream, address, .. } = caller;
    match stream
        .set_nonblocking(false)
        .map_err(|error| error.to_string())
        .and_then(|()| Connection::new(stream, address.to_string()).map_err(|error| error.to_string()))
    {
        Ok(connection) => welcome(purpose, connection),
        Err(error) => tracing::warn!(%address, error, "a member's connection cannot be used"),
    }
}

/// Whether the system has nothing left for any connection; all other errors of accepting are of the one that was to be accepted.
fn is_exhausted(error: &io::Error) -> bool {
    let exhausted = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM];
    Errno::from_io_error(error).is_some_and(|error| exhausted.contains(&error))
}

#[cfg(test)]
mod tests;
