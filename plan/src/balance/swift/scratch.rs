//! A packing of one layer from nothing: numbers of copies, packing and search. Knows nothing of a placement in force.

use super::counts::{counts, largest_copy};
use super::deepen::deepen;
use super::fill::fill;
use super::lowest;
use super::packing::Packing;
use super::ranks::Ranks;

/// Packs the layer with at least that many copies of each expert, which there are ranks and slots for.
pub(in crate::balance) fn pack<'a>(ranks: &'a Ranks, weights: &'a [f64], least: usize) -> Packing<'a> {
    let counts = counts(weights, ranks.open(), ranks.physical(), least);
    let bound = bound(ranks, weights, largest_copy(weights, &counts));
    let mut packing = fill(ranks, weights, &counts, least);
    let far = bound * (1.0 + ranks.tuning().far);
    lowest::improve(&mut packing, bound, far);
    deepen(&mut packing, far);
    packing
}

/// A time below which the busiest rank cannot get: that of all ranks if load were a liquid, and that of the largest copy
/// alone on the fastest rank.
pub(in crate::balance) fn bound(ranks: &Ranks, weights: &[f64], largest_copy: f64) -> f64 {
    (weights.iter().sum::<f64>() / ranks.speed()).max(largest_copy * ranks.fastest_pace())
}

#[cfg(test)]
mod tests;
