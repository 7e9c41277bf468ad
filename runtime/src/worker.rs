//! A rank: keeps a place in the coordinator's group for ever, whatever goes away meanwhile, unless its checkpoint cannot be
//! served. What it has loaded survives every loss but its own. Its process has one rank or several.

mod arguments;
mod control;
mod error;
mod failure;
#[cfg(feature = "cuda")]
mod gpu;
mod health;
mod loading;
mod metrics;
mod process;
mod session;
mod stop;
mod weights;

use std::any::Any;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use kernels::{Backend, DeviceIdentity};
use plan::ids::RankId;
use plan::wire::process::port;

pub(crate) use self::arguments::block_tokens;
pub use self::arguments::{ArgumentsError, DeviceArguments, WorkerArguments};
pub use self::error::WorkerError;
use self::metrics::WorkerMetrics;
use self::process::InProcess;
pub use self::process::{run, run_on, run_until_signal};
use self::session::{Session, SessionError};
pub use self::stop::Stop;
use self::weights::Weights;
use crate::device::Device;
use crate::engine::Engine;
use crate::experts::load::BeforeRead;
use crate::experts::mover::{Faults, PageServer};
use crate::fabric::exchange::means::{ExchangeChoice, Means, View};
use crate::fabric::mesh::StepPort;
use crate::fabric::neighbours::{Key, Neighbours};
use crate::fabric::secret::Secret;
use crate::memory::{self, CacheUse, Memory, Needs, RankPart, of_cache, of_shared};
use crate::model::checkpoint::{Checkpoint, WeightSeed};
use crate::model::forward::{Angles, CacheSize, Model, expert_shape};
use crate::protocol::{FromRank, ProcessId, RankDevice};
use crate::threads::VitalThreads;

/// The first wait before a lost coordinator is tried again.
const FIRST_BACK_OFF: Duration = Duration::from_millis(100);
/// The longest: a coordinator that comes back is found within it.
const LONGEST_BACK_OFF: Duration = Duration::from_secs(3);

/// How the ranks of a process are set up, or one of them.
#[derive(Clone, Debug)]
pub struct WorkerSettings {
    /// Folder of the checkpoint.
    pub model: PathBuf,
    /// What its weights are drawn from instead of being read.
    pub weights: Option<WeightSeed>,
    /// Its number, or that of the first.
    pub rank: RankId,
    /// Ranks of the process, one or more, numbered from there on. Each next one listens on the next ports, [`port::NEXT_RANK`]
    /// further.
    pub ranks_here: usize,
    /// `host:port` of the coordinator's control connection.
    pub coordinator: String,
    /// Where other ranks reach its step path.
    pub listen: SocketAddr,
    /// Where other ranks reach its move path.
    pub move_listen: SocketAddr,
    /// Where health and metrics of the process are served.
    pub health_listen: SocketAddr,
    /// The host by which other ranks reach it.
    pub advertise_address: String,
    /// Name of the node that it is on.
    pub node: String,
    /// What it computes on.
    pub device: Device,
    /// How it exchanges rows with other ranks.
    pub exchange: ExchangeChoice,
    /// The ranks that are threads of its process: those whose settings have the same.
    pub neighbours: Neighbours,
    /// Compute threads, where its device has threads.
    pub threads: usize,
    /// Whether its device is asked for every operation of every step, see [`DeviceOptions::is_eager`](crate::device::DeviceOptions::is_eager).
    pub is_eager: bool,
    /// Blocks of its KV cache; its share of what memory there is if there is none.
    pub kv_blocks: Option<usize>,
    /// Tokens of each; a multiple of [`kernels::backend::CACHE_TILE`].
    pub block_tokens: usize,
    /// What it proves by that it belongs to the deployment, and has others prove.
    pub secret: Secret,
    /// What goes wrong on purpose.
    pub faults: Faults,
    /// What happens before it reads an expert.
    pub before_read: BeforeRead,
    /// The process that started it, if it shall end with that.
    pub parent: Option<u32>,
}

impl WorkerSettings {
    /// Those of the rank at a place of its process.
    fn of(&self, place: usize) -> Self {
        let further = |address| next_port(address, place).unwrap_or(address);
        Self {
            rank: RankId(self.rank.0 + place as u32),
            listen: further(self.listen),
            move_listen: further(self.move_listen),
            ..self.clone()
        }
    }
}

