//! What must hold for every decision whether to move.

use plan::balance::{Policy, Request, balance};
use plan::coverage::Coverage;
use plan::expected::Expected;
use plan::ids::RankId;
use plan::load::{ExpertLoad, rank_loads};
use plan::map::ExpertMap;
use plan::moves::{best_first, moved_slots};
use plan::policy::{Case, Decision, History, MINIMUM_GAIN, Reason, Terms, decide};
use plan::topology::Topology;
use proptest::prelude::*;

use super::cases::{groups, loads, maps, one_node, shapes, windows};

const PAGE: u64 = 1000;

fn terms() -> impl Strategy<Value = Terms> {
    let rates = (
        prop_oneof![Just(0.0), 0.0..0.2_f64],
        prop::option::of(prop_oneof![Just(0.0), 1.0..1e6_f64]),
        prop_oneof![Just(0.0), 0.1..1e4_f64],
        0.0..2.0_f64,
    );
    let limits = (prop::option::of(0..60_u64), 0..4_u64, 0.0..2.0_f64);
    (rates, limits).prop_map(|((minimum_gain, bytes_per_second, lifetime_seconds, moving_cost), limits)| Terms {
        minimum_gain,
        bytes_per_second,
        moving_cost,
        byte_budget: limits.0.map(|pages| pages * PAGE),
        cool_down: limits.1,
        hysteresis: limits.2,
        ..Terms::usual(PAGE, lifetime_seconds)
    })
}

fn histories() -> impl Strategy<Value = History> {
    prop::option::of(0..5_u64).prop_map(|windows_since_move| History { windows_since_move })
}

/// Balance ratio of a map on ranks of different speeds, all layers together, counted here once more.
fn ratio(map: &ExpertMap, load: &ExpertLoad, topology: &Topology) -> f64 {
    let with_slots = map.slots_of_ranks().counts().zip(topology.speeds()).filter(|(slots, _)| *slots > 0);
    let speed: f64 = with_slots.map(|(_, speed)| speed).sum();
    let (mut mean, mut busiest) = (0.0, 0.0);
    for ranks in rank_loads(map, load) {
        mean += ranks.iter().sum::<f64>() / speed;
        busiest += ranks.iter().zip(topology.speeds()).map(|(load, speed)| load / speed).fold(0.0, f64::max);
    }
    if busiest > 0.0 { mean / busiest } else { 1.0 }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn a_decision_to_move_never_lowers_the_ratio(
        (load, old, new) in shapes().prop_flat_map(|shape| (loads(shape), maps(shape), maps(shape))),
    ) {
        let topology = one_node(&old);
        let expected = &Expected::known(&load);
        let ordered = best_first(&old, &new, expected, &topology, 1).unwrap();
        let case = Case { expected, current: &old, topology: &topology, transactions: &ordered, min_coverage: Coverage::default() };
        let decision = decide(&case, &Terms::usual(1, 60.0), History::default());
        let figures = decision.figures;
        prop_assert_eq!(figures.pages as usize, moved_slots(&old, &new).unwrap());
        prop_assert!((0.0..=1.0 + 1e-9).contains(&figures.ratio_after), "{figures:?}");
        if decision.moves() {
            prop_assert!(figures.ratio_after >= figures.ratio_before + MINIMUM_GAIN, "{figures:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn what_is_decided_can_be_carried_out_keeps_its_figures_and_is_decided_again_the_same(
        (group, old, new, windows) in groups().prop_flat_map(|group| {
            (Just(group.clone()), group.maps(), group.maps(), windows(group.layers, group.experts, 1..3))
        }),
        planned in any::<bool>(),
        terms in terms(),
        history in histories(),
    ) {
        let (load, topology) = (&windows[0], &group.topology);
        let current = Some(&old);
        let request = Request { policy: Policy::Swift, windows: &windows, topology, current, min_coverage: Coverage::default() };
        let target = if planned { balance(&request).unwrap().map } else { new };
        let expected = &Expected::known(load);
        let ordered = best_first(&old, &target, expected, topology, 1).unwrap();
        let case = Case { expected, current: &old, topology, transactions: &ordered, min_coverage: Coverage::default() };
        let decision = decide(&case, &terms, history);
        prop_assert_eq!(decision.replay(), decision.reason);
        let read: Decision = serde_json::from_str(&serde_json::to_string(&decision).unwrap()).unwrap();
        prop_assert_eq!((read, read.replay()), (decision, decision.reason));

        let figures = decision.figures;
        prop_assert_eq!(figures.transactions + figures.left_out, ordered.len());
        let (done, left_out) = ordered.split_at(figures.transactions);
        let changes = || done.iter().flat_map(|transaction| &transaction.changes);
        prop_assert_eq!(figures.pages as usize, changes().count());
        let node = |rank: RankId| topology.node(rank);
        let between = changes().filter(|change| node(change.source) != node(change.rank)).count();
        prop_assert_eq!(figures.pages_between_nodes as usize, between);
        prop_assert_eq!(figures.bytes, figures.pages * PAGE);
        prop_assert!(terms.byte_budget.is_none_or(|budget| figures.bytes <= budget), "{decision:?}");
        let mut map = old.clone();
        for transaction in done {
            map.apply_in_place(transaction).unwrap();
        }
        let [before, after] = [&old, &map].map(|map| ratio(map, load, topology));
        prop_assert!((figures.ratio_before / before - 1.0).abs() < 1e-6, "{before}: {figures:?}");
        prop_assert!((figures.ratio_after / after - 1.0).abs() < 1e-6, "{after}: {figures:?}");
        prop_assert!(figures.moving_seconds >= 0.0 && figures.moving_seconds.is_finite(), "{figures:?}");
        if decision.moves() {
            prop_assert!(figures.ratio_after > figures.ratio_before, "{decision:?}");
            let cooling = history.windows_since_move.is_some_and(|windows| windows <= terms.cool_down);
            prop_assert!(figures.pages == 0 || !cooling, "{decision:?}");
        }
        prop_assert_eq!(decision.reason == Reason::SamePlacement, ordered.is_empty());
        if decision.reason == Reason::CutToBudget {
            prop_assert!(!left_out.is_empty());
        }
    }
}
