//! `kubectl moe plan`: a placement for a recorded load, with its figures.

mod in_force;

use std::path::PathBuf;

use ::plan::balance::{Policy, Request, balance};
use ::plan::formats::{Expected, Format, read_any};
use ::plan::ids::ExpertId;
use ::plan::load::{ExpertLoad, total};
use ::plan::map::{ExpertMap, MapShape};
use ::plan::moves::moved_slots;
use ::plan::policy::{Decision, History};
use ::plan::proposal::{Rules, Situation, judge};
use ::plan::replay::ratio;
use ::plan::topology::Topology;
use ::plan::wire::MapDocument;
use ::plan::{bound, coverage};
use clap::Args;
use in_force::{Begin, InForce};
use serde::Serialize;
use serde_json::Value;

use super::basis::Basis;
use super::input::{LoadOptions, identity, policy};
use super::judge::{JudgeOptions, described};
use super::{OfflineError, write};
use crate::Terminal;
use crate::map::format;
use crate::output::Output;
use crate::table::columns;
use crate::words::{bytes, counted, numbered, percent};

/// Arguments of `kubectl moe plan`.
#[derive(Args, Debug)]
pub struct PlanArguments {
    #[command(flatten)]
    load: LoadOptions,
    /// Physical experts per layer beyond one copy of each; with the experts they divide by the ranks
    #[arg(long, value_name = "R", default_value_t = 0)]
    redundancy: usize,
    /// Expert map in force, in any of the formats; the result then tells whether moving is worth it. Without it, the plan is
    /// from nothing, and compared with the placement that engines start with
    #[arg(long, value_name = "MAP")]
    current: Option<PathBuf>,
    /// How the placement is found
    #[arg(long, value_name = "P", value_parser = policy(), default_value_t = Policy::Swift)]
    policy: Policy,
    /// Format of the map
    #[arg(long, visible_alias = "format", value_name = "FORMAT", value_parser = format(), default_value_t = Format::Swift)]
    map_format: Format,
    /// Write the map into this file; - prints it instead of the figures
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Name of the served model in a map of the format swift; that of the load document or --current if left out
    #[arg(long, value_name = "NAME")]
    model_name: Option<String>,
    /// Digest of the checkpoint in a map of the format swift, as swiftbalancer-runtime inspect prints it; that of the load
    /// document or --current if left out. A map without one fits every model of its layers and experts
    #[arg(long, value_name = "HEX")]
    model_digest: Option<String>,
    /// How the result is printed; json and yaml have the map too, wide each layer, name the hash of the map
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
    #[command(flatten)]
    judge: JudgeOptions,
}

/// What is printed.
#[derive(Debug, Serialize)]
struct Report {
    policy: &'static str,
    #[serde(flatten)]
    basis: Basis,
    redundancy: usize,
    slots_per_rank: usize,
    /// Layers without load, which stay as they are; no figure counts them.
    layers_without_load: Vec<usize>,
    ratio_before: f64,
    ratio: f64,
    /// Mean of the ratios of the single windows, which is lower where they differ.
    ratio_of_windows: f64,
    excess: f64,
    worst_layer: Layer,
    #[serde(skip)]
    each_layer: Vec<Layer>,
    moved_slots: usize,
    moved_share: f64,
    bytes: Option<u64>,
    bytes_per_rank: Option<u64>,
    min_coverage: usize,
    min_node_coverage: usize,
    coverage: usize,
    node_coverage: usize,
    uncovered: usize,
    /// Whether the runtime would move there, judged by what the plan was made for, with --current.
    decision: Option<Decision>,
    planner_seconds: f64,
    format: &'static str,
    map: Value,
}

#[derive(Clone, Copy, Debug, Serialize)]
struct Layer {
    #[serde(rename = "layer")]
    number: usize,
    ratio: f64,
    excess: f64,
}