/// The address of the rank at a place of its process, if there is such a port. Port 0 is any, for each.
fn next_port(address: SocketAddr, place: usize) -> Option<SocketAddr> {
    let further = u16::try_from(place).ok()?.checked_mul(port::NEXT_RANK)?;
    let next = if address.port() == 0 { 0 } else { address.port().checked_add(further)? };
    Some(SocketAddr::new(address.ip(), next))
}

/// What a rank has whether or not it is part of a group.
struct Worker<B: Backend> {
    settings: WorkerSettings,
    device: Arc<B>,
    /// What it says of that.
    said: RankDevice,
    checkpoint: Arc<Checkpoint>,
    /// Its KV cache, once it is known how large it is.
    cache: Option<CacheSize>,
    /// Why its device cannot use the memory of others, once that was told.
    unreached: Option<String>,
    /// The angles of its positions, once they were needed.
    angles: Option<Angles<B>>,
    weights: Weights<B>,
    steps: StepPort,
    server: PageServer<B>,
    threads: VitalThreads,
    metrics: WorkerMetrics,
    /// Tells the coordinator that this process is the one that was there before. Ranks of one process say the same.
    process: ProcessId,
}

fn listen(address: SocketAddr) -> Result<TcpListener, WorkerError> {
    plan::wire::process::listen(address).map_err(|source| WorkerError::Listen { address, source })
}

/// Where a host of this name or address is reached that listens there.
fn reached(host: &str, address: SocketAddr) -> String {
    if host.contains(':') { format!("[{host}]:{}", address.port()) } else { format!("{host}:{}", address.port()) }
}

impl<B: Backend> Worker<B> {
    fn start(
        settings: WorkerSettings,
        device: Arc<B>,
        InProcess { process, checkpoints, metrics, threads }: InProcess<'_>,
    ) -> Result<Self, WorkerError> {
        let checkpoint = Arc::new(checkpoints.open(&settings.model, settings.weights)?);
        let (sizes, block_tokens) = (checkpoint.sizes(), settings.block_tokens);
        let cache = settings.kv_blocks.map(|blocks| CacheSize { blocks, block_tokens });
        let memory = Memory::of_device(&*device)?;
        let DeviceIdentity { kind, name, unit } = device.identity();
        tracing::info!(name, memory = memory.most(), "this rank computes on {kind}");
        let (page_layout, page_bytes) = (B::PAGE_LAYOUT.to_owned(), B::page_bytes(expert_shape(&checkpoint)) as u64);
        let said = RankDevice { kind, name, unit, page_layout, page_bytes, memory: memory.most().unwrap_or(0) };
        // Of its part in a group it knows nothing yet.
        RankPart::default().check::<B>(&sizes)?;
        let needs = Needs::of::<B>(&sizes, RankPart::default(), cache.unwrap_or(CacheSize { blocks: 0, block_tokens }));
        memory.check(&needs.all(), 1)?;
        let steps = StepPort::start(listen(settings.listen)?, &threads)?;
        let server = PageServer::start(listen(settings.move_listen)?, &threads)?;
        let (loading, observer, engine_threads) = (Arc::clone(&checkpoint), metrics.clone(), threads.clone());
        let engine_device = Arc::clone(&device);
        let start = Box::new(move || {
            let make = move || Ok::<_, WorkerError>(Model::load(engine_device, &loading)?);
            Engine::start(Box::new(make), observer, &engine_threads)
        });
        let shared: Arc<dyn Any + Send + Sync> = Arc::clone(&device) as _;
        settings.neighbours.share(Key::Device(reached(&settings.advertise_address, steps.address())), &shared);
        let weights = Weights::begin(Arc::clone(&checkpoint), start, metrics.clone(), settings.before_read.clone())?;
        Ok(Self {
            settings,
            device,
            said,
            checkpoint,
            cache,
            unreached: None,
            angles: None,
            weights,
            steps,
            server,
            threads,
            metrics,
            process,
        })
    }

