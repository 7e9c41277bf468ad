//! How ranks find each other: each calls those below it and is called by those above. A port takes callers in only while
//! their group comes together here.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};
use plan::ids::RankId;

use super::{MeshError, MeshSetup};
use crate::cancel::Cancel;
use crate::fabric::framing::{CONNECT_TIMEOUT, Connection};
use crate::fabric::greeter::{Greeter, Stopper};
use crate::fabric::handshake::call;
use crate::fabric::purpose::{GroupId, Purpose};
use crate::fabric::secret::Secret;
use crate::protocol::RankAddress;
use crate::threads::VitalThreads;

/// How often a wait looks whether it was cancelled.
pub(super) const CANCEL_CHECK: Duration = Duration::from_millis(50);

/// The longest pause before a rank that does not expect the call yet is called again: it does once its experts are loaded.
const LONGEST_PAUSE: Duration = Duration::from_millis(400);

/// A rank that called, and its connection.
pub(super) type Caller = (RankId, Connection);

/// Where a rank is called by those above it.
#[derive(Debug)]
pub struct StepPort {
    address: SocketAddr,
    expected: Arc<Mutex<Option<Expected>>>,
    _stop: Stopper,
}

/// Who may call.
#[derive(Debug)]
struct Expected {
    group: GroupId,
    secret: Secret,
    rank: RankId,
    ranks: usize,
    callers: Sender<Caller>,
}

/// Has a port take callers in until it is dropped.
#[derive(Debug)]
pub(super) struct Expecting<'a> {
    port: &'a StepPort,
    pub callers: Receiver<Caller>,
}

impl StepPort {
    /// Starts to listen; whoever calls is turned away until a group comes together.
    ///
    /// # Errors
    /// If the system gives no thread or no address.
    pub fn start(listener: TcpListener, threads: &VitalThreads) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let (greeter, stop) = Greeter::new(listener, "steps")?;
        let expected: Arc<Mutex<Option<Expected>>> = Arc::default();
        let (admitting, welcoming) = (Arc::clone(&expected), Arc::clone(&expected));
        let run = move || {
            greeter.run(
                |purpose| lock(&admitting).as_ref()?.admit(purpose),
                |purpose, connection| {
                    if let (Some(expected), Purpose::Mesh { from, .. }) = (&*lock(&welcoming), purpose)
                        && expected.admit(&purpose).is_some()
                    {
                        // One that calls again and again has its place already.
                        let _ = expected.callers.try_send((from, connection));
                    }
                },
            );
        };
        threads.spawn("step-accept", run)?;
        Ok(Self { address, expected, _stop: stop })
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Takes in the ranks above this one that are of its group.
    pub(super) fn expect(&self, setup: MeshSetup<'_>) -> Expecting<'_> {
        let MeshSetup { group, secret, rank, ranks, .. } = setup;
        // A rank may call again before its first call was taken.
        let (callers, received) = bounded(ranks.len() * 2);
        let expected = Expected { group, secret: secret.clone(), rank, ranks: ranks.len(), callers };
        *lock(&self.expected) = Some(expected);
        Expecting { port: self, callers: received }
    }
}

impl Drop for Expecting<'_> {
    fn drop(&mut self) {
        *lock(&self.port.expected) = None;
    }
}

impl Expected {
    fn admit(&self, purpose: &Purpose) -> Option<Secret> {
        let Purpose::Mesh { group, from, to } = *purpose else { return None };
        let is_expected = (group, to) == (self.group, self.rank) && to < from && from.index() < self.ranks;
        is_expected.then(|| self.secret.clone())
    }
}

fn lock(expected: &Mutex<Option<Expected>>) -> MutexGuard<'_, Option<Expected>> {
    expected.lock().expect("no thread panics while it holds who is expected")
}

/// Calls a lower rank until it answers under the same group.
pub(super) fn call_until(
    setup: MeshSetup<'_>,
    address: &RankAddress,
    deadline: Instant,
    cancel: &Cancel,
) -> Result<Connection, MeshError> {
    let mut pause = CANCEL_CHECK;
    loop {
        if cancel.is_cancelled() {
            return Err(MeshError::Cancelled);
        }
        let error = match call_once(setup, address) {
            Ok(connection) => return Ok(connection),
            Err(error) => error,
        };
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(MeshError::Unreachable { peer: address.rank, source: error });
        }
        cancel.wait(left.min(pause));
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Calls a lower rank once.
pub(super) fn call_once(
    setup: MeshSetup<'_>,
    address: &RankAddress,
) -> Result<Connection, crate::fabric::framing::ConnectionError> {
    let purpose = Purpose::Mesh { group: setup.group, from: setup.rank, to: address.rank };
    call(&address.step, address.rank.to_string(), (purpose, setup.secret), CONNECT_TIMEOUT)
}
