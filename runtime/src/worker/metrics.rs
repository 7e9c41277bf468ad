//! What the ranks of a process tell Prometheus. Labels are bounded: the rank, parts of a step and reasons of failure.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use plan::ids::RankId;
#[cfg(feature = "cuda")]
use prometheus::Gauge;
use prometheus::{
    Counter, CounterVec, Encoder, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
    core::Collector,
};
use strum::IntoEnumIterator;

#[cfg(feature = "cuda")]
use super::gpu::Sample;
use crate::engine::{Departure, StepObserver};
use crate::experts::mover::PageRoute;
use crate::fabric::exchange::means::Means;
use crate::protocol::{FromRank, MoveFailure, MoveReport, NotStaged, StepTiming};

/// The metrics of a process, and of each of its ranks. Clones are the same.
#[derive(Clone, Debug)]
pub(super) struct ProcessMetrics {
    registry: Registry,
    ranks: Vec<WorkerMetrics>,
}

impl ProcessMetrics {
    /// Those of a process of these ranks.
    pub fn new(ranks: impl IntoIterator<Item = RankId>) -> Self {
        let registry = Registry::new();
        crate::process_metrics::register(&registry).expect("each name is registered once");
        let ranks = ranks.into_iter().map(|rank| WorkerMetrics::new(&registry, rank)).collect();
        Self { registry, ranks }
    }

    /// Those of the GPU of the rank at a place of its process.
    #[cfg(feature = "cuda")]
    pub fn of_gpu(&self, place: usize) -> GpuMetrics {
        GpuMetrics::new(self.registry.clone(), self.ranks[place].rank)
    }

    /// Those of the rank at a place of its process.
    pub fn of(&self, place: usize) -> WorkerMetrics {
        self.ranks[place].clone()
    }

    /// Bytes that are read, and that are to be read, while any rank loads.
    pub fn load_progress(&self) -> Option<(u64, u64)> {
        let loading = self.ranks.iter().filter_map(WorkerMetrics::load_progress);
        loading.reduce(|(read, of), (more_read, more)| (read + more_read, of + more))
    }

    /// Whether every rank is part of a group.
    pub fn is_formed(&self) -> bool {
        self.ranks.iter().all(|rank| rank.formed.get() == 1)
    }

    /// All of them as Prometheus reads them.
    pub fn text(&self) -> String {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text).expect("writing to memory does not fail");
        String::from_utf8_lossy(&text).into_owned()
    }
}

/// A rank's counters. Clones are the same counters.
#[derive(Clone, Debug)]
pub(super) struct WorkerMetrics {
    #[cfg(feature = "cuda")]
    rank: RankId,
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
    pages: IntCounterVec,
    failures: IntCounterVec,
    departures: IntCounterVec,
    exchange: IntGaugeVec,
}

impl WorkerMetrics {
    /// Registers those of a rank.
    fn new(registry: &Registry, rank: RankId) -> Self {
        let opts = |name: &str, help: &str| Opts::new(name, help).const_label("rank", rank.0.to_string());
        let counter = |name: &str, help: &str| register(registry, IntCounter::with_opts(opts(name, help)));
        let seconds = opts("swiftbalancer_rank_step_seconds_total", "Time of steps by what it was spent on");
        let seconds = register(registry, CounterVec::new(seconds, &["part"]));
        let failures = opts("swiftbalancer_rank_move_failures_total", "Transactions not staged, by reason");
        let failures = register(registry, IntCounterVec::new(failures, &["reason"]));
        for reason in MoveFailure::iter() {
            failures.with_label_values(&[<&str>::from(reason)]);
        }
        let departures = opts("swiftbalancer_rank_groups_left_total", "Groups left, by what ended its part in them");
        let departures = register(registry, IntCounterVec::new(departures, &["reason"]));
        for reason in Departure::iter() {
            departures.with_label_values(&[<&str>::from(reason)]);
        }
        let exchange = opts("swiftbalancer_rank_exchange", "Whether rows are exchanged with other ranks by this means");
        let exchange = register(registry, IntGaugeVec::new(exchange, &["means"]));
        for means in Means::ALL {
            exchange.with_label_values(&[<&str>::from(means)]);
        }
        let pages = opts("swiftbalancer_rank_received_pages_total", "Pages received, by where they came from");
        let pages = register(registry, IntCounterVec::new(pages, &["route"]));
        for route in PageRoute::iter() {
            pages.with_label_values(&[<&str>::from(route)]);
        }
        let gauge = |name: &str, help: &str| register(registry, IntGauge::with_opts(opts(name, help)));
        Self {
            #[cfg(feature = "cuda")]
            rank,
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
            pages,
            failures,
            departures,
            exchange,
        }
    }

    /// A page has arrived, and is what it must be.
    pub fn received(&self, route: PageRoute) {
        self.pages.with_label_values(&[<&str>::from(route)]).inc();
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
}

/// What a GPU does, as far as it says so: what was not measured is not there.
#[cfg(feature = "cuda")]
pub(super) struct GpuMetrics {
    registry: Registry,
    utilization: Gauge,
    memory_used: IntGauge,
    /// Whether each is there.
    shown: [bool; 2],
}

#[cfg(feature = "cuda")]
impl GpuMetrics {
    fn new(registry: Registry, rank: RankId) -> Self {
        let opts = |name: &str, help: &str| Opts::new(name, help).const_label("rank", rank.0.to_string());
        let utilization = opts("gpu_utilization", "Part of the time in which a kernel ran on the rank's GPU, 0 to 1");
        let memory_used = opts("swiftbalancer_rank_gpu_memory_used_bytes", "Memory of the rank's GPU that is taken");
        let suits = "names and help are constants that suit";
        let utilization = Gauge::with_opts(utilization).expect(suits);
        let memory_used = IntGauge::with_opts(memory_used).expect(suits);
        Self { registry, utilization, memory_used, shown: [false; 2] }
    }

