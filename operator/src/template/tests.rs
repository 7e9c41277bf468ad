//! Which fields are for templates, and what is kept whatever a template says.

use k8s_openapi::api::core::v1::{Container, Pod};
use proptest::prelude::*;
use schemars::JsonSchema;
use serde_json::{Value, json};

use super::fields::{CONTAINER, Field, POD};
use super::*;

/// Names of the fields that a type has.
fn fields_of<T: JsonSchema>() -> Vec<String> {
    let schema = serde_json::to_value(schemars::schema_for!(T)).unwrap();
    schema["properties"].as_object().unwrap().keys().cloned().collect()
}

#[test]
fn every_field_of_a_pod_and_of_a_container_is_decided_on() {
    for (list, mut known) in [(POD, fields_of::<PodSpec>()), (CONTAINER, fields_of::<Container>())] {
        let mut listed: Vec<_> = list.iter().map(|(name, _)| (*name).to_owned()).collect();
        known.sort();
        listed.sort();
        assert_eq!(listed, known);
    }
}

fn own() -> Own<'static> {
    Own {
        role: Role::Rank,
        at: at(Role::Rank),
        ports: (0..2).flat_map(names::rank_ports).chain([i32::from(port::HEALTH)]).collect(),
        gpu_resource_name: "example.com/gpu",
    }
}

fn pod() -> Pod {
    serde_json::from_value(json!({
        "metadata": {"name": "a-0-rank-2", "labels": {"swiftbalancer.io/role": "rank"}},
        "spec": {
            "restartPolicy": "Always",
            "serviceAccountName": "a-runtime",
            "nodeSelector": {"pool": "gpu"},
            "containers": [{
                "name": "rank-2", "image": "i", "args": ["worker"],
                "env": [{"name": "POD_IP", "value": "x"}],
                "ports": [{"name": "step-0", "containerPort": 8003}],
                "livenessProbe": {"httpGet": {"port": 8005}},
                "resources": {"limits": {"example.com/gpu": "2"}},
                "securityContext": {"capabilities": {"drop": ["ALL"]}},
                "volumeMounts": [{"name": "model", "mountPath": "/model", "readOnly": true}],
            }],
            "volumes": [{"name": "model", "emptyDir": {}}, {"name": "scratch", "emptyDir": {}}],
        },
    }))
    .unwrap()
}

fn read_spec(spec: &Value) -> Result<Overlay, TemplateError> {
    let template = serde_json::from_value(json!({"spec": spec})).unwrap();
    read::read(&template, &own())
}

#[test]
fn what_is_named_is_merged_and_the_rest_is_added() {
    let overlay = read_spec(&json!({
        "nodeSelector": {"zone": "a"},
        "tolerations": [{"operator": "Exists"}],
        "containers": [
            {
                "name": "rank", "env": [{"name": "A", "value": "b"}],
                "securityContext": {"capabilities": {"add": ["IPC_LOCK"]}},
                "volumeMounts": [{"name": "cache", "mountPath": "/cache"}, {"name": "scratch", "mountPath": "/tmp/x"}],
            },
            {"name": "proxy", "image": "p"},
        ],
        "volumes": [{"name": "cache", "emptyDir": {}}, {"name": "scratch", "persistentVolumeClaim": {"claimName": "c"}}],
    }))
    .unwrap();
    let merged = serde_json::to_value(overlay.over(pod(), Role::Rank)).unwrap();
    let mut expected = serde_json::to_value(pod()).unwrap();
    expected["metadata"]["annotations"] = json!({});
    let spec = &mut expected["spec"];
    spec["nodeSelector"] = json!({"pool": "gpu", "zone": "a"});
    spec["tolerations"] = json!([{"operator": "Exists"}]);
    let own = &mut spec["containers"][0];
    own["env"] = json!([{"name": "POD_IP", "value": "x"}, {"name": "A", "value": "b"}]);
    own["securityContext"] = json!({"capabilities": {"drop": ["ALL"], "add": ["IPC_LOCK"]}});
    own["volumeMounts"] = json!([
        {"name": "model", "mountPath": "/model", "readOnly": true},
        {"name": "cache", "mountPath": "/cache"},
        {"name": "scratch", "mountPath": "/tmp/x"},
    ]);
    spec["containers"].as_array_mut().unwrap().push(json!({"name": "proxy", "image": "p"}));
    spec["volumes"] = json!([
        {"name": "model", "emptyDir": {}},
        {"name": "cache", "emptyDir": {}},
        {"name": "scratch", "persistentVolumeClaim": {"claimName": "c"}},
    ]);
    assert_eq!(merged, expected);
}

