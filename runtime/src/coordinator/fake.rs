//! Ranks that are a script: what they answer, when they answer and when one is lost is a test's to say.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender};
use plan::balance::Policy;
use plan::coverage::Coverage;
use plan::ids::RankId;
use plan::map::{ExpertMap, MapShape};
use plan::policy::Terms;
use plan::wire::{MapDocument, ModelIdentity, RankState};

use super::driver::{Driver, DriverSettings};
use super::fleet::{FleetEvent, GroupError, RankLost};
use super::handle::DriverHandle;
use super::metrics::DriverMetrics;
use super::ranks::{RankGroup, Ranks, Roll};
use crate::experts::planner::Planner;
use crate::experts::rebalance::{Rebalancer, Settings};
use crate::protocol::{
    Batch, Commit, MoveReport, SequenceOutput, SequenceStep, Sequences, StepDone, StepTiming, ToRank, TokenScore,
};
use crate::scheduler::{Limits, RankCache};
use crate::threads::VitalThreads;

/// Experts of the one layer.
const EXPERTS: usize = 4;

/// The token that follows a token at a position.
pub type Script = Arc<dyn Fn(u32, u32) -> u32 + Send + Sync>;

/// What a test holds of its ranks.
pub struct Remote {
    /// One for each step that may run; `None` lets all run. Dropped, it lets all run from then on.
    pub permits: Option<Sender<()>>,
    /// Says of each step that it has begun, with the sequences in it.
    pub begun: Receiver<usize>,
    /// The next step fails with a lost rank.
    pub lose: Arc<AtomicBool>,
    /// Steps run.
    pub steps: Arc<AtomicU64>,
    shared: Shared,
}

impl Remote {
    /// What keeps a rank from ever serving is this.
    pub fn fail(&self, reason: Option<&str>) {
        self.shared.events.send(FleetEvent::Failing(reason.map(str::to_owned).into())).unwrap();
    }

    /// Number of the last group.
    pub fn generation(&self) -> u64 {
        self.shared.generation.load(Ordering::SeqCst)
    }

    /// Every rank registers; the driver forms the group.
    pub fn complete(&self) {
        self.shared.events.send(FleetEvent::Complete).unwrap();
    }
}

#[derive(Clone)]
struct Shared {
    ranks: usize,
    cache: RankCache,
    script: Script,
    poison: Option<u32>,
    no_numbers_after: Option<u32>,
    events: Sender<FleetEvent<FakeGroup>>,
    generation: Arc<AtomicU64>,
    permits: Option<Receiver<()>>,
    begun: Sender<usize>,
    lose: Arc<AtomicBool>,
    steps: Arc<AtomicU64>,
}

pub struct FakeRanks(Shared);

pub struct FakeGroup {
    generation: u64,
    /// What each rank knows.
    sequences: Vec<Sequences>,
    /// Steps that are not answered, the oldest first.
    under_way: VecDeque<(u64, Vec<Batch>)>,
    shared: Shared,
}

/// What a test chooses about its ranks.
pub struct Fake {
    pub ranks: usize,
    pub cache: RankCache,
    pub limits: Limits,
    pub script: Script,
    /// Whether steps wait for permits.
    pub gated: bool,
    /// A step that computes this token loses a rank.
    pub poison: Option<u32>,
    /// What follows this token is no number.
    pub no_numbers_after: Option<u32>,
    pub rebalance: Settings,
    /// What its threads are among.
    pub threads: VitalThreads,
}

impl Default for Fake {
    fn default() -> Self {
        Self {
            ranks: 2,
            cache: RankCache { blocks: 512, block_tokens: 16 },
            limits: Limits { queued: 256, running_per_rank: 64, step_tokens: 256 },
            script: Arc::new(|token, position| (token.wrapping_mul(31) + position) % 200),
            gated: false,
            poison: None,
            no_numbers_after: None,
            rebalance: Settings {
                dynamic: false,
                window_steps: 400,
                wait_steps: 30,
                staging_pages: 2,
                deadline: Duration::from_secs(10),
            },
            threads: VitalThreads::new(drop),
        }
    }
}

impl Fake {
    /// Starts a driver on scripted ranks that have not registered yet.
    pub fn start(self, registry: &prometheus::Registry) -> (DriverHandle, Remote) {
        let Self { ranks, cache, limits, script, gated, poison, no_numbers_after, rebalance, threads } = self;
        let (events, received) = crossbeam_channel::unbounded();
        let (announce, begun) = crossbeam_channel::unbounded();
        let (permit, permits) = crossbeam_channel::unbounded();
        let shared = Shared {
            ranks,
            cache,
            script,
            poison,
            no_numbers_after,
            events,
            generation: Arc::default(),
            permits: gated.then_some(permits),
            begun: announce,
            lose: Arc::default(),
            steps: Arc::default(),
        };
        let model = ModelIdentity { name: "tiny".to_owned(), digest: "abc".to_owned(), layers: 1, experts: EXPERTS };
        let shape = MapShape::with_redundancy(1, EXPERTS, ranks, 0).unwrap();
        let map = ExpertMap::contiguous(shape).unwrap();
        let planner = Planner {
            policy: Policy::default(),
            staging_pages: 2,
            min_coverage: Coverage::default(),
            terms: Terms::usual(1000, 0.0),
        };
        let settings = DriverSettings {
            limits,
            context: 1024,
            rebalancer: Rebalancer::new(rebalance, model.clone(), map, 0).unwrap(),
            model,
            static_map: false,
            planner: planner.start(&threads).unwrap(),
            recorder: None,
        };
        let metrics = DriverMetrics::new(registry, ranks).unwrap();
        let (driver, handle) = Driver::new(settings, FakeRanks(shared.clone()), received, metrics);
        threads.spawn("driver", move || driver.run()).unwrap();
        let (lose, steps) = (Arc::clone(&shared.lose), Arc::clone(&shared.steps));
        (handle, Remote { permits: gated.then_some(permit), begun, lose, steps, shared })
    }
}

