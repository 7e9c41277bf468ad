//! What is measured of moving experts.

use std::time::{Duration, Instant};

use plan::policy::Reason;
use plan::wire::Phase;
use prometheus::{
    Counter, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};
use strum::IntoEnumIterator as _;

use super::{counter, exponential, gauge, histogram, of_ranks, register};
use crate::experts::rebalance::{AbortReason, Notice};
use crate::protocol::MoveFailure;

/// What is measured of moving experts.
pub(super) struct MovingMetrics {
    rebalances: IntCounterVec,
    aborts: IntCounterVec,
    decisions: IntCounterVec,
    without_load: IntCounter,
    committed: IntCounter,
    experts_moved: IntCounter,
    bytes_moved: IntCounter,
    epoch: IntGauge,
    pub stall: Counter,
    planner: Histogram,
    planning: Option<Instant>,
    phases: HistogramVec,
    /// What the rebalancer is doing, and since when.
    phase: Option<(Phase, Instant)>,
    /// `[ranks]`
    staging_used: Vec<IntGauge>,
    /// `[ranks]`
    pairs: Vec<IntGauge>,
}

impl MovingMetrics {
    pub fn new(registry: &Registry, ranks: usize) -> prometheus::Result<Self> {
        let rebalances = Opts::new("swiftbalancer_rebalances_total", "Plans that ended, by outcome.");
        let aborts = Opts::new("swiftbalancer_move_aborts_total", "Transactions taken back, by reason.");
        let decisions = Opts::new("swiftbalancer_decisions_total", "Plans decided on, by why they move or do not.");
        let stall = Counter::new(
            "swiftbalancer_commit_stall_seconds_total",
            "Time that commits added to steps, on the slowest rank.",
        )?;
        let phases = HistogramOpts::new(
            "swiftbalancer_rebalance_phase_seconds",
            "Time that the rebalancer spent in a phase before the next, by phase.",
        );
        let phases = HistogramVec::new(phases.buckets(exponential(0.001, 4.0, 12)), &["phase"])?;
        let staging =
            Opts::new("swiftbalancer_staging_pages_used", "Staging pages that transactions under way need, by rank.");
        let pairs = Opts::new(
            "swiftbalancer_window_pairs",
            "(Token, expert) pairs that each rank computed in the last window, by rank.",
        );
        let metrics = Self {
            rebalances: register(registry, IntCounterVec::new(rebalances, &["outcome"])?)?,
            aborts: register(registry, IntCounterVec::new(aborts, &["reason"])?)?,
            decisions: register(registry, IntCounterVec::new(decisions, &["reason"])?)?,
            without_load: counter(
                registry,
                "swiftbalancer_windows_without_load_total",
                "Windows in which no pair was computed; nothing is planned from them.",
            )?,
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
            phases: register(registry, phases)?,
            phase: None,
            staging_used: of_ranks(&register(registry, IntGaugeVec::new(staging, &["rank"])?)?, ranks),
            pairs: of_ranks(&register(registry, IntGaugeVec::new(pairs, &["rank"])?)?, ranks),
        };
        // A counter that starts to exist with its first event has no rate for it.
        for phase in [Phase::Collecting, Phase::Planning, Phase::Moving].map(name) {
            metrics.phases.with_label_values(&[phase]);
        }
        for outcome in RebalanceOutcome::iter() {
            metrics.rebalances.with_label_values(&[<&str>::from(outcome)]);
        }
        for reason in Reason::iter() {
            metrics.decisions.with_label_values(&[<&str>::from(reason)]);
        }
        let failures = MoveFailure::iter().map(AbortReason::Move);
        for reason in failures.chain([AbortReason::GroupLost, AbortReason::PlanDropped]) {
            metrics.aborts.with_label_values(&[reason.as_str()]);
        }
        Ok(metrics)
    }

    /// A plan was asked for.
    pub const fn planning(&mut self, now: Instant) {
        self.planning = Some(now);
    }

    /// A plan came, or why there is none.
    pub fn planned(&mut self, now: Instant) {
        if let Some(since) = self.planning.take() {
            self.planner.observe((now - since).as_secs_f64());
        }
    }

    /// What the rebalancer does, and the staging pages that it needs, `[ranks]`.
    pub fn doing(&mut self, now: Instant, phase: Phase, staging_pages: &[u32]) {
        for (gauge, &pages) in self.staging_used.iter().zip(staging_pages) {
            gauge.set(pages.into());
        }
        match self.phase {
            Some((before, _)) if before == phase => {}
            before => {
                if let Some((before, since)) = before.filter(|&(before, _)| before != Phase::Off) {
                    self.phases.with_label_values(&[name(before)]).observe((now - since).as_secs_f64());
                }
                self.phase = Some((phase, now));
            }
        }
    }

    /// A step's commits took this long on the slowest rank.
    pub fn stalled(&self, time: Duration) {
        self.stall.inc_by(time.as_secs_f64());
    }

    /// The rebalancer has a notice.
    pub fn noticed(&self, notice: &Notice) {
        match notice {
            Notice::Decided(decision) => self.decisions.with_label_values(&[<&str>::from(decision.reason)]).inc(),
            Notice::Kept { .. } => self.ended(RebalanceOutcome::Kept),
            Notice::Committed { epoch, pages, bytes, .. } => {
                self.committed.inc();
                self.experts_moved.inc_by(*pages);
                self.bytes_moved.inc_by(*bytes);
                self.epoch.set(*epoch as i64);
            }
            Notice::Aborted { reason, .. } => self.aborts.with_label_values(&[reason.as_str()]).inc(),
            Notice::Completed { .. } => self.ended(RebalanceOutcome::Completed),
            Notice::Dropped { .. } => self.ended(RebalanceOutcome::Dropped),
            Notice::WindowClosed(closed) => {
                if closed.report.pairs == 0 {
                    self.without_load.inc();
                }
                for (gauge, &pairs) in self.pairs.iter().zip(&closed.pairs_of_ranks) {
                    gauge.set(pairs as i64);
                }
            }
            Notice::Planned { .. } => {}
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

/// A phase as a label.
const fn name(phase: Phase) -> &'static str {
    match phase {
        Phase::Off => "off",
        Phase::Collecting => "collecting",
        Phase::Planning => "planning",
        Phase::Moving => "moving",
    }
}
