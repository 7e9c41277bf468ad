//! The nodes and ranks of a group and the slots that each rank offers. Knows nothing of loads or placements.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::ids::{NodeId, RankId};

/// Which node each rank is on, and what the ranks offer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Topology {
    /// `[ranks]`
    nodes: Vec<NodeId>,
    slots_per_rank: usize,
    router_groups: usize,
}

impl Topology {
    /// `ranks` ranks on one node.
    #[must_use]
    pub fn single_node(ranks: usize, slots_per_rank: usize) -> Self {
        Self::new(vec![NodeId(0); ranks], slots_per_rank)
    }

    /// `ranks` ranks spread evenly over `nodes` nodes, in order: the first `ranks / nodes` are on node 0.
    ///
    /// # Errors
    /// If the ranks do not divide by the nodes.
    pub fn even(nodes: usize, ranks: usize, slots_per_rank: usize) -> Result<Self, TopologyError> {
        if nodes == 0 || !ranks.is_multiple_of(nodes) {
            return Err(TopologyError::Uneven { nodes, ranks });
        }
        let per_node = ranks / nodes;
        Ok(Self::new((0..ranks).map(|rank| (rank / per_node).into()).collect(), slots_per_rank))
    }

    /// Ranks on the nodes given, `[ranks]`.
    #[must_use]
    pub const fn new(nodes: Vec<NodeId>, slots_per_rank: usize) -> Self {
        Self { nodes, slots_per_rank, router_groups: 1 }
    }

    /// The same ranks for a model whose router chooses groups of experts before it chooses experts (`n_group` of
    /// DeepSeek-V3): tokens travel less between nodes when a group's experts share one. Without it there is one group.
    #[must_use]
    pub fn with_router_groups(mut self, groups: usize) -> Self {
        self.router_groups = groups;
        self
    }

    /// Number of ranks.
    #[must_use]
    pub const fn ranks(&self) -> usize {
        self.nodes.len()
    }

    /// Slots of each rank and layer.
    #[must_use]
    pub const fn slots_per_rank(&self) -> usize {
        self.slots_per_rank
    }

    /// Groups of experts of the model's router; 1 if it has none.
    #[must_use]
    pub const fn router_groups(&self) -> usize {
        self.router_groups
    }

    /// The node of a rank.
    #[must_use]
    pub fn node(&self, rank: RankId) -> NodeId {
        self.nodes[rank.index()]
    }

    /// Number of nodes when each holds the same number of ranks, in order; `None` for any other arrangement.
    #[must_use]
    pub fn even_nodes(&self) -> Option<usize> {
        let nodes = self.nodes.last()?.index() + 1;
        let even = Self::even(nodes, self.ranks(), self.slots_per_rank).ok()?;
        (even.nodes == self.nodes).then_some(nodes)
    }
}

/// Why ranks cannot be arranged as asked.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TopologyError {
    /// The ranks do not divide by the nodes.
    #[error("{ranks} ranks cannot be spread evenly over {nodes} nodes; name the node of each rank instead")]
    Uneven {
        /// Nodes asked for.
        nodes: usize,
        /// Ranks asked for.
        ranks: usize,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_fill_nodes_in_order() {
        let topology = Topology::even(2, 4, 3).unwrap();
        let nodes: Vec<u32> = (0..4).map(|rank| topology.node(RankId(rank)).0).collect();
        assert_eq!(nodes, [0, 0, 1, 1]);
        assert_eq!(topology.even_nodes(), Some(2));
        assert_eq!(Topology::single_node(5, 1).even_nodes(), Some(1));
    }

    #[test]
    fn ranks_that_do_not_divide_by_the_nodes_are_refused() {
        assert_eq!(Topology::even(3, 4, 1), Err(TopologyError::Uneven { nodes: 3, ranks: 4 }));
        assert_eq!(Topology::even(0, 4, 1), Err(TopologyError::Uneven { nodes: 0, ranks: 4 }));
    }

    #[test]
    fn interleaved_or_unequal_nodes_are_not_even() {
        let on = |nodes: &[u32]| Topology::new(nodes.iter().map(|&node| NodeId(node)).collect(), 1);
        assert_eq!(on(&[0, 1, 0, 1]).even_nodes(), None);
        assert_eq!(on(&[0, 0, 0, 1]).even_nodes(), None);
        assert_eq!(on(&[]).even_nodes(), None);
    }
}
