//! Whatever happens, in whatever order: no expert is lost, nothing is committed that was not staged, and once the
//! trouble ends the plan does too.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use plan::balance::{Policy, Request, balance};
use plan::coverage::Coverage;
use plan::load::ExpertLoad;
use proptest::prelude::*;

use super::*;

/// What may happen between two steps.
#[derive(Clone, Debug)]
enum Happening {
    Step,
    /// A step is sent while others are under way.
    Ahead,
    /// The step that runs is lost with its group.
    LostStep,
    /// Report on one of the orders that ranks have.
    Report {
        which: usize,
        staged: bool,
    },
    /// A report that nobody asked for.
    Stray {
        transaction: u64,
        rank: u32,
        staged: bool,
    },
    Plan {
        shift: u32,
    },
    Apply {
        shift: u32,
    },
    Trigger,
    Wait(u64),
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        8 => Just(Happening::Step),
        2 => Just(Happening::Ahead),
        1 => Just(Happening::LostStep),
        8 => (any::<usize>(), prop::bool::weighted(0.8)).prop_map(|(which, staged)| Happening::Report { which, staged }),
        1 => (0..40_u64, 0..4_u32, any::<bool>())
            .prop_map(|(transaction, rank, staged)| Happening::Stray { transaction, rank, staged }),
        3 => (0..12_u32).prop_map(|shift| Happening::Plan { shift }),
        1 => (0..12_u32).prop_map(|shift| Happening::Apply { shift }),
        1 => Just(Happening::Trigger),
        1 => (0..30_u64).prop_map(Happening::Wait),
    ]
}

fn shape() -> MapShape {
    MapShape::with_redundancy(3, 6, 3, 3).unwrap()
}

/// A map that suits a load which leans to one expert.
fn target(map: &ExpertMap, shift: u32) -> ExpertMap {
    let mut load = ExpertLoad::zero(3, 6);
    for layer in map.layers() {
        for expert in 0..6_u32 {
            let weight = (expert + shift + layer.0) % 6;
            load.add(layer, ExpertId(expert), u64::from(weight * weight * weight) + 1);
        }
    }
    let topology = Topology::single_node(3, 3);
    let windows = std::slice::from_ref(&load);
    balance(&Request {
        policy: Policy::default(),
        windows,
        topology: &topology,
        current: Some(map),
        min_coverage: Coverage::default(),
    })
    .unwrap()
    .map
}

/// A coordinator's driver and three ranks as the rebalancer sees them.
struct World {
    rebalancer: Rebalancer,
    generation: u64,
    step: u64,
    /// Steps that were sent and are not done, the oldest first.
    under_way: VecDeque<(u64, Vec<Commit>)>,
    now: Duration,
    /// The map as a rank would hold it, by commits alone.
    map: ExpertMap,
    epoch: u64,
    /// Orders without a report.
    open: Vec<(RankId, TransactionId)>,
    /// Who staged what in this generation.
    staged: BTreeMap<TransactionId, BTreeSet<RankId>>,
    receivers: BTreeMap<TransactionId, BTreeSet<RankId>>,
    plan: Option<PlanRequest>,
}

impl World {
    fn new(settings: Settings) -> Self {
        let map = ExpertMap::contiguous(shape()).unwrap();
        let model = ModelIdentity { layers: 3, experts: 6, ..model() };
        let mut world = Self {
            rebalancer: Rebalancer::new(settings, model, map.clone(), 0).unwrap(),
            generation: 0,
            step: 0,
            under_way: VecDeque::new(),
            now: Duration::ZERO,
            map,
            epoch: 0,
            open: Vec::new(),
            staged: BTreeMap::new(),
            receivers: BTreeMap::new(),
            plan: None,
        };
        world.form();
        world
    }

    fn form(&mut self) {
        self.generation += 1;
        (self.open, self.staged) = (Vec::new(), BTreeMap::new());
        self.on(Event::GroupFormed { generation: self.generation });
    }

    fn on(&mut self, event: Event<'_>) {
        let effects = self.rebalancer.on(event);
        self.carry_out(effects);
    }

    fn apply_map(&mut self, map: ExpertMap) {
        let effects = self.rebalancer.apply_map(map).expect("it is of the shape of the ranks");
        self.carry_out(effects);
    }

