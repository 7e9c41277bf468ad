use super::*;
use crate::ids::{ExpertId, LayerId, RankId};
use crate::load::{balance_ratio, rank_loads};
use crate::map::MapShape;
use crate::moves::moved_slots;
use crate::slots::RankSlots;

fn map(shape: MapShape, slots: &[u32]) -> ExpertMap {
    ExpertMap::new(shape, slots.iter().map(|&expert| ExpertId(expert)).collect()).unwrap()
}

fn plan(policy: Policy, load: &ExpertLoad, topology: &Topology, current: &ExpertMap) -> Result<Plan, BalanceError> {
    let windows = std::slice::from_ref(load);
    balance(&Request { policy, windows, topology, current: Some(current), min_coverage: Coverage::default() })
}

fn swift(load: &[u64], current: &ExpertMap) -> ExpertMap {
    let shape = current.shape();
    let load = ExpertLoad::from_rows(&[load.to_vec()]).unwrap();
    plan(Policy::Swift, &load, &Topology::single_node(shape.ranks, shape.slots_per_rank), current).unwrap().map
}

#[test]
fn policies_are_read_and_written_by_name() {
    for policy in Policy::ALL {
        assert_eq!(policy.to_string().parse(), Ok(policy));
        assert_eq!(serde_json::to_string(&policy).unwrap(), format!("\"{policy}\""));
    }
    let refused = "Swift".parse::<Policy>().unwrap_err().to_string();
    assert_eq!(refused, "no policy is called \"Swift\"; the policies are off, deepseek and swift");
}

#[test]
fn a_load_of_another_model_is_refused() {
    let current = ExpertMap::contiguous(MapShape { layers: 1, experts: 4, ranks: 2, slots_per_rank: 2 }).unwrap();
    let refused = plan(Policy::Swift, &ExpertLoad::zero(1, 5), &Topology::single_node(2, 2), &current).unwrap_err();
    assert_eq!(refused, BalanceError::Load { layers: 1, experts: 5, map_layers: 1, map_experts: 4 });
}

#[test]
fn windows_of_different_models_and_no_window_are_refused() {
    let topology = Topology::single_node(2, 2);
    let refused = |windows: &[ExpertLoad]| {
        let request = Request {
            policy: Policy::Swift,
            windows,
            topology: &topology,
            current: None,
            min_coverage: Coverage::default(),
        };
        balance(&request).unwrap_err()
    };
    assert_eq!(refused(&[]), BalanceError::NoWindow);
    let expected = BalanceError::Windows { layers: 1, experts: 3, first_layers: 1, first_experts: 4 };
    assert_eq!(refused(&[ExpertLoad::zero(1, 4), ExpertLoad::zero(1, 3)]), expected);
}

#[test]
fn off_keeps_the_placement_in_force() {
    let current = ExpertMap::contiguous(MapShape { layers: 1, experts: 4, ranks: 2, slots_per_rank: 2 }).unwrap();
    let load = ExpertLoad::from_rows(&[vec![9, 9, 1, 1]]).unwrap();
    let kept = plan(Policy::Off, &load, &Topology::single_node(2, 2), &current);
    assert_eq!(
        kept,
        Ok(Plan {
            map: current,
            branches: vec![Branch::Kept],
            expected: Expected::known(&load),
            windows: 1,
            uncovered: 0
        })
    );
}

#[test]
fn after_a_loss_off_brings_back_what_was_lost_and_moves_nothing_else() {
    // Of rank 2 only expert 4 is on no other; 0 and 1 have a copy to spare.
    let current = map(MapShape { layers: 1, experts: 5, ranks: 3, slots_per_rank: 3 }, &[0, 1, 2, 0, 1, 3, 4, 2, 3]);
    let load = ExpertLoad::from_rows(&[vec![90, 5, 5, 5, 5]]).unwrap();
    let survivors = Topology::single_node(3, 3).without(&[RankId(2)]);
    let plan = plan(Policy::Off, &load, &survivors, &current).unwrap().map;
    assert_eq!((moved_slots(&current, &plan), plan.copy_counts(LayerId(0))), (Ok(1), vec![2, 1, 1, 1, 1]));
}

