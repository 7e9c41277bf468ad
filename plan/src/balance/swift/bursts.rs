//! Plans one layer from the loads of several windows, so that the mean over windows that were not seen of mean rank
//! level / highest rank level is as high as can be. A plan for the sum of the windows gains nothing there.
//!
//! [`fluctuations`] separates what will happen again from what was coincidence; [`anneal`] searches with a maximum that
//! is soft at first; [`polish`] ends the search on windows that could have been.

mod anneal;
mod factors;
mod fluctuations;
mod lanes;
mod placement;
mod polish;
mod resample;
mod soft;

use super::ranks::Ranks;
use crate::transcendental;
use fluctuations::Fluctuations;
use lanes::Rows;
use placement::Placement;
use polish::Polish;
use soft::Soft;

/// Fewer windows do not tell what comes in bursts from what a window happened to bring.
const LEAST_WINDOWS: usize = 4;

/// The noise of ranks, above that of counting tokens, at which bursts are planned for: the share by which the busiest of
/// the ranks is expected above the others because of it.
const MATTERS: f32 = 0.03;

/// Standard errors of its estimate by which that noise must be there.
const STANDARD_ERRORS: f32 = 2.0;

/// Sharpness of the soft maximum, for a mean level of 1, from stage to stage. A search that starts with the last ends
/// sooner and worse.
const ANNEALING: [f32; 3] = [3.0, 6.0, 12.0];

/// Windows that are put together anew for the polish, at least; and how often each that was seen plays a part in them, at least.
const DRAWN: usize = 128;
const REPEATS: usize = 2;

/// What a change must be worth for each page, in the ratio, where pages may move freely: less only costs time.
const NEGLIGIBLE: f32 = 1e-5;
const POLISHING: f32 = 2.5e-5;

/// What a change must be worth for each page, in the ratio, from a placement in force, times the number of windows: the fewer
/// they are, the more of what a page seems to gain is what these windows had by chance, and moves to and fro.
const GAIN_PER_PAGE: f32 = 0.01;

/// The share by which a plan must be better than its start on windows that neither has seen.
const GAIN: f64 = 0.01;

/// Where a plan starts.
#[derive(Clone, Copy, Debug)]
pub(in crate::balance) enum Start<'a> {
    /// From slots that may change freely.
    Free(&'a [u16]),
    /// From the slots in force, where pages that move must be worth it.
    InForce(&'a [u16]),
}

impl<'a> Start<'a> {
    const fn slots(self) -> &'a [u16] {
        match self {
            Self::Free(slots) | Self::InForce(slots) => slots,
        }
    }
}

/// A layer whose loads come in bursts.
#[derive(Debug)]
pub(in crate::balance) struct Bursts<'a> {
    ranks: &'a Ranks,
    fluctuations: Fluctuations,
    /// Windows that could have been, as those that a plan is judged by.
    judge: Rows,
}

impl<'a> Bursts<'a> {
    /// What a layer does, from its loads in each window; `None` where bursts do not matter with the experts in these slots.
    pub(in crate::balance) fn expect(windows: &[impl AsRef<[f64]>], ranks: &'a Ranks, slots: &[u16]) -> Option<Self> {
        let fluctuations = Fluctuations::estimate(windows, ranks.speed(), LEAST_WINDOWS)?;
        let placement = Placement::new(ranks, fluctuations.experts(), slots.to_vec());
        if noise(&fluctuations, &placement) < MATTERS {
            return None;
        }
        let judge = resample::resample(&fluctuations, ranks.speed(), repeats(&fluctuations), 2);
        Some(Self { ranks, fluctuations, judge })
    }

    /// Windows as they could come, of so many tokens each, `[windows, experts]`.
    pub(in crate::balance) fn windows(&self, tokens: f64) -> Vec<f64> {
        let scale = tokens / self.ranks.speed();
        let windows = self.fluctuations.windows() * repeats(&self.fluctuations);
        let of_window = |window| self.judge.iter().map(move |row| f64::from(row[window]) * scale);
        (0..windows).flat_map(of_window).collect()
    }

