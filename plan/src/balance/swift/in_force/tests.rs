use proptest::prelude::*;

use super::super::tests::{copies, layers, levels, moved};
use super::*;
use crate::ids::NodeId;
use crate::topology::Topology;

#[test]
fn a_placement_at_the_goal_is_left_as_it_is() {
    // Ranks carry 10 and 8, 9 is the bound: 11 % above it.
    let (ranks, weights, slots) = (Ranks::even(2, 2), [6.0, 4.0, 5.0, 3.0], [0, 1, 2, 3]);
    assert_eq!(pack(&ranks, &weights, &slots, 1, 0.2), slots, "within six tenths of the noise");
    assert_ne!(pack(&ranks, &weights, &slots, 1, 0.0), slots);
}

#[test]
fn noise_is_what_a_change_must_stand_out_from() {
    // Ranks carry 102 and 98: an exchange of 51 and 49 levels them for two pages.
    let (ranks, weights, slots) = (Ranks::even(2, 2), [51.0, 51.0, 49.0, 49.0], [0, 1, 2, 3]);
    assert_eq!(moved(&ranks, &slots, &pack(&ranks, &weights, &slots, 1, 0.0)), 2);
    assert_eq!(pack(&ranks, &weights, &slots, 1, 0.05), slots);
}

#[test]
fn an_expert_below_the_least_gets_its_copies_though_ranks_are_level() {
    let (ranks, weights, slots) = (Ranks::even(3, 2), [3.0, 1.0, 1.0], [0, 1, 0, 2, 0, 1]);
    let packed = pack(&ranks, &weights, &slots, 2, 10.0);
    assert_eq!(copies(&ranks, 3, &packed), Some(vec![2, 2, 2]));
    assert_eq!(moved(&ranks, &slots, &packed), 1);
}

#[test]
fn an_expert_that_stands_out_gets_copies_before_anything_else() {
    // Ranks carry 80, 22 and 22. The largest copy of an ideal division is 40, and that of expert 0 twice as large.
    let (ranks, weights, slots) = (Ranks::even(3, 2), [80.0, 0.0, 22.0, 22.0], [0, 1, 2, 1, 3, 1]);
    let packed = pack(&ranks, &weights, &slots, 1, 0.0);
    assert!(copies(&ranks, 4, &packed).unwrap()[0] > 1, "{packed:?}");
}

#[test]
fn an_expert_on_every_rank_with_slots_does_not_keep_others_from_copies() {
    // Expert 0 is on both ranks that have slots and its copies stay the largest; expert 1 stands out as well.
    let ranks = Ranks::new(&[0, 4, 4], &[1.0; 3]);
    let (weights, slots) = ([1000.0, 300.0, 1.0, 1.0, 1.0], [0, 1, 2, 3, 0, 4, 2, 3]);
    let packed = pack(&ranks, &weights, &slots, 1, 0.0);
    assert_eq!(copies(&ranks, 5, &packed).unwrap()[..2], [2, 2], "{packed:?}");
}

#[test]
fn a_page_that_goes_home_costs_nothing_and_one_that_leaves_costs_one() {
    let (ranks, weights) = (Ranks::even(3, 2), [1.0; 5]);
    let slots = [0, 1, 2, 3, 4, 0];
    let mut packing = Packing::new(&ranks, &weights, &slots, 1);
    let home = Home::new(&ranks, weights.len(), &slots);
    let is = |pages: f64, expected: f64| (pages - expected).abs() < 1e-12;
    assert!(is(home.pages(0, 0, 2), 1.0), "2 is not at home on rank 0");
    packing.swap((0, 1), (1, 2));
    assert!(is(home.pages(0, 2, 1), -1.0), "1 comes home and a page that was to move need not");
    assert!(is(home.pages(0, 2, 3), 0.0), "another page comes instead of one that was to come");
    assert!(is(home.pages(0, 0, 1), 0.0), "1 is at home where 0 is");
}

#[test]
fn a_copy_costs_more_where_its_node_has_another_and_less_where_one_stays_behind() {
    let topology = Topology::new([0, 0, 1, 1].map(NodeId).to_vec(), 2);
    let (ranks, weights) = (Ranks::even(4, 2).on_nodes(&topology), [1.0; 6]);
    // Node 0 has both copies of expert 0, each node one of expert 1.
    let slots = [0, 1, 0, 2, 3, 4, 5, 1];
    let (home, packing) = (Home::new(&ranks, weights.len(), &slots), Packing::new(&ranks, &weights, &slots, 1));
    let best = Best { home: &home, top: 1.0, from_home: true, gain: 0.0, change: None };
    let is = |change: Change, expected: f64| {
        let cost = best.cost(&packing, change);
        assert!((cost - expected).abs() < 1e-12, "{change:?}: {cost} instead of {expected}");
    };
    let (far, crowds) = (ranks.far_page(), ranks.tuning().crowds);
    is(Change::Swap((1, 2), (2, 3)), 2.0 * far);
    is(Change::Swap((1, 0), (2, 3)), 2.0 * far - crowds);
    is(Change::Swap((0, 1), (2, 3)), 1.0 + far + crowds);
    is(Change::Replace(1, 0, 3), far - crowds);
    is(Change::Replace(1, 0, 1), 1.0);
    is(Change::Replace(2, 3, 1), 1.0 + crowds);
    is(Change::Replace(2, 3, 2), far);
}

#[test]
fn what_is_packed_from_scratch_is_taken_only_where_it_is_far_better() {
    let ranks = Ranks::even(3, 2);
    let weights = [60.0, 50.0, 40.0, 30.0, 20.0, 10.0];
    let slots = [0, 5, 1, 4, 2, 3];
    assert_eq!(pack(&ranks, &weights, &slots, 1, 0.0), slots, "it is the best there is");
    let turned = [2, 3, 0, 5, 1, 4];
    assert_eq!(pack(&ranks, &weights, &turned, 1, 0.0), turned, "whatever number a rank has");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn what_is_packed_is_valid_covered_and_made_again_the_same(layer in layers(), noise in prop_oneof![Just(0.0), 0.0..1.0_f64]) {
        let packed = pack(&layer.ranks, &layer.weights, &layer.slots, layer.least, noise);
        prop_assert_eq!(&packed, &pack(&layer.ranks, &layer.weights, &layer.slots, layer.least, noise));
        let copies = copies(&layer.ranks, layer.weights.len(), &packed);
        prop_assert!(copies.is_some(), "{packed:?}");
        let copies = copies.unwrap_or_default();
        prop_assert!(copies.iter().all(|&count| count >= layer.least), "{copies:?} of {}", layer.least);
    }

    #[test]
    fn the_more_noise_there_is_the_more_is_left_alone(layer in layers()) {
        let goal = |noise: f64| {
            let ideal = counts(&layer.weights, layer.ranks.open(), layer.ranks.physical(), 1);
            scratch::bound(&layer.ranks, &layer.weights, largest_copy(&layer.weights, &ideal)) * (1.0 + layer.ranks.tuning().within_noise * noise)
        };
        let top = levels(&layer.ranks, &layer.weights, &layer.slots).into_iter().fold(0.0, f64::max);
        for noise in [0.0, 0.1, 0.5, 2.0] {
            let packed = pack(&layer.ranks, &layer.weights, &layer.slots, 1, noise);
            if top <= goal(noise) * (1.0 - 1e-9) {
                prop_assert_eq!(&packed, &layer.slots);
            }
        }
    }
}
