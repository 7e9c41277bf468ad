use proptest::prelude::*;

use super::*;
use crate::balance::swift::tests::{copies, layers};

/// The ranks of a layer when one has gone, and what they held.
fn lose(ranks: &Ranks, slots: &[u16], lost: usize) -> (Ranks, Vec<Vec<u16>>) {
    let kept = |rank: usize| if rank == lost { Vec::new() } else { slots[ranks.slots(rank)].to_vec() };
    let content: Vec<Vec<u16>> = (0..ranks.len()).map(kept).collect();
    let counts: Vec<usize> = content.iter().map(Vec::len).collect();
    let speeds: Vec<f64> = (0..ranks.len()).map(|rank| 1.0 / ranks.pace(rank)).collect();
    (Ranks::new(&counts, &speeds), content)
}

/// How far above the mean the busiest of few ranks may be.
const LEVEL: f64 = 0.02;

/// One layer alone.
fn recovered(ranks: &Ranks, weights: &[f64], content: &[Vec<u16>], least: usize, noise: f64) -> Vec<u16> {
    pack(ranks, &[Left { weights, content: content.to_vec() }], least, noise).remove(0)
}

/// Pages that ranks receive.
fn pages(ranks: &Ranks, content: &[Vec<u16>], slots: &[u16]) -> usize {
    let new = |rank: usize| slots[ranks.slots(rank)].iter().filter(|expert| !content[rank].contains(expert)).count();
    (0..ranks.len()).map(new).sum()
}

/// The time of the busiest rank when copies share as suits best.
fn busiest(ranks: &Ranks, weights: &[f64], slots: &[u16]) -> f64 {
    let mut sharing = Sharing::new(ranks, weights, slots);
    sharing.level_out(ranks.tuning().passes_over_shares);
    (0..ranks.len()).map(|rank| sharing.level(rank)).fold(0.0, f64::max)
}

#[test]
fn what_was_lost_goes_where_the_ranks_stay_level() {
    // Rank 2 is lost, and with it the only copy of expert 5. Experts 0 and 1 have a copy to spare on either of two ranks.
    let ranks = Ranks::even(4, 3);
    let weights = [6.0, 6.0, 4.0, 2.0, 5.0, 3.0, 1.0];
    let (ranks, content) = lose(&ranks, &[0, 2, 6, 0, 1, 3, 5, 2, 3, 1, 4, 6], 2);
    let slots = recovered(&ranks, &weights, &content, 1, LEVEL);
    assert_eq!(pages(&ranks, &content, &slots), 1);
    assert!(busiest(&ranks, &weights, &slots) <= 9.0 * (1.0 + LEVEL));
}

#[test]
fn a_page_is_moved_where_no_place_of_what_was_lost_levels_the_ranks() {
    // Expert 5 comes back in the place of a copy of 0; whichever it is, an exchange of two others is needed as well.
    let ranks = Ranks::even(3, 3);
    let weights = [2.0, 9.0, 8.0, 3.0, 4.0, 6.0];
    let (ranks, content) = lose(&ranks, &[1, 2, 0, 3, 4, 0, 5, 0, 3], 2);
    let packed = |noise: f64| {
        let slots = recovered(&ranks, &weights, &content, 1, noise);
        (busiest(&ranks, &weights, &slots), pages(&ranks, &content, &slots))
    };
    let (level, moved) = packed(10.0);
    assert!(level > 16.0 * (1.0 + LEVEL) && moved == 1, "the busier rank takes {level} of 32 after {moved} pages");
    let (level, moved) = packed(LEVEL);
    assert!(level <= 16.0 * (1.0 + LEVEL) && moved == 2, "the busier rank takes {level} of 32 after {moved} pages");
}

