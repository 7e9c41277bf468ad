//! What a node object says about whether it can run pods.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, NodeCondition, PodSpec, Taint, Toleration};

use crate::quantity;

mod affinity;

/// Whether a node's kubelet reports, as the cluster has it. A node that says nothing of it counts as one that does.
#[must_use]
pub fn is_ready(node: &Node) -> bool {
    ready_condition(node).is_none_or(|ready| ready.status == "True")
}

fn ready_condition(node: &Node) -> Option<&NodeCondition> {
    let conditions = node.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    conditions.iter().find(|condition| condition.type_ == "Ready")
}

/// When a node turned to be in or out of reach, by the clock of the controller manager; a time that has not come yet is now.
#[must_use]
pub fn turned(node: &Node, now: Timestamp) -> Timestamp {
    ready_condition(node).and_then(|ready| ready.last_transition_time.as_ref()).map_or(now, |time| time.0.min(now))
}

/// Whether a node takes new pods that say this of where they may be.
#[must_use]
pub fn takes(node: &Node, pod: &PodSpec) -> bool {
    let labels = node.metadata.labels.as_ref();
    let mut selector = pod.node_selector.iter().flatten();
    let is_selected = selector.all(|(key, value)| labels.and_then(|labels| labels.get(key)) == Some(value));
    let spec = node.spec.as_ref();
    let is_cordoned = spec.and_then(|spec| spec.unschedulable).unwrap_or(false);
    let taints = spec.and_then(|spec| spec.taints.as_deref()).unwrap_or_default();
    let is_tolerated = |taint: &Taint| pod.tolerations.iter().flatten().any(|toleration| tolerates(toleration, taint));
    let mut refusing = taints.iter().filter(|taint| taint.effect != "PreferNoSchedule");
    let is_allowed = affinity::allows(pod.affinity.as_ref(), node);
    is_selected && is_allowed && !is_cordoned && refusing.all(is_tolerated) && is_ready(node)
}

/// As the scheduler has it.
fn tolerates(toleration: &Toleration, taint: &Taint) -> bool {
    // An empty text is none.
    let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    let has_effect = given(&toleration.effect).is_none_or(|effect| effect == taint.effect);
    let has_key = given(&toleration.key).is_none_or(|key| key == taint.key);
    let value = taint.value.as_deref().unwrap_or_default();
    let asked = toleration.value.as_deref().unwrap_or_default();
    let number = |text: &str| text.parse::<i64>().ok();
    let has_value = match toleration.operator.as_deref().unwrap_or_default() {
        "Exists" => true,
        "Lt" => number(value).zip(number(asked)).is_some_and(|(value, asked)| value < asked),
        "Gt" => number(value).zip(number(asked)).is_some_and(|(value, asked)| value > asked),
        _ => asked == value,
    };
    has_effect && has_key && has_value
}

/// How many of a resource a node has for pods.
#[must_use]
pub fn allocatable(node: &Node, resource: &str) -> u64 {
    node.status
        .as_ref()
        .and_then(|status| status.allocatable.as_ref())
        .and_then(|allocatable| allocatable.get(resource))
        .and_then(|quantity| quantity::whole(&quantity.0))
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn takes_with(taints: &Value, tolerations: &Value) -> bool {
        let node: Node =
            serde_json::from_value(json!({"metadata": {"name": "a"}, "spec": {"taints": taints}})).unwrap();
        let pod: PodSpec = serde_json::from_value(json!({"containers": [], "tolerations": tolerations})).unwrap();
        takes(&node, &pod)
    }

    #[test]
    fn a_node_with_a_taint_takes_those_that_tolerate_it() {
        let taint = json!([{"key": "gpu", "value": "yes", "effect": "NoSchedule"}]);
        assert!(takes_with(&json!([]), &json!([])) && !takes_with(&taint, &json!([])));
        assert!(takes_with(&json!([{"key": "gpu", "effect": "PreferNoSchedule"}]), &json!([])));
        for (toleration, is_taken) in [
            (json!({"key": "gpu", "value": "yes"}), true),
            (json!({"key": "gpu", "operator": "Equal", "value": "yes", "effect": "NoSchedule"}), true),
            (json!({"key": "gpu", "operator": "Exists"}), true),
            (json!({"operator": "Exists"}), true),
            (json!({"key": "gpu"}), false),
            (json!({"key": "gpu", "value": "no"}), false),
            (json!({"key": "cpu", "operator": "Exists"}), false),
            (json!({"key": "gpu", "operator": "Exists", "effect": "NoExecute"}), false),
        ] {
            assert_eq!(takes_with(&taint, &json!([toleration])), is_taken, "{toleration}");
        }
        let two = json!([{"key": "gpu", "effect": "NoExecute"}, {"key": "other", "effect": "NoExecute"}]);
        assert!(!takes_with(&two, &json!([{"key": "gpu", "operator": "Exists"}])));
    }
}
