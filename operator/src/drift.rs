//! Whether an object that is there is as it should be, and what puts it back if not. Pure.
//!
//! The API server adds defaults of its own, and others may add what does no harm, such as labels. What decides where traffic goes
//! and what an eviction may take is compared whole: a key that is added to a selector empties a Service as a changed one does.

use serde_json::{Value, json};

/// What may have nothing that is not desired.
const WHOLE: [&str; 3] = ["/spec/selector", "/spec/minAvailable", "/spec/maxUnavailable"];

/// Whether an object has everything that is desired of it, and nothing else where that matters.
#[must_use]
pub fn is_as_desired(observed: &Value, desired: &Value) -> bool {
    contains(observed, desired) && WHOLE.iter().all(|path| is_no_more(observed.pointer(path), desired.pointer(path)))
}

/// What removes from an object that is there what others have added and an apply leaves to them: a merge patch of its
/// specification, in which lists take the place of what is there.
#[must_use]
pub fn take_back(observed: &Value, desired: &Value) -> Value {
    let mut patch = desired.get("spec").and_then(Value::as_object).cloned().unwrap_or_default();
    for path in WHOLE {
        let field = path.trim_start_matches("/spec/");
        let Some(there) = observed.pointer(path) else { continue };
        match patch.get_mut(field) {
            None => drop(patch.insert(field.to_owned(), Value::Null)),
            Some(wanted) => without_others(wanted, there),
        }
    }
    json!({ "spec": patch })
}

/// Sets every key to null that is there and not wanted.
fn without_others(wanted: &mut Value, there: &Value) {
    let (Some(wanted), Some(there)) = (wanted.as_object_mut(), there.as_object()) else { return };
    for (key, value) in there {
        match wanted.get_mut(key) {
            None => drop(wanted.insert(key.clone(), Value::Null)),
            Some(wanted) => without_others(wanted, value),
        }
    }
}

/// Whether a value has no key that is not desired.
fn is_no_more(observed: Option<&Value>, desired: Option<&Value>) -> bool {
    match (observed, desired) {
        (Some(observed), None) => is_nothing(observed),
        (Some(Value::Object(observed)), Some(Value::Object(desired))) => {
            observed.iter().all(|(key, value)| is_no_more(Some(value), desired.get(key)))
        }
        (None, _) | (Some(_), Some(_)) => true,
    }
}

/// Whether a value says what a field that is not there says: the API server leaves such out.
fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        Value::Bool(true) | Value::Number(_) => false,
    }
}

/// Whether a value has everything that is desired of it.
fn contains(observed: &Value, desired: &Value) -> bool {
    match (observed, desired) {
        (Value::Object(observed), Value::Object(desired)) => desired.iter().all(|(key, desired)| {
            observed.get(key).map_or_else(|| is_nothing(desired), |observed| contains(observed, desired))
        }),
        (Value::Array(observed), Value::Array(desired)) => {
            observed.len() == desired.len()
                && observed.iter().zip(desired).all(|(observed, desired)| contains(observed, desired))
        }
        (observed, desired) => observed == desired,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_that_the_server_adds_are_no_difference() {
        let desired =
            json!({"spec": {"ports": [{"port": 80}], "type": "ClusterIP", "publishNotReadyAddresses": false}});
        let observed =
            json!({"spec": {"ports": [{"port": 80, "nodePort": 0}], "type": "ClusterIP", "sessionAffinity": "None"}});
        assert!(is_as_desired(&observed, &desired));
    }

    #[test]
    fn a_changed_removed_or_extra_entry_is_a_difference() {
        let desired = json!({"spec": {"ports": [{"port": 80}]}});
        assert!(!is_as_desired(&json!({"spec": {"ports": [{"port": 81}]}}), &desired));
        assert!(!is_as_desired(&json!({"spec": {"ports": []}}), &desired));
        assert!(!is_as_desired(&json!({"spec": {"ports": [{"port": 80}, {"port": 81}]}}), &desired));
        assert!(!is_as_desired(&json!({}), &desired));
    }

    #[test]
    fn what_is_added_to_a_selector_or_a_budget_is_a_difference_and_is_taken_back() {
        let service = json!({"spec": {"selector": {"role": "coordinator"}, "ports": [{"port": 80}]}});
        let budget = json!({"spec": {"minAvailable": 0, "selector": {"matchLabels": {"group": "0"}}}});
        let expression = json!([{"key": "a", "operator": "Exists"}]);
        for (desired, path, added, patch) in [
            (&service, "/spec/selector", ("team", json!("blue")), json!({"role": "coordinator", "team": null})),
            (
                &budget,
                "/spec/selector",
                ("matchExpressions", expression),
                json!({"matchLabels": {"group": "0"}, "matchExpressions": null}),
            ),
            (
                &budget,
                "/spec/selector/matchLabels",
                ("team", json!("blue")),
                json!({"matchLabels": {"group": "0", "team": null}}),
            ),
        ] {
            let mut observed = desired.clone();
            observed.pointer_mut(path).unwrap()[added.0] = added.1;
            observed["metadata"] = json!({"labels": {"of": "somebody"}});
            assert!(!is_as_desired(&observed, desired), "{observed}");
            assert_eq!(take_back(&observed, desired)["spec"]["selector"], patch);
        }
        let mut observed = budget.clone();
        observed["spec"]["maxUnavailable"] = json!(1);
        assert!(!is_as_desired(&observed, &budget));
        assert_eq!(take_back(&observed, &budget)["spec"]["maxUnavailable"], Value::Null);
        let mut observed = service.clone();
        observed["spec"]["ports"] = json!([{"port": 80}, {"port": 9000}]);
        assert_eq!(
            take_back(&observed, &service),
            json!({"spec": {"selector": {"role": "coordinator"}, "ports": [{"port": 80}]}})
        );
        observed["spec"]["ports"] = json!([{"port": 80}]);
        assert!(is_as_desired(&observed, &service));
    }
}
