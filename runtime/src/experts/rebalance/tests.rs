mod invariants;
mod reach;

use plan::coverage::Coverage;
use plan::expected::Expected;
use plan::ids::{ExpertId, LayerId, RankId, SlotIndex};
use plan::load::{ExpertLoad, WINDOWS_KEPT};
use plan::map::MapShape;
use plan::moves::{SlotChange, transactions};
use plan::policy::{Case, Reason, Terms, decide};
use plan::topology::Topology;
use plan::wire::{self, MapDocument};

use super::*;
use crate::protocol::StepTiming;

/// Two layers of 4 experts on 2 ranks of 2 slots: `[0 1 | 2 3]` in both.
fn start() -> ExpertMap {
    ExpertMap::contiguous(MapShape::with_redundancy(2, 4, 2, 0).unwrap()).unwrap()
}

/// The same with experts 1 and 2 exchanged in both layers.
fn exchanged() -> ExpertMap {
    let layer = [0, 2, 1, 3].map(ExpertId);
    ExpertMap::new(start().shape(), [layer, layer].concat()).unwrap()
}

fn one_node() -> Topology {
    Topology::single_node(2, 2)
}

fn settings() -> Settings {
    Settings {
        dynamic: true,
        window_steps: 40,
        wait_steps: 30,
        staging_pages: 2,
        deadline: Duration::from_secs(10),
        max_failures: 3,
        back_off_steps: 4,
    }
}

fn decision(reason: Reason) -> Decision {
    let map = start();
    let (load, topology) = (ExpertLoad::zero(2, 4), one_node());
    let (expected, min_coverage) = (Expected::known(&load), Coverage::default());
    let case = Case { expected: &expected, current: &map, topology: &topology, transactions: &[], min_coverage };
    Decision { reason, ..decide(&case, &Terms::usual(100, 1.0), History::default()) }
}

fn keep() -> PlanOutcome {
    PlanOutcome::Keep { decision: decision(Reason::GainTooSmall) }
}

fn model() -> ModelIdentity {
    ModelIdentity { name: "tiny".to_owned(), digest: "abc".to_owned(), layers: 2, experts: 4 }
}

/// What a rank reports of a transaction.
fn moved(generation: u64, rank: u32, transaction: TransactionId, staged: Result<u64, NotStaged>) -> Event<'static> {
    Event::Moved { rank: RankId(rank), report: MoveReport { generation, transaction, staged } }
}

/// A rebalancer with a driver: runs steps, keeps orders, plans and reports.
struct Driven {
    rebalancer: Rebalancer,
    step: u64,
    now: Duration,
    /// Pairs of each slot of rank 0 and 1 in every step, `[ranks][layers * slots]`.
    pairs: [Vec<u32>; 2],
    orders: Vec<(RankId, ToRank)>,
    plans: Vec<PlanRequest>,
    reports: Vec<Report>,
    recorded: Vec<RecordedMap>,
}

impl Driven {
    fn new(settings: Settings) -> Self {
        let rebalancer = Rebalancer::new(settings, model(), start(), 0).unwrap();
        let mut driven = Self {
            rebalancer,
            step: 0,
            now: Duration::ZERO,
            pairs: [vec![30, 10, 30, 10], vec![10, 10, 10, 10]],
            orders: Vec::new(),
            plans: Vec::new(),
            reports: Vec::new(),
            recorded: Vec::new(),
        };
        driven.on(Event::GroupFormed { generation: 1 });
        driven
    }

    fn on(&mut self, event: Event<'_>) {
        let effects = self.rebalancer.on(event);
        self.keep(effects);
    }

    fn apply_map(&mut self, map: ExpertMap) {
        let effects = self.rebalancer.apply_map(map).unwrap();
        self.keep(effects);
    }

    fn trigger(&mut self) -> Result<(), Refusal> {
        let effects = self.rebalancer.trigger()?;
        self.keep(effects);
        Ok(())
    }

