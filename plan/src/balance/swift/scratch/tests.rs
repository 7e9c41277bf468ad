use proptest::prelude::*;

use super::super::tests::{copies, layers, levels};
use super::*;

/// The least time that the busiest rank can take, by trying all ways to fill the slots from `slot` on.
fn least_possible(ranks: &Ranks, weights: &[f64], slots: &mut Vec<u16>, slot: usize) -> f64 {
    if slot == ranks.physical() {
        let valid = copies(ranks, weights.len(), slots).is_some();
        return if valid { levels(ranks, weights, slots).into_iter().fold(0.0, f64::max) } else { f64::INFINITY };
    }
    let rank = (0..ranks.len()).find(|&rank| ranks.slots(rank).contains(&slot)).expect("the slot is of a rank");
    // Within a rank the order is of no account.
    let from = if slot > ranks.slots(rank).start { slots[slot - 1] + 1 } else { 0 };
    let mut least = f64::INFINITY;
    for expert in from..weights.len() as u16 {
        slots[slot] = expert;
        least = least.min(least_possible(ranks, weights, slots, slot + 1));
    }
    least
}

#[test]
fn a_rank_without_slots_neither_lowers_the_bound_nor_counts_as_the_fastest() {
    let ranks = Ranks::new(&[2, 0, 2], &[1.0, 100.0, 1.0]);
    assert!((bound(&ranks, &[5.0, 4.0, 3.0, 2.0], 5.0) - 7.0).abs() < 1e-12);
    assert!((bound(&ranks, &[50.0, 4.0, 3.0, 2.0], 50.0) - 50.0).abs() < 1e-12);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn what_is_packed_is_never_below_the_bound(layer in layers()) {
        let packing = pack(&layer.ranks, &layer.weights, layer.least);
        let ideal = counts(&layer.weights, layer.ranks.open(), layer.ranks.physical(), layer.least);
        let bound = bound(&layer.ranks, &layer.weights, largest_copy(&layer.weights, &ideal));
        prop_assert!(packing.top() >= bound * (1.0 - 1e-9), "{} below {bound}", packing.top());
        let copies = copies(&layer.ranks, layer.weights.len(), packing.slots());
        prop_assert!(copies.is_some_and(|copies| copies.iter().all(|&count| count >= layer.least)));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn the_busiest_rank_of_a_small_layer_is_within_half_of_the_best_possible(
        weights in prop::collection::vec(1.0..100.0_f64, 2..5),
        slots in prop::collection::vec(1..3_usize, 2..4),
    ) {
        let mut slots: Vec<usize> = slots.into_iter().map(|count| count.min(weights.len())).collect();
        if slots.iter().sum::<usize>() < weights.len() {
            slots.fill(2);
        }
        let ranks = Ranks::new(&slots, &vec![1.0; slots.len()]);
        prop_assume!(ranks.physical() >= weights.len());
        let best = least_possible(&ranks, &weights, &mut vec![0; ranks.physical()], 0);
        let packing = pack(&ranks, &weights, 1);
        prop_assert!(packing.top() <= best * 1.5 + 1e-9, "{} instead of {best}", packing.top());
    }
}
