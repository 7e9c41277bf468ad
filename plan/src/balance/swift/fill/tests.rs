use proptest::prelude::*;

use super::super::counts::counts;
use super::super::tests::{copies, layers};
use super::*;

/// The experts of each rank, ascending.
fn filled(ranks: &Ranks, weights: &[f64], of_experts: &[u16]) -> Vec<Vec<u16>> {
    let packing = fill(ranks, weights, of_experts, 1);
    let sorted = |rank: usize| {
        let mut held = packing.experts_of(rank).to_vec();
        held.sort_unstable();
        held
    };
    (0..ranks.len()).map(sorted).collect()
}

#[test]
fn the_heaviest_copies_come_first_each_onto_the_lowest_rank() {
    // 9 -> rank 0, 7 -> 1, 5 -> 1 (7 against 9), which is full, 3 -> 0.
    assert_eq!(filled(&Ranks::even(2, 2), &[3.0, 9.0, 5.0, 7.0], &[1; 4]), [[0, 1], [2, 3]]);
}

#[test]
fn a_fast_rank_counts_as_lower_with_the_same_load() {
    // 9 -> rank 0, 7 -> 1 at 3.5, 5 -> 1 at 6, 3 -> 1 at 7.5; the last fits on 0 only.
    let ranks = Ranks::new(&[3, 3], &[1.0, 2.0]);
    assert_eq!(filled(&ranks, &[9.0, 7.0, 5.0, 3.0, 1.0, 1.0], &[1; 6]), [[0, 4, 5], [1, 2, 3]]);
}

#[test]
fn the_copies_of_an_expert_are_on_different_ranks() {
    assert_eq!(filled(&Ranks::even(3, 2), &[90.0, 20.0, 10.0, 5.0], &[3, 1, 1, 1]), [[0, 1], [0, 2], [0, 3]]);
}

#[test]
fn a_full_rank_makes_place_for_a_copy_that_every_rank_with_room_has_already() {
    // Ranks are full with 0, 1 and 2, 3 when the two copies of 4 are left, and only rank 2 has room, for two.
    let ranks = Ranks::even(3, 2);
    let packed = filled(&ranks, &[8.0, 5.0, 8.0, 5.0, 2.0], &[1, 1, 1, 1, 2]);
    assert_eq!(packed.concat().iter().filter(|&&expert| expert == 4).count(), 2, "{packed:?}");
}

#[test]
fn ranks_that_made_place_carry_what_they_hold() {
    // Three ranks hold two copies each before 4 comes.
    let (ranks, weights, counts) = (Ranks::even(3, 3), [90.0, 60.0, 30.0, 20.0, 6.0], [2, 2, 1, 2, 2]);
    let mut filling = Filling::new(&ranks, &weights, &counts);
    for expert in [2_u16, 0, 1, 3, 4] {
        filling.place(expert, counts[usize::from(expert)]);
        for rank in 0..3 {
            let carried: f64 = filling.content(rank).iter().map(|&held| filling.copies[usize::from(held)]).sum();
            assert!((carried - filling.sums[rank]).abs() < 1e-9, "rank {rank} after {expert}");
        }
    }
}

#[test]
fn a_rank_without_slots_is_no_rank_that_makes_place() {
    // Rank 0 has no slots. Rank 1 is full with 0 and 1, and rank 2 is left for both copies of 3.
    let ranks = Ranks::new(&[0, 2, 3], &[1.0; 3]);
    let packed = filled(&ranks, &[90.0, 10.0, 40.0, 4.0], &[1, 1, 1, 2]);
    assert_eq!(packed.concat().iter().filter(|&&expert| expert == 3).count(), 2, "{packed:?}");
}

#[test]
fn the_same_loads_fill_from_the_first_rank_on() {
    assert_eq!(filled(&Ranks::even(2, 2), &[0.0; 4], &[1; 4]), [[0, 2], [1, 3]]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn every_expert_has_the_least_number_of_copies_and_no_rank_two_of_one(layer in layers()) {
        let counts = counts(&layer.weights, layer.ranks.open(), layer.ranks.physical(), layer.least);
        let packing = fill(&layer.ranks, &layer.weights, &counts, layer.least);
        let found = copies(&layer.ranks, layer.weights.len(), packing.slots());
        prop_assert!(found.is_some(), "{:?}", packing.slots());
        let found = found.unwrap_or_default();
        prop_assert!(found.iter().all(|&count| count >= layer.least), "{found:?} of at least {}", layer.least);
    }

    #[test]
    fn ranks_with_equally_many_slots_have_place_for_every_copy(
        ranks in 1..9_usize,
        weights in prop::collection::vec(0.0..1000.0_f64, 1..30),
        slots_per_rank in 0..30_usize,
    ) {
        let slots_per_rank = slots_per_rank.clamp(weights.len().div_ceil(ranks), weights.len());
        let ranks = Ranks::even(ranks, slots_per_rank);
        let counts = counts(&weights, ranks.len(), ranks.physical(), 1);
        let packing = fill(&ranks, &weights, &counts, 1);
        let found: Vec<u16> = (0..weights.len()).map(|expert| packing.count(expert) as u16).collect();
        prop_assert_eq!(found, counts);
    }
}
