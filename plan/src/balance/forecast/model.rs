//! How far loads go from window to window: noise, a walk and abrupt changes, told apart by the distances of windows. Knows
//! nothing of what is forecast from them.

use super::Unrest;
use crate::ids::LayerId;
use crate::load::{ExpertLoad, numbers, row_total};
use crate::tuning::Tuning;

/// A window with the tokens of each layer.
pub(super) struct Counted<'a> {
    pub load: &'a ExpertLoad,
    pub totals: Vec<f64>,
}

impl<'a> Counted<'a> {
    pub fn new(load: &'a ExpertLoad) -> Self {
        Self { load, totals: (0..load.layers()).map(|layer| row_total(load.layer(LayerId::from(layer)))).collect() }
    }

    pub fn says_something(&self) -> bool {
        self.totals.iter().any(|&total| total > 0.0)
    }

    /// Part of each layer's tokens that each expert has, `[layers, experts]`; 0 in a layer without any.
    fn parts(&self) -> Vec<f32> {
        let experts = self.load.experts();
        let (mut parts, mut row) = (Vec::with_capacity(self.totals.len() * experts), vec![0.0; experts]);
        for (layer, &total) in self.totals.iter().enumerate() {
            numbers(self.load.layer(LayerId::from(layer)), &mut row);
            let scale = if total > 0.0 { 1.0 / total } else { 0.0 };
            parts.extend(row.iter().map(|tokens| (tokens * scale) as f32));
        }
        parts
    }

    /// The mean squared distance that counting alone would give between the window and the truth, in a layer.
    fn counting_in(&self, layer: usize) -> Option<f64> {
        let total = self.totals[layer];
        (total > 0.0).then(|| self.load.experts() as f64 / total)
    }

    /// The same, a mean over layers.
    fn counting(&self) -> f64 {
        mean((0..self.totals.len()).filter_map(|layer| self.counting_in(layer)))
    }
}

fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (sum, count) = values.fold((0.0, 0), |(sum, count), value| (sum + value, count + 1));
    sum / f64::from(count.max(1))
}

fn middle(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len().saturating_sub(1) / 2).copied().unwrap_or(0.0)
}

/// Distances of pairs of windows, each relative to popularity, squared: `[pairs][layers]`, `None` where a layer has no load in
/// one of the two.
type Distances = Vec<Vec<Option<f64>>>;