#[test]
fn pages_go_to_the_layers_where_they_gain_most() {
    // Layer 0 loses expert 5, whose return leaves the ranks level. Layer 1 loses nothing, and a page would level it.
    let ranks = Ranks::even(3, 3);
    let (left, content) = lose(&ranks, &[1, 2, 0, 3, 4, 0, 5, 0, 3], 2);
    let level = Left { weights: &[1.0, 5.0, 5.0, 5.0, 5.0, 1.0], content };
    let (_, content) = lose(&ranks, &[0, 1, 2, 3, 4, 0, 0, 1, 3], 2);
    let uneven = Left { weights: &[2.0, 9.0, 8.0, 3.0, 4.0], content };
    let moved = |layers: &[Left<'_>]| -> Vec<usize> {
        let packed = pack(&left, layers, 1, LEVEL);
        packed.iter().zip(layers).map(|(slots, layer)| pages(&left, &layer.content, slots)).collect()
    };
    assert_eq!(moved(std::slice::from_ref(&uneven)), [0], "where nothing was lost no page moves");
    assert_eq!(moved(&[level, uneven]), [1, 1]);
}

#[test]
fn a_rank_that_returned_is_filled_and_no_other_receives_a_page() {
    let ranks = Ranks::even(8, 10);
    for seed in 0..20 {
        let weights = popularities(seed);
        let whole = scratch::pack(&ranks, &weights, 1).into_slots();
        let (left, content) = lose(&ranks, &whole, seed as usize % 8);
        let survivors = recovered(&left, &weights, &content, 1, LEVEL);
        let held: Vec<Vec<u16>> = (0..8).map(|rank| survivors[left.slots(rank)].to_vec()).collect();
        let back = recovered(&ranks, &weights, &held, 1, LEVEL);
        assert_eq!(pages(&ranks, &held, &back), 10, "seed {seed}");
        let mean = weights.iter().sum::<f64>() / 8.0;
        let level = busiest(&ranks, &weights, &back) / mean;
        assert!(level <= 1.0 + LEVEL, "seed {seed}: the busiest of 8 ranks has {level} of the mean");
    }
}

/// Popularities like those of a model with 64 experts, from a generator with that seed.
fn popularities(seed: u64) -> Vec<f64> {
    let mut state = seed;
    let mut uniform = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 11) as f64 / (1_u64 << 53) as f64
    };
    (0..64).map(|_| (-(1.0 - uniform()).ln()).powf(1.5)).collect()
}

#[test]
fn a_lost_rank_costs_little_more_than_what_it_alone_held() {
    let ranks = Ranks::even(8, 10);
    let (mut floor, mut moved) = (0, 0);
    for seed in 0..20 {
        let weights = popularities(seed);
        let slots = scratch::pack(&ranks, &weights, 1).into_slots();
        let (left, content) = lose(&ranks, &slots, seed as usize % 8);
        let after = recovered(&left, &weights, &content, 1, LEVEL);
        floor += (0..64).filter(|expert| content.iter().all(|held| !held.contains(expert))).count();
        moved += pages(&left, &content, &after);
        let mean = weights.iter().sum::<f64>() / 7.0;
        let level = busiest(&left, &weights, &after) / mean;
        assert!(level <= 1.0 + 2.0 * LEVEL, "seed {seed}: the busiest of 7 ranks has {level} of the mean");
    }
    assert!(2 * moved <= 3 * floor, "{moved} pages for {floor} experts that were lost");
}

proptest! {
    #[test]
    fn any_rank_may_go(layer in layers(), lost in any::<prop::sample::Index>()) {
        let (ranks, content) = lose(&layer.ranks, &layer.slots, lost.index(layer.ranks.len()));
        prop_assume!(ranks.physical() >= layer.weights.len());
        let least = layer.least.min(ranks.physical() / layer.weights.len()).min(ranks.open());
        let slots = recovered(&ranks, &layer.weights, &content, least, 0.0);
        let counts = copies(&ranks, layer.weights.len(), &slots);
        prop_assert!(counts.is_some_and(|counts| counts.iter().all(|&count| count >= least)), "{slots:?}");
    }
}
