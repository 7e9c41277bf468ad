//! Which rank takes which part of a packing, where that changes no rank's load: parts that have experts in common go to
//! different nodes, so that more tokens find a copy on their own.

use super::ranks::Ranks;

/// The slots with the content of ranks exchanged among those with equally many slots and equal speed: part by part, those with
/// most load in experts with several copies first, each to the node that has least of it.
pub(super) fn take(ranks: &Ranks, rows: &Rows, weights: &[f64], slots: &[u16]) -> Vec<u16> {
    if ranks.nodes() < 2 {
        return slots.to_vec();
    }
    let experts = weights.len();
    let shared = Shared::new(ranks, experts, slots);
    if shared.experts.is_empty() {
        return slots.to_vec();
    }
    let mut heaviest: Vec<(f64, usize)> = (0..ranks.len()).map(|part| (shared.weight(part, weights), part)).collect();
    heaviest.sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    let mut taken = vec![false; ranks.len()];
    let mut present = vec![false; ranks.nodes() * experts];
    let mut part_of = vec![0; ranks.len()];
    for (_, part) in heaviest {
        let cost = |node: usize| -> f64 {
            let of_node = &present[node * experts..][..experts];
            let there = shared.of(part).iter().filter(|&&expert| of_node[usize::from(expert)]);
            there.map(|&expert| weights[usize::from(expert)]).sum()
        };
        let rank = rows.seat(part, &taken, cost);
        (taken[rank], part_of[rank]) = (true, part);
        for &expert in shared.of(part) {
            present[ranks.node(rank) * experts + usize::from(expert)] = true;
        }
    }
    let parts = ranks.contents(slots);
    part_of.into_iter().map(|part| parts[part]).collect::<Vec<_>>().concat()
}

/// The experts of each part of which others have copies too.
struct Shared {
    /// Part by part.
    experts: Vec<u16>,
    /// Where those of each part begin, and where the last end.
    starts: Vec<usize>,
}

impl Shared {
    fn new(ranks: &Ranks, experts: usize, slots: &[u16]) -> Self {
        let mut counts = vec![0_u16; experts];
        for &expert in slots {
            counts[usize::from(expert)] += 1;
        }
        let mut shared = Self { experts: Vec::with_capacity(slots.len()), starts: Vec::with_capacity(ranks.len() + 1) };
        for part in 0..ranks.len() {
            shared.starts.push(shared.experts.len());
            let held = slots[ranks.slots(part)].iter().copied();
            shared.experts.extend(held.filter(|&expert| counts[usize::from(expert)] > 1));
        }
        shared.starts.push(shared.experts.len());
        shared
    }

    fn of(&self, part: usize) -> &[u16] {
        &self.experts[self.starts[part]..self.starts[part + 1]]
    }

    fn weight(&self, part: usize, weights: &[f64]) -> f64 {
        self.of(part).iter().map(|&expert| weights[usize::from(expert)]).sum()
    }
}

/// Ranks that nothing tells apart, node by node: among them parts may be exchanged.
pub(super) struct Rows {
    /// Of each kind of rank, each node with its ranks of that kind, both ascending.
    kinds: Vec<Vec<(usize, Vec<usize>)>>,
    /// The kind of each rank.
    kind_of: Vec<usize>,
}

impl Rows {
    pub(super) fn new(ranks: &Ranks) -> Self {
        let mut rows = Self { kinds: Vec::new(), kind_of: Vec::with_capacity(ranks.len()) };
        let mut known: Vec<(usize, u64)> = Vec::new();
        for rank in 0..ranks.len() {
            let kind = known.iter().position(|other| *other == ranks.kind(rank)).unwrap_or_else(|| {
                known.push(ranks.kind(rank));
                rows.kinds.push(Vec::new());
                rows.kinds.len() - 1
            });
            rows.kind_of.push(kind);
            let nodes = &mut rows.kinds[kind];
            match nodes.binary_search_by_key(&ranks.node(rank), |(node, _)| *node) {
                Ok(place) => nodes[place].1.push(rank),
                Err(place) => nodes.insert(place, (ranks.node(rank), vec![rank])),
            }
        }
        rows
    }

