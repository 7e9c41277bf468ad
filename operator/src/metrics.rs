//! The operator's own metrics. Labels are bounded by enums.

mod deployments;

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use kube::runtime::reflector::Store;
use prometheus::process_collector::ProcessCollector;
use prometheus::{
    Encoder as _, HistogramOpts, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};

use self::deployments::Deployments;
use crate::context::Guarded;

/// Outcomes of reconciles as labels.
const SUCCESS: &str = "success";
const ERROR: &str = "error";

/// Metrics of one operator process.
pub struct Metrics {
    registry: Registry,
    reconciles: HistogramVec,
    in_flight: IntGauge,
    errors: IntCounterVec,
    writes: IntCounterVec,
    build: IntGaugeVec,
    ready: IntGauge,
    unfilled: Mutex<String>,
}

impl Metrics {
    /// Registers the metrics.
    ///
    /// # Errors
    /// If two have the same name.
    pub fn new() -> Result<Self, prometheus::Error> {
        let metrics = Self {
            registry: Registry::new(),
            reconciles: HistogramVec::new(
                HistogramOpts::new("swiftbalancer_operator_reconcile_seconds", "Duration of reconciles by outcome")
                    .buckets(vec![0.001, 0.005, 0.02, 0.1, 0.5, 2.0, 10.0]),
                &["outcome"],
            )?,
            in_flight: IntGauge::new(
                "swiftbalancer_operator_reconciles_in_flight",
                "Reconciles that are under way; at the most that the operator does at a time, others wait",
            )?,
            errors: IntCounterVec::new(
                Opts::new("swiftbalancer_operator_reconcile_errors_total", "Failed reconciles by kind of error"),
                &["error"],
            )?,
            writes: IntCounterVec::new(
                Opts::new(
                    "swiftbalancer_operator_api_writes_total",
                    "Writes to the API server by kind of object and verb",
                ),
                &["kind", "verb"],
            )?,
            build: IntGaugeVec::new(
                Opts::new("swiftbalancer_operator_build_info", "1, labelled with the version of the operator"),
                &["version"],
            )?,
            ready: IntGauge::new("swiftbalancer_operator_ready", "Whether the caches are filled")?,
            unfilled: Mutex::default(),
        };
        // No `..`: a metric that is added has to be registered before this compiles.
        let Self { registry, reconciles, in_flight, errors, writes, build, ready, unfilled: _ } = &metrics;
        registry.register(Box::new(reconciles.clone()))?;
        registry.register(Box::new(in_flight.clone()))?;
        registry.register(Box::new(errors.clone()))?;
        registry.register(Box::new(writes.clone()))?;
        registry.register(Box::new(build.clone()))?;
        registry.register(Box::new(ready.clone()))?;
        registry.register(Box::new(ProcessCollector::for_self()))?;
        // A histogram that starts to exist with its first event has no rate for it.
        for outcome in [SUCCESS, ERROR] {
            reconciles.with_label_values(&[outcome]);
        }
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        Ok(metrics)
    }

    /// Shows what the deployments of a cache say of themselves.
    ///
    /// # Errors
    /// If it is shown already.
    pub fn show(&self, deployments: Store<Guarded>) -> Result<(), prometheus::Error> {
        self.registry.register(Box::new(Deployments::new(deployments)?))
    }

    /// Times a reconcile until the guard is dropped.
    #[must_use]
    pub fn reconcile(&self) -> ReconcileTimer<'_> {
        self.in_flight.inc();
        ReconcileTimer { metrics: self, start: Instant::now(), error: None }
    }

    /// Counts a write.
    pub fn wrote(&self, kind: &str, verb: &str) {
        self.writes.with_label_values(&[kind, verb]).inc();
    }

    /// Notes that the caches are filled.
    pub fn set_ready(&self) {
        self.ready.set(1);
    }

    /// Notes which caches are not filled, for whoever asks why the operator is not ready.
    pub fn set_unfilled(&self, caches: &[&str]) {
        *self.unfilled.lock().unwrap_or_else(PoisonError::into_inner) = caches.join(", ");
    }

    /// Caches that are not filled, if that takes long.
    #[must_use]
    pub fn unfilled(&self) -> String {
        self.unfilled.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether the caches are filled.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.ready.get() == 1
    }

    /// The metrics in Prometheus' text format.
    ///
    /// # Errors
    /// If they cannot be written.
    pub fn render(&self) -> Result<Vec<u8>, prometheus::Error> {
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(text)
    }
}

