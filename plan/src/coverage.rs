//! Which experts survive the loss of ranks and nodes. Knows nothing of loads.

use serde::{Deserialize, Serialize};

use crate::ids::{ExpertId, LayerId, NodeId, RankId};
use crate::map::{ExpertMap, MapShape};
use crate::topology::Topology;

/// What may be lost with every expert still present.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Coverage {
    /// Any ranks, this many of them.
    pub ranks: usize,
    /// Any nodes, this many of them.
    pub nodes: usize,
}

impl Coverage {
    /// Copies that each expert needs.
    #[must_use]
    pub const fn copies(self) -> usize {
        let lost = if self.ranks > self.nodes { self.ranks } else { self.nodes };
        lost.saturating_add(1)
    }
}

/// The most ranks that can be lost with room left for every expert on the others, once the lost experts have been
/// loaded again: `N - ceil(E / S)`.
#[must_use]
pub const fn room(shape: MapShape) -> usize {
    shape.ranks - shape.experts.div_ceil(shape.slots_per_rank)
}

/// The largest coverage that any map of the shape has: `floor(P / E) - 1`, as every expert needs a copy more than the
/// ranks that may be lost. Never more than [`room`].
#[must_use]
pub const fn most(shape: MapShape) -> usize {
    shape.physical() / shape.experts - 1
}

/// The number of ranks of which any may be lost with every expert still present: the fewest copies that any expert has,
/// less one.
#[must_use]
pub fn coverage(map: &ExpertMap) -> usize {
    let fewest = map.layers().flat_map(|layer| map.copy_counts(layer)).min();
    fewest.map_or(0, |copies| copies as usize - 1)
}

/// The number of nodes of which any may be lost with every expert still present: the fewest nodes that any expert has a
/// copy on, less one. Map and topology are of one group.
#[must_use]
pub fn coverage_of_nodes(map: &ExpertMap, topology: &Topology) -> usize {
    let fewest = map.layers().flat_map(|layer| node_counts(map, topology, layer)).min();
    fewest.map_or(0, |nodes| nodes as usize - 1)
}

/// The number of experts, over all layers, that the loss of some ranks or of some nodes would take away, as many of either as
/// the coverage names. Map and topology are of one group.
#[must_use]
pub fn uncovered(map: &ExpertMap, topology: &Topology, wanted: Coverage) -> usize {
    if wanted == Coverage::default() {
        return 0;
    }
    let Coverage { ranks, nodes } = wanted;
    let of_layer = |layer| {
        let copies = map.copy_counts(layer);
        let on_nodes = if nodes > 0 { node_counts(map, topology, layer) } else { vec![u32::MAX; copies.len()] };
        copies
            .into_iter()
            .zip(on_nodes)
            .filter(|&(copies, on)| copies as usize <= ranks || on as usize <= nodes)
            .count()
    };
    map.layers().map(of_layer).sum()
}

/// The number of nodes that hold each expert of a layer, `[experts]`.
fn node_counts(map: &ExpertMap, topology: &Topology, layer: LayerId) -> Vec<u32> {
    let mut nodes: Vec<Vec<NodeId>> = vec![Vec::new(); map.shape().experts];
    for (&expert, (rank, _)) in map.layer(layer).iter().zip(map.slots_of_layer()) {
        let node = topology.node(rank);
        if !nodes[expert.index()].contains(&node) {
            nodes[expert.index()].push(node);
        }
    }
    nodes.into_iter().map(|nodes| nodes.len() as u32).collect()
}

/// The ranks of nodes, ascending.
#[must_use]
pub fn ranks_of(topology: &Topology, nodes: &[NodeId]) -> Vec<RankId> {
    (0..topology.ranks()).map(RankId::from).filter(|&rank| nodes.contains(&topology.node(rank))).collect()
}

