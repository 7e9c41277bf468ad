//! The load to expect next, from the windows that have closed. Knows nothing of ranks or placements.

use crate::ids::LayerId;
use crate::load::ExpertLoad;
use crate::shares::LEAST_UNCERTAINTY;

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
    /// Windows that it was made from.
    windows: usize,
}

impl Forecast {
    /// Expected load of each expert of a layer.
    pub(in crate::balance) fn layer(&self, layer: LayerId) -> &[f64] {
        &self.loads[layer.index() * self.experts..][..self.experts]
    }

    /// All of it in whole tokens.
    pub(in crate::balance) fn load(&self) -> ExpertLoad {
        ExpertLoad::from_counts(self.experts, self.loads.iter().map(|tokens| tokens.round() as u64).collect())
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
        if self.windows < 3 { measured.max(LEAST_UNCERTAINTY * (ranks as f64 / slots as f64).sqrt()) } else { measured }
    }

    /// Popularity is taken to walk at random and windows to count it with noise. Both are measured on the windows
    /// themselves, over all experts of all layers: for a walk with noise, the distances (mean squares) of three windows in a
    /// row differ from being additive by twice the noise of the one in the middle, and what a distance has beyond noise is
    /// how far popularity went. The forecast is then the usual filtered level: noise makes it an average of many windows,
    /// a walk or an abrupt change makes the last ones count, and nothing has to be tuned.
    /// Windows without any load say nothing.
    pub(in crate::balance) fn new(windows: &[ExpertLoad]) -> Self {
        let last = windows.last().expect("there is a window");
        let (layers, experts) = (last.layers(), last.experts());
        let mut counted: Vec<Counted> = windows.iter().map(Counted::new).collect();
        if counted.iter().any(Counted::says_something) {
            counted.retain(Counted::says_something);
        }
        let model = Model::measure(&counted);
        let Level { weights, uncertain } = model.level();
        let mut loads = vec![0.0; layers * experts];
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
                    let row = window.load.layer(LayerId::from(layer));
                    for (load, &tokens) in loads[layer * experts..][..experts].iter_mut().zip(row) {
                        *load += scale * tokens as f64;
                    }
                }
            }
        }
        Self { experts, loads, spread: model.spread(uncertain) / experts as f64, windows: counted.len() }
    }
}

/// A window with the tokens of each layer.
struct Counted<'a> {
    load: &'a ExpertLoad,
    totals: Vec<f64>,
}

impl<'a> Counted<'a> {
    fn new(load: &'a ExpertLoad) -> Self {
        let totals =
            (0..load.layers()).map(|layer| load.layer(LayerId::from(layer)).iter().map(|&tokens| tokens as f64).sum());
        Self { load, totals: totals.collect() }
    }

    fn says_something(&self) -> bool {
        self.totals.iter().any(|&total| total > 0.0)
    }

    /// The squared distance of two windows' popularities, relative to popularity, a mean over layers.
    fn distance(&self, other: &Self) -> f64 {
        let (mut sum, mut layers) = (0.0, 0);
        for layer in 0..self.totals.len() {
            let (total_a, total_b) = (self.totals[layer], other.totals[layer]);
            if total_a == 0.0 || total_b == 0.0 {
                continue;
            }
            layers += 1;
            let (scale_a, scale_b) = (1.0 / total_a, 1.0 / total_b);
            let rows = self.load.layer(LayerId::from(layer)).iter().zip(other.load.layer(LayerId::from(layer)));
            for (&a, &b) in rows {
                let (a, b) = (a as f64 * scale_a, b as f64 * scale_b);
                if a + b > 0.0 {
                    sum += 2.0 * (a - b) * (a - b) / (a + b);
                }
            }
        }
        sum / f64::from(layers.max(1))
    }

    /// The mean squared distance that counting alone would give between the window and the truth.
    fn counting(&self) -> f64 {
        let (mut sum, mut layers) = (0.0, 0);
        for &total in &self.totals {
            if total > 0.0 {
                sum += self.load.experts() as f64 / total;
                layers += 1;
            }
        }
        sum / f64::from(layers.max(1))
    }
}

/// What windows say of the popularity behind the last one.
struct Level {
    /// What each window counts, together 1.
    weights: Vec<f64>,
    /// Mean squared distance of their mean from the truth.
    uncertain: f64,
}

/// Noise of each window and how far popularity went between neighbours, both as mean squared distances.
struct Model {
    noise: Vec<f64>,
    steps: Vec<f64>,
}

impl Model {
    fn measure(windows: &[Counted<'_>]) -> Self {
        let counting: Vec<f64> = windows.iter().map(Counted::counting).collect();
        let apart: Vec<f64> = windows.windows(2).map(|pair| pair[0].distance(&pair[1])).collect();
        let across: Vec<f64> = windows.windows(3).map(|three| three[0].distance(&three[2])).collect();
        // Counting is the least noise there is. What is measured beyond it is taken to be alike in all windows; the lower
        // median, because a triple that an abrupt change falls into measures far too much.
        let mut factors: Vec<f64> = across
            .iter()
            .enumerate()
            .filter(|(index, _)| counting[index + 1] > 0.0)
            .map(|(index, across)| (apart[index] + apart[index + 1] - across) / 2.0 / counting[index + 1])
            .collect();
        factors.sort_by(f64::total_cmp);
        let factor = factors.get(factors.len().saturating_sub(1) / 2).copied().unwrap_or(1.0).max(1.0);
        let noise: Vec<f64> = counting.iter().map(|counting| factor * counting).collect();
        let steps = apart.iter().enumerate().map(|(index, apart)| (apart - noise[index] - noise[index + 1]).max(0.0));
        Self { steps: steps.collect(), noise }
    }

    fn level(&self) -> Level {
        let mut weights = vec![1.0];
        let mut uncertain = self.noise[0];
        for (noise, step) in self.noise[1..].iter().zip(&self.steps) {
            uncertain += step;
            let gain = if uncertain > 0.0 { uncertain / (uncertain + noise) } else { 1.0 / (weights.len() + 1) as f64 };
            for weight in &mut weights {
                *weight *= 1.0 - gain;
            }
            weights.push(gain);
            uncertain = gain * noise;
        }
        Level { weights, uncertain }
    }

    /// Mean squared distance of the next window from a forecast that is `uncertain`: one usual step more, and its noise.
    fn spread(&self, uncertain: f64) -> f64 {
        let mut steps = self.steps.clone();
        steps.sort_by(f64::total_cmp);
        let usual = steps.get(steps.len() / 2).copied().unwrap_or(0.0);
        let noise = self.noise.last().copied().unwrap_or(0.0);
        uncertain + usual + noise
    }
}

#[cfg(test)]
mod tests;
