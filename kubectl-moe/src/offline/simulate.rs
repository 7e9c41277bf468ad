//! `kubectl moe simulate`: what the runtime would have done over recorded windows under each policy.

use std::collections::BTreeMap;
use std::path::PathBuf;

use ::plan::balance::Policy;
use ::plan::load::WINDOWS_KEPT;
use ::plan::map::MapShape;
use ::plan::policy::{Decision, Terms};
use ::plan::proposal::Rules;
use ::plan::replay::{Averages, Decided, Replay, averages, replay};
use clap::Args;
use serde::Serialize;

use super::basis::Basis;
use super::input::{LoadOptions, policy};
use super::judge::JudgeOptions;
use super::{OfflineError, write};
use crate::Terminal;
use crate::chart::{Chart, Panel, Series};
use crate::output::Output;
use crate::table::columns;
use crate::words::{counted, or_unknown, percent, scale};

/// Arguments of `kubectl moe simulate`.
#[derive(Args, Debug)]
pub struct SimulateArguments {
    #[command(flatten)]
    load: LoadOptions,
    /// Physical experts per layer beyond one copy of each; with the experts they divide by the ranks
    #[arg(long, value_name = "R", default_value_t = 0)]
    redundancy: usize,
    /// Windows that are remembered for planning, as many as the runtime remembers if left out
    #[arg(long, value_name = "WINDOWS", default_value_t = WINDOWS_KEPT as u16, value_parser = clap::value_parser!(u16).range(1..))]
    history: u16,
    /// Policies to compare
    #[arg(long, value_name = "P,..", value_delimiter = ',', value_parser = policy(), default_values_t = Policy::ALL)]
    policies: Vec<Policy>,
    /// Draw ratio and bytes over time into this SVG file; - prints it instead of the result
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
    /// How the result is printed; json and yaml have every decision, wide a row for each, name the best policy
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
    #[command(flatten)]
    judge: JudgeOptions,
    /// Windows after one that moved experts in which none move
    #[arg(long, value_name = "WINDOWS", default_value_t = 0, help_heading = "Options of decisions")]
    cool_down_windows: u64,
}

#[derive(Debug, Serialize)]
struct Report {
    #[serde(flatten)]
    basis: Basis,
    redundancy: usize,
    history: usize,
    min_coverage: usize,
    min_node_coverage: usize,
    policies: Vec<Outcome>,
}

/// What a policy did; means over its decisions after the first.
#[derive(Debug, Serialize)]
struct Outcome {
    policy: &'static str,
    ratio_seen: f64,
    ratio_next: f64,
    moved_slots: f64,
    moved_share: f64,
    bytes: Option<f64>,
    /// How often each reason was given, the first decision included.
    reasons: BTreeMap<String, usize>,
    decisions: Vec<Row>,
}

#[derive(Debug, Serialize)]
struct Row {
    window: usize,
    ratio_seen: f64,
    ratio_next: f64,
    moved_slots: usize,
    moved_share: f64,
    bytes: Option<u64>,
    decision: Decision,
}

/// Runs the command; returns what to print.
pub fn run(arguments: &SimulateArguments, terminal: &mut Terminal<'_>) -> Result<String, OfflineError> {
    let input = arguments.load.input(terminal)?;
    let windows = input.windows_of(&input.busy_layers());
    let layers = windows[0].layers();
    if windows.len() < 2 {
        return Err(OfflineError::TooFewWindows { windows: windows.len() });
    }
    let shape = MapShape::with_redundancy(layers, input.experts(), input.ranks(), arguments.redundancy)?;
    let topology = input.topology(shape.slots_per_rank)?;
    let terms = Terms { cool_down: arguments.cool_down_windows, ..arguments.judge.terms(input.expert_bytes)? };
    let (min_coverage, remembered) = (arguments.load.coverage(), usize::from(arguments.history));
    let staging_pages = arguments.judge.staging_pages(shape);
    let outcome = |&policy: &Policy| -> Result<Outcome, OfflineError> {
        terminal.progress.doing(&format!("replaying {} windows under {policy}", windows.len()));
        let rules = Rules { policy, min_coverage, staging_pages, terms };
        let decided = replay(&Replay { windows: &windows, topology: &topology, start: None, remembered, rules })?;
        Ok(outcome(policy, &decided, layers * shape.physical(), input.expert_bytes))
    };
    let report = Report {
        basis: Basis::of(&input, layers),
        redundancy: shape.redundancy(),
        history: remembered,
        min_coverage: min_coverage.ranks,
        min_node_coverage: min_coverage.nodes,
        policies: arguments.policies.iter().map(outcome).collect::<Result<_, _>>()?,
    };
    if let Some(path) = &arguments.plot
        && let Some(printed) = write(path, chart(&report).svg())?
    {
        return Ok(printed);
    }
    let is_wide = arguments.output.is_wide();
    Ok(arguments.output.print(&report, |report| table(report, is_wide), best))
}