    /// Shows what a GPU does now.
    pub fn show(&mut self, Sample { utilization, memory_used }: Sample) {
        self.utilization.set(utilization.unwrap_or_default());
        self.memory_used.set(memory_used.unwrap_or_default() as i64);
        let gauges: [Box<dyn Collector>; 2] = [Box::new(self.utilization.clone()), Box::new(self.memory_used.clone())];
        let known = [utilization.is_some(), memory_used.is_some()];
        for ((gauge, shown), known) in gauges.into_iter().zip(&mut self.shown).zip(known) {
            let changed = match (*shown, known) {
                (false, true) => self.registry.register(gauge),
                (true, false) => self.registry.unregister(gauge),
                (true, true) | (false, false) => Ok(()),
            };
            changed.expect("each is there or not, as is noted");
            *shown = known;
        }
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
    fn steps_and_moves_show_by_rank_part_and_reason() {
        let process = ProcessMetrics::new([RankId(4), RankId(5)]);
        let metrics = process.of(1);
        metrics.step(&StepTiming { total: 1000, commit: 100, exchange: 200, experts: 300 }, 2);
        let transaction = crate::protocol::TransactionId(1);
        let report = |staged| FromRank::Moved(MoveReport { generation: 1, transaction, staged });
        metrics.reported(&report(Ok(77)));
        metrics.reported(&report(Err(NotStaged { reason: MoveFailure::Corrupt, message: String::new() })));
        metrics.left(Departure::Device);
        metrics.exchanges_by(Some(Means::Peer));
        metrics.exchanges_by(Some(Means::Tcp));
        metrics.received(PageRoute::Network);
        let text = process.text();
        for line in [
            "swiftbalancer_rank_steps_total{rank=\"4\"} 0",
            "swiftbalancer_rank_steps_total{rank=\"5\"} 1",
            "swiftbalancer_rank_commits_total{rank=\"5\"} 2",
            "swiftbalancer_rank_step_seconds_total{part=\"other\",rank=\"5\"} 0.0004",
            "swiftbalancer_rank_received_page_bytes_total{rank=\"5\"} 77",
            "swiftbalancer_rank_move_failures_total{rank=\"5\",reason=\"corrupt\"} 1",
            "swiftbalancer_rank_received_pages_total{rank=\"5\",route=\"network\"} 1",
            "swiftbalancer_rank_received_pages_total{rank=\"5\",route=\"checkpoint\"} 0",
            "swiftbalancer_rank_move_failures_total{rank=\"4\",reason=\"corrupt\"} 0",
            "swiftbalancer_rank_groups_left_total{rank=\"5\",reason=\"device\"} 1",
            "swiftbalancer_rank_groups_left_total{rank=\"5\",reason=\"other_rank\"} 0",
            "swiftbalancer_rank_exchange{means=\"peer\",rank=\"5\"} 0",
            "swiftbalancer_rank_exchange{means=\"tcp\",rank=\"5\"} 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
        }
        let types = text.lines().filter(|line| line.starts_with("# TYPE swiftbalancer_rank_steps_total"));
        assert_eq!(types.count(), 1, "a family that is told twice is refused by those who read it:\n{text}");
    }

    #[cfg(feature = "cuda")]
    #[test]
    fn what_a_gpu_does_not_say_is_not_there() {
        let process = ProcessMetrics::new([RankId(4), RankId(5)]);
        let mut gpus = [process.of_gpu(0), process.of_gpu(1)];
        let shows = |line: &str| process.text().lines().any(|found| found == line);
        let lines = ["gpu_utilization{rank=\"4\"} 0.5", "swiftbalancer_rank_gpu_memory_used_bytes{rank=\"5\"} 77"];
        assert!(!process.text().contains("gpu"));
        gpus[0].show(Sample { utilization: Some(0.5), memory_used: None });
        gpus[1].show(Sample { utilization: None, memory_used: Some(77) });
        assert_eq!(lines.map(shows), [true; 2], "{}", process.text());
        gpus[0].show(Sample { utilization: Some(0.25), memory_used: Some(1) });
        gpus[1].show(Sample::default());
        let lines = ["gpu_utilization{rank=\"4\"} 0.25", "swiftbalancer_rank_gpu_memory_used_bytes{rank=\"4\"} 1"];
        assert_eq!(lines.map(shows), [true; 2], "{}", process.text());
        assert!(!process.text().contains("rank=\"5\"} 77"), "{}", process.text());
    }

    #[test]
    fn a_process_loads_while_any_of_its_ranks_does_and_is_formed_when_all_are() {
        let process = ProcessMetrics::new([RankId(0), RankId(1)]);
        process.of(0).loading(3, 10);
        assert_eq!(process.load_progress(), Some((3, 10)));
        process.of(1).loading(4, 20);
        assert_eq!(process.load_progress(), Some((7, 30)));
        process.of(0).not_loading();
        assert_eq!(process.load_progress(), Some((4, 20)));
        process.of(1).not_loading();
        assert_eq!(process.load_progress(), None);
        process.of(0).formed(true);
        assert!(!process.is_formed());
        process.of(1).formed(true);
        assert!(process.is_formed());
    }
}
