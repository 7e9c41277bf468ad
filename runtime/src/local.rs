//! A coordinator in this process and its ranks as child processes on loopback. A rank that dies is started again; the
//! ranks end with this process, however it ends.

use std::io;
use std::net::SocketAddr;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use kernels::{Backend, DeviceError};
use plan::moves::usual_staging_pages;
use plan::wire::process::variable;
use thiserror::Error;
use tokio::sync::mpsc;

use crate::coordinator::settings::{CoordinatorSettings, RankNeeds};
use crate::coordinator::start::{Coordinator, StartError};
use crate::device::{DeviceOptions, OnDevice};
use crate::fabric::secret::Secret;
use crate::memory::{CacheUse, Memory, Needs, RankPart, TooLarge, usual_blocks};
use crate::model::checkpoint::{Checkpoint, WeightSeed};
use crate::model::forward::CacheSize;
use crate::model::sizes::Sizes;
use crate::quoted::Quoted;
use crate::worker::DeviceArguments;

/// A rank that ends sooner than this after its start, and without a group having formed, has not served.
const LEAST_LIFE: Duration = Duration::from_secs(2);

/// Starts in a row that may end so soon.
const QUICK_ENDS: u32 = 3;

/// What is run.
#[derive(Clone, Debug)]
pub struct LocalSettings {
    /// The coordinator.
    pub coordinator: CoordinatorSettings,
    /// What each rank may use.
    pub device: DeviceArguments,
}

/// Why it ended other than by being told to.
#[derive(Debug, Error)]
pub enum LocalError {
    /// The coordinator.
    #[error(transparent)]
    Coordinator(#[from] StartError),
    /// Its ranks would take more memory than there is.
    #[error(transparent)]
    Memory(#[from] TooLarge),
    /// The device does not say what memory it has.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// A rank cannot be started.
    #[error("cannot start rank {rank}")]
    Spawn {
        /// The number of the rank, from 0.
        rank: usize,
        /// What the system says of it.
        source: io::Error,
    },
    /// A rank has failed for good.
    #[error("{reason}")]
    Failing {
        /// Which, and why.
        reason: String,
    },
    /// A rank ends whenever it is started.
    #[error("rank {rank} ended {QUICK_ENDS} times right after its start, last with {status}: {words}")]
    Fails {
        /// The number of the rank, from 0.
        rank: usize,
        /// How its process ended.
        status: ExitStatus,
        /// What it said of it.
        words: Quoted<192>,
    },
}

/// Serves until `stop` is done, a rank has failed for good or cannot be kept running.
///
/// # Errors
/// If a setting is wrong, an address is taken or a rank does not start.
pub async fn run(settings: LocalSettings, stop: impl Future<Output = ()>) -> Result<(), LocalError> {
    let LocalSettings { coordinator, device } = settings;
    let (model, weights) = (coordinator.model.clone(), coordinator.weights);
    let (ranks, secret) = (coordinator.ranks, coordinator.secret.clone());
    // One that cannot be opened is refused by the coordinator, with the reason.
    let sizes = Checkpoint::of(&model, weights).ok().map(|checkpoint| checkpoint.sizes());
    let kind = device.backend.unwrap_or_default();
    let kv_blocks = |rank| match &sizes {
        Some(sizes) => kind.with(Sharing { sizes, rank, device: &device, ranks }),
        None => Ok(device.kv_blocks),
    };
    let (experts, layers) =
        sizes.as_ref().map_or((0, 0), |sizes| (sizes.config.experts.count, sizes.config.sparse_layers()));
    // Of a map that is given nobody knows yet how many slots it has; there are no fewer.
    let slots = (experts + coordinator.redundancy.unwrap_or(0)) / ranks.max(1);
    let staging_pages = coordinator.staging_pages.unwrap_or_else(|| usual_staging_pages(slots * layers));
    let (step_tokens, threads) = (coordinator.limits.step_tokens, device.threads.into());
    let part = RankPart { ranks, slots, staging_pages, step_tokens, threads, has_nccl: false };
    kv_blocks(RankNeeds { part, kv_tokens: u64::MAX })?;
    let coordinator = Coordinator::start(&coordinator)?;
    let device = DeviceArguments { kv_blocks: kv_blocks(coordinator.rank())?, backend: Some(kind), ..device };
    let (failures, mut failed) = mpsc::channel(1);
    for rank in 0..ranks {
        let program = std::env::current_exe().map_err(|source| LocalError::Spawn { rank, source })?;
        let (model, device, secret) = (model.clone(), device.clone(), secret.clone());
        let worker = Worker { program, model, weights, rank, device, secret };
        let (control, failures) = (coordinator.control_address(), failures.clone());
        // The signal that ends a rank with its parent is sent when the thread that started it ends: this one does not.
        let formed = coordinator.driver().formations();
        let run = move || {
            let error = worker.keep_running(control, formed);
            // Another rank's failure is as good a reason to end.
            let _ = failures.blocking_send(error);
        };
        let spawned = coordinator.threads().spawn(&format!("rank-{rank}"), run);
        spawned.map_err(|source| LocalError::Spawn { rank, source })?;
    }
    let (mut failure, driver) = (None, coordinator.driver());
    let stop = async {
        tokio::select! {
            () = stop => {}
            error = failed.recv() => failure = error,
            reason = driver.failure() => failure = Some(LocalError::Failing { reason }),
        }
    };
    coordinator.serve(stop).await?;
    failure.map_or(Ok(()), Err)
}

/// Finds the blocks of the KV cache of ranks that start together.
struct Sharing<'a> {
    sizes: &'a Sizes,
    rank: RankNeeds,
    device: &'a DeviceArguments,
    ranks: usize,
}

impl OnDevice for Sharing<'_> {
    type Done = Result<Option<u32>, LocalError>;

