//! The published EPLB algorithm: replicas go to the expert with the highest load per copy, and items are packed longest
//! first onto the least loaded place that has room, every place taking the same number of items. In hierarchical mode
//! groups of experts are packed onto nodes first, and replication and packing then happen within each node.

use crate::ids::{ExpertId, LayerId};
use crate::load::ExpertLoad;
use crate::topology::Topology;

/// Target slots, `[layers, ranks, slots_per_rank]`.
pub(super) fn balance(load: &ExpertLoad, topology: &Topology, per_rank: usize) -> Vec<ExpertId> {
    let (nodes, groups) = mode(load.experts(), topology);
    let mut slots = Vec::with_capacity(load.layers() * topology.slots().total());
    for layer in 0..load.layers() {
        let weights: Vec<f64> = load.layer(LayerId::from(layer)).iter().map(|&tokens| tokens as f64).collect();
        let mut layer = balance_layer(&weights, topology, nodes, groups);
        separate_copies(&mut layer, &weights, topology, per_rank);
        slots.extend(layer.into_iter().map(ExpertId::from));
    }
    slots
}

/// (nodes, groups): those of the topology in hierarchical mode, (1, 1) in global mode.
fn mode(experts: usize, topology: &Topology) -> (usize, usize) {
    let groups = topology.router_groups();
    match topology.even_nodes() {
        Some(nodes) if groups > 0 && groups.is_multiple_of(nodes) && experts.is_multiple_of(groups) => (nodes, groups),
        _ => (1, 1),
    }
}

/// Slots of one layer, `[ranks, slots_per_rank]`, as published: a rank may hold an expert twice.
fn balance_layer(weights: &[f64], topology: &Topology, nodes: usize, groups: usize) -> Vec<usize> {
    let group_size = weights.len() / groups;
    let group_weights: Vec<f64> = weights.chunks_exact(group_size).map(|group| group.iter().sum()).collect();
    let ranks_per_node = topology.ranks() / nodes;
    let mut slots = Vec::with_capacity(topology.slots().total());
    for groups_of_node in pack(&group_weights, nodes) {
        let experts: Vec<usize> =
            groups_of_node.iter().flat_map(|group| group * group_size..(group + 1) * group_size).collect();
        let node_weights: Vec<f64> = experts.iter().map(|&expert| weights[expert]).collect();
        let (copies, counts) = replicate(&node_weights, topology.slots().total() / nodes);
        let copy_weights: Vec<f64> = copies.iter().map(|&copy| node_weights[copy] / f64::from(counts[copy])).collect();
        for items in pack(&copy_weights, ranks_per_node) {
            slots.extend(items.into_iter().map(|item| experts[copies[item]]));
        }
    }
    slots
}

/// Packs the items into `packs` of equal number of items, heaviest first, each into the lightest pack with room; the
/// item numbers of each pack in the order in which they came. Equal items and packs are taken by number.
fn pack(weights: &[f64], packs: usize) -> Vec<Vec<usize>> {
    let room = weights.len() / packs;
    if room == 1 {
        return (0..packs).map(|item| vec![item]).collect();
    }
    let mut order: Vec<usize> = (0..weights.len()).collect();
    order.sort_by(|&a, &b| weights[b].total_cmp(&weights[a]));
    let mut packed = vec![Vec::with_capacity(room); packs];
    let mut sums = vec![0.0_f64; packs];
    for item in order {
        let pack = (0..packs)
            .filter(|&pack| packed[pack].len() < room)
            .min_by(|&a, &b| sums[a].total_cmp(&sums[b]))
            .expect("there is room for every item");
        packed[pack].push(item);
        sums[pack] += weights[item];
    }
    packed
}

/// The expert of each of `physical` copies, one of each expert first, and the number of copies of each expert. Each
/// further copy goes to the expert with the highest load per copy, the first of equals.
fn replicate(weights: &[f64], physical: usize) -> (Vec<usize>, Vec<u32>) {
    let mut counts = vec![1_u32; weights.len()];
    let mut copies: Vec<usize> = (0..weights.len()).collect();
    while copies.len() < physical {
        let per_copy = |expert: usize| weights[expert] / f64::from(counts[expert]);
        let hottest =
            (1..weights.len()).fold(0, |best, expert| if per_copy(expert) > per_copy(best) { expert } else { best });
        counts[hottest] += 1;
        copies.push(hottest);
    }
    (copies, counts)
}

/// Repairs ranks that hold an expert twice; see [`super::Policy::DeepSeek`]. Each step leaves fewer such slots.
fn separate_copies(slots: &mut [usize], weights: &[f64], topology: &Topology, per_rank: usize) {
    let mut counts = vec![0_u32; weights.len()];
    for &expert in &*slots {
        counts[expert] += 1;
    }
    while let Some(slot) = (0..slots.len()).find(|&slot| {
        let start = slot - slot % per_rank;
        slots[start..slot].contains(&slots[slot])
    }) {
        let (rank, expert) = (slot / per_rank, slots[slot]);
        let holds = |rank: usize, expert: usize| slots[rank * per_rank..][..per_rank].contains(&expert);
        let per_copy = |expert: usize| weights[expert] / f64::from(counts[expert].max(1));
        let exchange = (0..slots.len())
            .filter(|&other| !holds(other / per_rank, expert) && !holds(rank, slots[other]))
            .min_by(|&a, &b| {
                let key = |other: usize| {
                    let far = topology.node((other / per_rank).into()) != topology.node(rank.into());
                    (far, (per_copy(slots[other]) - per_copy(expert)).abs())
                };
                let (a, b) = (key(a), key(b));
                a.0.cmp(&b.0).then(a.1.total_cmp(&b.1))
            });
        if let Some(other) = exchange {
            slots.swap(slot, other);
        } else {
            let replacement = (0..weights.len())
                .filter(|&other| !holds(rank, other))
                .max_by(|&a, &b| per_copy(a).total_cmp(&per_copy(b)).then(b.cmp(&a)))
                .expect("a rank has no more slots than there are experts");
            counts[expert] -= 1;
            counts[replacement] += 1;
            slots[slot] = replacement;
        }
    }
}

#[cfg(test)]
mod tests;
