//! What is decided and told when something happens.

use std::sync::Arc;

use insta::assert_yaml_snapshot;
use operator::decide::Cause;
use operator::names;
use operator::observed::Reference;
use plan::wire::Phase;
use serde_json::json;

use crate::cluster::{Cluster, condition};
use crate::desired::config_map;
use crate::fake_runtime::{map, recorded, state, view};

const TINY: &str = include_str!("../../../examples/tiny-moe.yaml");
const WARM: &str = include_str!("../../../examples/tiny-moe-warm.yaml");

fn removed(pass: &crate::cluster::Pass) -> Vec<(&str, Cause)> {
    pass.decision.remove.iter().map(|removal| (removal.name.as_str(), removal.cause)).collect()
}

#[test]
fn every_condition_is_told_from_the_first_pass_on() {
    assert_yaml_snapshot!(Cluster::new(TINY).pass().status);
}

#[test]
fn a_deployment_that_serves_is_ready_and_its_status_stays_the_same() {
    let mut cluster = Cluster::new(TINY);
    cluster.settle();
    cluster.runtimes.insert(0, view(2, Some(0.968), None));
    let first = cluster.pass();
    assert_yaml_snapshot!(first.status);
    cluster.later(3600);
    let second = cluster.pass();
    assert_eq!(second.status, first.status);
    assert!(second.notices.is_empty(), "{:?}", second.notices);
}

#[test]
fn load_that_wavers_and_experts_on_the_move_change_no_status() {
    let mut cluster = Cluster::new(TINY);
    cluster.settle();
    cluster.runtimes.insert(0, view(2, Some(0.95), None));
    let before = cluster.pass().status;
    let mut moving = state(7, Some(0.962), None);
    moving.phase = Phase::Moving;
    moving.steps += 100;
    let mut wavering = view(0, None, None);
    wavering.state = Arc::new(moving);
    cluster.runtimes.insert(0, wavering);
    assert_eq!(cluster.pass().status, before);
    cluster.runtimes.insert(0, view(8, Some(0.7), None));
    let after = cluster.pass().status;
    assert_eq!((after.ratio.as_deref(), after.epoch), (Some("0.70"), Some(8)));
    assert_eq!(condition(&after, "Balanced").1, "LoadUneven");
}

#[test]
fn a_deleted_rank_pod_alone_is_created_again() {
    let mut cluster = Cluster::new(TINY);
    cluster.settle();
    cluster.pods.remove("tiny-moe-0-rank-2");
    cluster.set_ready("tiny-moe-0-coordinator", false);
    let pass = cluster.pass();
    let created: Vec<_> = pass.desired.pods.iter().map(|pod| pod.metadata.name.as_deref().unwrap()).collect();
    assert_eq!((created, removed(&pass)), (vec!["tiny-moe-0-rank-2"], vec![]));
    assert_eq!(condition(&pass.status, "Ready").1, "WaitingForPods");
}

#[test]
fn pods_of_a_lost_node_are_replaced_after_a_bounded_time_and_not_before() {
    let mut cluster = Cluster::new(TINY);
    cluster.settle();
    cluster.set_node("node-2", false, 0);
    cluster.later(9);
    let waiting = cluster.pass();
    assert_eq!(removed(&waiting), []);
    assert!(waiting.decision.look_again <= std::time::Duration::from_secs(2), "{:?}", waiting.decision.look_again);
    cluster.later(2);
    let lost = cluster.pass();
    assert_eq!(removed(&lost), [("tiny-moe-0-rank-0", Cause::NodeLost), ("tiny-moe-0-rank-3", Cause::NodeLost)]);
    assert_eq!(
        condition(&lost.status, "Degraded"),
        ("True", "RankLost", "pods whose node is lost, or which ended, are being replaced")
    );
    assert_eq!(lost.notices.iter().map(|notice| notice.reason).collect::<Vec<_>>(), ["RankLost"]);
}

#[test]
fn pods_of_a_node_that_left_the_cluster_are_replaced_at_once() {
    let mut cluster = Cluster::new(TINY);
    cluster.settle();
    cluster.nodes.remove("node-1");
    assert!(removed(&cluster.pass()).iter().all(|(_, cause)| *cause == Cause::NodeLost));
}

