//! What half and twice each number of the planner's tuning does to plans, as a document.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, Result};
use plan::coverage;
use plan::ids::{LayerId, RankId};
use plan::load::ExpertLoad;
use plan::map::{ExpertMap, MapShape};
use plan::nearest;
use plan::topology::Topology;
use plan::tuning::Tuning;

use crate::figures::mean;
use crate::loads::{Loads, Window, expert_loads};
use crate::placement::{Placement, Split};
use crate::planners::Planner;
use crate::shapes::{Shape, named};
use crate::{bound, clock};

/// Layers of each load: enough for means that tell, few enough for a run of minutes.
const LAYERS: usize = 16;
/// Windows that a plan from the placement in force is made from, and those of a sequence, around its abrupt change.
const HISTORY: usize = 4;
const SEQUENCE: std::ops::Range<usize> = 12..38;
/// Windows that a plan for bursts is made from.
const SEEN: usize = 64;
/// Ranks of a shape that are lost.
const LOSSES: usize = 4;
/// Times are the least of so many runs.
const RUNS: usize = 2;
/// Times that differ by less than this part are those of a machine that others use too.
const SAME_TIME: f64 = 0.15;

const FROM_NOTHING: [&str; 5] = ["dsv3-32", "dsv3-64", "dsv3-72", "qwen235-16", "kimi-128"];
const FAMILIES: [&str; 3] = ["logn10", "zipf12", "hot20"];
const IN_FORCE: [&str; 3] = ["dsv3-32", "qwen235-16", "kimi-64"];
const LOST: [&str; 4] = ["dsv3-32", "dsv3-64", "dsv3-72", "qwen235-16"];
const BURSTY: [&str; 2] = ["dsv3-32", "qwen235-16"];

/// What is measured of plans: its name, the decimals that are told, and whether it is a time.
const MEASURES: [(&str, usize, bool); 13] = [
    ("from nothing: excess %", 3, false),
    ("ms", 1, true),
    ("in force: next window", 4, false),
    ("pages", 0, false),
    ("of other nodes", 0, false),
    ("pairs off node %", 2, false),
    ("ms", 1, true),
    ("after a loss: moves / floor", 3, false),
    ("excess %", 2, false),
    ("ms", 0, true),
    ("bursts: unseen", 4, false),
    ("pages", 0, false),
    ("ms", 0, true),
];

type Measured = [f64; MEASURES.len()];

