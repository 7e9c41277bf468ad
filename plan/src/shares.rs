//! The shares that copies take of their experts' tokens, for a placement that is given. Knows nothing of how the placement
//! was found or of what it costs to change it.

use std::ops::Range;

use crate::ids::LayerId;
use crate::load::{ExpertLoad, distance};
use crate::map::{ExpertMap, WHOLE};
use crate::topology::Topology;

/// Passes over a layer's replicated experts after which the shares are taken as they are. A pass hands load on along one
/// more copy of a chain, so only long chains of copies are left short of the best.
const PASSES: usize = 24;

/// A pass that moves no rank's load by more than this part of the mean is the last.
const STILL: f64 = 6e-4;

/// What shares must take off a layer's busiest rank, as a part of it: less is what whole parts of an expert round.
const WORTH: f64 = 0.0005;

/// How far off a forecast of an expert's tokens is by relative standard deviation, at least: windows of recorded loads
/// that follow each other differ by about as much.
pub const LEAST_UNCERTAINTY: f64 = 0.05;

/// The map with shares that suit a load.
///
/// In each layer they minimise what is expected of the sum over ranks of load squared over speed, when the tokens of each
/// expert are those given, give or take `uncertainty` (relative standard deviation, experts independent). The certain part
/// of that sum levels ranks: without uncertainty its minimum has the least possible load on the busiest rank. The
/// uncertain part holds an expert's shares together, as an expert that is split evenly errs by least on any one rank. A layer
/// keeps even shares where they take less than 0.05 % off its busiest rank.
///
/// # Panics
/// If map, load and topology have other dimensions.
#[must_use]
pub fn suit(map: &ExpertMap, load: &ExpertLoad, topology: &Topology, uncertainty: f64) -> ExpertMap {
    let mut suited = map.clone().with_even_shares();
    for layer in map.layers() {
        if let Some(shares) = suit_layer(&suited, layer, load.layer(layer), topology.speeds(), uncertainty) {
            suited.set_shares(layer, Some(shares)).expect("shares of an expert make a whole");
        }
    }
    suited
}

/// By how much windows that follow each other differ ([`distance`]), a quadratic mean; [`LEAST_UNCERTAINTY`] at least.
/// Windows without any load say nothing.
#[must_use]
pub fn uncertainty(windows: &[ExpertLoad]) -> f64 {
    let windows: Vec<&ExpertLoad> = windows.iter().filter(|window| window.total() > 0).collect();
    let squares: f64 = windows.windows(2).map(|pair| distance(pair[0], pair[1]).powi(2)).sum();
    let pairs = windows.len().saturating_sub(1).max(1) as f64;
    f64::sqrt(squares / pairs).max(LEAST_UNCERTAINTY)
}

/// `None` where even shares are as good.
fn suit_layer(map: &ExpertMap, layer: LayerId, tokens: &[u64], speeds: &[f64], uncertainty: f64) -> Option<Vec<u32>> {
    let (experts, of_ranks) = (map.layer(layer), map.slots_of_ranks());
    let tokens: Vec<f64> = tokens.iter().map(|&tokens| tokens as f64).collect();
    let mut counts = vec![0_u32; tokens.len()];
    for expert in experts {
        counts[expert.index()] += 1;
    }
    let evenly = |slot: usize| tokens[experts[slot].index()] / f64::from(counts[experts[slot].index()]);
    let slots = |rank: usize| of_ranks.of(rank.into());
    let mut levelled = Levelled::new(speeds, experts.len());
    levelled.begin((0..speeds.len()).map(|rank| slots(rank).map(evenly).sum()));
    // No shares take a rank below what all ranks would carry if they were level.
    let worth = 1.0 - WORTH;
    let even = levelled.busiest();
    let level = levelled.loads.iter().sum::<f64>() / speeds.iter().sum::<f64>();
    if even * worth < level {
        return None;
    }
    let copies = (0..speeds.len()).flat_map(|rank| slots(rank).map(move |slot| (experts[slot], slot, rank)));
    let mut copies: Vec<_> = copies.filter(|(expert, ..)| counts[expert.index()] > 1).collect();
    copies.sort_unstable();
    for copies in copies.chunk_by(|a, b| a.0 == b.0) {
        levelled.add(tokens[copies[0].0.index()], copies.iter().map(|&(_, slot, rank)| (slot, rank)));
    }
    levelled.level_out(uncertainty, PASSES, level * (1.0 + WORTH));
    let mut parts = map.parts(layer);
    let mut fractions = Vec::new();
    for Replicated { copies, .. } in &levelled.replicated {
        fractions.clear();
        fractions.extend(levelled.copies[copies.clone()].iter().map(|&(slot, _, fraction)| (slot, fraction)));
        round(&fractions, &mut parts);
    }
    // What counts is what is carried out: whole parts.
    let taken = |slot: usize| tokens[experts[slot].index()] * f64::from(parts[slot]) / f64::from(WHOLE);
    for (rank, load) in levelled.loads.iter_mut().enumerate() {
        *load = slots(rank).map(taken).sum();
    }
    (levelled.busiest() < even * worth).then_some(parts)
}

