//! What must hold when ranks or nodes are lost.

use plan::coverage::{self, Coverage};
use plan::ids::{NodeId, RankId};
use plan::topology::Topology;
use proptest::prelude::*;

use super::cases::{groups, maps, shapes};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn an_expert_is_present_after_a_loss_within_the_coverage(
        (map, seed) in (shapes().prop_flat_map(maps), any::<u64>()),
    ) {
        let ranks = map.shape().ranks;
        let covered = coverage::coverage(&map);
        prop_assert!(covered <= coverage::most(map.shape()));
        prop_assert!(coverage::most(map.shape()) <= coverage::room(map.shape()));
        let dead: Vec<RankId> = (0..covered).map(|offset| RankId::from((seed as usize % ranks + offset) % ranks)).collect();
        prop_assert_eq!(coverage::lost(&map, &dead), Vec::new());
        let topology = Topology::single_node(ranks, map.shape().slots_per_rank);
        let uncovered = |ranks| coverage::uncovered(&map, &topology, Coverage { ranks, nodes: 0 });
        prop_assert_eq!(uncovered(covered), 0);
        prop_assert!(uncovered(covered + 1) > 0);
    }

    #[test]
    fn what_some_nodes_take_away_is_lost_with_the_worst_of_them(
        (group, map) in groups().prop_flat_map(|group| (Just(group.clone()), group.maps())),
    ) {
        let topology = &group.topology;
        let mut nodes: Vec<NodeId> = (0..topology.ranks()).map(|rank| topology.node(rank.into())).collect();
        nodes.sort_unstable();
        nodes.dedup();
        let alone = |node: &NodeId| coverage::lost(&map, &coverage::ranks_of(topology, &[*node])).len();
        prop_assert_eq!(nodes.iter().map(alone).sum::<usize>(), coverage::uncovered(&map, topology, Coverage { ranks: 0, nodes: 1 }));
        let covered = coverage::coverage_of_nodes(&map, topology);
        let dead = coverage::ranks_of(topology, &nodes[..covered]);
        prop_assert_eq!(coverage::lost(&map, &dead), Vec::new());
        prop_assert!(covered <= coverage::coverage(&map));
    }
}
