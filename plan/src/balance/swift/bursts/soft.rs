//! The expected balance ratio of a placement, with the maximum over ranks made soft, kept current through every change,
//! and what each change would do to it. Knows nothing of which changes are worth trying.
//!
//! In a window the busiest rank is at about `ln(sum over ranks of e^(sharpness * level)) / sharpness`, and the term of a
//! rank is a product over its slots. So its term after an exchange is the term before, divided by one factor and
//! multiplied by another. An expert that is alone in its block has one factor for all windows: the expectation of
//! `e^(sharpness * load)`, so noise is averaged out instead of being believed. The logarithm of that is an expert's
//! effective bandwidth (Kelly, Notes on effective bandwidths, 1996; for packing: Kleinberg, Rabani and Tardos,
//! Allocating bandwidth for bursty connections, 2000). An expert whose load goes with others' has a factor for each
//! window.
//!
//! The ratio is convex in the terms, so what the derivative promises of a change, the change gives at least.

use super::factors::{Factor, Factors, Which};
use super::fluctuations::Fluctuations;
use super::lanes::{self, Rows};
use super::placement::Placement;
use crate::transcendental::{exp, ln};

/// The soft ratio of a placement.
#[derive(Debug)]
pub(super) struct Soft<'a, 'r> {
    fluctuations: &'a Fluctuations,
    sharpness: f32,
    placement: Placement<'r>,
    /// Factors for each pace that ranks have, and which of them each rank has.
    factors: Vec<Factors>,
    classes: Vec<usize>,
    /// Mean level of the ranks in each window.
    means: Vec<f32>,
    /// The largest exponent of a term in each window at the beginning: terms are relative to it.
    reference: Vec<f32>,
    /// The term of each rank in each window.
    terms: Rows,
    /// Terms times what a unit of them takes off the ratio of the window.
    weighted: Rows,
    /// Their square roots.
    roots: Rows,
    /// Sum of each rank's weighted terms.
    shares: Vec<f32>,
    /// For each slot whose expert has a factor in each window: the share of its rank without it.
    without: Vec<f32>,
}

/// An expert about to come to a rank: its factor, and if that is one for each window, the share of the rank with it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Arrival<'a> {
    factor: Factor<'a>,
    with: f32,
}

/// An expert about to leave a rank: one over its factor, and if that is one for each window, the share of the rank
/// without it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Departure<'a> {
    inverse: Factor<'a>,
    without: f32,
    share: f32,
    weighted: &'a [f32],
}

impl Departure<'_> {
    /// The change of the rank's share when another expert comes instead.
    pub(super) fn exchanged(&self, arrival: &Arrival<'_>) -> f32 {
        let after = match (self.inverse, arrival.factor) {
            (Factor::Alone(inverse), Factor::Alone(factor)) => self.share * (inverse * factor),
            (Factor::Alone(inverse), Factor::InBlock(_)) => arrival.with * inverse,
            (Factor::InBlock(_), Factor::Alone(factor)) => self.without * factor,
            (Factor::InBlock(inverse), Factor::InBlock(factors)) => lanes::dot3(self.weighted, inverse, factors),
        };
        after - self.share
    }
}

impl<'a, 'r> Soft<'a, 'r> {
    pub(super) fn new(fluctuations: &'a Fluctuations, placement: Placement<'r>, sharpness: f32) -> Self {
        let ranks = placement.ranks();
        let mut paces: Vec<f64> = (0..ranks.len()).map(|rank| ranks.pace(rank)).collect();
        paces.sort_by(f64::total_cmp);
        paces.dedup();
        let class = |rank| paces.partition_point(|&pace| pace < ranks.pace(rank));
        let windows = fluctuations.windows();
        let terms = Rows::zeros(ranks.len(), windows);
        let mut soft = Self {
            fluctuations,
            sharpness,
            classes: (0..ranks.len()).map(class).collect(),
            factors: paces.iter().map(|&pace| Factors::new(fluctuations, sharpness * pace as f32)).collect(),
            means: fluctuations.expected_totals().iter().map(|total| total / ranks.speed() as f32).collect(),
            reference: vec![0.0; terms.width()],
            weighted: terms.clone(),
            roots: terms.clone(),
            terms,
            shares: vec![0.0; ranks.len()],
            without: vec![0.0; placement.len()],
            placement,
        };
        for expert in 0..fluctuations.experts() {
            soft.count(expert);
        }
        soft.measure();
        soft
    }

