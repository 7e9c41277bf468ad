//! What the caches keep of objects that anybody may have made: what a pass reads of them, and nothing that whoever makes many
//! or large ones could fill the operator's memory with. Pure.

use k8s_openapi::api::core::v1::{ConfigMap, Container, Node, NodeSpec, NodeStatus, Pod, PodSpec, PodStatus};
use k8s_openapi::api::core::v1::{ResourceRequirements, Service, ServiceAccount};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::core::PartialObjectMeta;
use kube::runtime::watcher::Event;

use crate::api::GROUP;
use crate::names::{self, Role};
use crate::words::shorten;

/// Longest value of an annotation that is kept.
const LONGEST_VALUE: usize = 512;

/// An object whose cache entry is made small.
pub trait Lean {
    /// Leaves what a pass reads.
    fn make_lean(&mut self);
}

impl Lean for Pod {
    fn make_lean(&mut self) {
        metadata(&mut self.metadata);
        self.spec = self.spec.take().map(|spec| PodSpec {
            node_name: spec.node_name,
            containers: spec.containers.into_iter().filter_map(own_container).collect(),
            scheduling_gates: spec.scheduling_gates,
            ..PodSpec::default()
        });
        self.status = self.status.take().map(|status| PodStatus {
            phase: status.phase,
            reason: status.reason.as_deref().map(shorten),
            message: status.message.as_deref().map(shorten),
            pod_ip: status.pod_ip,
            conditions: status.conditions,
            container_statuses: status.container_statuses,
            init_container_statuses: status.init_container_statuses,
            ..PodStatus::default()
        });
    }
}

/// What is told of a container of the runtime; those of others are told by their statuses alone.
fn own_container(container: Container) -> Option<Container> {
    let is_own = [Role::Coordinator, Role::Rank].iter().any(|role| names::is_own_container(*role, &container.name));
    let limits = container.resources.and_then(|resources| resources.limits).unwrap_or_default();
    let resources = ResourceRequirements {
        limits: Some(limits.into_iter().filter(|(resource, _)| resource == "memory").collect()),
        ..ResourceRequirements::default()
    };
    let (name, image) = (container.name, container.image);
    is_own.then(|| Container { name, image, resources: Some(resources), ..Container::default() })
}

impl Lean for Service {
    fn make_lean(&mut self) {
        metadata(&mut self.metadata);
        self.status = None;
    }
}

impl Lean for ServiceAccount {
    fn make_lean(&mut self) {
        metadata(&mut self.metadata);
        (self.secrets, self.image_pull_secrets) = (None, None);
    }
}

impl Lean for PodDisruptionBudget {
    fn make_lean(&mut self) {
        metadata(&mut self.metadata);
        self.status = None;
    }
}

impl Lean for ConfigMap {
    fn make_lean(&mut self) {
        metadata(&mut self.metadata);
        (self.data, self.binary_data) = (None, None);
    }
}

impl Lean for Node {
    fn make_lean(&mut self) {
        // All labels: any of them may be selected.
        (self.metadata.managed_fields, self.metadata.annotations) = (None, None);
        self.spec = self.spec.take().map(|spec| NodeSpec {
            unschedulable: spec.unschedulable,
            taints: spec.taints,
            ..NodeSpec::default()
        });
        self.status = self.status.take().map(|status| NodeStatus {
            allocatable: status.allocatable,
            conditions: status.conditions,
            ..NodeStatus::default()
        });
    }
}

/// Labels and annotations that the operator itself gives, of the length that it gives them.
fn metadata(metadata: &mut ObjectMeta) {
    metadata.managed_fields = None;
    metadata.finalizers = None;
    let own = |key: &str| {
        key == names::MANAGED_BY
            || key.starts_with("app.kubernetes.io/")
            || key.split_once('/').is_some_and(|(domain, _)| domain == GROUP)
    };
    for texts in [&mut metadata.labels, &mut metadata.annotations].into_iter().flatten() {
        texts.retain(|key, value| own(key) && value.len() <= LONGEST_VALUE);
    }
}

/// A change of a ConfigMap of which the API server sent no more than the metadata.
pub fn without_data(event: Event<PartialObjectMeta<ConfigMap>>) -> Event<ConfigMap> {
    let map = |object: PartialObjectMeta<ConfigMap>| ConfigMap { metadata: object.metadata, ..ConfigMap::default() };
    match event {
        Event::Apply(object) => Event::Apply(map(object)),
        Event::Delete(object) => Event::Delete(map(object)),
        Event::Init => Event::Init,
        Event::InitApply(object) => Event::InitApply(map(object)),
        Event::InitDone => Event::InitDone,
    }
}

#[cfg(test)]
mod tests {
    use plan::wire::process::LastWord;
    use serde_json::{Value, json};

