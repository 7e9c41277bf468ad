//! A group of ranks in this process, on real sockets, with the smallest driver that can run it.

#![allow(dead_code, reason = "each test and benchmark uses its own part of it")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "what goes wrong ends the test")]

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};
use plan::balance::Policy;
use plan::coverage::Coverage;
use plan::ids::RankId;
use plan::map::{ExpertMap, MapShape};
use plan::moves::random_transaction;
use plan::policy::Terms;
use plan::topology::Topology;
use plan::wire;
use runtime::coordinator::fleet::{Fleet, FleetEvent, FleetSettings, Group};
use runtime::coordinator::ranks::{RankGroup as _, Ranks as _};
use runtime::device::Device;
use runtime::experts::load::BeforeRead;
use runtime::experts::mover::Faults;
use runtime::experts::planner::{Planned, Planner, Wanted};
use runtime::experts::rebalance::{Effect, Event, Rebalancer, Report, Settings};
use runtime::fabric::secret::Secret;
use runtime::model::checkpoint::Checkpoint;
use runtime::protocol::{Batch, Commit, Sampling, SequenceId, SequenceWork, StepDone, Tokens};
use runtime::threads::VitalThreads;
use runtime::worker::{Stop, WorkerError, WorkerSettings};

pub const PATIENCE: Duration = Duration::from_mins(1);
pub const BLOCK_TOKENS: u32 = 16;
/// Blocks of each sequence: 256 tokens.
pub const BLOCKS: u32 = 16;

pub fn checkpoint() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../examples/models/tiny-moe")
}

fn tiny_model() -> &'static Path {
    static FOLDER: LazyLock<PathBuf> = LazyLock::new(checkpoint);
    &FOLDER
}

/// What the members of this process' groups share.
pub fn secret() -> Secret {
    static SECRET: LazyLock<Secret> = LazyLock::new(|| Secret::draw().unwrap());
    SECRET.clone()
}

/// Maps that are asked for, each a random transaction away from the one in force.
#[derive(Clone, Copy)]
pub struct Moves {
    /// Steps from one to the next.
    pub every: u64,
    /// What they are drawn from.
    pub seed: u64,
    /// Steps wait for what moves, so that a test of few steps has many moves. Nothing else ever does.
    pub patient: bool,
}

/// How a group is made.
#[derive(Clone, Copy)]
pub struct Setup {
    /// The folder of the checkpoint.
    pub model: &'static Path,
    pub ranks: usize,
    pub redundancy: usize,
    pub settings: Settings,
    pub faults: Faults,
    pub move_bytes_per_second: u64,
    pub sequences_per_rank: u32,
    /// Experts move all the time.
    pub moves: Option<Moves>,
    pub policy: Policy,
}

impl Default for Setup {
    fn default() -> Self {
        let settings = Settings {
            dynamic: false,
            window_steps: 400,
            wait_steps: 30,
            staging_pages: 4,
            deadline: Duration::from_secs(10),
            max_failures: 3,
            back_off_steps: 8,
        };
        Self {
            model: tiny_model(),
            ranks: 4,
            redundancy: 4,
            settings,
            faults: Faults::default(),
            move_bytes_per_second: 0,
            sequences_per_rank: 64,
            moves: None,
            policy: Policy::default(),
        }
    }
}

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
        Self::start_watched(model, rank, coordinator, setup, BeforeRead::default())
    }

    /// And with something that happens before it reads an expert.
    pub fn start_watched(
        model: &Path,
        rank: usize,
        coordinator: SocketAddr,
        setup: &Setup,
        before_read: BeforeRead,
    ) -> Self {
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let settings = WorkerSettings {
            model: model.to_owned(),
            rank: rank.into(),
            coordinator: coordinator.to_string(),
            listen: any,
            move_listen: any,
            health_listen: any,
            advertise_address: "127.0.0.1".to_owned(),
            node: "here".to_owned(),
            device: Device::default(),
            threads: 1,
            kv_blocks: Some((setup.sequences_per_rank * BLOCKS) as usize),
            block_tokens: BLOCK_TOKENS as usize,
            secret: secret(),
            faults: setup.faults,
            before_read,
            parent: None,
        };
        let stop = Arc::new(Stop::default());
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || runtime::worker::run(settings, &stopped));
        Self { stop, thread }
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

/// Fleet, rebalancer, planner and workers.
pub struct Deployment {
    pub setup: Setup,
    pub fleet: Fleet,
    events: Receiver<FleetEvent>,
    pub group: Option<Group>,
    pub rebalancer: Rebalancer,
    planner: (Sender<Wanted>, Receiver<Planned>),
    topology: Arc<Topology>,
    pub workers: Vec<Option<Worker>>,
    pub steps: u64,
    started: Instant,
    pub reports: Vec<Report>,
    /// Why ranks were refused.
    pub refusals: Vec<String>,
    /// Slots changed by each step that committed anything.
    pub committed: BTreeMap<u64, Vec<Commit>>,
    /// Groups that were lost.
    pub losses: usize,
}

