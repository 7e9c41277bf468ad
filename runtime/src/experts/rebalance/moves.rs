//! The transactions of one plan on their way: which wait, which are being staged, which a step is committing. Knows
//! nothing of windows or of why they are wanted.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use plan::ids::{LayerId, RankId};
use plan::moves::Transaction;

use super::Settings;
use crate::protocol::TransactionId;

/// Slots that one step changes at most, so that a commit stays too short to be felt; a larger transaction goes alone.
const SLOTS_PER_STEP: usize = 32;

/// A rank that has not reported when its deadline has passed by this much never will.
const REPORT_GRACE: Duration = Duration::from_secs(5);

/// When the steps and the clock stand at what.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    pub steps: u64,
    pub now: Duration,
}

/// What is left of a plan.
#[derive(Clone, Debug, Default)]
pub(super) struct Moves {
    /// Those of one layer go one at a time and in order, since each is made for the map that the one before it leaves.
    /// Layers are served in the plan's order, which has what pays most first.
    queues: BTreeMap<LayerId, VecDeque<Queued>>,
    in_flight: BTreeMap<TransactionId, InFlight>,
}

#[derive(Clone, Debug)]
struct Queued {
    /// Its place in the plan.
    place: usize,
    work: Transaction,
    failures: u32,
    not_before: u64,
}

/// A transaction that ranks are receiving, have received, or commit in the step that runs.
#[derive(Clone, Debug)]
pub(super) struct InFlight {
    place: usize,
    pub work: Transaction,
    pub failures: u32,
    pub bytes: u64,
    pub awaited: BTreeSet<RankId>,
    expires: Duration,
    /// The step that commits it: from then on it cannot be taken back.
    committing: Option<u64>,
}

impl InFlight {
    /// Every rank that a change names, whether or not it has reported.
    pub fn receivers(&self) -> BTreeSet<RankId> {
        receivers(&self.work)
    }
}

/// The ranks whose slots a transaction changes.
pub(super) fn receivers(work: &Transaction) -> BTreeSet<RankId> {
    work.changes.iter().map(|change| change.rank).collect()
}

/// The staging pages that each rank needs for a transaction: one for each page that comes from another rank.
fn pages(work: &Transaction) -> impl Iterator<Item = RankId> {
    work.changes.iter().filter(|change| change.source != change.rank).map(|change| change.rank)
}

/// Pages that a transaction moves between ranks.
pub(super) fn page_count(work: &Transaction) -> u64 {
    pages(work).count() as u64
}

impl Moves {
    pub fn new(transactions: Vec<Transaction>) -> Self {
        let mut queues: BTreeMap<LayerId, VecDeque<Queued>> = BTreeMap::new();
        for (place, work) in transactions.into_iter().enumerate() {
            queues.entry(work.layer).or_default().push_back(Queued { place, work, failures: 0, not_before: 0 });
        }
        Self { queues, in_flight: BTreeMap::new() }
    }

    pub fn is_finished(&self) -> bool {
        self.pending() == 0
    }

    pub fn pending(&self) -> usize {
        self.queues.values().map(VecDeque::len).sum::<usize>() + self.in_flight.len()
    }

    pub fn in_flight(&self) -> impl Iterator<Item = (TransactionId, &InFlight)> {
        self.in_flight.iter().map(|(&id, transaction)| (id, transaction))
    }

    /// Starts every transaction that may: the first of its layer, while no other of the layer is in flight and no rank
    /// gets more pages than it can stage. `next` gives their numbers, which are returned.
    pub fn start(
        &mut self,
        settings: &Settings,
        moment: Moment,
        mut next: impl FnMut() -> TransactionId,
    ) -> Vec<TransactionId> {
        let mut staging = self.staging();
        let busy: BTreeSet<LayerId> = self.in_flight.values().map(|transaction| transaction.work.layer).collect();
        let idle = self.queues.iter_mut().filter(|(layer, queue)| !busy.contains(layer) && !queue.is_empty());
        let mut idle: Vec<&mut VecDeque<Queued>> = idle.map(|(_, queue)| queue).collect();
        idle.sort_by_key(|queue| queue.front().map(|first| first.place));
        let mut started = Vec::new();
        for queue in idle {
            let Some(first) = queue.front().filter(|first| first.not_before <= moment.steps) else { continue };
            let mut after = staging.clone();
            pages(&first.work).for_each(|rank| *after.entry(rank).or_default() += 1);
            if after.values().any(|&pages| pages > settings.staging_pages) {
                continue;
            }
            let Some(Queued { place, work, failures, .. }) = queue.pop_front() else { continue };
            let (id, awaited, expires) = (next(), receivers(&work), moment.now + settings.deadline + REPORT_GRACE);
            staging = after;
            self.in_flight.insert(id, InFlight { place, work, failures, bytes: 0, awaited, expires, committing: None });
            started.push(id);
        }
        started
    }

