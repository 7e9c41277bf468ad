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
mod transcendental;

use super::ranks::Ranks;
use crate::ids::LayerId;
use crate::load::ExpertLoad;
use fluctuations::Fluctuations;
use placement::Placement;
use polish::Polish;
use soft::Soft;

/// Fewer windows say too little: with 16, chance alone gives one of the pairs of 256 experts a correlation of 0.9.
const LEAST_WINDOWS: usize = 16;

/// The noise of ranks, above that of counting tokens, at which bursts are planned for: the share by which the busiest of
/// the ranks is expected above the others because of it.
const MATTERS: f32 = 0.03;

/// How much of the experts' variance must be gone by the next window. The rest is drift, which a forecast follows and
/// which the mean over many windows does not.
const MOMENTARY: f32 = 0.5;

/// Sharpness of the soft maximum, for a mean level of 1, from stage to stage. A search that starts with the last ends
/// sooner and worse.
const ANNEALING: [f32; 3] = [3.0, 6.0, 12.0];

/// Times that the windows which were seen are put together anew for the polish.
const REPEATS: usize = 2;

/// What a change must be worth for each page, in the ratio, where pages may move freely: less only costs time.
const NEGLIGIBLE: f32 = 1e-5;
const POLISHING: f32 = 2.5e-5;

/// What a change must be worth for each page, in the ratio, from a placement in force: less is within the error of an
/// estimate from some dozens of windows, and moves pages to and fro.
const GAIN_PER_PAGE: f32 = 1e-3;

/// The share by which a plan must be better than its start on windows that neither has seen.
const GAIN: f64 = 0.01;

/// Where a plan starts.
#[derive(Clone, Copy, Debug)]
enum Start<'a> {
    /// From slots that may change freely.
    Free(&'a [u16]),
    /// From the slots in force, where pages that move must be worth it.
    InForce(&'a [u16]),
}

/// Target slots of a layer: with regard to its bursts where they matter, else what `forecast` gives, with at least `least`
/// copies of each expert, as the slots in force and the forecast's have. True where bursts matter.
pub(in crate::balance) fn plan_or(
    forecast: impl FnOnce() -> Vec<u16>,
    (windows, layer): (&[ExpertLoad], LayerId),
    ranks: &Ranks,
    in_force: Option<&[u16]>,
    least: usize,
) -> (Vec<u16>, bool) {
    let loads = |window: &ExpertLoad| window.layer(layer).iter().map(|&tokens| tokens as f64).collect();
    let windows: Vec<Vec<f64>> = windows.iter().map(loads).collect();
    if let Some(slots) = in_force {
        plan(&windows, ranks, Start::InForce(slots), least).map_or_else(|| (forecast(), false), |slots| (slots, true))
    } else {
        let slots = forecast();
        plan(&windows, ranks, Start::Free(&slots), least).map_or((slots, false), |slots| (slots, true))
    }
}

/// Target slots of a layer from its loads in each window, `[windows][experts]`. `None` where bursts do not matter.
fn plan(windows: &[Vec<f64>], ranks: &Ranks, start: Start<'_>, least: usize) -> Option<Vec<u16>> {
    let (slots, worth, polishing, gain) = match start {
        Start::Free(slots) => (slots, NEGLIGIBLE, POLISHING, GAIN),
        Start::InForce(slots) => (slots, GAIN_PER_PAGE, GAIN_PER_PAGE, 0.0),
    };
    let fluctuations = Fluctuations::estimate(windows, ranks.speed(), LEAST_WINDOWS)?;
    let before = Placement::new(ranks, fluctuations.experts(), slots.to_vec());
    if fluctuations.momentary() < MOMENTARY || noise(&fluctuations, &before) < MATTERS {
        return None;
    }
    let mut placement = before.clone();
    for sharpness in ANNEALING {
        let mut soft = Soft::new(&fluctuations, placement, sharpness);
        anneal::improve(&mut soft, worth, least);
        placement = soft.into_placement();
    }
    let drawn = |seed| resample::resample(&fluctuations, ranks.speed(), REPEATS, seed);
    let (loads, judge, count) = (drawn(1), drawn(2), fluctuations.windows() * REPEATS);
    let mut polish = Polish::new(&loads, count, placement);
    polish.improve(polishing);
    let after = polish.into_placement();
    let ratio = |placement: &Placement<'_>| Polish::new(&judge, count, placement.clone()).ratio();
    match (ratio(&after) > ratio(&before) * (1.0 + gain), start) {
        (true, _) => Some(after.into_slots()),
        (false, Start::InForce(slots)) => Some(slots.to_vec()),
        (false, Start::Free(_)) => None,
    }
}

/// The share by which the busiest rank is expected above the mean level because of what loads do from window to window:
/// the standard deviation of the ranks' levels, without what counting tokens adds, times `sqrt(2 ln ranks)`, which the
/// largest of that many independent normal variables hardly exceeds.
fn noise(fluctuations: &Fluctuations, placement: &Placement<'_>) -> f32 {
    let ranks = placement.ranks();
    let level = |rank: usize| {
        let copies = placement.slots_of(rank).map(|slot| {
            let expert = placement.expert(slot);
            (expert, ranks.pace(rank) as f32 / placement.count(expert) as f32)
        });
        fluctuations.variance_of(copies)
    };
    let variance = (0..ranks.len()).map(level).sum::<f32>() / ranks.len() as f32;
    (2.0 * transcendental::ln(ranks.len() as f32) * variance).sqrt()
}

#[cfg(test)]
mod tests;
