//! The process of one rank or of several, each on a thread of its own with its own device, engine and place in the group. They
//! share the files of the checkpoint, one port of health and metrics, and their end: a rank that cannot go on ends its process, and
//! whoever supervises that starts all of them again.

use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::Builder;

use crossbeam_channel::bounded;
use kernels::{Backend, DeviceError};
use plan::ids::RankId;
use plan::words::with_causes;
use tokio::signal::unix::{SignalKind, signal};

use super::failure::Failure;
#[cfg(feature = "cuda")]
use super::gpu;
use super::health::HealthServer;
use super::metrics::{ProcessMetrics, WorkerMetrics};
use super::{Stop, Worker, WorkerError, WorkerSettings, listen};
#[cfg(feature = "cuda")]
use crate::device::Device;
use crate::device::{DeviceOptions, OnDevice};
use crate::fabric::secret::random;
use crate::model::checkpoint::{Checkpoint, CheckpointError, WeightSeed};
use crate::protocol::ProcessId;
use crate::threads::{ThreadEnded, VitalThreads, survive};

/// Serves as the ranks of its settings until the process is asked to end, by SIGTERM or SIGINT.
///
/// # Errors
/// As [`run`].
pub fn run_until_signal(settings: WorkerSettings) -> Result<(), WorkerError> {
    let stop = Arc::new(Stop::default());
    let stopping = Arc::clone(&stop);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    let (mut terminate, mut interrupt) = {
        let _context = runtime.enter();
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?)
    };
    stop.threads(None).spawn("signals", move || {
        runtime.block_on(async {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        });
        stopping.stop();
    })?;
    if let Some(parent) = settings.parent {
        end_with(parent, &stop)?;
    }
    run(settings, &stop)
}

/// Asks the system for a SIGTERM when the parent process ends.
fn end_with(parent: u32, stop: &Stop) -> io::Result<()> {
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::TERM))?;
    // It may have ended before that; then this process has been given to another.
    if rustix::process::getppid().is_none_or(|found| found.as_raw_pid() as u32 != parent) {
        stop.stop();
    }
    Ok(())
}

/// Serves as the ranks of its settings, on their device, until `stop` says otherwise. One that finds that it never can says so until
/// then.
///
/// # Errors
/// If one of them cannot serve, or the coordinator refuses it, or a thread that it needs has ended.
pub fn run(settings: WorkerSettings, stop: &Arc<Stop>) -> Result<(), WorkerError> {
    settings.device.with(Serves { settings, stop })
}

/// Serves as ranks on a device.
struct Serves<'a> {
    settings: WorkerSettings,
    stop: &'a Arc<Stop>,
}

impl OnDevice for Serves<'_> {
    type Done = Result<(), WorkerError>;

    fn on<B: Backend>(self, open: impl Fn(DeviceOptions) -> Result<B, DeviceError> + Sync) -> Self::Done {
        run_on(&self.settings, self.stop, open)
    }
}

/// As [`run`], each rank on the device that `open` opens for it.
///
/// # Errors
/// As [`run`].
pub fn run_on<B: Backend>(
    settings: &WorkerSettings,
    stop: &Arc<Stop>,
    open: impl Fn(DeviceOptions) -> Result<B, DeviceError> + Sync,
) -> Result<(), WorkerError> {
    let process = Process::start(settings, stop)?;
    let (tell, ends) = bounded(settings.ranks_here);
    std::thread::scope(|scope| {
        for place in 0..settings.ranks_here {
            let (rank, tell, process, open) = (settings.of(place), tell.clone(), &process, &open);
            let name = thread_of(rank.rank);
            // Whoever listens waits for all of them.
            let live = move || drop(tell.send(process.live(place, rank, open)));
            if let Err(error) = Builder::new().name(name).spawn_scoped(scope, live) {
                stop.stop();
                return Err(error);
            }
        }
        Ok(())
    })?;
    drop(tell);
    // The first is the cause, and the end of a thread that of all.
    let first = ends.iter().find_map(Result::err);
    stop.ended().map(|(rank, thread)| process.of(*rank, thread.clone().into())).or(first).map_or(Ok(()), Err)
}

/// The name of a rank's own thread.
fn thread_of(rank: RankId) -> String {
    format!("rank-{}", rank.0)
}

/// See the module's documentation.
struct Process<'a> {
    stop: &'a Arc<Stop>,
    ranks: usize,
    id: ProcessId,
    checkpoints: Checkpoints,
    metrics: ProcessMetrics,
    health: HealthServer,
}