    /// Staging pages that the transactions in flight need, by rank; a rank that is not there needs none.
    pub fn staging(&self) -> BTreeMap<RankId, u32> {
        let mut staging: BTreeMap<RankId, u32> = BTreeMap::new();
        for rank in self.in_flight.values().flat_map(|transaction| pages(&transaction.work)) {
            *staging.entry(rank).or_default() += 1;
        }
        staging
    }

    /// The layer of a transaction that could never start, because a rank would have to stage more pages than it has.
    pub fn too_large(&self, staging_pages: u32) -> Option<LayerId> {
        let too_large = |queued: &Queued| {
            let most = |rank| pages(&queued.work).filter(|&other| other == rank).count();
            receivers(&queued.work).into_iter().any(|rank| most(rank) > staging_pages as usize)
        };
        self.queues.iter().find(|(_, queue)| queue.iter().any(too_large)).map(|(&layer, _)| layer)
    }

    pub fn staged(&mut self, id: TransactionId, rank: RankId, bytes: u64) {
        if let Some(transaction) = self.in_flight.get_mut(&id)
            && transaction.awaited.remove(&rank)
        {
            transaction.bytes += bytes;
        }
    }

    /// Takes out a transaction that is not being committed.
    pub fn fail(&mut self, id: TransactionId) -> Option<InFlight> {
        if self.in_flight.get(&id)?.committing.is_some() {
            return None;
        }
        self.in_flight.remove(&id)
    }

    /// The transactions whose ranks did not report in time.
    pub fn expired(&self, now: Duration) -> Vec<TransactionId> {
        let late = |transaction: &InFlight| transaction.committing.is_none() && transaction.expires <= now;
        self.in_flight().filter(|(_, transaction)| late(transaction)).map(|(id, _)| id).collect()
    }

    /// Puts a failed transaction back, before those of its layer that follow it.
    pub fn retry(&mut self, failed: InFlight, not_before: u64) {
        let InFlight { place, work, failures, .. } = failed;
        let queue = self.queues.entry(work.layer).or_default();
        queue.push_front(Queued { place, work, failures: failures + 1, not_before });
    }

    /// Takes back everything that is not being committed.
    pub fn drop_rest(&mut self) -> Vec<(TransactionId, InFlight)> {
        self.queues.clear();
        let ids: Vec<TransactionId> = self.in_flight.keys().copied().collect();
        ids.into_iter().filter_map(|id| Some((id, self.fail(id)?))).collect()
    }

    /// Takes everything out, also what the step that ran was to commit: that step did not happen.
    pub fn all(&mut self) -> Vec<(TransactionId, InFlight)> {
        self.queues.clear();
        std::mem::take(&mut self.in_flight).into_iter().collect()
    }

    /// Transactions that steps under way commit.
    pub fn committing(&self) -> usize {
        self.in_flight.values().filter(|transaction| transaction.committing.is_some()).count()
    }

    /// Marks the transactions that a step shall commit, those that are wholly staged; at most [`SLOTS_PER_STEP`] slots.
    pub fn commit(&mut self, step: u64) -> Vec<(TransactionId, Transaction)> {
        let (mut slots, mut committed) = (0, Vec::new());
        for (&id, transaction) in &mut self.in_flight {
            if !transaction.awaited.is_empty() || transaction.committing.is_some() {
                continue;
            }
            slots += transaction.work.changes.len();
            if slots > SLOTS_PER_STEP && !committed.is_empty() {
                break;
            }
            transaction.committing = Some(step);
            committed.push((id, transaction.work.clone()));
        }
        committed
    }

    /// Takes out what a step has committed, in the order of the commits.
    pub fn committed(&mut self, step: u64) -> Vec<(TransactionId, InFlight)> {
        let ids: Vec<TransactionId> = self
            .in_flight()
            .filter(|(_, transaction)| transaction.committing == Some(step))
            .map(|(id, _)| id)
            .collect();
        ids.into_iter().filter_map(|id| Some((id, self.in_flight.remove(&id)?))).collect()
    }
}
