//! The load to expect next, from the windows that have closed. Knows nothing of ranks or placements.

mod model;

use self::model::{Counted, Level, Model};
use crate::expected::Error;
use crate::ids::LayerId;
use crate::load::{ExpertLoad, numbers};
use crate::tuning::Tuning;

/// What the next window is expected to bring.
#[derive(Clone, Debug)]
pub(in crate::balance) struct Forecast {
    experts: usize,
    /// `[layers, experts]`, in tokens of all windows together.
    loads: Vec<f64>,
    /// How far the next window is from it in a layer: variance of an expert's load, as a share of its load and of the
    /// layer's. Counting alone gives 1 / tokens of a layer and window for the next window, and as much for a forecast from
    /// one window, less from more.
    spread: f64,
    /// The part of it that counting the tokens of the next window gives.
    counting: f64,
    /// What each window that says something counts in it, together 1.
    weights: Vec<f64>,
    /// For each layer, what its loads did from window to window; nothing where that cannot be told.
    unrest: Vec<Option<Unrest>>,
    /// Relative standard deviation below which nothing is taken to be known.
    least_uncertainty: f64,
}

/// What the loads of a layer do from window to window, beyond what counting tokens makes of them.
#[derive(Clone, Copy, Debug)]
pub(in crate::balance) struct Unrest {
    /// Variance of experts' loads around what they follow, as a share of their square.
    pub relative: f64,
    /// Whether most of what changes from one window to the next is gone by the one after it. The rest is drift, which a forecast
    /// follows.
    pub is_momentary: bool,
}

impl Forecast {
    /// Expected load of each expert of a layer.
    pub(in crate::balance) fn layer(&self, layer: LayerId) -> &[f64] {
        &self.loads[layer.index() * self.experts..][..self.experts]
    }

    /// What a layer's loads did from window to window, where that can be told.
    pub(in crate::balance) fn unrest(&self, layer: LayerId) -> Option<Unrest> {
        self.unrest[layer.index()]
    }

    /// How far the next window is expected to be from the forecast of a layer.
    pub(in crate::balance) fn error(&self, layer: LayerId) -> Error {
        let total: f64 = self.layer(layer).iter().sum();
        let further = (self.spread - self.counting).max(0.0) * self.experts as f64;
        let least = if self.weights.len() < 3 { self.least_uncertainty * self.least_uncertainty } else { 0.0 };
        Error { counting: self.counting * total, relative: further.max(least) }
    }

    /// What each window that says something counts, together 1.
    pub(in crate::balance) fn weights(&self) -> &[f64] {
        &self.weights
    }

    /// Number of experts of a layer.
    pub(in crate::balance) const fn experts(&self) -> usize {
        self.experts
    }

    /// Number of layers.
    pub(in crate::balance) const fn layers(&self) -> usize {
        self.loads.len() / self.experts
    }

    /// By which share the load of one of `ranks` equal ranks with `slots` slots together is expected to differ from its
    /// forecast in the next window (one standard deviation). From fewer than three windows nothing can be measured: then by
    /// what experts that differ by the least uncertainty there is give.
    pub(in crate::balance) fn noise_of_ranks(&self, ranks: usize, slots: usize) -> f64 {
        let measured = (self.spread * ranks as f64).sqrt();
        if self.weights.len() < 3 {
            measured.max(self.least_uncertainty * (ranks as f64 / slots as f64).sqrt())
        } else {
            measured
        }
    }

    /// The usual filtered level: noise makes it an average of many windows, a walk or an abrupt change makes the last ones count,
    /// and nothing has to be tuned; see [`Model`]. Windows without any load say nothing.
    pub(in crate::balance) fn new(windows: &[ExpertLoad], tuning: &Tuning) -> Self {
        let last = windows.last().expect("there is a window");
        let (layers, experts) = (last.layers(), last.experts());
        let mut counted: Vec<Counted> = windows.iter().map(Counted::new).collect();
        if counted.iter().any(Counted::says_something) {
            counted.retain(Counted::says_something);
        }
        let model = Model::measure(&counted, tuning);
        let Level { weights, uncertain } = model.level();
        let (mut loads, mut row) = (vec![0.0; layers * experts], vec![0.0; experts]);
        for layer in 0..layers {
            let of_layer: Vec<(f64, &Counted)> =
                weights.iter().copied().zip(&counted).filter(|(_, window)| window.totals[layer] > 0.0).collect();
            let total: f64 = of_layer.iter().map(|(_, window)| window.totals[layer]).sum();
            let used: f64 = of_layer.iter().map(|(weight, _)| weight).sum();
            for (index, (weight, window)) in of_layer.iter().enumerate() {
                // Where the windows that count have no load in this layer, the last that has is all there is.
                let weight = if used > 0.0 { weight / used } else { f64::from(u8::from(index + 1 == of_layer.len())) };
                if weight > 0.0 {
                    let scale = weight * total / window.totals[layer];
                    numbers(window.load.layer(LayerId::from(layer)), &mut row);
                    for (load, &tokens) in loads[layer * experts..][..experts].iter_mut().zip(&row) {
                        *load += scale * tokens;
                    }
                }
            }
        }
        let of_experts = |distance: f64| distance / experts as f64;
        Self {
            experts,
            loads,
            spread: of_experts(model.spread(uncertain)),
            counting: of_experts(model.counting()),
            weights,
            unrest: model.unrest(layers, tuning),
            least_uncertainty: tuning.least_uncertainty,
        }
    }
}

#[cfg(test)]
mod tests;