#[test]
fn a_pod_that_ended_is_replaced_but_not_in_a_hot_loop() {
    let mut cluster = Cluster::new(TINY);
    cluster.settle();
    let failed = json!({"phase": "Failed", "message": "The node was low on resource: memory."});
    cluster.set_pod("tiny-moe-0-rank-1", &failed, None);
    assert_eq!(removed(&cluster.pass()), []);
    cluster.later(10);
    assert_eq!(removed(&cluster.pass()), [("tiny-moe-0-rank-1", Cause::Ended)]);
}

#[test]
fn a_changed_specification_replaces_one_serving_replica_at_a_time() {
    let mut cluster = Cluster::new(TINY);
    cluster.deployment.spec.replicas = 2;
    cluster.settle();
    cluster.deployment.spec.eplb.num_iterations_eplb_update = 200;
    cluster.deployment.metadata.generation = Some(2);
    let first = cluster.pass();
    assert_eq!(first.decision.remove.len(), 5);
    assert!(first.decision.remove.iter().all(|removal| removal.name.starts_with("tiny-moe-0-")));
    assert_eq!(condition(&first.status, "Ready").1, "RollingOut");
    assert_eq!(condition(&first.status, "Available").0, "True");
    // Its pods are created and start; until it serves again, the other is left alone.
    let second = cluster.pass();
    assert_eq!((second.desired.pods.len(), second.decision.remove.len()), (5, 0));
    assert_eq!(cluster.pass().decision.remove.len(), 0);
    cluster.run_pods();
    let third = cluster.pass();
    assert_eq!(third.decision.remove.len(), 5);
    assert!(third.decision.remove.iter().all(|removal| removal.name.starts_with("tiny-moe-1-")));
    let done = cluster.settle();
    assert_eq!(condition(&done.status, "Ready"), ("True", "AllReplicasReady", "2 of 2 replicas serve"));
    assert_eq!(done.status.observed_generation, Some(2));
}

#[test]
fn an_upgrade_of_the_operator_restarts_nothing_and_a_lost_pod_gets_the_image_of_the_others() {
    let mut cluster = Cluster::new(TINY);
    cluster.settle();
    cluster.pods.remove("tiny-moe-0-rank-2");
    let mut observed = cluster.observe();
    observed.runtime_image = "docker.io/swiftbalancer/runtime:2".to_owned();
    let verdict = operator::validate::validate(&cluster.deployment, &observed);
    let decision = operator::decide::decide(&cluster.deployment, &verdict, &observed);
    assert_eq!(decision.remove, []);
    assert_eq!(decision.groups[0].image, "docker.io/swiftbalancer/runtime:1");
}

/// If this fails, an upgrade to this version restarts every pod of every deployment: see `revision`.
#[test]
fn the_revision_of_the_example_is_what_it_always_was() {
    let revision = Cluster::new(TINY).pass().decision.revision.unwrap();
    assert_eq!(revision, "b509934e9b527f39");
}

#[test]
fn what_does_not_concern_pods_does_not_replace_them() {
    let mut cluster = Cluster::new(TINY);
    cluster.settle();
    cluster.deployment.spec.eplb.record.keep = 7;
    cluster.deployment.spec.eplb.max_redundant_experts_per_gpu = 2;
    assert_eq!(removed(&cluster.pass()), []);
    let restarted = (names::RESTARTED_AT.to_owned(), "2026-01-01T00:00:00Z".to_owned());
    cluster.deployment.metadata.annotations = Some([restarted].into());
    assert_eq!(cluster.pass().decision.remove.len(), 5);
}

#[test]
fn fewer_replicas_remove_the_last_ones() {
    let mut cluster = Cluster::new(TINY);
    cluster.deployment.spec.replicas = 2;
    cluster.settle();
    cluster.deployment.spec.replicas = 1;
    let pass = cluster.pass();
    assert_eq!(pass.decision.remove.len(), 5);
    assert!(removed(&pass).iter().all(|(name, cause)| name.starts_with("tiny-moe-1-") && *cause == Cause::Surplus));
    cluster.deployment.spec.replicas = 0;
    let none = cluster.settle();
    assert_eq!(condition(&none.status, "Ready").1, "ScaledToZero");
    assert!(cluster.pods.is_empty());
}