    /// Those that are asked for, or what is there of this machine's memory, if that has room for all that so many ranks need and the
    /// device serves such a model at all. Of a device's own memory, which has to have room for one rank, each takes its share itself.
    fn on<B: Backend>(self, open: impl Fn(DeviceOptions) -> Result<B, DeviceError> + Sync) -> Self::Done {
        let device = open(DeviceOptions::default())?;
        let part = RankPart { threads: self.device.threads.into(), ..self.rank.part };
        part.check::<B>(self.sizes)?;
        if device.memory()?.is_some() {
            let (blocks, block_tokens) =
                (self.device.kv_blocks.unwrap_or(0) as usize, self.device.block_tokens as usize);
            let needs = Needs::of::<B>(self.sizes, part, CacheSize { blocks, block_tokens });
            Memory::of_device(&device)?.check(&needs.all(), 1)?;
            return Ok(self.device.kv_blocks);
        }
        Ok(Some(self.kv_blocks::<B>(Memory::of_this_process())?))
    }
}

impl Sharing<'_> {
    fn kv_blocks<B: Backend>(self, memory: Memory) -> Result<u32, TooLarge> {
        let Self { sizes, rank: RankNeeds { part, kv_tokens }, device, ranks } = self;
        let part = RankPart { threads: device.threads.into(), ..part };
        let block_tokens = device.block_tokens as usize;
        let check = |blocks: u32| {
            let cache = CacheSize { blocks: blocks as usize, block_tokens };
            memory.check(&Needs::of::<B>(sizes, part, cache).all(), ranks)
        };
        if let Some(blocks) = device.kv_blocks {
            check(blocks)?;
            return Ok(blocks);
        }
        check(0)?;
        let cache = CacheUse { block_tokens, most: kv_tokens };
        Ok(usual_blocks::<B>(sizes, part, memory.of_each(ranks, ranks), cache)? as u32)
    }
}

struct Worker {
    program: PathBuf,
    model: PathBuf,
    weights: Option<WeightSeed>,
    rank: usize,
    device: DeviceArguments,
    secret: Secret,
}

