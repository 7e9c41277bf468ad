//! What a rank tells Prometheus. Labels are bounded: parts of a step and reasons of failure.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use prometheus::{
    Counter, CounterVec, Encoder, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
    core::Collector,
};
use strum::IntoEnumIterator;

use crate::engine::{Departure, StepObserver};
use crate::fabric::exchange::means::Means;
use crate::protocol::{FromRank, MoveFailure, MoveReport, NotStaged, StepTiming};

/// A rank's counters. Clones are the same counters.
#[derive(Clone, Debug)]
pub(super) struct WorkerMetrics {
    registry: Registry,
    formed: IntGauge,
    is_loading: Arc<AtomicBool>,
    loaded: IntGauge,
    load: IntGauge,
    steps: IntCounter,
    commits: IntCounter,
    commit_seconds: Counter,
    exchange_seconds: Counter,
    expert_seconds: Counter,
    other_seconds: Counter,
    staged: IntCounter,
    staged_bytes: IntCounter,
    failures: IntCounterVec,
    departures: IntCounterVec,
    exchange: IntGaugeVec,
}

impl Default for WorkerMetrics {
    fn default() -> Self {
        let registry = Registry::new();
        crate::process_metrics::register(&registry).expect("each name is registered once");
        let counter = |name: &str, help: &str| register(&registry, IntCounter::new(name, help));
        let seconds = Opts::new("swiftbalancer_rank_step_seconds_total", "Time of steps by what it was spent on");
        let seconds = register(&registry, CounterVec::new(seconds, &["part"]));
        let failures = Opts::new("swiftbalancer_rank_move_failures_total", "Transactions not staged, by reason");
        let failures = register(&registry, IntCounterVec::new(failures, &["reason"]));
        for reason in MoveFailure::iter() {
            failures.with_label_values(&[<&str>::from(reason)]);
        }
        let departures =
            Opts::new("swiftbalancer_rank_groups_left_total", "Groups left, by what ended its part in them");
        let departures = register(&registry, IntCounterVec::new(departures, &["reason"]));
        for reason in Departure::iter() {
            departures.with_label_values(&[<&str>::from(reason)]);
        }
        let exchange =
            Opts::new("swiftbalancer_rank_exchange", "Whether rows are exchanged with other ranks by this means");
        let exchange = register(&registry, IntGaugeVec::new(exchange, &["means"]));
        for means in Means::ALL {
            exchange.with_label_values(&[<&str>::from(means)]);
        }
        let gauge = |name: &str, help: &str| register(&registry, IntGauge::new(name, help));
        Self {
            formed: gauge("swiftbalancer_rank_formed", "Whether the rank is part of a group"),
            is_loading: Arc::default(),
            loaded: gauge("swiftbalancer_rank_loaded_bytes", "Bytes of weights that it has read of them"),
            load: gauge("swiftbalancer_rank_load_bytes", "Bytes of weights that it had to read for its last group"),
            steps: counter("swiftbalancer_rank_steps_total", "Steps run"),
            commits: counter("swiftbalancer_rank_commits_total", "Transactions committed"),
            commit_seconds: seconds.with_label_values(&["commit"]),
            exchange_seconds: seconds.with_label_values(&["exchange"]),
            expert_seconds: seconds.with_label_values(&["experts"]),
            other_seconds: seconds.with_label_values(&["other"]),
            staged: counter("swiftbalancer_rank_staged_transactions_total", "Transactions staged"),
            staged_bytes: counter("swiftbalancer_rank_received_page_bytes_total", "Bytes of pages received"),
            failures,
            departures,
            exchange,
            registry,
        }
    }
}

fn register<C: Collector + Clone + 'static>(registry: &Registry, collector: prometheus::Result<C>) -> C {
    let collector = collector.expect("names and help are constants that suit");
    registry.register(Box::new(collector.clone())).expect("each name is registered once");
    collector
}

impl WorkerMetrics {
    pub fn formed(&self, formed: bool) {
        self.formed.set(formed.into());
    }

    /// How rows get to the other ranks of its group.
    pub fn exchanges_by(&self, now: Option<Means>) {
        for means in Means::ALL {
            self.exchange.with_label_values(&[<&str>::from(means)]).set((now == Some(means)).into());
        }
    }