    fn keep(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Plan(request) => self.plans.push(request),
                Effect::Order { rank, order } => self.orders.push((rank, order)),
                Effect::Record(map) => self.recorded.push(map),
                Effect::Report(report) => self.reports.push(report),
            }
        }
    }

    /// Runs one step and returns what it committed.
    fn step(&mut self) -> Vec<Commit> {
        self.step += 1;
        let commits = self.rebalancer.commits_for(self.step);
        self.finish_step();
        commits
    }

    fn finish_step(&mut self) {
        self.now += Duration::from_millis(10);
        let answer = |pairs: &Vec<u32>| StepDone {
            generation: 1,
            number: self.step,
            outputs: Vec::new(),
            slot_pairs: pairs.clone(),
            timing: StepTiming::default(),
        };
        let answers: Vec<StepDone> = self.pairs.iter().map(answer).collect();
        self.on(Event::StepDone { number: self.step, now: self.now, answers: &answers });
    }

    fn steps(&mut self, count: u64) {
        for _ in 0..count {
            self.step();
        }
    }

    /// Answers the last plan request with the way to a map.
    fn plan_to(&mut self, target: &ExpertMap) {
        let PlanRequest { number, map, .. } = self.plans.last().unwrap();
        let transactions = transactions(map, target, &one_node(), 2).unwrap();
        let outcome = PlanOutcome::Move { transactions, decision: Some(decision(Reason::WorthIt)) };
        self.on(Event::Planned { request: *number, outcome });
    }

    /// Runs to the point where the transactions of [`exchanged`] have been ordered, and returns them.
    fn moving(settings: Settings) -> (Self, Vec<TransactionId>) {
        let mut driven = Self::new(settings);
        driven.steps(settings.window_steps);
        driven.plan_to(&exchanged());
        driven.steps(settings.wait_steps);
        let started = driven.started();
        (driven, started)
    }

    fn started(&self) -> Vec<TransactionId> {
        let started = self.orders.iter().filter_map(|(_, order)| match order {
            ToRank::Stage { transaction, .. } => Some(*transaction),
            _ => None,
        });
        let mut started: Vec<TransactionId> = started.collect();
        started.dedup();
        started
    }

    fn aborts(&self) -> Vec<(RankId, TransactionId)> {
        let aborts = self.orders.iter().filter_map(|(rank, order)| match order {
            ToRank::Abort { transaction, .. } => Some((*rank, *transaction)),
            _ => None,
        });
        aborts.collect()
    }

    fn staged(&mut self, transaction: TransactionId, rank: u32) {
        self.on(moved(1, rank, transaction, Ok(100)));
    }

    fn failed(&mut self, transaction: TransactionId, rank: u32) {
        let (reason, message) = (MoveFailure::Corrupt, "page is corrupt".to_owned());
        self.on(moved(1, rank, transaction, Err(NotStaged { reason, message })));
    }

    fn stage_all(&mut self, transactions: &[TransactionId]) {
        for &transaction in transactions {
            self.staged(transaction, 0);
            self.staged(transaction, 1);
        }
    }

    fn totals(&self) -> &MoveTotals {
        &self.rebalancer.totals
    }

    fn dropped(&self) -> Option<&str> {
        self.reports.iter().find_map(|report| match report {
            Report::Dropped { reason } => Some(reason.as_str()),
            _ => None,
        })
    }
}

#[test]
fn a_window_closes_after_its_steps_with_the_ratio_that_ranks_measured() {
    let mut driven = Driven::new(settings());
    driven.steps(39);
    assert!(driven.plans.is_empty());
    driven.steps(1);
    let [Report::WindowClosed(report)] = &driven.reports[..] else { panic!("{:?}", driven.reports) };
    // Each layer: 40 pairs on rank 0, 20 on rank 1: mean 30 of max 40.
    assert_eq!((report.number, report.steps, report.pairs, report.ratio), (1, 40, 40 * 120, 0.75));
    assert_eq!(report.ratio_per_layer, [0.75, 0.75]);
    let [PlanRequest { goal: Goal::Balance { windows, lifetime, .. }, .. }] = &driven.plans[..] else { panic!() };
    assert_eq!(windows[0].layer(LayerId(1)), [1200, 400, 400, 400]);
    assert_eq!(*lifetime, Duration::from_millis(400));
}

