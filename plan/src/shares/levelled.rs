//! Loads of a layer's ranks, levelled by the shares of experts with several copies. Knows nothing of maps or of whole parts.

use std::ops::Range;

/// An expert with several copies.
struct WithCopies {
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
    with_copies: Vec<WithCopies>,
    /// Copies of all experts with several, expert by expert.
    copies: Vec<Copy>,
    levels: Vec<(f64, f64)>,
    still: f64,
}

impl<'a> Levelled<'a> {
    /// For ranks of these speeds with so many slots together. A pass that moves less than `still` of the mean load is the last.
    pub(crate) fn new(speeds: &'a [f64], slots: usize, still: f64) -> Self {
        Self {
            speeds,
            loads: Vec::with_capacity(speeds.len()),
            with_copies: Vec::with_capacity(slots / 2),
            copies: Vec::with_capacity(slots),
            levels: Vec::new(),
            still,
        }
    }

    /// Begins a layer: the load of each rank while the copies of every expert share evenly.
    pub(crate) fn begin(&mut self, loads: impl Iterator<Item = f64>) {
        self.loads.clear();
        self.loads.extend(loads);
        self.with_copies.clear();
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
        self.with_copies.push(WithCopies { tokens, copies, weight: 0.0 });
    }

    /// Time that every rank would take if all took equally long.
    pub(crate) fn level(&self) -> f64 {
        self.loads.iter().sum::<f64>() / self.speeds.iter().sum::<f64>()
    }

    /// The copies of each expert that was added.
    pub(crate) fn shared(&self) -> impl Iterator<Item = &[Copy]> {
        self.with_copies.iter().map(|WithCopies { copies, .. }| &self.copies[copies.clone()])
    }

    /// Time that the busiest rank takes.
    pub(crate) fn busiest(&self) -> f64 {
        self.loads.iter().zip(self.speeds).map(|(load, speed)| load / speed).fold(0.0, f64::max)
    }

    /// Gives the copies the shares that suit the tokens best, as far as that many passes get, or until the busiest rank takes no
    /// longer than what is enough.
    pub(crate) fn level_out(&mut self, uncertainty: f64, passes: usize, enough: f64) {
        let still = self.still * self.loads.iter().sum::<f64>() / self.speeds.len() as f64;
        let stretch = 1.0 + uncertainty * uncertainty;
        for WithCopies { tokens, copies, weight } in &mut self.with_copies {
            if let [(_, first, _), (_, second, _)] = self.copies[copies.clone()] {
                *weight = weight_of_two(*tokens * stretch, (first, second), self.speeds);
            }
        }
        for _ in 0..passes {
            let mut moved = 0.0_f64;
            for WithCopies { tokens, copies, weight } in &self.with_copies {
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
    let (mut speed, mut filled) = (0.0, 0.0);
    for &(_, rank, fraction) in &*slots {
        loads[rank] -= tokens * fraction;
        speed += speeds[rank];
        filled += loads[rank];
    }
    // Mostly every rank takes a share.
    let mut water = (tokens * stretch + filled) / speed;
    if slots.iter().any(|&(_, rank, _)| loads[rank] > speeds[rank] * water) {
        levels.clear();
        levels.extend(slots.iter().map(|&(_, rank, _)| (loads[rank] / speeds[rank], speeds[rank])));
        water = water_of(tokens * stretch, levels);
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

/// The level that tokens take ranks to which are at these levels, of these speeds, when the lowest are filled first:
/// `speed * (level - start)` each, until the tokens are used up.
fn water_of(tokens: f64, levels: &mut [(f64, f64)]) -> f64 {
    levels.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
    let (mut water, mut speed, mut filled) = (0.0, 0.0, 0.0);
    for (index, &(start, speed_here)) in levels.iter().enumerate() {
        speed += speed_here;
        filled += speed_here * start;
        water = (tokens + filled) / speed;
        if levels.get(index + 1).is_none_or(|next| water <= next.0) {
            break;
        }
    }
    water
}

/// What the difference of two ranks' loads weighs in the shares of an expert with a copy on each.
fn weight_of_two(wanted: f64, (first, second): (usize, usize), speeds: &[f64]) -> f64 {
    1.0 / ((speeds[first] + speeds[second]) * wanted)
}

/// [`level`] for an expert with two copies, as most that have several: no order is needed, and no division.
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
