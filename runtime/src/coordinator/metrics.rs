//! What the driver measures. Latencies are also kept over a sliding window, for the two figures that users of EPLB
//! watch: `ttft_p99` and `tpot_avg`.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{
    Counter, Gauge, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};
use strum::IntoEnumIterator as _;

use crate::experts::rebalance::{AbortReason, Report};
use crate::protocol::{MoveFailure, StepDone};

/// Time over which `ttft_p99` and `tpot_avg` are taken.
const WINDOW: Duration = Duration::from_mins(1);

/// First tokens kept of the window; with more of them than this the window is shorter.
const FIRST_TOKENS_AT_MOST: usize = 8192;

/// The driver's metrics.
pub struct DriverMetrics {
    first_token: Histogram,
    inter_token: Histogram,
    step: Histogram,
    prompt_tokens: IntCounter,
    completion_tokens: IntCounter,
    put_back: IntCounter,
    waiting: IntGauge,
    running: IntGauge,
    blocks_used: IntGaugeVec,
    groups_lost: IntCounter,
    moving: MovingMetrics,
    scraped: Arc<Mutex<Scraped>>,
}

impl DriverMetrics {
    /// Registers the metrics.
    ///
    /// # Errors
    /// If they are registered already.
    pub fn new(registry: &Registry) -> prometheus::Result<Self> {
        let scraped = Arc::new(Mutex::new(Scraped::default()));
        registry.register(Box::new(ScrapedGauges::new(Arc::clone(&scraped))?))?;
        let blocks = Opts::new("swiftbalancer_kv_blocks_used", "KV blocks held by sequences, by rank.");
        Ok(Self {
            first_token: histogram(
                registry,
                "swiftbalancer_time_to_first_token_seconds",
                "From submission to the first token.",
                &exponential(0.001, 2.0, 16),
            )?,
            inter_token: histogram(
                registry,
                "swiftbalancer_inter_token_latency_seconds",
                "From one token of a sequence to its next.",
                &exponential(0.000_25, 2.0, 16),
            )?,
            step: histogram(
                registry,
                "swiftbalancer_step_seconds",
                "From sending a step to having every rank's answer.",
                &exponential(0.000_125, 2.0, 16),
            )?,
            prompt_tokens: counter(registry, "swiftbalancer_prompt_tokens_total", "Tokens of prompts taken.")?,
            completion_tokens: counter(registry, "swiftbalancer_completion_tokens_total", "Tokens generated.")?,
            put_back: counter(
                registry,
                "swiftbalancer_sequences_put_back_total",
                "Sequences that run again from their first token because a group was lost.",
            )?,
            waiting: gauge(registry, "swiftbalancer_sequences_waiting", "Sequences in the queue.")?,
            running: gauge(registry, "swiftbalancer_sequences_running", "Sequences that hold KV blocks.")?,
            blocks_used: register(registry, IntGaugeVec::new(blocks, &["rank"])?)?,
            groups_lost: counter(registry, "swiftbalancer_groups_lost_total", "Groups that ended with a lost rank.")?,
            moving: MovingMetrics::new(registry)?,
            scraped,
        })
    }

    /// A request was taken.
    pub fn taken(&self, prompt_tokens: usize) {
        self.prompt_tokens.inc_by(prompt_tokens as u64);
    }

    /// A step is done.
    pub fn stepped(&self, took: Duration, answers: &[StepDone]) {
        self.step.observe(took.as_secs_f64());
        let stall = answers.iter().map(|answer| answer.timing.commit).max().unwrap_or(0);
        self.moving.stalled(Duration::from_micros(stall.into()));
    }

    /// A plan was asked for.
    pub fn planning(&mut self, now: Instant) {
        self.moving.planning = Some(now);
    }

    /// A plan came, or why there is none.
    pub fn planned(&mut self, now: Instant) {
        if let Some(since) = self.moving.planning.take() {
            self.moving.planner.observe((now - since).as_secs_f64());
        }
    }

    /// The rebalancer reported something.
    pub fn reported(&self, report: &Report, now: Instant) {
        if matches!(report, Report::Committed { .. }) {
            self.lock().map_changed = Some(now);
        }
        self.moving.reported(report);
    }

    /// A sequence gave its first token, `after` its submission.
    pub fn first_token(&self, now: Instant, after: Duration) {
        self.completion_tokens.inc();
        self.first_token.observe(after.as_secs_f64());
        self.lock().latencies.first_token(now, after);
    }

    /// A sequence gave another token, `after` the one before.
    pub fn next_token(&self, now: Instant, after: Duration) {
        self.completion_tokens.inc();
        self.inter_token.observe(after.as_secs_f64());
        self.lock().latencies.next_token(now, after);
    }

    /// A group was lost while `running` sequences ran.
    pub fn lost(&self, running: usize) {
        self.groups_lost.inc();
        self.put_back.inc_by(running as u64);
    }

