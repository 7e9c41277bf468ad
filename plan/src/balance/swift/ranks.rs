//! What the ranks of a group offer to one layer, where they are, and the numbers by which placements on them are searched. Knows
//! nothing of loads.

use crate::topology::{Links, Topology};
use crate::tuning::Tuning;

/// Slots, speed and node of each rank.
#[derive(Clone, Debug)]
pub(in crate::balance) struct Ranks {
    /// First slot of each rank, then the number of slots.
    starts: Vec<u32>,
    /// Time that a unit of load takes on each rank; 1 where all ranks are equal.
    paces: Vec<f64>,
    /// Node of each rank, from 0.
    nodes: Vec<u32>,
    /// The ranks of each node, `[nodes]`, one bit for each.
    of_nodes: Vec<Vec<u64>>,
    /// Price of a page that comes from another node, in pages within a node.
    far_page: f64,
    /// Number of ranks with slots, the sum of their speeds, and the highest.
    open: usize,
    speed: f64,
    fastest: f64,
    tuning: Tuning,
}

impl Ranks {
    /// Ranks with these slots and speeds, `[ranks]` each. Speeds are relative, finite and above 0.
    pub(in crate::balance) fn new(slots: &[usize], speeds: &[f64]) -> Self {
        let mut starts = Vec::with_capacity(slots.len() + 1);
        let mut end = 0;
        starts.push(0);
        for &slots in slots {
            end += slots as u32;
            starts.push(end);
        }
        let open = || slots.iter().zip(speeds).filter(|(slots, _)| **slots > 0).map(|(_, speed)| *speed);
        Self {
            starts,
            of_nodes: bits_of(&vec![0; slots.len()]),
            nodes: vec![0; slots.len()],
            far_page: 1.0,
            paces: speeds.iter().map(|speed| 1.0 / speed).collect(),
            open: open().count(),
            speed: open().sum(),
            fastest: open().fold(0.0, f64::max),
            tuning: Tuning::PRODUCT,
        }
    }

    /// The same ranks on the nodes of a topology. A page from another node costs as much more as its links are slower, up to
    /// [`Tuning::far_page`].
    pub(in crate::balance) fn on_nodes(self, topology: &Topology) -> Self {
        let Links { within_nodes, between_nodes } = topology.links();
        let far_page = (within_nodes / between_nodes).clamp(1.0, 1.0 + self.tuning.far_page);
        let nodes: Vec<u32> = (0..self.len()).map(|rank| topology.node(rank.into()).0).collect();
        Self { of_nodes: bits_of(&nodes), nodes, far_page, ..self }
    }

    /// The same ranks, searched with other numbers than the product's.
    pub(in crate::balance) fn tuned(self, tuning: &Tuning) -> Self {
        Self { tuning: *tuning, ..self }
    }

    /// What placements on them are searched with.
    pub(in crate::balance) const fn tuning(&self) -> &Tuning {
        &self.tuning
    }

    /// Speed of each rank.
    pub(in crate::balance) fn speeds(&self) -> Vec<f64> {
        self.paces.iter().map(|pace| 1.0 / pace).collect()
    }

    /// `ranks` equal ranks.
    #[cfg(test)]
    pub(in crate::balance) fn even(ranks: usize, slots_per_rank: usize) -> Self {
        Self::new(&vec![slots_per_rank; ranks], &vec![1.0; ranks])
    }

    /// Number of ranks.
    pub(in crate::balance) const fn len(&self) -> usize {
        self.paces.len()
    }

    /// The node of a rank, from 0.
    pub(in crate::balance) fn node(&self, rank: usize) -> usize {
        self.nodes[rank] as usize
    }

    /// Nodes up to the last one that has ranks.
    pub(in crate::balance) const fn nodes(&self) -> usize {
        self.of_nodes.len()
    }

    /// The ranks of a node, one bit for each.
    pub(in crate::balance) fn of_node(&self, node: usize) -> &[u64] {
        &self.of_nodes[node]
    }

    /// Price of a page that comes from another node, in pages within a node.
    pub(in crate::balance) const fn far_page(&self) -> f64 {
        self.far_page
    }

    /// What tells a rank apart from others of its node.
    pub(in crate::balance) fn kind(&self, rank: usize) -> (usize, u64) {
        (self.slots(rank).len(), self.pace(rank).to_bits())
    }

    /// What each rank holds, `[ranks]`.
    pub(in crate::balance) fn contents<'a>(&self, slots: &'a [u16]) -> Vec<&'a [u16]> {
        (0..self.len()).map(|rank| &slots[self.slots(rank)]).collect()
    }

    /// Number of ranks with slots: the most copies that an expert can have.
    pub(in crate::balance) const fn open(&self) -> usize {
        self.open
    }

    /// Slots of all ranks.
    pub(in crate::balance) fn physical(&self) -> usize {
        self.starts[self.len()] as usize
    }

    /// The slots of a rank.
    pub(in crate::balance) fn slots(&self, rank: usize) -> std::ops::Range<usize> {
        self.starts[rank] as usize..self.starts[rank + 1] as usize
    }

    /// Time that a unit of load takes on a rank.
    pub(in crate::balance) fn pace(&self, rank: usize) -> f64 {
        self.paces[rank]
    }

    /// Time that a unit of load takes on the fastest rank with slots.
    pub(in crate::balance) fn fastest_pace(&self) -> f64 {
        1.0 / self.fastest
    }

    /// Sum of the speeds of ranks with slots: the load that they take in a unit of time.
    pub(in crate::balance) const fn speed(&self) -> f64 {
        self.speed
    }
}

/// The ranks of each node, given the node of each rank.
fn bits_of(nodes: &[u32]) -> Vec<Vec<u64>> {
    let count = nodes.iter().max().map_or(0, |last| *last as usize + 1);
    let mut bits = vec![vec![0; nodes.len().div_ceil(64)]; count];
    for (rank, &node) in nodes.iter().enumerate() {
        bits[node as usize][rank / 64] |= 1 << (rank % 64);
    }
    bits
}
