use super::*;

const WEIGHTS: [f64; 5] = [70.0, 31.0, 17.0, 8.0, 2.0];

/// 4 ranks of 2 slots; expert 0 has three copies, expert 1 two.
fn packing() -> Packing<'static> {
    Packing::new(&WEIGHTS, 2, vec![0, 1, 2, 0, 3, 1, 4, 0])
}

/// Every figure that changes are tracked in, made anew from the slots.
fn assert_consistent(packing: &Packing<'_>) {
    let anew = Packing::new(packing.weights, packing.per_rank, packing.slots.clone());
    assert_eq!((&packing.copies, &packing.holds), (&anew.copies, &anew.holds));
    for (tracked, anew) in packing.loads.iter().zip(&anew.loads) {
        assert!((tracked - anew).abs() < 1e-9, "{:?} instead of {:?}", packing.loads, anew);
    }
}

#[test]
fn what_a_replacement_is_predicted_to_do_is_what_it_does() {
    let before = packing();
    let mut tried = 0;
    for slot in 0..8 {
        for expert in 0..5 {
            if before.count(before.slots[slot]) == 1 || before.holds(slot / 2, expert) {
                continue;
            }
            tried += 1;
            let mut after = before.clone();
            after.replace(slot, expert);
            assert_consistent(&after);
            let old = before.slots[slot];
            let touched = (0..4).filter(|&rank| rank == slot / 2 || rank == 0 || after.holds(rank, old));
            let busiest = touched.map(|rank| after.load(rank)).fold(0.0, f64::max);
            let predicted = before.replaced(slot, expert, 0, f64::INFINITY).unwrap();
            assert!(
                (predicted - busiest).abs() < 1e-9,
                "slot {slot}, expert {expert}: {predicted} instead of {busiest}"
            );
            assert_eq!(before.replaced(slot, expert, 0, predicted), None, "not below the limit");
        }
    }
    assert!(tried >= 12, "{tried}");
}

#[test]
fn an_exchange_keeps_every_figure_current() {
    let mut packing = packing();
    packing.swap(1, 2);
    assert_eq!(packing.slots(), [0, 2, 1, 0, 3, 1, 4, 0]);
    assert_consistent(&packing);
    assert_eq!(packing.copies(1), [2, 5]);
}

#[test]
fn copies_go_where_they_make_the_largest_smallest_and_never_beyond_the_ranks() {
    assert_eq!(counts(&WEIGHTS, 4, 8), [3, 2, 1, 1, 1]);
    assert_eq!(counts(&[100.0, 1.0, 1.0], 2, 4), [2, 1, 1]);
    assert_eq!(counts(&[0.0; 3], 3, 6), [2, 2, 2], "no load is spread evenly");
    assert_eq!(counts(&[100.0, 1.0], 2, 4), [2, 2], "every rank holds every expert");
}

#[test]
fn a_rank_that_lacks_the_last_expert_makes_place_when_only_its_holder_has_room() {
    // Heaviest first: 0 -> rank 0, two copies each of 1, 2 and 3 fill ranks 1 and 2, which stay lighter; then both copies
    // of 4 find room on rank 0 only. Rank 1 takes the second and gives 3.
    let packing = Packing::from_counts(&[100.0, 9.0, 8.0, 7.0, 0.2], 3, &[1, 2, 2, 2, 2]);
    assert_eq!(packing.slots(), [0, 4, 3, 1, 2, 4, 1, 2, 3]);
    assert_consistent(&packing);
}

#[test]
fn any_counts_that_fit_can_be_packed() {
    for counts in [[3, 1, 1, 1], [1, 3, 1, 1], [2, 2, 1, 1], [1, 1, 1, 3], [1, 1, 2, 2]] {
        for weights in [[9.0, 5.0, 3.0, 1.0], [1.0, 1.0, 1.0, 1.0], [0.0; 4], [1.0, 50.0, 3.0, 99.0]] {
            let packing = Packing::from_counts(&weights, 2, &counts);
            let found: Vec<u32> = (0..4).map(|expert| packing.count(expert) as u32).collect();
            assert_eq!(found, counts);
            for rank in packing.slots().chunks_exact(2) {
                assert_ne!(rank[0], rank[1], "{weights:?} {counts:?}");
            }
        }
    }
}