#[test]
fn windows_that_are_kept_are_shared_and_not_copied() {
    let mut driven = Driven::new(settings());
    driven.steps(40);
    let [PlanRequest { goal: Goal::Balance { windows, .. }, .. }] = &driven.plans[..] else { panic!() };
    assert!(windows[0].shares_counts_with(&driven.rebalancer.windows.loads()[0]));
}

#[test]
fn a_plan_is_applied_no_earlier_than_the_wait_after_its_window_has_closed() {
    let mut driven = Driven::new(settings());
    driven.steps(40);
    driven.plan_to(&exchanged());
    driven.steps(29);
    assert!(driven.orders.is_empty());
    assert_eq!(driven.rebalancer.phase(), wire::Phase::Planning);
    driven.steps(1);
    assert_eq!(driven.rebalancer.phase(), wire::Phase::Moving);
    assert_eq!(driven.orders.len(), 4, "one transaction for each layer, each with two receivers");
}

#[test]
fn a_plan_is_applied_no_earlier_than_the_wait_after_the_group_was_formed() {
    let mut driven = Driven::new(Settings { window_steps: 5, ..settings() });
    driven.steps(3);
    driven.on(Event::GroupLost);
    driven.on(Event::GroupFormed { generation: 2 });
    driven.apply_map(exchanged());
    driven.plan_to(&exchanged());
    driven.steps(29);
    assert!(driven.orders.is_empty());
    driven.steps(1);
    assert!(!driven.orders.is_empty());
}

#[test]
fn a_transaction_is_committed_when_every_receiver_has_staged_it_and_in_force_when_the_step_is_done() {
    let (mut driven, started) = Driven::moving(settings());
    driven.staged(started[0], 0);
    assert_eq!(driven.step(), []);
    driven.staged(started[0], 1);
    driven.step += 1;
    let commits = driven.rebalancer.commits_for(driven.step);
    let [Commit { transaction, epoch: 1, work }] = &commits[..] else { panic!("{commits:?}") };
    assert_eq!((*transaction, work.layer, work.changes.len()), (started[0], LayerId(0), 2));
    assert_eq!((driven.rebalancer.map(), driven.rebalancer.epoch()), (&start(), 0));
    driven.finish_step();
    assert_eq!(driven.rebalancer.epoch(), 1);
    assert_eq!(driven.rebalancer.map().layer(LayerId(0)), exchanged().layer(LayerId(0)));
    assert_eq!(driven.step(), [], "it is committed once");
}

#[test]
fn a_rank_that_reports_twice_does_not_stand_in_for_another() {
    let (mut driven, started) = Driven::moving(settings());
    driven.staged(started[0], 0);
    driven.staged(started[0], 0);
    assert_eq!(driven.step(), []);
}

#[test]
fn a_completed_rebalance_is_counted_and_recorded_with_where_it_comes_from() {
    let (mut driven, started) = Driven::moving(settings());
    driven.stage_all(&started);
    assert_eq!(driven.step().len(), 2);
    assert_eq!(driven.rebalancer.map(), &exchanged());
    assert_eq!(driven.rebalancer.phase(), wire::Phase::Collecting);
    let totals = MoveTotals { rebalances: 1, committed: 2, experts_moved: 4, bytes_moved: 400, ..Default::default() };
    assert_eq!(driven.totals(), &totals);
    let [RecordedMap { map, provenance }] = &driven.recorded[..] else { panic!("{:?}", driven.recorded) };
    assert_eq!(map, &MapDocument::new(model(), &exchanged()));
    // Load 30 10 10 10: the map [0 2 | 1 3] gives 40 and 20.
    let expected = Provenance { window: 1, window_steps: 40, window_pairs: 4800, epoch: 2, ratio: 0.75 };
    assert_eq!(provenance, &expected);
}