#[test]
fn a_paused_deployment_is_reported_and_not_touched() {
    let mut cluster = Cluster::new(TINY);
    cluster.settle();
    cluster.deployment.spec.paused = true;
    cluster.pods.remove("tiny-moe-0-rank-0");
    let pass = cluster.pass();
    assert!(pass.desired.pods.is_empty());
    assert_eq!(condition(&pass.status, "Progressing").1, "Paused");
}

#[test]
fn an_eviction_may_take_a_replica_only_while_all_others_serve() {
    let mut cluster = Cluster::new(TINY);
    cluster.deployment.spec.replicas = 2;
    cluster.settle();
    let least = |pass: &crate::cluster::Pass| -> Vec<usize> {
        pass.decision.groups.iter().map(|group| group.min_available).collect()
    };
    assert_eq!(least(&cluster.pass()), [0, 0]);
    cluster.set_ready("tiny-moe-1-coordinator", false);
    assert_eq!(least(&cluster.pass()), [5, 0]);
}

#[test]
fn a_checkpoint_that_the_runtime_refuses_is_told_in_its_words() {
    let mut cluster = Cluster::new(TINY);
    cluster.settle();
    let crashed = json!({
        "phase": "Running",
        "podIP": "10.0.0.1",
        "conditions": [{"type": "Ready", "status": "False"}],
        "containerStatuses": [{
            "name": "coordinator", "image": "i", "imageID": "i", "ready": false, "restartCount": 4,
            "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 1m20s"}},
            "lastState": {"terminated": {"exitCode": 1, "message": "INFO start\nError: the checkpoint has 64 experts, not 32\n"}},
        }],
    });
    cluster.set_pod("tiny-moe-0-coordinator", &crashed, None);
    let pass = cluster.pass();
    assert_eq!(
        condition(&pass.status, "Ready"),
        (
            "False",
            "PodFailing",
            "0 of 1 replicas serve; pod tiny-moe-0-coordinator does not stay up: Error: the checkpoint has 64 experts, not 32"
        )
    );
    assert_eq!(condition(&pass.status, "Degraded").1, "PodFailing");
}

#[test]
fn too_few_gpus_hold_no_pod_and_say_how_many_are_missing() {
    let mut cluster = Cluster::new(TINY);
    cluster.deployment.spec.gpus_per_pod = 4;
    for node in ["node-1", "node-2", "node-3"] {
        cluster.set_node(node, true, 1);
    }
    let pass = cluster.pass();
    assert_eq!(pass.desired, operator::build::Desired::default());
    assert_eq!(
        condition(&pass.status, "Ready"),
        (
            "False",
            "InsufficientGPUs",
            "4 nvidia.com/gpu are needed and all nodes together offer 3: add nodes, or lower replicas or parallelism.data"
        )
    );
    cluster.set_node("node-1", true, 2);
    assert_eq!(cluster.pass().desired.pods.len(), 2);
}

#[test]
fn gpus_that_go_missing_take_no_pod_that_serves() {
    let mut cluster = Cluster::new(TINY);
    cluster.deployment.spec.gpus_per_pod = 1;
    cluster.settle();
    for node in ["node-1", "node-2", "node-3"] {
        cluster.set_node(node, true, 0);
    }
    let pass = cluster.pass();
    assert_eq!((removed(&pass), condition(&pass.status, "Ready").1), (vec![], "InsufficientGPUs"));
}

