//! What plans are tried on, with whatever numbers.

use anyhow::{Context, Result};
use plan::coverage;
use plan::ids::{LayerId, RankId};
use plan::load::ExpertLoad;
use plan::map::{ExpertMap, MapShape};
use plan::nearest;
use plan::topology::Topology;
use plan::tuning::Tuning;

use crate::figures::mean;
use crate::loads::{Loads, Window, counted, expert_loads};
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
/// Windows that plans from few are made from, and those between two such plans.
const FEW: [usize; 4] = [2, 3, 4, 8];
const BETWEEN: usize = 5;
/// Windows of loads that do not change.
const UNCHANGED: u64 = 40;
/// Ranks of a shape that are lost.
const LOSSES: usize = 4;

const SHAPES_FROM_NOTHING: [&str; 5] = ["dsv3-32", "dsv3-64", "dsv3-72", "qwen235-16", "kimi-128"];
const FAMILIES: [&str; 3] = ["logn10", "zipf12", "hot20"];
const SHAPES_IN_FORCE: [&str; 3] = ["dsv3-32", "qwen235-16", "kimi-64"];
const SHAPES_LOST: [&str; 4] = ["dsv3-32", "dsv3-64", "dsv3-72", "qwen235-16"];
const SHAPES_BURSTY: [&str; 2] = ["dsv3-32", "qwen235-16"];

/// The loads that are planned for, read once.
pub struct Bench {
    from_nothing: Vec<(&'static Shape, Window)>,
    in_force: Vec<(&'static Shape, Vec<Window>)>,
    lost: Vec<(&'static Shape, Window)>,
    pub bursty: Vec<(&'static Shape, Vec<Window>)>,
    pub drifting: Vec<(&'static Shape, Vec<Window>)>,
    /// One window again and again, as it would be counted each time.
    pub unchanged: Vec<(&'static Shape, Vec<Window>)>,
}

impl Bench {
    pub fn new(loads: &Loads) -> Result<Self> {
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
        let from_nothing = SHAPES_FROM_NOTHING.iter().flat_map(|name| FAMILIES.map(|family| window(name, family)));
        let sequence = |name: &&str| {
            let (shape, windows) = windows(name, "drift50")?;
            Ok((shape, windows[SEQUENCE].to_vec()))
        };
        let unchanged = |name: &&str| {
            let (shape, window) = window(name, "logn10")?;
            Ok((shape, (0..UNCHANGED).map(|seed| counted(&window, seed)).collect()))
        };
        Ok(Self {
            from_nothing: from_nothing.collect::<Result<_>>()?,
            in_force: SHAPES_IN_FORCE.iter().map(sequence).collect::<Result<_>>()?,
            lost: SHAPES_LOST.iter().map(|name| window(name, "logn10")).collect::<Result<_>>()?,
            bursty: SHAPES_BURSTY.iter().map(|name| windows(name, "bursty128")).collect::<Result<_>>()?,
            drifting: SHAPES_BURSTY.iter().map(|name| windows(name, "drift50")).collect::<Result<_>>()?,
            unchanged: SHAPES_BURSTY.iter().map(unchanged).collect::<Result<_>>()?,
        })
    }

    pub fn plan_from_nothing(&self, tuning: &Tuning) -> Result<Vec<f64>> {
        let (mut all, mut milliseconds) = (Vec::new(), 0.0);
        for (shape, window) in &self.from_nothing {
            let (map, time) = timed(Planner::Scratch, std::slice::from_ref(window), (shape, &[]), None, tuning)?;
            all.push(excess(&map, shape, &[], (window, Split::Even))?);
            milliseconds += time;
        }
        Ok(vec![mean(&all), milliseconds])
    }

    /// The first plan leaves the layout that engines start with, as that of a deployment does.
    pub fn plan_in_force(&self, tuning: &Tuning) -> Result<Vec<f64>> {
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
        Ok(vec![mean(&next), mean(&pages), mean(&far), mean(&leaving), milliseconds])
    }

    pub fn plan_after_losses(&self, tuning: &Tuning) -> Result<Vec<f64>> {
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
        Ok(vec![moves as f64 / floor as f64, mean(&all), milliseconds])
    }

    /// One plan from nothing, and one from there after as many windows more.
    pub fn plan_for_bursts(&self, tuning: &Tuning) -> Result<Vec<f64>> {
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
        Ok(vec![mean(&unseen), pages as f64, milliseconds])
    }

    /// Plans from nothing by the last few windows before each of several.
    pub fn plan_from_few(&self, tuning: &Tuning) -> Result<Vec<f64>> {
        let next_of = |cases: &[(&'static Shape, Vec<Window>)]| -> Result<f64> {
            let mut next = Vec::new();
            for (shape, windows) in cases {
                for end in SEQUENCE.step_by(BETWEEN) {
                    for known in FEW.map(|few| &windows[end - few..end]) {
                        let (map, _) = timed(Planner::Scratch, known, (shape, &[]), None, tuning)?;
                        let placement = Placement::of(&map, shape.topology().slots())?;
                        next.push(mean(&placement.balancedness(&windows[end], Split::Planned)));
                    }
                }
            }
            Ok(mean(&next))
        };
        Ok(vec![next_of(&self.bursty)?, next_of(&self.drifting)?])
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