    /// How full everything is.
    pub fn fill(&self, waiting: usize, running: usize, blocks_used: impl Iterator<Item = usize>) {
        self.waiting.set(waiting as i64);
        self.running.set(running as i64);
        for (rank, used) in blocks_used.enumerate() {
            self.blocks_used.with_label_values(&[rank.to_string()]).set(used as i64);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Scraped> {
        self.scraped.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn exponential(first: f64, factor: f64, count: usize) -> Vec<f64> {
    (0..count as i32).map(|power| first * factor.powi(power)).collect()
}

fn register<T: Collector + Clone + 'static>(registry: &Registry, metric: T) -> prometheus::Result<T> {
    registry.register(Box::new(metric.clone()))?;
    Ok(metric)
}

fn histogram(registry: &Registry, name: &str, help: &str, buckets: &[f64]) -> prometheus::Result<Histogram> {
    register(registry, Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets.to_vec()))?)
}

fn counter(registry: &Registry, name: &str, help: &str) -> prometheus::Result<IntCounter> {
    register(registry, IntCounter::new(name, help)?)
}

fn gauge(registry: &Registry, name: &str, help: &str) -> prometheus::Result<IntGauge> {
    register(registry, IntGauge::new(name, help)?)
}

/// Latencies of the last [`WINDOW`].
#[derive(Default)]
struct Latencies {
    first_tokens: VecDeque<(Instant, Duration)>,
    /// Sum and number of the times between tokens, for each second that had some.
    between: VecDeque<(Instant, Duration, u32)>,
}

impl Latencies {
    fn first_token(&mut self, now: Instant, after: Duration) {
        if self.first_tokens.len() == FIRST_TOKENS_AT_MOST {
            self.first_tokens.pop_front();
        }
        self.first_tokens.push_back((now, after));
    }

    fn next_token(&mut self, now: Instant, after: Duration) {
        match self.between.back_mut() {
            Some((second, sum, count)) if now.duration_since(*second) < Duration::from_secs(1) => {
                *sum += after;
                *count += 1;
            }
            _ => {
                self.between.push_back((now, after, 1));
                self.between.retain(|&(second, ..)| now.duration_since(second) < WINDOW);
            }
        }
    }

