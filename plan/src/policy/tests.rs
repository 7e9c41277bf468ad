use super::*;
use crate::ids::{ExpertId, NodeId};
use crate::load::ExpertLoad;
use crate::map::{MapShape, WHOLE};
use crate::moves::{best_first, transactions};
use crate::topology::Links;

/// Each rank may receive half a page in a second, and a plan lasts 10 s.
const TERMS: Terms = Terms {
    minimum_gain: 0.1,
    bytes_per_second: Some(500.0),
    moving_cost: 0.0,
    hysteresis: 0.0,
    ..Terms::usual(1000, 10.0)
};

const NEVER: History = History { windows_since_move: None };

fn map(slots: [u32; 4]) -> ExpertMap {
    let shape = MapShape { layers: 1, experts: 4, ranks: 2, slots_per_rank: 2 };
    ExpertMap::new(shape, slots.map(ExpertId).to_vec()).unwrap()
}

/// A plan that is to cover nothing.
fn case<'a>(
    expected: &'a Expected,
    current: &'a ExpertMap,
    topology: &'a Topology,
    transactions: &'a [Transaction],
) -> Case<'a> {
    Case { expected, current, topology, transactions, min_coverage: Coverage::default() }
}

fn decide_on(tokens: [u64; 4], maps: [[u32; 4]; 2], terms: &Terms, history: History) -> Decision {
    let (load, topology) = (ExpertLoad::from_rows(&[tokens.to_vec()]).unwrap(), Topology::single_node(2, 2));
    let [current, target] = maps.map(map);
    let transactions = transactions(&current, &target, &topology, 1).unwrap();
    let expected = Expected::known(&load);
    decide(&case(&expected, &current, &topology, &transactions), terms, history)
}

/// Ranks carry 18 and 2 before, 10 and 10 after: ratio 10 / 18 -> 1. Each rank receives one page in 2 s.
fn level(terms: &Terms, history: History) -> Decision {
    decide_on([9, 9, 1, 1], [[0, 1, 2, 3], [0, 2, 1, 3]], terms, history)
}

#[test]
fn a_gain_that_lasts_is_worth_its_bytes_and_comes_with_its_figures() {
    let decision = level(&Terms { moving_cost: 0.05, ..TERMS }, NEVER);
    assert_eq!(decision.reason, Reason::WorthIt);
    let figures = decision.figures;
    assert_eq!((figures.transactions, figures.left_out, figures.pages, figures.bytes), (1, 0, 2, 2000));
    let found = [
        figures.ratio_before,
        figures.ratio_after,
        figures.time_saved,
        figures.moving_seconds,
        figures.lasting_gain,
        figures.seconds_saved,
        figures.seconds_spent,
    ];
    let expected = [10.0 / 18.0, 1.0, 8.0 / 18.0, 2.0, 0.8 * 8.0 / 18.0, 8.0 * 8.0 / 18.0, 0.1];
    for (found, expected) in found.iter().zip(expected) {
        assert!((found - expected).abs() < 1e-12, "{found} instead of {expected}");
    }
}

#[test]
fn the_same_placement_in_other_slots_moves_nothing() {
    let decision = decide_on([9, 9, 1, 1], [[0, 1, 2, 3], [1, 0, 3, 2]], &TERMS, NEVER);
    assert_eq!((decision.reason, decision.figures.pages), (Reason::SamePlacement, 0));
}

#[test]
fn a_gain_below_the_minimum_moves_nothing() {
    assert_eq!(level(&Terms { minimum_gain: 0.5, ..TERMS }, NEVER).reason, Reason::GainTooSmall);
    let terms = Terms { minimum_gain: 0.0, ..TERMS };
    let worse = decide_on([9, 9, 1, 1], [[0, 2, 1, 3], [0, 1, 2, 3]], &terms, NEVER);
    assert_eq!(worse.reason, Reason::GainTooSmall);
}

#[test]
fn a_plan_that_takes_most_of_its_life_to_arrive_moves_nothing() {
    for bytes_per_second in [125.0, 100.0, 0.0] {
        let terms = Terms { bytes_per_second: Some(bytes_per_second), ..TERMS };
        assert_eq!(level(&terms, NEVER).reason, Reason::MovesTooLong, "{bytes_per_second}");
    }
}

#[test]
fn what_moving_takes_from_steps_must_be_less_than_what_it_saves() {
    // 2 s of moving cost 1.8 times themselves, 3.6 s; 8 s of 8 / 18 less are 3.56 s.
    assert_eq!(level(&Terms { moving_cost: 1.8, ..TERMS }, NEVER).reason, Reason::CostsMoreThanItSaves);
    assert_eq!(level(&Terms { moving_cost: 1.7, ..TERMS }, NEVER).reason, Reason::WorthIt);
}

