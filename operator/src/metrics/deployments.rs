//! What the status of every deployment says, as numbers, at the time of a scrape. Reads the cache of deployments; keeps
//! nothing, so what is deleted is gone.

use std::sync::Arc;

use kube::ResourceExt as _;
use kube::runtime::reflector::Store;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{GaugeVec, Opts};

use crate::api::MoEDeployment;
use crate::context::Guarded;

const OF_A_DEPLOYMENT: [&str; 2] = ["namespace", "deployment"];

/// Gauges of one scrape.
struct Gauges {
    conditions: GaugeVec,
    reasons: GaugeVec,
    wanted: GaugeVec,
    ready: GaugeVec,
}

impl Gauges {
    fn new() -> prometheus::Result<Self> {
        let [namespace, deployment] = OF_A_DEPLOYMENT;
        let of_conditions = [namespace, deployment, "condition"];
        let of_reasons = [namespace, deployment, "condition", "reason"];
        let gauge = |name: &str, help: &str, labels: &[&str]| GaugeVec::new(Opts::new(name, help), labels);
        Ok(Self {
            conditions: gauge(
                "swiftbalancer_operator_deployment_condition",
                "1 if a condition of a deployment is true, 0 if it is false, not there if it is unknown",
                &of_conditions,
            )?,
            reasons: gauge(
                "swiftbalancer_operator_deployment_condition_reason",
                "1, with the reason that a condition of a deployment has",
                &of_reasons,
            )?,
            wanted: gauge(
                "swiftbalancer_operator_deployment_wanted_replicas",
                "Replicas that a deployment asks for",
                &OF_A_DEPLOYMENT,
            )?,
            ready: gauge(
                "swiftbalancer_operator_deployment_ready_replicas",
                "Replicas of a deployment that serve",
                &OF_A_DEPLOYMENT,
            )?,
        })
    }

    fn show(&self, deployment: &MoEDeployment) {
        let (namespace, name) = (deployment.namespace().unwrap_or_default(), deployment.name_any());
        let of_it = [namespace.as_str(), name.as_str()];
        self.wanted.with_label_values(&of_it).set(deployment.spec.replicas.into());
        let Some(status) = &deployment.status else { return };
        self.ready.with_label_values(&of_it).set(status.ready_replicas.into());
        for condition in &status.conditions {
            let kind = condition.type_.as_str();
            let is_true = match condition.status.as_str() {
                "True" => Some(1.0),
                "False" => Some(0.0),
                _ => None,
            };
            if let Some(is_true) = is_true {
                self.conditions.with_label_values(&[of_it[0], of_it[1], kind]).set(is_true);
            }
            self.reasons.with_label_values(&[of_it[0], of_it[1], kind, &condition.reason]).set(1.0);
        }
    }

    fn families(&self) -> Vec<MetricFamily> {
        let Self { conditions, reasons, wanted, ready } = self;
        [conditions, reasons, wanted, ready].into_iter().flat_map(Collector::collect).collect()
    }
}

/// Shows the deployments of a cache.
pub(super) struct Deployments {
    store: Store<Guarded>,
    described: Gauges,
}

impl Deployments {
    pub fn new(store: Store<Guarded>) -> prometheus::Result<Self> {
        Ok(Self { store, described: Gauges::new()? })
    }
}

impl Collector for Deployments {
    fn desc(&self) -> Vec<&Desc> {
        let Gauges { conditions, reasons, wanted, ready } = &self.described;
        [conditions, reasons, wanted, ready].into_iter().flat_map(Collector::desc).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let Ok(gauges) = Gauges::new() else { return Vec::new() };
        let deployments: Vec<Arc<Guarded>> = self.store.state();
        for deployment in deployments.iter().filter_map(|deployment| deployment.0.as_ref().ok()) {
            gauges.show(deployment);
        }
        gauges.families()
    }
}