    /// `(ttft_p99, tpot_avg)` at a time, seconds; `None` where nothing was measured.
    fn at(&self, now: Instant) -> (Option<f64>, Option<f64>) {
        let recent = |&then: &Instant| now.saturating_duration_since(then) < WINDOW;
        let mut first: Vec<Duration> =
            self.first_tokens.iter().filter(|(then, _)| recent(then)).map(|&(_, after)| after).collect();
        // The smallest value that at least 99 % of the values do not exceed.
        let index = (first.len() * 99).div_ceil(100).saturating_sub(1);
        let p99 = (!first.is_empty()).then(|| first.select_nth_unstable(index).1.as_secs_f64());
        let between = self.between.iter().filter(|(then, ..)| recent(then));
        let (sum, count) = between.fold((Duration::ZERO, 0), |(sum, count), next| (sum + next.1, count + next.2));
        (p99, (count > 0).then(|| sum.as_secs_f64() / f64::from(count)))
    }
}

/// What is computed when it is read.
#[derive(Default)]
struct Scraped {
    latencies: Latencies,
    /// When the map in force came into force; `None` while it is the first.
    map_changed: Option<Instant>,
}

/// `ttft_p99`, `tpot_avg` and the age of the map.
struct ScrapedGauges {
    started: Instant,
    scraped: Arc<Mutex<Scraped>>,
    first_token: Gauge,
    per_token: Gauge,
    map_age: Gauge,
}

impl ScrapedGauges {
    fn new(scraped: Arc<Mutex<Scraped>>) -> prometheus::Result<Self> {
        let first_token =
            Gauge::new("ttft_p99", "99th percentile of the time to the first token over the last minute, seconds.")?;
        let per_token = Gauge::new("tpot_avg", "Mean time per token after the first over the last minute, seconds.")?;
        let map_age = Gauge::new("swiftbalancer_map_age_seconds", "Time since the map in force came into force.")?;
        Ok(Self { started: Instant::now(), scraped, first_token, per_token, map_age })
    }
}

impl Collector for ScrapedGauges {
    fn desc(&self) -> Vec<&Desc> {
        [self.first_token.desc(), self.per_token.desc(), self.map_age.desc()].concat()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let now = Instant::now();
        let (first_token, per_token, changed) = {
            let scraped = self.scraped.lock().unwrap_or_else(PoisonError::into_inner);
            let (first_token, per_token) = scraped.latencies.at(now);
            (first_token, per_token, scraped.map_changed)
        };
        let age = now.saturating_duration_since(changed.unwrap_or(self.started)).as_secs_f64();
        let values = [(&self.first_token, first_token), (&self.per_token, per_token), (&self.map_age, Some(age))];
        // A value that does not exist is not shown as some number.
        let existing = values.into_iter().filter_map(|(gauge, value)| Some((gauge, value?)));
        existing
            .flat_map(|(gauge, value)| {
                gauge.set(value);
                gauge.collect()
            })
            .collect()
    }
}

/// What is measured of moving experts.
struct MovingMetrics {
    ratio: Gauge,
    rebalances: IntCounterVec,
    aborts: IntCounterVec,
    committed: IntCounter,
    experts_moved: IntCounter,
    bytes_moved: IntCounter,
    epoch: IntGauge,
    stall: Counter,
    planner: Histogram,
    planning: Option<Instant>,
}

impl MovingMetrics {
    fn new(registry: &Registry) -> prometheus::Result<Self> {
        let ratio = Gauge::new(
            "expert_load_balance_ratio",
            "Sum over layers of mean rank load by sum of maximum rank load, of the last window; 1 is perfect.",
        )?;
        ratio.set(1.0);
        let rebalances = Opts::new("swiftbalancer_rebalances_total", "Plans that ended, by outcome.");
        let aborts = Opts::new("swiftbalancer_move_aborts_total", "Transactions taken back, by reason.");
        let stall = Counter::new(
            "swiftbalancer_commit_stall_seconds_total",
            "Time that commits added to steps, on the slowest rank.",
        )?;
        let metrics = Self {
            ratio: register(registry, ratio)?,
            rebalances: register(registry, IntCounterVec::new(rebalances, &["outcome"])?)?,
            aborts: register(registry, IntCounterVec::new(aborts, &["reason"])?)?,
            committed: counter(registry, "swiftbalancer_transactions_committed_total", "Transactions committed.")?,
            experts_moved: counter(registry, "swiftbalancer_experts_moved_total", "Pages received by ranks.")?,
            bytes_moved: counter(registry, "swiftbalancer_bytes_moved_total", "Bytes of those pages.")?,
            epoch: gauge(registry, "swiftbalancer_map_epoch", "Epoch of the map in force.")?,
            stall: register(registry, stall)?,
            planner: histogram(
                registry,
                "swiftbalancer_planner_seconds",
                "From asking for a plan to having it.",
                &exponential(0.001, 4.0, 9),
            )?,
            planning: None,
        };
        // A counter that starts to exist with its first event has no rate for it.
        for outcome in RebalanceOutcome::iter() {
            metrics.rebalances.with_label_values(&[<&str>::from(outcome)]);
        }
        let failures = MoveFailure::iter().map(AbortReason::Move);
        for reason in failures.chain([AbortReason::GroupLost, AbortReason::PlanDropped]) {
            metrics.aborts.with_label_values(&[reason.as_str()]);
        }
        Ok(metrics)
    }

    fn stalled(&self, time: Duration) {
        self.stall.inc_by(time.as_secs_f64());
    }

    fn reported(&self, report: &Report) {
        match report {
            Report::WindowClosed(window) => self.ratio.set(window.ratio),
            Report::Kept { .. } => self.ended(RebalanceOutcome::Kept),
            Report::Committed { epoch, pages, bytes, .. } => {
                self.committed.inc();
                self.experts_moved.inc_by(*pages);
                self.bytes_moved.inc_by(*bytes);
                self.epoch.set(*epoch as i64);
            }
            Report::Aborted { reason, .. } => self.aborts.with_label_values(&[reason.as_str()]).inc(),
            Report::Completed { .. } => self.ended(RebalanceOutcome::Completed),
            Report::Dropped { .. } => self.ended(RebalanceOutcome::Dropped),
            Report::Planned { .. } | Report::Refused { .. } => {}
        }
    }

    fn ended(&self, outcome: RebalanceOutcome) {
        self.rebalances.with_label_values(&[<&str>::from(outcome)]).inc();
    }
}

/// How a plan ended.
#[derive(Clone, Copy, Debug, strum::IntoStaticStr, strum::EnumIter)]
#[strum(serialize_all = "snake_case")]
enum RebalanceOutcome {
    /// Every transaction is in force.
    Completed,
    /// Moving was not worth it.
    Kept,
    /// It was given up.
    Dropped,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_window_forgets_what_is_older_than_a_minute() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut latencies = Latencies::default();
        assert_eq!(latencies.at(start), (None, None));
        for milliseconds in 1..=100 {
            latencies.first_token(at(0), Duration::from_millis(milliseconds));
        }
        latencies.next_token(at(0), Duration::from_millis(10));
        latencies.next_token(at(30), Duration::from_millis(30));
        assert_eq!(latencies.at(at(59)), (Some(0.099), Some(0.02)));
        assert_eq!(latencies.at(at(61)), (None, Some(0.03)));
    }
}
