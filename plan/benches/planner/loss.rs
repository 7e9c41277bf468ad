//! One rank lost, and back again: what has to be loaded and moved until the others hold every expert, in balance, and until the
//! rank holds its part again.

use anyhow::{Result, ensure};
use plan::coverage;
use plan::ids::RankId;
use plan::map::ExpertMap;

use crate::figures::{largest, mean};
use crate::loads::{Window, expert_loads};
use crate::memory::Memory;
use crate::placement::{Placement, Split};
use crate::planners::{Planner, initial};
use crate::report::{self, Report};
use crate::shapes::Shape;
use crate::{Options, bound, clock};

/// Most moves, as a multiple of the experts whose only copy was lost; where ranks have few slots, a loss takes more than what a
/// few of their experts can level.
const MOVES: f64 = 1.5;
const MOVES_OF_FEW: f64 = 2.0;
const FEW_SLOTS: usize = 4;
/// Most excess in per cent, where the reference shows that it can be had.
const EXCESS: f64 = 2.0;
/// Ranks of a shape that are lost in turn, spread over all of them.
const LOSSES: usize = 32;

/// Floor, moves and excess in per cent of a peer.
type Peer = (&'static str, [f64; 3]);

const FAMILY: &str = "logn10";
const RECORDED: &str = "real_decode_in1000out1000";

/// Shape, family, and two peers: vLLM, which plans from scratch, and a reference that does not.
const PEERS: [(&str, &str, [Peer; 2]); 4] = [
    ("dsv3-32", FAMILY, [("vllm", [428.0, 15514.0, 0.50]), ("ref-inc", [492.0, 2178.0, 1.72])]),
    ("dsv3-32", RECORDED, [("vllm", [423.0, 15638.0, 0.70]), ("ref-inc", [494.0, 2154.0, 1.74])]),
    ("kimi-32", FAMILY, [("vllm", [697.0, 23737.0, 0.23]), ("ref-inc", [767.0, 2725.0, 1.73])]),
    ("qwen235-16", FAMILY, [("vllm", [677.0, 11767.0, 0.54]), ("ref-inc", [802.0, 2532.0, 1.48])]),
];

/// What the plans for a loss and a return do.
struct Outcome {
    floor: f64,
    moves: f64,
    /// Pages of the way back, and slots of the rank over all layers.
    back: f64,
    left: f64,
    /// With the plan's shares, which take hold without a move, and if copies shared evenly; and before the loss and once the
    /// rank is back.
    excess: f64,
    even: f64,
    before: f64,
    after: f64,
    milliseconds: f64,
}

/// Loses a rank of a map that was planned for a window, and gets it back.
fn lose(rank: usize, map: &ExpertMap, (shape, window): (&Shape, &Window)) -> Result<Outcome> {
    let (loads, topology) = (expert_loads(std::slice::from_ref(window)), shape.topology());
    let lost = [RankId::from(rank)];
    let survivors = topology.clone().without(&lost);
    let (planned, milliseconds) = clock::timed(|| Planner::InForce.plan(&loads, &survivors, map));
    let planned = planned?;
    let after = Placement::of(&planned, survivors.slots())?;
    let mut before = Placement::of(map, topology.slots())?;
    let over = |placement: &Placement, split, ranks: usize| {
        let over = placement
            .busiest(window, split)
            .into_iter()
            .zip(window)
            .map(|(max, load)| (max / bound::of_counts(load, ranks, ranks * shape.slots()) - 1.0) * 100.0);
        mean(&over.collect::<Vec<_>>())
    };
    let excess_before = over(&before, Split::Planned, shape.ranks);
    before.lose(rank);
    let (floor, moves) = (coverage::lost(map, &lost).len(), before.received_by(&after));
    ensure!(floor == before.missing(), "the planner counts {floor} lost experts, not {}", before.missing());
    let received = Memory::lead(map, &planned, &survivors)?;
    ensure!(received.all() == moves, "{} pages are received instead of {moves}", received.all());
    ensure!(received.from_checkpoint == floor, "{} of {floor} lost experts are loaded", received.from_checkpoint);
    let returned = Planner::InForce.plan(&loads, &topology, &planned)?;
    let whole = Placement::of(&returned, topology.slots())?;
    let back = Memory::lead(&planned, &returned, &topology)?;
    ensure!(back.from_checkpoint == 0, "experts are loaded though ranks hold all of them");
    Ok(Outcome {
        floor: floor as f64,
        moves: moves as f64,
        back: back.all() as f64,
        left: (shape.layers * shape.slots()) as f64,
        excess: over(&after, Split::Planned, shape.ranks - 1),
        even: over(&after, Split::Even, shape.ranks - 1),
        before: excess_before,
        after: over(&whole, Split::Planned, shape.ranks),
        milliseconds,
    })
}

/// Moves and balance after the loss of a rank and after its return. The floor differs from rank to rank by a third, and what
/// has to move beside it grows as it falls: a rank with more copies of hot experts has fewer that are nowhere else, and its loss
/// leaves more to level.
pub fn loss(options: &Options, report: &mut Report) -> Result<()> {
    report::title("One rank lost, many in turn, and back: pages by the plan for the others, and by the one for all");
    report::table(&[
        "shape, loads, planner",
        "floor",
        "moves",
        "moves / floor",
        "worst",
        "excess %",
        "worst",
        "if shared evenly",
        "before",
        "back / left",
        "excess % when back",
        "CPU ms",
    ]);
    for shape in options.shapes() {
        for family in [FAMILY, RECORDED] {
            let recorded = family == RECORDED;
            if recorded && (shape.recorded.is_none() || !options.loads.has_recorded()) {
                continue;
            }
            lose_each(options, (shape, family), report)?;
        }
    }
    Ok(())
}

fn lose_each(options: &Options, (shape, family): (&Shape, &str), report: &mut Report) -> Result<()> {
    let case = format!("{} {family}", shape.name);
    if coverage::room(shape.map()) == 0 {
        let cells = [format!("{case}: the slots of the others do not hold every expert")];
        report::row(&cells.into_iter().chain(std::iter::repeat_n(String::new(), 11)).collect::<Vec<_>>());
        return Ok(());
    }
    let window = options.loads.window(shape.model, family)?;
    let map =
        Planner::Scratch.plan(&expert_loads(std::slice::from_ref(&window)), &shape.topology(), &initial(shape))?;
    let losses = LOSSES.min(shape.ranks) / if options.quick { 4 } else { 1 };
    let lost = (0..losses).map(|number| number * shape.ranks / losses);
    let outcomes: Vec<Outcome> = lost.map(|rank| lose(rank, &map, (shape, &window))).collect::<Result<_>>()?;
    let each = |of: fn(&Outcome) -> f64| -> Vec<f64> { outcomes.iter().map(of).collect() };
    let excess = each(|outcome| outcome.excess);
    let (floor, moves) = (mean(&each(|outcome| outcome.floor)), mean(&each(|outcome| outcome.moves)));
    let back = largest(&each(|outcome| outcome.back / outcome.left));
    report::row(&[
        format!("{case} swift"),
        format!("{floor:.0}"),
        format!("{moves:.0}"),
        format!("{:.2}", moves / floor),
        format!("{:.2}", largest(&each(|outcome| outcome.moves / outcome.floor))),
        format!("{:.2}", mean(&excess)),
        format!("{:.2}", largest(&excess)),
        format!("{:.2}", mean(&each(|outcome| outcome.even))),
        format!("{:.2}", mean(&each(|outcome| outcome.before))),
        format!("{back:.2}"),
        format!("{:.2}", mean(&each(|outcome| outcome.after))),
        format!("{:.0}", mean(&each(|outcome| outcome.milliseconds))),
    ]);
    let limit = if shape.slots() <= FEW_SLOTS { MOVES_OF_FEW } else { MOVES };
    report.at_most(format!("{case}, one rank lost, moves / floor"), moves / floor, limit, "x");
    report.at_most(format!("{case}, a rank back, moves / what left, worst"), back, 1.0, "x");
    let Some((_, _, peers)) = PEERS.iter().find(|peers| (peers.0, peers.1) == (shape.name, family)) else {
        return Ok(());
    };
    for (peer, [floor, moves, excess]) in peers {
        let figures = [format!("{floor}"), format!("{moves}"), format!("{:.2}", moves / floor), String::new()];
        let rest = [format!("{excess:.2}")].into_iter().chain(std::iter::repeat_n(String::new(), 6));
        report::row(&[&[format!("{case} {peer}")], &figures[..], &rest.collect::<Vec<_>>()].concat());
    }
    report.at_most(format!("{case}, one rank lost, excess, worst"), largest(&excess), EXCESS, " %");
    Ok(())
}
