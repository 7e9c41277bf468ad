//! A driver, and ranks on real sockets that compute nothing: they wait as long as a step would take and answer.

use std::net::TcpListener;
use std::ops::Sub;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use plan::balance::Policy;
use plan::coverage::Coverage;
use plan::ids::RankId;
use plan::map::{ExpertMap, MapShape};
use plan::policy::Terms;
use plan::wire::ModelIdentity;
use runtime::coordinator::driver::{Driver, DriverSettings};
use runtime::coordinator::fleet::{Fleet, FleetSettings};
use runtime::coordinator::handle::DriverHandle;
use runtime::coordinator::metrics::DriverMetrics;
use runtime::experts::planner::Planner;
use runtime::experts::rebalance::{Rebalancer, Settings};
use runtime::fabric::framing::Connection;
use runtime::fabric::handshake::call;
use runtime::fabric::purpose::{GroupId, Purpose};
use runtime::fabric::secret::Secret;
use runtime::protocol::{
    FromRank, ProcessId, RankDevice, SequenceOutput, Step, StepDone, StepTiming, ToRank, TokenScore,
};
use runtime::scheduler::Limits;
use runtime::threads::VitalThreads;

const PATIENCE: Duration = Duration::from_hours(1);
const LAYERS: usize = 48;
const EXPERTS: usize = 128;
const TOP_K: usize = 2;
const VOCABULARY: usize = 1000;

/// What a rank has done.
#[derive(Clone, Copy, Default)]
pub struct Totals {
    pub steps: u64,
    /// Between an answer and the next step.
    pub waited: Duration,
    /// From one answer to the next.
    pub whole: Duration,
}

impl Sub for Totals {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        let since = Duration::saturating_sub;
        Self {
            steps: self.steps - before.steps,
            waited: since(self.waited, before.waited),
            whole: since(self.whole, before.whole),
        }
    }
}

/// A coordinator without HTTP, and its ranks.
pub struct Deployment {
    pub handle: DriverHandle,
    driver: Option<JoinHandle<()>>,
    ranks: Vec<JoinHandle<()>>,
    /// Of rank 0.
    totals: Arc<Mutex<Totals>>,
}

impl Deployment {
    /// Ranks that take so long for each step.
    pub fn start(ranks: usize, computes: Duration) -> Self {
        let model =
            ModelIdentity { name: "tiny".to_owned(), digest: "abc".to_owned(), layers: LAYERS, experts: EXPERTS };
        let secret = Secret::draw().unwrap();
        let threads = VitalThreads::new(|ended| panic!("{ended}"));
        let fleet = FleetSettings {
            ranks,
            secret: secret.clone(),
            model: model.clone(),
            vocabulary: VOCABULARY,
            top_k: TOP_K,
            step_tokens: 512,
            staging_pages: 2,
            kv_tokens: 1 << 24,
            move_bytes_per_second: None,
            silence_limit: PATIENCE,
            stall_limit: PATIENCE,
            step_deadline: Duration::from_mins(1),
        };
        let (fleet, events) = Fleet::start(fleet, TcpListener::bind("127.0.0.1:0").unwrap(), &threads).unwrap();
        let address = fleet.address().to_string();
        let map = ExpertMap::contiguous(MapShape::with_redundancy(LAYERS, EXPERTS, ranks, 0).unwrap()).unwrap();
        let settings = Settings {
            dynamic: false,
            window_steps: 400,
            wait_steps: 30,
            staging_pages: 2,
            deadline: Duration::from_secs(10),
        };
        let planner = Planner {
            policy: Policy::default(),
            staging_pages: 2,
            min_coverage: Coverage::default(),
            terms: Terms::usual(1000, 0.0),
        };
        let driver = DriverSettings {
            limits: Limits { queued: 1024, running_per_rank: 256, step_tokens: 512 },
            context: 1 << 16,
            rebalancer: Rebalancer::new(settings, model.clone(), map, 0).unwrap(),
            model: model.clone(),
            static_map: false,
            planner: planner.start(&threads).unwrap(),
            recorder: None,
        };
        let metrics = DriverMetrics::new(&prometheus::Registry::new(), ranks).unwrap();
        let (driver, handle) = Driver::new(driver, fleet, events, metrics);
        let driver = Some(std::thread::Builder::new().name("driver".to_owned()).spawn(|| driver.run()).unwrap());
        let totals = Arc::default();
        let ranks = (0..ranks).map(|rank| {
            let rank = Rank {
                number: rank.into(),
                address: address.clone(),
                secret: secret.clone(),
                model: model.clone(),
                computes,
                totals: (rank == 0).then(|| Arc::clone(&totals)),
            };
            std::thread::spawn(move || rank.run())
        });
        Self { handle, driver, ranks: ranks.collect(), totals }
    }

