//! How the loads of one layer's experts fluctuate from window to window, estimated from those that were seen: which
//! experts' loads rise and fall together, how each varies, and what is only coincidence. Knows nothing of placements.

use super::lanes::{self, Rows};
use crate::transcendental::{exp, ln};
use crate::tuning::Tuning;

/// Experts are in one block when a chain of correlations connects them; the experts of different blocks are taken to be
/// independent, whatever the windows that were seen happen to show.
#[derive(Clone, Debug)]
pub(super) struct Fluctuations {
    windows: usize,
    /// Load of each expert in each window without what all experts have in common, which is how busy the window was;
    /// the mean over windows of all experts' sum is 1 for each unit of speed.
    loads: Rows,
    /// What one token counts.
    token: f32,
    /// Mean of each row.
    means: Vec<f32>,
    /// Variance of each row.
    variances: Vec<f32>,
    /// The block of each expert, named by its first expert.
    blocks: Vec<usize>,
    /// Experts of each block, at its first expert.
    sizes: Vec<usize>,
}

impl Fluctuations {
    /// From the loads of the experts in each window, `[windows][experts]`; windows without any load say nothing. `None`
    /// if fewer than [`Tuning::windows_of_bursts`] say something.
    pub(super) fn estimate(windows: &[impl AsRef<[f64]>], speed: f64, tuning: &Tuning) -> Option<Self> {
        let windows: Vec<&[f64]> =
            windows.iter().map(AsRef::as_ref).filter(|window| window.iter().any(|&load| load > 0.0)).collect();
        let experts = windows.first()?.len();
        if windows.len() < tuning.windows_of_bursts {
            return None;
        }
        let mut loads = Rows::zeros(experts, windows.len());
        let scales = scales(&windows);
        let unscaled: f64 = windows.iter().zip(&scales).map(|(window, scale)| window.iter().sum::<f64>() / scale).sum();
        let unit = unscaled / (windows.len() as f64 * speed);
        for (index, (window, scale)) in windows.iter().zip(&scales).enumerate() {
            for (expert, load) in window.iter().enumerate() {
                loads.row_mut(expert)[index] = (load / (scale * unit)) as f32;
            }
        }
        let tokens: f64 = windows.iter().map(|window| window.iter().sum::<f64>()).sum();
        let mut fluctuations = Self {
            windows: windows.len(),
            token: (windows.len() as f64 * speed / tokens) as f32,
            means: loads.iter().map(|row| lanes::sum(row) / windows.len() as f32).collect(),
            variances: Vec::new(),
            loads,
            blocks: (0..experts).collect(),
            sizes: vec![0; experts],
        };
        fluctuations.correlate(tuning);
        Some(fluctuations)
    }

    /// Variances and blocks.
    fn correlate(&mut self, tuning: &Tuning) {
        let mut standard = Rows::zeros(self.experts(), self.windows);
        for expert in 0..self.experts() {
            let row = standard.row_mut(expert);
            for (centred, load) in row[..self.windows].iter_mut().zip(self.loads.row(expert)) {
                *centred = load - self.means[expert];
            }
            let squares = lanes::dot(row, row);
            let variance = squares / (self.windows - 1) as f32;
            self.variances.push(variance);
            let steady = tuning.steady * self.means[expert];
            let varies = variance > steady * steady;
            let scale = if varies { 1.0 / squares.sqrt() } else { 0.0 };
            for centred in row {
                *centred *= scale;
            }
        }
        self.shrink(tuning.shrunk_variances);
        let limit = significant(self.windows, self.experts(), tuning.false_alarm);
        for expert in 0..self.experts() {
            for other in 0..expert {
                if self.blocks[expert] != self.blocks[other]
                    && lanes::dot(standard.row(expert), standard.row(other)).abs() > limit
                {
                    self.join(self.blocks[expert], self.blocks[other]);
                }
            }
        }
        for &block in &self.blocks {
            self.sizes[block] += 1;
        }
    }

