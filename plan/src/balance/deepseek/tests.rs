use super::*;

fn ranks(load: &[u64], topology: &Topology) -> Vec<Vec<u32>> {
    let load = ExpertLoad::from_rows(&[load.to_vec()]).unwrap();
    let per_rank = topology.slots().per_rank().unwrap();
    let slots = balance(&load, topology, per_rank);
    slots.chunks(per_rank).map(|rank| rank.iter().map(|expert| expert.0).collect()).collect()
}

#[test]
fn groups_go_to_nodes_then_replicas_and_ranks_are_found_within_each() {
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
fn a_second_copy_on_a_rank_is_exchanged_for_the_slot_closest_in_load() {
    // Copies: 0 twice more (8 -> 4, the first of equals, -> 8/3). Heaviest first: 1 (4) -> rank 0, 0 -> 1, 0 -> 2,
    // 0 -> 1 again, which is lightest with 8/3, 2 -> 2, 3 -> 0. Rank 0 lacks expert 0; of its experts 1 (4) and 3 (2),
    // 3 is closer to 8/3.
    assert_eq!(ranks(&[8, 4, 2, 2], &Topology::single_node(3, 2)), [[1, 0], [0, 3], [0, 2]]);
}

#[test]
fn copies_beyond_one_on_every_rank_go_to_the_hottest_expert_that_the_rank_lacks() {
    // Expert 0 gets all 4 more copies (9 -> 1.8), five on two ranks: [0 0 0 3] and [0 0 1 2]. Rank 0 lacks 1 and 2,
    // equally hot at first, then 2 is hotter than 1 with its two copies; rank 1 lacks 3.
    assert_eq!(ranks(&[9, 1, 1, 1], &Topology::single_node(2, 4)), [[0, 1, 2, 3], [0, 3, 1, 2]]);
}

#[test]
fn no_load_at_all_still_gives_every_expert_a_slot() {
    // All further copies go to expert 0, as published; only one of them can be on each rank.
    let slots = ranks(&[0; 5], &Topology::single_node(4, 2)).concat();
    assert!((0..5).all(|expert| slots.contains(&expert)), "{slots:?}");
}

#[test]
fn a_second_copy_stays_on_its_node_though_another_node_has_a_closer_load() {
    // Rank 0 holds 0 twice, 10 for each copy. Expert 3 (9 for each copy) is closest, on rank 3 of the other node; on
    // rank 1 of the same node 2 (4) is closer than 1 (1 for each copy).
    let mut slots = [0, 0, 1, 2, 3, 0, 1, 3];
    separate_copies(&mut slots, &[30.0, 2.0, 4.0, 18.0], &Topology::even(2, 4, 2).unwrap(), 2);
    assert_eq!(slots, [0, 2, 1, 0, 3, 0, 1, 3]);
}
