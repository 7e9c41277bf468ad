//! What is decided and told of a deployment that asks for GPUs.

use operator::build::Desired;
use operator::gpus::LABELS;
use serde_json::json;

use super::TINY;
use crate::cluster::{Cluster, Pass, condition};

const NODES: [&str; 3] = ["node-1", "node-2", "node-3"];

/// The example with so many GPUs in each pod, on nodes with 8.
fn with_gpus(per_pod: i32) -> Cluster {
    let mut cluster = Cluster::new(TINY);
    cluster.deployment.spec.gpus_per_pod = per_pod;
    cluster
}

/// Reason and words for which nothing is built.
fn refused(pass: &Pass) -> (&str, &str) {
    let (status, reason, message) = condition(&pass.status, "Ready");
    assert_eq!((status, &pass.desired), ("False", &Desired::default()));
    assert!(message.chars().count() <= 300, "{message}");
    (reason, message)
}

/// Reason and words for which pods wait that are created all the same.
fn asked_for(pass: &Pass) -> (&str, &str) {
    let (status, reason, message) = condition(&pass.status, "Ready");
    assert_eq!((status, pass.desired.pods.len()), ("False", 1));
    assert_eq!(pass.notices.iter().map(|notice| notice.reason).collect::<Vec<_>>(), [reason]);
    assert!(message.chars().count() <= 300, "{message}");
    (reason, message.strip_prefix("0 of 1 replicas serve; ").unwrap())
}

