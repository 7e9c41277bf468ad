//! What the planner does with the windows that the rebalancer keeps for it: each family of loads is answered by the part that was
//! written for it.

use std::collections::{BTreeMap, VecDeque};

use plan::balance::{Branch, Policy, Request, balance};
use plan::coverage::Coverage;
use plan::map::MapShape;
use plan::policy::Terms;
use plan::topology::Topology;

use super::*;
use crate::experts::planner::Planner;
use crate::protocol::StepTiming;

const SHAPE: MapShape = MapShape { layers: 2, experts: 32, ranks: 8, slots_per_rank: 5 };

struct Random(u64);

impl Random {
    /// Evenly from 0 to 1.
    fn unit(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// About normal, with a variance of 1.
    fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.unit()).sum::<f64>() - 6.0
    }
}

/// Tokens of each expert in a window of a layer.
type Law = fn(&mut Random, window: usize, expert: usize, state: &mut [f64]) -> f64;

fn popularity(expert: usize) -> f64 {
    20_000.0 / (1.0 + (expert * 7 % 32) as f64)
}

fn calm(_: &mut Random, _: usize, expert: usize, _: &mut [f64]) -> f64 {
    popularity(expert)
}

fn noisy(random: &mut Random, _: usize, expert: usize, _: &mut [f64]) -> f64 {
    popularity(expert) * (1.0 + 0.02 * random.normal())
}

fn drifting(random: &mut Random, _: usize, expert: usize, state: &mut [f64]) -> f64 {
    state[expert] += 0.1 * random.normal();
    popularity(expert) * state[expert].clamp(-4.0, 4.0).exp()
}

/// Eight experts burst in two clusters, which the first and the fifth decide on.
fn bursting(random: &mut Random, _: usize, expert: usize, state: &mut [f64]) -> f64 {
    if expert < 8 && expert.is_multiple_of(4) {
        state[expert / 4] = f64::from(u8::from(random.unit() < 0.2));
    }
    let on = expert < 8 && state[expert / 4] > 0.0;
    4_000.0 * if on { 6.0 } else { 1.0 } * (1.0 + 0.01 * random.normal())
}

/// At once, other experts are popular.
fn shifting(_: &mut Random, window: usize, expert: usize, _: &mut [f64]) -> f64 {
    popularity(if window < 10 { expert } else { 31 - expert })
}

/// A group whose ranks stage whatever is ordered, with the planner that the coordinator has.
struct Group {
    rebalancer: Rebalancer,
    planner: Planner,
    topology: Topology,
    step: u64,
    /// What answered, by window and layer.
    branches: Vec<Vec<Branch>>,
    pages: Vec<u64>,
}

impl Group {
    fn new() -> Self {
        let map = ExpertMap::contiguous(SHAPE).unwrap();
        let model = ModelIdentity { layers: SHAPE.layers, experts: SHAPE.experts, ..model() };
        let settings = Settings { window_steps: 10_000, ..settings() };
        let planner = Planner {
            policy: Policy::default(),
            staging_pages: settings.staging_pages,
            min_coverage: Coverage::default(),
            terms: Terms::usual(1000, 60.0),
        };
        let topology = Topology::single_node(SHAPE.ranks, SHAPE.slots_per_rank);
        let rebalancer = Rebalancer::new(settings, model, map, 0).unwrap();
        let mut group = Self { rebalancer, planner, topology, step: 0, branches: Vec::new(), pages: Vec::new() };
        group.on(Event::GroupFormed { generation: 1 });
        group
    }

    fn on(&mut self, event: Event<'_>) {
        let effects = self.rebalancer.on(event);
        self.carry_out(effects);
    }

    fn carry_out(&mut self, effects: Vec<Effect>) {
        let mut effects = VecDeque::from(effects);
        while let Some(effect) = effects.pop_front() {
            match effect {
                Effect::Plan(request) => {
                    self.note(&request);
                    let outcome = self.planner.plan(&request, &self.topology);
                    effects.extend(self.rebalancer.on(Event::Planned { request: request.number, outcome }));
                }
                Effect::Order { rank, order: ToRank::Stage { generation, transaction, .. } } => {
                    effects.extend(self.rebalancer.on(moved(generation, rank.0, transaction, Ok(1))));
                }
                Effect::Order { .. } | Effect::Record(_) | Effect::Notice(_) => {}
            }
        }
    }

    fn note(&mut self, request: &PlanRequest) {
        let Goal::Balance { windows, .. } = &request.goal else { return };
        let (policy, min_coverage) = (self.planner.policy, self.planner.min_coverage);
        let current = Some(&request.map);
        let request = Request { policy, windows, topology: &self.topology, current, min_coverage };
        self.branches.push(balance(&request).unwrap().branches);
    }