    use super::*;

    fn kept<K: Lean + serde::Serialize + serde::de::DeserializeOwned>(object: &Value) -> Value {
        let mut object: K = serde_json::from_value(object.clone()).unwrap();
        object.make_lean();
        serde_json::to_value(object).unwrap()
    }

    #[test]
    fn of_a_pod_what_a_member_is_read_from_stays() {
        let mut pod = json!({
            "metadata": {
                "name": "a-0-coordinator", "namespace": "default", "uid": "u",
                "labels": {"swiftbalancer.io/group": "0", "swiftbalancer.io/role": "coordinator"},
                "annotations": {"swiftbalancer.io/revision": "r"},
                "creationTimestamp": "2026-01-01T00:00:00Z", "deletionTimestamp": "2026-01-01T00:00:01Z",
                "ownerReferences": [{"apiVersion": "v", "kind": "k", "name": "a", "uid": "u", "controller": true}],
            },
            "spec": {
                "nodeName": "node-1", "schedulingGates": [{"name": "g"}],
                "containers": [
                    {"name": "proxy", "image": "p"},
                    {"name": "coordinator", "image": "i", "resources": {"limits": {"memory": "8Mi", "cpu": "1"}}},
                ],
            },
            "status": {
                "phase": "Running", "podIP": "10.0.0.1", "reason": "Evicted", "message": "words",
                "initContainerStatuses": [{
                    "name": "x", "image": "i", "imageID": "i", "ready": false, "restartCount": 0,
                    "state": {"waiting": {"reason": "CrashLoopBackOff"}},
                }],
                "conditions": [{"type": "Ready", "status": "True"}],
                "containerStatuses": [{
                    "name": "coordinator", "image": "i", "imageID": "i", "ready": true, "restartCount": 0, "started": true,
                    "lastState": {"terminated": {"exitCode": 1, "message": LastWord::new("no").to_json()}},
                }],
            },
        });
        let before: Pod = serde_json::from_value(pod.clone()).unwrap();
        pod["metadata"]["annotations"]["example.com/large"] = json!("x".repeat(200_000));
        pod["metadata"]["annotations"]["swiftbalancer.io/larger"] = json!("x".repeat(200_000));
        pod["metadata"]["labels"]["a"] = json!("b");
        pod["metadata"]["managedFields"] = json!([{"manager": "m"}]);
        pod["spec"]["containers"][1]["args"] = json!(["x".repeat(200_000)]);
        pod["spec"]["volumes"] = json!([{"name": "x", "configMap": {"name": "x"}}]);
        pod["status"]["message"] = json!("words\n");
        let kept = kept::<Pod>(&pod);
        let bytes = kept.to_string().len();
        assert!(bytes < 2000, "{bytes}");
        let after: Pod = serde_json::from_value(kept).unwrap();
        assert_eq!(crate::pods::Member::read(&after), crate::pods::Member::read(&before));
        assert_eq!(after.metadata, before.metadata);
    }

    #[test]
    fn of_a_recorded_map_the_content_goes_and_where_it_comes_from_stays() {
        let map = json!({
            "metadata": {
                "name": "a-map-0", "labels": {"swiftbalancer.io/expert-map": "recorded"},
                "annotations": {"swiftbalancer.io/map-hash": "h", "x": "y"},
            },
            "data": {"map.json": "x".repeat(1_000_000)}, "binaryData": {"more": "eA=="},
        });
        let expected = json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {
                "name": "a-map-0", "labels": {"swiftbalancer.io/expert-map": "recorded"},
                "annotations": {"swiftbalancer.io/map-hash": "h"},
            },
        });
        assert_eq!(kept::<ConfigMap>(&map), expected);
    }

    #[test]
    fn of_a_node_what_tells_its_reach_and_its_gpus_stays() {
        let mut node = json!({
            "metadata": {"name": "node-1", "labels": {"pool": "large"}},
            "spec": {"unschedulable": true, "taints": [{"key": "gpu", "effect": "NoSchedule"}]},
            "status": {"allocatable": {"nvidia.com/gpu": "8"}, "conditions": [{"type": "Ready", "status": "True"}]},
        });
        let before = kept::<Node>(&node);
        node["status"]["images"] = json!([{"names": ["x"]}]);
        node["metadata"]["annotations"] = json!({"x": "y"});
        assert_eq!(kept::<Node>(&node), before);
        assert_eq!(before["status"]["allocatable"]["nvidia.com/gpu"], "8");
        assert_eq!(
            (
                &before["spec"]["unschedulable"],
                &before["metadata"]["labels"]["pool"],
                &before["spec"]["taints"][0]["key"]
            ),
            (&json!(true), &json!("large"), &json!("gpu"))
        );
    }
}
