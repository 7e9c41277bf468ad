//! Lower bounds on the load of the busiest rank of one layer when the copies of an expert share its tokens evenly. No placement
//! is below them; whether one meets them is not said.

use crate::load::{ExpertLoad, rank_loads};
use crate::map::ExpertMap;
use crate::topology::Topology;

/// Where ranks are alike, the largest of: the mean; the largest copy when copies are handed out as well as they can be, no expert having more than
/// there are ranks; and what some rank must hold because there are more copies than ranks.
///
/// `physical` is the number of slots of all `ranks`, at least one for each expert.
#[must_use]
pub fn busiest_rank(load: &[u64], ranks: usize, physical: usize) -> f64 {
    let mean = load.iter().map(|&tokens| tokens as f64).sum::<f64>() / ranks.max(1) as f64;
    mean.max(undivided(load, ranks, physical))
}

/// What copies that cannot be divided further put on some rank.
fn undivided(load: &[u64], ranks: usize, physical: usize) -> f64 {
    /// The pigeonhole value is found by bisection, which may end above the true one by its last step.
    const BISECTED: f64 = 1.0 - 1e-9;
    let mut ascending: Vec<f64> = load.iter().map(|&tokens| tokens as f64).collect();
    ascending.sort_unstable_by(f64::total_cmp);
    largest_copy(&ascending, ranks, physical).max(pigeonhole(&ascending, ranks, physical) * BISECTED)
}

/// How far the time of the busiest rank of each layer is above the least that it can be, as a fraction of that, `[layers]`; 0 in a
/// layer without load. The least is [`busiest_rank`] of the ranks that have slots; where their speeds differ, the time that all
/// would take if all took equally long, or that of the fastest for what cannot be divided.
///
/// # Panics
/// If the map is for other ranks.
#[must_use]
pub fn excess(map: &ExpertMap, load: &ExpertLoad, topology: &Topology) -> Vec<f64> {
    let live = map.slots_of_ranks().counts().filter(|&slots| slots > 0).count();
    let fastest = topology.speeds().iter().copied().fold(0.0, f64::max);
    let over = |(layer, ranks): (usize, Vec<f64>)| {
        let tokens = load.layer(layer.into());
        let level = tokens.iter().map(|&tokens| tokens as f64).sum::<f64>() / topology.speed();
        let bound = level.max(undivided(tokens, live, map.physical()) / fastest);
        let busiest = ranks.iter().zip(topology.speeds()).map(|(load, speed)| load / speed).fold(0.0, f64::max);
        if bound > 0.0 { busiest / bound - 1.0 } else { 0.0 }
    };
    rank_loads(map, load).into_iter().enumerate().map(over).collect()
}

/// The largest copy when each further copy goes to the expert with the largest one, which no other way undercuts.
fn largest_copy(weights: &[f64], ranks: usize, physical: usize) -> f64 {
    let mut counts = vec![1_usize; weights.len()];
    let copy = |expert: usize, counts: &[usize]| weights[expert] / counts[expert] as f64;
    for _ in weights.len()..physical {
        let open = (0..weights.len()).filter(|&expert| counts[expert] < ranks);
        let largest = open.max_by(|&a, &b| copy(a, &counts).total_cmp(&copy(b, &counts)));
        let Some(largest) = largest else { break };
        counts[largest] += 1;
    }
    (0..weights.len()).map(|expert| copy(expert, &counts)).fold(0.0, f64::max)
}

/// `q * ranks + 1` copies put `q + 1` on one rank, whatever they are copies of, so its load is at least that of the `q + 1`
/// smallest of the `q * ranks + 1` largest copies. With two slots for each rank the i-th largest copy is at best beside the
/// i-th smallest.
fn pigeonhole(ascending: &[f64], ranks: usize, physical: usize) -> f64 {
    /// Up to here each of the `q + 1` terms is bounded by itself; with more slots one for all says as much.
    const FEW_SLOTS: usize = 5;
    let (slots, experts) = (physical / ranks.max(1), ascending.len());
    let extra = physical.saturating_sub(experts);
    let kth = |k: usize| kth_largest_copy(ascending, extra, k);
    let of_rank = |q: usize| {
        let number = q * ranks + 1;
        if slots <= FEW_SLOTS { (0..=q).map(|j| kth(number - j)).sum() } else { (q + 1) as f64 * kth(number) }
    };
    let mut best = (1..slots).take_while(|q| q * ranks < experts).map(of_rank).fold(0.0, f64::max);
    if slots == 2 {
        for i in (extra + 1..=ranks).step_by((ranks / 12).max(1)) {
            best = best.max(kth(i) + kth(physical + 1 - i));
        }
    }
    best
}