impl Deployment {
    pub fn start(setup: Setup) -> Self {
        let model = Checkpoint::open(setup.model).unwrap().identity("tiny-moe");
        let shape = MapShape::with_redundancy(model.layers, model.experts, setup.ranks, setup.redundancy).unwrap();
        Self::start_with(setup, ExpertMap::contiguous(shape).unwrap())
    }

    pub fn start_with(setup: Setup, map: ExpertMap) -> Self {
        let mut deployment = Self::begin_with(setup, map, |_| BeforeRead::default());
        deployment.wait_for_group();
        deployment
    }

    /// Does not wait for the first group; something happens before each rank reads an expert.
    pub fn begin(setup: Setup, before_read: impl Fn(usize) -> BeforeRead) -> Self {
        let model = Checkpoint::open(setup.model).unwrap().identity("tiny-moe");
        let shape = MapShape::with_redundancy(model.layers, model.experts, setup.ranks, setup.redundancy).unwrap();
        Self::begin_with(setup, ExpertMap::contiguous(shape).unwrap(), before_read)
    }

    fn begin_with(setup: Setup, map: ExpertMap, before_read: impl Fn(usize) -> BeforeRead) -> Self {
        let model = Checkpoint::open(setup.model).unwrap().identity("tiny-moe");
        let (fleet, events) = start_fleet(&setup, "127.0.0.1:0");
        let planner = Planner {
            policy: setup.policy,
            staging_pages: setup.settings.staging_pages,
            min_coverage: Coverage::default(),
            terms: Terms {
                minimum_gain: 0.01,
                bytes_per_second: (setup.move_bytes_per_second > 0).then_some(setup.move_bytes_per_second as f64),
                ..Terms::usual(50_000, 0.0)
            },
        };
        let topology = Arc::new(Topology::single_node(setup.ranks, map.shape().slots_per_rank));
        let start = |rank| Worker::start_watched(setup.model, rank, fleet.address(), &setup, before_read(rank));
        let workers = (0..setup.ranks).map(|rank| Some(start(rank))).collect();
        Self {
            rebalancer: Rebalancer::new(setup.settings, model, map, 0).unwrap(),
            planner: planner.start(&VitalThreads::new(drop)).unwrap(),
            topology,
            setup,
            fleet,
            events,
            group: None,
            workers,
            steps: 0,
            started: Instant::now(),
            reports: Vec::new(),
            refusals: Vec::new(),
            committed: BTreeMap::new(),
            losses: 0,
        }
    }

    /// Takes note of what happens until something holds.
    pub fn until(&mut self, what: &str, holds: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !holds(self) {
            assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
            if let Ok(event) = self.events.recv_timeout(Duration::from_millis(10)) {
                self.on_fleet(event);
            }
        }
    }

    pub fn wait_for_group(&mut self) {
        self.until("a group", |deployment| deployment.group.is_some());
    }

    /// Waits for as many reports that a transaction is staged, whoever ordered it.
    pub fn wait_for_staged(&mut self, count: usize) {
        for _ in 0..count {
            let event = self.events.recv_timeout(PATIENCE).unwrap();
            assert!(matches!(&event, FleetEvent::Moved { report, .. } if report.staged.is_ok()), "{event:?}");
        }
    }

    /// Takes note of everything that has happened.
    pub fn pump(&mut self) {
        while let Ok(event) = self.events.try_recv() {
            self.on_fleet(event);
        }
        while let Ok((request, outcome)) = self.planner.1.try_recv() {
            self.on(Event::Planned { request, outcome });
        }
    }

    fn on_fleet(&mut self, event: FleetEvent) {
        match event {
            FleetEvent::Complete => {
                // A rank that was lost meanwhile is announced next.
                let _ = self.fleet.form(&self.rebalancer.map_document(), self.rebalancer.epoch());
            }
            FleetEvent::Loading(_) => {}
            FleetEvent::Formed(group) => {
                let generation = group.generation();
                self.group = Some(group);
                self.on(Event::GroupFormed { generation });
            }
            FleetEvent::Lost { .. } => {
                self.losses += 1;
                self.group = None;
                self.on(Event::GroupLost);
            }
            FleetEvent::Failing(failing) => panic!("a rank has failed: {:?}", failing.take()),
            FleetEvent::Refused(refused) => self.refusals.extend(refused.take()),
            FleetEvent::Moved { rank, report } => self.on(Event::Moved { rank, report }),
        }
    }