#[test]
fn the_published_algorithm_plans_for_the_ranks_that_are_left() {
    let contiguous =
        |ranks| ExpertMap::contiguous(MapShape { layers: 1, experts: 4, ranks, slots_per_rank: 2 }).unwrap();
    let load = ExpertLoad::from_rows(&[vec![90, 60, 40, 20]]).unwrap();
    let planned = |topology: &Topology, current| plan(Policy::DeepSeek, &load, topology, &current).unwrap().map;
    let left = planned(&Topology::single_node(4, 2).without(&[RankId(1)]), contiguous(4));
    let alone = planned(&Topology::single_node(3, 2), contiguous(3));
    let loads = |map: &ExpertMap| {
        let mut loads = rank_loads(map, &load).remove(0);
        loads.sort_by(f64::total_cmp);
        loads
    };
    assert_eq!(loads(&left)[1..], loads(&alone), "{left:?}");
    assert_eq!(left.slots_of_ranks(), &RankSlots::new([2, 0, 2, 2]));
}

#[test]
fn swift_moves_nothing_while_nothing_is_to_be_gained() {
    let current = ExpertMap::contiguous(MapShape { layers: 1, experts: 6, ranks: 3, slots_per_rank: 3 }).unwrap();
    let even = map(current.shape(), &[0, 1, 2, 3, 4, 0, 5, 1, 2]);
    assert_eq!(swift(&[200, 200, 200, 100, 100, 100], &even), even);
}

#[test]
fn swift_exchanges_one_pair_when_that_is_enough() {
    let current = ExpertMap::contiguous(MapShape { layers: 1, experts: 4, ranks: 2, slots_per_rank: 2 }).unwrap();
    let target = swift(&[9, 9, 1, 1], &current);
    assert_eq!(target.layer(LayerId(0)).iter().map(|expert| expert.0).collect::<Vec<_>>(), [2, 1, 0, 3]);
}

#[test]
fn swift_gives_a_hot_expert_more_copies_for_one_page_each() {
    // Expert 0 carries almost everything, expert 1 has the spare copies.
    let shape = MapShape { layers: 1, experts: 5, ranks: 4, slots_per_rank: 2 };
    let current = map(shape, &[0, 1, 2, 1, 3, 1, 4, 1]);
    let target = swift(&[1000, 4, 4, 4, 4], &current);
    assert_eq!(target.copy_counts(LayerId(0)), [4, 1, 1, 1, 1]);
    assert_eq!(moved_slots(&current, &target), Ok(3));
}

#[test]
fn swift_starts_from_scratch_where_the_placement_in_force_is_a_dead_end() {
    // 24 ranks with 2 slots each, all the spare copies are of cold experts: as good as a packing from scratch.
    let shape = MapShape { layers: 1, experts: 40, ranks: 24, slots_per_rank: 2 };
    let load: Vec<u64> = (1..=40_u64).map(|expert| 10_000 / (expert * expert)).collect();
    let current = ExpertMap::new(shape, (0..48_u32).map(|slot| ExpertId(39 - slot % 40)).collect()).unwrap();
    let rows = ExpertLoad::from_rows(std::slice::from_ref(&load)).unwrap();
    let deepseek = plan(Policy::DeepSeek, &rows, &Topology::single_node(24, 2), &current).unwrap().map;
    let ratio = |map: &ExpertMap| balance_ratio(&rank_loads(map, &rows));
    let target = swift(&load, &current);
    assert!(ratio(&target) >= 0.98 * ratio(&deepseek), "{} against {}", ratio(&target), ratio(&deepseek));
    let anew = Request {
        policy: Policy::Swift,
        windows: std::slice::from_ref(&rows),
        topology: &Topology::single_node(24, 2),
        current: None,
        min_coverage: Coverage::default(),
    };
    let anew = balance(&anew).unwrap().map;
    assert!(
        moved_slots(&current, &target).unwrap() < moved_slots(&current, &anew).unwrap(),
        "ranks keep what they can"
    );
}