    /// A rank without a part, like the one that a part comes from, on the node with the lowest cost, the first of equals: there
    /// that very one if it has none, or the first.
    fn seat(&self, part: usize, taken: &[bool], cost: impl Fn(usize) -> f64) -> usize {
        let first_free = |row: &[usize]| row.iter().copied().find(|&rank| !taken[rank]);
        let nodes = self.kinds[self.kind_of[part]].iter();
        let free = nodes.filter_map(|(node, row)| Some((cost(*node), first_free(row)?, row)));
        let lowest = free.min_by(|a, b| a.0.total_cmp(&b.0));
        let (_, first, row) = lowest.expect("as many ranks of a kind as parts");
        if !taken[part] && row.contains(&part) { part } else { first }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::{Layer, copies, layers};
    use super::*;
    use crate::ids::NodeId;
    use crate::topology::Topology;

    fn take(ranks: &Ranks, weights: &[f64], slots: &[u16]) -> Vec<u16> {
        super::take(ranks, &Rows::new(ranks), weights, slots)
    }

    fn on(ranks: Ranks, nodes: &[u32]) -> Ranks {
        ranks.on_nodes(&Topology::new(nodes.iter().copied().map(NodeId).collect(), 1))
    }

    fn nodes_of(ranks: &Ranks, slots: &[u16], expert: u16) -> usize {
        let mut nodes: Vec<usize> = (0..ranks.len())
            .filter(|&rank| slots[ranks.slots(rank)].contains(&expert))
            .map(|rank| ranks.node(rank))
            .collect();
        nodes.sort_unstable();
        nodes.dedup();
        nodes.len()
    }

    #[test]
    fn parts_with_experts_in_common_go_to_different_nodes() {
        let ranks = on(Ranks::even(4, 2), &[0, 0, 1, 1]);
        let slots = [0, 1, 0, 2, 3, 4, 3, 5];
        let seated = take(&ranks, &[4.0, 1.0, 1.0, 2.0, 1.0, 1.0], &slots);
        assert_eq!((nodes_of(&ranks, &seated, 0), nodes_of(&ranks, &seated, 3)), (2, 2), "{seated:?}");
    }

    #[test]
    fn what_carries_most_comes_first() {
        // Three parts share expert 0 or 1 with another one, and there are two nodes.
        let ranks = on(Ranks::new(&[2, 2, 2], &[1.0; 3]), &[0, 0, 1]);
        let weights = |first: f64, second: f64| [first, second, 1.0, 1.0];
        let slots = [0, 2, 0, 1, 1, 3];
        let nodes = |weights: [f64; 4]| {
            let seated = take(&ranks, &weights, &slots);
            (nodes_of(&ranks, &seated, 0), nodes_of(&ranks, &seated, 1))
        };
        assert_eq!((nodes(weights(8.0, 4.0)).0, nodes(weights(4.0, 8.0)).1), (2, 2));
    }

    #[test]
    fn on_one_node_all_stay_where_they_are() {
        let slots = [0, 1, 0, 2];
        assert_eq!(take(&Ranks::even(2, 2), &[3.0, 2.0, 1.0], &slots), slots);
    }

    proptest! {
        #[test]
        fn no_rank_has_more_load_or_slots_than_one_like_it_had(
            layer in layers(), nodes in prop::collection::vec(0..3_u32, 7),
        ) {
            let Layer { ranks, weights, slots, .. } = layer;
            let ranks = on(ranks.clone(), &nodes[..ranks.len()]);
            let seated = take(&ranks, &weights, &slots);
            prop_assert_eq!(copies(&ranks, weights.len(), &seated), copies(&ranks, weights.len(), &slots));
            let parts = |slots: &[u16]| {
                let part = |rank: usize| (ranks.pace(rank).to_bits(), slots[ranks.slots(rank)].to_vec());
                let mut parts: Vec<_> = (0..ranks.len()).map(part).collect();
                parts.sort_unstable();
                parts
            };
            prop_assert_eq!(parts(&seated), parts(&slots));
        }
    }
}
