//! The policies on the loads of the tiny model of `examples`: (token, expert) pairs of 19,712 tokens of each of six
//! kinds of text, 4 layers of 32 experts, top-4.
#![allow(clippy::unwrap_used, reason = "the rule about tests does not reach functions that tests share")]

use std::collections::BTreeMap;

use plan::balance::{Policy, Request, balance};
use plan::coverage::Coverage;
use plan::expected::Expected;
use plan::load::{ExpertLoad, balance_ratio, rank_loads};
use plan::map::{ExpertMap, MapShape};
use plan::moves::{best_first, moved_slots};
use plan::policy::{Case, Decision, History, Terms, decide};
use plan::topology::Topology;

const RANKS: usize = 4;
const REDUNDANCY: usize = 4;

fn loads() -> BTreeMap<String, ExpertLoad> {
    let rows: BTreeMap<String, Vec<Vec<u64>>> =
        serde_json::from_str(include_str!("fixtures/tiny-moe-load.json")).expect("the fixture is valid");
    rows.into_iter().map(|(domain, rows)| (domain, ExpertLoad::from_rows(&rows).expect("rows are even"))).collect()
}

fn start(load: &ExpertLoad) -> ExpertMap {
    let shape = MapShape::with_redundancy(load.layers(), load.experts(), RANKS, REDUNDANCY).unwrap();
    ExpertMap::contiguous(shape).unwrap()
}

fn plan(policy: Policy, load: &ExpertLoad, current: &ExpertMap) -> ExpertMap {
    let topology = Topology::single_node(RANKS, current.shape().slots_per_rank);
    let windows = std::slice::from_ref(load);
    balance(&Request {
        policy,
        windows,
        topology: &topology,
        current: Some(current),
        min_coverage: Coverage::default(),
    })
    .unwrap()
    .map
}

fn ratio(map: &ExpertMap, load: &ExpertLoad) -> f64 {
    balance_ratio(&rank_loads(map, load))
}

#[test]
fn swift_balances_each_kind_of_text_from_the_initial_placement() {
    for (domain, load) in loads() {
        let start = start(&load);
        let target = plan(Policy::Swift, &load, &start);
        assert!(ratio(&target, &load) >= 0.99, "{domain}: {}", ratio(&target, &load));
    }
}

#[test]
fn swift_moves_at_most_two_fifths_of_what_deepseek_moves_when_traffic_shifts() {
    let loads = loads();
    let (mut swift_moves, mut deepseek_moves) = (0, 0);
    for (from, before) in &loads {
        for (to, after) in loads.iter().filter(|(to, _)| *to != from) {
            let current = plan(Policy::Swift, before, &start(before));
            let swift = plan(Policy::Swift, after, &current);
            let deepseek = plan(Policy::DeepSeek, after, &current);
            assert!(ratio(&swift, after) >= 0.99, "{from} to {to}: {}", ratio(&swift, after));
            swift_moves += moved_slots(&current, &swift).unwrap();
            deepseek_moves += moved_slots(&current, &deepseek).unwrap();
        }
    }
    assert!(5 * swift_moves <= 2 * deepseek_moves, "{swift_moves} slots against {deepseek_moves}");
}

/// What the runtime decides on when traffic shifts to a load, with pages of the tiny model: 3 x 64 x 128 weights of 2 bytes.
fn decision(policy: Policy, load: &ExpertLoad, current: &ExpertMap) -> Decision {
    let topology = Topology::single_node(RANKS, current.shape().slots_per_rank);
    let target = plan(policy, load, current);
    let expected = &Expected::known(load);
    let transactions = best_first(current, &target, expected, &topology, 16).unwrap();
    let case =
        Case { expected, current, topology: &topology, transactions: &transactions, min_coverage: Coverage::default() };
    decide(&case, &Terms::usual(3 * 64 * 128 * 2, 60.0), History::default())
}

#[test]
fn what_swift_decides_on_needs_at_most_half_of_the_bytes_of_deepseek_for_its_ratio() {
    let loads = loads();
    let (mut swift_bytes, mut deepseek_bytes, mut swift_ratios, mut deepseek_ratios) = (0, 0, 0.0, 0.0);
    let mut cases = 0.0;
    let mut add = |load: &ExpertLoad, current: &ExpertMap| {
        let (swift, deepseek) = (decision(Policy::Swift, load, current), decision(Policy::DeepSeek, load, current));
        assert!(swift.figures.ratio_after >= 0.98, "{swift:?}");
        swift_bytes += swift.figures.bytes;
        deepseek_bytes += deepseek.figures.bytes;
        swift_ratios += swift.figures.ratio_after;
        deepseek_ratios += deepseek.figures.ratio_after;
        cases += 1.0;
    };
    for before in loads.values() {
        add(before, &start(before));
        let current = plan(Policy::Swift, before, &start(before));
        loads.values().filter(|after| *after != before).for_each(|after| add(after, &current));
    }
    let (swift, deepseek) = (swift_ratios / cases, deepseek_ratios / cases);
    println!(
        "swift: {swift_bytes} bytes, mean ratio {swift:.4}; deepseek: {deepseek_bytes} bytes, mean ratio {deepseek:.4}"
    );
    assert!(swift >= deepseek - 0.005, "{swift} against {deepseek}");
    assert!(2 * swift_bytes <= deepseek_bytes, "{swift_bytes} bytes against {deepseek_bytes}");
}