#[test]
fn swift_splits_an_expert_that_stands_out_though_an_exchange_would_balance_the_window() {
    // Ranks carry 70 and 38; exchanging 2 and 3 would give 56 and 52 with all 47 of expert 0 still on one rank.
    let current = map(MapShape { layers: 1, experts: 5, ranks: 2, slots_per_rank: 3 }, &[0, 1, 2, 1, 3, 4]);
    assert_eq!(swift(&[47, 0, 23, 9, 29], &current).copy_counts(LayerId(0))[0], 2);
}

#[test]
fn swift_moves_no_page_where_shares_level_the_ranks() {
    // Ranks carry 50 and 36 (thousands), and expert 0 is on both: with 13 of its 40 on rank 0 both carry 43.
    let current = map(MapShape { layers: 1, experts: 3, ranks: 2, slots_per_rank: 2 }, &[0, 1, 0, 2]);
    let target = swift(&[40_000, 30_000, 16_000], &current);
    assert_eq!(target.layer(LayerId(0)), current.layer(LayerId(0)));
    let fractions = target.fractions(LayerId(0));
    assert!((fractions[0] * 40.0 - 13.0).abs() < 0.2, "{fractions:?}");
}

#[test]
fn after_a_loss_swift_brings_back_what_was_lost_and_moves_little_else() {
    let current =
        map(MapShape { layers: 1, experts: 8, ranks: 4, slots_per_rank: 3 }, &[0, 1, 2, 3, 4, 5, 6, 7, 0, 1, 3, 6]);
    let loads = [ExpertLoad::from_rows(&[vec![20, 18, 10, 20, 10, 9, 19, 10]]).unwrap()];
    let survivors = Topology::single_node(4, 3).with_slots(RankSlots::new([3, 3, 0, 3])).unwrap();
    let request = Request {
        policy: Policy::Swift,
        windows: &loads,
        topology: &survivors,
        current: Some(&current),
        min_coverage: Coverage::default(),
    };
    let plan = balance(&request).unwrap();
    let moved: usize = [0, 1, 3]
        .map(|rank: usize| {
            let held = current.rank(LayerId(0), rank.into());
            plan.map.rank(LayerId(0), rank.into()).iter().filter(|expert| !held.contains(expert)).count()
        })
        .iter()
        .sum();
    // Expert 7 was on rank 2 alone.
    assert_eq!(moved, 1, "{:?}", plan.map);
}

#[test]
fn copies_that_outlive_a_node_are_on_two() {
    // Two nodes of two ranks; every expert has two copies, which without the wish for coverage may share a node.
    let shape = MapShape { layers: 1, experts: 8, ranks: 4, slots_per_rank: 4 };
    let current = map(shape, &[0, 1, 2, 3, 0, 1, 2, 3, 4, 5, 6, 7, 4, 5, 6, 7]);
    let windows = [ExpertLoad::from_rows(&[vec![9, 8, 7, 6, 9, 8, 7, 6]]).unwrap()];
    let topology = Topology::even(2, 4, 4).unwrap();
    let uncovered = |nodes| {
        let min_coverage = Coverage { ranks: 0, nodes };
        let request = Request {
            policy: Policy::Swift,
            windows: &windows,
            topology: &topology,
            current: Some(&current),
            min_coverage,
        };
        let plan = balance(&request).unwrap();
        let found = coverage::uncovered(&plan.map, &topology, Coverage { ranks: 0, nodes: 1 });
        let level = balance_ratio(&rank_loads(&plan.map, &windows[0]));
        (plan.uncovered, found, level > 0.99)
    };
    assert_eq!(uncovered(0), (0, 8, true), "nothing moves");
    assert_eq!(uncovered(1), (0, 0, true));
    assert_eq!(uncovered(2), (8, 0, true), "three copies of each do not fit");
}
