//! Our own policy: from the placement in force, by few changes, those that gain most for each page first.

mod bursts;
mod ranks;
mod relabel;
mod search;

use self::ranks::Ranks;
use super::packing::{Packing, counts};
use crate::ids::ExpertId;
use crate::load::ExpertLoad;
use crate::map::ExpertMap;
use crate::topology::Topology;

/// A layer whose busiest rank is within this share of the lower bound is left as it is: the next window differs from
/// the one that was seen by more than that.
const CLOSE: f64 = 0.005;

/// A change must take at least this share off the busiest rank for each page that it moves.
const GAIN_PER_PAGE: f64 = 0.0005;

/// A packing from scratch, which moves most of a layer, is preferred only where improving the placement in force ends
/// this share above it.
const SCRATCH_GAIN: f64 = 0.02;

/// Target slots, `[layers, ranks, per_rank]`.
pub(super) fn balance(
    (windows, load): (&[ExpertLoad], &ExpertLoad),
    topology: &Topology,
    current: &ExpertMap,
    fresh: bool,
    per_rank: usize,
) -> Vec<ExpertId> {
    let slots_of_ranks: Vec<usize> = topology.slots().counts().collect();
    let ranks = Ranks::new(&slots_of_ranks, topology.speeds());
    let mut slots = Vec::with_capacity(current.slots().len());
    for layer in current.layers() {
        let weights: Vec<f64> = load.layer(layer).iter().map(|&tokens| tokens as f64).collect();
        let in_force: Vec<usize> = current.layer(layer).iter().map(|expert| expert.index()).collect();
        let held: Vec<u16> = in_force.iter().map(|&expert| expert as u16).collect();
        let forecast = || {
            let target = balance_layer(&weights, Packing::new(&weights, per_rank, in_force));
            target.into_iter().map(|expert| expert as u16).collect()
        };
        let held = (!fresh).then_some(&held[..]);
        let target = bursts::plan_or(forecast, (windows, layer), &ranks, held, 1);
        slots.extend(target.into_iter().map(|expert| ExpertId(expert.into())));
    }
    slots
}

fn balance_layer(weights: &[f64], in_force: Packing<'_>) -> Vec<usize> {
    let (ranks, per_rank) = (in_force.ranks(), in_force.per_rank());
    let ideal = counts(weights, ranks, ranks * per_rank);
    let level = water_level(weights, &ideal);
    let goal = (weights.iter().sum::<f64>() / ranks as f64).max(level) * (1.0 + CLOSE);
    if in_force.busiest().1 <= goal {
        return in_force.into_slots();
    }
    let mut improved = in_force.clone();
    search::refresh(&mut improved, level);
    search::improve(&mut improved, goal, GAIN_PER_PAGE);
    if improved.busiest().1 <= goal * (1.0 + SCRATCH_GAIN) {
        return improved.into_slots();
    }
    let mut fresh = Packing::from_counts(weights, per_rank, &ideal);
    search::improve(&mut fresh, goal, 0.0);
    if improved.busiest().1 <= fresh.busiest().1 * (1.0 + SCRATCH_GAIN) {
        return improved.into_slots();
    }
    relabel::relabel(in_force.slots(), fresh.slots(), per_rank, weights.len())
}

/// The load of the largest copy when copies are handed out as well as possible: no rank can have less.
fn water_level(weights: &[f64], counts: &[u32]) -> f64 {
    weights.iter().zip(counts).map(|(weight, &count)| weight / f64::from(count)).fold(0.0, f64::max)
}