/// Each map that cannot be started from, and what is said of it.
#[test]
fn a_map_that_does_not_fit_holds_no_pod_and_says_what_differs() {
    let document = |change: &dyn Fn(&mut serde_json::Value)| {
        let mut json = serde_json::to_value(map(0)).unwrap();
        change(&mut json);
        Reference::Found(Arc::new(config_map("a-map", &json.to_string())))
    };
    let empty = serde_json::from_value(json!({"metadata": {"name": "a-map"}})).unwrap();
    let table: Vec<(Reference, &str, &str)> = vec![
        (
            Reference::Missing { config_map: "a-map".to_owned() },
            "ExpertMapMissing",
            "ConfigMap a-map of eplb.expertMapRef does not exist in this namespace",
        ),
        (
            Reference::NotRecorded { deployment: "tiny-moe".to_owned() },
            "ExpertMapNotRecorded",
            "MoEDeployment tiny-moe of eplb.expertMapRef does not exist or has not recorded a map yet",
        ),
        (Reference::Found(Arc::new(empty)), "ExpertMapInvalid", "it has no key \"map.json\""),
        (document(&|json| json["version"] = json!("swiftbalancer.io/v9")), "ExpertMapInvalid", "swiftbalancer.io/v9"),
        (document(&|json| json["unknown"] = json!(1)), "ExpertMapInvalid", "unknown"),
        (document(&|json| json["placement"][1][2][3] = json!(99)), "ExpertMapInvalid", "99"),
        (document(&|json| json["model"]["name"] = json!("other")), "ExpertMapIncompatible", "made for model \"other\""),
        (
            document(&|json| json["model"]["experts"] = json!(64)),
            "ExpertMapIncompatible",
            "64 experts per layer, not 32",
        ),
        (document(&|json| json["ranks"] = json!(8)), "ExpertMapIncompatible", "EP size is 8, not 4"),
        (document(&|json| json["slotsPerRank"] = json!(10)), "ExpertMapIncompatible", "10 slots per layer, not 9"),
    ];
    for (reference, reason, message) in table {
        let mut cluster = Cluster::new(WARM);
        cluster.reference = reference;
        let pass = cluster.pass();
        assert_eq!(pass.desired, operator::build::Desired::default(), "{reason}");
        let (status, found, text) = condition(&pass.status, "ExpertMapReady");
        assert_eq!((status, found), ("False", reason), "{text}");
        assert!(text.contains(message), "{text}");
        assert_eq!(condition(&pass.status, "Ready").1, reason);
    }
}

#[test]
fn old_maps_are_let_go_unless_somebody_starts_from_them() {
    let mut cluster = Cluster::new(TINY);
    cluster.deployment.spec.eplb.record.keep = 2;
    cluster.settle();
    let mut recorded_in_turn = Vec::new();
    for shift in 0..4 {
        cluster.later(60);
        cluster.runtimes.insert(0, view(shift as u64, Some(0.97), Some(recorded(shift, 0.98))));
        recorded_in_turn.push(cluster.pass().status.expert_map.unwrap().config_map);
        if shift == 0 {
            // Another deployment starts from the first.
            let first = cluster.maps.get_mut(&recorded_in_turn[0]).unwrap();
            let owners = first.metadata.owner_references.as_mut().unwrap();
            let mut other = owners[0].clone();
            (other.uid, other.controller) = ("uid-of-another".to_owned(), None);
            owners.push(other);
        }
    }
    let kept: Vec<_> = [0, 2, 3].map(|index: usize| recorded_in_turn[index].clone()).into_iter().collect();
    assert!(kept.iter().all(|name| cluster.maps.contains_key(name)), "{:?}", cluster.maps.keys());
    assert_eq!(cluster.maps.len(), 3);
}

#[test]
fn maps_that_follow_each_other_quickly_are_recorded_at_a_bounded_pace() {
    let mut cluster = Cluster::new(TINY);
    cluster.settle();
    cluster.runtimes.insert(0, view(1, Some(0.97), Some(recorded(0, 0.98))));
    cluster.pass();
    cluster.later(10);
    cluster.runtimes.insert(0, view(2, Some(0.97), Some(recorded(1, 0.98))));
    let early = cluster.pass();
    assert!(early.desired.map.is_none());
    assert!(early.decision.look_again <= std::time::Duration::from_secs(21), "{:?}", early.decision.look_again);
    cluster.later(20);
    assert!(cluster.pass().desired.map.is_some());
}
