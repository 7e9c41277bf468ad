use proptest::prelude::*;

use super::*;

/// The least that the largest copy can have, by trying all ways to hand out `left` more copies to the experts from `from`.
fn smallest_largest(weights: &[f64], counts: &mut [u16], from: usize, left: usize, ranks: usize) -> f64 {
    if left == 0 {
        return largest_copy(weights, counts);
    }
    if from == weights.len() {
        return f64::INFINITY;
    }
    let mut smallest = smallest_largest(weights, counts, from + 1, left, ranks);
    for given in 1..=left.min(ranks - usize::from(counts[from])) {
        counts[from] += given as u16;
        smallest = smallest.min(smallest_largest(weights, counts, from + 1, left - given, ranks));
        counts[from] -= given as u16;
    }
    smallest
}

proptest! {
    #[test]
    fn no_other_counts_have_a_smaller_largest_copy(
        weights in prop::collection::vec(prop_oneof![Just(0.0), 0.0..100.0_f64, Just(1e19)], 1..6),
        ranks in 1..5_usize,
        least in 1..3_usize,
        more in 0..8_usize,
    ) {
        let least = least.min(ranks);
        let physical = (weights.len() * least + more).min(weights.len() * ranks);
        let counts = counts(&weights, ranks, physical, least);
        prop_assert_eq!(counts.iter().map(|&count| usize::from(count)).sum::<usize>(), physical);
        prop_assert!(counts.iter().all(|&count| (least..=ranks).contains(&usize::from(count))), "{counts:?}");
        let mut from = vec![least as u16; weights.len()];
        let smallest = smallest_largest(&weights, &mut from, 0, physical - least * weights.len(), ranks);
        prop_assert_eq!(largest_copy(&weights, &counts).to_bits(), smallest.to_bits());
    }
}

#[test]
fn each_copy_more_goes_to_the_expert_with_the_largest() {
    // 90 -> 45, 60 -> 30, 45 -> 30, then 30 is the largest three times.
    assert_eq!(counts(&[60.0, 90.0, 20.0], 4, 3, 1), [1, 1, 1]);
    assert_eq!(counts(&[60.0, 90.0, 20.0], 4, 6, 1), [2, 3, 1]);
}

#[test]
fn of_equals_the_expert_with_the_fewest_copies_gets_the_next_then_the_first() {
    assert_eq!(counts(&[30.0, 60.0, 30.0], 3, 4, 1), [1, 2, 1]);
    assert_eq!(counts(&[30.0, 60.0, 30.0], 3, 5, 1), [2, 2, 1], "60 / 2 has two copies, 30 has one");
    assert_eq!(counts(&[30.0, 60.0, 30.0], 3, 6, 1), [2, 2, 2]);
    assert_eq!(counts(&[0.0; 4], 4, 10, 1), [3, 3, 2, 2]);
}

#[test]
fn an_expert_on_every_rank_leaves_further_copies_to_others() {
    assert_eq!(counts(&[1e9, 1.0, 1.0], 2, 4, 1), [2, 1, 1]);
    assert_eq!(counts(&[1e9, 1.0, 2.0], 2, 5, 1), [2, 1, 2]);
    assert_eq!(counts(&[1e9, 1.0, 2.0], 2, 6, 1), [2, 2, 2]);
}

#[test]
fn the_least_comes_before_load() {
    assert_eq!(counts(&[1000.0, 0.0, 0.0], 4, 7, 2), [3, 2, 2]);
    assert_eq!(counts(&[1000.0, 0.0, 0.0], 4, 6, 2), [2, 2, 2]);
}
