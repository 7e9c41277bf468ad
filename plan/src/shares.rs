//! The shares that copies take of their experts' tokens, for a placement that is given. Knows nothing of how the placement
//! was found or of what it costs to change it.

mod levelled;
mod rounding;

use std::ops::Range;

use crate::expected::{Error, Expected, Future};
use crate::ids::LayerId;
use crate::map::{ExpertMap, WHOLE};
use crate::topology::Topology;
use crate::tuning::Tuning;

pub(crate) use levelled::{Copy, Levelled, level};
pub(crate) use rounding::Rounding;

/// A placement with shares that suit what is expected.
///
/// In each layer they minimise what is expected of the sum over ranks of load squared over speed, when the tokens of each
/// expert are those expected, give or take what they are expected to be off by (experts independent). The certain part
/// of that sum levels ranks: without uncertainty its minimum has the least possible load on the busiest rank. The
/// uncertain part holds an expert's shares together, as an expert that is split evenly errs by least on any one rank. A layer
/// keeps even shares where they take less than 0.05 % off its busiest rank, and where bursts are expected: what is placed for
/// bursts is uneven in the sum on purpose.
///
/// # Panics
/// If map, topology and what is expected have other dimensions.
#[must_use]
pub fn suit(placement: ExpertMap, expected: &Expected, topology: &Topology) -> ExpertMap {
    suit_with(placement, expected, topology, &Tuning::PRODUCT)
}

/// [`suit`] with other numbers than the product's.
pub(crate) fn suit_with(placement: ExpertMap, expected: &Expected, topology: &Topology, tuning: &Tuning) -> ExpertMap {
    let mut suited = placement.with_even_shares();
    let mut suit = Suit::new(topology.speeds(), suited.physical(), tuning);
    for layer in suited.layers() {
        let Future::Level { tokens, error } = expected.layer(layer) else { continue };
        if let Some(shares) =
            suit.layer(&suited, layer, (tokens, uncertainty(tokens, *error, tuning.least_uncertainty)))
        {
            suited.set_shares(layer, Some(shares)).expect("shares of an expert make a whole");
        }
    }
    suited
}

/// How far off the tokens of a layer's experts are expected to be, a quadratic mean relative to them; `least` at least, but nothing where they are known.
fn uncertainty(tokens: &[f64], error: Error, least: f64) -> f64 {
    if error == Error::default() {
        return 0.0;
    }
    let (tokens, squares) = tokens.iter().fold((0.0, 0.0), |(sum, squares), &t| (sum + t, squares + t * t));
    let variance = if squares > 0.0 { error.counting * tokens / squares + error.relative } else { 0.0 };
    variance.sqrt().max(least)
}

/// What is used again from layer to layer.
struct Suit<'a> {
    speeds: &'a [f64],
    levelled: Levelled<'a>,
    /// Slot and rank of the copies of experts with several, expert by expert.
    copies: Vec<(usize, usize)>,
    rounding: Rounding,
    tuning: &'a Tuning,
}

impl<'a> Suit<'a> {
    fn new(speeds: &'a [f64], slots: usize, tuning: &'a Tuning) -> Self {
        let levelled = Levelled::new(speeds, slots, tuning.still);
        Self { speeds, levelled, copies: Vec::with_capacity(slots), rounding: Rounding::default(), tuning }
    }

    /// Shares for a layer that is shared evenly; `None` where those are as good.
    fn layer(&mut self, map: &ExpertMap, layer: LayerId, (tokens, uncertainty): (&[f64], f64)) -> Option<Vec<u32>> {
        let (experts, of_ranks) = (map.layer(layer), map.slots_of_ranks());
        let counts = map.copy_counts(layer);
        let evenly: Vec<f64> = tokens.iter().zip(&counts).map(|(tokens, &count)| tokens / f64::from(count)).collect();
        let slots = |rank: usize| of_ranks.of(rank.into());
        let load = |slots: Range<usize>| experts[slots].iter().map(|expert| evenly[expert.index()]).sum();
        let levelled = &mut self.levelled;
        levelled.begin((0..self.speeds.len()).map(|rank| load(slots(rank))));
        // No shares take a rank below what all ranks would carry if they were level.
        let worth = 1.0 - self.tuning.worth_of_shares;
        let (even, level) = (levelled.busiest(), levelled.level());
        if even * worth < level {
            return None;
        }
        let mut end = 0;
        let place = |&count: &u32| {
            let start = end;
            end += if count > 1 { count as usize } else { 0 };
            start
        };
        let mut places: Vec<usize> = counts.iter().map(place).collect();
        self.copies.clear();
        self.copies.resize(end, (0, 0));
        for rank in 0..self.speeds.len() {
            for slot in slots(rank) {
                let expert = experts[slot].index();
                if counts[expert] > 1 {
                    self.copies[places[expert]] = (slot, rank);
                    places[expert] += 1;
                }
            }
        }
        let mut copies = &self.copies[..];
        for (expert, &count) in counts.iter().enumerate().filter(|(_, count)| **count > 1) {
            let (of_expert, rest) = copies.split_at(count as usize);
            levelled.add(tokens[expert], of_expert.iter().copied());
            copies = rest;
        }
        levelled.level_out(uncertainty, self.tuning.passes_over_shares, level * (1.0 + self.tuning.worth_of_shares));
        let mut parts = map.parts(layer);
        for copies in levelled.shared() {
            self.rounding.parts(copies.iter().map(|&(slot, _, fraction)| (slot, fraction)), &mut parts);
        }
        // What counts is what is carried out: whole parts.
        let taken = |slot: usize| tokens[experts[slot].index()] * f64::from(parts[slot]) / f64::from(WHOLE);
        let times = self.speeds.iter().enumerate().map(|(rank, speed)| slots(rank).map(taken).sum::<f64>() / speed);
        (times.fold(0.0, f64::max) < even * worth).then_some(parts)
    }
}

#[cfg(test)]
mod tests;