fn distances(windows: &[Counted<'_>], parts: &[Vec<f32>], apart: usize) -> Distances {
    let pairs = (0..windows.len().saturating_sub(apart)).map(|first| (first, first + apart));
    let of_pair = |(first, second): (usize, usize)| {
        let experts = windows[first].load.experts();
        let rows = parts[first].chunks_exact(experts).zip(parts[second].chunks_exact(experts));
        let totals = windows[first].totals.iter().zip(&windows[second].totals);
        rows.zip(totals)
            .map(|((a, b), (&total_a, &total_b))| (total_a > 0.0 && total_b > 0.0).then(|| distance(a, b)))
            .collect()
    };
    pairs.map(of_pair).collect()
}

/// The squared distance of two windows' popularities in a layer, relative to popularity.
fn distance(a: &[f32], b: &[f32]) -> f64 {
    /// Less than a token of any window, so that nothing is divided by nothing.
    const NONE: f32 = 1e-30;
    let mut running = [0.0_f32; 8];
    let term = |a: f32, b: f32| 2.0 * (a - b) * (a - b) / (a + b + NONE);
    let (lanes_a, rest_a) = a.as_chunks::<8>();
    let (lanes_b, rest_b) = b.as_chunks::<8>();
    for (a, b) in lanes_a.iter().zip(lanes_b) {
        for lane in 0..8 {
            running[lane] += term(a[lane], b[lane]);
        }
    }
    let rest: f32 = rest_a.iter().zip(rest_b).map(|(&a, &b)| term(a, b)).sum();
    running.iter().map(|&sum| f64::from(sum)).sum::<f64>() + f64::from(rest)
}

/// What windows say of the popularity behind the last one.
pub(super) struct Level {
    /// What each window counts, together 1.
    pub weights: Vec<f64>,
    /// Mean squared distance of their mean from the truth.
    pub uncertain: f64,
}

/// Popularity is taken to walk at random, and now and then to change at once, and windows to count it with noise. All of it is
/// measured on the windows themselves, as mean squared distances over all experts of all layers: neighbours are twice the noise
/// and one step apart, windows with one between them twice the noise and two steps.
pub(super) struct Model {
    /// Of each window.
    noise: Vec<f64>,
    /// How far popularity went between neighbours.
    steps: Vec<f64>,
    /// How far it usually goes.
    walk: f64,
    /// What counting gives in the last window.
    counting: f64,
    apart: Distances,
    across: Distances,
    counting_in: Vec<Option<f64>>,
}

impl Model {
    pub fn measure(windows: &[Counted<'_>], tuning: &Tuning) -> Self {
        let recent = &windows[windows.len().saturating_sub(tuning.windows_measured)..];
        let parts: Vec<Vec<f32>> = recent.iter().map(Counted::parts).collect();
        let (apart, across) = (distances(recent, &parts, 1), distances(recent, &parts, 2));
        let of_pairs =
            |of: &Distances| -> Vec<f64> { of.iter().map(|layers| mean(layers.iter().copied().flatten())).collect() };
        let (near, far) = (of_pairs(&apart), of_pairs(&across));
        let counting: Vec<f64> = windows.iter().map(Counted::counting).collect();
        let counted = mean(counting[windows.len() - recent.len()..].iter().copied());
        // An abrupt change is no noise: it must not be more than what usually happens.
        let usual = middle(near.iter().copied());
        let both = mean(near.iter().map(|apart| apart.min(tuning.abrupt * usual)));
        let walk = if across.is_empty() {
            (both - 2.0 * counted).max(0.0) * tuning.walk_of_two
        } else {
            walk(&apart, &across, tuning)
        };
        let further = ((both - walk) / 2.0 - counted).max(0.0);
        let noise: Vec<f64> = counting.iter().map(|counting| counting + further).collect();
        let first = windows.len() - recent.len();
        let step = |pair: usize| {
            let Some(pair) = pair.checked_sub(first) else { return walk };
            let beside = [pair.checked_sub(1), Some(pair)].into_iter().flatten().filter_map(|pair| far.get(pair));
            let least = beside.copied().fold(near[pair], f64::min);
            let expected = noise[first + pair] + noise[first + pair + 1] + walk;
            if least > tuning.abrupt * expected { walk + least - expected } else { walk }
        };
        let steps = (0..windows.len().saturating_sub(1)).map(step).collect();
        let last = windows.last();
        let counting_in =
            last.map_or_else(Vec::new, |last| (0..last.totals.len()).map(|layer| last.counting_in(layer)).collect());
        let counting = counting.last().copied().unwrap_or(0.0);
        Self { noise, steps, walk, counting, apart, across, counting_in }
    }

    pub fn level(&self) -> Level {
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
    pub fn spread(&self, uncertain: f64) -> f64 {
        uncertain + self.walk + self.noise.last().copied().unwrap_or(0.0)
    }

    /// The part of it that counting the next window gives.
    pub const fn counting(&self) -> f64 {
        self.counting
    }

    /// See [`Unrest`], for each of so many layers.
    pub fn unrest(&self, layers: usize, tuning: &Tuning) -> Vec<Option<Unrest>> {
        if self.across.is_empty() {
            return vec![None; layers];
        }
        let sum = |of: &Distances, layer: usize| of.iter().filter_map(|pair| pair[layer]).sum::<f64>();
        let of_layer = |layer: usize| {
            (sum(&self.apart, layer) / self.apart.len() as f64, sum(&self.across, layer) / self.across.len() as f64)
        };
        let own: Vec<(f64, f64)> = (0..layers).map(of_layer).collect();
        let (all_apart, all_across) = (mean(own.iter().map(|own| own.0)), mean(own.iter().map(|own| own.1)));
        let (triples, shrunk) = (self.across.len() as f64, tuning.shrunk_layers);
        let unrest = |(&(apart, across), counting): (&(f64, f64), &Option<f64>)| {
            let counting = counting.unwrap_or(0.0);
            // Scaled, so that what a layer has in common with the others counts, and not how restless it is.
            let scale = if all_apart > 0.0 { apart / all_apart } else { 1.0 };
            let together = (triples * across + shrunk * scale * all_across) / (triples + shrunk);
            Some(Unrest {
                relative: ((2.0 * apart - together) / 2.0 - counting).max(0.0),
                is_momentary: together - 2.0 * counting < tuning.momentary * (apart - 2.0 * counting).max(0.0),
            })
        };
        own.iter().zip(&self.counting_in).map(unrest).collect()
    }
}

/// How far popularity walks between neighbours, as far as the distances prove it.
fn walk(apart: &Distances, across: &Distances, tuning: &Tuning) -> f64 {
    let sample = |triple: usize, layer: usize| {
        let (first, second) = (apart[triple][layer]?, apart[triple + 1][layer]?);
        Some(across[triple][layer]? - f64::midpoint(first, second))
    };
    // A triple that an abrupt change falls into is left out.
    let of_triple = |triple: usize| {
        let layers = across[triple].len();
        mean((0..layers).filter_map(|layer| sample(triple, layer)))
    };
    let usual = middle((0..across.len()).map(|triple| of_triple(triple).abs()));
    let counted = (0..across.len()).filter(|&triple| of_triple(triple).abs() <= 2.0 * tuning.abrupt * usual);
    let samples: Vec<f64> =
        counted.flat_map(|triple| (0..across[triple].len()).filter_map(move |layer| sample(triple, layer))).collect();
    if samples.len() < 2 {
        return 0.0;
    }
    let (count, mean) = (samples.len() as f64, mean(samples.iter().copied()));
    let squares: f64 = samples.iter().map(|sample| (sample - mean) * (sample - mean)).sum();
    let error = (squares / (count - 1.0) / count).sqrt();
    if mean <= 0.0 { 0.0 } else { mean * (1.0 - (tuning.errors_of_walk * error / mean).powi(2)).max(0.0) }
}