    /// Target slots with at least `least` copies of each expert, as the start's and those that `calm` have: a placement for
    /// the forecast of the sum, which the plan is no worse than on the windows that were seen.
    pub(in crate::balance) fn plan(&self, start: Start<'_>, calm: &[u16], least: usize) -> Vec<u16> {
        let per_page = GAIN_PER_PAGE / self.fluctuations.windows() as f32;
        let (worth, polishing, gain) = match start {
            Start::Free(_) => (NEGLIGIBLE, POLISHING, GAIN),
            Start::InForce(_) => (per_page, per_page, 0.0),
        };
        let before = self.placement(start.slots());
        let mut placement = before.clone();
        for sharpness in ANNEALING {
            let mut soft = Soft::new(&self.fluctuations, placement, sharpness);
            anneal::improve(&mut soft, worth, least);
            placement = soft.into_placement();
        }
        let repeats = repeats(&self.fluctuations);
        let (drawn, count) = (
            resample::resample(&self.fluctuations, self.ranks.speed(), repeats, 1),
            self.fluctuations.windows() * repeats,
        );
        let mut polish = Polish::new(&drawn, count, placement);
        polish.improve(polishing);
        let after = polish.into_placement();
        let ratio = |placement: &Placement<'_>| Polish::new(&self.judge, count, placement.clone()).ratio();
        let best = if ratio(&after) > ratio(&before) * (1.0 + gain) { after } else { before };
        let seen = resample::seen(&self.fluctuations, self.ranks.speed());
        let on_seen =
            |placement: &Placement<'_>| Polish::new(&seen, self.fluctuations.windows(), placement.clone()).ratio();
        if on_seen(&best) < on_seen(&self.placement(calm)) { calm.to_vec() } else { best.into_slots() }
    }

    fn placement(&self, slots: &[u16]) -> Placement<'a> {
        Placement::new(self.ranks, self.fluctuations.experts(), slots.to_vec())
    }
}

/// How often each window that was seen plays a part in the windows that are put together anew.
fn repeats(fluctuations: &Fluctuations) -> usize {
    DRAWN.div_ceil(fluctuations.windows()).max(REPEATS)
}

/// Whether loads that vary by so much, as a share of their square, could matter at all: a rank varies with its experts, of which
/// none has more than a rank's part.
pub(in crate::balance) fn could_matter(relative: f64, weights: &[f64], ranks: &Ranks) -> bool {
    /// What is known without a placement is this much less exact.
    const ROUGHLY: f64 = 0.5;
    let total: f64 = weights.iter().sum();
    let (count, part) = (ranks.open() as f64, 1.0 / ranks.open() as f64);
    let squares: f64 = weights.iter().map(|weight| (weight / total).min(part).powi(2)).sum();
    let noise = 2.0 * f64::from(transcendental::ln(count as f32)) * relative * squares * count;
    total > 0.0 && noise.sqrt() >= ROUGHLY * f64::from(MATTERS)
}

/// The share by which the busiest rank is expected above the mean level because of what loads do from window to window:
/// the standard deviation of the ranks' levels, without what counting tokens adds and what the estimate may be off by, times
/// `sqrt(2 ln ranks)`, which the largest of that many independent normal variables hardly exceeds.
fn noise(fluctuations: &Fluctuations, placement: &Placement<'_>) -> f32 {
    let ranks = placement.ranks();
    let level = |rank: usize| {
        let copies = placement.slots_of(rank).map(|slot| {
            let expert = placement.expert(slot);
            (expert, ranks.pace(rank) as f32 / placement.count(expert) as f32)
        });
        fluctuations.variance_of(copies)
    };
    let (all, beyond) = (0..ranks.len()).map(level).fold((0.0, 0.0), |(all, beyond), (of_all, of_beyond)| {
        (all + of_all / ranks.len() as f32, beyond + of_beyond / ranks.len() as f32)
    });
    // The variance of a variance that is estimated from normal variables (of each rank and window).
    let error = all * (2.0 / ((fluctuations.windows() - 1) * ranks.len()) as f32).sqrt();
    (2.0 * transcendental::ln(ranks.len() as f32) * (beyond - STANDARD_ERRORS * error).max(0.0)).sqrt()
}

#[cfg(test)]
mod tests;
