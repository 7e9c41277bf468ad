//! What a benchmark prints and draws. Pure.

use serde::Serialize;

use super::figures::{Course, Figures, Seen, Spread};
use super::workload::{Pace, Workload};
use crate::chart::{Chart, Panel, Series};
use crate::output::Output;
use crate::table::columns;
use crate::words::seconds;

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Report {
    workload: Sent,
    targets: Vec<Target>,
    /// The first target by the second; above 1 the first is better.
    #[serde(skip_serializing_if = "Option::is_none")]
    against: Option<Against>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Sent {
    seed: u64,
    seconds: u64,
    shift_seconds: u64,
    topics: u64,
    skew: f64,
    burst: f64,
    concurrency: Option<usize>,
    rate: Option<f64>,
    vocabulary: u32,
    prompt_tokens: usize,
    max_tokens: u32,
}

#[derive(Debug, Serialize)]
struct Target {
    #[serde(rename = "target")]
    name: String,
    model: String,
    #[serde(flatten)]
    figures: Figures,
}

/// How many times better the first is: its rate by that of the second, and the second's times by its own.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Against {
    tokens_per_second: Option<f64>,
    time_to_first_token_p50: Option<f64>,
    time_per_output_token_p50: Option<f64>,
    inter_token_latency_p99: Option<f64>,
    end_to_end_p50: Option<f64>,
}

type Read = fn(&Figures) -> Option<Spread>;

/// What is told of each spread, with how it is called.
const SPREADS: [(&str, Read); 4] = [
    ("time to first token", |figures| figures.time_to_first_token),
    ("time per output token", |figures| figures.time_per_output_token),
    ("inter-token latency", |figures| figures.inter_token_latency),
    ("end to end", |figures| figures.end_to_end),
];

impl Report {
    pub fn new<'a>(
        workload: &Workload,
        max_tokens: u32,
        targets: impl Iterator<Item = ((String, String), &'a Vec<Seen>)>,
    ) -> Self {
        let &Workload { seed, seconds, shift_seconds, topics, skew, burst, vocabulary, prompt_tokens, pace } = workload;
        let (concurrency, rate) = match pace {
            Pace::Concurrency(requests) => (Some(requests), None),
            Pace::Rate(rate) => (None, Some(rate)),
        };
        let sent = Sent {
            seed,
            seconds,
            shift_seconds,
            topics,
            skew,
            burst,
            concurrency,
            rate,
            vocabulary,
            prompt_tokens,
            max_tokens,
        };
        let target = |((name, model), seen): ((String, String), &Vec<Seen>)| {
            let figures = Figures::of(seen);
            Target { name, model, figures }
        };
        let targets: Vec<Target> = targets.map(target).collect();
        let against = match &targets[..] {
            [one, other] => Some(Against::of(&one.figures, &other.figures)),
            _ => None,
        };
        Self { workload: sent, targets, against }
    }

    pub fn print(&self, output: Output) -> String {
        let names = |report: &Self| {
            let names: Vec<&str> = report.targets.iter().map(|target| target.name.as_str()).collect();
            names.join("\n")
        };
        output.print(self, |report| report.table(output.is_wide()), names)
    }

    fn table(&self, is_wide: bool) -> String {
        let mut header = vec!["FIGURE"];
        header.extend(self.targets.iter().map(|target| target.name.as_str()));
        let mut rows = Vec::new();
        let mut row = |name: String, of: &dyn Fn(&Figures) -> String| {
            let cells = self.targets.iter().map(|target| of(&target.figures));
            rows.push(std::iter::once(name).chain(cells).collect());
        };
        row("requests answered".to_owned(), &|figures| figures.answered.to_string());
        row("requests failed".to_owned(), &|figures| figures.failed.to_string());
        row("tokens/s".to_owned(), &|figures| format!("{:.1}", figures.tokens_per_second));
        row("requests/s".to_owned(), &|figures| format!("{:.2}", figures.requests_per_second));
        for (name, read) in SPREADS {
            let mut quantile = |which: &str, of: fn(Spread) -> f64| {
                row(format!("{name} {which}"), &|figures| {
                    read(figures).map_or_else(|| "-".to_owned(), |spread| seconds(of(spread)))
                });
            };
            quantile("p50", |spread| spread.p50);
            if is_wide {
                quantile("p90", |spread| spread.p90);
            }
            quantile("p99", |spread| spread.p99);
            if is_wide {
                quantile("most", |spread| spread.most);
            }
        }
        let told =
            self.against.map(|against| format!("\n{}", against.words(&self.targets[0].name, &self.targets[1].name)));
        columns(&header, rows) + &told.unwrap_or_default()
    }
}