    /// Keeps a place in the coordinator's group until it is stopped.
    fn serve(mut self, stop: &Stop) -> Result<(), WorkerError> {
        let mut back_off = FIRST_BACK_OFF;
        while !stop.cancel.is_cancelled() {
            if let Ok(started) = self.weights.told().try_recv() {
                self.weights.heard(Ok(started))?;
            }
            let mut session = Session::default();
            let Err(error) = session.run(&mut self, stop);
            if session.was_ready() {
                back_off = FIRST_BACK_OFF;
            }
            self.leave(session, stop)?;
            match error {
                SessionError::Refused { reason } => return Err(WorkerError::Refused { reason }),
                SessionError::Memory(error) => return Err(WorkerError::Memory(error)),
                SessionError::Start(error) => return Err(error),
                SessionError::Exchange(refusal) => return Err(WorkerError::Exchange(refusal)),
                SessionError::Load(error) if !error.is_worth_a_retry() => return Err(WorkerError::Experts(error)),
                SessionError::Device(error) if !error.is_worth_a_retry() => return Err(WorkerError::Device(error)),
                error if stop.cancel.is_cancelled() => tracing::info!(%error, "stopped"),
                error => tracing::warn!(error = &error as &dyn std::error::Error, "not part of a group"),
            }
            stop.cancel.wait(back_off);
            back_off = (back_off * 2).min(LONGEST_BACK_OFF);
        }
        Ok(())
    }

    /// Checks that its device can serve its part in a group, that there is memory for that, and for its KV cache, which is sized once: for
    /// so many tokens at most. Its device has room for as many such ranks as share it, itself among them.
    fn room_for(&mut self, part: RankPart, kv_tokens: u64, neighbours: usize) -> Result<CacheSize, SessionError> {
        let (sizes, block_tokens) = (self.checkpoint.sizes(), self.settings.block_tokens);
        part.check::<B>(&sizes)?;
        let (found, shared) = (Memory::of_device(&*self.device)?, of_shared::<B>(&sizes));
        let memory = found.with_taken(self.weights.taken(shared));
        // All ranks of a group need as much. What is a container's alone is its process's.
        let sharing = if memory.is_shared() { neighbours } else { self.settings.ranks_here };
        let at_most = found.with_taken(self.weights.taken_at_most(shared));
        let check = |cache| at_most.check(&Needs::of::<B>(&sizes, part, cache).all(), sharing);
        if let Some(cache) = self.cache {
            check(cache)?;
            return Ok(cache);
        }
        check(CacheSize { blocks: 0, block_tokens })?;
        let room = memory.of_each(sharing, 1);
        let blocks = memory::usual_blocks::<B>(&sizes, part, room, CacheUse { block_tokens, most: kv_tokens })?;
        let cache = CacheSize { blocks, block_tokens };
        let gib = |bytes: u64| bytes as f64 / f64::from(1 << 30);
        let (bytes, tokens) = (gib(of_cache::<B>(&sizes, cache)), blocks * block_tokens);
        tracing::info!(
            "the KV cache holds {tokens} tokens in {bytes:.2} GiB, of the {:.2} GiB that this rank has",
            gib(room)
        );
        self.cache = Some(cache);
        Ok(cache)
    }

    /// Tells once that devices do not reach each other, which all that may be asked to find another way for does not fail for.
    fn tell_unreached(&mut self, view: &View, means: &[Means]) {
        let told = self.settings.exchange == ExchangeChoice::Auto && view.unreached != self.unreached;
        self.unreached.clone_from(&view.unreached);
        if let Some(reason) = view.unreached.as_ref().filter(|_| told) {
            let left = means.iter().map(ToString::to_string).collect::<Vec<_>>().join(" or ");
            let no_nccl = view.no_nccl.as_deref();
            tracing::warn!(no_nccl, "{reason}: rows do not go straight from GPU to GPU, but by {left}");
        }
    }

    /// What this rank says of itself.
    fn registration(&self) -> FromRank {
        let reach = |address| reached(&self.settings.advertise_address, address);
        FromRank::Register {
            process: self.process,
            rank: self.settings.rank,
            model: self.checkpoint.identity(""),
            step_address: reach(self.steps.address()),
            move_address: reach(self.server.address()),
            block_tokens: self.settings.block_tokens as u32,
            node: self.settings.node.clone(),
            device: self.said.clone().into(),
        }
    }

    /// Ends what a session has begun, and keeps the experts that it held.
    fn leave(&mut self, session: Session<B>, stop: &Stop) -> Result<(), WorkerError> {
        self.metrics.formed(false);
        self.server.set(None);
        if let Some(held) = session.end(stop, &self.metrics)? {
            self.weights.held = held;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
