use super::*;

fn ranks(load: &[u64], topology: &Topology) -> Vec<Vec<u32>> {
    ranks_and_shares(load, topology).0
}

/// The experts of each rank, and the fractions of their tokens, to a sixtieth, that their slots take.
fn ranks_and_shares(load: &[u64], topology: &Topology) -> (Vec<Vec<u32>>, Vec<Vec<f64>>) {
    let load = ExpertLoad::from_rows(&[load.to_vec()]).unwrap();
    let per_rank = topology.slots().per_rank().unwrap();
    let (slots, shares) = balance(&load, topology, per_rank);
    let of_ranks = slots.chunks(per_rank).map(|rank| rank.iter().map(|expert| expert.0).collect());
    let fraction = |&share: &u32| (f64::from(share) / f64::from(crate::map::WHOLE) * 60.0).round() / 60.0;
    (of_ranks.collect(), shares.chunks(per_rank).map(|rank| rank.iter().map(fraction).collect()).collect())
}

#[test]
fn groups_go_to_nodes_then_copies_and_ranks_are_found_within_each() {
    // The example of the published description: 12 experts in 4 groups, 8 ranks of 2 slots on 2 nodes. By hand:
    // groups weigh 262, 330, 116, 325; heaviest first 1 -> node 0, 3 -> node 1, 0 -> node 1 (325 < 330), 2 -> node 0.
    // Node 0, experts 3..9 of groups 1 and 2: 61 104 165 39 4 73; two more copies: 5 (165 -> 82.5), 4 (104 -> 52).
    //   Heaviest first 5 5 8 3 | 4 -> rank of 3 (61), 4 -> rank of 8 (73), 6 and 7 -> the ranks of 5.
    // Node 1, experts 9..12 and 0..3 of groups 3 and 0: 56 183 86 90 132 40; more copies: 10 (91.5), 1 (66).
    //   Heaviest first 10 10 0 11 | 1 -> rank of 11 (86), 1 -> rank of 0 (90), 9 and 2 -> the ranks of 10.
    let load = [90, 132, 40, 61, 104, 165, 39, 4, 73, 56, 183, 86];
    let topology = Topology::even(2, 8, 2).unwrap().with_router_groups(4);
    let expected = [[5, 6], [5, 7], [8, 4], [3, 4], [10, 9], [10, 2], [0, 1], [11, 1]];
    assert_eq!(ranks(&load, &topology), expected);
}

#[test]
fn without_groups_that_divide_by_the_nodes_all_ranks_share_all_experts() {
    // 3 groups do not divide by 2 nodes. By hand: 8 slots, 6 experts, two more copies: 10 -> 5, 9 -> 4.5.
    // Heaviest first: 2 (7) -> rank 0, 3 (6) -> 1, 0 (5) -> 2, 0 (5) -> 3, 1 (4.5) -> 2 (5, the first of equals),
    // 1 (4.5) -> 3, 4 (2) -> rank 1 (6), 5 (1) -> rank 0.
    let topology = Topology::even(2, 4, 2).unwrap().with_router_groups(3);
    assert_eq!(ranks(&[10, 9, 7, 6, 2, 1], &topology), [[2, 5], [3, 4], [0, 1], [0, 1]]);
}

#[test]
fn the_first_of_two_copies_on_a_rank_takes_the_shares_of_both_and_the_other_makes_place_for_one_that_stands_by() {
    // Copies: 0 twice more (8 -> 4, the first of equals, -> 8/3). Heaviest first: 1 (4) -> rank 0, 0 -> 1, 0 -> 2,
    // 0 -> 1 again, which is lightest with 8/3, 2 -> 2, 3 -> 0. Rank 1 lacks 1, 2 and 3, each with one copy: 1 is hottest.
    let (ranks, shares) = ranks_and_shares(&[8, 4, 2, 2], &Topology::single_node(3, 2));
    assert_eq!(ranks, [[1, 3], [0, 1], [0, 2]]);
    assert_eq!(shares, [[1.0, 1.0], [40.0 / 60.0, 0.0], [20.0 / 60.0, 1.0]]);
}

#[test]
fn copies_beyond_one_on_every_rank_make_place_for_different_experts() {
    // Expert 0 gets all 4 more copies (9 -> 1.8), five on two ranks: [0 0 0 3] and [0 0 1 2].
    let (ranks, shares) = ranks_and_shares(&[9, 1, 1, 1], &Topology::single_node(2, 4));
    assert_eq!(ranks, [[0, 1, 2, 3], [0, 3, 1, 2]]);
    assert_eq!(shares, [[36.0 / 60.0, 0.0, 0.0, 1.0], [24.0 / 60.0, 0.0, 1.0, 1.0]]);
}

#[test]
fn no_load_at_all_still_gives_every_expert_a_slot() {
    // All further copies go to expert 0, as published; only one of them can be on each rank.
    let slots = ranks(&[0; 5], &Topology::single_node(4, 2)).concat();
    assert!((0..5).all(|expert| slots.contains(&expert)), "{slots:?}");
}

#[test]
fn ranks_carry_what_the_published_algorithm_gives_them() {
    // One expert with most of the load, so that most copies are its own and many meet on a rank.
    let load: Vec<u64> = (0..24).map(|expert| if expert == 7 { 50_000 } else { 100 + 37 * expert }).collect();
    let topology = Topology::single_node(6, 6);
    let weights: Vec<f64> = load.iter().map(|&tokens| tokens as f64).collect();
    let published = balance_layer(&weights, &topology, 1, 1);
    let copies = |expert: usize| published.iter().filter(|&&other| other == expert).count() as f64;
    let expected = published.chunks(6).map(|rank| rank.iter().map(|&expert| weights[expert] / copies(expert)).sum());
    let row = ExpertLoad::from_rows(&[load]).unwrap();
    let (slots, shares) = balance(&row, &topology, 6);
    let map = crate::map::ExpertMap::with_slots_of_ranks(1, 24, topology.slots().clone(), slots).unwrap();
    let carried = crate::load::rank_loads(&map.with_shares(&shares).unwrap(), &row);
    for (carried, expected) in carried[0].iter().zip(expected.collect::<Vec<f64>>()) {
        assert!((carried - expected).abs() < 5.0, "{carried} instead of {expected}");
    }
    assert!(published.chunks(6).any(|rank| rank.iter().filter(|&&expert| expert == 7).count() > 1));
}
