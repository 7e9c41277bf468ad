//! What the driver measures.

mod moving;
mod scraped;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use plan::wire::Phase;
use prometheus::core::Collector;
use prometheus::{Counter, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};
use strum::IntoEnumIterator as _;

use self::moving::MovingMetrics;
use self::scraped::{Scraped, ScrapedGauges};
use super::handle::SequenceError;
use crate::experts::rebalance::Notice;
use crate::protocol::StepDone;

/// Why a sequence ended without an answer while the ranks serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::IntoStaticStr, strum::EnumIter)]
#[strum(serialize_all = "snake_case")]
enum FailureReason {
    OutgrowsCache,
    NoNumbers,
    LostGroups,
    Failing,
}

/// Counts that others read without asking the driver.
#[derive(Clone)]
pub struct Counters {
    /// Its samples are steps.
    pub steps: Histogram,
    /// Tokens of prompts taken.
    pub prompt_tokens: IntCounter,
    /// Tokens generated.
    pub completion_tokens: IntCounter,
    /// Sequences in the queue.
    pub waiting: IntGauge,
    /// Sequences that hold KV blocks.
    pub running: IntGauge,
    /// Seconds that commits added to steps.
    pub stall: Counter,
}

/// The driver's metrics.
pub struct DriverMetrics {
    first_token: Histogram,
    inter_token: Histogram,
    step: Histogram,
    prompt_tokens: IntCounter,
    completion_tokens: IntCounter,
    put_back: IntCounter,
    failed: IntCounterVec,
    waiting: IntGauge,
    running: IntGauge,
    /// `[ranks]`
    blocks_used: Vec<IntGauge>,
    /// `[ranks]`
    blocks: Vec<IntGauge>,
    groups_lost: IntCounter,
    moving: MovingMetrics,
    scraped: Arc<Mutex<Scraped>>,
}

impl DriverMetrics {
    /// Registers the metrics of a group of so many ranks.
    ///
    /// # Errors
    /// If they are registered already.
    pub fn new(registry: &Registry, ranks: usize) -> prometheus::Result<Self> {
        let scraped = Arc::new(Mutex::new(Scraped::default()));
        registry.register(Box::new(ScrapedGauges::new(Arc::clone(&scraped))?))?;
        let used = Opts::new("swiftbalancer_kv_blocks_used", "KV blocks held by sequences, by rank.");
        let blocks = Opts::new("swiftbalancer_kv_blocks", "KV blocks of the cache, by rank.");
        Ok(Self {
            first_token: histogram(
                registry,
                "swiftbalancer_time_to_first_token_seconds",
                "From submission to the first token.",
                &exponential(0.001, 2.0, 21),
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
                "From sending a step, or having the answers to the one before, to having every rank's answer.",
                &exponential(0.000_125, 2.0, 16),
            )?,
            prompt_tokens: counter(registry, "swiftbalancer_prompt_tokens_total", "Tokens of prompts taken.")?,
            completion_tokens: counter(registry, "swiftbalancer_completion_tokens_total", "Tokens generated.")?,
            put_back: counter(
                registry,
                "swiftbalancer_sequences_put_back_total",
                "Sequences that run again from their first token because a group was lost.",
            )?,
            failed: {
                let failed = Opts::new(
                    "swiftbalancer_sequences_failed_total",
                    "Sequences that ended without an answer, by reason.",
                );
                let failed = register(registry, IntCounterVec::new(failed, &["reason"])?)?;
                // A counter that starts to exist with its first event has no rate for it.
                for reason in FailureReason::iter() {
                    failed.with_label_values(&[<&str>::from(reason)]);
                }
                failed
            },
            waiting: gauge(registry, "swiftbalancer_sequences_waiting", "Sequences in the queue.")?,
            running: gauge(registry, "swiftbalancer_sequences_running", "Sequences that hold KV blocks.")?,
            blocks_used: of_ranks(&register(registry, IntGaugeVec::new(used, &["rank"])?)?, ranks),
            blocks: of_ranks(&register(registry, IntGaugeVec::new(blocks, &["rank"])?)?, ranks),
            groups_lost: counter(registry, "swiftbalancer_groups_lost_total", "Groups that ended with a lost rank.")?,
            moving: MovingMetrics::new(registry, ranks)?,
            scraped,
        })
    }

    /// The counts that others read.
    #[must_use]
    pub fn counters(&self) -> Counters {
        Counters {
            steps: self.step.clone(),
            prompt_tokens: self.prompt_tokens.clone(),
            completion_tokens: self.completion_tokens.clone(),
            waiting: self.waiting.clone(),
            running: self.running.clone(),
            stall: self.moving.stall.clone(),
        }
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
        self.moving.planning(now);
    }

    /// A plan came, or why there is none.
    pub fn planned(&mut self, now: Instant) {
        self.moving.planned(now);
    }

    /// What the rebalancer does, and the staging pages that it needs, `[ranks]`.
    pub fn doing(&mut self, now: Instant, phase: Phase, staging_pages: &[u32]) {
        self.moving.doing(now, phase, staging_pages);
    }

