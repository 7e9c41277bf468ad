//! What evictions respect: a replica may be evicted only while all others serve. A replica is down as soon as one of its
//! pods is, so within it nothing is gained by evicting one pod after the other.

use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use kube::ResourceExt as _;

use super::metadata;
use crate::api::MoEDeployment;
use crate::names;

pub(super) fn build(deployment: &MoEDeployment, group: usize, least: usize) -> PodDisruptionBudget {
    let name = deployment.name_any();
    let selector = [(names::DEPLOYMENT, name.clone()), (names::GROUP, group.to_string())];
    PodDisruptionBudget {
        metadata: metadata(deployment, names::budget(&name, group)),
        spec: Some(PodDisruptionBudgetSpec {
            // An integer: percentages are resolved through the owner's scale, which counts replicas and not pods.
            min_available: Some(IntOrString::Int(least as i32)),
            selector: Some(LabelSelector {
                match_labels: Some(selector.map(|(key, value)| (key.to_owned(), value)).into()),
                ..LabelSelector::default()
            }),
            unhealthy_pod_eviction_policy: Some("AlwaysAllow".to_owned()),
            ..PodDisruptionBudgetSpec::default()
        }),
        status: None,
    }
}