/// The loads that are planned for, read once.
struct Bench {
    from_nothing: Vec<(&'static Shape, Window)>,
    in_force: Vec<(&'static Shape, Vec<Window>)>,
    lost: Vec<(&'static Shape, Window)>,
    bursty: Vec<(&'static Shape, Vec<Window>)>,
}

impl Bench {
    fn new(loads: &Loads) -> Result<Self> {
        let windows = |name: &str, family: &str| -> Result<(&'static Shape, Vec<Window>)> {
            let shape = named(name);
            let mut windows = loads.windows(shape.model, family)?;
            for window in &mut windows {
                window.truncate(LAYERS);
            }
            Ok((shape, windows))
        };
        let window = |name: &str, family: &str| -> Result<(&'static Shape, Window)> {
            let (shape, mut windows) = windows(name, family)?;
            Ok((shape, windows.pop().context("a family has a window")?))
        };
        let from_nothing = FROM_NOTHING.iter().flat_map(|name| FAMILIES.map(|family| window(name, family)));
        let sequence = |name: &&str| {
            let (shape, windows) = windows(name, "drift50")?;
            Ok((shape, windows[SEQUENCE].to_vec()))
        };
        Ok(Self {
            from_nothing: from_nothing.collect::<Result<_>>()?,
            in_force: IN_FORCE.iter().map(sequence).collect::<Result<_>>()?,
            lost: LOST.iter().map(|name| window(name, "logn10")).collect::<Result<_>>()?,
            bursty: BURSTY.iter().map(|name| windows(name, "bursty128")).collect::<Result<_>>()?,
        })
    }

    fn measure(&self, tuning: &Tuning) -> Result<Measured> {
        let mut least: Option<Measured> = None;
        for _ in 0..RUNS {
            let [excess, time] = self.plan_from_nothing(tuning)?;
            let [next, pages, far, leaving, time_in_force] = self.plan_in_force(tuning)?;
            let [moves, excess_after, time_after] = self.plan_after_losses(tuning)?;
            let [unseen, burst_pages, burst_time] = self.plan_for_bursts(tuning)?;
            let run = [
                excess,
                time,
                next,
                pages,
                far,
                leaving,
                time_in_force,
                moves,
                excess_after,
                time_after,
                unseen,
                burst_pages,
                burst_time,
            ];
            least = Some(least.map_or(run, |least| std::array::from_fn(|index| least[index].min(run[index]))));
        }
        least.context("there is a run")
    }

    fn plan_from_nothing(&self, tuning: &Tuning) -> Result<[f64; 2]> {
        let (mut all, mut milliseconds) = (Vec::new(), 0.0);
        for (shape, window) in &self.from_nothing {
            let (map, time) = timed(Planner::Scratch, std::slice::from_ref(window), (shape, &[]), None, tuning)?;
            all.push(excess(&map, shape, &[], (window, Split::Even))?);
            milliseconds += time;
        }
        Ok([mean(&all), milliseconds])
    }

    /// The first plan leaves the layout that engines start with, as that of a deployment does.
    fn plan_in_force(&self, tuning: &Tuning) -> Result<[f64; 5]> {
        let (mut next, mut pages, mut milliseconds) = (Vec::new(), Vec::new(), 0.0);
        let (mut far, mut leaving) = (Vec::new(), Vec::new());
        for (shape, windows) in &self.in_force {
            let mut map = ExpertMap::contiguous(MapShape { layers: LAYERS, ..shape.map() })?;
            for end in HISTORY..windows.len() {
                let known = &windows[end - HISTORY..end];
                let (planned, time) = timed(Planner::InForce, known, (shape, &[]), Some(&map), tuning)?;
                let placement = Placement::of(&planned, shape.topology().slots())?;
                next.push(mean(&placement.balancedness(&windows[end], Split::Planned)));
                pages.push(plan::moves::moved_slots(&map, &planned)? as f64);
                far.push(from_other_nodes(&map, &planned, &shape.topology()) as f64);
                let (load, topology) = (expert_loads(&windows[end..=end]).remove(0), shape.topology());
                leaving.push(nearest::leaving(&planned, &load, &topology) / load.total() as f64 * 100.0);
                milliseconds += time;
                map = planned;
            }
        }
        Ok([mean(&next), mean(&pages), mean(&far), mean(&leaving), milliseconds])
    }

    fn plan_after_losses(&self, tuning: &Tuning) -> Result<[f64; 3]> {
        let (mut moves, mut floor, mut all, mut milliseconds) = (0, 0, Vec::new(), 0.0);
        for (shape, window) in &self.lost {
            let (map, _) = timed(Planner::Scratch, std::slice::from_ref(window), (shape, &[]), None, &Tuning::PRODUCT)?;
            for rank in (0..LOSSES).map(|number| RankId::from(number * shape.ranks / LOSSES)) {
                let load = std::slice::from_ref(window);
                let (planned, time) = timed(Planner::InForce, load, (shape, &[rank]), Some(&map), tuning)?;
                moves += plan::moves::moved_slots(&map, &planned)?;
                floor += coverage::floor_of_moves(&map, &[rank]);
                all.push(excess(&planned, shape, &[rank], (window, Split::Planned))?);
                milliseconds += time;
            }
        }
        Ok([moves as f64 / floor as f64, mean(&all), milliseconds])
    }

    /// One plan from nothing, and one from there after as many windows more.
    fn plan_for_bursts(&self, tuning: &Tuning) -> Result<[f64; 3]> {
        let (mut unseen, mut pages, mut milliseconds) = (Vec::new(), 0, 0.0);
        for (shape, windows) in &self.bursty {
            let (first, then) = (&windows[..SEEN / 2], &windows[SEEN / 2..SEEN]);
            let (map, time) = timed(Planner::Scratch, first, (shape, &[]), None, tuning)?;
            let (planned, again) = timed(Planner::InForce, then, (shape, &[]), Some(&map), tuning)?;
            for map in [&map, &planned] {
                let placement = Placement::of(map, shape.topology().slots())?;
                unseen.extend(windows[SEEN..].iter().flat_map(|window| placement.balancedness(window, Split::Planned)));
            }
            pages += plan::moves::moved_slots(&map, &planned)?;
            milliseconds += time + again;
        }
        Ok([mean(&unseen), pages as f64, milliseconds])
    }
}

fn timed(
    planner: Planner,
    windows: &[Window],
    (shape, lost): (&Shape, &[RankId]),
    current: Option<&ExpertMap>,
    tuning: &Tuning,
) -> Result<(ExpertMap, f64)> {
    let loads: Vec<ExpertLoad> = expert_loads(windows);
    let topology = shape.topology().without(lost);
    let (map, milliseconds) = clock::timed(|| planner.plan_with(&loads, &topology, current, tuning));
    Ok((map?, milliseconds))
}

/// Pages that ranks receive of experts that no rank of their node had.
fn from_other_nodes(old: &ExpertMap, new: &ExpertMap, topology: &Topology) -> usize {
    let ranks = || (0..topology.ranks()).map(RankId::from);
    let of_rank = |(layer, rank): (LayerId, RankId)| {
        let near: Vec<_> = ranks().filter(|&other| topology.node(other) == topology.node(rank)).collect();
        let had = |expert| near.iter().any(|&other| old.rank(layer, other).contains(expert));
        new.rank(layer, rank).iter().filter(|expert| !had(expert)).count()
    };
    old.layers().flat_map(|layer| ranks().map(move |rank| (layer, rank))).map(of_rank).sum()
}

/// Excess over the bound in per cent, mean over layers.
fn excess(map: &ExpertMap, shape: &Shape, lost: &[RankId], (window, split): (&Window, Split)) -> Result<f64> {
    let placement = Placement::of(map, shape.topology().without(lost).slots())?;
    let ranks = shape.ranks - lost.len();
    let bounds = window.iter().map(|load| bound::of_counts(load, ranks, ranks * shape.slots()));
    let over = placement.busiest(window, split).into_iter().zip(bounds).map(|(max, bound)| (max / bound - 1.0) * 100.0);
    Ok(mean(&over.collect::<Vec<_>>()))
}

/// Measures plans with half and twice each number and writes what that does.
pub fn write(loads: &Loads, path: &Path) -> Result<()> {
    let bench = Bench::new(loads)?;
    let product = bench.measure(&Tuning::PRODUCT)?;
    let mut text = String::from(HEAD);
    row(&mut text, ["number", "times"].into_iter().chain(MEASURES.map(|(name, ..)| name)));
    row(&mut text, ["---", "---:"].into_iter().chain(MEASURES.map(|_| "---:")));
    let figures = MEASURES.iter().zip(product).map(|((_, decimals, _), found)| format!("{found:.decimals$}"));
    row(&mut text, ["as it is".to_owned(), String::new()].into_iter().chain(figures));
    let mut idle = Vec::new();
    for &(name, ..) in Tuning::NUMBERS {
        let mut same = true;
        for (shown, factor) in [("1/2", 0.5), ("2", 2.0)] {
            let tuning = Tuning::with_scaled(name, factor).context("a number of the tuning")?;
            let found = bench.measure(&tuning)?;
            let cells = MEASURES.iter().zip(found.iter().zip(product)).map(|(measure, of)| cell(measure, of));
            let cells: Vec<String> = cells.collect();
            same &= cells.iter().all(String::is_empty);
            row(&mut text, [format!("`{name}`"), shown.to_owned()].into_iter().chain(cells));
        }
        eprintln!("tuning: {name}");
        if same {
            idle.push(name);
        }
    }
    text.push_str("\n## The numbers\n\n");
    row(&mut text, ["number", "value", "what it is, in which unit, and why"].into_iter());
    row(&mut text, ["---", "---:", "---"].into_iter());
    for (name, value, reason) in Tuning::NUMBERS {
        row(&mut text, [format!("`{name}`"), format!("{value}"), reason.trim().to_owned()].into_iter());
    }
    std::fs::write(path, text).with_context(|| format!("failed to write {}", path.display()))?;
    anyhow::ensure!(idle.is_empty(), "half and twice of {idle:?} change nothing: these numbers need not be");
    Ok(())
}

/// A figure that differs, or nothing.
fn cell(&(_, decimals, is_time): &(&str, usize, bool), (&found, product): (&f64, f64)) -> String {
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

const HEAD: &str = "# What the planner's numbers do

`make bench-plan TUNING=1` writes this page. The planner measures what it can on the windows themselves; what it is given instead is
in [`plan/src/tuning.rs`](../plan/src/tuning.rs), and here is what half and twice each of those numbers does. It fails if both of
one do nothing: such a number is none. Numbers of shares, bursts and the policy stand beside what they belong to.

Measured on 16 layers of the loads of [planner.md](planner.md), whose words these are: plans from nothing (five shapes, `logn10`, `zipf12`,
`hot20`), from the placement in force (`drift50`, 22 windows of three shapes, each plan from the last four; pages are those of a plan),
after a loss (four ranks of four shapes, `logn10`) and for bursts (`bursty128`, two shapes, from nothing by 32 windows and from there by 32
others, both on 64 unseen ones). Times are processor time of all those plans, the least of two runs; a factor is shown
where it is 15 % or more. An empty cell is the figure of the first row. Whatever changes a plan changes the ones after it: 0.001 of the next
window, 3 % of the pages and 0.01 of the moves after a loss say nothing by themselves.

";