#[test]
fn the_least_gain_is_larger_after_a_move_and_falls_back_by_half_with_each_window() {
    // The gain is 0.444; 0.4 is wanted, and 0.4 x (1 + 0.3), x (1 + 0.15), x (1 + 0.075) after a move.
    let terms = Terms { minimum_gain: 0.4, bytes_per_second: None, hysteresis: 0.3, ..TERMS };
    let after = |windows| level(&terms, History { windows_since_move: Some(windows) }).reason;
    let expected = [Reason::WithinBand, Reason::WithinBand, Reason::WorthIt];
    assert_eq!([1, 2, 3].map(after), expected);
    assert_eq!(level(&terms, NEVER).reason, Reason::WorthIt);
}

#[test]
fn nothing_moves_while_a_move_cools_down_however_large_the_gain() {
    let terms = Terms { cool_down: 2, ..TERMS };
    let after = |windows| level(&terms, History { windows_since_move: Some(windows) }).reason;
    assert_eq!([1, 2, 3].map(after), [Reason::CoolingDown, Reason::CoolingDown, Reason::WorthIt]);
}

#[test]
fn a_budget_cuts_a_plan_to_the_part_that_pays_most() {
    // Two layers, the second with ten times the load. One transaction of two pages each.
    let shape = MapShape { layers: 2, experts: 4, ranks: 2, slots_per_rank: 2 };
    let map =
        |layer: [u32; 4]| ExpertMap::new(shape, [layer, layer].concat().into_iter().map(ExpertId).collect()).unwrap();
    let (current, target) = (map([0, 1, 2, 3]), map([0, 2, 1, 3]));
    let load = ExpertLoad::from_rows(&[vec![9, 9, 1, 1], vec![90, 90, 10, 10]]).unwrap();
    let topology = Topology::single_node(2, 2);
    let expected = Expected::known(&load);
    let transactions = best_first(&current, &target, &expected, &topology, 1).unwrap();
    let case = case(&expected, &current, &topology, &transactions);
    let with = |budget| decide(&case, &Terms { byte_budget: Some(budget), ..TERMS }, NEVER);
    assert_eq!((with(4000).reason, with(4000).figures.transactions), (Reason::WorthIt, 2));
    let Decision { reason, figures, .. } = with(3999);
    assert_eq!((reason, figures.transactions, figures.left_out, figures.bytes), (Reason::CutToBudget, 1, 1, 2000));
    assert!((figures.ratio_after - 110.0 / 118.0).abs() < 1e-12, "the second layer is level: {figures:?}");
    assert_eq!(with(1999).reason, Reason::OverBudget);
}

#[test]
fn a_cut_leaves_out_what_only_pays_with_a_transaction_beyond_it() {
    // Expert 0 is hot and has both ranks. Giving up its copy on rank 0 costs, and pays only once it is level again.
    let shape = MapShape { layers: 1, experts: 3, ranks: 2, slots_per_rank: 2 };
    let map = |slots: [u32; 4]| ExpertMap::new(shape, slots.map(ExpertId).to_vec()).unwrap();
    let (current, topology) = (map([0, 1, 0, 2]), Topology::single_node(2, 2));
    let load = ExpertLoad::from_rows(&[vec![90, 10, 10]]).unwrap();
    let there = transactions(&current, &map([2, 1, 0, 2]), &topology, 1).unwrap();
    let back = transactions(&map([2, 1, 0, 2]), &current, &topology, 1).unwrap();
    let both = [there, back].concat();
    let expected = Expected::known(&load);
    let case = case(&expected, &current, &topology, &both);
    let terms = Terms { byte_budget: Some(1000), ..TERMS };
    assert_eq!(decide(&case, &terms, NEVER).reason, Reason::OverBudget);
}

#[test]
fn shares_alone_cost_nothing_and_do_not_wait() {
    let shape = MapShape { layers: 1, experts: 3, ranks: 2, slots_per_rank: 2 };
    let even = ExpertMap::new(shape, [0, 1, 0, 2].map(ExpertId).to_vec()).unwrap();
    let shared = even.clone().with_shares(&[WHOLE / 4 * 3, WHOLE, WHOLE / 4, WHOLE]).unwrap();
    let (load, topology) = (ExpertLoad::from_rows(&[vec![1000, 300, 500]]).unwrap(), Topology::single_node(2, 2));
    let transactions = transactions(&even, &shared, &topology, 1).unwrap();
    let expected = Expected::known(&load);
    let case = case(&expected, &even, &topology, &transactions);
    let lately = History { windows_since_move: Some(1) };
    let terms = Terms { cool_down: 5, minimum_gain: 0.5, byte_budget: Some(0), ..TERMS };
    // Ranks carry 800 and 1000, then 1050 and 750: worse.
    let decision = decide(&case, &terms, lately);
    assert_eq!((decision.reason, decision.figures.bytes), (Reason::GainTooSmall, 0));
    let load = ExpertLoad::from_rows(&[vec![1000, 100, 600]]).unwrap();
    let expected = Expected::known(&load);
    let case = Case { expected: &expected, ..case };
    let decision = decide(&case, &terms, lately);
    assert_eq!((decision.reason, decision.figures.bytes), (Reason::SharesOnly, 0));
}

