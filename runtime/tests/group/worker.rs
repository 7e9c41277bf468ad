//! A rank that runs in this process.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use kernels::{Backend, DeviceError};
use runtime::device::{Device, DeviceOptions};
use runtime::experts::load::BeforeRead;
use runtime::fabric::exchange::means::ExchangeChoice;
use runtime::fabric::neighbours::Neighbours;
use runtime::worker::{Stop, WorkerError, WorkerSettings, run, run_on};

use super::{BLOCK_TOKENS, BLOCKS, Setup, secret};

/// A rank that runs in this process.
pub struct Worker {
    stop: Arc<Stop>,
    thread: JoinHandle<Result<(), WorkerError>>,
}

impl Worker {
    pub fn start(rank: usize, coordinator: SocketAddr, setup: &Setup) -> Self {
        Self::start_with(setup.model, rank, coordinator, setup)
    }

    /// With a checkpoint of its own.
    pub fn start_with(model: &Path, rank: usize, coordinator: SocketAddr, setup: &Setup) -> Self {
        Self::of(WorkerSettings { model: model.to_owned(), ..settings(rank, coordinator, setup) })
    }

    /// With something that happens before it reads an expert.
    pub fn start_watched(rank: usize, coordinator: SocketAddr, setup: &Setup, before_read: BeforeRead) -> Self {
        Self::of(WorkerSettings { before_read, ..settings(rank, coordinator, setup) })
    }

    /// As its settings say.
    pub fn of(settings: WorkerSettings) -> Self {
        Self::spawn(move |stop| run(settings, stop))
    }

    /// As its settings say, but on this device.
    pub fn on<B: Backend>(
        settings: WorkerSettings,
        open: impl FnOnce(DeviceOptions) -> Result<B, DeviceError> + Send + 'static,
    ) -> Self {
        let open = Mutex::new(Some(open));
        let once = move |options| (open.lock().unwrap().take().expect("it is one rank"))(options);
        Self::spawn(move |stop| run_on(&settings, stop, once))
    }

    fn spawn(run: impl FnOnce(&Arc<Stop>) -> Result<(), WorkerError> + Send + 'static) -> Self {
        let stop = Arc::new(Stop::default());
        let stopped = Arc::clone(&stop);
        Self { stop, thread: std::thread::spawn(move || run(&stopped)) }
    }

    /// Ends it, and does not wait.
    pub fn end(&self) {
        self.stop.stop();
    }

    /// Waits until it ends by itself.
    pub fn join(self) -> Result<(), WorkerError> {
        self.thread.join().unwrap()
    }

    pub fn stop(self) -> Result<(), WorkerError> {
        self.stop.stop();
        self.thread.join().unwrap()
    }
}

/// How a rank of a group is set up.
pub fn settings(rank: usize, coordinator: SocketAddr, setup: &Setup) -> WorkerSettings {
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    WorkerSettings {
        model: setup.model.to_owned(),
        weights: None,
        rank: rank.into(),
        ranks_here: 1,
        coordinator: coordinator.to_string(),
        listen: any,
        move_listen: any,
        health_listen: any,
        advertise_address: "127.0.0.1".to_owned(),
        node: "here".to_owned(),
        device: Device::default(),
        exchange: ExchangeChoice::default(),
        neighbours: Neighbours::default(),
        threads: 1,
        is_eager: false,
        kv_blocks: Some((setup.sequences_per_rank * BLOCKS) as usize),
        block_tokens: BLOCK_TOKENS as usize,
        secret: secret(),
        faults: setup.faults,
        before_read: BeforeRead::default(),
        parent: None,
    }
}