/// The fewest pages that the ranks which are left must receive once `ranks` are lost: one for each expert that is lost
/// with them, from a checkpoint or from the host's memory. More copies and less load cost more.
#[must_use]
pub fn floor_of_moves(map: &ExpertMap, ranks: &[RankId]) -> usize {
    lost(map, ranks).len()
}

/// The experts whose every copy is on one of the ranks given, by layer and expert.
#[must_use]
pub fn lost(map: &ExpertMap, ranks: &[RankId]) -> Vec<(LayerId, ExpertId)> {
    let mut lost = Vec::new();
    for layer in map.layers() {
        let mut present = vec![false; map.shape().experts];
        for rank in (0..map.shape().ranks).map(RankId::from).filter(|rank| !ranks.contains(rank)) {
            for expert in map.rank(layer, rank) {
                present[expert.index()] = true;
            }
        }
        lost.extend((0..present.len()).filter(|&expert| !present[expert]).map(|expert| (layer, expert.into())));
    }
    lost
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map() -> ExpertMap {
        let shape = MapShape { layers: 2, experts: 3, ranks: 3, slots_per_rank: 2 };
        let slots = [0, 1, 1, 2, 2, 0, 0, 1, 0, 2, 0, 2];
        ExpertMap::new(shape, slots.map(ExpertId).to_vec()).unwrap()
    }

    #[test]
    fn an_expert_is_lost_with_the_last_rank_that_holds_it() {
        let only = |layer, expert| vec![(LayerId(layer), ExpertId(expert))];
        assert_eq!(lost(&map(), &[]), []);
        assert_eq!(lost(&map(), &[RankId(0)]), only(1, 1));
        assert_eq!(lost(&map(), &[RankId(1), RankId(2)]), [only(0, 2), only(1, 2)].concat());
    }

    #[test]
    fn coverage_is_that_of_the_expert_with_the_fewest_copies() {
        assert_eq!(coverage(&map()), 0);
        let topology = Topology::single_node(3, 2);
        let without = |ranks| uncovered(&map(), &topology, Coverage { ranks, nodes: 0 });
        assert_eq!([without(0), without(1), without(2)], [0, 1, 5]);
    }

    #[test]
    fn the_fewest_moves_after_a_loss_are_the_experts_whose_every_copy_is_gone() {
        assert_eq!(
            [vec![], vec![RankId(0)], vec![RankId(1), RankId(2)]].map(|ranks| floor_of_moves(&map(), &ranks)),
            [0, 1, 2]
        );
    }

    #[test]
    fn two_copies_on_one_node_are_lost_with_it() {
        // Ranks 0 and 1 share a node. Of layer 0, expert 1 is on both, of it only; of layer 1, expert 1 is on rank 0 only.
        let topology = Topology::new([0, 0, 1].map(NodeId).to_vec(), 2);
        assert_eq!(coverage_of_nodes(&map(), &topology), 0);
        assert_eq!(lost(&map(), &ranks_of(&topology, &[NodeId(0)])).len(), 2);
        let apart = Topology::new([0, 1, 2].map(NodeId).to_vec(), 2);
        let without = |ranks, nodes| uncovered(&map(), &topology, Coverage { ranks, nodes });
        assert_eq!([without(0, 0), without(1, 0), without(0, 1), without(1, 1), without(2, 1)], [0, 1, 2, 2, 5]);
        assert_eq!(uncovered(&map(), &apart, Coverage { ranks: 0, nodes: 1 }), without(1, 0));
    }

    #[test]
    fn bounds_follow_from_the_slots() {
        // 9 slots: with 2 ranks left there are 6 for 4 experts, with 1 rank left 3; two copies of each fit, three do not.
        let shape = MapShape { layers: 1, experts: 4, ranks: 3, slots_per_rank: 3 };
        assert_eq!((room(shape), most(shape)), (1, 1));
        let shape = MapShape { layers: 1, experts: 4, ranks: 4, slots_per_rank: 1 };
        assert_eq!((room(shape), most(shape)), (0, 0));
    }
}