#[test]
fn the_slowest_link_that_pages_go_over_tells_how_long_they_take() {
    // Ranks 0 and 1 share a node. A page that rank 2 gets crosses nodes at 100 bytes a second, others go at 1000.
    let topology = Topology::new([0, 0, 1].map(NodeId).to_vec(), 1);
    let topology = topology.with_links(Links { within_nodes: 1000.0, between_nodes: 100.0 }).unwrap();
    let shape = MapShape { layers: 1, experts: 2, ranks: 3, slots_per_rank: 1 };
    let map = |slots: [u32; 3]| ExpertMap::new(shape, slots.map(ExpertId).to_vec()).unwrap();
    let seconds = |old, new, limit| {
        let transactions = transactions(&map(old), &map(new), &topology, 1).unwrap();
        moving_seconds(&transactions, &topology, &Terms { bytes_per_second: limit, ..TERMS }).to_bits()
    };
    assert_eq!(seconds([0, 1, 0], [0, 1, 1], None), 10.0_f64.to_bits());
    assert_eq!(seconds([0, 1, 0], [1, 1, 0], None), 1.0_f64.to_bits());
    assert_eq!(seconds([0, 1, 0], [1, 1, 0], Some(10.0)), 100.0_f64.to_bits());
    assert_eq!(seconds([0, 1, 0], [0, 1, 0], Some(10.0)), 0.0_f64.to_bits());
}

#[test]
fn without_load_there_is_nothing_to_gain() {
    let decision = decide_on([0; 4], [[0, 1, 2, 3], [0, 2, 1, 3]], &TERMS, NEVER);
    assert_eq!((decision.reason, decision.figures.time_saved.to_bits()), (Reason::GainTooSmall, 0.0_f64.to_bits()));
}

#[test]
fn a_decision_can_be_read_again_and_decided_again() {
    let histories = [NEVER, History { windows_since_move: Some(1) }];
    let all = [TERMS, Terms { minimum_gain: 0.4, hysteresis: 1.0, ..TERMS }, Terms { byte_budget: Some(0), ..TERMS }];
    for (terms, history) in all.iter().flat_map(|terms| histories.map(|history| (terms, history))) {
        let decision = level(terms, history);
        let read: Decision = serde_json::from_str(&serde_json::to_string(&decision).unwrap()).unwrap();
        assert_eq!((read, read.replay()), (decision, decision.reason));
    }
}

#[test]
fn reasons_are_words_that_labels_and_documents_can_carry() {
    assert_eq!(Reason::CostsMoreThanItSaves.to_string(), "costs_more_than_it_saves");
    assert_eq!(serde_json::to_string(&Reason::CutToBudget).unwrap(), "\"cut_to_budget\"");
}

#[test]
fn copies_that_the_coverage_asks_for_need_no_gain_and_wait_for_nothing() {
    // Expert 1 is on rank 0 alone; in the target each is on two ranks.
    let shape = MapShape { layers: 1, experts: 3, ranks: 3, slots_per_rank: 2 };
    let map = |slots: [u32; 6]| ExpertMap::new(shape, slots.map(ExpertId).to_vec()).unwrap();
    let (current, target) = (map([0, 1, 0, 2, 0, 2]), map([0, 1, 0, 2, 1, 2]));
    let (load, topology) = (ExpertLoad::from_rows(&[vec![6, 3, 1]]).unwrap(), Topology::single_node(3, 2));
    let (transactions, expected) = (transactions(&current, &target, &topology, 1).unwrap(), Expected::known(&load));
    let wanting = |ranks, byte_budget| {
        let min_coverage = Coverage { ranks, nodes: 0 };
        let case = Case {
            expected: &expected,
            current: &current,
            topology: &topology,
            transactions: &transactions,
            min_coverage,
        };
        let terms = Terms { cool_down: 5, byte_budget, minimum_gain: 0.9, ..TERMS };
        decide(&case, &terms, History { windows_since_move: Some(1) })
    };
    assert_eq!(wanting(0, None).reason, Reason::CoolingDown);
    let Decision { reason, figures, .. } = wanting(1, None);
    assert_eq!((reason, figures.uncovered_before, figures.uncovered_after), (Reason::Covers, 1, 0));
    assert_eq!(wanting(1, Some(999)).reason, Reason::OverBudget);
    assert_eq!(wanting(2, None).reason, Reason::CoolingDown, "more than the slots allow is no reason to move");
}