    /// Takes the variances of few windows nearer to what experts of their load have on average: an expert that was steady so far
    /// is one that has not burst yet, or will not.
    fn shrink(&mut self, usual_windows: f32) {
        let known = (self.windows - 1) as f32;
        let squares: f32 = self.means.iter().map(|mean| mean * mean).sum();
        if squares <= 0.0 {
            return;
        }
        let usual = self.variances.iter().sum::<f32>() / squares;
        for (variance, mean) in self.variances.iter_mut().zip(&self.means) {
            *variance = (known * *variance + usual_windows * usual * mean * mean) / (known + usual_windows);
        }
    }

    fn join(&mut self, a: usize, b: usize) {
        let (first, second) = (a.min(b), a.max(b));
        self.blocks.iter_mut().filter(|block| **block == second).for_each(|block| *block = first);
    }

    pub(super) const fn experts(&self) -> usize {
        self.blocks.len()
    }

    pub(super) const fn windows(&self) -> usize {
        self.windows
    }

    /// Load of an expert in each window.
    pub(super) fn loads(&self, expert: usize) -> &[f32] {
        self.loads.row(expert)
    }

    pub(super) fn mean(&self, expert: usize) -> f32 {
        self.means[expert]
    }

    pub(super) fn variance(&self, expert: usize) -> f32 {
        self.variances[expert]
    }

    /// The sum over experts of what each is expected to get in each window, `[windows]` and padding.
    pub(super) fn expected_totals(&self) -> Vec<f32> {
        let mut totals = vec![0.0; self.loads.width()];
        for expert in 0..self.experts() {
            for (total, load) in totals[..self.windows].iter_mut().zip(self.loads(expert)) {
                *total += if self.is_alone(expert) { self.means[expert] } else { *load };
            }
        }
        totals
    }

    /// Variance of a sum of experts' loads, each times its factor, and what of it is beyond counting: a count of tokens that are
    /// routed independently has the variance of its mean.
    pub(super) fn variance_of(&self, terms: impl Iterator<Item = (usize, f32)>) -> (f32, f32) {
        let mut together = vec![0.0; self.loads.width()];
        let (mut alone, mut counting) = (0.0, 0.0);
        for (expert, factor) in terms {
            counting += factor * factor * self.means[expert] * self.token;
            if self.is_alone(expert) {
                alone += factor * factor * self.variances[expert];
            } else {
                let centred = self.loads(expert)[..self.windows].iter().map(|load| load - self.means[expert]);
                together.iter_mut().zip(centred).for_each(|(sum, load)| *sum += factor * load);
            }
        }
        let all = alone + lanes::dot(&together, &together) / (self.windows - 1) as f32;
        (all, all - counting)
    }

    /// The first expert of the block of an expert.
    pub(super) fn block(&self, expert: usize) -> usize {
        self.blocks[expert]
    }

    /// Whether no other expert's load goes with this one's.
    pub(super) fn is_alone(&self, expert: usize) -> bool {
        self.sizes[self.blocks[expert]] == 1
    }
}

/// How busy each window was: the median over experts of the load against the expert's mean over the windows (Anders and
/// Huber, Differential expression analysis for sequence count data, 2010, equation 5, with the arithmetic mean because
/// a load may be 0). Against the total it has the merit that a burst of some experts does not make all others look idle,
/// which would connect every expert with every other.
fn scales(windows: &[&[f64]]) -> Vec<f64> {
    let mut means = vec![0.0; windows[0].len()];
    for window in windows {
        for (mean, load) in means.iter_mut().zip(*window) {
            *mean += load / windows.len() as f64;
        }
    }
    let mean_total: f64 = means.iter().sum();
    let mut ratios = Vec::with_capacity(means.len());
    let scale = |window: &&[f64]| {
        ratios.clear();
        ratios.extend(window.iter().zip(&means).filter(|(_, mean)| **mean > 0.0).map(|(load, mean)| load / mean));
        let middle = ratios.len() / 2;
        let median = *ratios.select_nth_unstable_by(middle, f64::total_cmp).1;
        // Where most experts got nothing, the median says nothing.
        if median > 0.0 { median } else { window.iter().sum::<f64>() / mean_total }
    };
    windows.iter().map(scale).collect()
}

