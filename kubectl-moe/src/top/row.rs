//! A replica in one row. Pure.

use std::collections::BTreeSet;

use operator::words::shorten;
use plan::wire::MonitorDocument;
use serde::Serialize;

use super::SortBy;
use crate::cluster::resource_name;
use crate::monitor::{Load, Rates, View};
use crate::output::{Output, json, yaml};
use crate::table::columns;
use crate::words::{bytes, seconds};

/// A replica, and what it does, or why nobody knows.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Row {
    namespace: String,
    name: String,
    replica: usize,
    /// Whether it serves.
    ready: bool,
    /// Why it does not, or why its coordinator does not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(flatten)]
    now: Option<Now>,
}

/// What a replica does. What is measured over some seconds is `None` where there was nothing to measure.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Now {
    ranks: usize,
    epoch: u64,
    phase: String,
    running: u64,
    waiting: u64,
    tokens_per_second: Option<f64>,
    prompt_tokens_per_second: Option<f64>,
    steps_per_second: Option<f64>,
    /// Mean rank load over maximum rank load.
    ratio: Option<f64>,
    busiest_rank: Option<usize>,
    /// Its load as a multiple of the mean.
    busiest_load: Option<f64>,
    /// Seconds, of the last ones that the coordinator keeps.
    first_token_p99: Option<f64>,
    inter_token_p99: Option<f64>,
    step_p99: Option<f64>,
    /// Since the coordinator started.
    moved_bytes: u64,
    stall_seconds: f64,
}

impl Row {
    pub fn new(namespace: String, name: String, replica: usize, seen: Result<&View, &String>) -> Self {
        let document = seen.map(|view| view.last().map(|document| (view, document)));
        let (reason, now) = match document {
            Err(why) => (Some(shorten(why)), None),
            Ok(None) => (Some("its coordinator has said nothing".to_owned()), None),
            Ok(Some((view, document))) => (document.reason.as_deref().map(shorten), Some(Now::of(view, document))),
        };
        let ready = matches!(document, Ok(Some((_, document))) if document.ready);
        Self { namespace, name, replica, ready, reason, now }
    }
}

impl Now {
    fn of(view: &View, document: &MonitorDocument) -> Self {
        let (rates, load) = (view.rates(), view.load());
        let busiest = load.as_ref().map(Load::busiest);
        let latency = &document.latency;
        let rate = |read: fn(&Rates) -> f64| rates.as_ref().map(read);
        Self {
            ranks: document.pairs.first().map_or(0, Vec::len),
            epoch: document.epoch,
            phase: document.phase.to_string().to_lowercase(),
            running: document.running,
            waiting: document.waiting,
            tokens_per_second: rate(|rates| rates.completion_tokens),
            prompt_tokens_per_second: rate(|rates| rates.prompt_tokens),
            steps_per_second: rate(|rates| rates.steps),
            ratio: load.as_ref().map(|load| load.ratio),
            busiest_rank: busiest.map(|(rank, _)| rank),
            busiest_load: busiest.map(|(_, times)| times),
            first_token_p99: latency.first_token.map(|spread| spread.p99),
            inter_token_p99: latency.inter_token.map(|spread| spread.p99),
            step_p99: latency.step.map(|spread| spread.p99),
            moved_bytes: document.moves.bytes_moved,
            stall_seconds: document.stall_seconds,
        }
    }
}

/// Rows that measured nothing come last; equal ones are in the order of their names.
pub(super) fn sort(rows: &mut [Row], by: SortBy) {
    rows.sort_by(|one, other| {
        (&one.namespace, &one.name, one.replica).cmp(&(&other.namespace, &other.name, other.replica))
    });
    let read: fn(&Now) -> Option<f64> = match by {
        SortBy::Name => return,
        SortBy::Tokens => |now| now.tokens_per_second,
        SortBy::Waiting => |now| Some(now.waiting as f64),
        SortBy::Ratio => |now| now.ratio.map(|ratio| -ratio),
        SortBy::FirstToken => |now| now.first_token_p99,
    };
    let measured = |row: &Row| row.now.as_ref().and_then(read).unwrap_or(f64::NEG_INFINITY);
    rows.sort_by(|one, other| measured(other).total_cmp(&measured(one)));
}

pub(super) fn render(rows: &[Row], all_namespaces: bool, output: Output) -> String {
    #[derive(Serialize)]
    struct Items<'a> {
        items: &'a [Row],
    }
    match output {
        Output::Json => json(&Items { items: rows }),
        Output::Yaml => yaml(&Items { items: rows }),
        Output::Name => {
            let mut told = BTreeSet::new();
            let once = rows.iter().filter(|row| told.insert((&row.namespace, &row.name)));
            once.map(|row| resource_name(&row.name) + "\n").collect()
        }
        Output::Table | Output::Wide => table(rows, all_namespaces, output.is_wide()),
    }
}

