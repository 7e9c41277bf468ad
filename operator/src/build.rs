//! Every object that should exist, from what was decided. Pure: no client, no clock; one kind of object a file.

mod account;
mod budget;
mod coordinator;
mod download;
mod expert_map;
mod keys;
pub(crate) mod mounts;
mod pod;
mod ranks;
mod service;

use k8s_openapi::api::core::v1::{ConfigMap, Pod, Service, ServiceAccount};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::{Resource as _, ResourceExt as _};
use serde::Serialize;

use crate::api::MoEDeployment;
use crate::decide::{Decision, KeysChange, pod_names, serving};
use crate::names::{self, Role};
use crate::validate::{Checked, Refused};

pub use keys::KeysSecret;
pub use pod::placed;

/// Objects that should exist.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Desired {
    /// Identity of the pods.
    pub accounts: Vec<ServiceAccount>,
    /// What clients and ranks connect to.
    pub services: Vec<Service>,
    /// What evictions respect.
    pub budgets: Vec<PodDisruptionBudget>,
    /// Keys to store.
    pub keys: Option<KeysSecret>,
    /// The map to record.
    pub map: Option<ConfigMap>,
    /// Pods to create; those that exist are not repeated, since a pod is never changed.
    pub pods: Vec<Pod>,
    /// Whether accounts, Services and budgets that are not among these are to go.
    #[serde(skip)]
    pub is_whole: bool,
}

/// Builds.
#[must_use]
pub fn build(deployment: &MoEDeployment, verdict: &Result<Checked, Refused>, decision: &Decision) -> Desired {
    let map = decision.maps.record.as_deref().map(|recorded| expert_map::build(deployment, recorded));
    let budgets = decision.budgets.iter().map(|(group, least)| budget::build(deployment, *group, *least)).collect();
    let Some(checked) = serving(verdict) else {
        return Desired { budgets, map, ..Desired::default() };
    };
    let mut desired = Desired {
        accounts: account::build(checked).into_iter().collect(),
        services: vec![service::api(checked)],
        budgets,
        keys: decision.keys.as_ref().map(|change| match change {
            KeysChange::Create(keys) | KeysChange::Replace { uid: _, keys } => keys::build(deployment, keys),
        }),
        map,
        is_whole: !deployment.spec.paused,
        ..Desired::default()
    };
    for group in &decision.groups {
        desired.services.push(service::coordinator(checked, group.index));
        let pods = pod_names(checked, group.index).into_iter().filter(|(name, _)| group.create.contains(name));
        desired.pods.extend(pods.map(|(name, (role, rank))| {
            let identity = pod::Identity { name, role, group: group.index, wanted: &group.wanted, image: &group.image };
            let pod = match role {
                Role::Coordinator => coordinator::build(checked, &identity),
                Role::Rank => ranks::build(checked, &identity, rank),
            };
            match checked.overlays.of(role) {
                Some(overlay) => download::with_template(overlay.over(pod, role)),
                None => pod,
            }
        }));
    }
    desired
}

/// Metadata of an object that the deployment controls.
fn metadata(deployment: &MoEDeployment, name: String) -> ObjectMeta {
    ObjectMeta {
        name: Some(name),
        namespace: deployment.namespace(),
        labels: Some(names::labels(&deployment.name_any())),
        owner_references: deployment
            .controller_owner_ref(&())
            .map(|owner| vec![OwnerReference { block_owner_deletion: Some(true), ..owner }]),
        ..ObjectMeta::default()
    }
}

/// Keeps a recorded map as long as this deployment lives, whoever recorded it.
#[must_use]
pub fn pin(deployment: &MoEDeployment) -> Option<OwnerReference> {
    deployment.owner_ref(&())
}
