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
use crate::tuning::Tuning;
use fluctuations::Fluctuations;
use lanes::Rows;
use placement::Placement;
use polish::Polish;
use soft::Soft;

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
        let fluctuations = Fluctuations::estimate(windows, ranks.speed(), ranks.tuning())?;
        let placement = Placement::new(ranks, fluctuations.experts(), slots.to_vec());
        if noise(&fluctuations, &placement) < ranks.tuning().bursts_matter {
            return None;
        }
        let judge = resample::resample(&fluctuations, ranks.speed(), repeats(&fluctuations, ranks.tuning()), 2);
        Some(Self { ranks, fluctuations, judge })
    }

    /// Windows as they could come, of so many tokens each, `[windows, experts]`.
    pub(in crate::balance) fn windows(&self, tokens: f64) -> Vec<f64> {
        let scale = tokens / self.ranks.speed();
        let windows = self.fluctuations.windows() * repeats(&self.fluctuations, self.ranks.tuning());
        let of_window = |window| self.judge.iter().map(move |row| f64::from(row[window]) * scale);
        (0..windows).flat_map(of_window).collect()
    }

    /// Target slots with at least `least` copies of each expert, as the start's and those that `calm` have: a placement for
    /// the forecast of the sum, which the plan is no worse than on the windows that were seen.
    pub(in crate::balance) fn plan(&self, start: Start<'_>, calm: &[u16], least: usize) -> Vec<u16> {
        let tuning = self.ranks.tuning();
        let per_page = tuning.gain_per_page / self.fluctuations.windows() as f32;
        let (worth, polishing, gain) = match start {
            Start::Free(_) => (tuning.negligible, tuning.negligible_at_the_end, tuning.gain_of_bursts),
            Start::InForce(_) => (per_page, per_page, 0.0),
        };
        let before = self.placement(start.slots());
        let mut placement = before.clone();
        for stage in (0..tuning.annealing_stages).rev() {
            let sharpness = tuning.sharpest / (1_u64 << stage) as f32;
            let mut soft = Soft::new(&self.fluctuations, placement, sharpness);
            anneal::improve(&mut soft, worth, least);
            placement = soft.into_placement();
        }
        let repeats = repeats(&self.fluctuations, tuning);
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
fn repeats(fluctuations: &Fluctuations, tuning: &Tuning) -> usize {
    tuning.windows_drawn.div_ceil(fluctuations.windows())
}

/// Whether loads that vary by so much, as a share of their square, could matter at all: a rank varies with its experts, of which
/// none has more than a rank's part.
pub(in crate::balance) fn could_matter(relative: f64, weights: &[f64], ranks: &Ranks) -> bool {
    let (total, tuning) = (weights.iter().sum::<f64>(), ranks.tuning());
    let (count, part) = (ranks.open() as f64, 1.0 / ranks.open() as f64);
    let squares: f64 = weights.iter().map(|weight| (weight / total).min(part).powi(2)).sum();
    let noise = 2.0 * f64::from(transcendental::ln(count as f32)) * relative * squares * count;
    total > 0.0 && noise.sqrt() >= tuning.bursts_at_a_glance * f64::from(tuning.bursts_matter)
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
    (2.0 * transcendental::ln(ranks.len() as f32) * (beyond - ranks.tuning().errors_of_bursts * error).max(0.0)).sqrt()
}

#[cfg(test)]
mod tests;
