//! What the API server refuses, with the message that the user gets; that what it accepts is what the examples use; and
//! that the committed definition is the one these types give.

use kube::CustomResourceExt as _;
use operator::api::MoEDeployment;

fn example() -> serde_json::Value {
    serde_saphyr::from_str(include_str!("../../../examples/tiny-moe.yaml")).unwrap()
}

/// The example with the value at a JSON pointer replaced, or removed by `null`.
fn with(changes: &[(&str, serde_json::Value)]) -> serde_json::Value {
    let mut object = example();
    for (pointer, value) in changes {
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        let parent = object.pointer_mut(parent).unwrap_or_else(|| panic!("{pointer} has no parent"));
        if value.is_null() {
            parent.as_object_mut().unwrap().remove(key);
        } else {
            parent[key] = value.clone();
        }
    }
    object
}

fn refusals(object: serde_json::Value) -> Vec<String> {
    let object: MoEDeployment = serde_json::from_value(object).unwrap();
    match object.validate_cel() {
        Ok(()) => Vec::new(),
        Err(errors) => errors.into_vec().into_iter().map(|error| error.message).collect(),
    }
}

#[test]
fn the_committed_definition_is_the_one_these_types_give() {
    let generated = serde_saphyr::to_string(&MoEDeployment::crd()).unwrap();
    let committed = [
        include_str!("../../../crds/moedeployments.swiftbalancer.io.yaml"),
        include_str!("../../../charts/swiftbalancer/files/moedeployments.swiftbalancer.io.yaml"),
    ];
    for committed in committed {
        assert!(
            committed == generated,
            "stale: write the output of `swiftbalancer-operator crd` to crds/ and the chart's files/"
        );
    }
}

#[test]
fn every_example_is_accepted() {
    for example in
        [include_str!("../../../examples/tiny-moe.yaml"), include_str!("../../../examples/tiny-moe-warm.yaml")]
    {
        assert_eq!(refusals(serde_saphyr::from_str(example).unwrap()), Vec::<String>::new());
    }
}

/// Each specification breaks exactly one rule, and the answer says which and what to do.
#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn a_specification_that_cannot_work_is_refused_with_what_to_do() {
    use serde_json::json;
    let claim = json!({"type": "PersistentVolumeClaim", "persistentVolumeClaim": {"claimName": "models"}});
    let table: Vec<(&str, serde_json::Value, &str)> = vec![
        ("a long name", with(&[("/metadata/name", json!("a".repeat(41)))]), "at most 40 characters"),
        ("a name with a dot", with(&[("/metadata/name", json!("tiny.moe"))]), "lower-case letters"),
        ("a name that starts with a digit", with(&[("/metadata/name", json!("1moe"))]), "start with a letter"),
        (
            "tensor parallelism",
            with(&[("/spec/parallelism", json!({"tensor": 2, "data": 2}))]),
            "tensor parallelism is not supported yet",
        ),
        (
            "physical experts that do not divide",
            with(&[("/spec/eplb/initRedundancyExpert", json!(3))]),
            "must divide by parallelism.tensor * parallelism.data",
        ),
        (
            "more redundancy than GPUs",
            with(&[("/spec/eplb/initRedundancyExpert", json!(8))]),
            "larger than the number of GPUs",
        ),
        (
            "more copies than ranks can hold",
            with(&[
                ("/spec/model/experts", json!(2)),
                ("/spec/parallelism/data", json!(2)),
                ("/spec/eplb/initRedundancyExpert", json!(4)),
                ("/spec/eplb/maxRedundantExpertsPerGpu", json!(2)),
            ]),
            "more copies than ranks can hold",
        ),
        ("uneven GPUs", with(&[("/spec/gpusPerPod", json!(3))]), "must divide by gpusPerPod"),
        ("a short wait", with(&[("/spec/eplb/numWaitWorkerIterations", json!(29))]), "at least 30"),
        (
            "two static maps",
            with(&[
                ("/spec/eplb/expertMapRef", json!({"name": "a-map"})),
                ("/spec/eplb/expertMapPath", json!("map.json")),
            ]),
            "keep one",
        ),
        ("a reference to nothing", with(&[("/spec/eplb/expertMapRef", json!({}))]), "exactly one of name"),
        (
            "a reference to two things",
            with(&[("/spec/eplb/expertMapRef", json!({"name": "a-map", "fromDeployment": "another"}))]),
            "exactly one of name",
        ),
        (
            "a record in an image",
            with(&[("/spec/eplb/expertMapRecordPath", json!("map.json"))]),
            "an image cannot be written to",
        ),
        (
            "a record of several replicas",
            with(&[
                ("/spec/model/source", claim.clone()),
                ("/spec/eplb/expertMapRecordPath", json!("map.json")),
                ("/spec/replicas", json!(2)),
            ]),
            "several replicas would overwrite",
        ),
        (
            "a record without balancing",
            with(&[
                ("/spec/model/source", claim.clone()),
                ("/spec/eplb/expertMapRecordPath", json!("map.json")),
                ("/spec/eplb/dynamicEplb", json!(false)),
            ]),
            "set eplb.dynamicEplb to true",
        ),
        (
            "a static map together with a record",
            with(&[
                ("/spec/model/source", claim.clone()),
                ("/spec/eplb/expertMapPath", json!("start.json")),
                ("/spec/eplb/expertMapRecordPath", json!("map.json")),
            ]),
            "cannot be combined with a static map",
        ),
        (
            "a source without its member",
            with(&[("/spec/model/source", json!({"type": "HostPath"}))]),
            "hostPath must be set if, and only if, type is HostPath",
        ),
        (
            "a source with another's member",
            with(&[("/spec/model/source/persistentVolumeClaim", json!({"claimName": "models"}))]),
            "persistentVolumeClaim must be set if, and only if",
        ),
        (
            "a relative host path",
            with(&[("/spec/model/source", json!({"type": "HostPath", "hostPath": {"path": "models"}}))]),
            "must be absolute",
        ),
        (
            "a path out of the source",
            with(&[("/spec/eplb/expertMapPath", json!("../map.json"))]),
            "relative to the root of model.source",
        ),
    ];
    for (what, object, message) in table {
        let refusals = refusals(object);
        assert_eq!(refusals.len(), 1, "{what}: {refusals:?}");
        assert!(refusals[0].contains(message), "{what}: {refusals:?}");
    }
}

/// Kubernetes counts the cost of each rule by the largest value that the schema allows, so none may be unbounded.
#[test]
fn every_text_list_map_and_number_is_bounded() {
    fn unbounded(path: &str, schema: &serde_json::Value, found: &mut Vec<String>) {
        let has = |key: &str| schema.get(key).is_some();
        match schema["type"].as_str() {
            Some("string") if !has("maxLength") && !has("enum") && !has("format") => found.push(path.to_owned()),
            Some("integer") if !has("minimum") || !has("maximum") => found.push(path.to_owned()),
            Some("array") => {
                if !has("maxItems") || !has("x-kubernetes-list-type") {
                    found.push(path.to_owned());
                }
                unbounded(&format!("{path}[]"), &schema["items"], found);
            }
            Some("object") => {
                if has("additionalProperties") && !has("maxProperties") {
                    found.push(path.to_owned());
                }
                for (name, property) in schema["properties"].as_object().into_iter().flatten() {
                    unbounded(&format!("{path}.{name}"), property, found);
                }
            }
            _ => {}
        }
    }
    let definition = serde_json::to_value(MoEDeployment::crd()).unwrap();
    let spec = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
    let mut found = Vec::new();
    unbounded("spec", spec, &mut found);
    assert_eq!(found, Vec::<String>::new());
}
