//! What the API server refuses, with the message that the user gets; that what it accepts is what the examples use; and
//! that the committed definition is the one these types give.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use kube::CustomResourceExt as _;
use operator::api::MoEDeployment;

const TEMPLATES: &str = include_str!("fixtures/templates.yaml");

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

/// The examples, by the names of their files.
pub fn examples() -> BTreeMap<String, String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples");
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let named = files.filter(|file| file.extension().is_some_and(|ending| ending == "yaml"));
    let read =
        |file: PathBuf| (file.file_name().unwrap().to_str().unwrap().to_owned(), fs::read_to_string(file).unwrap());
    named.map(read).collect()
}

#[test]
fn every_example_is_accepted() {
    let examples = examples();
    assert!(examples.len() >= 5, "{:?}", examples.keys());
    for (name, example) in &examples {
        assert_eq!(refusals(serde_saphyr::from_str(example).unwrap()), Vec::<String>::new(), "{name}");
    }
    let lines = examples["qwen3-235b.yaml"].lines().count();
    assert!(lines <= 20, "a large model is served by {lines} lines");
}

/// Fields of an object that the definition does not have: the API server would drop them.
fn unknown(path: &str, schema: &serde_json::Value, object: &serde_json::Value, found: &mut Vec<String>) {
    if schema["x-kubernetes-preserve-unknown-fields"] == true {
        return;
    }
    for (index, item) in object.as_array().into_iter().flatten().enumerate() {
        unknown(&format!("{path}[{index}]"), &schema["items"], item, found);
    }
    for (name, value) in object.as_object().into_iter().flatten() {
        let at = format!("{path}.{name}");
        match (schema["properties"].get(name), schema.get("additionalProperties")) {
            (Some(property), _) => unknown(&at, property, value, found),
            (None, Some(_)) => {}
            (None, None) => found.push(at),
        }
    }
}

#[test]
fn no_example_has_a_field_that_the_definition_does_not_have() {
    let definition = serde_json::to_value(MoEDeployment::crd()).unwrap();
    let schema = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
    for (name, example) in examples().into_iter().chain([("templates".to_owned(), TEMPLATES.to_owned())]) {
        let object: serde_json::Value = serde_saphyr::from_str(&example).unwrap();
        let mut found = Vec::new();
        unknown("spec", schema, &object["spec"], &mut found);
        assert_eq!(found, Vec::<String>::new(), "{name}");
    }
}