    /// The rebalancer has a notice.
    pub fn noticed(&self, notice: &Notice, now: Instant) {
        match notice {
            Notice::WindowClosed(closed) => self.lock().ratio = Some(closed.report.ratio),
            Notice::Committed { .. } => self.lock().map_changed = Some(now),
            _ => {}
        }
        self.moving.noticed(notice);
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

    /// A sequence ended without an answer.
    pub fn failed(&self, error: &SequenceError) {
        let reason = match error {
            SequenceError::OutgrowsCache { .. } => FailureReason::OutgrowsCache,
            SequenceError::NoNumbers => FailureReason::NoNumbers,
            SequenceError::LostGroups => FailureReason::LostGroups,
            SequenceError::Failing { .. } => FailureReason::Failing,
            // Nobody reads them then.
            SequenceError::ShuttingDown => return,
        };
        self.failed.with_label_values(&[<&str>::from(reason)]).inc();
    }

    /// The ranks form a group, whose KV caches have so many blocks, `[ranks]`.
    pub fn formed(&self, blocks: impl Iterator<Item = usize>) {
        for (gauge, blocks) in self.blocks.iter().zip(blocks) {
            gauge.set(blocks as i64);
        }
    }

    /// How full everything is.
    pub fn fill(&self, waiting: usize, running: usize, blocks_used: impl Iterator<Item = usize>) {
        let mut gauges = [(&self.waiting, waiting as i64), (&self.running, running as i64)];
        // What rises is told first: a sequence that goes from one to the other is in both for a moment, never in neither.
        gauges.sort_by_key(|(gauge, now)| gauge.get() - now);
        for (gauge, now) in gauges {
            gauge.set(now);
        }
        for (gauge, used) in self.blocks_used.iter().zip(blocks_used) {
            gauge.set(used as i64);
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

/// A gauge of each rank, `[ranks]`, found once.
fn of_ranks(gauges: &IntGaugeVec, ranks: usize) -> Vec<IntGauge> {
    (0..ranks).map(|rank| gauges.with_label_values(&[rank.to_string()])).collect()
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

#[cfg(test)]
mod tests {
    use plan::load::ExpertLoad;
    use plan::wire::WindowReport;

    use super::*;
    use crate::experts::rebalance::ClosedWindow;

    fn closed() -> ClosedWindow {
        let report = WindowReport { number: 1, steps: 400, pairs: 1000, ratio: 0.75, ratio_per_layer: vec![0.75] };
        let (load, length) = (ExpertLoad::zero(1, 4), Duration::from_secs(1));
        ClosedWindow { report, load, pairs_of_ranks: vec![600, 400], length }
    }

    #[test]
    fn what_is_told_of_each_rank_is_there_before_the_first_step() {
        let registry = Registry::new();
        let _metrics = DriverMetrics::new(&registry, 3).unwrap();
        let families = registry.gather();
        let of_ranks = [
            "swiftbalancer_kv_blocks",
            "swiftbalancer_kv_blocks_used",
            "swiftbalancer_staging_pages_used",
            "swiftbalancer_window_pairs",
        ];
        for name in of_ranks {
            let family = families.iter().find(|family| family.name() == name).unwrap_or_else(|| panic!("no {name}"));
            let ranks: Vec<_> = family.get_metric().iter().map(|metric| metric.get_label()[0].value()).collect();
            assert_eq!(ranks, ["0", "1", "2"], "{name}");
        }
    }

    #[test]
    fn what_each_rank_computed_in_a_window_shows_when_it_has_closed() {
        let registry = Registry::new();
        let metrics = DriverMetrics::new(&registry, 2).unwrap();
        metrics.noticed(&Notice::WindowClosed(Arc::new(closed())), Instant::now());
        metrics.formed([10, 12].into_iter());
        metrics.fill(0, 1, [3, 0].into_iter());
        let families = registry.gather();
        let values = |name: &str| {
            let family = families.iter().find(|family| family.name() == name).unwrap();
            family.get_metric().iter().map(|metric| metric.get_gauge().get_value()).collect::<Vec<_>>()
        };
        assert_eq!(values("swiftbalancer_window_pairs"), [600.0, 400.0]);
        assert_eq!(values("swiftbalancer_kv_blocks_used"), [3.0, 0.0]);
        assert_eq!(values("swiftbalancer_kv_blocks"), [10.0, 12.0]);
    }

    #[test]
    fn there_is_no_ratio_before_a_window_has_closed() {
        let registry = Registry::new();
        let metrics = DriverMetrics::new(&registry, 2).unwrap();
        let ratio = || {
            let families = registry.gather();
            let family = families.iter().find(|family| family.name() == "expert_load_balance_ratio")?;
            Some(family.get_metric()[0].get_gauge().get_value())
        };
        assert_eq!(ratio(), None);
        metrics.noticed(&Notice::WindowClosed(Arc::new(closed())), Instant::now());
        assert_eq!(ratio(), Some(0.75));
    }
}
