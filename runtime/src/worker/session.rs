//! From registering with the coordinator to losing it, or the group.

mod connect;
mod view;

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvError, RecvTimeoutError, select};
use kernels::routing::GroupShape;
use kernels::{Backend, DeviceError};
use plan::ids::{ExpertId, LayerId, RankId};
use plan::moves::{SlotChange, Transaction};
use plan::topology::Topology;
use plan::wire::{MapDocument, WireError};
use plan::words::counted;
use thiserror::Error;

use self::view::view;
use super::control::Control;
use super::metrics::WorkerMetrics;
use super::{Stop, Worker, WorkerError};
use crate::engine::EngineError;
use crate::experts::load::{LoadError, slots_of};
use crate::experts::mover::Mover;
use crate::experts::pages::{HeldPages, RankPages};
use crate::experts::routing::RankMap;
use crate::fabric::exchange::ExchangeCloser;
use crate::fabric::exchange::form::FormError;
use crate::fabric::exchange::means::{Means, Refusal, possible};
use crate::fabric::framing::{CONNECT_TIMEOUT, Closer, ConnectionError};
use crate::fabric::handshake::call;
use crate::fabric::mesh::{Dissolver, MeshError};
use crate::fabric::purpose::{GroupId, Purpose};
use crate::fabric::secret::Secret;
use crate::memory::{RankPart, TooLarge};
use crate::model::forward::{KvCache, Workspace};
use crate::protocol::{FromRank, MOST_WORDS, RankAddress, ToRank, TransactionId};
use crate::quoted::shortened;

/// How long the engine may take to hear that its group is gone: a step that has begun is computed to its end.
const ENGINE_LEAVES_WITHIN: Duration = Duration::from_mins(5);

/// The same when the process is to end.
const ENGINE_ENDS_WITHIN: Duration = Duration::from_secs(2);

/// How often that is looked for.
pub(super) const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// The engine does not come back from a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("the engine is still in a step of a group that was lost {} s ago", after.as_secs())]
pub struct EngineHangs {
    /// How long ago.
    pub after: Duration,
}