    /// The terms of all ranks, anew.
    fn measure(&mut self) {
        for rank in 0..self.classes.len() {
            self.add_up(rank);
        }
        self.reference.fill(0.0);
        for row in self.terms.iter() {
            self.reference.iter_mut().zip(row).for_each(|(top, &exponent)| *top = lanes::larger(exponent, *top));
        }
        for rank in 0..self.classes.len() {
            self.raise(rank);
        }
        self.weigh();
    }

    /// The factors of an expert for the copies that it has.
    fn count(&mut self, expert: usize) {
        let copies = self.placement.count(expert);
        self.factors.iter_mut().for_each(|factors| factors.set(self.fluctuations, expert, copies));
    }

    /// The exponents of a rank's terms, in their place.
    fn add_up(&mut self, rank: usize) {
        let row = self.terms.row_mut(rank);
        row.fill(0.0);
        for slot in self.placement.slots_of(rank) {
            let expert = self.placement.expert(slot);
            let factors = &self.factors[self.classes[rank]];
            factors.add_exponents(self.fluctuations, expert, self.placement.count(expert), row);
        }
    }

    /// A rank's terms from their exponents.
    fn raise(&mut self, rank: usize) {
        for (term, reference) in self.terms.row_mut(rank).iter_mut().zip(&self.reference) {
            *term = exp(*term - reference);
        }
    }

    /// What follows from the terms.
    fn weigh(&mut self) {
        let mut weights = vec![0.0_f32; self.terms.width()];
        for row in self.terms.iter() {
            weights.iter_mut().zip(row).for_each(|(sum, term)| *sum += term);
        }
        for (weight, (reference, mean)) in weights.iter_mut().zip(self.reference.iter().zip(&self.means)) {
            // The ratio is mean / top; its derivative by the sum of terms is -mean / top^2 / (sharpness * sum).
            let top = (reference + ln(*weight)) / self.sharpness;
            *weight = if *mean > 0.0 { mean / (top * top * *weight) } else { 0.0 };
        }
        for rank in 0..self.classes.len() {
            for (weighted, (term, weight)) in
                self.weighted.row_mut(rank).iter_mut().zip(self.terms.row(rank).iter().zip(&weights))
            {
                *weighted = term * weight;
            }
            for (root, weighted) in self.roots.row_mut(rank).iter_mut().zip(self.weighted.row(rank)) {
                *root = weighted.sqrt();
            }
            self.shares[rank] = lanes::sum(self.weighted.row(rank));
        }
        for slot in 0..self.without.len() {
            let rank = self.placement.rank(slot);
            let factor = self.factors[self.classes[rank]].get(self.placement.expert(slot), Which::Inverse);
            if let Factor::InBlock(factors) = factor {
                self.without[slot] = lanes::dot(self.weighted.row(rank), factors);
            }
        }
    }

