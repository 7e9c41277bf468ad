mod committing;
mod invariants;
mod reach;
mod trouble;
mod windows;
mod wishes;

use plan::coverage::Coverage;
use plan::expected::Expected;
use plan::ids::{ExpertId, LayerId, RankId};
use plan::load::{ExpertLoad, WINDOWS_KEPT};
use plan::map::MapShape;
use plan::moves::transactions;
use plan::policy::{Case, Reason, Terms, decide};
use plan::topology::Topology;
use plan::wire::{self, MapDocument};

use super::*;
use crate::protocol::{SlotPairs, StepTiming};

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
    Settings { dynamic: true, window_steps: 40, wait_steps: 30, staging_pages: 2, deadline: Duration::from_secs(10) }
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

/// A rebalancer with a driver: runs steps, keeps orders, plans and notices.
struct Driven {
    rebalancer: Rebalancer,
    step: u64,
    now: Duration,
    /// Pairs of each slot of rank 0 and 1 in every step, `[ranks][layers * slots]`.
    pairs: [Vec<u32>; 2],
    orders: Vec<(RankId, ToRank)>,
    plans: Vec<PlanRequest>,
    notices: Vec<Notice>,
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
            notices: Vec::new(),
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
                Effect::Notice(notice) => self.notices.push(notice),
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
            slot_pairs: SlotPairs::from(pairs.as_slice()),
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
        self.failed_for(MoveFailure::Corrupt, transaction, rank);
    }

    fn failed_for(&mut self, reason: MoveFailure, transaction: TransactionId, rank: u32) {
        let message = "page is corrupt".to_owned();
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
        self.notices.iter().find_map(|notice| match notice {
            Notice::Dropped { reason } => Some(reason.as_str()),
            _ => None,
        })
    }
}

#[test]
fn settings_out_of_range_are_refused() {
    let refuse = |settings| Rebalancer::new(settings, model(), start(), 0).unwrap_err().to_string();
    let errors = [
        refuse(Settings { wait_steps: 29, ..settings() }),
        refuse(Settings { window_steps: 0, ..settings() }),
        refuse(Settings { staging_pages: 0, ..settings() }),
        refuse(Settings { deadline: Duration::MAX, ..settings() }),
    ];
    insta::assert_yaml_snapshot!(errors);
}

#[test]
fn the_state_tells_what_the_admin_api_promises() {
    let (driven, _) = Driven::moving(settings());
    let service = Service { ready: true, generation: 1, static_map: false, failure: None, trouble: None };
    insta::assert_yaml_snapshot!(driven.rebalancer.seen().state(service.clone(), Vec::new()));
    let troubled = Service { trouble: Some("maps cannot be recorded".to_owned()), ..service };
    assert_eq!(
        driven.rebalancer.seen().state(troubled, Vec::new()).degraded.as_deref(),
        Some("maps cannot be recorded")
    );
}