impl Ranks for FakeRanks {
    type Group = FakeGroup;

    fn form(&self, _map: &MapDocument, _epoch: u64) -> Result<u64, GroupError> {
        let generation = self.0.generation.fetch_add(1, Ordering::SeqCst) + 1;
        let sequences = (0..self.0.ranks).map(|_| Sequences::default()).collect();
        let group = FakeGroup { generation, sequences, under_way: VecDeque::new(), shared: self.0.clone() };
        self.0.events.send(FleetEvent::Formed(group)).unwrap();
        Ok(generation)
    }

    /// Pages arrive at once.
    fn order(&self, rank: RankId, order: ToRank) {
        if let ToRank::Stage { generation, transaction, .. } = order {
            let report = MoveReport { generation, transaction, staged: Ok(1000) };
            self.0.events.send(FleetEvent::Moved { rank, report }).unwrap();
        }
    }

    fn roll(&self) -> Roll {
        let member = |rank| RankState {
            rank,
            connected: true,
            address: format!("moves:{rank}"),
            node: "here".to_owned(),
            device: "cpu (fake)".to_owned(),
            memory: 1 << 30,
            exchange: "tcp".to_owned(),
        };
        Roll { formed: true, members: (0..self.0.ranks as u32).map(|rank| Some(Arc::new(member(rank)))).collect() }
    }

    fn generation(&self) -> u64 {
        self.0.generation.load(Ordering::SeqCst)
    }
}

impl RankGroup for FakeGroup {
    fn generation(&self) -> u64 {
        self.generation
    }

    fn caches(&self) -> Vec<RankCache> {
        vec![self.shared.cache; self.shared.ranks]
    }

    fn send(&mut self, number: u64, batches: Vec<Batch>, _commits: &[Commit]) -> Result<(), RankLost> {
        self.under_way.push_back((number, batches));
        Ok(())
    }

    fn receive(&mut self) -> Result<Vec<StepDone>, RankLost> {
        let (number, batches) = self.under_way.pop_front().expect("a step is under way");
        // A test that has let go of its end does not listen any more.
        let _ = self.shared.begun.send(batches.iter().map(|batch| batch.work.len()).sum());
        if let Some(permits) = &self.shared.permits {
            let _ = permits.recv();
        }
        let ranks = self.sequences.iter_mut().zip(batches);
        let steps: Vec<Vec<SequenceStep>> = ranks.map(|(rank, batch)| rank.next(batch).unwrap()).collect();
        let tokens = || steps.iter().flatten().flat_map(|step| &step.tokens);
        let poisoned = self.shared.poison.is_some_and(|poison| tokens().any(|&token| token == poison));
        if poisoned || self.shared.lose.swap(false, Ordering::SeqCst) {
            let (generation, rank, reason) = (self.generation, RankId(1), "connection reset".to_owned());
            self.shared.events.send(FleetEvent::Lost { generation, rank, reason: reason.clone() }).unwrap();
            self.shared.events.send(FleetEvent::Complete).unwrap();
            return Err(RankLost { rank, number, reason });
        }
        self.shared.steps.fetch_add(1, Ordering::SeqCst);
        Ok((0..steps.len()).zip(steps).map(|(rank, steps)| self.done(number, rank, steps)).collect())
    }
}

impl FakeGroup {
    fn done(&mut self, number: u64, rank: usize, steps: Vec<SequenceStep>) -> StepDone {
        // Every token goes to the first expert of its rank.
        let tokens = steps.iter().map(|step| step.tokens.len() as u32).sum();
        let others = std::iter::repeat_n(0, EXPERTS / self.shared.ranks - 1);
        let outputs: Vec<SequenceOutput> = steps.iter().map(|step| self.sequence(step)).collect();
        self.sequences[rank].computed(steps, &outputs);
        let (generation, slot_pairs) = (self.generation, std::iter::once(tokens).chain(others).collect());
        StepDone { generation, number, outputs, slot_pairs, timing: StepTiming::default() }
    }

    fn sequence(&self, step: &SequenceStep) -> SequenceOutput {
        let score = |token: u32| {
            let others = (1..step.top_logprobs).map(|other| (token + other, -1.0 - other as f32));
            let top = (step.top_logprobs > 0).then_some((token, -0.5)).into_iter().chain(others).collect();
            TokenScore { token, logprob: -0.5, top }
        };
        let end = step.position + step.tokens.len() as u32;
        let last = *step.tokens.last().unwrap();
        let no_numbers = self.shared.no_numbers_after == Some(last);
        let next = || (self.shared.script)(last, end);
        SequenceOutput {
            sequence: step.sequence,
            no_numbers,
            token: step.sample.filter(|_| !no_numbers).map(|_| score(next())),
            scores: step.score.iter().map(|wanted| wanted.map(score)).collect(),
        }
    }
}
