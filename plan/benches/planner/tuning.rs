//! What half and twice each number of the planner's tuning does to plans and decisions, as a document.

mod bench;
mod deployed;
mod experiments;

use std::fmt::Write as _;
use std::path::Path;
use std::thread;

use anyhow::{Context, Result};
use bench::Bench;
use experiments::{Experiment, Measure, PARTS};
use plan::tuning::{Number, Part, Tuning};

use crate::loads::Loads;

/// Times that differ by less than this part are those of a machine that others use too.
const SAME_TIME: f64 = 0.15;

/// Measures plans and decisions with half and twice each number and writes what that does.
pub fn write(loads: &Loads, path: &Path) -> Result<()> {
    let bench = &Bench::new(loads)?;
    // Times are those of a thread's own work.
    let parts = thread::scope(|scope| {
        let parts = PARTS.map(|part| scope.spawn(move || Section::measure(bench, part)));
        parts.map(|part| part.join().expect("a measurement does not panic"))
    });
    let mut text = String::from(HEAD);
    let mut idle = Vec::new();
    for part in parts {
        let part = part?;
        text.push_str(&part.text);
        idle.extend(part.idle);
    }
    let reason = |name: &&str| STAY.iter().find(|(stays, _)| stays == name).map(|(_, reason)| *reason);
    text.push_str(IDLE);
    row(&mut text, ["number", "why it stays"].into_iter());
    row(&mut text, ["---", "---"].into_iter());
    for name in &idle {
        row(&mut text, [format!("`{name}`"), reason(name).unwrap_or("not known").to_owned()].into_iter());
    }
    idle.retain(|name| reason(name).is_none());
    std::fs::write(path, text).with_context(|| format!("failed to write {}", path.display()))?;
    anyhow::ensure!(idle.is_empty(), "half and twice of {idle:?} change nothing: these numbers need not be");
    Ok(())
}

/// The section of a part, and its numbers of which neither half nor twice does anything.
struct Section {
    text: String,
    idle: Vec<&'static str>,
}

impl Section {
    fn measure(bench: &Bench, (part, title, experiments): (Part, &str, &[Experiment])) -> Result<Self> {
        let found = |tuning: &Tuning| -> Result<Vec<f64>> {
            let found = experiments.iter().map(|experiment| experiment.measure(bench, tuning));
            Ok(found.collect::<Result<Vec<_>>>()?.concat())
        };
        let measures: Vec<Measure> = experiments.iter().flat_map(|experiment| experiment.measures).copied().collect();
        let product = found(&Tuning::PRODUCT)?;
        let (mut text, mut idle) = (format!("\n## {title}\n\n"), Vec::new());
        row(&mut text, ["number", "times"].into_iter().chain(measures.iter().map(|measure| measure.name)));
        row(&mut text, ["---", "---:"].into_iter().chain(measures.iter().map(|_| "---:")));
        let figures = measures.iter().zip(&product).map(|(measure, found)| format!("{found:.0$}", measure.decimals));
        row(&mut text, ["as it is".to_owned(), String::new()].into_iter().chain(figures));
        let numbers = || Tuning::NUMBERS.iter().filter(|number| number.part == part);
        for Number { name, .. } in numbers() {
            let mut same = true;
            for (shown, factor) in [("1/2", 0.5), ("2", 2.0)] {
                let found = found(&Tuning::with_scaled(name, factor).context("a number of the tuning")?)?;
                let cells = measures.iter().zip(found.iter().zip(&product)).map(|(measure, of)| cell(*measure, of));
                let cells: Vec<String> = cells.collect();
                same &= cells.iter().all(String::is_empty);
                row(&mut text, [format!("`{name}`"), shown.to_owned()].into_iter().chain(cells));
            }
            eprintln!("tuning: {name}");
            if same {
                idle.push(*name);
            }
        }
        text.push('\n');
        row(&mut text, ["number", "value", "what it is, in which unit, and why"].into_iter());
        row(&mut text, ["---", "---:", "---"].into_iter());
        for Number { name, value, reason, .. } in numbers() {
            row(&mut text, [format!("`{name}`"), format!("{value}"), reason.trim().to_owned()].into_iter());
        }
        Ok(Self { text, idle })
    }
}

/// A figure that differs, or nothing.
fn cell(Measure { decimals, is_time, .. }: Measure, (&found, &product): (&f64, &f64)) -> String {
    let shown = |figure: f64| format!("{figure:.decimals$}");
    if is_time {
        let ratio = found / product;
        return if (ratio - 1.0).abs() < SAME_TIME { String::new() } else { format!("{ratio:.2}x") };
    }
    if shown(found) == shown(product) { String::new() } else { shown(found) }
}

fn row(text: &mut String, cells: impl Iterator<Item = impl std::fmt::Display>) {
    let cells: Vec<String> = cells.map(|cell| cell.to_string()).collect();
    writeln!(text, "| {} |", cells.join(" | ")).expect("writing to a string does not fail");
}

/// Numbers that may do nothing on the loads of the benchmark, and why they are numbers all the same.
const STAY: [(&str, &str); 6] = [
    (
        "exact_ranks",
        "On no node here do more than 32 ranks exchange all that they hold to any effect; it bounds the time where a node has hundreds.",
    ),
    (
        "bursts_matter",
        "Loads here come in bursts by far more or not at all; it keeps plans for bursts from loads in between.",
    ),
    ("errors_of_bursts", "The same: what is there is there by far more standard errors."),
    ("bursts_at_a_glance", "The same: it only spares the closer look, and must let through whatever could pass that."),
    ("same_traffic", "No windows here are as near to a shift as that; it keeps noise in quiet traffic from being one."),
    (
        "moving_cost",
        "A setting of a deployment. Pages here move in a small part of a window; on slow links it decides.",
    ),
];

const IDLE: &str = "
## Numbers that do nothing here

Neither half nor twice of these does anything on the loads above.

";

const HEAD: &str = "# What the planner's numbers do

`make bench-plan TUNING=1` writes this page. The planner measures what it can on the windows themselves; what it is given instead is
in [`plan/src/tuning.rs`](../plan/src/tuning.rs), and here is what half and twice each of those numbers does. It fails if both of
one do nothing and nothing is said for it: such a number is none. What stands beside its code instead is a definition, or changes no plan.

Measured on 16 layers of the loads of [planner.md](planner.md), whose words these are. Plans from nothing: five shapes, `logn10`,
`zipf12`, `hot20`. In force: `drift50`, 22 windows of three shapes, each plan from the last four; pages are those of a plan. After a loss:
four ranks of four shapes, `logn10`. For bursts: `bursty128`, two shapes, from nothing by 32 windows and from there by 32 others, both on
64 unseen ones. From few: the same two shapes, from nothing by 2, 3, 4 and 8 windows of `bursty128` and `drift50`. Deployed: the product's
own loop on them, from the layout that engines start with, decisions and all, over 80 windows of 4 layers of the first shape in bursts, those
of `drift50`, and 40 times the window of `logn10`, each time counted anew; the pages are those of a window, and per cent of the windows
move pages or change shares alone.

Times are processor time of all those plans, the least of two runs; a factor is shown where it is 15 % or more. An empty cell is the
figure of the first row. Whatever changes a plan changes the ones after it: 0.001 of the next window, 3 % of the pages and 0.01 of the moves
after a loss say nothing by themselves.
";
