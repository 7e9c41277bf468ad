//! The published EPLB algorithm: copies go to the expert with the highest load per copy, and items are packed longest
//! first onto the least loaded place that has room, every place taking the same number of items. In hierarchical mode
//! groups of experts are packed onto nodes first, and copying and packing then happen within each node.

use crate::ids::{ExpertId, LayerId};
use crate::load::ExpertLoad;
use crate::map::even_shares;
use crate::topology::Topology;

/// Target slots and the parts of their experts' tokens that they take, `[layers, ranks, slots_per_rank]`.
pub(super) fn balance(load: &ExpertLoad, topology: &Topology, per_rank: usize) -> (Vec<ExpertId>, Vec<u32>) {
    let (nodes, groups) = mode(load.experts(), topology);
    let mut slots = Vec::with_capacity(load.layers() * topology.slots().total());
    let mut shares = Vec::with_capacity(slots.capacity());
    for layer_id in (0..load.layers()).map(LayerId::from) {
        let weights: Vec<f64> = load.layer(layer_id).iter().map(|&tokens| tokens as f64).collect();
        let layer = balance_layer(&weights, topology, nodes, groups);
        let mut layer: Vec<ExpertId> = layer.into_iter().map(ExpertId::from).collect();
        shares.extend(join_copies(&mut layer, load.layer(layer_id), per_rank));
        slots.append(&mut layer);
    }
    (slots, shares)
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
        let (copies, counts) = copy_hottest(&node_weights, topology.slots().total() / nodes);
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
fn copy_hottest(weights: &[f64], physical: usize) -> (Vec<usize>, Vec<u32>) {
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

/// The parts that the slots of a layer take. Of the copies of an expert on one rank the first takes the shares of all, so
/// that the rank's load stays as published, and each other makes place for an expert that stands by with a share of
/// none: the one with the fewest copies of those that the rank lacks, the hottest of equals.
fn join_copies(slots: &mut [ExpertId], tokens: &[u64], per_rank: usize) -> Vec<u32> {
    let mut shares = even_shares(slots, tokens.len());
    let mut copies = vec![0_u32; tokens.len()];
    for expert in &*slots {
        copies[expert.index()] += 1;
    }
    for (slots, shares) in slots.chunks_exact_mut(per_rank).zip(shares.chunks_exact_mut(per_rank)) {
        for slot in 1..per_rank {
            let expert = slots[slot];
            let Some(first) = slots[..slot].iter().position(|&other| other == expert) else { continue };
            let stands_by = (0..tokens.len())
                .filter(|&other| !slots.contains(&ExpertId::from(other)))
                .min_by_key(|&other| (copies[other], u64::MAX - tokens[other]))
                .expect("a rank has no more slots than there are experts");
            shares[first] += std::mem::take(&mut shares[slot]);
            copies[expert.index()] -= 1;
            copies[stands_by] += 1;
            slots[slot] = stands_by.into();
        }
    }
    shares
}

#[cfg(test)]
mod tests;
