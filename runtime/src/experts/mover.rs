//! Receives the pages of transactions on threads of its own, and hands them to the engine. The step path is never
//! waited for and never waits: it finds what is staged when a commit says so.

mod arriving;
mod budget;
mod fetch;
mod links;
mod near;
mod serve;
mod sources;

use std::collections::BTreeMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, unbounded};
use kernels::fingerprint::CHUNK_BYTES;
use kernels::{Backend, DeviceError, Page};
use plan::ids::{ExpertId, LayerId, RankId, SlotIndex};
use plan::moves::Transaction;
use thiserror::Error;

use self::budget::Budget;
use self::fetch::Fetcher;
pub use self::links::Faults;
pub use self::near::Near;
pub use self::serve::{PageServer, Serving};
use super::Yield;
use super::pages::{NotReserved, RankPages, Reserved, StagedPage};
use crate::cancel::Cancel;
use crate::fabric::purpose::GroupId;
use crate::fabric::secret::Secret;
use crate::protocol::{FromRank, MoveFailure, MoveReport, NotStaged, RankAddress, TransactionId};
use crate::threads::{VitalThreads, survive};

/// Transactions that are received at the same time: while one waits for its source another may use the link.
const FETCHERS: usize = 2;

/// Reads an expert from the checkpoint into a page.
pub type LoadPage<B> = Arc<dyn Fn(LayerId, ExpertId, &mut Page<B>) -> Result<(), NotRead> + Send + Sync>;

/// Why an expert was not read from the checkpoint into a page.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NotRead {
    /// The checkpoint does not give it.
    #[error("{reason}")]
    Unreadable {
        /// What the checkpoint says.
        reason: String,
        /// Whether trying again is of no use.
        is_permanent: bool,
    },
    /// The device does not take it.
    #[error(transparent)]
    Device(#[from] DeviceError),
}

/// Where a page came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::IntoStaticStr, strum::EnumIter)]
#[strum(serialize_all = "snake_case")]
pub enum PageRoute {
    /// A rank of the same process: this one's device copied it out of the other's memory.
    Peer,
    /// A rank of the same node.
    Node,
    /// A rank of another.
    Network,
    /// No rank gave it.
    Checkpoint,
}

/// Counts pages that have arrived.
pub type CountPage = Arc<dyn Fn(PageRoute) + Send + Sync>;

/// A slot's new page.
pub enum NewPage<B: Backend> {
    /// It came from elsewhere.
    Received(StagedPage<B>),
    /// Another slot of this rank points at it.
    Held(Arc<Page<B>>),
}

impl<B: Backend> NewPage<B> {
    /// The page, to be put in its slot.
    #[must_use]
    pub fn commit(self) -> Arc<Page<B>> {
        match self {
            Self::Received(page) => page.commit(),
            Self::Held(page) => page,
        }
    }
}

/// The new pages of a rank's slots in one transaction.
pub type NewPages<B> = Vec<(SlotIndex, NewPage<B>)>;

/// From the mover to the engine.
pub enum HandOver<B: Backend> {
    /// These pages are for this transaction's slots of this rank. Always before the report that it is staged.
    Staged(TransactionId, NewPages<B>),
    /// The transaction will not be committed.
    Aborted(TransactionId),
}

/// What a mover works with.
pub struct MoverSetup<B: Backend> {
    /// The group.
    pub group: GroupId,
    /// What its ranks prove themselves by.
    pub secret: Secret,
    /// This rank.
    pub rank: RankId,
    /// Every rank in order.
    pub ranks: Vec<RankAddress>,
    /// This rank's pages.
    pub pages: Arc<RankPages<B>>,
    /// Ranks whose pages its device copies by itself.
    pub near: Near<B>,
    /// The last resort for a page.
    pub load_page: LoadPage<B>,
    /// Who is told of each page that has arrived.
    pub count_page: CountPage,
    /// Bytes per second that may arrive; 0 is no limit.
    pub bytes_per_second: u64,
    /// Where reports go.
    pub reports: Sender<FromRank>,
    /// What its threads are among.
    pub threads: VitalThreads,
    /// What goes wrong on purpose on its links.
    pub faults: Faults,
}