#[test]
fn a_pod_on_the_network_of_its_node_finds_the_names_of_the_cluster() {
    let policy = |spec: &Value| read_spec(spec).map(|overlay| overlay.over(pod(), Role::Rank).spec.unwrap().dns_policy);
    assert_eq!(policy(&json!({"hostNetwork": true})).unwrap().as_deref(), Some("ClusterFirstWithHostNet"));
    assert_eq!(policy(&json!({})).unwrap(), None);
    assert!(policy(&json!({"hostNetwork": true, "dnsPolicy": "ClusterFirst"})).is_err());
}

/// Some value of a field, right or wrong for it.
fn value() -> impl Strategy<Value = Value> {
    let words = [
        "rank", "rank-2", "proxy", "model", "scratch", "keys", "/model", "/tmp", "/cache", "POD_IP", "8003", "Never",
        "",
    ];
    prop_oneof![
        proptest::sample::select(words.to_vec()).prop_map(|word| json!(word)),
        any::<bool>().prop_map(|truth| json!(truth)),
        (0..9000_i64).prop_map(|number| json!(number)),
        proptest::sample::select(words.to_vec()).prop_map(|word| json!([word])),
        proptest::sample::select(words.to_vec())
            .prop_map(|word| json!([{"name": word, "mountPath": word, "emptyDir": {}}])),
        proptest::sample::select(words.to_vec()).prop_map(|word| json!([{"name": word, "value": "x"}])),
        proptest::sample::select(words.to_vec()).prop_map(|word| json!({word: word})),
        Just(json!({"limits": {"example.com/gpu": 1}})),
        Just(json!({"privileged": true})),
    ]
}

fn object(list: &'static [(&'static str, Field)], most: usize) -> impl Strategy<Value = Value> {
    let names: Vec<&str> = list.iter().map(|(name, _)| *name).collect();
    proptest::collection::btree_map(proptest::sample::select(names), value(), 0..most).prop_map(|fields| json!(fields))
}

proptest! {
    /// Whatever is taken leaves the operator's own container, and how its pod is found and started, as they were.
    #[test]
    fn a_template_that_is_taken_keeps_every_promise(
        fields in object(POD, 3), own in object(CONTAINER, 4), named in any::<bool>(), beside in object(CONTAINER, 4),
    ) {
        let mut spec = fields;
        let with_name = |mut container: Value, name: &str| { container["name"] = json!(name); container };
        if named {
            spec["containers"] = json!([with_name(own, "rank"), with_name(beside, "proxy")]);
        }
        let Ok(overlay) = read_spec(&spec) else { return Ok(()) };
        let before = pod();
        let merged = overlay.over(before.clone(), Role::Rank);
        let (old, new) = (before.spec.unwrap(), merged.spec.clone().unwrap());
        let (own, same) = (&new.containers[0], &old.containers[0]);
        prop_assert_eq!(
            (&own.name, &own.image, &own.args, &own.command, &own.ports, &own.liveness_probe, &own.lifecycle),
            (&same.name, &same.image, &same.args, &same.command, &same.ports, &same.liveness_probe, &same.lifecycle)
        );
        prop_assert_eq!(own.resources.as_ref().unwrap().limits.as_ref(), same.resources.as_ref().unwrap().limits.as_ref());
        prop_assert!(own.env.as_ref().unwrap().starts_with(same.env.as_ref().unwrap()));
        prop_assert!(own.volume_mounts.as_ref().unwrap().starts_with(same.volume_mounts.as_ref().unwrap()));
        prop_assert!(new.volumes.as_ref().unwrap().contains(&old.volumes.as_ref().unwrap()[0]));
        prop_assert_eq!((new.restart_policy, new.service_account_name), (old.restart_policy, old.service_account_name));
        prop_assert_eq!((new.hostname, new.subdomain, new.node_name), (None, None, None));
        // What is laid over once lies there: again changes nothing, but for lists that are merged by no name.
        prop_assert_eq!(overlay.over(merged.clone(), Role::Rank), merged);
    }
}