/// An expert with several copies.
struct Replicated {
    tokens: f64,
    /// Its copies in [`Levelled::copies`].
    copies: Range<usize>,
    /// As [`weight_of_two`], if it has two.
    weight: f64,
}

/// A slot of an expert with several copies: the slot, its rank and its fraction of the expert's tokens.
pub(crate) type Copy = (usize, usize, f64);

/// Loads of a layer's ranks, and the fractions that the copies of its experts take.
pub(crate) struct Levelled<'a> {
    speeds: &'a [f64],
    loads: Vec<f64>,
    replicated: Vec<Replicated>,
    /// Copies of all experts with several, expert by expert.
    copies: Vec<Copy>,
    levels: Vec<(f64, f64)>,
}

impl<'a> Levelled<'a> {
    /// For ranks of these speeds with so many slots together.
    pub(crate) fn new(speeds: &'a [f64], slots: usize) -> Self {
        Self {
            speeds,
            loads: Vec::with_capacity(speeds.len()),
            replicated: Vec::with_capacity(slots / 2),
            copies: Vec::with_capacity(slots),
            levels: Vec::new(),
        }
    }

    /// Begins a layer: the load of each rank while the copies of every expert share evenly.
    pub(crate) fn begin(&mut self, loads: impl Iterator<Item = f64>) {
        self.loads.clear();
        self.loads.extend(loads);
        self.replicated.clear();
        self.copies.clear();
    }

    /// An expert whose tokens may be shared in another way: its several copies, (slot, rank) of each. One without tokens is left
    /// as it is.
    pub(crate) fn add(&mut self, tokens: f64, copies: impl Iterator<Item = (usize, usize)>) {
        if tokens <= 0.0 {
            return;
        }
        let first = self.copies.len();
        self.copies.extend(copies.map(|(slot, rank)| (slot, rank, 0.0)));
        let copies = first..self.copies.len();
        let even = 1.0 / copies.len() as f64;
        self.copies[copies.clone()].iter_mut().for_each(|(_, _, fraction)| *fraction = even);
        self.replicated.push(Replicated { tokens, copies, weight: 0.0 });
    }

    /// Whether a rank carries more than this, for its speed, without any copy of the experts that were added.
    pub(crate) fn is_above_alone(&self, limit: f64) -> bool {
        let mut alone = self.loads.clone();
        for Replicated { tokens, copies, .. } in &self.replicated {
            for &(_, rank, fraction) in &self.copies[copies.clone()] {
                alone[rank] -= tokens * fraction;
            }
        }
        alone.iter().zip(self.speeds).any(|(load, speed)| *load > limit * speed)
    }

    /// Time that the busiest rank takes.
    pub(crate) fn busiest(&self) -> f64 {
        self.loads.iter().zip(self.speeds).map(|(load, speed)| load / speed).fold(0.0, f64::max)
    }

    /// Gives the copies the shares that suit the tokens best, as far as that many passes get, or until the busiest rank takes no
    /// longer than what is enough.
    pub(crate) fn level_out(&mut self, uncertainty: f64, passes: usize, enough: f64) {
        let still = STILL * self.loads.iter().sum::<f64>() / self.speeds.len() as f64;
        let stretch = 1.0 + uncertainty * uncertainty;
        for Replicated { tokens, copies, weight } in &mut self.replicated {
            if let [(_, first, _), (_, second, _)] = self.copies[copies.clone()] {
                *weight = weight_of_two(*tokens * stretch, (first, second), self.speeds);
            }
        }
        for _ in 0..passes {
            let mut moved = 0.0_f64;
            for Replicated { tokens, copies, weight } in &self.replicated {
                moved = moved.max(match &mut self.copies[copies.clone()] {
                    [first, second] => {
                        level_two(*tokens, stretch, *weight, [first, second], (&mut self.loads, self.speeds))
                    }
                    copies => level(*tokens, copies, &mut self.loads, (self.speeds, uncertainty), &mut self.levels),
                });
            }
            if moved <= still || self.busiest() <= enough {
                break;
            }
        }
    }
}

