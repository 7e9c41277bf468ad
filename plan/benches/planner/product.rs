//! What a deployment does over windows that follow each other, decisions and all: `plan::replay` with the rules of the runtime,
//! and the number of windows that it keeps.

use std::collections::BTreeMap;

use anyhow::Result;
use plan::balance::Policy;
use plan::coverage::Coverage;
use plan::load::{ExpertLoad, WINDOWS_KEPT};
use plan::policy::Terms;
use plan::proposal::Rules;
use plan::replay::{Averages, Decided, Replay, averages, replay};

use crate::figures::mean;
use crate::loads::{Window, counted, expert_loads};
use crate::report::{self, Report};
use crate::shapes::named;
use crate::{Options, clock};

/// Layers of each model: a deployment decides for all at once, and so many tell its gains from those of one layer.
const LAYERS: usize = 8;
/// Groups of so many layers, each followed as if it were a model, whose mean is judged.
const GROUPS: usize = 5;

/// Windows after which noise must have stopped to move pages, and the part of the others in which it may.
const SETTLED: usize = 3;
const MOVED_BY_NOISE: f64 = 0.05;

/// Shape and family, the least balance ratio of the next window, and the most pages that a window moves.
const CASES: [(&str, &str, Option<f64>, Option<f64>); 6] = [
    ("dsv3-32", "bursty128", Some(0.66), Some(19.6)),
    ("qwen235-16", "bursty128", Some(0.76), Some(9.1)),
    ("dsv3-32", "drift50", Some(0.85), Some(88.3)),
    ("qwen235-16", "drift50", None, None),
    ("dsv3-32", "realdrift50", Some(0.968), None),
    ("dsv3-72", "realdrift50", None, None),
];

/// Balance, pages and decisions of a deployment.
pub fn product(options: &Options, report: &mut Report) -> Result<()> {
    report::title("The product's own loop: mean over decisions after the first");
    report::table(&["shape, loads", "seen", "next window", "pages", "windows that moved pages", "CPU ms", "decisions"]);
    for (name, family, least, most) in CASES {
        if family.starts_with("real") && !options.loads.has_recorded() || options.quick && name != "dsv3-32" {
            continue;
        }
        let windows = options.loads.windows(named(name).model, family)?;
        let mut outcomes = Vec::new();
        for group in 0..GROUPS {
            let what = format!("{name} {family}, layers from {}", group * LAYERS);
            outcomes.push(follow(&what, name, &windows_of(&windows, group * LAYERS))?);
        }
        let mean = |of: fn(&Outcome) -> f64| mean(&outcomes.iter().map(of).collect::<Vec<_>>());
        let (next, pages) = (mean(|outcome| outcome.next), mean(|outcome| outcome.pages));
        if let Some(least) = least {
            report.at_least(format!("{name} {family}, {LAYERS} layers, the product's next window"), next, least);
        }
        if let Some(most) = most {
            report.at_most(format!("{name} {family}, {LAYERS} layers, the product's pages"), pages, most, "");
        }
    }
    // Loads that do not change: one window again and again, as it would be counted from fewer tokens.
    for (name, family) in [("dsv3-32", "logn10"), ("qwen235-16", "zipf12")] {
        let window = options.loads.window(named(name).model, family)?;
        let windows: Vec<Window> = (0..40).map(|seed| counted(&window[..LAYERS], seed)).collect();
        let what = format!("{name} {family}, counted 40 times");
        let Outcome { moved, .. } = follow(&what, name, &expert_loads(&windows))?;
        report.at_most(format!("{what}: part of windows that move pages"), moved, MOVED_BY_NOISE, "");
    }
    Ok(())
}

struct Outcome {
    next: f64,
    pages: f64,
    /// Part of the windows after the first that moved pages.
    moved: f64,
}

fn follow(what: &str, shape: &str, windows: &[ExpertLoad]) -> Result<Outcome> {
    let topology = named(shape).topology();
    let rules = Rules {
        policy: Policy::Swift,
        min_coverage: Coverage::default(),
        staging_pages: 4,
        terms: Terms::usual(44_040_192, 60.0),
    };
    let request = Replay { windows, topology: &topology, start: None, remembered: WINDOWS_KEPT, rules };
    let (decided, milliseconds) = clock::timed(|| replay(&request));
    let decided: Vec<Decided> = decided?;
    let Averages { seen, next, moved_slots: pages } = averages(&decided);
    let settled = &decided[SETTLED.min(decided.len() - 1)..];
    let moved = settled.iter().filter(|decided| decided.moved_slots > 0).count() as f64 / settled.len() as f64;
    let mut reasons: BTreeMap<String, usize> = BTreeMap::new();
    for decided in &decided {
        *reasons.entry(decided.decision.reason.to_string()).or_default() += 1;
    }
    let reasons: Vec<String> = reasons.into_iter().map(|(reason, count)| format!("{reason} {count}")).collect();
    report::row(&[
        what.to_owned(),
        format!("{seen:.4}"),
        format!("{next:.4}"),
        format!("{pages:.1}"),
        format!("{:.1} %", moved * 100.0),
        format!("{:.1}", milliseconds / decided.len() as f64),
        reasons.join(", "),
    ]);
    Ok(Outcome { next, pages, moved })
}

fn windows_of(windows: &[Vec<Vec<u64>>], first: usize) -> Vec<ExpertLoad> {
    let layers: Vec<Vec<Vec<u64>>> = windows.iter().map(|window| window[first..][..LAYERS].to_vec()).collect();
    expert_loads(&layers)
}