#[test]
fn a_window_is_counted_under_one_map() {
    let (mut driven, started) = Driven::moving(settings());
    assert_eq!(driven.rebalancer.windows.steps(), 30);
    driven.stage_all(&started);
    driven.step();
    assert_eq!(driven.rebalancer.windows.steps(), 0);
    driven.steps(40);
    let Some(Report::WindowClosed(report)) = driven.reports.last() else { panic!() };
    assert_eq!((report.number, report.steps), (2, 40));
}

#[test]
fn no_window_closes_and_nothing_is_planned_while_experts_move() {
    let (mut driven, _) = Driven::moving(settings());
    driven.steps(100);
    assert_eq!(driven.plans.len(), 1);
}

#[test]
fn a_failed_transaction_is_aborted_everywhere_and_tried_again_after_a_growing_number_of_steps() {
    let (mut driven, started) = Driven::moving(settings());
    driven.staged(started[0], 0);
    driven.failed(started[0], 1);
    assert_eq!(driven.aborts(), [(RankId(0), started[0])], "the rank that failed has freed its pages itself");
    driven.orders.clear();
    driven.steps(3);
    assert!(driven.started().is_empty());
    driven.steps(1);
    let [second] = driven.started()[..] else { panic!("{:?}", driven.orders) };
    assert!(second > started[1], "numbers are never used again");
    driven.staged(started[0], 0);
    driven.staged(started[0], 1);
    assert_eq!(driven.step(), [], "a report of the first attempt means nothing now");
    driven.failed(second, 0);
    driven.orders.clear();
    driven.steps(7);
    assert!(driven.started().is_empty());
    driven.steps(1);
    let third = driven.started();
    driven.stage_all(&third);
    driven.stage_all(&started[1..]);
    assert_eq!(driven.step().len(), 2);
    assert_eq!((driven.totals().aborted, driven.totals().committed), (2, 2));
    assert_eq!(driven.rebalancer.degraded, None);
}

#[test]
fn a_transaction_that_keeps_failing_ends_its_plan_and_the_map_in_force_serves_on() {
    let (mut driven, started) = Driven::moving(settings());
    driven.stage_all(&started[1..]);
    driven.step();
    for _ in 0..3 {
        let last = *driven.started().last().unwrap();
        let transaction = last.max(started[0]);
        let transaction = if driven.totals().aborted == 0 { started[0] } else { transaction };
        driven.failed(transaction, 1);
        driven.steps(20);
    }
    assert_eq!(driven.dropped(), Some("a transaction of layer 0 failed 3 times, last on rank 1: page is corrupt"));
    assert_eq!(driven.rebalancer.degraded.as_deref(), driven.dropped());
    assert_eq!(driven.rebalancer.phase(), wire::Phase::Collecting);
    assert_eq!(driven.rebalancer.map().layer(LayerId(0)), start().layer(LayerId(0)));
    assert_eq!(driven.rebalancer.map().layer(LayerId(1)), exchanged().layer(LayerId(1)));
    assert!(driven.recorded.is_empty());
    driven.steps(40);
    assert_eq!(driven.plans.len(), 2, "the next window is planned for again");
}

#[test]
fn a_dropped_plan_frees_the_staging_pages_of_its_other_transactions() {
    let (mut driven, started) = Driven::moving(Settings { max_failures: 1, ..settings() });
    driven.staged(started[1], 0);
    driven.failed(started[0], 1);
    let expected = [(RankId(0), started[0]), (RankId(0), started[1]), (RankId(1), started[1])];
    assert_eq!(driven.aborts(), expected);
    assert_eq!(driven.totals().aborted, 2);
    assert_eq!(driven.rebalancer.pending_transactions(), 0);
}

#[test]
fn a_rank_that_never_reports_fails_its_transaction_after_the_deadline() {
    let (mut driven, started) = Driven::moving(settings());
    driven.now += Duration::from_secs(14);
    driven.step();
    assert!(driven.aborts().is_empty());
    driven.now += Duration::from_secs(2);
    driven.step();
    assert_eq!(driven.aborts().len(), 4);
    assert_eq!(driven.totals().aborted, started.len() as u64);
}

