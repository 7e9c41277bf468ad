//! What a specification becomes, whole.

use std::sync::Arc;

use insta::assert_yaml_snapshot;
use k8s_openapi::api::core::v1::ConfigMap;
use operator::host_paths::AllowedHostPaths;
use operator::names;
use operator::observed::Reference;
use serde_json::json;

use crate::cluster::{Cluster, condition};
use crate::fake_runtime::{map, recorded, view};
use crate::specification::examples;

const TINY: &str = include_str!("../../../examples/tiny-moe.yaml");
const WARM: &str = include_str!("../../../examples/tiny-moe-warm.yaml");
const GPUS: &str = include_str!("fixtures/gpus.yaml");

pub fn config_map(name: &str, json: &str) -> ConfigMap {
    serde_json::from_value(json!({
        "metadata": {"name": name, "namespace": "default"},
        "data": {names::MAP_KEY: json},
    }))
    .unwrap()
}

#[test]
fn the_example_becomes_a_coordinator_four_ranks_and_what_they_need() {
    let mut cluster = Cluster::new(TINY);
    let first = cluster.pass().desired;
    cluster.run_pods();
    let mut desired = cluster.pass().desired;
    desired.pods.splice(0..0, first.pods);
    desired.keys = first.keys;
    assert_yaml_snapshot!(desired);
}

#[test]
fn every_example_gets_all_of_its_pods_on_a_cluster_that_has_what_it_asks_for() {
    for (name, example) in examples() {
        let mut cluster = Cluster::new(&example);
        let nodes = usize::try_from(cluster.deployment.spec.replicas).unwrap() * 2;
        for node in (1..=nodes.max(3)).map(|node| format!("node-{node}")) {
            cluster.set_node(&node, true, 8);
            cluster.label_node(&node, "nvidia.com/gpu.product", "NVIDIA-H200");
        }
        if cluster.deployment.spec.eplb.expert_map_ref.is_some() {
            let json = serde_json::to_string(&map(0)).unwrap();
            cluster.reference = Reference::Found(Arc::new(config_map("tiny-moe-map-0123456789", &json)));
        }
        let status = cluster.settle().status;
        assert_eq!(condition(&status, "SpecValid").1, "Valid", "{name}");
        assert_eq!(condition(&status, "Ready").1, "AllReplicasReady", "{name}: {}", condition(&status, "Ready").2);
    }
}

/// What the coordinator of the example mounts, and what it is started with, when its model comes from another source.
fn coordinator_with(source: &str, eplb: &str) -> (serde_json::Value, bool, Vec<String>) {
    let image = "      type: Image\n      image:\n        reference: docker.io/swiftbalancer/tiny-moe:1\n";
    let text =
        TINY.replace(image, source).replace("    dynamicEplb: true\n", &format!("    dynamicEplb: true\n{eplb}"));
    assert!(
        text.contains(source) && text.contains(eplb),
        "the example has the source and the setting that are replaced"
    );
    let mut cluster = Cluster::new(&text);
    cluster.allowed_host_paths = AllowedHostPaths::new(vec!["/srv".parse().unwrap()]);
    let pods = cluster.pass().desired.pods;
    let coordinator = pods.into_iter().find(|pod| pod.metadata.name.as_deref() == Some("tiny-moe-0-coordinator"));
    let spec = coordinator.unwrap().spec.unwrap();
    let volume = spec.volumes.unwrap().into_iter().find(|volume| volume.name == "model").unwrap();
    let container = &spec.containers[0];
    let mount = container.volume_mounts.iter().flatten().find(|mount| mount.name == "model").unwrap();
    (serde_json::to_value(volume).unwrap(), mount.read_only == Some(true), container.args.clone().unwrap())
}

#[test]
fn a_checkpoint_comes_from_a_claim_or_a_folder_of_the_node() {
    let claim = "      type: PersistentVolumeClaim\n      persistentVolumeClaim:\n        claimName: models\n        path: tiny\n";
    let (volume, read_only, args) = coordinator_with(claim, "");
    assert_eq!(volume, json!({"name": "model", "persistentVolumeClaim": {"claimName": "models"}}));
    assert!(read_only);
    assert!(args.windows(2).any(|pair| pair[0] == "--model" && pair[1].ends_with("/tiny")), "{args:?}");

    let folder = "      type: HostPath\n      hostPath:\n        path: /srv/tiny\n";
    let (volume, read_only, _) = coordinator_with(folder, "");
    assert_eq!(volume, json!({"name": "model", "hostPath": {"path": "/srv/tiny", "type": "Directory"}}));
    assert!(read_only);
}

#[test]
fn a_map_that_is_recorded_to_a_file_goes_to_the_volume_of_the_model() {
    let claim = "      type: PersistentVolumeClaim\n      persistentVolumeClaim:\n        claimName: models\n";
    let (_, read_only, args) = coordinator_with(claim, "    expertMapRecordPath: maps/now.json\n");
    assert!(!read_only, "the coordinator writes there");
    let record = args.windows(2).find(|pair| pair[0] == "--expert-map-record-path").map(|pair| pair[1].clone());
    assert!(record.as_deref().is_some_and(|path| path.ends_with("/maps/now.json")), "{args:?}");
}

#[test]
fn ranks_on_gpus_share_a_process_and_a_pod_and_have_ports_of_their_own() {
    let mut cluster = Cluster::new(GPUS);
    for node in ["node-1", "node-2", "node-3"] {
        cluster.label_node(node, "gpu", "h100");
    }
    let mut pods = cluster.pass().desired.pods;
    cluster.run_pods();
    pods.extend(cluster.pass().desired.pods);
    let names: Vec<_> = pods.iter().map(|pod| pod.metadata.name.clone().unwrap()).collect();
    assert_eq!(names, ["large-0-coordinator", "large-0-rank-0", "large-0-rank-8"]);
    assert_yaml_snapshot!(pods);
}

#[test]
fn a_map_to_start_from_is_mounted_into_the_coordinator() {
    let mut cluster = Cluster::new(WARM);
    let json = serde_json::to_string(&map(0)).unwrap();
    cluster.reference = Reference::Found(Arc::new(config_map("tiny-moe-map-0123456789", &json)));
    let pods = cluster.pass().desired.pods;
    let coordinator = pods.iter().find(|pod| pod.metadata.name.as_deref() == Some("tiny-moe-warm-0-coordinator"));
    assert_yaml_snapshot!(coordinator.unwrap().spec);
}

#[test]
fn a_recorded_map_becomes_an_immutable_config_map_named_by_its_content() {
    let mut cluster = Cluster::new(TINY);
    cluster.settle();
    cluster.runtimes.insert(0, view(2, Some(0.97), Some(recorded(0, 0.981))));
    let pass = cluster.pass();
    let made = pass.desired.map.unwrap();
    let hash = map(0).content_hash();
    assert_eq!(made.metadata.name, Some(format!("tiny-moe-map-{}", &hash[..10])));
    assert_yaml_snapshot!(made);
    assert_eq!(pass.status.expert_map.unwrap().hash, hash);
    assert!(cluster.pass().desired.map.is_none(), "recorded twice");
}
