//! Whether a node is one of those that a pod's affinity requires, as the scheduler has it.

use k8s_openapi::api::core::v1::{Affinity, Node, NodeSelectorRequirement, NodeSelectorTerm};
use kube::ResourceExt as _;

/// Whether a pod with this affinity may be on a node. What it prefers does not count, nor what other pods are there.
pub(super) fn allows(affinity: Option<&Affinity>, node: &Node) -> bool {
    let required = affinity
        .and_then(|affinity| affinity.node_affinity.as_ref())
        .and_then(|affinity| affinity.required_during_scheduling_ignored_during_execution.as_ref());
    required.is_none_or(|required| required.node_selector_terms.iter().any(|term| fits(term, node)))
}

/// One of the terms has to fit; an empty one fits no node.
fn fits(term: &NodeSelectorTerm, node: &Node) -> bool {
    let NodeSelectorTerm { match_expressions, match_fields } = term;
    let labels = node.labels();
    let mut expressions = match_expressions.iter().flatten();
    let mut fields = match_fields.iter().flatten();
    let is_empty =
        match_expressions.iter().flatten().next().is_none() && match_fields.iter().flatten().next().is_none();
    let name = node.name_any();
    !is_empty
        && expressions.all(|requirement| meets(requirement, labels.get(&requirement.key).map(String::as_str)))
        && fields.all(|requirement| requirement.key == "metadata.name" && meets(requirement, Some(&name)))
}

fn meets(requirement: &NodeSelectorRequirement, found: Option<&str>) -> bool {
    let values = requirement.values.as_deref().unwrap_or_default();
    let is_among = || found.is_some_and(|found| values.iter().any(|value| value == found));
    let number = |text: &str| text.parse::<i64>().ok();
    let compared = || found.and_then(number).zip(values.first().and_then(|value| number(value)));
    match requirement.operator.as_str() {
        "In" => is_among(),
        "NotIn" => !is_among(),
        "Exists" => found.is_some(),
        "DoesNotExist" => found.is_none(),
        "Gt" => compared().is_some_and(|(found, bound)| found > bound),
        "Lt" => compared().is_some_and(|(found, bound)| found < bound),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn is_allowed(terms: &Value) -> bool {
        let node = json!({"metadata": {"name": "node-1", "labels": {"product": "H200", "memory": "143771"}}});
        let affinity =
            json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}});
        allows(Some(&serde_json::from_value(affinity).unwrap()), &serde_json::from_value(node).unwrap())
    }

    #[test]
    fn a_node_is_allowed_as_the_scheduler_has_it() {
        let label =
            |key: &str, operator: &str, values: Value| json!({"key": key, "operator": operator, "values": values});
        for (requirement, expected) in [
            (label("product", "In", json!(["H100", "H200"])), true),
            (label("product", "In", json!(["H100"])), false),
            (label("other", "In", json!([""])), false),
            (label("product", "NotIn", json!(["H200"])), false),
            (label("other", "NotIn", json!(["H200"])), true),
            (label("product", "Exists", json!([])), true),
            (label("other", "Exists", json!([])), false),
            (label("other", "DoesNotExist", json!([])), true),
            (label("product", "DoesNotExist", json!([])), false),
            (label("memory", "Gt", json!(["100000"])), true),
            (label("memory", "Lt", json!(["100000"])), false),
            (label("product", "Gt", json!(["1"])), false),
            (label("product", "Unheard", json!([])), false),
        ] {
            assert_eq!(is_allowed(&json!([{"matchExpressions": [requirement]}])), expected, "{requirement}");
        }
        let name = |name: &str| json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": [name]}]});
        assert!(is_allowed(&json!([name("node-1")])) && !is_allowed(&json!([name("node-2")])));
        assert!(is_allowed(&json!([name("node-2"), name("node-1")])), "one of the terms is enough");
        assert!(!is_allowed(&json!([{}])) && !is_allowed(&json!([])), "what asks for nothing gets no node");
        assert!(allows(None, &Node::default()));
    }
}
