//! A coordinator without its front end, and its ranks.

use std::collections::{BTreeMap, VecDeque};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender};
use plan::coverage::Coverage;
use plan::ids::RankId;
use plan::map::{ExpertMap, MapShape};
use plan::moves::random_transaction;
use plan::policy::Terms;
use plan::topology::Topology;
use plan::wire;
use runtime::coordinator::fleet::{Fleet, FleetEvent, FleetSettings, Group};
use runtime::coordinator::ranks::{RankGroup as _, Ranks as _};
use runtime::experts::planner::{Planned, Planner, Wanted};
use runtime::experts::rebalance::{Effect, Event, Notice, Rebalancer};
use runtime::model::checkpoint::Checkpoint;
use runtime::protocol::{Batch, Commit, StepDone};
use runtime::threads::VitalThreads;
use runtime::worker::WorkerSettings;

use super::{BLOCK_TOKENS, BLOCKS, Moves, PATIENCE, Setup, Worker, secret, settings};

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
    /// Steps that are not answered, with what they commit; the oldest first.
    under_way: VecDeque<(u64, Vec<Commit>)>,
    started: Instant,
    pub notices: Vec<Notice>,
    /// Why ranks were refused.
    pub refusals: Vec<String>,
    /// Slots changed by each step that committed anything.
    pub committed: BTreeMap<u64, Vec<Commit>>,
    /// Groups that were lost: with which rank, and why.
    pub losses: Vec<(RankId, String)>,
}

impl Deployment {
    pub fn start(setup: Setup) -> Self {
        Self::start_with(setup, contiguous(&setup))
    }

    pub fn start_with(setup: Setup, map: ExpertMap) -> Self {
        let start = |rank, coordinator| Some(Worker::start(rank, coordinator, &setup));
        let mut deployment = Self::of(setup, map, start);
        deployment.wait_for_group();
        deployment
    }

    /// Does not wait for the first group; each rank is started by `start`, with where the coordinator is.
    pub fn begin(setup: Setup, start: impl Fn(usize, SocketAddr) -> Worker) -> Self {
        Self::of(setup, contiguous(&setup), |rank, coordinator| Some(start(rank, coordinator)))
    }

    /// With so many ranks in each process, which is in the place of its first rank.
    pub fn start_in_processes(setup: Setup, ranks_here: usize) -> Self {
        Self::start_in_processes_with(setup, ranks_here, |settings| settings)
    }

    /// The same, each with what `with` makes of its settings.
    pub fn start_in_processes_with(
        setup: Setup,
        ranks_here: usize,
        with: impl Fn(WorkerSettings) -> WorkerSettings,
    ) -> Self {
        let start = |rank: usize, coordinator| {
            let settings = WorkerSettings { ranks_here, ..settings(rank, coordinator, &setup) };
            rank.is_multiple_of(ranks_here).then(|| Worker::of(with(settings)))
        };
        let mut deployment = Self::of(setup, contiguous(&setup), start);
        deployment.wait_for_group();
        deployment
    }

