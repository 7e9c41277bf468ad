//! Processor time of plans, on one thread, and how it grows.

use anyhow::{Result, ensure};
use plan::map::{ExpertMap, MapShape};
use plan::topology::Topology;

use crate::loads::{Window, expert_loads};
use crate::planners::{Planner, initial};
use crate::report::{self, Report};
use crate::shapes::Shape;
use crate::{Options, clock, figures};

/// Most processor milliseconds of a plan, by shape.
const TARGETS: [(&str, f64); 4] = [("dsv3-32", 6.0), ("qwen235-16", 3.0), ("kimi-128", 40.0), ("stress-512", 300.0)];
const REPETITIONS: usize = 5;
/// Rounds over all shapes, of which the quietest counts for each: peers were measured at a quiet moment too, and other users of
/// the machine make all times a third longer for minutes.
const ROUNDS: usize = 4;
/// (experts, ranks): nine slots per rank, an eighth of them redundant.
const SCALING: [(usize, usize); 6] = [(64, 8), (128, 16), (256, 32), (512, 64), (1024, 128), (2048, 256)];
const SCALING_SLOTS: usize = 9;
/// What a planner's time for a layer may grow with, as a power of the number of ranks.
const EXPONENT: f64 = 1.3;
/// The exponent is that of the largest sizes, as for the peers.
const LAST: usize = 3;
/// Peers' milliseconds for a layer at those sizes, and their exponent.
const SCALING_PEERS: [(&str, [f64; 6], f64); 4] = [
    ("vllm", [1.35, 2.22, 3.95, 3.93, 14.86, 15.69], 1.0),
    ("sglang-vec", [0.69, 0.96, 1.64, 4.76, 7.52, 20.51], 1.1),
    ("flashlb", [1.14, 3.97, 19.56, 68.06, 264.71, 833.56], 1.8),
    ("ref-ls", [0.11, 0.25, 0.96, 6.11, 26.92, 313.05], 2.8),
];

/// Processor time of a plan, by shape.
pub fn time(options: &Options, report: &mut Report) -> Result<()> {
    report::title("Processor time of a plan of all layers from scratch, logn10, ms");
    report::table(&[
        "shape",
        "swift, median of the quietest round",
        "least",
        "deepseek, here",
        "fastest peer",
        "ratio",
        "vllm",
        "flashlb",
        "ref-ls",
    ]);
    let time_of = |planner: Planner, shape: &Shape| {
        let window = options.loads.window(shape.model, "logn10")?;
        milliseconds(planner, &window, &shape.topology(), &initial(shape))
    };
    let shapes: Vec<&Shape> = options.shapes().collect();
    let mut quietest = vec![(f64::INFINITY, f64::INFINITY); shapes.len()];
    for _ in 0..ROUNDS {
        for (quietest, shape) in quietest.iter_mut().zip(&shapes) {
            let times = time_of(Planner::Scratch, shape)?;
            if times.0 < quietest.0 {
                *quietest = times;
            }
        }
    }
    for ((found, least), shape) in quietest.into_iter().zip(shapes) {
        let (deepseek, _) = time_of(Planner::DeepSeek, shape)?;
        let peers = &shape.time;
        report::row(&[
            shape.name.to_owned(),
            format!("{found:.2}"),
            format!("{least:.2}"),
            format!("{deepseek:.2}"),
            format!("{} {}", peers.fastest.1, peers.fastest.0),
            format!("{:.1}x", peers.fastest.1 / found),
            format!("{}", peers.vllm),
            format!("{}", peers.flashlb),
            peers.reference.map_or(String::new(), |reference| format!("{reference}")),
        ]);
        if let Some((_, limit)) = TARGETS.iter().find(|(name, _)| *name == shape.name) {
            report.at_most(format!("{}, processor time of a plan", shape.name), found, *limit, " ms");
        }
    }
    Ok(())
}

/// Processor time of a layer as ranks and experts grow together.
pub fn scaling(options: &Options, report: &mut Report) -> Result<()> {
    report::title("Scaling: least processor ms for a layer, nine slots per rank, experts = 8 x ranks, logn10");
    let sizes = SCALING.map(|(experts, ranks)| format!("{experts} x {ranks}"));
    let columns: Vec<&str> = std::iter::once("planner").chain(sizes.iter().map(String::as_str)).collect();
    report::table(&[&columns[..], &["exponent (last 3)"]].concat());
    for planner in [Planner::Scratch, Planner::DeepSeek] {
        let mut points = Vec::new();
        for (experts, ranks) in SCALING {
            let window = options.loads.window("scaling", &experts.to_string())?;
            let shape = MapShape { layers: window.len(), experts, ranks, slots_per_rank: SCALING_SLOTS };
            let topology = Topology::single_node(ranks, SCALING_SLOTS);
            let (_, least) = milliseconds(planner, &window, &topology, &ExpertMap::contiguous(shape)?)?;
            points.push((ranks as f64, least / window.len() as f64));
        }
        let exponent = figures::exponent(&points[points.len() - LAST..]);
        show(planner.name(), points.iter().map(|(_, milliseconds)| *milliseconds), exponent);
        if planner == Planner::Scratch {
            report.at_most("growth of processor time with ranks, exponent", exponent, EXPONENT, "");
        }
    }
    for (peer, milliseconds, exponent) in SCALING_PEERS {
        show(peer, milliseconds.into_iter(), exponent);
    }
    Ok(())
}

fn show(planner: &str, milliseconds: impl Iterator<Item = f64>, exponent: f64) {
    let cells = milliseconds.map(|milliseconds| format!("{milliseconds:.2}"));
    let cells = std::iter::once(planner.to_owned()).chain(cells).chain([format!("{exponent:.2}")]);
    report::row(&cells.collect::<Vec<_>>());
}

fn milliseconds(planner: Planner, window: &Window, topology: &Topology, current: &ExpertMap) -> Result<(f64, f64)> {
    let windows = expert_loads(std::slice::from_ref(window));
    let first = planner.plan(&windows, topology, current)?;
    let mut same = true;
    let times = clock::repeated(REPETITIONS, || {
        same &= planner.plan(&windows, topology, current).is_ok_and(|map| map == first);
    });
    ensure!(same, "{} gave different plans for the same request", planner.name());
    Ok(times)
}
