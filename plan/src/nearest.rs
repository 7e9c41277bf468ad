//! Which copies take the tokens of which node: those on it first. Knows nothing of how copies were placed or how they came
//! by their shares.

use crate::ids::{ExpertId, LayerId, NodeId, RankId};
use crate::load::ExpertLoad;
use crate::map::{ExpertMap, WHOLE};
use crate::shares::Rounding;
use crate::topology::Topology;

/// The part that each slot of a layer takes of those tokens of its expert that start on `node`, in parts of [`WHOLE`],
/// `[slots of all ranks]`.
///
/// Tokens start on all ranks with slots alike. The copies on a node take its own tokens first, each in proportion to its
/// share. What they have left over they take of the nodes whose own copies cannot take all, from each in proportion to what
/// it lacks. So over all nodes together each copy takes the share that the map gives it, and as few tokens leave their node
/// as the shares allow.
///
/// # Panics
/// If the topology has other ranks than the map, or the node has no rank with slots.
#[must_use]
pub fn parts(map: &ExpertMap, layer: LayerId, topology: &Topology, node: NodeId) -> Vec<u32> {
    let mut parts = map.parts(layer);
    let mut expert = Traffic::new(topology);
    if expert.nodes() < 2 {
        return parts;
    }
    assert!(expert.starting[node.index()] > 0, "no tokens start on {node}");
    let mut rounding = Rounding::default();
    for copies in copies(map, layer, topology).chunk_by(|a, b| a.expert == b.expert).filter(|copies| copies.len() > 1) {
        expert.spread_over(copies);
        rounding.parts(copies.iter().map(|copy| (copy.slot, expert.fraction(copy, node.index()))), &mut parts);
    }
    parts
}

/// How many of a load's (token, expert) pairs are computed on another node than their token's, over all layers.
///
/// # Panics
/// If map, load and topology have other dimensions.
#[must_use]
pub fn leaving(map: &ExpertMap, load: &ExpertLoad, topology: &Topology) -> f64 {
    let mut expert = Traffic::new(topology);
    if expert.nodes() < 2 {
        return 0.0;
    }
    let mut pairs = 0.0;
    for layer in map.layers() {
        for copies in copies(map, layer, topology).chunk_by(|a, b| a.expert == b.expert) {
            expert.spread_over(copies);
            pairs += load.layer(layer)[copies[0].expert.index()] as f64 * expert.leaving();
        }
    }
    pairs
}

/// A slot that takes a share.
#[derive(Clone, Copy, Debug)]
struct Copy {
    expert: ExpertId,
    slot: usize,
    node: usize,
    part: u32,
}

/// The copies of a layer that take a share, expert by expert, those of an expert by slot.
fn copies(map: &ExpertMap, layer: LayerId, topology: &Topology) -> Vec<Copy> {
    let (experts, parts, of_ranks) = (map.layer(layer), map.parts(layer), map.slots_of_ranks());
    let of_rank = |rank: RankId| of_ranks.of(rank).map(move |slot| (slot, topology.node(rank).index()));
    let slots = (0..topology.ranks()).map(RankId::from).flat_map(of_rank).filter(|&(slot, _)| parts[slot] > 0);
    let mut copies: Vec<Copy> =
        slots.map(|(slot, node)| Copy { expert: experts[slot], slot, node, part: parts[slot] }).collect();
    copies.sort_unstable_by_key(|copy| (copy.expert, copy.slot));
    copies
}

/// What of one expert's tokens starts on each node, and what the copies there take, in parts of [`WHOLE`] times the ranks.
struct Traffic {
    /// `[nodes]`
    starting: Vec<u64>,
    /// `[nodes]`
    taken: Vec<u64>,
    all: u64,
}

impl Traffic {
    fn new(topology: &Topology) -> Self {
        let ranks = (0..topology.ranks()).map(RankId::from).filter(|&rank| topology.slots().count(rank) > 0);
        let mut starting = Vec::new();
        for node in ranks.map(|rank| topology.node(rank).index()) {
            starting.resize(starting.len().max(node + 1), 0);
            starting[node] += u64::from(WHOLE);
        }
        let all = starting.iter().sum();
        Self { taken: vec![0; starting.len()], starting, all }
    }

    /// Nodes on which tokens start.
    fn nodes(&self) -> usize {
        self.starting.iter().filter(|&&starting| starting > 0).count()
    }

    fn spread_over(&mut self, copies: &[Copy]) {
        self.taken.fill(0);
        for copy in copies {
            self.taken[copy.node] += u64::from(copy.part) * (self.all / u64::from(WHOLE));
        }
    }

    /// What starts on a node and stays there.
    fn staying(&self, node: usize) -> u64 {
        self.starting[node].min(self.taken[node])
    }

    /// The fraction of all tokens that leave their node.
    fn leaving(&self) -> f64 {
        let staying: u64 = (0..self.starting.len()).map(|node| self.staying(node)).sum();
        (self.all - staying) as f64 / self.all as f64
    }

    /// The fraction that a copy takes of what starts on a node.
    fn fraction(&self, copy: &Copy, node: usize) -> f64 {
        let staying = self.staying(node);
        let of_node = if copy.node == node {
            staying as f64
        } else {
            let given_away = (self.taken[copy.node] - self.staying(copy.node)) as f64;
            let leaving = self.leaving() * self.all as f64;
            if leaving > 0.0 { (self.starting[node] - staying) as f64 * given_away / leaving } else { 0.0 }
        };
        let of_copy = f64::from(copy.part) * (self.all / u64::from(WHOLE)) as f64 / self.taken[copy.node] as f64;
        of_node * of_copy / self.starting[node] as f64
    }
}

#[cfg(test)]
mod tests;