impl Worker {
    /// Starts the rank again whenever it ends; returns only if that is of no use.
    fn keep_running(&self, coordinator: SocketAddr, mut formed: impl FnMut() -> bool) -> LocalError {
        let rank = self.rank;
        let mut quick_ends = 0;
        loop {
            let started = Instant::now();
            let Output { status, stdout, .. } = match self.start(coordinator).and_then(Child::wait_with_output) {
                Ok(output) => output,
                Err(source) => return LocalError::Spawn { rank, source },
            };
            tracing::warn!(rank, %status, "a rank has ended; it is started again");
            // Without this rank there is no group. One that a request has ended has served, however soon it was.
            let has_served = formed() || started.elapsed() >= LEAST_LIFE;
            quick_ends = if has_served { 0 } else { quick_ends + 1 };
            if quick_ends == QUICK_ENDS {
                let words = String::from_utf8_lossy(&stdout);
                let words = if words.trim().is_empty() { "its log says why" } else { words.trim() };
                return LocalError::Fails { rank, status, words: words.into() };
            }
        }
    }

    /// Starts the rank and hands it the secret, which is nowhere but in the two processes. On its standard output it says why
    /// it ends, and nothing else.
    fn start(&self, coordinator: SocketAddr) -> io::Result<Child> {
        let mut child = self.command(coordinator).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        if let Some(input) = child.stdin.take() {
            // A rank that has ended already is heard of when it is waited for.
            let _ = self.secret.write(input);
        }
        Ok(child)
    }

    fn command(&self, coordinator: SocketAddr) -> Command {
        let DeviceArguments { backend, exchange, threads, enforce_eager, kv_blocks, block_tokens } = self.device;
        let mut command = Command::new(&self.program);
        // The last word is this process's, which says in it why a rank cannot be kept running.
        command.env_remove(variable::TERMINATION_FILE);
        // A terminal interrupts every process of a group. Ranks end after the requests that run, with the coordinator.
        command.process_group(0);
        command.arg("worker").arg("--parent").arg(std::process::id().to_string()).arg("--model").arg(&self.model);
        for (option, value) in [
            ("--rank", self.rank.to_string()),
            ("--coordinator", coordinator.to_string()),
            ("--listen", "127.0.0.1:0".to_owned()),
            ("--move-listen", "127.0.0.1:0".to_owned()),
            ("--health-listen", "127.0.0.1:0".to_owned()),
            ("--advertise-address", "127.0.0.1".to_owned()),
            ("--secret-file", "/dev/stdin".to_owned()),
            ("--exchange", exchange.to_string()),
            ("--threads", threads.to_string()),
            ("--block-tokens", block_tokens.to_string()),
        ] {
            command.arg(option).arg(value);
        }
        for (option, value) in [
            ("--kv-blocks", kv_blocks.map(|blocks| blocks.to_string())),
            ("--backend", backend.map(|device| device.to_string())),
            ("--weights", self.weights.map(|seed| seed.to_string())),
        ] {
            command.args(value.into_iter().flat_map(|value| [option.to_owned(), value]));
        }
        command.args(enforce_eager.then_some("--enforce-eager"));
        command
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::fabric::exchange::means::ExchangeChoice;

    #[test]
    fn a_rank_that_cannot_be_kept_running_has_the_last_word() {
        let (exchange, threads, kv_blocks, block_tokens) = (ExchangeChoice::Auto, 1, Some(4), 16);
        let device =
            DeviceArguments { backend: None, exchange, threads, enforce_eager: false, kv_blocks, block_tokens };
        let said = |program: &str| {
            let (program, secret) = (PathBuf::from(program), Secret::draw().unwrap());
            let (model, device) = (PathBuf::from("tiny"), device.clone());
            let worker = Worker { program, model, weights: None, rank: 3, device, secret };
            worker.keep_running(SocketAddr::from((Ipv4Addr::LOCALHOST, 1)), || false).to_string()
        };
        let parent = std::process::id();
        let words = said("echo");
        let start = "rank 3 ended 3 times right after its start, last with exit status: ";
        assert!(words.starts_with(&format!("{start}0: worker --parent {parent} --model tiny --rank 3 ")), "{words}");
        assert_eq!(said("false"), format!("{start}1: its log says why"));
    }
}