/// Why a session ended.
#[derive(Debug, Error)]
pub(super) enum SessionError {
    #[error(transparent)]
    Coordinator(#[from] ConnectionError),
    #[error("the coordinator closed the session")]
    Closed,
    #[error("the coordinator refused this rank: {reason}")]
    Refused { reason: String },
    #[error("the map cannot be served")]
    Map(#[from] WireError),
    #[error("the group has {} and its map {in_map}, this is {rank}", counted(*ranks, "rank"))]
    Shape { ranks: usize, in_map: usize, rank: RankId },
    #[error("the map is for ranks with unequal numbers of slots: one has {least}, another {most}")]
    UnequalRanks { least: usize, most: usize },
    #[error(transparent)]
    Memory(#[from] TooLarge),
    #[error(transparent)]
    Start(WorkerError),
    #[error("the experts cannot be loaded")]
    Load(#[from] LoadError),
    #[error("the coordinator orders transaction {} of {layer}, to {expert}, whose page nobody has agreed upon", transaction.0)]
    NotAgreed { transaction: TransactionId, layer: LayerId, expert: ExpertId },
    #[error("the coordinator orders to connect in generation {generation}, for which nothing is loaded")]
    NotLoaded { generation: u64 },
    #[error("the other ranks cannot be reached")]
    Mesh(#[from] MeshError),
    #[error(transparent)]
    Exchange(#[from] Refusal),
    #[error("the ranks have no exchange")]
    Form(#[from] FormError),
    #[error(transparent)]
    Device(#[from] DeviceError),
    #[error("the system refuses")]
    System(#[from] io::Error),
}

/// One registration and what came of it.
pub(super) struct Session<B: Backend> {
    loaded: Option<Loaded<B>>,
    part: Option<Part<B>>,
    ready: bool,
}

/// A rank's part in a group, beside what its engine has.
struct Part<B: Backend> {
    generation: u64,
    /// Experts of each layer.
    experts: usize,
    /// The fingerprint that each expert's page must have, `[layers, experts]`.
    fingerprints: Vec<Option<u128>>,
    pages: Arc<RankPages<B>>,
    mover: Mover<B>,
    dissolver: Dissolver,
    /// Ends what waits on the device for other ranks.
    waits: Option<ExchangeCloser>,
    steps: Closer,
    ended: Receiver<EngineError>,
}

/// The group that this rank is to be part of.
struct NextGroup {
    group: GroupId,
    secret: Secret,
    ranks: Vec<RankAddress>,
    epoch: u64,
    move_bytes_per_second: Option<u64>,
    step_tokens: u32,
}

/// A group that all is loaded for.
struct Loaded<B: Backend> {
    next: NextGroup,
    /// By which means it can exchange rows with the others.
    means: Vec<Means>,
    /// Experts of each layer.
    experts: usize,
    shape: GroupShape,
    workspace: Workspace<B>,
    routing: RankMap,
    pages: Arc<RankPages<B>>,
}

impl<B: Backend> Default for Session<B> {
    fn default() -> Self {
        Self { loaded: None, part: None, ready: false }
    }
}

impl<B: Backend> Session<B> {
    pub const fn was_ready(&self) -> bool {
        self.ready
    }

    /// Registers and obeys until the coordinator or the group is gone.
    pub fn run(&mut self, worker: &mut Worker<B>, stop: &Stop) -> Result<Infallible, SessionError> {
        let address = &worker.settings.coordinator;
        let purpose = (Purpose::Control, &worker.settings.secret);
        let mut control = call(address, "the coordinator", purpose, CONNECT_TIMEOUT)?;
        control.send(&worker.registration())?;
        stop.guard(worker.settings.rank, control.closer()?);
        let (control, orders) = Control::of(control, &worker.metrics)?;
        loop {
            let order = select! {
                recv(orders) -> order => order.map_err(|RecvError| SessionError::Closed)??,
                recv(worker.weights.told()) -> started => {
                    worker.weights.heard(started).map_err(SessionError::Start)?;
                    continue;
                }
            };
            match order {
                ToRank::Form {
                    generation,
                    nonce,
                    drawn,
                    ranks,
                    map,
                    epoch,
                    staging_pages,
                    kv_tokens,
                    move_bytes_per_second,
                    step_tokens,
                } => {
                    let group = GroupId { generation, nonce };
                    let secret = worker.settings.secret.of_group(&drawn);
                    let next = NextGroup { group, secret, ranks, epoch, move_bytes_per_second, step_tokens };
                    self.load(worker, next, (&map, staging_pages, kv_tokens), &control)?;
                }
                ToRank::Connect { generation, fingerprints } => {
                    let loaded = self.loaded.take().filter(|loaded| loaded.next.group.generation == generation);
                    let loaded = loaded.ok_or(SessionError::NotLoaded { generation })?;
                    self.connect(worker, loaded, fingerprints, &control)?;
                }
                ToRank::Stage { generation, transaction, work, deadline_ms } => {
                    if let Some(part) = self.part_in(generation) {
                        let layer = work.layer;
                        let not_agreed = |expert| SessionError::NotAgreed { transaction, layer, expert };
                        let expected = part.expected(&work).map_err(not_agreed)?;
                        part.mover.stage(transaction, (work, expected), Duration::from_millis(deadline_ms));
                    }
                }
                ToRank::Abort { generation, transaction } => {
                    if let Some(part) = self.part_in(generation) {
                        part.mover.abort(transaction);
                    }
                }
                ToRank::Refused { reason } => {
                    return Err(SessionError::Refused { reason: shortened(&reason, MOST_WORDS) });
                }
            }
        }
    }

    fn part_in(&self, generation: u64) -> Option<&Part<B>> {
        self.part.as_ref().filter(|part| part.generation == generation)
    }

    /// Loads what a group needs of this rank, however long that takes, and says so.
    fn load(
        &mut self,
        worker: &mut Worker<B>,
        next: NextGroup,
        (map, staging_pages, kv_tokens): (&MapDocument, u32, u64),
        control: &Control,
    ) -> Result<(), SessionError> {
        let rank = worker.settings.rank;
        let map = map.to_map(&worker.checkpoint.identity(""))?;
        let ranks = next.ranks.len();
        if ranks != map.shape().ranks || rank.index() >= ranks {
            return Err(SessionError::Shape { ranks, in_map: map.shape().ranks, rank });
        }
        let counts = map.slots_of_ranks();
        if counts.per_rank().is_none() {
            let (least, most) = (counts.counts().min().unwrap_or(0), counts.most());
            return Err(SessionError::UnequalRanks { least, most });
        }
        let view = view(worker, &next.ranks);
        let means = possible(worker.settings.exchange, &view)?;
        worker.tell_unreached(&view, &means);
        let here = (&worker.settings.node, &worker.said.unit);
        let neighbours = next.ranks.iter().filter(|rank| (&rank.node, &rank.unit) == here).count();
        let (slots, step_tokens) = (map.shape().slots_per_rank, next.step_tokens as usize);
        // Where it has something faster so do the others, which are of its process then.
        let (has_nccl, threads) = (means.first() == Some(&Means::Nccl), worker.settings.threads);
        let part = RankPart { ranks, slots, staging_pages, step_tokens, threads, has_nccl };
        // What was loaded for a group that did not come about gives its memory back.
        self.loaded = None;
        let cache = worker.room_for(part, kv_tokens, neighbours)?;
        let slots = slots_of(&map, rank);
        let loaded = worker.weights.load(&slots, &control.gone)?;
        let held: HeldPages<B> = slots.into_iter().zip(loaded.iter().cloned()).collect();
        let arena = worker.weights.arena()?;
        let fingerprints = loaded.iter().map(|page| page.fingerprints().page()).collect();
        let nodes = Topology::named(next.ranks.iter().map(|rank| rank.node.as_str()), map.shape().slots_per_rank);
        let numbers = loaded.iter().map(|page| page.id()).collect();
        let routing = RankMap::new(&map, &nodes, rank, next.epoch, numbers);
        let (experts, config) = (map.shape().experts, worker.checkpoint.config());
        let shape = routing.group(config.router.top_k, step_tokens);
        let kept = KvCache::new(&*worker.device, config, cache, worker.angles.take());
        let kept = kept.map_err(|error| SessionError::Start(WorkerError::of_cache(error)))?;
        worker.angles = Some(kept.angles());
        let workspace = Workspace::new(Arc::clone(&arena), config, kept, shape, routing.layers())?;
        let pages = RankPages::new(arena, map, held, staging_pages)?;
        let (generation, kv_blocks) = (next.group.generation, cache.blocks as u32);
        self.loaded = Some(Loaded { next, means, experts, shape, workspace, routing, pages });
        // If the coordinator is gone, the loop that reads its orders says so.
        let _ = control.reports.send(FromRank::Loaded { generation, kv_blocks, fingerprints });
        Ok(())
    }

    /// Leaves the group; the experts that this rank held in it. If the engine does not, the process has nothing left to do.
    pub fn end(self, stop: &Stop, metrics: &WorkerMetrics) -> Result<Option<HeldPages<B>>, EngineHangs> {
        let Some(part) = self.part else { return Ok(None) };
        let Part { pages, mover, dissolver, waits, steps, ended, .. } = part;
        drop(mover);
        dissolver.dissolve();
        if let Some(close) = waits {
            close();
        }
        steps.close();
        if let Some(reason) = left(&ended, stop, ENGINE_LEAVES_WITHIN)? {
            metrics.left(reason.departure());
            tracing::info!(reason = &reason as &dyn std::error::Error, "the step path ended");
        }
        Ok(Some(pages.held()))
    }
}

/// Waits until the engine has left its group; why it did, unless the engine itself is gone.
fn left(ended: &Receiver<EngineError>, stop: &Stop, most: Duration) -> Result<Option<EngineError>, EngineHangs> {
    let (started, mut stopped) = (Instant::now(), None);
    loop {
        match ended.recv_timeout(LOOK_INTERVAL) {
            Ok(reason) => return Ok(Some(reason)),
            Err(RecvTimeoutError::Disconnected) => return Ok(None),
            Err(RecvTimeoutError::Timeout) => {}
        }
        let now = Instant::now();
        if stop.cancel.is_cancelled() {
            stopped.get_or_insert(now);
        }
        let over = stopped.is_some_and(|since| now - since >= ENGINE_ENDS_WITHIN);
        if over || now - started >= most {
            return Err(EngineHangs { after: now - started });
        }
    }
}

impl<B: Backend> Part<B> {
    /// The fingerprint of the page that each change of a transaction brings; or an expert whose page nobody has agreed upon.
    fn expected(&self, work: &Transaction) -> Result<Vec<u128>, ExpertId> {
        let of = |change: &SlotChange| {
            let expert = change.to.index();
            let place = work.layer.index() * self.experts + expert;
            self.fingerprints.get(place).copied().flatten().filter(|_| expert < self.experts).ok_or(change.to)
        };
        work.changes.iter().map(of).collect()
    }
}

#[cfg(test)]
mod tests {
    use crossbeam_channel::unbounded;

    use super::*;

    #[test]
    fn an_engine_that_hangs_is_waited_for_as_long_as_a_step_may_take_and_shorter_when_the_process_is_to_end() {
        let (hangs, ended) = unbounded();
        let (stop, most) = (Stop::default(), Duration::from_millis(300));
        assert!(left(&ended, &stop, most).unwrap_err().after >= most);
        stop.stop();
        let error = left(&ended, &stop, ENGINE_LEAVES_WITHIN).unwrap_err();
        assert!((ENGINE_ENDS_WITHIN..ENGINE_LEAVES_WITHIN / 2).contains(&error.after), "{error}");
        drop(hangs);
        assert!(left(&ended, &stop, most).unwrap().is_none());
    }
}