/// Receives pages for one rank in one group. Dropping it cancels what is under way.
pub struct Mover<B: Backend> {
    shared: Arc<Shared<B>>,
    orders: Sender<Order>,
}

struct Shared<B: Backend> {
    setup: MoverSetup<B>,
    started: Instant,
    budget: Mutex<Budget>,
    engine: Sender<HandOver<B>>,
    /// Pages that ranks were asked for, if there are faults.
    asked: Arc<AtomicU64>,
    /// Orders that are not yet handed over.
    open: Mutex<BTreeMap<TransactionId, Arc<Cancel>>>,
}

struct Order {
    transaction: TransactionId,
    work: Transaction,
    /// The fingerprint of the page that each change brings.
    fingerprints: Vec<u128>,
    deadline: Instant,
    cancel: Arc<Cancel>,
}

/// A rank has not given a page.
fn unreachable(message: impl Into<String>) -> NotStaged {
    NotStaged { reason: MoveFailure::SourceUnreachable, message: message.into() }
}

/// This rank's device has not taken a page. Whoever asks for the page next gets no further with a device that is lost.
fn not_taken(error: &DeviceError) -> NotStaged {
    let reason = if error.is_worth_a_retry() { MoveFailure::Device } else { MoveFailure::DeviceLost };
    NotStaged { reason, message: error.to_string() }
}

impl<B: Backend> Mover<B> {
    /// Starts the threads; the engine takes what is staged from the channel.
    ///
    /// # Errors
    /// If the system gives no threads.
    pub fn start(setup: MoverSetup<B>) -> std::io::Result<(Self, Receiver<HandOver<B>>)> {
        let (engine, staged) = unbounded();
        let (orders, incoming) = unbounded::<Order>();
        let budget = Mutex::new(Budget::new(setup.bytes_per_second));
        let (started, asked, open) = (Instant::now(), Arc::default(), Mutex::default());
        let shared = Arc::new(Shared { setup, started, budget, engine, asked, open });
        for number in 0..FETCHERS {
            let (shared, incoming) = (Arc::clone(&shared), incoming.clone());
            let threads = shared.setup.threads.clone();
            threads.spawn(&format!("mover-{number}"), move || {
                Yield::Moving.apply();
                let mut fetcher = Fetcher::new(&shared);
                for order in incoming {
                    let received = survive(|| shared.receive(&mut fetcher, &order));
                    let staged = received.unwrap_or_else(|message| {
                        // Its connections may be in the middle of a page.
                        fetcher = Fetcher::new(&shared);
                        Err(NotStaged { reason: MoveFailure::Internal, message })
                    });
                    shared.hand_on(order.transaction, staged);
                }
            })?;
        }
        Ok((Self { shared, orders }, staged))
    }

    /// Starts to receive what a transaction brings this rank, the page of each change with the fingerprint that it must have; a
    /// report follows.
    ///
    /// # Panics
    /// If there is not one fingerprint for each change.
    pub fn stage(
        &self,
        transaction: TransactionId,
        (work, fingerprints): (Transaction, Vec<u128>),
        deadline: Duration,
    ) {
        assert_eq!(work.changes.len(), fingerprints.len(), "one fingerprint for each change");
        let cancel = Arc::new(Cancel::default());
        self.shared.open().insert(transaction, Arc::clone(&cancel));
        let now = Instant::now();
        // A clock that cannot tell so late a time does not refuse the order: it is late when it comes.
        let order =
            Order { transaction, work, fingerprints, deadline: now.checked_add(deadline).unwrap_or(now), cancel };
        // If the fetchers are gone, so is the process.
        let _ = self.orders.send(order);
    }