/// The smallest value that the k-th largest copy can have, over all ways to hand out `extra` copies. All copies of an
/// expert are at or below a threshold once it has `ceil(weight / threshold) - 1` further ones, and serving the cheapest experts
/// first leaves the fewest above.
fn kth_largest_copy(ascending: &[f64], extra: usize, k: usize) -> f64 {
    let (mut low, mut high) = (0.0, ascending.last().copied().unwrap_or(0.0));
    for _ in 0..45 {
        let threshold: f64 = 0.5 * (low + high);
        let above = &ascending[ascending.partition_point(|&weight| weight <= threshold)..];
        let mut left = extra as f64;
        let served = above.iter().take_while(|&&weight| {
            left -= (weight / threshold.max(f64::MIN_POSITIVE)).ceil() - 1.0;
            left >= 0.0
        });
        let still_above = above.len() - served.count();
        if still_above >= k { low = threshold } else { high = threshold }
    }
    low
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{ExpertId, RankId};
    use crate::map::MapShape;

    fn close(found: f64, expected: f64) {
        assert!((found - expected).abs() < 1e-6, "{found} instead of {expected}");
    }

    #[test]
    fn a_layer_is_bound_by_its_mean_where_nothing_else_binds() {
        close(busiest_rank(&[1, 1, 1, 1], 2, 4), 2.0);
        close(busiest_rank(&[0, 0, 0, 0], 2, 4), 0.0);
    }

    #[test]
    fn a_layer_is_bound_by_a_copy_that_cannot_be_divided_further() {
        close(busiest_rank(&[90, 5, 5], 3, 3), 90.0);
        close(busiest_rank(&[90, 5, 5], 3, 4), 45.0);
        close(busiest_rank(&[90, 0, 0], 2, 6), 45.0);
    }

    #[test]
    fn a_layer_is_bound_by_copies_that_must_share_a_rank() {
        // Three equal experts on two ranks: two of them are on one rank, though the mean is 15.
        close(busiest_rank(&[10, 10, 10], 2, 3), 15.0);
        close(busiest_rank(&[10, 10, 10, 0], 2, 4), 20.0);
    }

    #[test]
    fn excess_is_what_the_busiest_rank_has_over_the_bound() {
        let shape = MapShape { layers: 2, experts: 4, ranks: 2, slots_per_rank: 2 };
        let map = ExpertMap::new(shape, [0, 1, 2, 3, 0, 1, 2, 3].map(ExpertId).to_vec()).unwrap();
        let load = ExpertLoad::from_rows(&[vec![3, 3, 1, 1], vec![0; 4]]).unwrap();
        let alike = excess(&map, &load, &Topology::single_node(2, 2));
        close(alike[0], 0.5);
        close(alike[1], 0.0);
        // Six tokens on the fast rank and two on the other take as long.
        let unequal = Topology::single_node(2, 2).with_speeds(vec![3.0, 1.0]).unwrap();
        close(excess(&map, &load, &unequal)[0], 0.0);
    }

    #[test]
    fn a_rank_that_is_lost_takes_no_part_of_the_mean() {
        let lost = Topology::single_node(3, 2).without(&[RankId(1)]);
        let slots = [0, 1, 2, 3].map(ExpertId).to_vec();
        let map = ExpertMap::with_slots_of_ranks(1, 4, lost.slots().clone(), slots).unwrap();
        let load = ExpertLoad::from_rows(&[vec![1, 3, 2, 2]]).unwrap();
        close(excess(&map, &load, &lost)[0], 0.0);
        close(crate::replay::ratio(&map, &load, &lost), 1.0);
    }
}