fn outcome(policy: Policy, decided: &[Decided], slots: usize, expert_bytes: Option<u64>) -> Outcome {
    let Averages { seen, next, moved_slots } = averages(decided);
    let row = |decided: &Decided| Row {
        window: decided.window,
        ratio_seen: decided.seen,
        ratio_next: decided.next,
        moved_slots: decided.moved_slots,
        moved_share: decided.moved_slots as f64 / slots as f64,
        bytes: expert_bytes.map(|bytes| bytes.saturating_mul(decided.moved_slots as u64)),
        decision: decided.decision,
    };
    let mut reasons = BTreeMap::new();
    for decided in decided {
        *reasons.entry(decided.decision.reason.to_string()).or_default() += 1;
    }
    Outcome {
        policy: policy.as_str(),
        ratio_seen: seen,
        ratio_next: next,
        moved_slots,
        moved_share: moved_slots / slots as f64,
        bytes: expert_bytes.map(|bytes| bytes as f64 * moved_slots),
        reasons,
        decisions: decided.iter().map(row).collect(),
    }
}

/// The policy with the best ratio on the windows that it had not seen.
fn best(report: &Report) -> String {
    let best = report.policies.iter().max_by(|a, b| a.ratio_next.total_cmp(&b.ratio_next));
    best.map_or_else(String::new, |outcome| outcome.policy.to_owned())
}

fn table(report: &Report, is_wide: bool) -> String {
    let Report { basis, redundancy, history, .. } = report;
    let row = |outcome: &Outcome| {
        let reasons: Vec<String> = outcome.reasons.iter().map(|(reason, count)| format!("{reason} {count}")).collect();
        vec![
            outcome.policy.to_owned(),
            format!("{:.4}", outcome.ratio_seen),
            format!("{:.4}", outcome.ratio_next),
            format!("{:.1}", outcome.moved_slots),
            percent(outcome.moved_share),
            or_unknown(outcome.bytes),
            reasons.join(", "),
        ]
    };
    let rows = report.policies.iter().map(row).collect();
    let header = ["POLICY", "RATIO SEEN", "RATIO NEXT", "MOVED SLOTS", "OF ALL", "BYTES", "DECISIONS"];
    let decisions = report.policies.first().map_or(0, |outcome| outcome.decisions.len());
    let mean = match decisions {
        1 => "one decision".to_owned(),
        many => format!("mean of {} after the first", counted(many - 1, "decision")),
    };
    let table = format!(
        "{}, redundancy {redundancy}; {} remembered, {mean}\n\n{}",
        basis.with_ranks(),
        counted(*history, "window"),
        columns(&header, rows)
    );
    if !is_wide {
        return table;
    }
    let decision = |outcome: &Outcome, row: &Row| {
        vec![
            outcome.policy.to_owned(),
            row.window.to_string(),
            format!("{:.4}", row.ratio_seen),
            format!("{:.4}", row.ratio_next),
            row.moved_slots.to_string(),
            or_unknown(row.bytes.map(|bytes| bytes as f64)),
            row.decision.reason.to_string(),
        ]
    };
    let decisions =
        report.policies.iter().flat_map(|outcome| outcome.decisions.iter().map(move |row| decision(outcome, row)));
    let header = ["POLICY", "WINDOW", "RATIO SEEN", "RATIO NEXT", "MOVED SLOTS", "BYTES", "DECISION"];
    format!("{table}\n{}", columns(&header, decisions.collect()))
}

fn chart(report: &Report) -> Chart {
    let series = |of: &dyn Fn(&Row) -> f64| -> Vec<Series> {
        let of_policy = |outcome: &Outcome| Series {
            name: outcome.policy.to_owned(),
            points: outcome.decisions.iter().map(|row| ((row.window + 1) as f64, of(row))).collect(),
        };
        report.policies.iter().map(of_policy).collect()
    };
    let most = report.policies.iter().flat_map(|outcome| &outcome.decisions).filter_map(|row| row.bytes).max();
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
        title: format!("{}, redundancy {}", report.basis.with_ranks(), report.redundancy),
        x_label: "windows recorded when it is decided".to_owned(),
        panels: vec![ratio, moved],
    }
}