    pub(super) const fn placement(&self) -> &Placement<'r> {
        &self.placement
    }

    pub(super) fn into_placement(self) -> Placement<'r> {
        self.placement
    }

    /// How much a rank contributes to what the ratio lacks.
    pub(super) fn share(&self, rank: usize) -> f32 {
        self.shares[rank]
    }

    /// What a change of the sum of all shares is worth, as ratio: the mean over the windows.
    pub(super) fn worth(&self, change: f32) -> f32 {
        -change / (self.sharpness * self.fluctuations.windows() as f32)
    }

    /// The most that an exchange between two ranks can take off their shares. Between ranks of one pace it divides the
    /// term of one in each window by some factor and multiplies that of the other by the same, so that by the inequality
    /// of the means the two are afterwards together at least twice the root of their product.
    pub(super) fn difference(&self, a: usize, b: usize) -> f32 {
        if self.classes[a] == self.classes[b] {
            lanes::squared_distance(self.roots.row(a), self.roots.row(b))
        } else {
            self.shares[a] + self.shares[b]
        }
    }

    /// An expert as it would come to a rank.
    pub(super) fn arrival(&self, rank: usize, expert: usize, which: Which) -> Arrival<'_> {
        let factor = self.factors[self.classes[rank]].get(expert, which);
        let with = match factor {
            Factor::Alone(_) => 0.0,
            Factor::InBlock(factors) => lanes::dot(self.weighted.row(rank), factors),
        };
        Arrival { factor, with }
    }

    /// The expert of a slot as it would leave.
    pub(super) fn departure(&self, slot: usize) -> Departure<'_> {
        let rank = self.placement.rank(slot);
        Departure {
            inverse: self.factors[self.classes[rank]].get(self.placement.expert(slot), Which::Inverse),
            without: self.without[slot],
            share: self.shares[rank],
            weighted: self.weighted.row(rank),
        }
    }

    /// The change of a rank's share when the expert of one of its slots gets another number of copies.
    pub(super) fn recounted(&self, slot: usize, which: Which) -> f32 {
        self.departure(slot).exchanged(&self.arrival(self.placement.rank(slot), self.placement.expert(slot), which))
    }

    /// What the changes of a rank that holds both `more`, which gets a copy, and `fewer`, which loses one, come to
    /// beyond the sum of the two.
    pub(super) fn both(&self, rank: usize, more: usize, fewer: usize) -> f32 {
        let factors = &self.factors[self.classes[rank]];
        let change = |expert, which| (factors.get(expert, Which::Inverse), factors.get(expert, which));
        let (more, fewer) = (change(more, Which::More), change(fewer, Which::Fewer));
        let change = |(inverse, factor): &(Factor<'_>, Factor<'_>), window| {
            inverse.in_window(window) * factor.in_window(window) - 1.0
        };
        let terms = self.weighted.row(rank).iter().enumerate();
        terms.map(|(window, term)| term * change(&more, window) * change(&fewer, window)).sum()
    }

    /// Exchanges the experts of two slots.
    pub(super) fn exchange(&mut self, a: usize, b: usize) {
        self.placement.exchange(a, b);
        for slot in [a, b] {
            let rank = self.placement.rank(slot);
            self.add_up(rank);
            self.raise(rank);
        }
        self.weigh();
    }

    /// Gives a slot, whose expert has another copy, to an expert that the rank lacks.
    pub(super) fn replace(&mut self, slot: usize, expert: usize) {
        let old = self.placement.expert(slot);
        self.placement.replace(slot, expert);
        self.count(old);
        self.count(expert);
        let touched: Vec<usize> = self.placement.copies(old).chain(self.placement.copies(expert)).collect();
        for slot in touched {
            let rank = self.placement.rank(slot);
            self.add_up(rank);
            self.raise(rank);
        }
        self.weigh();
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::ranks::Ranks;
    use super::super::tests::{Bursty, dealt};
    use super::*;
    use crate::tuning::Tuning;

    /// The sum of the terms after a change of placement, weighed as before it.
    fn after(soft: &Soft<'_, '_>, change: impl Fn(&mut Placement<'_>)) -> f64 {
        let (mut placement, mut terms) = (soft.placement.clone(), soft.terms.clone());
        change(&mut placement);
        let mut sum = 0.0;
        for rank in 0..soft.classes.len() {
            let row = terms.row_mut(rank);
            row.fill(0.0);
            for slot in placement.slots_of(rank) {
                let (expert, factors) = (placement.expert(slot), &soft.factors[soft.classes[rank]]);
                factors.add_exponents(soft.fluctuations, expert, placement.count(expert), row);
            }
            for (window, exponent) in row.iter().enumerate().take(soft.fluctuations.windows()) {
                let weight = soft.weighted.row(rank)[window] / soft.terms.row(rank)[window];
                sum += f64::from(weight * exp(exponent - soft.reference[window]));
            }
        }
        sum - soft.shares.iter().map(|&share| f64::from(share)).sum::<f64>()
    }

    fn close(promised: f32, found: f64) {
        assert!((f64::from(promised) - found).abs() < 1e-3 * found.abs().max(0.1), "{promised} {found}");
    }

    #[test]
    fn a_change_has_the_effect_that_was_promised() {
        let fluctuations = Fluctuations::estimate(&Bursty::default().windows(40), 10.0, &Tuning::PRODUCT).unwrap();
        let ranks = Ranks::new(&[5; 8], &[1.0, 1.0, 2.0, 1.0, 1.0, 1.0, 2.0, 1.0]);
        let soft = Soft::new(&fluctuations, Placement::new(&ranks, 32, dealt(&ranks, 32)), 4.0);
        let placement = soft.placement();
        let (mut exchanges, mut replacements, mut shared) = (0, 0, 0);
        for a in 0..placement.len() {
            let (rank_a, expert_a) = (placement.rank(a), placement.expert(a));
            for b in (0..a).filter(|&b| placement.exchangeable(a, b)) {
                let (rank_b, expert_b) = (placement.rank(b), placement.expert(b));
                let promised = soft.departure(a).exchanged(&soft.arrival(rank_a, expert_b, Which::Now))
                    + soft.departure(b).exchanged(&soft.arrival(rank_b, expert_a, Which::Now));
                close(promised, after(&soft, |placement| placement.exchange(a, b)));
                assert!(-promised <= soft.difference(rank_a, rank_b) * 1.001 + 1e-4);
                exchanges += 1;
            }
            for expert in (0..32).filter(|&expert| placement.count(expert_a) > 1 && !placement.holds(rank_a, expert)) {
                let more = placement.copies(expert).map(|slot| soft.recounted(slot, Which::More));
                let fewer = placement.copies(expert_a).filter(|&slot| slot != a);
                let fewer = fewer.map(|slot| soft.recounted(slot, Which::Fewer));
                let both = placement.copies(expert_a).map(|slot| placement.rank(slot));
                let both = both.filter(|&rank| placement.holds(rank, expert)).map(|rank| {
                    shared += 1;
                    soft.both(rank, expert, expert_a)
                });
                let promised = more.sum::<f32>()
                    + fewer.sum::<f32>()
                    + both.sum::<f32>()
                    + soft.departure(a).exchanged(&soft.arrival(rank_a, expert, Which::More));
                close(promised, after(&soft, |placement| placement.replace(a, expert)));
                replacements += 1;
            }
        }
        assert!(exchanges > 100 && replacements > 100 && shared > 0, "{exchanges} {replacements} {shared}");
    }

    #[test]
    fn what_is_kept_current_is_what_a_new_measurement_gives() {
        let fluctuations = Fluctuations::estimate(&Bursty::default().windows(40), 8.0, &Tuning::PRODUCT).unwrap();
        let ranks = Ranks::even(8, 5);
        let mut soft = Soft::new(&fluctuations, Placement::new(&ranks, 32, dealt(&ranks, 32)), 4.0);
        soft.replace(0, 20);
        soft.exchange(1, 30);
        let anew = Soft::new(&fluctuations, soft.placement().clone(), 4.0);
        for rank in 0..8 {
            assert!((soft.share(rank) / anew.share(rank) - 1.0).abs() < 1e-3);
        }
    }
}
