//! Lays what users add over a pod. It was checked before, so nothing of it takes what the operator promises.

use k8s_openapi::DeepMerge as _;
use k8s_openapi::api::core::v1::{Pod, PodSpec};

use super::Overlay;
use crate::build::mounts::volume::SCRATCH;
use crate::names::Role;

/// How a pod on its node's network finds the names of the cluster.
const CLUSTER_DNS: &str = "ClusterFirstWithHostNet";

impl Overlay {
    /// The pod with what is added.
    #[must_use]
    pub fn over(&self, pod: Pod, role: Role) -> Pod {
        let Self { labels, annotations, spec } = self;
        let Pod { mut metadata, spec: own, status } = pod;
        metadata.labels.get_or_insert_default().extend(labels.clone());
        metadata.annotations.get_or_insert_default().extend(annotations.clone());
        Pod { metadata, spec: Some(over(own.unwrap_or_default(), spec.clone(), role)), status }
    }

    /// The specification of a pod with what is added to it.
    #[must_use]
    pub fn over_spec(&self, own: PodSpec, role: Role) -> PodSpec {
        over(own, self.spec.clone(), role)
    }
}

fn over(mut own: PodSpec, mut added: PodSpec, role: Role) -> PodSpec {
    let name = own.containers.first().map(|container| container.name.clone());
    for addition in added.containers.iter_mut().filter(|addition| addition.name == <&str>::from(role)) {
        if let Some(name) = &name {
            addition.name.clone_from(name);
        }
    }
    // A volume has one source: that of the template takes the place of the operator's.
    let has_scratch = added.volumes.iter().flatten().any(|volume| volume.name == SCRATCH);
    if has_scratch && let Some(volumes) = &mut own.volumes {
        volumes.retain(|volume| volume.name != SCRATCH);
    }
    // Kubernetes merges the labels of a node that a patch asks for; the library replaces them all.
    let mut selector = own.node_selector.take().unwrap_or_default();
    selector.extend(added.node_selector.take().unwrap_or_default());
    own.merge_from(added);
    own.node_selector = (!selector.is_empty()).then_some(selector);
    if own.host_network == Some(true) && own.dns_policy.is_none() {
        own.dns_policy = Some(CLUSTER_DNS.to_owned());
    }
    own
}
