//! The operator's own metrics. Labels are bounded by enums.

use std::time::Instant;

use prometheus::{
    Encoder as _, HistogramOpts, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder,
};

/// Metrics of one operator process.
pub struct Metrics {
    registry: Registry,
    reconciles: HistogramVec,
    errors: IntCounterVec,
    writes: IntCounterVec,
    build: IntGaugeVec,
    ready: IntGauge,
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
        };
        // No `..`: a metric that is added has to be registered before this compiles.
        let Self { registry, reconciles, errors, writes, build, ready } = &metrics;
        registry.register(Box::new(reconciles.clone()))?;
        registry.register(Box::new(errors.clone()))?;
        registry.register(Box::new(writes.clone()))?;
        registry.register(Box::new(build.clone()))?;
        registry.register(Box::new(ready.clone()))?;
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        Ok(metrics)
    }

    /// Times a reconcile until the guard is dropped.
    #[must_use]
    pub fn reconcile(&self) -> ReconcileTimer<'_> {
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
        let outcome = if self.error.is_some() { "error" } else { "success" };
        self.metrics.reconciles.with_label_values(&[outcome]).observe(self.start.elapsed().as_secs_f64());
        if let Some(category) = self.error {
            self.metrics.errors.with_label_values(&[category]).inc();
        }
    }
}
