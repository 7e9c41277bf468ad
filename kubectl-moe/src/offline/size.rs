//! `kubectl moe size`: how many redundant experts a load is worth.

use std::path::PathBuf;

use ::plan::balance::Policy;
use ::plan::sizing::{Size, Sizing, worth_it};
use clap::Args;
use serde::Serialize;

use super::basis::Basis;
use super::input::{LoadOptions, policy};
use super::{OfflineError, write};
use crate::Terminal;
use crate::chart::{Chart, Panel, Series};
use crate::output::Output;
use crate::table::columns;
use crate::words::{or_unknown, percent, scale};

/// Redundancies tried beyond the least possible one, in copies for each rank, unless told otherwise.
const RANKS_TRIED: usize = 4;

/// Arguments of `kubectl moe size`.
#[derive(Args, Debug)]
pub struct SizeArguments {
    #[command(flatten)]
    load: LoadOptions,
    /// Largest redundancy to try; four times the ranks more than the least possible if left out
    #[arg(long, value_name = "R")]
    max_redundancy: Option<usize>,
    /// Share of the experts' part of a step, in per cent, that a further slot of each rank must save to be worth it
    #[arg(long, value_name = "PERCENT", default_value_t = 1.0, value_parser = per_cent)]
    worth: f64,
    /// How placements are found
    #[arg(long, value_name = "P", value_parser = policy(), default_value_t = Policy::Swift)]
    policy: Policy,
    /// Draw ratio and bytes against redundancy into this SVG file; - prints it instead of the result
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
    /// How the result is printed; name is the redundancy that is worth it
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
}

fn per_cent(text: &str) -> Result<f64, String> {
    let number: f64 = text.parse().map_err(|_| "not a number".to_owned())?;
    if (0.0..=100.0).contains(&number) { Ok(number) } else { Err("must be from 0 to 100".to_owned()) }
}

#[derive(Debug, Serialize)]
struct Report {
    policy: &'static str,
    #[serde(flatten)]
    basis: Basis,
    worth_percent: f64,
    /// The redundancy that is worth it.
    redundancy: usize,
    rule: String,
    sizes: Vec<Row>,
}

#[derive(Debug, Serialize)]
struct Row {
    redundancy: usize,
    slots_per_rank: usize,
    ratio: f64,
    ratio_next: Option<f64>,
    excess: f64,
    /// Share of the experts' part of a step saved against the smallest redundancy.
    time_saved: f64,
    bytes_per_rank: Option<u64>,
    uncovered: usize,
}

/// Runs the command; returns what to print.
pub fn run(arguments: &SizeArguments, terminal: &mut Terminal<'_>) -> Result<String, OfflineError> {
    let input = arguments.load.input(terminal)?;
    let windows = input.windows_of(&input.busy_layers());
    let (layers, experts, ranks) = (windows[0].layers(), input.experts(), input.ranks());
    let least = experts.next_multiple_of(ranks) - experts;
    let sizing = Sizing {
        policy: arguments.policy,
        windows: &windows,
        topology: &input.topology,
        max_redundancy: arguments.max_redundancy.unwrap_or(least + RANKS_TRIED * ranks),
        min_coverage: arguments.load.coverage(),
    };
    let redundancies = sizing.redundancies()?;
    let all = redundancies.len();
    let size = |(number, redundancy): (usize, usize)| {
        let place = format!("{} of {all}", number + 1);
        terminal.progress.doing(&format!("planning for redundancy {redundancy}, {place}"));
        sizing.size(redundancy)
    };
    let sizes = redundancies.into_iter().enumerate().map(size).collect::<Result<Vec<_>, _>>()?;
    let worth = worth_it(&sizes, arguments.worth / 100.0);
    let row = |size: &Size| Row {
        redundancy: size.redundancy,
        slots_per_rank: size.slots_per_rank,
        ratio: size.seen,
        ratio_next: size.unseen,
        excess: size.excess,
        time_saved: 1.0 - sizes[0].ratio() / size.ratio(),
        bytes_per_rank: input.expert_bytes.map(|bytes| bytes * (layers * size.slots_per_rank) as u64),
        uncovered: size.uncovered,
    };
    let judged =
        if windows.len() > 1 { "on the later half of the windows, which plans have not seen" } else { "on the load" };
    let report = Report {
        policy: arguments.policy.as_str(),
        basis: Basis::of(&input, layers),
        worth_percent: arguments.worth,
        redundancy: sizes[worth].redundancy,
        rule: format!(
            "the largest that makes the experts' part of a step shorter than the last one worth it by {} % for each slot that \
             a rank has more, {judged}",
            arguments.worth
        ),
        sizes: sizes.iter().map(row).collect(),
    };
    if let Some(path) = &arguments.plot
        && let Some(printed) = write(path, chart(&report).svg())?
    {
        return Ok(printed);
    }
    let is_wide = arguments.output.is_wide();
    Ok(arguments.output.print(&report, |report| table(report, is_wide), |report| report.redundancy.to_string()))
}

fn table(report: &Report, is_wide: bool) -> String {
    let row = |row: &Row| {
        let mut cells = vec![
            row.redundancy.to_string(),
            row.slots_per_rank.to_string(),
            format!("{:.4}", row.ratio),
            row.ratio_next.map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.4}")),
            percent(row.excess),
            percent(row.time_saved),
            or_unknown(row.bytes_per_rank.map(|bytes| bytes as f64)),
        ];
        if is_wide {
            cells.push(row.uncovered.to_string());
        }
        cells.push(if row.redundancy == report.redundancy { "worth it".to_owned() } else { String::new() });
        cells
    };
    let rows = report.sizes.iter().map(row).collect();
    let mut header =
        vec!["REDUNDANCY", "SLOTS PER RANK", "RATIO", "RATIO NEXT", "EXCESS", "TIME SAVED", "BYTES PER RANK"];
    if is_wide {
        header.push("UNCOVERED");
    }
    header.push("");
    format!("{}\n\n{}\nWorth it is {}.\n", report.basis.with_ranks(), columns(&header, rows), report.rule)
}

fn chart(report: &Report) -> Chart {
    let line = |name: &str, of: &dyn Fn(&Row) -> Option<f64>| Series {
        name: name.to_owned(),
        points: report.sizes.iter().filter_map(|row| Some((row.redundancy as f64, of(row)?))).collect(),
    };
    let mut ratios = vec![line("windows seen", &|row| Some(row.ratio))];
    if report.basis.windows > 1 {
        ratios.push(line("later windows", &|row| row.ratio_next));
    }
    let mut panels = vec![Panel { label: "balance ratio".to_owned(), series: ratios, most: Some(1.0) }];
    let most = report.sizes.iter().filter_map(|row| row.bytes_per_rank).max();
    if let Some(most) = most.filter(|&most| most > 0) {
        let (scaled, unit) = scale(most as f64);
        let size = most as f64 / scaled;
        panels.push(Panel {
            label: format!("bytes of experts on a rank ({unit})"),
            series: vec![line("all layers", &|row| row.bytes_per_rank.map(|bytes| bytes as f64 / size))],
            most: None,
        });
    }
    Chart {
        title: format!("{}: redundancy {} is worth it", report.basis.with_ranks(), report.redundancy),
        x_label: "redundant experts of each layer".to_owned(),
        panels,
    }
}
