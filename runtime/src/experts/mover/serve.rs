//! Gives other ranks the pages that this rank holds, on threads that yield to the step path.

use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use kernels::fingerprint::CHUNK_BYTES;
use kernels::{Backend, DeviceError, Page};
use plan::ids::RankId;
use thiserror::Error;

use super::FETCHERS;
use crate::experts::Yield;
use crate::experts::pages::RankPages;
use crate::fabric::framing::{Closer, Connection, ConnectionError};
use crate::fabric::greeter::{Greeter, Stopper};
use crate::fabric::purpose::{GroupId, Purpose};
use crate::fabric::secret::Secret;
use crate::protocol::{PageHead, PageRequest};
use crate::threads::VitalThreads;

/// A connection on which nothing has been asked for so long is closed; who asks again connects again.
pub(super) const IDLE_LIMIT: Duration = Duration::from_mins(1);

/// A request is a few numbers.
const MOST_REQUEST_BYTES: usize = 64;

/// Connections of each rank of the group that are served at a time: one for each of its threads, and as many again that are
/// about to end.
const CONNECTIONS_OF_A_RANK: usize = 2 * FETCHERS;

/// The group whose pages are served.
pub struct Serving<B: Backend> {
    /// Who asks for pages of another group is turned away.
    pub group: GroupId,
    /// What its ranks prove themselves by.
    pub secret: Secret,
    /// This rank.
    pub rank: RankId,
    /// Ranks of the group.
    pub ranks: usize,
    /// Its pages.
    pub pages: Arc<RankPages<B>>,
}

impl<B: Backend> Serving<B> {
    fn admit(&self, purpose: &Purpose) -> Option<Secret> {
        let Purpose::Moves { group, from, to } = *purpose else { return None };
        let is_expected = (group, to) == (self.group, self.rank) && from != to && from.index() < self.ranks;
        is_expected.then(|| self.secret.clone())
    }
}

/// Serves pages of whatever group is current, until it is dropped.
pub struct PageServer<B: Backend> {
    shared: Arc<Shared<B>>,
    address: SocketAddr,
    _stop: Stopper,
}

struct Shared<B: Backend> {
    current: ArcSwapOption<Serving<B>>,
    /// Connections that are being served, by number; closed with their group.
    open: Mutex<Vec<(u64, RankId, Closer)>>,
    accepted: AtomicU64,
}

impl<B: Backend> PageServer<B> {
    /// Starts to serve on `listener`.
    ///
    /// # Errors
    /// If the system gives no thread or no address.
    pub fn start(listener: TcpListener, threads: &VitalThreads) -> std::io::Result<Self> {
        let address = listener.local_addr()?;
        let (greeter, stop) = Greeter::new(listener, "pages")?;
        let (current, accepted) = (ArcSwapOption::empty(), AtomicU64::new(0));
        let shared = Arc::new(Shared { current, open: Mutex::default(), accepted });
        let accepting = Arc::clone(&shared);
        let run = move || {
            greeter.run(
                |purpose| accepting.current.load().as_ref()?.admit(purpose),
                |purpose, connection| accepting.welcome(purpose, connection),
            );
        };
        threads.spawn("page-accept", run)?;
        Ok(Self { shared, address, _stop: stop })
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves this group's pages from now on, or none. Connections of the group before are closed.
    pub fn set(&self, serving: Option<Serving<B>>) {
        let open = self.shared.open();
        self.shared.current.store(serving.map(Arc::new));
        open.iter().for_each(|(_, _, closer)| closer.close());
    }
}

impl<B: Backend> Drop for PageServer<B> {
    fn drop(&mut self) {
        self.set(None);
    }
}

impl<B: Backend> Shared<B> {
    fn open(&self) -> MutexGuard<'_, Vec<(u64, RankId, Closer)>> {
        self.open.lock().expect("no thread panics while it holds the open connections")
    }

    /// Gives a rank of the group a thread, if it has not too many.
    fn welcome(self: &Arc<Self>, purpose: Purpose, mut connection: Connection) {
        let Purpose::Moves { from, .. } = purpose else { return };
        connection.rename(from.to_string());
        let mut open = self.open();
        // The group may have ended while the caller proved itself.
        let Some(serving) = self.current.load_full().filter(|serving| serving.admit(&purpose).is_some()) else {
            return;
        };
        if open.iter().filter(|(_, rank, _)| *rank == from).count() >= CONNECTIONS_OF_A_RANK {
            tracing::warn!(rank = %from, "a rank asks for pages on too many connections; the last is closed");
            return;
        }
        let number = self.accepted.fetch_add(1, Ordering::Relaxed);
        let started = connection.closer().map_err(|error| error.to_string()).and_then(|closer| {
            let shared = Arc::clone(self);
            let serve = move || {
                Yield::Moving.apply();
                match serve(&serving, connection) {
                    Ok(()) => {}
                    Err(NotServed::Connection(error)) => tracing::debug!(%error, "a connection of the move path ended"),
                    Err(NotServed::Device(error)) => {
                        tracing::warn!(%error, rank = %from, "a page could not be given; the connection is closed");
                    }
                }
                shared.open().retain(|(other, _, _)| *other != number);
            };
            let spawned = std::thread::Builder::new().name("page-serve".to_owned()).spawn(serve);
            spawned.map(|_| closer).map_err(|error| error.to_string())
        });
        match started {
            // Its thread takes it out again only once this lock is free.
            Ok(closer) => open.push((number, from, closer)),
            Err(error) => tracing::warn!(error, "a rank's request for pages could not be accepted"),
        }
    }
}

/// Why pages are given on a connection no more.
#[derive(Debug, Error)]
enum NotServed {
    /// It ended, or what came on it makes no sense.
    #[error(transparent)]
    Connection(#[from] ConnectionError),
    /// This rank's device does not give the page.
    #[error(transparent)]
    Device(#[from] DeviceError),
}

fn serve<B: Backend>(serving: &Serving<B>, mut connection: Connection) -> Result<(), NotServed> {
    connection.set_timeout(Some(IDLE_LIMIT))?;
    loop {
        let request: PageRequest = connection.receive_up_to(MOST_REQUEST_BYTES)?;
        if request.generation != serving.group.generation {
            // It asks for another group's page on this group's connection.
            return Err(ConnectionError::NotExpected { peer: connection.peer().to_owned() }.into());
        }
        match serving.pages.page(request.layer, request.expert) {
            Some(page) => send(&mut connection, (&page, serving.pages.page_bytes()), request.from as usize)?,
            None => connection.send(&PageHead { chunks: Vec::new() })?,
        }
    }
}

/// Sends a page, of so many bytes, from one of its chunks on.
fn send<B: Backend>(
    connection: &mut Connection,
    (page, bytes): (&Page<B>, usize),
    from: usize,
) -> Result<(), NotServed> {
    connection.send(&PageHead { chunks: page.fingerprints().chunks().to_vec() })?;
    let mut chunk = vec![0; CHUNK_BYTES.min(bytes)];
    for start in (0..bytes).step_by(CHUNK_BYTES).skip(from) {
        let chunk = &mut chunk[..CHUNK_BYTES.min(bytes - start)];
        page.read(start, chunk)?;
        connection.send_bytes(chunk)?;
    }
    Ok(())
}
