//! Windows that follow each other: what each new plan moves, and how it serves the window that comes next, which it has
//! not seen.

use anyhow::Result;
use plan::map::ExpertMap;
use plan::nearest;

use crate::figures::mean;
use crate::loads::{Window, expert_loads, sum};
use crate::placement::{Movement, Placement, Split};
use crate::planners::{Planner, initial};
use crate::report::{self, Report};
use crate::shapes::{Shape, named};
use crate::{Options, bound, clock};

/// Most windows that a plan is made from.
const HISTORY: usize = 4;
/// What a plan from the placement in force may be behind one from scratch, which moves forty times as much.
const BEHIND: f64 = 0.002;
/// Windows of a quick run.
const QUICK: usize = 12;

/// A sequence on a shape, with what a rebalance may move as a share of all slots, and what a peer does there.
struct Case {
    shape: &'static str,
    family: &'static str,
    moved: Option<f64>,
    /// Whose plans of everything anew must not serve the next window better.
    as_good_as: &'static [Planner],
    peers: &'static [(&'static str, [f64; 4])],
}

/// Peers: balancedness on the windows seen and on the next one, moves of a rebalance, and its share of slots in per cent.
/// Those of `realdrift50` are left out: they were measured on another walk between more recorded matrices.
const CASES: [Case; 5] = [
    Case {
        shape: "dsv3-32",
        family: "realdrift50",
        moved: Some(0.03),
        as_good_as: &[Planner::DeepSeek, Planner::Scratch],
        peers: &[],
    },
    Case { shape: "dsv3-72", family: "realdrift50", moved: Some(0.08), as_good_as: &[Planner::DeepSeek], peers: &[] },
    Case {
        shape: "dsv3-32",
        family: "drift50",
        moved: Some(0.08),
        as_good_as: &[Planner::DeepSeek],
        peers: &[
            ("vllm", [0.9951, 0.8151, 15890.0, 95.1]),
            ("ascend-swift", [0.8669, 0.7599, 1963.0, 11.8]),
            ("flashlb", [0.9587, 0.8164, 4545.0, 27.2]),
            ("ref-inc-r", [0.9916, 0.8136, 1679.0, 10.1]),
        ],
    },
    Case {
        shape: "qwen235-16",
        family: "drift50",
        moved: None,
        as_good_as: &[Planner::DeepSeek],
        peers: &[
            ("vllm", [0.9952, 0.8409, 12250.0, 90.5]),
            ("flashlb", [0.9753, 0.8563, 4615.0, 34.1]),
            ("ref-inc-r", [0.9924, 0.8405, 1400.0, 10.3]),
        ],
    },
    Case {
        shape: "kimi-64",
        family: "drift50",
        moved: None,
        as_good_as: &[Planner::DeepSeek],
        peers: &[
            ("vllm", [0.9924, 0.7721, 26519.0, 97.0]),
            ("flashlb", [0.9564, 0.7828, 8614.0, 31.5]),
            ("ref-inc-r", [0.9910, 0.7696, 3549.0, 13.0]),
        ],
    },
];

/// What a planner did over a sequence, one entry for each rebalance.
#[derive(Default)]
struct Outcome {
    seen: Vec<f64>,
    next: Vec<f64>,
    next_planned: Vec<f64>,
    excess: Vec<f64>,
    movements: Vec<Movement>,
    /// Per cent of the next window's pairs that are computed on another node than their token's.
    leaving: Vec<f64>,
    milliseconds: Vec<f64>,
}

/// A planner on its way through a sequence.
struct Course {
    planner: Planner,
    map: ExpertMap,
    placement: Placement,
    outcome: Outcome,
}

/// Each planner plans at the end of every window, one after the other so that a slow moment of the machine is slow for all, and
/// each plan is scored on the window after it. The first, which leaves the initial layout, is not counted.
fn follow<const N: usize>(planners: [Planner; N], shape: &Shape, windows: &[Window]) -> Result<[Outcome; N]> {
    let (topology, loads) = (shape.topology(), expert_loads(windows));
    let (map, placement) = (initial(shape), Placement::of(&initial(shape), topology.slots())?);
    let mut courses = planners.map(|planner| Course {
        planner,
        map: map.clone(),
        placement: placement.clone(),
        outcome: Outcome::default(),
    });
    for (end, next) in windows.iter().enumerate().skip(1) {
        let history = end.saturating_sub(HISTORY)..end;
        let seen = sum(&windows[history.clone()]);
        for Course { planner, map, placement, outcome } in &mut courses {
            let (plan, milliseconds) = clock::timed(|| planner.plan(&loads[history.clone()], &topology, map));
            *map = plan?;
            let new = Placement::of(map, topology.slots())?;
            if end > 1 {
                let over = new
                    .busiest(&seen, Split::Even)
                    .into_iter()
                    .zip(&seen)
                    .map(|(max, load)| (max / bound::of_counts(load, shape.ranks, shape.physical) - 1.0) * 100.0);
                outcome.seen.push(mean(&new.balancedness(&seen, Split::Even)));
                outcome.next.push(mean(&new.balancedness(next, Split::Even)));
                outcome.next_planned.push(mean(&new.balancedness(next, Split::Planned)));
                outcome.excess.push(mean(&over.collect::<Vec<_>>()));
                outcome.movements.push(placement.movement(&new, shape.nodes));
                let pairs = loads[end].total() as f64;
                outcome.leaving.push(nearest::leaving(map, &loads[end], &topology) / pairs * 100.0);
                outcome.milliseconds.push(milliseconds);
            }
            *placement = new;
        }
    }
    Ok(courses.map(|course| course.outcome))
}