/// A pool of nodes that is scaled to zero grows for pods that wait, and for nothing else.
#[test]
fn a_pool_that_has_no_node_yet_is_asked_for_by_pods_that_wait() {
    let mut cluster = with_gpus(4);
    for node in NODES {
        cluster.set_node(node, true, 0);
    }
    assert_eq!(asked_for(&cluster.pass()).0, "InsufficientGPUs");
    cluster.run_pods();
    let ranks = cluster.pass().desired.pods;
    assert_eq!(ranks.len(), 1, "the pod with all ranks waits for a node");
    let waits = json!({"phase": "Pending", "conditions": [
        {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes are available"},
    ]});
    cluster.set_pod("tiny-moe-0-rank-0", &waits, None);
    assert_eq!(condition(&cluster.pass().status, "Ready").1, "InsufficientGPUs");
    cluster.set_node("node-4", true, 4);
    cluster.run_pods();
    assert_eq!(condition(&cluster.settle().status, "Ready").0, "True");
}

#[test]
fn ranks_on_gpus_serve_with_the_image_for_gpus_unless_the_deployment_names_one() {
    let mut cluster = with_gpus(2);
    cluster.settle();
    let images = |cluster: &Cluster| {
        let image = |pod: &k8s_openapi::api::core::v1::Pod| pod.spec.as_ref()?.containers[0].image.clone();
        cluster.pods.values().filter_map(image).collect::<Vec<_>>()
    };
    assert_eq!(images(&cluster), ["docker.io/swiftbalancer/runtime-cuda:1"; 3]);
    // Another image of the operator's restarts nothing, and neither does none.
    for gpu in [Some("docker.io/swiftbalancer/runtime-cuda:2".to_owned()), None] {
        cluster.images.gpu = gpu;
        let pass = cluster.pass();
        assert!(pass.decision.remove.is_empty() && pass.desired.pods.is_empty());
        assert_eq!(condition(&pass.status, "Available").0, "True");
    }
    // A pod that is lost then comes back as the others are.
    cluster.pods.remove("tiny-moe-0-rank-2");
    cluster.settle();
    assert_eq!(images(&cluster), ["docker.io/swiftbalancer/runtime-cuda:1"; 3]);
    let mut named = with_gpus(1);
    named.images.gpu = None;
    named.deployment.spec.runtime.image = Some("registry.example.com/own:3".to_owned());
    named.settle();
    assert_eq!(images(&named), ["registry.example.com/own:3"; 5]);
}

#[test]
fn without_an_image_for_gpus_none_are_held() {
    for replicas in [0, 1] {
        let mut cluster = with_gpus(1);
        (cluster.images.gpu, cluster.deployment.spec.replicas) = (None, replicas);
        let pass = cluster.pass();
        let (reason, message) = refused(&pass);
        assert_eq!(reason, "GPUsNotSupported");
        assert!(message.contains("runtime.gpuImage"), "{message}");
    }
}

#[test]
fn gpus_of_nodes_that_it_may_not_use_or_that_no_pod_fills_do_not_count() {
    let mut cluster = with_gpus(2);
    for node in NODES {
        cluster.set_node(node, true, 3);
    }
    // Four ranks need two pods, each on a node of its own.
    assert_eq!(cluster.pass().desired.pods.len(), 1);
    let mut cluster = with_gpus(2);
    for node in NODES {
        cluster.set_node(node, true, if node == "node-1" { 3 } else { 1 });
    }
    let said = "4 nvidia.com/gpu are needed and all nodes together offer 2 in pods of 2: add nodes, or lower replicas or parallelism.data";
    assert_eq!(asked_for(&cluster.pass()), ("InsufficientGPUs", said));
    // Nodes whose taint it does not tolerate have none for it.
    let mut cluster = with_gpus(1);
    let taints = json!([{"key": "team", "value": "a", "effect": "NoSchedule"}]);
    for node in NODES {
        let spec = cluster.nodes.get_mut(node).unwrap().spec.get_or_insert_default();
        spec.taints = serde_json::from_value(taints.clone()).unwrap();
    }
    let said =
        "4 nvidia.com/gpu are needed and all nodes together offer 0: add nodes, or lower replicas or parallelism.data";
    assert_eq!(asked_for(&cluster.pass()), ("InsufficientGPUs", said));
    let toleration = serde_json::from_value(json!({"key": "team", "operator": "Exists"})).unwrap();
    cluster.deployment.spec.placement.tolerations = vec![toleration];
    assert_ne!(condition(&cluster.pass().status, "Ready").1, "InsufficientGPUs");
}

#[test]
fn where_nodes_are_not_watched_their_gpus_are_left_to_the_scheduler() {
    let mut cluster = with_gpus(1);
    for node in NODES {
        cluster.set_node(node, true, 0);
    }
    assert_eq!(asked_for(&cluster.pass()).0, "InsufficientGPUs");
    cluster.watches_nodes = false;
    assert_ne!(condition(&cluster.pass().status, "Ready").1, "InsufficientGPUs");
}

#[test]
fn a_pod_with_more_gpus_than_any_node_has_is_told_with_what_the_largest_offers() {
    let mut cluster = with_gpus(4);
    for (node, gpus) in NODES.into_iter().zip([1, 3, 0]) {
        cluster.set_node(node, true, gpus);
    }
    let said = "gpusPerPod is 4 and no node offers more than 3 nvidia.com/gpu: lower gpusPerPod, or add nodes that have as many";
    assert_eq!(asked_for(&cluster.pass()), ("GPUsPerPodTooMany", said));
    cluster.set_node("node-3", true, 4);
    assert_ne!(condition(&cluster.pass().status, "Ready").1, "GPUsPerPodTooMany");
}

#[test]
fn unlike_gpus_are_refused_by_what_the_nodes_say_and_nodes_that_say_nothing_are_taken_as_they_are() {
    for (label, values) in LABELS.into_iter().zip([["H200", "H100"], ["143771", "81559"], ["9", "8"], ["0", "9"]]) {
        let mut cluster = with_gpus(1);
        cluster.label_node("node-1", label, values[0]);
        assert_eq!(cluster.pass().desired.pods.len(), 1, "node-1 alone says what it has");
        let mut cluster = with_gpus(1);
        for (node, value) in ["node-1", "node-3"].into_iter().zip(values) {
            cluster.label_node(node, label, value);
        }
        let said = format!(
            "the nodes that it may use have unlike GPUs, which compute unlike: {label} is {:?} on node-1 and {:?} on node-3; \
             choose one kind with placement.nodeSelector",
            values[0], values[1]
        );
        assert_eq!(refused(&cluster.pass()), ("GPUsNotAlike", said.as_str()));
        cluster.deployment.spec.placement.node_selector = [(label.to_owned(), values[1].to_owned())].into();
        assert_eq!(cluster.pass().desired.pods.len(), 1, "one kind is chosen");
    }
    // What no pod would get does not matter.
    let mut cluster = with_gpus(1);
    cluster.label_node("node-1", LABELS[0], "H200");
    cluster.set_node("node-2", true, 0);
    cluster.label_node("node-2", LABELS[0], "T4");
    assert_eq!(cluster.pass().desired.pods.len(), 1);
    let mut cluster = with_gpus(1);
    for (node, end) in NODES.into_iter().zip(["a", "b", "c"]) {
        cluster.label_node(node, LABELS[0], &format!("{}{end}", "x".repeat(62)));
    }
    assert_eq!(refused(&cluster.pass()).0, "GPUsNotAlike");
}

#[test]
fn ranks_that_could_share_a_pod_are_told_what_it_would_give_them() {
    let said = |per_pod, gpus: [usize; 3]| {
        let mut cluster = with_gpus(per_pod);
        for (node, gpus) in NODES.into_iter().zip(gpus) {
            cluster.set_node(node, true, gpus);
        }
        let status = cluster.pass().status;
        let (truth, reason, message) = condition(&status, "SpecValid");
        assert_eq!((truth, reason), ("True", "Valid"));
        message.to_owned()
    };
    let better = "the specification is consistent; its 4 ranks have 1 GPU a pod, and only those of one pod reach each other \
                  directly (NVLink): with gpusPerPod 4, which every node has, tokens and experts travel faster";
    assert_eq!(said(1, [8, 8, 8]), better);
    // Ranks are divided evenly, and a node without GPUs is none of those.
    assert_eq!(said(1, [3, 3, 0]), better.replace("gpusPerPod 4", "gpusPerPod 2"));
    for (per_pod, gpus) in [(4, [8, 8, 8]), (2, [2, 2, 2]), (2, [3, 3, 3]), (1, [1, 8, 8]), (0, [8, 8, 8])] {
        assert_eq!(said(per_pod, gpus), "the specification is consistent", "{per_pod} of {gpus:?}");
    }
}

#[test]
fn gpus_asked_for_in_vain_take_no_pod_that_serves() {
    let mut cluster = Cluster::new(TINY);
    cluster.settle();
    for node in NODES {
        cluster.set_node(node, true, 0);
    }
    cluster.deployment.spec.gpus_per_pod = 1;
    let pass = cluster.pass();
    assert_eq!((pass.decision.remove, condition(&pass.status, "Ready").1), (vec![], "InsufficientGPUs"));
    assert_eq!(pass.notices.iter().map(|notice| notice.reason).collect::<Vec<_>>(), ["InsufficientGPUs"]);
}