/// The best shares of one expert while those of the others stay; the largest change of a rank's load.
///
/// With `b` the load of the other experts on a rank of speed `v`, a share `s` of `w` tokens costs
/// `(b + w s)^2 / v + u^2 w^2 s^2 / v`; at the minimum its derivative is the same on every rank that takes a share:
/// `(b + w s (1 + u^2)) / v = level`.
pub(crate) fn level(
    tokens: f64,
    slots: &mut [Copy],
    loads: &mut [f64],
    (speeds, uncertainty): (&[f64], f64),
    levels: &mut Vec<(f64, f64)>,
) -> f64 {
    let stretch = 1.0 + uncertainty * uncertainty;
    if let [first, second] = slots {
        return level_two(
            tokens,
            stretch,
            weight_of_two(tokens * stretch, (first.1, second.1), speeds),
            [first, second],
            (loads, speeds),
        );
    }
    levels.clear();
    for &(_, rank, fraction) in &*slots {
        loads[rank] -= tokens * fraction;
        levels.push((loads[rank] / speeds[rank], speeds[rank]));
    }
    levels.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
    // Ranks are filled from the lowest: `speed * (level - start)` each, until the tokens are used up.
    let (mut water, mut speed, mut filled) = (0.0, 0.0, 0.0);
    for (index, &(start, speed_here)) in levels.iter().enumerate() {
        speed += speed_here;
        filled += speed_here * start;
        water = (tokens * stretch + filled) / speed;
        if levels.get(index + 1).is_none_or(|next| water <= next.0) {
            break;
        }
    }
    let mut moved = 0.0_f64;
    let taken = |rank: usize, loads: &[f64]| (speeds[rank] * water - loads[rank]).max(0.0);
    let all: f64 = slots.iter().map(|&(_, rank, _)| taken(rank, loads)).sum();
    // Tokens that are too few to be seen beside what the ranks carry stay as they are shared.
    let seen = all > 0.0;
    for (_, rank, fraction) in slots.iter_mut() {
        let share = if seen { taken(*rank, loads) / all } else { *fraction };
        moved = moved.max(tokens * (share - *fraction).abs());
        *fraction = share;
    }
    for &(_, rank, fraction) in &*slots {
        loads[rank] += tokens * fraction;
    }
    moved
}

/// What the difference of two ranks' loads weighs in the shares of an expert with a copy on each.
fn weight_of_two(wanted: f64, (first, second): (usize, usize), speeds: &[f64]) -> f64 {
    1.0 / ((speeds[first] + speeds[second]) * wanted)
}

/// [`level`] for an expert with two copies, as most replicated ones have: no order is needed, and no division.
fn level_two(
    tokens: f64,
    stretch: f64,
    weight: f64,
    [(_, first, fraction), (_, second, other)]: [&mut Copy; 2],
    (loads, speeds): (&mut [f64], &[f64]),
) -> f64 {
    let (first, second) = (*first, *second);
    let (rest, other_rest) = (loads[first] - tokens * *fraction, loads[second] - tokens * *other);
    // At this share both ranks have one level.
    let share = (speeds[first] * (tokens * stretch + other_rest) - speeds[second] * rest) * weight;
    let share = share.clamp(0.0, 1.0);
    let moved = tokens * (share - *fraction).abs();
    (*fraction, *other) = (share, 1.0 - share);
    loads[first] = rest + tokens * share;
    loads[second] = other_rest + tokens * (1.0 - share);
    moved
}

/// Whole parts that add up for the slots of an expert, given with the fraction that each takes: by largest remainder, the
/// first of equals.
pub(crate) fn round(slots: &[(usize, f64)], parts: &mut [u32]) {
    let mut left = WHOLE;
    let mut remainders: Vec<(f64, usize)> = Vec::with_capacity(slots.len());
    for &(slot, fraction) in slots {
        let exact = fraction * f64::from(WHOLE);
        let whole = (exact as u32).min(left);
        parts[slot] = whole;
        left -= whole;
        remainders.push((exact - f64::from(whole), slot));
    }
    remainders.sort_by(|a, b| b.0.total_cmp(&a.0));
    for &(_, slot) in remainders.iter().cycle().take(left as usize) {
        parts[slot] += 1;
    }
}

#[cfg(test)]
mod tests;
