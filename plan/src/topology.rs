//! The nodes and ranks of a group and the slots that each rank offers. Knows nothing of loads or placements.

use thiserror::Error;

use crate::ids::{NodeId, RankId};
use crate::slots::RankSlots;
use crate::words::counted;

/// Which node each rank is on, and what the ranks offer.
#[derive(Clone, Debug, PartialEq)]
pub struct Topology {
    /// `[ranks]`
    nodes: Vec<NodeId>,
    slots: RankSlots,
    /// `[ranks]`
    speeds: Vec<f64>,
    links: Links,
    router_groups: usize,
}

/// What the links of a rank carry in each direction, bytes per second.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Links {
    /// To and from ranks of its node.
    pub within_nodes: f64,
    /// To and from ranks of other nodes.
    pub between_nodes: f64,
}

impl Default for Links {
    /// Those of a GPU with `NVLink` of the fourth generation and a 400 Gbit/s adapter of its own, a little rounded down.
    fn default() -> Self {
        Self { within_nodes: 400e9, between_nodes: 45e9 }
    }
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

    /// Ranks of one speed on the nodes given, `[ranks]`.
    #[must_use]
    pub fn new(nodes: Vec<NodeId>, slots_per_rank: usize) -> Self {
        let slots = RankSlots::even(nodes.len(), slots_per_rank);
        Self { speeds: vec![1.0; nodes.len()], nodes, slots, links: Links::default(), router_groups: 1 }
    }

    /// Ranks of one speed on nodes of these names, `[ranks]`. Nodes are numbered as they come, so that ranks that fill one node
    /// after the other are seen to.
    #[must_use]
    pub fn named<'a>(names: impl IntoIterator<Item = &'a str>, slots_per_rank: usize) -> Self {
        let mut known: Vec<&str> = Vec::new();
        let number = |name: &'a str| {
            let found = known.iter().position(|&other| other == name);
            NodeId::from(found.unwrap_or_else(|| {
                known.push(name);
                known.len() - 1
            }))
        };
        Self::new(names.into_iter().map(number).collect(), slots_per_rank)
    }

    /// The same ranks with a number of slots each, `[ranks]`.
    ///
    /// # Errors
    /// If there is not one number for each rank.
    pub fn with_slots(self, slots: RankSlots) -> Result<Self, TopologyError> {
        if slots.ranks() != self.ranks() {
            return Err(TopologyError::Ranks { what: "number of slots", found: slots.ranks(), expected: self.ranks() });
        }
        Ok(Self { slots, ..self })
    }

    /// The same ranks without the slots of those that are lost: a group that lives on keeps the numbers of its ranks. Ranks that
    /// it does not have are no matter.
    #[must_use]
    pub fn without(self, lost: &[RankId]) -> Self {
        let left = |(rank, slots): (usize, usize)| if lost.contains(&rank.into()) { 0 } else { slots };
        let slots = RankSlots::new(self.slots.counts().enumerate().map(left));
        Self { slots, ..self }
    }

    /// The live ranks alone, those that have slots, numbered anew.
    #[must_use]
    pub(crate) fn live(&self) -> Self {
        let live: Vec<usize> = (0..self.ranks()).filter(|&rank| self.slots.count(rank.into()) > 0).collect();
        Self {
            nodes: live.iter().map(|&rank| self.nodes[rank]).collect(),
            slots: RankSlots::new(live.iter().map(|&rank| self.slots.count(rank.into()))),
            speeds: live.iter().map(|&rank| self.speeds[rank]).collect(),
            ..self.clone()
        }
    }

    /// The same ranks with a speed each, `[ranks]`: how many tokens a rank computes while one of speed 1 computes one. A
    /// rank's load counts divided by its speed.
    ///
    /// # Errors
    /// If there is not one speed for each rank, or one is not a positive finite number.
    pub fn with_speeds(self, speeds: Vec<f64>) -> Result<Self, TopologyError> {
        if speeds.len() != self.ranks() {
            return Err(TopologyError::Ranks { what: "speed", found: speeds.len(), expected: self.ranks() });
        }
        if let Some(rank) = speeds.iter().position(|speed| !(speed.is_finite() && *speed > 0.0)) {
            return Err(TopologyError::Speed { rank: rank.into(), speed: speeds[rank].to_string() });
        }
        Ok(Self { speeds, ..self })
    }

    /// The same ranks with other links.
    ///
    /// # Errors
    /// If a link carries not a positive finite number of bytes.
    pub fn with_links(self, links: Links) -> Result<Self, TopologyError> {
        let Links { within_nodes, between_nodes } = links;
        if let Some(speed) = [within_nodes, between_nodes].iter().find(|speed| !(speed.is_finite() && **speed > 0.0)) {
            return Err(TopologyError::Link { speed: speed.to_string() });
        }
        Ok(Self { links, ..self })
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

    /// Slots of each rank in every layer.
    #[must_use]
    pub const fn slots(&self) -> &RankSlots {
        &self.slots
    }

    /// Speed of each rank, `[ranks]`.
    #[must_use]
    pub fn speeds(&self) -> &[f64] {
        &self.speeds
    }

    /// Tokens that all ranks with slots together compute while one of speed 1 computes one.
    #[must_use]
    pub fn speed(&self) -> f64 {
        self.slots.counts().zip(&self.speeds).filter(|(slots, _)| *slots > 0).map(|(_, speed)| speed).sum()
    }

    /// What the links of each rank carry.
    #[must_use]
    pub const fn links(&self) -> Links {
        self.links
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
        let even = Self::even(nodes, self.ranks(), 1).ok()?;
        (even.nodes == self.nodes).then_some(nodes)
    }
}

