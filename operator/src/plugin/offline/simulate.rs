//! `kubectl moe simulate`: what policies would have done over recorded windows.

use std::path::PathBuf;

use ::plan::balance::Policy;
use ::plan::map::MapShape;
use ::plan::replay::{Averages, Rebalance, Replay, averages, replay};
use ::plan::topology::Topology;
use clap::Args;
use serde::Serialize;

use super::super::table::columns;
use super::chart::{Chart, Panel, Series};
use super::input::{LoadOptions, policy};
use super::units::{counted, or_unknown, percent, scale};
use super::{OfflineError, Output, write};

/// Arguments of `kubectl moe simulate`.
#[derive(Args, Debug)]
pub struct SimulateArguments {
    #[command(flatten)]
    load: LoadOptions,
    /// Physical experts per layer beyond one copy of each; with the experts they divide by the ranks
    #[arg(long, value_name = "R", default_value_t = 0)]
    redundancy: usize,
    /// Windows that each plan is made from
    #[arg(long, value_name = "WINDOWS", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..))]
    history: u16,
    /// Policies to compare
    #[arg(long, value_name = "P,..", value_delimiter = ',', value_parser = policy(), default_values_t = Policy::ALL)]
    policies: Vec<Policy>,
    /// Draw ratio and bytes over time into this SVG file
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
    /// How the result is printed; json has every rebalance
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
}

#[derive(Debug, Serialize)]
struct Report {
    #[serde(skip)]
    title: String,
    windows: usize,
    layers: usize,
    experts: usize,
    ranks: usize,
    nodes: usize,
    redundancy: usize,
    history: usize,
    policies: Vec<Outcome>,
}

/// What a policy did; means over its rebalances after the first.
#[derive(Debug, Serialize)]
struct Outcome {
    policy: &'static str,
    ratio_seen: f64,
    ratio_next: f64,
    moved_slots: f64,
    moved_share: f64,
    bytes: Option<f64>,
    rebalances: Vec<Row>,
}

#[derive(Debug, Serialize)]
struct Row {
    window: usize,
    ratio_seen: f64,
    ratio_next: f64,
    moved_slots: usize,
    moved_share: f64,
    bytes: Option<u64>,
}

/// Runs the command; returns what to print.
pub fn run(arguments: &SimulateArguments) -> Result<String, OfflineError> {
    let input = arguments.load.input()?;
    let windows = input.windows_of(&input.busy_layers());
    let (history, layers) = (usize::from(arguments.history), windows[0].layers());
    if windows.len() <= history {
        return Err(OfflineError::TooFewWindows { windows: windows.len(), history });
    }
    let shape = MapShape::with_redundancy(layers, input.experts(), input.ranks, arguments.redundancy)?;
    let topology = Topology::even(input.nodes, input.ranks, shape.slots_per_rank)?;
    let topology = topology.with_router_groups(input.router_groups);
    let slots = (layers * shape.physical()) as f64;
    let outcome = |&policy: &Policy| -> Result<Outcome, OfflineError> {
        let min_coverage = arguments.load.min_coverage;
        let rebalances =
            replay(&Replay { policy, windows: &windows, topology: &topology, start: None, history, min_coverage })?;
        let Averages { seen, next, moved_slots } = averages(&rebalances);
        let row = |rebalance: &Rebalance| Row {
            window: rebalance.window,
            ratio_seen: rebalance.seen,
            ratio_next: rebalance.next,
            moved_slots: rebalance.moved_slots,
            moved_share: rebalance.moved_slots as f64 / slots,
            bytes: input.expert_bytes.map(|bytes| bytes.saturating_mul(rebalance.moved_slots as u64)),
        };
        Ok(Outcome {
            policy: policy.as_str(),
            ratio_seen: seen,
            ratio_next: next,
            moved_slots,
            moved_share: moved_slots / slots,
            bytes: input.expert_bytes.map(|bytes| bytes as f64 * moved_slots),
            rebalances: rebalances.iter().map(row).collect(),
        })
    };
    let report = Report {
        title: format!("{}, {}", input.title(), counted(input.ranks, "rank")),
        windows: windows.len(),
        layers,
        experts: shape.experts,
        ranks: shape.ranks,
        nodes: input.nodes,
        redundancy: shape.redundancy(),
        history,
        policies: arguments.policies.iter().map(outcome).collect::<Result<_, _>>()?,
    };
    if let Some(path) = &arguments.plot {
        write(path, &chart(&report).svg())?;
    }
    Ok(arguments.output.print(&report, table))
}

fn table(report: &Report) -> String {
    let Report { title, redundancy, history, .. } = report;
    let row = |outcome: &Outcome| {
        [
            outcome.policy.to_owned(),
            format!("{:.4}", outcome.ratio_seen),
            format!("{:.4}", outcome.ratio_next),
            format!("{:.1}", outcome.moved_slots),
            percent(outcome.moved_share),
            or_unknown(outcome.bytes),
        ]
    };
    let rows: Vec<_> = report.policies.iter().map(row).collect();
    let header = ["POLICY", "RATIO SEEN", "RATIO NEXT", "MOVED SLOTS", "OF ALL", "BYTES"];
    let rebalances = report.policies.first().map_or(0, |outcome| outcome.rebalances.len());
    format!(
        "{title}, redundancy {redundancy}; plans from {}, mean of {} after the first\n\n{}",
        counted(*history, "window"),
        counted(rebalances.saturating_sub(1), "rebalance"),
        columns(header, &rows)
    )
}

fn chart(report: &Report) -> Chart {
    let series = |of: &dyn Fn(&Row) -> f64| -> Vec<Series> {
        let of_policy = |outcome: &Outcome| Series {
            name: outcome.policy.to_owned(),
            points: outcome.rebalances.iter().map(|row| ((row.window + 1) as f64, of(row))).collect(),
        };
        report.policies.iter().map(of_policy).collect()
    };
    let most = report.policies.iter().flat_map(|outcome| &outcome.rebalances).filter_map(|row| row.bytes).max();
    let moved = match most {
        Some(most) => {
            let (scaled, unit) = scale(most as f64);
            let size = if scaled > 0.0 { most as f64 / scaled } else { 1.0 };
            Panel {
                label: format!("bytes moved by a rebalance ({unit})"),
                series: series(&|row| row.bytes.unwrap_or(0) as f64 / size),
                most: None,
            }
        }
        None => Panel {
            label: "slots moved by a rebalance (%)".to_owned(),
            series: series(&|row| row.moved_share * 100.0),
            most: None,
        },
    };
    let ratio = Panel {
        label: "balance ratio of the next window".to_owned(),
        series: series(&|row| row.ratio_next),
        most: Some(1.0),
    };
    Chart {
        title: format!("{}, redundancy {}", report.title, report.redundancy),
        x_label: "windows recorded when the plan is made".to_owned(),
        panels: vec![ratio, moved],
    }
}
