//! From registering with the coordinator to losing it, or the group.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, unbounded};
use kernels::cpu::Cpu;
use plan::topology::Topology;
use plan::wire::{MapDocument, WireError};
use thiserror::Error;

use super::metrics::WorkerMetrics;
use super::{Stop, Worker};
use crate::cancel::Cancel;
use crate::engine::{EngineError, Membership, StepPath};
use crate::experts::load::{LoadError, load_experts};
use crate::experts::mover::{Mover, MoverSetup, Serving};
use crate::experts::pages::{HeldPages, Pages};
use crate::experts::table::ExpertTable;
use crate::fabric::framing::{CONNECT_TIMEOUT, Closer, Connection, ConnectionError};
use crate::fabric::hello::{GroupId, Purpose};
use crate::fabric::mesh::{Dissolver, Members, Mesh, MeshError};
use crate::model::qwen3_moe::expert_shape;
use crate::protocol::{FromRank, RankAddress, ToRank};

/// How often a rank says that it is alive.
const ALIVE_INTERVAL: Duration = Duration::from_secs(1);

/// How long the other ranks may take to load their experts and connect.
const MESH_TIMEOUT: Duration = Duration::from_mins(2);

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
    #[error("the group has {ranks} ranks and its map {in_map}, this is {rank}")]
    Shape { ranks: usize, in_map: usize, rank: plan::ids::RankId },
    #[error("the map is for ranks with unequal numbers of slots")]
    UnequalRanks,
    #[error("the experts cannot be loaded")]
    Load(#[from] LoadError),
    #[error("the other ranks cannot be reached")]
    Mesh(#[from] MeshError),
    #[error("the system refuses")]
    System(#[from] io::Error),
}

/// One registration and what came of it.
#[derive(Default)]
pub(super) struct Session {
    part: Option<Part>,
    ready: bool,
}

/// A rank's part in a group, beside what its engine has.
struct Part {
    generation: u64,
    pages: Arc<Pages<Cpu>>,
    mover: Mover<Cpu>,
    dissolver: Dissolver,
    steps: Closer,
    ended: Receiver<EngineError>,
}

/// The control connection, beside the orders that arrive on it.
struct Link {
    closer: Closer,
    reports: Sender<FromRank>,
    /// Cancelled when the connection is gone.
    gone: Arc<Cancel>,
}

/// An order to form a group.
struct Form {
    group: GroupId,
    ranks: Vec<RankAddress>,
    map: MapDocument,
    epoch: u64,
    staging_pages: u32,
    move_bytes_per_second: u64,
}

impl Session {
    pub const fn was_ready(&self) -> bool {
        self.ready
    }

    /// Registers and obeys until the coordinator or the group is gone.
    pub fn run(&mut self, worker: &mut Worker, stop: &Stop) -> Result<Infallible, SessionError> {
        let address = &worker.settings.coordinator;
        let mut control = Connection::connect(address, "the coordinator", CONNECT_TIMEOUT)?;
        Purpose::Control { process: worker.process }.introduce(&mut control)?;
        control.send(&worker.registration())?;
        stop.guard(control.closer()?);
        let closer = control.closer()?;
        let (reports, outbox) = unbounded();
        spawn_writer(control.share()?, outbox, worker.metrics.clone())?;
        let gone = Arc::new(Cancel::default());
        let orders = spawn_reader(control, &gone)?;
        let link = Link { closer, reports, gone };
        for order in orders {
            match order? {
                ToRank::Form { generation, nonce, ranks, map, epoch, staging_pages, move_bytes_per_second } => {
                    let group = GroupId { generation, nonce };
                    let form = Form { group, ranks, map, epoch, staging_pages, move_bytes_per_second };
                    self.form(worker, form, &link)?;
                }
                ToRank::Stage { generation, transaction, work, deadline_ms } => {
                    if let Some(part) = self.part_in(generation) {
                        part.mover.stage(transaction, work, Duration::from_millis(deadline_ms));
                    }
                }
                ToRank::Abort { generation, transaction } => {
                    if let Some(part) = self.part_in(generation) {
                        part.mover.abort(transaction);
                    }
                }
                ToRank::Refused { reason } => return Err(SessionError::Refused { reason }),
            }
        }
        Err(SessionError::Closed)
    }

    fn part_in(&self, generation: u64) -> Option<&Part> {
        self.part.as_ref().filter(|part| part.generation == generation)
    }

    /// Becomes part of a group.
    fn form(&mut self, worker: &mut Worker, form: Form, link: &Link) -> Result<(), SessionError> {
        let started = Instant::now();
        let Form { group, ranks, map, epoch, staging_pages, move_bytes_per_second } = form;
        let (rank, load_page) = (worker.settings.rank, Arc::clone(&worker.load_page));
        let map = map.to_map(&worker.checkpoint.identity(""))?;
        if map.slots_of_ranks().per_rank().is_none() {
            return Err(SessionError::UnequalRanks);
        }
        if ranks.len() != map.shape().ranks || rank.index() >= ranks.len() {
            return Err(SessionError::Shape { ranks: ranks.len(), in_map: map.shape().ranks, rank });
        }
        let loaded = load_experts::<Cpu>(&map, rank, &worker.held, &load_page, &link.gone)?;
        let slots = map.layers().flat_map(|layer| map.rank(layer, rank).iter().map(move |&expert| (layer, expert)));
        let held: HeldPages<Cpu> = slots.zip(loaded.iter().cloned()).collect();
        worker.held = held.clone();
        let nodes = Topology::named(ranks.iter().map(|rank| rank.node.as_str()), map.shape().slots_per_rank);
        let table = ExpertTable::new(&map, &nodes, rank, epoch, loaded);
        let backend = Arc::clone(worker.engine.backend());
        let pages = Pages::new(backend, expert_shape(&worker.checkpoint), map, held, staging_pages);
        worker.server.set(Some(Serving { group, pages: Arc::clone(&pages) }));
        let fabric = Mesh::connect(Members { group, rank, ranks: &ranks }, &worker.steps, MESH_TIMEOUT, &link.gone)?;
        let mut steps = Connection::connect(&worker.settings.coordinator, "the coordinator", CONNECT_TIMEOUT)?;
        Purpose::Steps { group, rank }.introduce(&mut steps)?;
        let (dissolver, closer) = (fabric.dissolver()?, steps.closer()?);
        let setup = MoverSetup {
            group,
            rank,
            ranks,
            pages: Arc::clone(&pages),
            load_page,
            bytes_per_second: move_bytes_per_second,
            reports: link.reports.clone(),
            threads: worker.threads.clone(),
        };
        let (mover, incoming) = Mover::start(setup)?;
        let generation = group.generation;
        let path = StepPath { fabric, steps };
        let session = link.closer.share()?;
        let ended = worker.engine.join(Membership::new(generation, table, path, Arc::clone(&pages), incoming), session);
        // From now on the group's pages know what is held; what is kept here would never become staging memory.
        worker.held.clear();
        self.part = Some(Part { generation, pages, mover, dissolver, steps: closer, ended });
        self.ready = true;
        worker.metrics.formed(true);
        tracing::info!(generation, epoch, seconds = started.elapsed().as_secs_f64(), "part of a group");
        // If the coordinator is gone, the loop that reads its orders says so.
        let _ = link.reports.send(FromRank::Ready { generation });
        Ok(())
    }

    /// Leaves the group; the experts that this rank held in it.
    pub fn end(self) -> Option<HeldPages<Cpu>> {
        let Part { pages, mover, dissolver, steps, ended, .. } = self.part?;
        drop(mover);
        dissolver.dissolve();
        steps.close();
        if let Ok(reason) = ended.recv() {
            tracing::info!(reason = &reason as &dyn std::error::Error, "the step path ended");
        }
        Some(pages.held())
    }
}

/// Sends reports, and a sign of life every second whatever else this process does.
fn spawn_writer(mut control: Connection, outbox: Receiver<FromRank>, metrics: WorkerMetrics) -> io::Result<()> {
    let write = move || {
        let mut alive = Instant::now();
        loop {
            let message = match outbox.recv_deadline(alive + ALIVE_INTERVAL) {
                Ok(report) => {
                    metrics.reported(&report);
                    report
                }
                Err(RecvTimeoutError::Timeout) => {
                    alive = Instant::now();
                    FromRank::Alive
                }
                Err(RecvTimeoutError::Disconnected) => return,
            };
            // The thread that reads reports the loss.
            if control.send(&message).is_err() {
                return;
            }
        }
    };
    std::thread::Builder::new().name("control-write".to_owned()).spawn(write)?;
    Ok(())
}

/// Reads orders ahead, so that the loss of the coordinator is noticed while an order is carried out.
fn spawn_reader(mut control: Connection, gone: &Arc<Cancel>) -> io::Result<Receiver<Result<ToRank, ConnectionError>>> {
    let (orders, received) = unbounded();
    let gone = Arc::clone(gone);
    let read = move || {
        loop {
            let order = control.receive();
            let ended = order.is_err();
            if ended {
                gone.cancel();
            }
            if orders.send(order).is_err() || ended {
                return;
            }
        }
    };
    std::thread::Builder::new().name("control-read".to_owned()).spawn(read)?;
    Ok(received)
}
