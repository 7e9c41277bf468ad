//! Lower bounds on the load of the busiest rank of one layer when copies share an expert's tokens evenly. No placement
//! is below them; a placement may exist that meets them or not.

use crate::shapes::Shape;

/// The largest of: the mean; the largest copy when copies are handed out as well as possible, no expert having more than
/// ranks; and what some rank must hold because copies outnumber ranks.
pub fn of_counts(load: &[u64], ranks: usize, physical: usize) -> f64 {
    let weights = weights(load);
    let mean = weights.iter().sum::<f64>() / ranks as f64;
    // What the pigeonhole gives is found by bisection, which may end above the true value by its last step.
    mean.max(water_level(&weights, ranks, physical)).max(pigeonhole(&weights, ranks, physical) * (1.0 - 1e-9))
}

/// [`of_counts`], or what the largest copy must carry beside it where that is more. Tighter where ranks have few slots and
/// some experts are much hotter than others: the peers' figures do not know it, and it says how much of an excess over
/// the other bound nobody can take away.
///
/// Let `x` be the largest copy of any placement. Its rank holds `slots - 1` other experts. Of their copies only as many
/// are needed as keep each at or below `x`; if there are `j` more, all experts could be kept at `x` with `j` copies fewer,
/// so `x` is at least the level that those reach. The others are least where they are the experts of least load and the
/// `j` copies are theirs, as long as each of those has at most half of `x`.
pub fn with_companions(load: &[u64], ranks: usize, physical: usize) -> f64 {
    let weights = weights(load);
    let mut companions = weights.clone();
    companions.sort_by(f64::total_cmp);
    companions.truncate(physical / ranks - 1);
    let levels = water_levels(&weights, ranks, physical);
    let lowest = levels.last().copied().unwrap_or(0.0);
    let known = of_counts(load, ranks, physical);
    if companions.last().is_none_or(|&companion| companion > lowest / 2.0) {
        return known;
    }
    let mut counts = vec![1.0; companions.len()];
    let mut least = f64::INFINITY;
    for level in levels.iter().rev() {
        let beside: f64 = companions.iter().zip(&counts).map(|(weight, count)| weight / count).sum();
        least = least.min(level + beside);
        let gain = |at: usize| companions[at] / counts[at] - companions[at] / (counts[at] + 1.0);
        let best = (0..companions.len()).max_by(|&a, &b| gain(a).total_cmp(&gain(b)));
        counts[best.expect("there are companions")] += 1.0;
    }
    known.max(least)
}

/// The bound when each router group must be on one node: the least, over all ways to give each node as many groups, of
/// the busiest node's bound.
pub fn of_groups(load: &[u64], shape: &Shape) -> f64 {
    let Shape { ranks, physical, nodes, router_groups: groups, .. } = *shape;
    let weights = weights(load);
    let size = weights.len() / groups;
    let of_node = |members: &[usize]| {
        let weights: Vec<f64> = members.iter().flat_map(|group| &weights[group * size..][..size]).copied().collect();
        let mean = weights.iter().sum::<f64>() / (ranks / nodes) as f64;
        mean.max(water_level(&weights, ranks / nodes, physical / nodes))
    };
    least_of_busiest(&(0..groups).collect::<Vec<_>>(), groups / nodes, &of_node)
}

fn weights(load: &[u64]) -> Vec<f64> {
    load.iter().map(|&tokens| tokens as f64).collect()
}

/// The least, over all partitions of `groups` into parts of `size`, of the largest value of a part.
fn least_of_busiest(groups: &[usize], size: usize, value: &impl Fn(&[usize]) -> f64) -> f64 {
    let Some((&first, rest)) = groups.split_first() else { return 0.0 };
    let mut least = f64::INFINITY;
    for others in combinations(rest, size - 1) {
        let part: Vec<usize> = std::iter::once(first).chain(others.iter().copied()).collect();
        let left: Vec<usize> = rest.iter().filter(|group| !others.contains(group)).copied().collect();
        let own = value(&part);
        if own < least {
            least = least.min(own.max(least_of_busiest(&left, size, value)));
        }
    }
    least
}