    fn step(&mut self, tokens: &[Vec<u64>]) {
        self.step += 1;
        self.rebalancer.commits_for(self.step);
        let map = self.rebalancer.map().clone();
        let counts: Vec<Vec<u32>> = map.layers().map(|layer| map.copy_counts(layer)).collect();
        let of_rank = |rank: usize| {
            let slots = map.layers().flat_map(|layer| {
                let (tokens, counts) = (&tokens[layer.index()], &counts[layer.index()]);
                map.rank(layer, rank.into())
                    .iter()
                    .map(move |expert| (tokens[expert.index()] / u64::from(counts[expert.index()])) as u32)
            });
            let (generation, number) = (1, self.step);
            let timing = StepTiming::default();
            StepDone { generation, number, outputs: Vec::new(), slot_pairs: slots.collect(), timing }
        };
        let answers: Vec<StepDone> = (0..SHAPE.ranks).map(of_rank).collect();
        let now = Duration::from_millis(10 * self.step);
        self.on(Event::StepDone { number: self.step, now, answers: &answers });
    }

    /// Runs a window, plans, and moves until nothing is left to do.
    fn window(&mut self, tokens: &[Vec<u64>]) {
        let before = self.rebalancer.totals.experts_moved;
        self.step(tokens);
        let effects = self.rebalancer.trigger().unwrap();
        self.carry_out(effects);
        let idle = vec![vec![0; SHAPE.experts]; SHAPE.layers];
        for _ in 0..1000 {
            if self.rebalancer.phase() == wire::Phase::Collecting {
                break;
            }
            self.step(&idle);
        }
        assert_eq!(self.rebalancer.phase(), wire::Phase::Collecting);
        self.pages.push(self.rebalancer.totals.experts_moved - before);
    }

    fn follow(law: Law, windows: usize) -> Self {
        let (mut group, mut random) = (Self::new(), Random(7));
        let mut states = vec![vec![0.0; SHAPE.experts]; SHAPE.layers];
        for window in 0..windows {
            let of_layer = |state: &mut Vec<f64>| {
                (0..SHAPE.experts).map(|expert| law(&mut random, window, expert, state).max(0.0) as u64).collect()
            };
            group.window(&states.iter_mut().map(of_layer).collect::<Vec<_>>());
        }
        group
    }

    /// How often each branch answered in the windows from one on.
    fn answered(&self, from: usize) -> BTreeMap<Branch, usize> {
        let mut answered = BTreeMap::new();
        self.branches[from..].iter().flatten().for_each(|branch| *answered.entry(*branch).or_default() += 1);
        answered
    }
}

#[test]
fn calm_noisy_drifting_and_shifting_loads_are_answered_by_few_changes_of_the_map_in_force() {
    for (name, law) in [("calm", calm as Law), ("noisy", noisy), ("drifting", drifting), ("shifting", shifting)] {
        let group = Group::follow(law, 20);
        assert_eq!(group.answered(0), BTreeMap::from([(Branch::InForce, 40)]), "{name}");
    }
}

#[test]
fn loads_that_come_in_bursts_are_answered_by_the_planner_for_bursts() {
    let group = Group::follow(bursting, 24);
    let answered = group.answered(12);
    assert!(answered[&Branch::Bursts] >= 20, "{answered:?}");
}

#[test]
fn noise_moves_nothing_and_drift_is_followed() {
    for law in [calm as Law, noisy] {
        let pages = Group::follow(law, 24).pages;
        let moved = pages[3..].iter().filter(|&&pages| pages > 0).count();
        assert!(moved <= 1, "{pages:?}");
    }
    let pages = Group::follow(drifting, 24).pages;
    assert!(pages[3..].iter().filter(|&&pages| pages > 0).count() >= 3, "{pages:?}");
}

#[test]
fn a_shift_is_followed_at_once_and_a_window_without_load_is_as_if_it_had_not_been() {
    let pages = Group::follow(shifting, 12).pages;
    assert!(pages[10] > 0 && pages[5..10].iter().sum::<u64>() == 0, "{pages:?}");
    let mut group = Group::follow(calm, 3);
    let (loads, plans) = (group.rebalancer.windows.loads().len(), group.branches.len());
    group.step(&vec![vec![0; SHAPE.experts]; SHAPE.layers]);
    assert_eq!(group.rebalancer.trigger(), Err(Refusal::NoLoad));
    assert_eq!((group.rebalancer.windows.loads().len(), group.branches.len()), (loads, plans));
}
