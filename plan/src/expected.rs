//! What a plan is made for: what each layer's experts are expected to get next, and how far off that may be. The decision whether
//! to move, the shares of copies and what is predicted of a plan go by the same thing. Knows nothing of how it was found.

use std::borrow::Cow;

use crate::ids::LayerId;
use crate::load::ExpertLoad;
use crate::map::ExpertMap;
use crate::moves::LayerState;
use crate::topology::Topology;
use crate::transcendental::{exp, ln};

/// What is expected of every layer of a model.
#[derive(Clone, Debug, PartialEq)]
pub struct Expected {
    experts: usize,
    layers: Vec<Future>,
}

/// What is expected of a layer.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Future {
    /// One load, give or take.
    Level {
        /// Tokens of each expert, `[experts]`.
        tokens: Vec<f64>,
        error: Error,
    },
    /// One of these windows, each as likely as the others: loads come in bursts.
    Windows {
        /// Tokens of each expert in each window, `[windows, experts]`.
        tokens: Vec<f64>,
    },
}

/// How far the next window is from what is expected, experts independently of each other.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Error {
    /// Variance of an expert's tokens as a multiple of them: 1 where they are counted one by one.
    pub counting: f64,
    /// Further variance as a multiple of their square.
    pub relative: f64,
}

impl Expected {
    pub(crate) const fn new(experts: usize, layers: Vec<Future>) -> Self {
        Self { experts, layers }
    }

    /// A load that is known to come.
    #[must_use]
    pub fn known(load: &ExpertLoad) -> Self {
        let tokens = |layer: usize| load.layer(layer.into()).iter().map(|&tokens| tokens as f64).collect();
        let level = |layer| Future::Level { tokens: tokens(layer), error: Error::default() };
        Self { experts: load.experts(), layers: (0..load.layers()).map(level).collect() }
    }

    /// The same load, with experts that come with `deviation` more or less of their tokens (relative standard deviation).
    #[must_use]
    pub fn give_or_take(mut self, deviation: f64) -> Self {
        for future in &mut self.layers {
            if let Future::Level { error, .. } = future {
                error.relative = deviation * deviation;
            }
        }
        self
    }

    /// Number of layers.
    #[must_use]
    pub const fn layers(&self) -> usize {
        self.layers.len()
    }

    /// Number of experts of each layer.
    #[must_use]
    pub const fn experts(&self) -> usize {
        self.experts
    }

    /// Whether a layer's loads are expected in bursts.
    #[must_use]
    pub fn is_bursty(&self, layer: LayerId) -> bool {
        matches!(self.layers[layer.index()], Future::Windows { .. })
    }

    pub(crate) fn layer(&self, layer: LayerId) -> &Future {
        &self.layers[layer.index()]
    }

    /// What is expected of some of the layers.
    #[must_use]
    pub fn of_layers(&self, layers: impl Iterator<Item = LayerId>) -> Self {
        Self { experts: self.experts, layers: layers.map(|layer| self.layers[layer.index()].clone()).collect() }
    }

    /// The mean of what is expected in whole tokens.
    #[must_use]
    pub fn load(&self) -> ExpertLoad {
        let counts =
            |future: &Future| -> Vec<u64> { future.mean(self.experts).iter().map(|t| t.round() as u64).collect() };
        ExpertLoad::from_counts(self.experts, self.layers.iter().flat_map(counts).collect())
    }

    /// The balance ratio that a map is expected to have in the next window: the mean time of ranks over that of the busiest,
    /// both summed over layers.
    ///
    /// # Panics
    /// If the map is of another model or for other ranks.
    #[must_use]
    pub fn ratio(&self, map: &ExpertMap, topology: &Topology) -> f64 {
        let busiest = |layer| self.busiest(layer, &LayerState::new(map, layer), (map, topology));
        let busiest: f64 = map.layers().map(busiest).sum();
        if busiest > 0.0 { self.mean(topology) / busiest } else { 1.0 }
    }

    /// The same of one layer.
    ///
    /// # Panics
    /// As [`Self::ratio`].
    #[must_use]
    pub fn ratio_in(&self, layer: LayerId, map: &ExpertMap, topology: &Topology) -> f64 {
        let busiest = self.busiest(layer, &LayerState::new(map, layer), (map, topology));
        let tokens: f64 = self.layer(layer).mean(self.experts).iter().sum();
        if busiest > 0.0 { tokens / topology.speed() / busiest } else { 1.0 }
    }