#[test]
fn no_rank_gets_more_pages_than_it_can_stage() {
    let (mut driven, started) = Driven::moving(Settings { staging_pages: 1, ..settings() });
    assert_eq!(started.len(), 1, "both transactions bring each rank a page");
    driven.stage_all(&started);
    driven.step();
    assert_eq!(driven.started().len(), 2);
}

#[test]
fn a_transaction_that_no_rank_could_stage_is_refused_at_once() {
    let mut driven = Driven::new(Settings { staging_pages: 1, ..settings() });
    driven.steps(40);
    let change = |rank: u32, slot: u32, from: u32, to: u32| SlotChange {
        rank: RankId(rank),
        slot: SlotIndex(slot),
        from: ExpertId(from),
        to: ExpertId(to),
        source: RankId(1 - rank),
    };
    let changes = vec![change(0, 0, 0, 2), change(0, 1, 1, 3), change(1, 0, 2, 0), change(1, 1, 3, 1)];
    let transactions = vec![Transaction { layer: LayerId(0), changes, shares: Vec::new() }];
    let outcome = PlanOutcome::Move { transactions, decision: None };
    driven.on(Event::Planned { request: 1, outcome });
    driven.steps(30);
    assert_eq!(driven.dropped(), Some("a transaction of layer 0 needs more than 1 staging pages"));
    assert!(driven.orders.is_empty());
}

#[test]
fn a_lost_group_keeps_the_map_of_the_last_finished_step() {
    let (mut driven, started) = Driven::moving(settings());
    driven.stage_all(&started[..1]);
    driven.step();
    driven.stage_all(&started[1..]);
    driven.step += 1;
    assert_eq!(driven.rebalancer.commits_for(driven.step).len(), 1);
    driven.on(Event::GroupLost);
    assert_eq!((driven.rebalancer.epoch(), driven.rebalancer.phase()), (1, wire::Phase::Collecting));
    assert_eq!(driven.rebalancer.map().layer(LayerId(1)), start().layer(LayerId(1)));
    assert_eq!(driven.totals().aborted, 1);
    driven.on(Event::GroupFormed { generation: 2 });
    driven.staged(started[1], 0);
    assert_eq!(driven.step(), [], "reports of the lost generation mean nothing");
}

#[test]
fn a_plan_that_arrives_after_its_group_was_lost_is_ignored() {
    let mut driven = Driven::new(settings());
    driven.steps(40);
    driven.on(Event::GroupLost);
    driven.on(Event::GroupFormed { generation: 2 });
    driven.plan_to(&exchanged());
    assert_eq!(driven.rebalancer.phase(), wire::Phase::Collecting);
}

#[test]
fn nothing_moves_when_it_is_not_worth_it_and_the_first_window_records_the_map() {
    let mut driven = Driven::new(settings());
    driven.steps(40);
    driven.on(Event::Planned { request: 1, outcome: keep() });
    assert_eq!((driven.totals().skipped, driven.recorded.len()), (1, 1));
    assert_eq!(driven.recorded[0].map, MapDocument::new(model(), &start()));
    driven.steps(40);
    driven.on(Event::Planned { request: 2, outcome: keep() });
    assert_eq!((driven.totals().skipped, driven.recorded.len()), (2, 1));
    assert!(driven.orders.is_empty());
}

#[test]
fn a_plan_is_made_from_the_last_windows_and_knows_how_long_ago_pages_moved() {
    let (mut driven, started) = Driven::moving(settings());
    driven.stage_all(&started);
    driven.step();
    let planned = |driven: &Driven| match &driven.plans.last().unwrap().goal {
        Goal::Balance { windows, history, .. } => (windows.len(), history.windows_since_move),
        Goal::Reach(_) => panic!("{:?}", driven.plans),
    };
    assert_eq!(planned(&driven), (1, None));
    for since in 1..10 {
        driven.steps(40);
        assert_eq!(planned(&driven), (WINDOWS_KEPT.min(1 + since), Some(since as u64)));
        driven.on(Event::Planned { request: since as u64 + 1, outcome: keep() });
    }
    let decided = driven.reports.iter().filter(|report| matches!(report, Report::Decided(_))).count();
    assert_eq!((decided, driven.rebalancer.last_decision), (10, Some(decision(Reason::GainTooSmall))));
}

