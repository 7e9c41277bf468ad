//! Windows of steady means and unequal variance: a plan from many of them, scored on as many that it has not seen.

use anyhow::Result;

use crate::figures::{mean, quantile};
use crate::loads::{Window, expert_loads, sum};
use crate::placement::{Placement, Split};
use crate::planners::{Planner, initial};
use crate::report::{self, Report};
use crate::shapes::named;
use crate::{Options, clock};

/// Windows that a plan is made from; the others score it.
const SEEN: usize = 64;
/// Least balancedness of unseen windows at `dsv3-32`, and the most processor milliseconds for it.
const TARGET: (f64, f64) = (0.70, 1000.0);

/// A peer's balancedness of the sum, of windows seen and unseen, the 5th percentile of those, and max / mean.
type Peer = (&'static str, [f64; 5]);

const CASES: [(&str, [Peer; 3]); 4] = [
    (
        "dsv3-32",
        [
            ("vllm", [0.9930, 0.6354, 0.6276, 0.345, 1.728]),
            ("flashlb", [0.9560, 0.7254, 0.6839, 0.512, 1.494]),
            ("ref-mw", [0.8901, 0.7809, 0.6970, 0.526, 1.466]),
        ],
    ),
    (
        "dsv3-72",
        [
            ("vllm", [0.9748, 0.4822, 0.4722, 0.204, 2.515]),
            ("flashlb", [0.8931, 0.5542, 0.5186, 0.307, 2.073]),
            ("ref-mw", [0.7564, 0.6014, 0.5286, 0.341, 1.986]),
        ],
    ),
    (
        "qwen235-16",
        [
            ("vllm", [0.9933, 0.7194, 0.7150, 0.417, 1.474]),
            ("flashlb", [0.9651, 0.7916, 0.7641, 0.615, 1.325]),
            ("ref-mw", [0.9188, 0.8358, 0.7750, 0.624, 1.306]),
        ],
    ),
    (
        "kimi-64",
        [
            ("vllm", [0.9871, 0.5143, 0.5001, 0.266, 2.255]),
            ("flashlb", [0.9403, 0.6278, 0.5709, 0.398, 1.827]),
            ("ref-mw", [0.8345, 0.6934, 0.5798, 0.413, 1.778]),
        ],
    ),
];

/// Balance of unseen bursty windows.
pub fn bursts(options: &Options, report: &mut Report) -> Result<()> {
    report::title(
        "Bursts (bursty128): a plan from 64 windows on 64 unseen ones, balancedness of each layer and window",
    );
    report::table(&[
        "shape, planner",
        "of the sum",
        "seen",
        "unseen",
        "unseen, plan's shares",
        "5th percentile",
        "max / mean",
        "CPU ms",
    ]);
    for (name, peers) in &CASES {
        if options.quick && *name != "dsv3-32" {
            continue;
        }
        let shape = named(name);
        let windows = options.loads.windows(shape.model, "bursty128")?;
        let (seen, unseen) = windows.split_at(SEEN);
        let history = expert_loads(seen);
        for planner in [Planner::Keep, Planner::DeepSeek, Planner::Scratch] {
            let (map, milliseconds) = clock::timed(|| planner.plan(&history, &shape.topology(), &initial(shape)));
            let placement = Placement::of(&map?, shape.topology().slots())?;
            let each = |windows: &[Window], split| -> Vec<f64> {
                windows.iter().flat_map(|window| placement.balancedness(window, split)).collect()
            };
            let scored = each(unseen, Split::Even);
            let planned = each(unseen, Split::Planned);
            let found = mean(&scored);
            report::row(&[
                format!("{name} {}", planner.name()),
                format!("{:.4}", mean(&placement.balancedness(&sum(seen), Split::Even))),
                format!("{:.4}", mean(&each(seen, Split::Even))),
                format!("{found:.4}"),
                format!("{:.4}", mean(&planned)),
                format!("{:.3}", quantile(&scored, 0.05)),
                format!("{:.3}", mean(&scored.iter().map(|ratio| 1.0 / ratio).collect::<Vec<_>>())),
                format!("{milliseconds:.0}"),
            ]);
            if planner == Planner::Scratch && *name == "dsv3-32" {
                report.at_least(format!("{name} bursty128, unseen windows"), found, TARGET.0);
                report.at_most(format!("{name} bursty128, processor time"), milliseconds, TARGET.1, " ms");
            }
        }
        for (peer, [of_sum, seen, unseen, low, over]) in peers {
            let cells = [of_sum, seen, unseen].map(|figure| format!("{figure:.4}"));
            let rest = [String::new(), format!("{low:.3}"), format!("{over:.3}"), String::new()];
            report::row(&[&[format!("{name} {peer}")], &cells[..], &rest[..]].concat());
        }
    }
    Ok(())
}