    /// Sum over layers of the time that every rank with slots would take if all took equally long.
    pub(crate) fn mean(&self, topology: &Topology) -> f64 {
        let tokens = |future: &Future| future.mean(self.experts).iter().sum::<f64>();
        self.layers.iter().map(tokens).sum::<f64>() / topology.speed()
    }

    /// The time that the busiest rank of a layer is expected to take with these slots and shares. The map has the ranks.
    pub(crate) fn busiest(&self, layer: LayerId, state: &LayerState, (map, topology): (&ExpertMap, &Topology)) -> f64 {
        let taken = state.taken();
        let ranks = || {
            let slots = (0..topology.ranks()).map(|rank| map.slots_of_ranks().of(rank.into()));
            slots.zip(topology.speeds()).map(|(slots, speed)| (slots, *speed))
        };
        let expert = |slot: usize| state.slots[slot].index();
        match self.layer(layer) {
            Future::Level { tokens, error } => {
                let rank = |(slots, speed): (std::ops::Range<usize>, f64)| {
                    let (mut mean, mut variance) = (0.0, 0.0);
                    for slot in slots {
                        let (tokens, taken) = (tokens[expert(slot)], taken[slot]);
                        mean += tokens * taken;
                        variance += taken * taken * tokens * (error.counting + error.relative * tokens);
                    }
                    (mean / speed, variance / (speed * speed))
                };
                expected_maximum(&ranks().map(rank).collect::<Vec<_>>())
            }
            Future::Windows { tokens } => {
                let speed = topology.speed();
                let (mut ratios, mut sum) = (0.0, 0.0);
                for window in tokens.chunks_exact(self.experts) {
                    let level = |(slots, speed): (std::ops::Range<usize>, f64)| {
                        slots.map(|slot| window[expert(slot)] * taken[slot]).sum::<f64>() / speed
                    };
                    let (top, mean) = (ranks().map(level).fold(0.0, f64::max), window.iter().sum::<f64>() / speed);
                    ratios += if top > 0.0 { mean / top } else { 1.0 };
                    sum += mean;
                }
                // A window in which few tokens come weighs as much as any other.
                if sum > 0.0 { sum / ratios } else { 0.0 }
            }
        }
    }
}

impl Future {
    fn mean(&self, experts: usize) -> Cow<'_, [f64]> {
        match self {
            Self::Level { tokens, .. } => Cow::Borrowed(tokens),
            Self::Windows { tokens } => {
                let mut mean = vec![0.0; experts];
                let windows = (tokens.len() / experts).max(1) as f64;
                for window in tokens.chunks_exact(experts) {
                    mean.iter_mut().zip(window).for_each(|(mean, tokens)| *mean += tokens / windows);
                }
                Cow::Owned(mean)
            }
        }
    }
}

/// What is expected of the largest of independent normal variables of these means and variances, about: the bound
/// `ln(sum of e^(t m + t^2 v / 2)) / t` holds for every `t`, and with the variances made smaller it is, for equal variables, what
/// the largest of so many has (Cramér, Mathematical Methods of Statistics, 1946, 28.6).
fn expected_maximum(variables: &[(f64, f64)]) -> f64 {
    let top = variables.iter().map(|&(mean, _)| mean).fold(0.0, f64::max);
    let count = variables.len() as f64;
    let variance = variables.iter().map(|&(_, variance)| variance).sum::<f64>() / count;
    if variables.len() < 2 || variance <= 0.0 || !variance.is_finite() || top <= 0.0 {
        return top;
    }
    let ln_count = f64::from(ln(count as f32));
    let shrunk = 1.0 - (f64::from(ln(ln_count as f32)) + 1.377) / (4.0 * ln_count);
    let sharpness = (2.0 * ln_count / variance).sqrt() / shrunk;
    let exponent = |&(mean, variance): &(f64, f64)| {
        sharpness * (mean - top) + sharpness * sharpness * variance * shrunk * shrunk / 2.0
    };
    let exponents: Vec<f64> = variables.iter().map(exponent).collect();
    let largest = exponents.iter().copied().fold(f64::MIN, f64::max);
    let sum: f32 = exponents.iter().map(|exponent| exp((exponent - largest) as f32)).sum();
    top + (largest + f64::from(ln(sum))) / sharpness
}

#[cfg(test)]
mod tests;