#[test]
fn shares_alone_are_committed_with_the_next_step_and_no_rank_is_told_to_receive() {
    let shape = MapShape::with_redundancy(1, 3, 2, 1).unwrap();
    let map = ExpertMap::contiguous(shape).unwrap();
    let whole = plan::map::WHOLE;
    let shared = map.clone().with_shares(&[whole / 4, whole, whole, whole / 4 * 3]).unwrap();
    let model = ModelIdentity { layers: 1, experts: 3, ..model() };
    let mut driven = Driven::new(settings());
    driven.rebalancer = Rebalancer::new(settings(), model, map, 0).unwrap();
    driven.pairs = [vec![30, 10], vec![10, 10]];
    driven.on(Event::GroupFormed { generation: 1 });
    driven.steps(40);
    driven.plan_to(&shared);
    driven.steps(30);
    assert!(driven.orders.is_empty());
    let [Commit { work, epoch: 1, .. }] = &driven.step()[..] else { panic!() };
    assert_eq!((work.changes.len(), work.shares.len()), (0, 2));
    assert_eq!((driven.rebalancer.map(), driven.totals().bytes_moved), (&shared, 0));
    assert_eq!(driven.rebalancer.moved_after, None, "nothing that would have to last has moved");
}

#[test]
fn a_planner_that_fails_is_told_and_the_next_window_tries_again() {
    let mut driven = Driven::new(settings());
    driven.steps(40);
    driven.on(Event::Planned { request: 1, outcome: PlanOutcome::Failed { reason: "no topology".to_owned() } });
    assert_eq!(driven.rebalancer.degraded.as_deref(), Some("no plan could be made: no topology"));
    driven.steps(40);
    assert_eq!(driven.plans.len(), 2);
    driven.on(Event::Planned { request: 2, outcome: keep() });
    assert_eq!(driven.rebalancer.degraded, None);
}

#[test]
fn without_dynamic_eplb_load_is_counted_and_only_what_is_asked_for_moves() {
    let mut driven = Driven::new(Settings { dynamic: false, ..settings() });
    driven.steps(80);
    assert_eq!(driven.rebalancer.windows.closed(), 2);
    assert!(driven.plans.is_empty() && driven.recorded.is_empty());
    assert_eq!(driven.rebalancer.phase(), wire::Phase::Off);
    driven.steps(1);
    driven.trigger().unwrap();
    assert!(matches!(driven.plans[..], [PlanRequest { goal: Goal::Balance { .. }, .. }]));
    driven.on(Event::Planned { request: 1, outcome: keep() });
    driven.apply_map(exchanged());
    driven.plan_to(&exchanged());
    driven.step();
    let started = driven.started();
    driven.stage_all(&started);
    driven.step();
    assert_eq!(driven.rebalancer.map(), &exchanged());
}

#[test]
fn a_trigger_closes_the_window_early_and_is_refused_when_it_cannot_be_granted() {
    let mut driven = Driven::new(settings());
    assert_eq!(driven.trigger(), Err(Refusal::NoLoad));
    driven.steps(3);
    driven.trigger().unwrap();
    assert_eq!(driven.rebalancer.seen().last_load().unwrap().steps, 3);
    assert_eq!(driven.trigger(), Err(Refusal::UnderWay));
    driven.on(Event::GroupLost);
    assert_eq!(driven.trigger(), Err(Refusal::NotReady));
}