/// Runs the command; returns what to print.
pub fn run(arguments: &PlanArguments, terminal: &mut Terminal<'_>) -> Result<String, OfflineError> {
    let input = arguments.load.input(terminal)?;
    let terms = arguments.judge.terms(input.expert_bytes)?;
    let shape = MapShape::with_redundancy(input.layers(), input.experts(), input.ranks(), arguments.redundancy)?;
    let topology = input.topology(shape.slots_per_rank)?;
    let in_force = InForce::of(arguments, &input, shape, terminal)?;

    let busy = input.busy_layers();
    let windows = input.windows_of(&busy);
    let current = layers_of(&in_force.map, &busy);
    terminal.progress.doing("planning");
    let began = (terminal.now)();
    let plan = balance(&Request {
        policy: arguments.policy,
        windows: &windows,
        topology: &topology,
        // What engines start with is in force nowhere yet, so nothing speaks for keeping it.
        current: arguments.current.is_some().then_some(&current),
        min_coverage: arguments.load.coverage(),
    })?;
    let planner_seconds = (terminal.now)().saturating_sub(began).as_secs_f64();
    let whole = with_layers(&in_force.map, &busy, &plan.map);

    let known = input.identity.clone().or(in_force.model.clone());
    let given = (arguments.model_name.as_deref(), arguments.model_digest.as_deref());
    let identity = identity(known, shape, given);
    let hash = MapDocument::new(identity.clone(), &whole).content_hash();
    let text = arguments.map_format.write(&whole, &identity, input.dense_layers)?;
    if let Some(path) = &arguments.out
        && let Some(printed) = write(path, text.clone())?
    {
        return Ok(printed);
    }

    // Figures are those of the map as it is written: other formats do not keep unequal shares.
    let written = read_back(&text, shape, input.dense_layers);
    let planned = layers_of(&written, &busy);
    let load = total(&windows);
    let excess = bound::excess(&planned, &load, &topology);
    let each_layer = each_layer((&planned, &topology), &load, &excess, &busy);
    let Begin { map: current, missing } = in_force.before(&busy, &planned);
    let moved = moved_slots(&current, &planned).expect("a plan has the shape of the placement in force") + missing;
    let decision = match &arguments.current {
        Some(_) => {
            let rules = Rules {
                policy: arguments.policy,
                min_coverage: arguments.load.coverage(),
                staging_pages: arguments.judge.staging_pages(MapShape { layers: busy.len(), ..shape }),
                terms,
            };
            let (current, history) = (&current, History::default());
            let situation = Situation { current, windows: &windows, topology: &topology, history };
            Some(with_pages(judge(&situation, &rules, &planned, &plan.expected)?.decision, missing))
        }
        None => None,
    };
    let wanted = arguments.load.coverage();
    let report = Report {
        policy: arguments.policy.as_str(),
        basis: Basis::of(&input, shape.layers),
        redundancy: shape.redundancy(),
        slots_per_rank: shape.slots_per_rank,
        layers_without_load: (0..shape.layers).filter(|layer| !busy.contains(layer)).collect(),
        ratio_before: ratio(&current, &load, &topology),
        ratio: ratio(&planned, &load, &topology),
        ratio_of_windows: windows.iter().map(|window| ratio(&planned, window, &topology)).sum::<f64>()
            / windows.len() as f64,
        excess: excess.iter().sum::<f64>() / excess.len() as f64,
        worst_layer: worst_layer(&each_layer),
        each_layer,
        moved_slots: moved,
        moved_share: moved as f64 / (busy.len() * planned.physical()) as f64,
        bytes: input.expert_bytes.map(|bytes| bytes.saturating_mul(moved as u64)),
        bytes_per_rank: input.expert_bytes.map(|bytes| bytes * (busy.len() * shape.slots_per_rank) as u64),
        min_coverage: wanted.ranks,
        min_node_coverage: wanted.nodes,
        coverage: coverage::coverage(&planned),
        node_coverage: coverage::coverage_of_nodes(&planned, &topology),
        uncovered: coverage::uncovered(&planned, &topology, wanted),
        decision,
        planner_seconds,
        format: arguments.map_format.as_str(),
        // YAML stays text.
        map: serde_json::from_str(&text).unwrap_or(Value::String(text)),
    };
    let is_wide = arguments.output.is_wide();
    Ok(arguments.output.print(&report, |report| table(report, is_wide), |_| hash))
}

/// A decision on a plan that takes more pages than its transactions bring.
fn with_pages(mut decision: Decision, more: usize) -> Decision {
    if more > 0 {
        let more = more as u64;
        decision.figures.pages += more;
        decision.figures.bytes = decision.figures.bytes.saturating_add(more.saturating_mul(decision.terms.page_bytes));
        decision.reason = decision.replay();
    }
    decision
}

fn read_back(text: &str, shape: MapShape, dense_layers: usize) -> ExpertMap {
    let MapShape { layers, experts, ranks, .. } = shape;
    let expected = Expected {
        layers: Some(layers),
        experts: Some(experts),
        ranks: Some(ranks),
        dense_layers,
        ..Expected::default()
    };
    read_any(text.as_bytes(), &expected).expect("a map that was written is read").map
}

/// A map of some of the layers.
fn layers_of(map: &ExpertMap, layers: &[usize]) -> ExpertMap {
    if layers.len() == map.shape().layers {
        return map.clone();
    }
    of_rows(map, layers.iter().map(|&layer| (map, layer)))
}

/// The map with some of its layers replaced.
fn with_layers(map: &ExpertMap, layers: &[usize], new: &ExpertMap) -> ExpertMap {
    if layers.len() == map.shape().layers {
        return new.clone();
    }
    of_rows(
        map,
        (0..map.shape().layers).map(|layer| match layers.iter().position(|&replaced| replaced == layer) {
            Some(place) => (new, place),
            None => (map, layer),
        }),
    )
}