/// The correlation that chance gives one of all pairs of experts with a probability of at most `false_alarm`. Of independent
/// normal rows `1 - correlation^2` is below `x` with the probability `I_x(a, 1/2)` where `a = (windows - 2) / 2` (Student 1908);
/// that is about `x^a / (a B(a, 1/2))`, and `B(a, 1/2)` about the root of `pi / (a - 1/4)`.
fn significant(windows: usize, experts: usize, false_alarm: f32) -> f32 {
    let pairs = (experts * (experts - 1) / 2).max(1) as f32;
    let a = (windows.max(3) - 2) as f32 / 2.0;
    let chance = false_alarm / pairs * a * (std::f32::consts::PI / (a - 0.25)).sqrt();
    (1.0 - exp(ln(chance.min(1.0)) / a)).sqrt()
}

#[cfg(test)]
mod tests {
    use super::super::tests::{Bursty, Random};
    use super::*;

    fn estimate(windows: &[Vec<f64>]) -> Fluctuations {
        Fluctuations::estimate(windows, 8.0, &Tuning::PRODUCT).unwrap()
    }

    #[test]
    fn experts_that_burst_together_are_a_block_and_noise_connects_nothing() {
        let fluctuations = estimate(&Bursty::default().windows(64));
        let blocks: Vec<usize> = (0..32).map(|expert| fluctuations.block(expert)).collect();
        let expected: Vec<usize> = (0..32).map(|expert| if expert < 8 { expert / 4 * 4 } else { expert }).collect();
        assert_eq!(blocks, expected);
        assert!(!fluctuations.is_alone(7) && fluctuations.is_alone(8));
    }

    #[test]
    fn how_busy_a_window_was_connects_nothing() {
        let mut windows = Bursty::default().windows(64);
        let steady = estimate(&windows);
        let mut random = Random(5);
        for window in &mut windows {
            let busy = 1.0 + 9.0 * random.unit();
            for load in window {
                *load *= busy;
            }
        }
        let scaled = estimate(&windows);
        for expert in 0..32 {
            assert_eq!(scaled.block(expert), steady.block(expert));
            assert!((scaled.mean(expert) / steady.mean(expert) - 1.0).abs() < 0.03);
        }
    }

    #[test]
    fn loads_are_counted_for_each_unit_of_speed() {
        let fluctuations = estimate(&Bursty::default().windows(64));
        let total: f32 = (0..32).map(|expert| fluctuations.mean(expert)).sum();
        assert!((total - 8.0).abs() < 1e-4, "{total}");
    }

    #[test]
    fn counting_tokens_is_no_burst() {
        // Sums of independent Bernoulli variables, like counts of routed tokens.
        let mut random = Random(3);
        let count = |random: &mut Random| (0..400).filter(|_| random.unit() < 0.1).count() as f64;
        let windows: Vec<Vec<f64>> = (0..64).map(|_| (0..16).map(|_| count(&mut random)).collect()).collect();
        let fluctuations = estimate(&windows);
        let (_, beyond) = fluctuations.variance_of((0..16).map(|expert| (expert, 1.0)));
        let all: f32 = (0..16).map(|expert| fluctuations.variance(expert)).sum();
        assert!(beyond < 0.2 * all, "{beyond} of {all}");
    }

    #[test]
    fn windows_without_load_say_nothing() {
        let mut windows = Bursty::default().windows(20);
        windows.insert(3, vec![0.0; 32]);
        let least = |windows_of_bursts| Tuning { windows_of_bursts, ..Tuning::PRODUCT };
        assert_eq!(estimate(&windows).windows(), 20);
        assert!(Fluctuations::estimate(&windows, 8.0, &least(21)).is_none());
        assert!(Fluctuations::estimate(&[] as &[Vec<f64>], 8.0, &least(0)).is_none());
    }
}