    fn carry_out(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Plan(request) => self.plan = Some(request),
                Effect::Order { rank, order: ToRank::Stage { generation, transaction, work, .. } } => {
                    assert_eq!(generation, self.generation);
                    self.open.push((rank, transaction));
                    self.receivers.insert(transaction, receivers(&work));
                    self.check_staging();
                }
                Effect::Order { rank, order: ToRank::Abort { transaction, .. } } => {
                    self.open.retain(|open| *open != (rank, transaction));
                    self.receivers.remove(&transaction);
                }
                Effect::Order { order, .. } => panic!("unexpected order {order:?}"),
                Effect::Record(recorded) => {
                    recorded.map.to_map(&recorded.map.model).unwrap();
                }
                Effect::Notice(_) => {}
            }
        }
        assert_eq!((self.rebalancer.map(), self.rebalancer.epoch()), (&self.map, self.epoch));
    }

    fn check_staging(&self) {
        let Phase::Moving { moves, .. } = &self.rebalancer.phase else { return };
        let mut pages: BTreeMap<RankId, u32> = BTreeMap::new();
        for (_, transaction) in moves.in_flight() {
            for change in transaction.work.changes.iter().filter(|change| change.source != change.rank) {
                *pages.entry(change.rank).or_default() += 1;
            }
        }
        assert!(pages.values().all(|&pages| pages <= self.rebalancer.settings.staging_pages), "{pages:?}");
    }

    fn step(&mut self, lost: bool) {
        self.send();
        if lost {
            self.under_way.clear();
            self.on(Event::GroupLost);
            return self.form();
        }
        while let Some((number, commits)) = self.under_way.pop_front() {
            self.finish(number, commits);
        }
    }

    /// Sends a step, which runs when those that were sent before are done.
    fn send(&mut self) {
        self.step += 1;
        let commits = self.rebalancer.commits_for(self.step);
        for commit in &commits {
            assert_eq!(self.staged.get(&commit.transaction), self.receivers.get(&commit.transaction), "{commit:?}");
        }
        self.under_way.push_back((self.step, commits));
    }

    fn finish(&mut self, number: u64, commits: Vec<Commit>) {
        for commit in commits {
            assert_eq!(commit.epoch, self.epoch + 1);
            self.map = self.map.apply(&commit.work).expect("no expert is lost");
            self.epoch = commit.epoch;
        }
        self.now += Duration::from_millis(5);
        let answer = |_| StepDone {
            generation: self.generation,
            number,
            outputs: Vec::new(),
            slot_pairs: SlotPairs::from(&[1; 9][..]),
            timing: StepTiming::default(),
        };
        let answers: Vec<StepDone> = (0..3).map(answer).collect();
        self.on(Event::StepDone { number, now: self.now, answers: &answers });
    }

    fn report(&mut self, (rank, transaction): (RankId, TransactionId), staged: bool) {
        let generation = self.generation;
        if staged {
            self.staged.entry(transaction).or_default().insert(rank);
            self.on(moved(generation, rank.0, transaction, Ok(10)));
        } else {
            let (reason, message) = (MoveFailure::SourceUnreachable, "gone".to_owned());
            self.on(moved(generation, rank.0, transaction, Err(NotStaged { reason, message })));
        }
    }

    fn answer_plan(&mut self, shift: u32) {
        let Some(PlanRequest { number, map, goal }) = self.plan.take() else { return };
        let target = match goal {
            Goal::Balance { .. } => target(&map, shift),
            Goal::Reach(target) => target,
        };
        let transactions = transactions(&map, &target, &Topology::single_node(3, 3), 1).unwrap();
        let outcome = PlanOutcome::Move { transactions, decision: None };
        self.on(Event::Planned { request: number, outcome });
    }

    fn happen(&mut self, happening: &Happening) {
        match *happening {
            Happening::Step => self.step(false),
            Happening::Ahead => self.send(),
            Happening::LostStep => self.step(true),
            Happening::Report { which, staged } => {
                if !self.open.is_empty() {
                    let open = self.open.swap_remove(which % self.open.len());
                    self.report(open, staged);
                }
            }
            Happening::Stray { transaction, rank, staged } => {
                let stray = (RankId(rank), TransactionId(transaction));
                if !self.open.contains(&stray) {
                    let generation = self.generation.wrapping_sub(u64::from(rank % 2));
                    let (rank, transaction) = stray;
                    let known = self.staged.get(&transaction).is_some_and(|ranks| ranks.contains(&rank));
                    if staged && (known || generation != self.generation) {
                        self.on(moved(generation, rank.0, transaction, Ok(1)));
                    }
                }
            }
            Happening::Plan { shift } => self.answer_plan(shift),
            Happening::Apply { shift } => {
                let wanted = target(&self.map, shift);
                self.apply_map(wanted);
            }
            Happening::Trigger => {
                let effects = self.rebalancer.trigger().unwrap_or_default();
                self.carry_out(effects);
            }
            Happening::Wait(seconds) => self.now += Duration::from_secs(seconds),
        }
    }

    /// Everything that was ordered arrives, plans are made, steps run.
    fn calm(&mut self) {
        for _ in 0..400 {
            self.answer_plan(0);
            while let Some(open) = self.open.pop() {
                self.report(open, true);
            }
            self.step(false);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn no_expert_is_lost_and_nothing_unstaged_is_committed(
        happenings in prop::collection::vec(happening(), 0..400),
        staging_pages in 1..4_u32,
        dynamic in any::<bool>(),
    ) {
        let settings = Settings { window_steps: 7, staging_pages, dynamic, ..settings() };
        let mut world = World::new(settings);
        for happening in &happenings {
            world.happen(happening);
        }
    }

    #[test]
    fn a_map_that_is_asked_for_is_reached_once_the_trouble_ends(
        happenings in prop::collection::vec(happening(), 0..300),
        shift in 0..12_u32,
    ) {
        let mut world = World::new(Settings { window_steps: 7, dynamic: false, ..settings() });
        for happening in &happenings {
            world.happen(happening);
        }
        let wanted = target(&world.map, shift);
        world.apply_map(wanted.clone());
        world.calm();
        prop_assert_eq!(world.rebalancer.phase(), wire::Phase::Off);
        prop_assert_eq!(world.rebalancer.pending_transactions(), 0);
        // The slots of a rank may be in another order.
        for layer in wanted.layers() {
            for rank in (0..3_usize).map(RankId::from) {
                let sorted = |map: &ExpertMap| {
                    let mut experts = map.rank(layer, rank).to_vec();
                    experts.sort_unstable();
                    experts
                };
                prop_assert_eq!(sorted(&world.map), sorted(&wanted));
            }
        }
    }
}