fn combinations(items: &[usize], size: usize) -> Vec<Vec<usize>> {
    if size == 0 {
        return vec![Vec::new()];
    }
    let Some((&first, rest)) = items.split_first() else { return Vec::new() };
    let with = combinations(rest, size - 1).into_iter().map(|mut chosen| {
        chosen.insert(0, first);
        chosen
    });
    with.chain(combinations(rest, size)).collect()
}

/// The largest copy when all slots are used.
fn water_level(weights: &[f64], ranks: usize, physical: usize) -> f64 {
    water_levels(weights, ranks, physical).last().copied().unwrap_or(0.0)
}

/// The largest copy with no copy beside the first of each expert, with one, and so on, when each goes to the expert with
/// the largest: no other way has a smaller largest.
fn water_levels(weights: &[f64], ranks: usize, physical: usize) -> Vec<f64> {
    let mut counts = vec![1_usize; weights.len()];
    let copy = |expert: usize, counts: &[usize]| weights[expert] / counts[expert] as f64;
    let largest = |counts: &[usize]| (0..weights.len()).map(|expert| copy(expert, counts)).fold(0.0, f64::max);
    let mut levels = vec![largest(&counts)];
    for _ in weights.len()..physical {
        let open = (0..weights.len()).filter(|&expert| counts[expert] < ranks);
        if let Some(hottest) = open.max_by(|&a, &b| copy(a, &counts).total_cmp(&copy(b, &counts))) {
            counts[hottest] += 1;
        }
        levels.push(largest(&counts));
    }
    levels
}

/// `q * ranks + 1` copies put `q + 1` on one rank, whatever they are copies of: its load is at least that of the
/// `q + 1` smallest of the `q * ranks + 1` largest copies. With two slots per rank the i-th largest copy is at best
/// beside the i-th smallest.
fn pigeonhole(weights: &[f64], ranks: usize, physical: usize) -> f64 {
    let (slots, experts, extra) = (physical / ranks, weights.len(), physical - weights.len());
    let mut ascending = weights.to_vec();
    ascending.sort_by(f64::total_cmp);
    let kth = |k: usize| kth_largest_copy(&ascending, extra, k);
    let mut best = 0.0_f64;
    for q in (1..slots).take_while(|q| q * ranks < experts) {
        let number = q * ranks + 1;
        // Each term is its own minimum over all counts, so the sum is a bound; with many slots one term says as much.
        let least = if slots <= 5 { (0..=q).map(|j| kth(number - j)).sum() } else { (q + 1) as f64 * kth(number) };
        best = best.max(least);
    }
    if slots == 2 {
        for i in (extra + 1..=ranks).step_by((ranks / 12).max(1)) {
            best = best.max(kth(i) + kth(physical + 1 - i));
        }
    }
    best
}

/// The smallest value that the k-th largest copy can have, over all ways to hand out `extra` copies: keeping all copies
/// of an expert at or below a threshold takes `ceil(weight / threshold) - 1` of them, and the cheapest experts first
/// leave the fewest above it.
fn kth_largest_copy(ascending: &[f64], extra: usize, k: usize) -> f64 {
    let (mut low, mut high) = (0.0, ascending.last().copied().unwrap_or(0.0));
    for _ in 0..45 {
        let threshold: f64 = 0.5 * (low + high);
        let mut left = extra as f64;
        let mut still_above = 0;
        for &weight in ascending.iter().filter(|&&weight| weight > threshold) {
            let cost = (weight / threshold.max(1e-300)).ceil() - 1.0;
            // Costs rise with the weight, so whatever does not fit is followed by nothing that does.
            if still_above == 0 && cost <= left {
                left -= cost;
            } else {
                still_above += 1;
            }
        }
        if still_above >= k {
            low = threshold;
        } else {
            high = threshold;
        }
    }
    low
}