/// Times one reconcile.
pub struct ReconcileTimer<'a> {
    metrics: &'a Metrics,
    start: Instant,
    error: Option<&'static str>,
}

impl ReconcileTimer<'_> {
    /// Notes that the reconcile failed.
    pub const fn failed(&mut self, category: &'static str) {
        self.error = Some(category);
    }
}

impl Drop for ReconcileTimer<'_> {
    fn drop(&mut self) {
        self.metrics.in_flight.dec();
        let outcome = if self.error.is_some() { ERROR } else { SUCCESS };
        self.metrics.reconciles.with_label_values(&[outcome]).observe(self.start.elapsed().as_secs_f64());
        if let Some(category) = self.error {
            self.metrics.errors.with_label_values(&[category]).inc();
        }
    }
}

#[cfg(test)]
mod tests {
    use kube::runtime::reflector;
    use kube::runtime::watcher::Event;
    use serde_json::json;

    use super::*;

    fn text(metrics: &Metrics) -> String {
        String::from_utf8(metrics.render().unwrap()).unwrap()
    }

    #[test]
    fn what_deployments_say_of_themselves_shows_and_is_gone_with_them() {
        let (store, mut writer) = reflector::store::<Guarded>();
        let metrics = Metrics::new().unwrap();
        metrics.show(store).unwrap();
        let mut deployment: serde_json::Value =
            serde_saphyr::from_str(include_str!("../../examples/tiny-moe.yaml")).unwrap();
        deployment["metadata"]["namespace"] = json!("a");
        let condition = |kind: &str, status: &str, reason: &str| {
            json!({"type": kind, "status": status, "reason": reason, "message": "",
                   "lastTransitionTime": "2026-01-01T00:00:00Z"})
        };
        deployment["status"] = json!({"readyReplicas": 0, "conditions": [
            condition("Ready", "False", "WaitingForPods"),
            condition("Available", "True", "ReplicaReady"),
            condition("Balanced", "Unknown", "NotMeasured"),
        ]});
        let deployment: Guarded = serde_json::from_value(deployment).unwrap();
        writer.apply_watcher_event(&Event::Apply(deployment.clone()));
        let of_it = r#"deployment="tiny-moe",namespace="a""#;
        let shown = text(&metrics);
        for line in [
            format!("swiftbalancer_operator_deployment_wanted_replicas{{{of_it}}} 1"),
            format!("swiftbalancer_operator_deployment_ready_replicas{{{of_it}}} 0"),
            format!(r#"swiftbalancer_operator_deployment_condition{{condition="Ready",{of_it}}} 0"#),
            format!(r#"swiftbalancer_operator_deployment_condition{{condition="Available",{of_it}}} 1"#),
            format!(
                r#"swiftbalancer_operator_deployment_condition_reason{{condition="Balanced",{of_it},reason="NotMeasured"}} 1"#
            ),
        ] {
            assert!(shown.lines().any(|found| found == line), "{line} in\n{shown}");
        }
        assert!(!shown.contains(r#"_condition{condition="Balanced""#), "{shown}");
        writer.apply_watcher_event(&Event::Delete(deployment));
        assert!(!text(&metrics).contains(of_it));
    }

    #[test]
    fn a_reconcile_counts_while_it_is_under_way_and_when_it_ends() {
        let metrics = Metrics::new().unwrap();
        let timer = metrics.reconcile();
        assert!(text(&metrics).contains("swiftbalancer_operator_reconciles_in_flight 1\n"));
        drop(timer);
        metrics.reconcile().failed("apply");
        let shown = text(&metrics);
        for line in [
            "swiftbalancer_operator_reconciles_in_flight 0\n",
            "swiftbalancer_operator_reconcile_seconds_count{outcome=\"success\"} 1\n",
            "swiftbalancer_operator_reconcile_seconds_count{outcome=\"error\"} 1\n",
            "swiftbalancer_operator_reconcile_errors_total{error=\"apply\"} 1\n",
        ] {
            assert!(shown.contains(line), "{line} in\n{shown}");
        }
    }
}
