use proptest::prelude::*;

use super::*;
use crate::balance::{Policy, Request, balance};
use crate::coverage::Coverage;
use crate::map::MapShape;

fn map(ranks: usize, slots_per_rank: usize, experts: usize, slots: &[u32]) -> ExpertMap {
    let shape = MapShape { layers: 1, experts, ranks, slots_per_rank };
    ExpertMap::new(shape, slots.iter().map(|&expert| ExpertId(expert)).collect()).unwrap()
}

#[test]
fn on_one_node_every_copy_takes_its_share() {
    let map = map(2, 2, 3, &[0, 1, 0, 2]);
    let topology = Topology::single_node(2, 2);
    assert_eq!(parts(&map, LayerId(0), &topology, NodeId(0)), map.parts(LayerId(0)));
    assert!(leaving(&map, &ExpertLoad::from_rows(&[vec![5, 6, 7]]).unwrap(), &topology).abs() < 1e-9);
}

#[test]
fn copies_take_the_tokens_of_their_own_node() {
    let map = map(2, 2, 3, &[0, 1, 0, 2]);
    let topology = Topology::even(2, 2, 2).unwrap();
    assert_eq!(parts(&map, LayerId(0), &topology, NodeId(0)), [WHOLE, WHOLE, 0, WHOLE]);
    assert_eq!(parts(&map, LayerId(0), &topology, NodeId(1)), [0, WHOLE, WHOLE, WHOLE]);
    // Half of the tokens of an expert with one copy start on the other node.
    let load = ExpertLoad::from_rows(&[vec![50, 6, 8]]).unwrap();
    assert!((leaving(&map, &load, &topology) - 7.0).abs() < 1e-9);
}

#[test]
fn what_a_node_cannot_take_goes_where_something_is_left() {
    // Three nodes, two copies: each keeps all of its own node's third and takes half of the third that has none.
    let map = map(3, 1, 2, &[0, 0, 1]);
    let topology = Topology::even(3, 3, 1).unwrap();
    assert_eq!(parts(&map, LayerId(0), &topology, NodeId(0))[..2], [WHOLE, 0]);
    assert_eq!(parts(&map, LayerId(0), &topology, NodeId(1))[..2], [0, WHOLE]);
    assert_eq!(parts(&map, LayerId(0), &topology, NodeId(2))[..2], [WHOLE / 2, WHOLE / 2]);
}

#[test]
fn a_copy_with_a_small_share_leaves_the_rest_of_its_nodes_tokens_to_others() {
    let mut map = map(2, 2, 3, &[0, 1, 0, 2]);
    map.set_shares(LayerId(0), Some(vec![WHOLE / 8 * 7, WHOLE, WHOLE / 8, WHOLE])).unwrap();
    let topology = Topology::even(2, 2, 2).unwrap();
    assert_eq!(parts(&map, LayerId(0), &topology, NodeId(0))[0], WHOLE);
    let of_second = parts(&map, LayerId(0), &topology, NodeId(1));
    assert_eq!((of_second[0], of_second[2]), (WHOLE / 4 * 3, WHOLE / 4));
}

prop_compose! {
    fn planned()(
        nodes in prop::collection::vec(0_u32..4, 1..12),
        experts in 1_usize..20,
        spare in 0_usize..4,
    )(
        loads in prop::collection::vec(0_u64..1000, experts),
        slots_per_rank in Just(experts.div_ceil(nodes.len()).saturating_add(spare).min(experts)),
        nodes in Just(nodes),
    ) -> (ExpertMap, Topology, ExpertLoad) {
        let topology = Topology::new(nodes.into_iter().map(NodeId).collect(), slots_per_rank);
        let load = ExpertLoad::from_rows(&[loads]).unwrap();
        let request = Request {
            policy: Policy::Swift,
            windows: std::slice::from_ref(&load),
            topology: &topology,
            current: None,
            min_coverage: Coverage::default(),
        };
        (balance(&request).unwrap().map, topology, load)
    }
}

proptest! {
    #[test]
    fn over_all_nodes_every_copy_takes_its_share_and_no_other_spread_keeps_more((map, topology, load) in planned()) {
        let ranks: Vec<RankId> = (0..topology.ranks()).map(RankId::from).collect();
        let slots = map.slots_of_ranks();
        let mut taken = vec![0.0; slots.total()];
        let mut gone = 0.0;
        for rank in &ranks {
            let parts = parts(&map, LayerId(0), &topology, topology.node(*rank));
            for other in &ranks {
                for slot in slots.of(*other) {
                    let part = f64::from(parts[slot]) / f64::from(WHOLE) / ranks.len() as f64;
                    taken[slot] += part;
                    if topology.node(*rank) != topology.node(*other) {
                        gone += part * load.layer(LayerId(0))[map.layer(LayerId(0))[slot].index()] as f64;
                    }
                }
            }
        }
        for (taken, part) in taken.iter().zip(map.parts(LayerId(0))) {
            prop_assert!((taken - f64::from(part) / f64::from(WHOLE)).abs() <= 1.0 / f64::from(WHOLE), "{taken} {part}");
        }
        let total = load.total() as f64;
        prop_assert!((gone - leaving(&map, &load, &topology)).abs() <= 1e-9 + total * 20.0 / f64::from(WHOLE));
    }
}