    fn of(setup: Setup, map: ExpertMap, start: impl Fn(usize, SocketAddr) -> Option<Worker>) -> Self {
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
        let workers = (0..setup.ranks).map(|rank| start(rank, fleet.address())).collect();
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
            under_way: VecDeque::new(),
            started: Instant::now(),
            notices: Vec::new(),
            refusals: Vec::new(),
            committed: BTreeMap::new(),
            losses: Vec::new(),
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

    /// Waits until a rank says that it can never serve, and why.
    pub fn wait_for_failure(&mut self) -> String {
        loop {
            match self.events.recv_timeout(PATIENCE).unwrap() {
                FleetEvent::Failing(failing) => break failing.take().flatten().unwrap(),
                event => self.on_fleet(event),
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
            FleetEvent::Lost { rank, reason, .. } => {
                self.losses.push((rank, reason));
                self.lose();
                self.on(Event::GroupLost);
            }
            FleetEvent::Failing(failing) => panic!("a rank has failed: {:?}", failing.take()),
            FleetEvent::Refused(refused) => self.refusals.extend(refused.take()),
            FleetEvent::Moved { rank, report } => self.on(Event::Moved { rank, report }),
        }
    }

    /// Balance ratios of the windows that have closed.
    pub fn ratios(&self) -> Vec<f64> {
        let closed = self.notices.iter().filter_map(|notice| match notice {
            Notice::WindowClosed(closed) => Some(closed.report.ratio),
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
                Effect::Notice(notice) => self.notices.push(notice),
            }
        }
    }

    /// Steps that ranks have and have not answered.
    pub fn under_way(&self) -> usize {
        self.under_way.len()
    }

    /// Sends a step; false if the group is lost.
    pub fn send(&mut self, batches: Vec<Batch>) -> bool {
        self.pump();
        if self.group.is_none() {
            return false;
        }
        self.steps += 1;
        if let Some(moves) = self.setup.moves {
            self.keep_moving(moves);
        }
        let mut commits = self.rebalancer.commits_for(self.steps);
        let patient = self.setup.moves.is_some_and(|moves| moves.patient);
        while patient && commits.is_empty() && self.rebalancer.phase() == wire::Phase::Moving && !self.has_just_failed()
        {
            let Ok(event) = self.events.recv_timeout(Duration::from_millis(500)) else { break };
            self.on_fleet(event);
            commits = self.rebalancer.commits_for(self.steps);
        }
        let Some(group) = &mut self.group else { return false };
        if group.send(self.steps, batches, &commits).is_err() {
            self.lose();
            return false;
        }
        self.under_way.push_back((self.steps, commits));
        true
    }

    /// Waits for the answers to the oldest step under way; `None` if the group is lost.
    pub fn receive(&mut self) -> Option<Vec<StepDone>> {
        let group = self.group.as_mut()?;
        let (number, commits) = self.under_way.pop_front().expect("a step is under way");
        let Ok(answers) = group.receive() else {
            self.lose();
            return None;
        };
        let now = self.started.elapsed();
        self.on(Event::StepDone { number, now, answers: &answers });
        if !commits.is_empty() {
            self.committed.insert(number, commits);
        }
        Some(answers)
    }

    /// Runs a step, when those under way are answered; `None` if the group is lost.
    pub fn step(&mut self, batches: Vec<Batch>) -> Option<Vec<StepDone>> {
        if !self.receive_all() {
            return None;
        }
        if self.send(batches) { self.receive() } else { None }
    }

    /// Waits for the answers to all steps under way; false if the group is lost.
    pub fn receive_all(&mut self) -> bool {
        while self.under_way() > 0 {
            if self.receive().is_none() {
                return false;
            }
        }
        true
    }

    /// The fleet tells the rest.
    fn lose(&mut self) {
        self.group = None;
        self.under_way.clear();
    }

    /// Whether a move has failed, and is tried again some steps later.
    fn has_just_failed(&self) -> bool {
        matches!(self.notices.last(), Some(Notice::Aborted { .. }))
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
            assert!(Instant::now() < deadline, "not within {PATIENCE:?}: {:?}", self.notices);
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
        self.lose();
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

/// The map that a group starts from where none is given.
fn contiguous(setup: &Setup) -> ExpertMap {
    let model = Checkpoint::open(setup.model).unwrap().identity("tiny-moe");
    let shape = MapShape::with_redundancy(model.layers, model.experts, setup.ranks, setup.redundancy).unwrap();
    ExpertMap::contiguous(shape).unwrap()
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
        move_bytes_per_second: Some(setup.move_bytes_per_second),
        silence_limit: FleetSettings::SILENCE_LIMIT,
        stall_limit: FleetSettings::STALL_LIMIT,
        step_deadline: Duration::from_mins(5),
    };
    Fleet::start(settings, TcpListener::bind(address).unwrap(), &VitalThreads::new(drop)).unwrap()
}

impl Drop for Deployment {
    fn drop(&mut self) {
        for worker in self.workers.iter_mut().filter_map(Option::take) {
            worker.end();
        }
    }
}