/// Each specification breaks exactly one rule, and the answer says which and what to do.
#[test]
#[expect(clippy::too_many_lines, reason = "one table, of which every row is a test")]
fn a_specification_that_cannot_work_is_refused_with_what_to_do() {
    use serde_json::json;
    let claim = || {
        (
            "/spec/model/source",
            json!({"type": "PersistentVolumeClaim", "persistentVolumeClaim": {"claimName": "models"}}),
        )
    };
    let path = |name: &str| ("/spec/eplb/expertMapRecordPath", json!(name));
    let hub = |changes: serde_json::Value| {
        let mut hub = json!({"repo": "Org/Model", "volume": {"claimName": "models"}});
        hub.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        vec![("/spec/model/source", json!({"type": "HuggingFace", "huggingFace": hub}))]
    };
    let table = [
        ("a long name", vec![("/metadata/name", json!("a".repeat(41)))]),
        ("a name with a dot", vec![("/metadata/name", json!("tiny.moe"))]),
        ("a name that starts with a digit", vec![("/metadata/name", json!("1moe"))]),
        ("tensor parallelism", vec![("/spec/parallelism", json!({"tensor": 2, "data": 2}))]),
        ("physical experts that do not divide", vec![("/spec/eplb/initRedundancyExpert", json!(3))]),
        ("more redundancy than GPUs", vec![("/spec/eplb/initRedundancyExpert", json!(8))]),
        (
            "more copies than ranks can hold",
            vec![
                ("/spec/model/experts", json!(2)),
                ("/spec/parallelism/data", json!(2)),
                ("/spec/eplb/initRedundancyExpert", json!(4)),
                ("/spec/eplb/maxRedundantExpertsPerGpu", json!(2)),
            ],
        ),
        ("uneven GPUs", vec![("/spec/gpusPerPod", json!(3))]),
        ("an exchange of GPUs among CPUs", vec![("/spec/ranks", json!({"exchange": "nccl"}))]),
        ("peers in several pods", vec![("/spec/gpusPerPod", json!(2)), ("/spec/ranks", json!({"exchange": "peer"}))]),
        ("a short wait", vec![("/spec/eplb/numWaitWorkerIterations", json!(29))]),
        (
            "two static maps",
            vec![
                ("/spec/eplb/expertMapRef", json!({"name": "a-map"})),
                ("/spec/eplb/expertMapPath", json!("map.json")),
            ],
        ),
        ("a reference to nothing", vec![("/spec/eplb/expertMapRef", json!({}))]),
        (
            "a reference to two things",
            vec![("/spec/eplb/expertMapRef", json!({"name": "a-map", "fromDeployment": "another"}))],
        ),
        ("a reference to itself", vec![("/spec/eplb/expertMapRef", json!({"fromDeployment": "tiny-moe"}))]),
        ("a record in an image", vec![path("map.json")]),
        (
            "a record in a folder of nodes",
            vec![
                ("/spec/model/source", json!({"type": "HostPath", "hostPath": {"path": "/srv/models"}})),
                path("map.json"),
            ],
        ),
        (
            "a host path that leads out",
            vec![("/spec/model/source", json!({"type": "HostPath", "hostPath": {"path": "/srv/../etc"}}))],
        ),
        ("a record of several replicas", vec![claim(), path("map.json"), ("/spec/replicas", json!(2))]),
        ("a record without balancing", vec![claim(), path("map.json"), ("/spec/eplb/dynamicEplb", json!(false))]),
        (
            "a static map together with a record",
            vec![claim(), path("map.json"), ("/spec/eplb/expertMapPath", json!("start.json"))],
        ),
        ("a source without its member", vec![("/spec/model/source", json!({"type": "HostPath"}))]),
        (
            "a source with another's member",
            vec![("/spec/model/source/persistentVolumeClaim", json!({"claimName": "models"}))],
        ),
        (
            "a relative host path",
            vec![("/spec/model/source", json!({"type": "HostPath", "hostPath": {"path": "models"}}))],
        ),
        ("a path out of the source", vec![("/spec/eplb/expertMapPath", json!("../map.json"))]),
        (
            "a record in a claim that is only read",
            vec![
                (
                    "/spec/model/source",
                    json!({"type": "PersistentVolumeClaim", "persistentVolumeClaim": {"claimName": "models", "readOnly": true}}),
                ),
                path("map.json"),
            ],
        ),
        ("a repository that is a way through folders", hub(json!({"repo": "../Model"}))),
        ("a repository of three parts", hub(json!({"repo": "hub/Org/Model"}))),
        ("a revision that leads out", hub(json!({"revision": "a/../b"}))),
        ("a download to nowhere", hub(json!({"volume": {}}))),
        (
            "a download to two volumes",
            hub(json!({"volume": {"claimName": "models", "ephemeral": {"size": "1Ti"}}, "revision": "0".repeat(40)})),
        ),
        ("a branch that each pod reads for itself", hub(json!({"volume": {"ephemeral": {"size": "1Ti"}}}))),
        (
            "objects on a way through folders",
            vec![(
                "/spec/model/source",
                json!({"type": "S3", "s3": {"url": "s3://models/../x", "volume": {"claimName": "models"}}}),
            )],
        ),
        ("a download of S3 without its member", vec![("/spec/model/source", json!({"type": "S3"}))]),
        ("a download of a hub without its member", vec![("/spec/model/source", json!({"type": "HuggingFace"}))]),
        (
            "a toleration that ends without an end",
            vec![(
                "/spec/placement",
                json!({"tolerations": [{"key": "gpu", "effect": "NoSchedule", "tolerationSeconds": 5}]}),
            )],
        ),
        ("a claim of GPUs for CPUs", vec![("/spec/gpuClaimTemplateName", json!("gpus"))]),
        ("a port of nodes within the cluster", vec![("/spec/service", json!({"nodePort": 30_000}))]),
        (
            "a load balancer's ranges without one",
            vec![("/spec/service", json!({"type": "NodePort", "loadBalancerSourceRanges": ["10.0.0.0/8"]}))],
        ),
        (
            "traffic from outside within the cluster",
            vec![("/spec/service", json!({"type": "ClusterIP", "externalTrafficPolicy": "Local"}))],
        ),
        (
            "seconds of an affinity that there is not",
            vec![("/spec/service", json!({"sessionAffinity": "None", "sessionAffinitySeconds": 60}))],
        ),
    ];
    let mut report = String::new();
    for (what, changes) in table {
        let refusals = refusals(with(&changes));
        assert_eq!(refusals.len(), 1, "{what}: {refusals:?}");
        let given = changes.iter().map(|(pointer, value)| format!("{} = {value}", pointer[1..].replace('/', ".")));
        writeln!(report, "{what} ({})\n    {}", given.collect::<Vec<_>>().join(", "), refusals[0]).unwrap();
    }
    insta::assert_snapshot!(report);
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
