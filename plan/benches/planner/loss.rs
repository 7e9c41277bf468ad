//! One rank lost: what has to be loaded and moved until the others hold every expert again, in balance.

use anyhow::Result;
use plan::ids::RankId;
use plan::slots::RankSlots;

use crate::figures::{largest, mean};
use crate::loads::{Window, expert_loads};
use crate::placement::{Placement, Split};
use crate::planners::{Planner, initial};
use crate::report::{self, Report};
use crate::shapes::{Shape, named};
use crate::{Options, bound};

/// Most moves, as a multiple of the experts whose only copy was lost, and the most excess in per cent.
const TARGET: (f64, f64) = (1.5, 2.0);

/// Floor, moves and excess in per cent of a peer.
type Peer = (&'static str, [f64; 3]);

/// Shape, family, and two peers: vLLM, which plans from scratch, and a reference that does not.
const CASES: [(&str, &str, [Peer; 2]); 4] = [
    ("dsv3-32", "logn10", [("vllm", [428.0, 15514.0, 0.50]), ("ref-inc", [492.0, 2178.0, 1.72])]),
    ("dsv3-32", "real_decode_in1000out1000", [("vllm", [423.0, 15638.0, 0.70]), ("ref-inc", [494.0, 2154.0, 1.74])]),
    ("kimi-32", "logn10", [("vllm", [697.0, 23737.0, 0.23]), ("ref-inc", [767.0, 2725.0, 1.73])]),
    ("qwen235-16", "logn10", [("vllm", [677.0, 11767.0, 0.54]), ("ref-inc", [802.0, 2532.0, 1.48])]),
];

/// What a plan for the survivors of one loss does.
struct Outcome {
    floor: f64,
    moves: f64,
    /// With the plan's shares, which take hold without a move, and if copies shared evenly.
    excess: f64,
    even: f64,
}

fn lose(rank: usize, shape: &Shape, window: &Window) -> Result<Outcome> {
    let (loads, topology) = (expert_loads(std::slice::from_ref(window)), shape.topology());
    let map = Planner::Scratch.plan(&loads, &topology, &initial(shape))?;
    let survivors = RankSlots::new((0..shape.ranks).map(|other| if other == rank { 0 } else { shape.slots() }));
    let mut before = Placement::of(&map, topology.slots())?;
    let topology = topology.with_slots(survivors)?;
    let after = Placement::of(&Planner::InForce.plan(&loads, &topology, &map)?, topology.slots())?;
    before.lose(rank);
    let floor = plan::coverage::lost(&map, &[RankId::from(rank)]).len();
    anyhow::ensure!(floor == before.missing(), "the planner counts {floor} lost experts, not {}", before.missing());
    let over = |split| {
        let over = after.busiest(window, split).into_iter().zip(window).map(|(max, load)| {
            (max / bound::of_counts(load, shape.ranks - 1, shape.physical - shape.slots()) - 1.0) * 100.0
        });
        mean(&over.collect::<Vec<_>>())
    };
    Ok(Outcome {
        floor: floor as f64,
        moves: before.movement(&after, shape.nodes).moves as f64,
        excess: over(Split::Planned),
        even: over(Split::Even),
    })
}

/// Moves and balance after the loss of each rank. The floor differs from rank to rank by a third, and what has to move beside it
/// grows as it falls: a rank with more copies of hot experts has fewer that are nowhere else, and its loss leaves more to level.
pub fn loss(options: &Options, report: &mut Report) -> Result<()> {
    report::title("One rank lost, each in turn: copies made by the plan for the others");
    report::table(&[
        "shape, loads, planner",
        "floor",
        "moves",
        "moves / floor",
        "worst",
        "excess %",
        "worst",
        "if shared evenly",
    ]);
    for (name, family, peers) in CASES {
        if family.starts_with("real") && !options.loads.has_recorded() || options.quick && name != "dsv3-32" {
            continue;
        }
        let shape = named(name);
        let window = options.loads.window(shape.model, family)?;
        let outcomes: Vec<Outcome> = (0..shape.ranks).map(|rank| lose(rank, shape, &window)).collect::<Result<_>>()?;
        let each = |of: fn(&Outcome) -> f64| -> Vec<f64> { outcomes.iter().map(of).collect() };
        let ratios = each(|outcome| outcome.moves / outcome.floor);
        let excess = each(|outcome| outcome.excess);
        let (floor, moves) = (mean(&each(|outcome| outcome.floor)), mean(&each(|outcome| outcome.moves)));
        let case = format!("{name} {family}");
        report::row(&[
            format!("{case} swift"),
            format!("{floor:.0}"),
            format!("{moves:.0}"),
            format!("{:.2}", moves / floor),
            format!("{:.2}", largest(&ratios)),
            format!("{:.2}", mean(&excess)),
            format!("{:.2}", largest(&excess)),
            format!("{:.2}", mean(&each(|outcome| outcome.even))),
        ]);
        for (peer, [floor, moves, excess]) in peers {
            let ratio = format!("{:.2}", moves / floor);
            let (floor, moves, excess) = (format!("{floor}"), format!("{moves}"), format!("{excess:.2}"));
            report::row(&[
                format!("{case} {peer}"),
                floor,
                moves,
                ratio,
                String::new(),
                excess,
                String::new(),
                String::new(),
            ]);
        }
        report.at_most(format!("{case}, one rank lost, moves / floor"), moves / floor, TARGET.0, "x");
        report.at_most(format!("{case}, one rank lost, excess, worst"), largest(&excess), TARGET.1, " %");
    }
    Ok(())
}