    /// Its part in a group has ended.
    pub fn left(&self, departure: Departure) {
        self.departures.with_label_values(&[<&str>::from(departure)]).inc();
    }

    /// Loading begins, or goes on: `done` bytes of `bytes` are read.
    pub fn loading(&self, done: u64, bytes: u64) {
        self.loaded(done);
        self.load.set(bytes as i64);
        self.is_loading.store(true, Ordering::Release);
    }

    /// Loading has read this many bytes.
    pub fn loaded(&self, done: u64) {
        self.loaded.set(done as i64);
    }

    /// Nothing is loaded any more.
    pub fn not_loading(&self) {
        self.is_loading.store(false, Ordering::Release);
    }

    /// Bytes that are read, and that are to be read, while something is loaded.
    pub fn load_progress(&self) -> Option<(u64, u64)> {
        let is_loading = self.is_loading.load(Ordering::Acquire);
        is_loading.then(|| (self.loaded.get() as u64, self.load.get() as u64))
    }

    pub fn is_formed(&self) -> bool {
        self.formed.get() == 1
    }

    pub fn reported(&self, report: &FromRank) {
        match report {
            FromRank::Moved(MoveReport { staged: Ok(bytes), .. }) => {
                self.staged.inc();
                self.staged_bytes.inc_by(*bytes);
            }
            FromRank::Moved(MoveReport { staged: Err(NotStaged { reason, .. }), .. }) => {
                self.failures.with_label_values(&[<&str>::from(*reason)]).inc();
            }
            FromRank::Register { .. }
            | FromRank::Failed { .. }
            | FromRank::Loading { .. }
            | FromRank::Loaded { .. }
            | FromRank::Ready { .. }
            | FromRank::Leaves { .. }
            | FromRank::Alive => {}
        }
    }

    /// All of them as Prometheus reads them.
    pub fn text(&self) -> String {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text).expect("writing to memory does not fail");
        String::from_utf8_lossy(&text).into_owned()
    }
}

impl StepObserver for WorkerMetrics {
    fn step(&self, timing: &StepTiming, commits: usize) {
        let seconds = |micros: u32| f64::from(micros) / 1e6;
        let StepTiming { total, commit, exchange, experts } = *timing;
        self.steps.inc();
        self.commits.inc_by(commits as u64);
        self.commit_seconds.inc_by(seconds(commit));
        self.exchange_seconds.inc_by(seconds(exchange));
        self.expert_seconds.inc_by(seconds(experts));
        self.other_seconds.inc_by(seconds(total.saturating_sub(commit + exchange + experts)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_and_moves_show_by_part_and_reason() {
        let metrics = WorkerMetrics::default();
        metrics.step(&StepTiming { total: 1000, commit: 100, exchange: 200, experts: 300 }, 2);
        let transaction = crate::protocol::TransactionId(1);
        let report = |staged| FromRank::Moved(MoveReport { generation: 1, transaction, staged });
        metrics.reported(&report(Ok(77)));
        metrics.reported(&report(Err(NotStaged { reason: MoveFailure::Corrupt, message: String::new() })));
        metrics.left(Departure::Device);
        metrics.exchanges_by(Some(Means::Peer));
        metrics.exchanges_by(Some(Means::Tcp));
        let text = metrics.text();
        for line in [
            "swiftbalancer_rank_steps_total 1",
            "swiftbalancer_rank_commits_total 2",
            "swiftbalancer_rank_step_seconds_total{part=\"other\"} 0.0004",
            "swiftbalancer_rank_received_page_bytes_total 77",
            "swiftbalancer_rank_move_failures_total{reason=\"corrupt\"} 1",
            "swiftbalancer_rank_move_failures_total{reason=\"deadline\"} 0",
            "swiftbalancer_rank_groups_left_total{reason=\"device\"} 1",
            "swiftbalancer_rank_groups_left_total{reason=\"other_rank\"} 0",
            "swiftbalancer_rank_exchange{means=\"peer\"} 0",
            "swiftbalancer_rank_exchange{means=\"tcp\"} 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
        }
    }
}