/// Why ranks cannot be arranged as asked.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TopologyError {
    /// The ranks do not divide by the nodes.
    #[error(
        "{} cannot be spread evenly over {}; the nodes must divide the ranks",
        counted(*ranks, "rank"),
        counted(*nodes, "node")
    )]
    Uneven {
        /// Nodes asked for.
        nodes: usize,
        /// Ranks asked for.
        ranks: usize,
    },
    /// Something was not given once for each rank.
    #[error("{} given for {}; give one for each", counted(*found, what), counted(*expected, "rank"))]
    Ranks {
        /// What.
        what: &'static str,
        /// How many there are.
        found: usize,
        /// Number of ranks.
        expected: usize,
    },
    /// A link carries nothing, or no number of bytes.
    #[error("a link carries {speed} bytes per second; it must be a positive number")]
    Link {
        /// The speed given.
        speed: String,
    },
    /// A speed is no positive number.
    #[error("{rank} has speed {speed}; it must be a positive number")]
    Speed {
        /// The rank.
        rank: RankId,
        /// The speed given.
        speed: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_of_one_node_are_neighbours_whatever_it_is_called() {
        assert_eq!(Topology::named(["z", "z", "a", "a"], 3), Topology::even(2, 4, 3).unwrap());
        assert_eq!(Topology::named(["z", "z"], 3), Topology::single_node(2, 3));
        let apart = Topology::named(["b", "a", "b"], 3);
        assert_eq!((0..3).map(|rank| apart.node(RankId(rank)).0).collect::<Vec<_>>(), [0, 1, 0]);
    }

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

    #[test]
    fn ranks_that_are_lost_have_no_slots_and_those_that_are_left_keep_theirs() {
        let slots = RankSlots::new([3, 1, 2, 3]);
        let group = Topology::even(2, 4, 1).unwrap().with_slots(slots).unwrap().with_speeds(vec![1.0, 2.0, 3.0, 4.0]);
        let left = group.unwrap().without(&[RankId(1), RankId(7)]);
        assert_eq!(left.slots(), &RankSlots::new([3, 0, 2, 3]));
        let live = left.live();
        assert_eq!((live.slots(), live.speeds()), (&RankSlots::new([3, 2, 3]), &[1.0, 3.0, 4.0][..]));
        assert_eq!([0, 1, 2].map(|rank| live.node(RankId(rank)).0), [0, 1, 1]);
    }

    #[test]
    fn ranks_may_differ_in_slots_and_speed() {
        let unequal = Topology::single_node(2, 3).with_slots(RankSlots::new([3, 1])).unwrap();
        let unequal = unequal.with_speeds(vec![2.0, 0.5]).unwrap();
        assert_eq!((unequal.slots().count(RankId(1)), unequal.speeds()), (1, &[2.0, 0.5][..]));
        let few = TopologyError::Ranks { what: "speed", found: 1, expected: 2 };
        assert_eq!(unequal.clone().with_speeds(vec![1.0]), Err(few));
        let slots = TopologyError::Ranks { what: "number of slots", found: 3, expected: 2 };
        assert_eq!(unequal.clone().with_slots(RankSlots::even(3, 1)), Err(slots));
        let refused = unequal.with_speeds(vec![1.0, f64::NAN]).unwrap_err().to_string();
        assert_eq!(refused, "rank 1 has speed NaN; it must be a positive number");
    }
}