/// What a rank gets of its process.
pub(super) struct InProcess<'a> {
    pub process: ProcessId,
    pub checkpoints: &'a Checkpoints,
    pub metrics: WorkerMetrics,
    pub threads: VitalThreads,
}

impl<'a> Process<'a> {
    fn start(settings: &WorkerSettings, stop: &'a Arc<Stop>) -> Result<Self, WorkerError> {
        let id = ProcessId(u128::from_le_bytes(random().map_err(io::Error::other)?));
        let metrics = ProcessMetrics::new((0..settings.ranks_here).map(|place| settings.of(place).rank));
        let health = HealthServer::start(listen(settings.health_listen)?, &metrics, &stop.threads(None))?;
        Ok(Self { stop, ranks: settings.ranks_here, id, checkpoints: Checkpoints::default(), metrics, health })
    }

    /// One rank from its start to its end, which is that of the process.
    fn live<B: Backend>(
        &self,
        place: usize,
        settings: WorkerSettings,
        open: impl FnOnce(DeviceOptions) -> Result<B, DeviceError>,
    ) -> Result<(), WorkerError> {
        let rank = settings.rank;
        let panicked = |reason| Err(ThreadEnded { name: thread_of(rank), reason }.into());
        let ended = survive(|| self.serve(place, settings, open)).unwrap_or_else(panicked);
        self.stop.stop();
        ended.map_err(|error| self.of(Some(rank), error))
    }

    fn serve<B: Backend>(
        &self,
        place: usize,
        settings: WorkerSettings,
        open: impl FnOnce(DeviceOptions) -> Result<B, DeviceError>,
    ) -> Result<(), WorkerError> {
        let (coordinator, rank, secret) = (settings.coordinator.clone(), settings.rank, settings.secret.clone());
        let fingerprint_seed = settings.secret.fingerprint_seed();
        let (number, is_eager) = (rank.index(), settings.is_eager);
        let options = DeviceOptions { threads: settings.threads, fingerprint_seed, rank: number, is_eager };
        let (metrics, threads) = (self.metrics.of(place), self.stop.threads(Some(rank)));
        let of_process = InProcess { process: self.id, checkpoints: &self.checkpoints, metrics, threads };
        let start = |device: B| {
            #[cfg(feature = "cuda")]
            self.watch(&device, &settings, place)?;
            Worker::start(settings, Arc::new(device), of_process)
        };
        let ended =
            open(options).map_err(WorkerError::Device).and_then(start).and_then(|worker| worker.serve(self.stop));
        if let Err(error) = &ended
            && error.is_permanent()
        {
            let reason = with_causes(error);
            tracing::error!(%rank, reason, "this rank cannot serve and does not try again");
            self.health.failed(&if self.ranks == 1 { reason.clone() } else { format!("{rank}: {reason}") });
            Failure { coordinator, secret, rank, process: self.id, reason }.tell_until(self.stop);
        }
        ended
    }

    /// Shows what the rank's GPU does, if it computes on one.
    #[cfg(feature = "cuda")]
    fn watch<B: Backend>(&self, device: &B, settings: &WorkerSettings, place: usize) -> io::Result<()> {
        match settings.device {
            Device::Cpu => Ok(()),
            Device::Cuda => gpu::watch(device.identity().unit, self.metrics.of_gpu(place), self.stop),
        }
    }

    /// An error of a rank, which says whose it is where there are several.
    fn of(&self, rank: Option<RankId>, error: WorkerError) -> WorkerError {
        match rank {
            Some(rank) if self.ranks > 1 => WorkerError::OfSeveral { rank, source: Box::new(error) },
            _ => error,
        }
    }
}

/// The checkpoint of a process's ranks: its files are opened and checked by the first that needs them, and each rank reads of them
/// by itself.
#[derive(Debug, Default)]
pub(super) struct Checkpoints(Mutex<Option<Checkpoint>>);

impl Checkpoints {
    /// The checkpoint of a folder, or what is drawn from a seed for it; both are the same for all.
    ///
    /// # Errors
    /// If it cannot be served.
    pub fn open(&self, folder: &Path, seed: Option<WeightSeed>) -> Result<Checkpoint, CheckpointError> {
        let mut opened = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(checkpoint) = &*opened {
            return Ok(checkpoint.for_another_reader());
        }
        let checkpoint = Checkpoint::of(folder, seed)?;
        Ok(opened.insert(checkpoint).for_another_reader())
    }
}