    /// Balance ratios of the windows that have closed.
    pub fn ratios(&self) -> Vec<f64> {
        let closed = self.reports.iter().filter_map(|report| match report {
            Report::WindowClosed(window) => Some(window.ratio),
            _ => None,
        });
        closed.collect()
    }

    pub fn on(&mut self, event: Event<'_>) {
        let effects = self.rebalancer.on(event);
        self.carry_out(effects);
    }

    /// Asks for a map as a user does.
    pub fn apply_map(&mut self, map: ExpertMap) {
        let effects = self.rebalancer.apply_map(map).unwrap();
        self.carry_out(effects);
    }

    fn carry_out(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Plan(request) => self.planner.0.send((request, Arc::clone(&self.topology))).unwrap(),
                Effect::Order { rank, order } => self.fleet.order(rank, order),
                Effect::Record(_) => {}
                Effect::Report(report) => self.reports.push(report),
            }
        }
    }

    /// Runs a step; `None` if the group is lost.
    pub fn step(&mut self, batches: Vec<Batch>) -> Option<Vec<StepDone>> {
        self.pump();
        self.steps += 1;
        if let Some(moves) = self.setup.moves {
            self.keep_moving(moves);
        }
        let mut commits = self.rebalancer.commits_for(self.steps);
        let patient = self.setup.moves.is_some_and(|moves| moves.patient);
        while patient && commits.is_empty() && self.rebalancer.phase() == wire::Phase::Moving {
            let Ok(event) = self.events.recv_timeout(Duration::from_millis(500)) else { break };
            self.on_fleet(event);
            commits = self.rebalancer.commits_for(self.steps);
        }
        let Ok(answers) = self.group.as_mut()?.run_step(self.steps, batches, &commits) else {
            // The fleet tells the rest.
            self.group = None;
            return None;
        };
        let now = self.started.elapsed();
        self.on(Event::StepDone { number: self.steps, now, answers: &answers });
        if !commits.is_empty() {
            self.committed.insert(self.steps, commits);
        }
        Some(answers)
    }

    /// Asks for the next map when it is time.
    fn keep_moving(&mut self, Moves { every, seed, .. }: Moves) {
        if self.steps.is_multiple_of(every) && self.rebalancer.pending_transactions() == 0 {
            let map = self.rebalancer.map();
            let seed = seed.wrapping_add(self.steps);
            let layer = (seed % map.shape().layers as u64) as usize;
            if let Some(work) = random_transaction(map, layer.into(), seed) {
                let wanted = map.apply(&work).unwrap();
                self.apply_map(wanted);
                let (request, outcome) = self.planner.1.recv_timeout(PATIENCE).unwrap();
                self.on(Event::Planned { request, outcome });
            }
        }
    }

    /// Runs empty steps until a map that is asked for is moved to at once: some have to pass since the group was formed.
    pub fn run_in(&mut self) {
        let steps = self.steps + self.setup.settings.wait_steps;
        while self.steps < steps {
            self.step(vec![Batch::default(); self.setup.ranks]).expect("no rank is lost");
        }
    }

    /// Runs empty steps, as the coordinator does while experts move and nobody asks for anything, until `done`.
    pub fn settle(&mut self, done: impl Fn(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !done(self) {
            assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {:?}", self.reports);
            self.step(vec![Batch::default(); self.setup.ranks]).expect("no rank is lost");
            if let Ok(event) = self.events.recv_timeout(Duration::from_millis(2)) {
                self.on_fleet(event);
            }
        }
    }

    /// Ends the coordinator and starts another in its place, which knows nothing of the first.
    pub fn restart_coordinator(&mut self) {
        self.replace_coordinator();
        self.wait_for_group();
    }

    /// As that, without waiting for its group.
    pub fn replace_coordinator(&mut self) {
        let address = self.fleet.address().to_string();
        let map = self.rebalancer.map().clone();
        let model = self.rebalancer.map_document().model;
        // The first listener is closed by then, or the second could not listen.
        let (nowhere, _) = start_fleet(&self.setup, "127.0.0.1:0");
        drop(std::mem::replace(&mut self.fleet, nowhere));
        self.group = None;
        let deadline = Instant::now() + PATIENCE;
        while TcpListener::bind(&address).is_err() {
            assert!(Instant::now() < deadline, "the coordinator does not end");
        }
        (self.fleet, self.events) = start_fleet(&self.setup, &address);
        self.rebalancer = Rebalancer::new(self.setup.settings, model, map, 0).unwrap();
    }

    /// Ends a rank's process and starts it anew, as a replaced pod would.
    pub fn restart(&mut self, rank: usize) {
        if let Some(worker) = self.workers[rank].take() {
            worker.stop().unwrap();
        }
        self.workers[rank] = Some(Worker::start(rank, self.fleet.address(), &self.setup));
    }
}