impl Outcome {
    fn moves(&self, of: impl Fn(&Movement) -> usize) -> f64 {
        mean(&self.movements.iter().map(|movement| of(movement) as f64).collect::<Vec<_>>())
    }

    fn share_moved(&self, shape: &Shape) -> f64 {
        self.moves(|movement| movement.moves) / (shape.layers * shape.physical) as f64
    }

    fn show(&self, name: &str, planner: Planner, shape: &Shape) {
        report::row(&[
            format!("{name} {}", planner.name()),
            format!("{:.4}", mean(&self.seen)),
            format!("{:.4}", mean(&self.next)),
            format!("{:.4}", mean(&self.next_planned)),
            format!("{:.2}", mean(&self.excess)),
            format!("{:.0}", self.moves(|movement| movement.moves)),
            format!("{:.1} %", self.share_moved(shape) * 100.0),
            format!("{:.0}", self.moves(|movement| movement.relabelled)),
            format!("{:.0}", self.moves(|movement| movement.cross_node)),
            format!("{:.1} %", mean(&self.leaving)),
            format!("{:.1}", mean(&self.milliseconds)),
        ]);
    }
}

/// Movement and balance over sequences of windows.
pub fn sequences(options: &Options, report: &mut Report) -> Result<()> {
    report::title("Sequences: what a rebalance moves and what it buys (mean over rebalances after the first)");
    report::table(&[
        "shape, loads, planner",
        "bal. seen",
        "bal. next window",
        "next, plan's shares",
        "excess %",
        "moves",
        "of slots",
        "if relabelled",
        "cross-node",
        "pairs off node",
        "CPU ms",
    ]);
    for case in &CASES {
        if case.family.starts_with("real") && !options.loads.has_recorded() || options.quick && case.shape != "dsv3-32"
        {
            continue;
        }
        follow_all(options, case, report)?;
    }
    Ok(())
}

fn follow_all(options: &Options, case: &Case, report: &mut Report) -> Result<()> {
    let shape = named(case.shape);
    let mut windows = options.loads.windows(shape.model, case.family)?;
    if options.quick {
        windows.truncate(QUICK);
    }
    let name = format!("{} {}", case.shape, case.family);
    let planners = [Planner::Keep, Planner::DeepSeek, Planner::Scratch, Planner::InForce];
    let outcomes = follow(planners, shape, &windows)?;
    for (planner, outcome) in planners.into_iter().zip(&outcomes) {
        outcome.show(&name, planner, shape);
    }
    let [_, deepseek, scratch, ours] = &outcomes;
    for (peer, [seen, next, moves, share]) in case.peers {
        let empty = String::new;
        let figures = [format!("{seen:.4}"), format!("{next:.4}"), empty(), empty(), format!("{moves:.0}")];
        let cells =
            [&[format!("{name} {peer}")], &figures[..], &[format!("{share:.1} %"), empty(), empty(), empty(), empty()]];
        report::row(&cells.concat());
    }
    if let Some(limit) = case.moved {
        report.at_most(format!("{name}, moved by a rebalance"), ours.share_moved(shape) * 100.0, limit * 100.0, " %");
    }
    let served = |outcome: &Outcome| mean(&outcome.next_planned);
    for against in case.as_good_as {
        let (other, behind) = if *against == Planner::DeepSeek { (deepseek, 0.0) } else { (scratch, BEHIND) };
        report.at_least(
            format!("{name}, next window, against {}", against.name()),
            served(ours),
            served(other) - behind,
        );
    }
    let what = format!("{name}, processor time of a plan, against one from scratch");
    report.at_most(what, mean(&ours.milliseconds), mean(&scratch.milliseconds), " ms");
    Ok(())
}
