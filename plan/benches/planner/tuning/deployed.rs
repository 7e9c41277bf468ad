//! Deployments that are followed with whatever numbers.

use anyhow::Result;
use plan::balance::Policy;
use plan::coverage::Coverage;
use plan::policy::Terms;
use plan::proposal::Rules;
use plan::replay::{Replay, averages, replay_with};
use plan::tuning::Tuning;

use super::bench::Bench;
use crate::figures::mean;
use crate::loads::{Window, expert_loads};
use crate::shapes::Shape;

/// Layers of a deployment: the first of a model. Plans for bursts take longest, so one shape and few layers must do.
const LAYERS: usize = 16;
const BURSTY_LAYERS: usize = 4;
/// Windows of a deployment: more than are kept.
const WINDOWS: usize = 80;
/// Windows after which noise must have stopped to move pages.
const SETTLED: usize = 3;

const PAGE_BYTES: u64 = 44_040_192;
const WINDOW_SECONDS: f64 = 60.0;

/// Means over deployments.
struct Course {
    next: f64,
    pages: f64,
    /// Per cent of the windows, once settled, that moved pages, and that changed shares alone.
    moved: f64,
    shares: f64,
}

/// Next window, pages of one, and per cent of the windows that move some, of loads that come in bursts.
pub fn in_bursts(bench: &Bench, tuning: &Tuning) -> Result<Vec<f64>> {
    let Course { next, pages, moved, .. } = follow(&bench.bursty[..1], BURSTY_LAYERS, tuning)?;
    Ok(vec![next, pages, moved])
}

/// The same and per cent of the windows that change shares alone, of loads that drift, and what moves or changes shares alone
/// where nothing changes.
pub fn in_drift(bench: &Bench, tuning: &Tuning) -> Result<Vec<f64>> {
    let Course { next, pages, moved, shares } = follow(&bench.drifting, LAYERS, tuning)?;
    let unchanged = follow(&bench.unchanged, LAYERS, tuning)?;
    Ok(vec![next, pages, moved, shares, unchanged.moved, unchanged.shares])
}

/// With the rules of the product, from the layout that engines start with.
fn follow(cases: &[(&'static Shape, Vec<Window>)], layers: usize, tuning: &Tuning) -> Result<Course> {
    let (mut next, mut pages, mut moved, mut shares) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (shape, windows) in cases {
        let windows: Vec<Window> = windows.iter().take(WINDOWS).map(|window| window[..layers].to_vec()).collect();
        let rules = Rules {
            policy: Policy::Swift,
            min_coverage: Coverage::default(),
            staging_pages: 4,
            terms: Terms::tuned(PAGE_BYTES, WINDOW_SECONDS, tuning),
        };
        let (windows, topology) = (expert_loads(&windows), shape.topology());
        let remembered = tuning.windows_kept;
        let request = Replay { windows: &windows, topology: &topology, start: None, remembered, rules };
        let decided = replay_with(&request, tuning)?;
        let average = averages(&decided);
        next.push(average.next);
        pages.push(average.moved_slots);
        for decided in &decided[SETTLED..] {
            let has_moved = decided.moved_slots > 0;
            moved.push(if has_moved { 100.0 } else { 0.0 });
            shares.push(if decided.decision.moves() && !has_moved { 100.0 } else { 0.0 });
        }
    }
    Ok(Course { next: mean(&next), pages: mean(&pages), moved: mean(&moved), shares: mean(&shares) })
}