    /// What rank 0 has done so far.
    pub fn totals(&self) -> Totals {
        *self.totals.lock().unwrap()
    }
}

impl Drop for Deployment {
    fn drop(&mut self) {
        self.handle.stop();
        self.driver.take().unwrap().join().unwrap();
        self.ranks.drain(..).for_each(|rank| rank.join().unwrap());
    }
}

struct Rank {
    number: RankId,
    address: String,
    secret: Secret,
    model: ModelIdentity,
    computes: Duration,
    totals: Option<Arc<Mutex<Totals>>>,
}

impl Rank {
    /// Registers, forms, and answers steps until the coordinator ends.
    fn run(self) {
        let timeout = Duration::from_mins(1);
        let mut control = call(&self.address, "coordinator", (Purpose::Control, &self.secret), timeout).unwrap();
        let registration = FromRank::Register {
            process: ProcessId(u128::from(self.number.0)),
            rank: self.number,
            model: self.model.clone(),
            step_address: format!("step:{}", self.number.0),
            move_address: format!("moves:{}", self.number.0),
            block_tokens: 16,
            node: "here".to_owned(),
            device: Box::new(RankDevice {
                kind: "none".to_owned(),
                name: "scripted".to_owned(),
                unit: self.number.to_string(),
                page_layout: "none".to_owned(),
                page_bytes: 1,
                memory: 0,
            }),
        };
        control.send(&registration).unwrap();
        let ToRank::Form { generation, nonce, drawn, map, .. } = control.receive().unwrap() else { panic!("no group") };
        let (group, secret) = (GroupId { generation, nonce }, self.secret.of_group(&drawn));
        let slots: Vec<u32> =
            map.placement.iter().flat_map(|ranks| ranks[self.number.index()].iter().copied()).collect();
        let fingerprints = slots.iter().map(|&expert| u128::from(expert) + 1).collect();
        control.send(&FromRank::Loaded { generation, kv_blocks: 1 << 16, fingerprints }).unwrap();
        let ToRank::Connect { .. } = control.receive().unwrap() else { panic!("not all are loaded") };
        let purpose = (Purpose::Steps { group, rank: self.number }, &secret);
        let mut steps = call(&self.address, "coordinator", purpose, timeout).unwrap();
        control.send(&FromRank::Ready { generation, exchange: None }).unwrap();
        self.serve(&mut steps, slots.len() / LAYERS);
    }

    fn serve(&self, steps: &mut Connection, slots: usize) {
        let mut answered = Instant::now();
        while let Ok(step) = steps.receive::<Step>() {
            let begun = Instant::now();
            let tokens = step.batch.tokens() as u32;
            let outputs = step.batch.work.iter().map(|work| {
                let token = work.position % VOCABULARY as u32;
                SequenceOutput {
                    sequence: work.sequence,
                    token: work.sample.then_some(TokenScore { token, logprob: 0.0, top: Vec::new() }),
                    scores: Vec::new(),
                    no_numbers: false,
                }
            });
            // Every token goes to the first experts of its rank.
            let layer = (0..slots).map(|slot| if slot < TOP_K { tokens } else { 0 });
            let slot_pairs = std::iter::repeat_n(layer, LAYERS).flatten().collect();
            let (generation, number, timing) = (step.generation, step.number, StepTiming::default());
            let done = StepDone { generation, number, outputs: outputs.collect(), slot_pairs, timing };
            while let Some(left) = self.computes.checked_sub(begun.elapsed()) {
                std::thread::park_timeout(left);
            }
            if steps.send(&done).is_err() {
                return;
            }
            let now = Instant::now();
            if let Some(totals) = &self.totals {
                let mut totals = totals.lock().unwrap();
                totals.steps += 1;
                totals.waited += begun - answered;
                totals.whole += now - answered;
            }
            answered = now;
        }
    }
}
