//! Copies on different nodes, so that a node takes no expert with it. Knows nothing of why copies are where they are.

use super::packing::Packing;
use super::ranks::Ranks;

/// The slots with each expert on at least `least` nodes, as far as [`spread`] can.
pub(super) fn apart(ranks: &Ranks, weights: &[f64], slots: &[u16], least: usize) -> Vec<u16> {
    let mut packing = Packing::new(ranks, weights, slots, 1);
    spread(&mut packing, least);
    packing.into_slots()
}

/// Exchanges experts between ranks until each is on at least `least` nodes, or on as many as it has copies, as far as
/// exchanges can: those first that keep the ranks concerned lowest.
fn spread(packing: &mut Packing<'_>, least: usize) {
    for expert in 0..packing.experts() {
        while nodes_of(packing, expert).len() < least.min(packing.count(expert)) {
            let Some((from, to)) = exchange(packing, least, expert) else { break };
            packing.swap(from, to);
        }
    }
}

/// The nodes that an expert has copies on, ascending.
fn nodes_of(packing: &Packing<'_>, expert: usize) -> Vec<usize> {
    let mut of: Vec<usize> = packing.holders(expert).map(|rank| packing.ranks().node(rank)).collect();
    of.sort_unstable();
    of.dedup();
    of
}

type Copy = (usize, usize);

/// (rank, expert) and (rank, expert): the best exchange that takes one of an expert's copies to a node without one, and leaves
/// what comes in its place on enough nodes if it was.
fn exchange(packing: &Packing<'_>, least: usize, expert: usize) -> Option<(Copy, Copy)> {
    let ranks = packing.ranks();
    let taken = nodes_of(packing, expert);
    let mut best: Option<(f64, Copy, Copy)> = None;
    for from in packing.holders(expert) {
        let shared = packing.holders(expert).any(|other| other != from && ranks.node(other) == ranks.node(from));
        for to in (0..ranks.len()).filter(|&to| shared && !taken.contains(&ranks.node(to))) {
            for other in packing.experts_of(to).iter().map(|&other| usize::from(other)) {
                if packing.holds(from, other) || !may_go(packing, least, other, (to, from)) {
                    continue;
                }
                let less = packing.load(expert) - packing.load(other);
                let level = ((packing.rank_load(from) - less) * ranks.pace(from))
                    .max((packing.rank_load(to) + less) * ranks.pace(to));
                if best.is_none_or(|best| level < best.0) {
                    best = Some((level, (from, expert), (to, other)));
                }
            }
        }
    }
    best.map(|(_, from, to)| (from, to))
}

/// Whether an expert is on no fewer nodes, or on enough, after its copy on the first rank has gone to the second.
fn may_go(packing: &Packing<'_>, least: usize, expert: usize, (from, to): (usize, usize)) -> bool {
    let ranks = packing.ranks();
    let elsewhere = |node: usize| packing.holders(expert).any(|rank| rank != from && ranks.node(rank) == node);
    let before = nodes_of(packing, expert).len();
    let after = before - usize::from(!elsewhere(ranks.node(from))) + usize::from(!elsewhere(ranks.node(to)));
    let after = if ranks.node(from) == ranks.node(to) { before } else { after };
    after >= before.min(least)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::{Layer, copies, layers};
    use super::*;
    use crate::ids::NodeId;
    use crate::topology::Topology;

    /// Ranks with `slots` each, on the nodes given.
    fn ranks(nodes: &[u32], slots: usize) -> Ranks {
        let topology = Topology::new(nodes.iter().copied().map(NodeId).collect(), slots);
        Ranks::even(nodes.len(), slots).on_nodes(&topology)
    }

    #[test]
    fn copies_of_one_node_are_exchanged_for_what_weighs_the_same() {
        // Ranks 0 and 1 are one node, which has both copies of expert 0; expert 3 of rank 2 weighs the same as one.
        let ranks = ranks(&[0, 0, 1, 1], 2);
        let weights = [4.0, 1.0, 1.0, 2.0, 6.0, 3.0];
        let mut packing = Packing::new(&ranks, &weights, &[0, 1, 0, 2, 3, 4, 5, 4], 1);
        let before = packing.top();
        spread(&mut packing, 2);
        assert_eq!(nodes_of(&packing, 0), [0, 1]);
        assert!(packing.top() <= before, "{:?}", packing.slots());
    }

    #[test]
    fn what_is_on_two_nodes_already_stays() {
        let ranks = ranks(&[0, 1], 3);
        let mut packing = Packing::new(&ranks, &[3.0, 2.0, 1.0], &[0, 1, 2, 2, 0, 1], 2);
        let before = packing.slots().to_vec();
        spread(&mut packing, 2);
        assert_eq!(packing.slots(), before);
    }

    proptest! {
        #[test]
        fn no_expert_is_on_fewer_nodes_than_before(
            layer in layers(), nodes in prop::collection::vec((0..3_u32).prop_map(NodeId), 7), least in 1..4_usize,
        ) {
            let topology = Topology::new(nodes[..layer.ranks.len()].to_vec(), 1);
            let layer = Layer { ranks: layer.ranks.clone().on_nodes(&topology), ..layer };
            let experts = layer.weights.len();
            let mut packing = layer.packing();
            let before: Vec<usize> = (0..experts).map(|expert| nodes_of(&packing, expert).len().min(least)).collect();
            let counts = copies(&layer.ranks, experts, packing.slots());
            spread(&mut packing, least);
            prop_assert_eq!(copies(&layer.ranks, experts, packing.slots()), counts);
            for (expert, before) in before.into_iter().enumerate() {
                prop_assert!(nodes_of(&packing, expert).len() >= before);
            }
        }
    }
}