impl Against {
    fn of(one: &Figures, other: &Figures) -> Self {
        let ratio = |most: f64, least: f64| (most > 0.0 && least > 0.0).then(|| most / least);
        let times = |read: Read, of: fn(Spread) -> f64| ratio(of(read(other)?), of(read(one)?));
        Self {
            tokens_per_second: ratio(one.tokens_per_second, other.tokens_per_second),
            time_to_first_token_p50: times(|figures| figures.time_to_first_token, |spread| spread.p50),
            time_per_output_token_p50: times(|figures| figures.time_per_output_token, |spread| spread.p50),
            inter_token_latency_p99: times(|figures| figures.inter_token_latency, |spread| spread.p99),
            end_to_end_p50: times(|figures| figures.end_to_end, |spread| spread.p50),
        }
    }

    fn words(self, one: &str, other: &str) -> String {
        let told = |name: &str, ratio: Option<f64>| ratio.map(|ratio| format!("{name} x {ratio:.3}"));
        let parts = [
            told("tokens/s", self.tokens_per_second),
            told("time to first token p50", self.time_to_first_token_p50),
            told("time per output token p50", self.time_per_output_token_p50),
            told("inter-token latency p99", self.inter_token_latency_p99),
        ];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        format!("{one} by {other}, above 1 is better: {}\n", parts.join(", "))
    }
}

/// What was seen over time, a line for each target.
pub(super) fn chart(targets: &[&str], seen: &[Vec<Seen>]) -> Chart {
    let courses: Vec<Course> = seen.iter().map(|seen| Course::of(seen)).collect();
    let panel = |label: &str, read: fn(&Course) -> &Vec<(f64, f64)>| Panel {
        label: label.to_owned(),
        // The title names them: beside a line there is no room for a URL.
        series: ["target", "against"]
            .into_iter()
            .zip(&courses)
            .map(|(name, course)| Series { name: name.to_owned(), points: read(course).clone() })
            .collect(),
        most: None,
    };
    Chart {
        title: format!("traffic at {}", targets.join(" against ")),
        x_label: "seconds of traffic".to_owned(),
        panels: vec![
            panel("tokens/s", |course| &course.tokens_per_second),
            panel("first token p99 (ms)", |course| &course.first_token_p99),
            panel("inter-token p99 (ms)", |course| &course.inter_token_p99),
        ],
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::answer::Sample;
    use super::*;

    /// Requests of three tokens, each so many times as long after the one before as the first.
    fn seen(times: u64) -> Vec<Seen> {
        let ms = |at: u64| Duration::from_millis(at * times);
        let sample = |sent: u64| Sample {
            sent: ms(sent),
            pieces: vec![ms(sent + 50), ms(sent + 60), ms(sent + 70)],
            done: ms(sent + 71),
            tokens: 3,
        };
        let stretch = |failures: usize| Seen {
            samples: (0..40).map(|number| sample(number * 100)).collect(),
            failed: failures,
            first_failure: None,
            took: ms(4000),
        };
        vec![stretch(0), stretch(1)]
    }

    fn report(times: &[u64]) -> Report {
        let workload = Workload {
            seed: 1,
            seconds: 8,
            shift_seconds: 4,
            topics: 2,
            skew: 1.2,
            vocabulary: 100,
            prompt_tokens: 8,
            pace: Pace::Rate(2.5),
            burst: 1.0,
        };
        let seen: Vec<Vec<Seen>> = times.iter().map(|&times| seen(times)).collect();
        let names = ["eplb", "http://static:8000"].map(|name| (name.to_owned(), "tiny-moe".to_owned()));
        Report::new(&workload, 3, names.into_iter().zip(&seen))
    }

    #[test]
    fn a_report_has_the_figures_of_each_target_and_how_they_compare() {
        insta::assert_snapshot!(
            [
                report(&[1, 2]).print(Output::Table),
                report(&[1]).print(Output::Wide),
                report(&[1, 2]).print(Output::Name),
                report(&[1, 2]).print(Output::Json),
            ]
            .join("\n")
        );
    }

    #[test]
    fn who_takes_half_as_long_is_twice_as_good() {
        let against = report(&[1, 2]).against.unwrap();
        let ratios = [against.tokens_per_second, against.time_to_first_token_p50, against.inter_token_latency_p99];
        assert!(ratios.iter().all(|ratio| (ratio.unwrap() - 2.0).abs() < 1e-9), "{ratios:?}");
        assert!(report(&[1]).against.is_none());
    }

    #[test]
    fn a_chart_has_a_line_for_each_target_and_the_traffic_of_all_stretches() {
        let chart = chart(&["eplb", "off"], &[seen(1), seen(2)]);
        let ends: Vec<f64> = chart.panels[0].series.iter().map(|series| series.points.last().unwrap().0).collect();
        assert_eq!(ends, [8.0, 16.0]);
        assert_eq!(chart.panels.len(), 3);
        assert!(chart.panels.iter().all(|panel| panel.series.len() == 2));
    }
}
