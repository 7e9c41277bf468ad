//! Gives other ranks the pages that this rank holds, on threads that yield to the step path.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use kernels::Backend;

use super::CHUNK_BYTES;
use crate::cancel::Cancel;
use crate::experts::Yield;
use crate::experts::pages::Pages;
use crate::fabric::framing::{Connection, ConnectionError};
use crate::fabric::hello::{GroupId, Purpose};
use crate::protocol::{PageHead, PageRequest};
use crate::threads::VitalThreads;

/// What goes wrong on purpose while pages are served; nothing by default. Pages are counted from 1 over all requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// A byte of this page is wrong; `u64::MAX` means every page.
    pub corrupt: Option<u64>,
    /// The connection is closed in the middle of this page; `u64::MAX` means every page.
    pub cut: Option<u64>,
    /// Each page comes this much later.
    pub delay: Duration,
}

impl Faults {
    fn hits(fault: Option<u64>, page: u64) -> bool {
        fault.is_some_and(|wanted| wanted == page || wanted == u64::MAX)
    }
}

/// The group whose pages are served.
pub struct Serving<B: Backend> {
    /// Requests of another group are turned away.
    pub group: GroupId,
    /// Its pages.
    pub pages: Arc<Pages<B>>,
}

/// Serves pages of whatever group is current, until it is dropped.
pub struct PageServer<B: Backend> {
    shared: Arc<Shared<B>>,
    address: SocketAddr,
}

struct Shared<B: Backend> {
    current: ArcSwapOption<Serving<B>>,
    faults: Faults,
    served: AtomicU64,
    stopped: AtomicBool,
}

impl<B: Backend> PageServer<B> {
    /// Starts to serve on `listener`.
    ///
    /// # Errors
    /// If the system gives no thread or no address.
    pub fn start(listener: TcpListener, faults: Faults, threads: &VitalThreads) -> std::io::Result<Self> {
        let address = listener.local_addr()?;
        let (current, served, stopped) = (ArcSwapOption::empty(), AtomicU64::new(0), AtomicBool::new(false));
        let shared = Arc::new(Shared { current, faults, served, stopped });
        let accepting = Arc::clone(&shared);
        threads.spawn("page-accept", move || accept(&accepting, &listener))?;
        Ok(Self { shared, address })
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves this group's pages from now on, or none.
    pub fn set(&self, serving: Option<Serving<B>>) {
        self.shared.current.store(serving.map(Arc::new));
    }
}

impl<B: Backend> Drop for PageServer<B> {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::Release);
        self.shared.current.store(None);
        // Wakes the thread that accepts; where this fails the process is about to end with it.
        let _ = TcpStream::connect_timeout(&crate::fabric::reachable(self.address), Duration::from_secs(1));
    }
}

fn accept<B: Backend>(shared: &Arc<Shared<B>>, listener: &TcpListener) {
    loop {
        let accepted = listener.accept();
        if shared.stopped.load(Ordering::Acquire) {
            return;
        }
        let serving = Arc::clone(shared);
        let spawned = accepted.and_then(|(stream, address)| {
            std::thread::Builder::new().name("page-serve".to_owned()).spawn(move || {
                Yield::Moving.apply();
                if let Err(error) = serve(&serving, stream, &address.to_string()) {
                    tracing::debug!(%error, "a connection of the move path ended");
                }
            })
        });
        if let Err(error) = spawned {
            tracing::warn!(%error, "a rank's request for pages could not be accepted");
            std::thread::park_timeout(Duration::from_millis(100));
        }
    }
}

fn serve<B: Backend>(shared: &Shared<B>, stream: TcpStream, address: &str) -> Result<(), ConnectionError> {
    let mut connection = Connection::new(stream, address)?;
    let purpose = Purpose::hear(&mut connection)?;
    let Purpose::Moves { group, from } = purpose else {
        let (found, expected) = (format!("{purpose:?}"), "a rank that asks for pages".to_owned());
        return Err(ConnectionError::Stranger { peer: address.to_owned(), found, expected });
    };
    connection.rename(from.to_string());
    loop {
        let request: PageRequest = connection.receive_up_to(64)?;
        let current = shared.current.load_full().filter(|serving| serving.group == group);
        let page = current
            .and_then(|serving| Some((serving.pages.page(request.layer, request.expert)?, Arc::clone(&serving.pages))));
        match page {
            Some((page, pages)) => send(shared, &mut connection, pages.backend(), &page)?,
            None => connection.send(&PageHead { bytes: 0, fingerprint: 0 })?,
        }
    }
}

fn send<B: Backend>(
    shared: &Shared<B>,
    connection: &mut Connection,
    backend: &B,
    page: &B::Page,
) -> Result<(), ConnectionError> {
    let number = shared.served.fetch_add(1, Ordering::Relaxed) + 1;
    if !shared.faults.delay.is_zero() {
        Cancel::default().wait(shared.faults.delay);
    }
    let data = backend.page_data(page);
    connection.send(&PageHead { bytes: data.len() as u64, fingerprint: backend.fingerprint(page) })?;
    for (index, chunk) in data.chunks(CHUNK_BYTES).enumerate() {
        if index == 0 && Faults::hits(shared.faults.cut, number) {
            connection.send_bytes(&chunk[..chunk.len() / 2])?;
            connection.close();
            return Ok(());
        }
        if index == 0 && Faults::hits(shared.faults.corrupt, number) {
            let mut wrong = chunk.to_vec();
            wrong[chunk.len() / 2] ^= 1;
            connection.send_bytes(&wrong)?;
        } else {
            connection.send_bytes(chunk)?;
        }
    }
    Ok(())
}