    /// Forgets a transaction and frees its staging pages. No report follows.
    pub fn abort(&self, transaction: TransactionId) {
        let mut open = self.shared.open();
        match open.remove(&transaction) {
            Some(cancel) => cancel.cancel(),
            // It is the engine's already; if it is neither, the engine does not know it.
            None => self.shared.hand_over(HandOver::Aborted(transaction)),
        }
    }
}

impl<B: Backend> Drop for Mover<B> {
    fn drop(&mut self) {
        self.shared.open().values().for_each(|cancel| cancel.cancel());
    }
}

impl<B: Backend> Shared<B> {
    fn open(&self) -> MutexGuard<'_, BTreeMap<TransactionId, Arc<Cancel>>> {
        self.open.lock().expect("no thread panics while it holds the open orders")
    }

    /// Chunks that are paid for at once, of so many at most.
    fn part(&self, most: usize) -> usize {
        (self.budget().at_once() / CHUNK_BYTES).clamp(1, most)
    }

    /// Takes so many bytes of what may arrive; they may be received after the returned time has passed.
    fn pay(&self, bytes: usize) -> Duration {
        self.budget().take(bytes, self.started.elapsed())
    }

    fn budget(&self) -> MutexGuard<'_, Budget> {
        self.budget.lock().expect("no thread panics while it holds the budget")
    }

    fn hand_over(&self, hand_over: HandOver<B>) {
        // An engine that has ended needs no pages.
        let _ = self.engine.send(hand_over);
    }

    fn hand_on(&self, transaction: TransactionId, staged: Result<(NewPages<B>, u64), NotStaged>) {
        let generation = self.setup.group.generation;
        // Whoever takes the order out of the list decides: here it is handed over, in `abort` it is dropped.
        let mut open = self.open();
        if open.remove(&transaction).is_none() {
            return;
        }
        let staged = staged.map(|(pages, bytes)| {
            self.hand_over(HandOver::Staged(transaction, pages));
            bytes
        });
        drop(open);
        // Without a coordinator there is nobody to tell, and no commit will come.
        let _ = self.setup.reports.send(FromRank::Moved(MoveReport { generation, transaction, staged }));
    }

    fn receive(&self, fetcher: &mut Fetcher<'_, B>, order: &Order) -> Result<(NewPages<B>, u64), NotStaged> {
        let Order { work: Transaction { layer, changes, shares: _ }, deadline, cancel, .. } = order;
        let rank = self.setup.rank;
        let mine = changes.iter().zip(&order.fingerprints).filter(|(change, _)| change.rank == rank);
        let count = mine.clone().filter(|(change, _)| change.source != rank).count();
        let mut reserved = self.setup.pages.reserve(count, *deadline, cancel).map_err(not_reserved)?;
        let (mut pages, mut bytes) = (Vec::with_capacity(count), 0);
        for (change, &expected) in mine {
            let page = if change.source == rank {
                let held = self.setup.pages.page(*layer, change.to);
                NewPage::Held(
                    held.ok_or_else(|| unreachable(format!("{layer}: {rank} does not hold {} itself", change.to)))?,
                )
            } else {
                let into: Reserved<B> = reserved.pop().expect("one for each page from elsewhere");
                let (page, length) = fetcher.fetch(order, (change, expected), into)?;
                bytes += length;
                NewPage::Received(page)
            };
            pages.push((change.slot, page));
        }
        Ok((pages, bytes))
    }
}

fn not_reserved(error: NotReserved) -> NotStaged {
    match error {
        NotReserved::Deadline => NotStaged {
            reason: MoveFailure::NoStagingPage,
            message: "no staging page became free before the deadline".to_owned(),
        },
        NotReserved::Cancelled => NotStaged { reason: MoveFailure::Aborted, message: "aborted".to_owned() },
    }
}

#[cfg(test)]
mod tests;