/// A map of layers of maps, on the ranks of one.
fn of_rows<'a>(ranks: &ExpertMap, rows: impl Iterator<Item = (&'a ExpertMap, usize)>) -> ExpertMap {
    let rows: Vec<_> = rows.collect();
    let slots: Vec<ExpertId> = rows.iter().flat_map(|(map, layer)| map.layer((*layer).into())).copied().collect();
    let shares: Vec<u32> = rows.iter().flat_map(|(map, layer)| map.parts((*layer).into())).collect();
    let map = ExpertMap::with_slots_of_ranks(rows.len(), ranks.shape().experts, ranks.slots_of_ranks().clone(), slots);
    map.and_then(|map| map.with_shares(&shares)).expect("layers of maps are valid")
}

fn each_layer(
    (map, topology): (&ExpertMap, &Topology),
    load: &ExpertLoad,
    excess: &[f64],
    numbers: &[usize],
) -> Vec<Layer> {
    let known = ::plan::expected::Expected::known(load);
    let layer = |((layer, &excess), &number)| Layer { number, ratio: known.ratio_in(layer, map, topology), excess };
    map.layers().zip(excess).zip(numbers).map(layer).collect()
}

fn worst_layer(layers: &[Layer]) -> Layer {
    let worse = |a: &&Layer, b: &&Layer| a.excess.total_cmp(&b.excess).then(b.number.cmp(&a.number));
    *layers.iter().max_by(worse).expect("a load has layers")
}

fn table(report: &Report, is_wide: bool) -> String {
    let Report { policy, basis, redundancy, slots_per_rank, .. } = report;
    let Basis { title, windows, ranks, nodes, .. } = basis;
    let known = |of: Option<u64>| {
        of.map_or_else(|| "unknown without --expert-bytes or --model".to_owned(), |of| bytes(of as f64))
    };
    let mut rows = vec![
        ("policy", (*policy).to_owned()),
        ("load", title.clone()),
        (
            "ranks",
            format!(
                "{ranks} on {}, {} each (redundancy {redundancy})",
                counted(*nodes, "node"),
                counted(*slots_per_rank, "slot")
            ),
        ),
        ("ratio", format!("{:.4} before, {:.4} after", report.ratio_before, report.ratio)),
    ];
    if *windows > 1 {
        rows.push(("in one window", format!("{:.4} after, on average", report.ratio_of_windows)));
    }
    let Layer { number, ratio, excess } = &report.worst_layer;
    rows.push((
        "excess",
        format!(
            "{} over the bound; the worst is layer {number} with {} and ratio {ratio:.4}",
            percent(report.excess),
            percent(*excess)
        ),
    ));
    rows.push(("moved", format!("{} ({} of all)", counted(report.moved_slots, "slot"), percent(report.moved_share))));
    rows.push(("bytes moved", known(report.bytes)));
    rows.push(("bytes per rank", known(report.bytes_per_rank)));
    rows.extend(survived(report).map(|words| ("coverage", words)));
    if let Some(decision) = &report.decision {
        let [decided, predicted] = described(decision);
        rows.push(("decision", decided));
        rows.push(("predicted", predicted));
    }
    if !report.layers_without_load.is_empty() {
        let stay = if report.layers_without_load.len() == 1 { "left as it is" } else { "left as they are" };
        rows.push(("without load", format!("{}, {stay}", numbered(&report.layers_without_load, "layer"))));
    }
    let lines: Vec<String> = rows.into_iter().map(|(name, value)| format!("{name:<16}{value}\n")).collect();
    if !is_wide {
        return lines.concat();
    }
    let row = |layer: &Layer| vec![layer.number.to_string(), format!("{:.4}", layer.ratio), percent(layer.excess)];
    let layers = report.each_layer.iter().map(row).collect();
    format!("{}\n{}", lines.concat(), columns(&["LAYER", "RATIO", "EXCESS"], layers))
}

/// Whether every expert survives the losses that were asked about, if any were.
fn survived(report: &Report) -> Option<String> {
    let asked = [(report.min_coverage, "rank"), (report.min_node_coverage, "node")];
    let lost = |which: &str| {
        let words = |&(lost, of): &(usize, &str)| match lost {
            0 => None,
            1 => Some(format!("{which} {of}")),
            lost => Some(format!("{which} {}", counted(lost, of))),
        };
        asked.iter().filter_map(words).collect::<Vec<_>>().join(" or ")
    };
    if asked.iter().all(|&(lost, _)| lost == 0) {
        return None;
    }
    Some(match report.uncovered {
        0 => format!("every expert survives the loss of {}", lost("any")),
        some => format!("{} of all layers would not survive the loss of {}", counted(some, "expert"), lost("some")),
    })
}