fn start_fleet(setup: &Setup, address: &str) -> (Fleet, Receiver<FleetEvent>) {
    let opened = Checkpoint::open(setup.model).unwrap();
    let settings = FleetSettings {
        ranks: setup.ranks,
        secret: secret(),
        model: opened.identity("tiny-moe"),
        vocabulary: opened.config().vocabulary,
        top_k: opened.config().router.top_k,
        // Every sequence of a rank may be at its prompt.
        step_tokens: (setup.sequences_per_rank * BLOCKS * BLOCK_TOKENS) as usize,
        staging_pages: setup.settings.staging_pages,
        kv_tokens: 1 << 20,
        move_bytes_per_second: setup.move_bytes_per_second,
        silence_limit: FleetSettings::SILENCE_LIMIT,
        stall_limit: FleetSettings::STALL_LIMIT,
        step_deadline: Duration::from_mins(5),
    };
    Fleet::start(settings, TcpListener::bind(address).unwrap(), &VitalThreads::new(drop)).unwrap()
}

impl Drop for Deployment {
    fn drop(&mut self) {
        for worker in self.workers.iter_mut().filter_map(Option::take) {
            worker.stop.stop();
        }
    }
}

/// A request that is being served.
#[derive(Clone)]
pub struct Sequence {
    id: SequenceId,
    rank: RankId,
    blocks: Vec<u32>,
    sampling: Sampling,
    /// Prompt, then what was sampled.
    pub tokens: Vec<u32>,
    prompt: usize,
    /// Tokens whose KV is in the cache.
    cached: usize,
}

impl Sequence {
    /// The `number`th of a deployment's sequences.
    pub fn new(setup: &Setup, number: u32, prompt: Vec<u32>, temperature: f32) -> Self {
        let (rank, place) = (number % setup.ranks as u32, number / setup.ranks as u32);
        assert!(place < setup.sequences_per_rank);
        let sampling = Sampling { temperature, top_p: 1.0, top_k: 0, seed: number.into(), logprob: false };
        Self {
            id: SequenceId(number.into()),
            rank: RankId(rank),
            blocks: (place * BLOCKS..(place + 1) * BLOCKS).collect(),
            sampling,
            prompt: prompt.len(),
            tokens: prompt,
            cached: 0,
        }
    }

    /// What was sampled so far.
    pub fn output(&self) -> &[u32] {
        &self.tokens[self.prompt..]
    }

    /// Forgets its KV, as a lost group does.
    pub fn forget(&mut self) {
        self.cached = 0;
    }

    fn step(&self) -> SequenceWork {
        let blocks = |tokens: usize| (tokens as u32).div_ceil(BLOCK_TOKENS) as usize;
        SequenceWork {
            sequence: self.id,
            begins: (self.cached == 0).then_some(self.sampling),
            position: self.cached as u32,
            tokens: Tokens::Given(self.tokens[self.cached..].to_vec()),
            blocks: self.blocks[blocks(self.cached)..blocks(self.tokens.len())].to_vec(),
            sample: true,
            score: Vec::new(),
            top_logprobs: 0,
        }
    }
}

/// A whole prompt, of which nothing is asked, in the first places of a rank's cache.
pub fn prefill(number: u64, tokens: Vec<u32>) -> SequenceWork {
    SequenceWork {
        sequence: SequenceId(number),
        begins: Some(Sampling { temperature: 0.0, top_p: 1.0, top_k: 0, seed: 0, logprob: false }),
        position: 0,
        blocks: (0..(tokens.len() as u32).div_ceil(BLOCK_TOKENS)).collect(),
        tokens: Tokens::Given(tokens),
        sample: false,
        score: Vec::new(),
        top_logprobs: 0,
    }
}

/// One step of every sequence; false if the group was lost in it.
pub fn advance(deployment: &mut Deployment, sequences: &mut [Sequence]) -> bool {
    let mut batches = vec![Batch::default(); deployment.setup.ranks];
    for sequence in sequences.iter() {
        batches[sequence.rank.index()].work.push(sequence.step());
    }
    let Some(answers) = deployment.step(batches) else { return false };
    let outputs = answers.iter().flat_map(|answer| &answer.outputs);
    let tokens: BTreeMap<SequenceId, u32> =
        outputs.filter_map(|output| Some((output.sequence, output.token.as_ref()?.token))).collect();
    for sequence in sequences {
        sequence.cached = sequence.tokens.len();
        sequence.tokens.push(tokens[&sequence.id]);
    }
    true
}
