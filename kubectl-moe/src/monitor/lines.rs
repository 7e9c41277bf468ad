//! What is shown in words: of what happens, and where there is no screen of how it is too. Pure.

use std::fmt::Write as _;

use operator::words::shorten;
use plan::wire::{DecisionReport, Happening, MonitorDocument, MonitorEvent, MovedExpert, Quantiles};

use super::view::View;
use crate::words::{bytes, counted, seconds};

/// Seconds between two lines of how it is.
const PERIOD: f64 = 2.0;
/// Experts of a transaction that are named.
const NAMED: usize = 3;

/// What has not been told yet.
#[derive(Default)]
pub(super) struct Lines {
    told: u64,
    stood: Option<f64>,
}

impl Lines {
    pub fn of(&mut self, view: &View) -> String {
        let mut text = String::new();
        if view.known() < self.told {
            *self = Self::default();
        }
        for event in view.events().iter().filter(|event| event.number > self.told) {
            writeln!(text, "{}", of_event(event)).expect("writing to a string does not fail");
        }
        self.told = view.known();
        if let Some(document) = view.last()
            && self.stood.is_none_or(|stood| document.seconds >= stood + PERIOD || document.seconds < stood)
        {
            self.stood = Some(document.seconds);
            writeln!(text, "{}", standing(document, view)).expect("writing to a string does not fail");
        }
        text
    }
}

/// How it is.
fn standing(document: &MonitorDocument, view: &View) -> String {
    let mut parts = vec![state(document)];
    if let Some(load) = view.load() {
        let (rank, times) = load.busiest();
        parts.push(format!("ratio {:.3}, rank {rank} has {times:.2} x the mean", load.ratio));
    }
    let latency = |name: &str, spread: Option<Quantiles>| {
        spread.map(|spread| format!("{name} {} p99 {}", seconds(spread.p50), seconds(spread.p99)))
    };
    parts.extend(latency("TTFT", document.latency.first_token));
    parts.extend(latency("ITL", document.latency.inter_token));
    if let Some(rates) = view.rates() {
        parts.push(format!("{:.0} tokens/s", rates.completion_tokens));
    }
    parts.push(format!("{} running, {} waiting", document.running, document.waiting));
    format!("{} {}", clock(document.seconds), parts.join("; "))
}

/// Whether it serves, and what the rebalancer does.
pub(super) fn state(document: &MonitorDocument) -> String {
    document.reason.as_ref().map_or_else(
        || format!("serving, epoch {}, {}", document.epoch, document.phase.to_string().to_lowercase()),
        |reason| format!("not serving: {}", shorten(reason)),
    )
}

pub(super) fn of_event(event: &MonitorEvent) -> String {
    format!("{} {}", clock(event.seconds), happened(&event.what))
}

/// What happened, in words.
pub(super) fn happened(what: &Happening) -> String {
    let count = |number: u64, what: &str| counted(usize::try_from(number).unwrap_or(usize::MAX), what);
    match what {
        Happening::Formed { generation } => format!("group {generation} serves"),
        Happening::Lost { reason } => format!("the group was lost: {}", shorten(reason)),
        Happening::Window { number, steps, ratio } => {
            format!("window {number} of {}: ratio {ratio:.3}", count(*steps, "step"))
        }
        Happening::Decided { reason, ratio_before, ratio_after, pages, bytes: moved } => format!(
            "decided {reason}: ratio {ratio_before:.3} to {ratio_after:.3} by {}, {}",
            count(*pages, "page"),
            bytes(*moved as f64)
        ),
        Happening::Planned { transactions, pages } => {
            format!("moves {} in {}", count(*pages, "page"), count(*transactions, "transaction"))
        }
        Happening::Kept { reason } => format!("stays: {}", shorten(reason)),
        Happening::Committed { layer, epoch, bytes: moved, moved: experts } => {
            let told = if experts.is_empty() { "slots and shares".to_owned() } else { named(experts) };
            format!("layer {layer}: {told}, {} (epoch {epoch})", bytes(*moved as f64))
        }
        Happening::Aborted { reason } => format!("taken back: {}", shorten(reason)),
        Happening::Completed { pages, bytes: moved, steps, .. } => {
            format!("rebalanced: {}, {} in {}", count(*pages, "page"), bytes(*moved as f64), count(*steps, "step"))
        }
        Happening::Dropped { reason } => format!("given up: {}", shorten(reason)),
        Happening::Other => "something that only a later kubectl-moe knows".to_owned(),
    }
}

fn named(experts: &[MovedExpert]) -> String {
    let told = |moved: &MovedExpert| format!("expert {} from rank {} to {}", moved.expert, moved.from, moved.to);
    let mut named: Vec<String> = experts.iter().take(NAMED).map(told).collect();
    if experts.len() > NAMED {
        named.push(format!("{} more", experts.len() - NAMED));
    }
    named.join(", ")
}

/// What was decided and why, in some sentences.
pub(super) fn decision(report: &DecisionReport) -> Vec<String> {
    let DecisionReport { reason, figures, terms, history } = report;
    let pages = counted(usize::try_from(figures.pages).unwrap_or(usize::MAX), "page");
    let since = match history.windows_since_move {
        None => "nothing has moved before".to_owned(),
        Some(windows) => {
            format!("{} since the last move", counted(usize::try_from(windows).unwrap_or(usize::MAX), "window"))
        }
    };
    vec![
        format!("{reason}: ratio {} to {}", fixed(figures.ratio_before, 4), fixed(figures.ratio_after, 4)),
        format!(
            "gain {} over its life, of at least {}; saves {} % of experts' time",
            fixed(figures.lasting_gain, 4),
            fixed(terms.minimum_gain * terms.hysteresis, 4),
            fixed(figures.time_saved * 100.0, 2)
        ),
        format!(
            "{pages}, {}; saves {} and costs {} of {}",
            bytes(figures.bytes as f64),
            seconds(figures.seconds_saved),
            seconds(figures.seconds_spent),
            seconds(terms.lifetime_seconds)
        ),
        since,
    ]
}

/// A number with so many digits after the point. What is rounded to nothing has no sign.
fn fixed(number: f64, digits: usize) -> String {
    let text = format!("{number:.digits$}");
    let is_nothing = !text.contains(|letter: char| ('1'..='9').contains(&letter));
    text.strip_prefix('-').filter(|_| is_nothing).map_or_else(|| text.clone(), str::to_owned)
}

/// Time since the coordinator started, as hours, minutes and seconds.
pub(super) fn clock(seconds: f64) -> String {
    let whole = seconds as u64;
    format!("{}:{:02}:{:04.1}", whole / 3600, whole / 60 % 60, seconds % 60.0)
}