fn table(rows: &[Row], all_namespaces: bool, is_wide: bool) -> String {
    let mut header = if all_namespaces { vec!["NAMESPACE"] } else { Vec::new() };
    header.extend(["NAME", "REPLICA", "READY", "TOKENS/S", "RUNNING", "WAITING", "RATIO", "TTFT P99", "ITL P99"]);
    if is_wide {
        header.extend(["PROMPT/S", "STEPS/S", "STEP P99", "RANKS", "BUSIEST", "EPOCH", "MOVED", "STALLED"]);
    }
    header.push("NOW");
    columns(&header, rows.iter().map(|row| cells(row, all_namespaces, is_wide)).collect())
}

fn cells(row: &Row, all_namespaces: bool, is_wide: bool) -> Vec<String> {
    let Row { namespace, name, replica, ready, reason, now } = row;
    let of = |read: &dyn Fn(&Now) -> Option<String>| now.as_ref().and_then(read).unwrap_or_else(|| "-".to_owned());
    let rate = |read: fn(&Now) -> Option<f64>| of(&|now| read(now).map(|rate| format!("{rate:.0}")));
    let time = |read: fn(&Now) -> Option<f64>| of(&|now| read(now).map(seconds));
    let mut cells = if all_namespaces { vec![namespace.clone()] } else { Vec::new() };
    cells.extend([
        name.clone(),
        replica.to_string(),
        if *ready { "True" } else { "False" }.to_owned(),
        rate(|now| now.tokens_per_second),
        of(&|now| Some(now.running.to_string())),
        of(&|now| Some(now.waiting.to_string())),
        of(&|now| now.ratio.map(|ratio| format!("{ratio:.3}"))),
        time(|now| now.first_token_p99),
        time(|now| now.inter_token_p99),
    ]);
    if is_wide {
        cells.extend([
            rate(|now| now.prompt_tokens_per_second),
            rate(|now| now.steps_per_second),
            time(|now| now.step_p99),
            of(&|now| Some(now.ranks.to_string())),
            of(&|now| Some(format!("rank {} x {:.2}", now.busiest_rank?, now.busiest_load?))),
            of(&|now| Some(now.epoch.to_string())),
            of(&|now| Some(bytes(now.moved_bytes as f64))),
            time(|now| Some(now.stall_seconds)),
        ]);
    }
    cells.push(reason.clone().unwrap_or_else(|| of(&|now| Some(now.phase.clone()))));
    cells
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document() -> MonitorDocument {
        MonitorDocument::from_json(include_bytes!("../../../plan/tests/documents/0.1.0/monitor.json")).unwrap()
    }

    /// A replica that generated so many tokens in two seconds, of which rank 1 computed the larger part.
    fn row(name: &str, replica: usize, tokens: u64) -> Row {
        let (mut view, mut before) = (View::default(), document());
        before.pairs = vec![vec![0; 2]; 2];
        let mut after = before.clone();
        after.seconds += 2.0;
        after.steps += 10;
        after.completion_tokens += tokens;
        after.pairs = vec![vec![tokens, 3 * tokens]; 2];
        view.take(before);
        view.take(after);
        Row::new("models".to_owned(), name.to_owned(), replica, Ok(&view))
    }

    fn unknown(name: &str) -> Row {
        Row::new(
            "models".to_owned(),
            name.to_owned(),
            0,
            Err(&"pod b-0-coordinator does not\u{1b}[31m answer".to_owned()),
        )
    }

    #[test]
    fn each_replica_has_a_row_and_one_that_does_not_answer_says_why() {
        let rows = [row("a", 0, 500), row("a", 1, 0), unknown("b")];
        insta::assert_snapshot!(
            [
                render(&rows, false, Output::Table),
                render(&rows, true, Output::Wide),
                render(&rows, false, Output::Name),
                render(&rows[..1], false, Output::Json),
            ]
            .join("\n")
        );
        assert_eq!(render(&[], false, Output::Table), "");
    }

    #[test]
    fn a_deployment_is_named_once_however_its_replicas_are_sorted() {
        let mut other = row("a", 0, 5);
        other.namespace = "more".to_owned();
        let rows = [row("a", 0, 900), other, row("b", 0, 500), row("a", 1, 10)];
        let names = ["a", "a", "b"].map(|name| format!("moedeployment.swiftbalancer.io/{name}\n"));
        assert_eq!(render(&rows, true, Output::Name), names.concat());
    }

    #[test]
    fn what_is_asked_for_comes_first_and_what_is_not_known_last() {
        let order = |by| {
            let mut rows = [unknown("b"), row("c", 1, 10), row("c", 0, 900), row("a", 0, 10)];
            sort(&mut rows, by);
            rows.map(|row| format!("{}{}", row.name, row.replica)).join(" ")
        };
        assert_eq!(order(SortBy::Name), "a0 b0 c0 c1");
        assert_eq!(order(SortBy::Tokens), "c0 a0 c1 b0");
        assert_eq!(order(SortBy::Ratio), "a0 c0 c1 b0", "alike, and one that is not known");
    }
}