#[test]
fn a_map_that_is_asked_for_replaces_the_plan_under_way_from_the_map_then_in_force() {
    let (mut driven, started) = Driven::moving(settings());
    driven.stage_all(&started[..1]);
    driven.step += 1;
    assert_eq!(driven.rebalancer.commits_for(driven.step).len(), 1);
    driven.apply_map(start());
    assert_eq!(driven.aborts(), [(RankId(0), started[1]), (RankId(1), started[1])]);
    assert_eq!(driven.plans.len(), 1, "the commit of the step that runs cannot be taken back");
    driven.finish_step();
    let PlanRequest { map, goal, .. } = driven.plans.last().unwrap();
    assert_eq!((map.layer(LayerId(0)), goal), (exchanged().layer(LayerId(0)), &Goal::Reach(start())));
    assert_eq!(driven.rebalancer.degraded, None);
    driven.orders.clear();
    driven.plan_to(&start());
    let back = driven.started();
    driven.stage_all(&back);
    driven.step();
    assert_eq!(driven.rebalancer.map(), &start());
}

#[test]
fn a_map_that_is_asked_for_survives_a_lost_group() {
    let mut driven = Driven::new(settings());
    driven.apply_map(exchanged());
    driven.plan_to(&exchanged());
    driven.on(Event::GroupLost);
    driven.on(Event::GroupFormed { generation: 2 });
    assert_eq!(driven.plans.last().unwrap().goal, Goal::Reach(exchanged()));
}

#[test]
fn a_map_of_another_shape_is_refused() {
    let mut driven = Driven::new(settings());
    let other = ExpertMap::contiguous(MapShape::with_redundancy(2, 4, 2, 2).unwrap()).unwrap();
    let (found, ranks) = (other.shape(), start().shape());
    let refusal = driven.rebalancer.apply_map(other).unwrap_err();
    assert_eq!(refusal, Refusal::OtherShape { found, ranks });
    assert_eq!(
        refusal.to_string(),
        "the map has 2 layers of 4 experts on 2 ranks of 3 slots, the ranks have 2 of 4 on 2 of 2"
    );
    driven.steps(1);
    assert!(driven.plans.is_empty());
}

#[test]
fn settings_out_of_range_are_refused() {
    let refuse = |settings| Rebalancer::new(settings, model(), start(), 0).unwrap_err().to_string();
    let errors = [
        refuse(Settings { wait_steps: 29, ..settings() }),
        refuse(Settings { window_steps: 0, ..settings() }),
        refuse(Settings { staging_pages: 0, ..settings() }),
        refuse(Settings { max_failures: 0, ..settings() }),
        refuse(Settings { deadline: Duration::MAX, ..settings() }),
    ];
    insta::assert_yaml_snapshot!(errors);
}

#[test]
fn the_state_tells_what_the_admin_api_promises() {
    let (driven, _) = Driven::moving(settings());
    let serving =
        Serving { ready: true, generation: 1, ranks: Vec::new(), static_map: false, failure: None, trouble: None };
    insta::assert_yaml_snapshot!(driven.rebalancer.seen().state(serving.clone()));
    let troubled = Serving { trouble: Some("maps cannot be recorded".to_owned()), ..serving };
    assert_eq!(driven.rebalancer.seen().state(troubled).degraded.as_deref(), Some("maps cannot be recorded"));
}

#[test]
fn a_step_never_commits_more_slots_than_can_pass_unnoticed() {
    let layers = 40;
    let map = ExpertMap::contiguous(MapShape::with_redundancy(layers, 4, 2, 0).unwrap()).unwrap();
    let target: Vec<ExpertId> = (0..layers).flat_map(|_| [0, 2, 1, 3].map(ExpertId)).collect();
    let work = transactions(&map, &ExpertMap::new(map.shape(), target).unwrap(), &one_node(), 1).unwrap();
    let mut moves = Moves::new(work);
    let (settings, mut number) = (Settings { staging_pages: 64, ..settings() }, 0);
    let moment = Moment { steps: 0, now: Duration::ZERO };
    let started = moves.start(&settings, moment, || {
        number += 1;
        TransactionId(number)
    });
    assert_eq!(started.len(), layers);
    for id in started {
        moves.staged(id, RankId(0), 1);
        moves.staged(id, RankId(1), 1);
    }
    let per_step: Vec<usize> = (1..=4).map(|step| moves.commit(step).len()).collect();
    assert_eq!(per_step, [16, 16, 8, 0], "2 slots each");
}
