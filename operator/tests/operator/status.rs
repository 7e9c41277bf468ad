//! What is decided and told when something happens.

use std::fmt::Write as _;
use std::sync::Arc;

use insta::{assert_snapshot, assert_yaml_snapshot};
use kube::ResourceExt as _;
use operator::decide::Cause;
use operator::host_paths::AllowedHostPaths;
use operator::names;
use operator::observed::{Reference, Unreadable};
use operator::runtime_client::{LARGEST_STATE, RuntimeError};
use operator::words;
use plan::wire::process::LastWord;
use plan::wire::{Phase, RecordedMap, State, path};
use serde_json::{Value, json};

use crate::cluster::{Cluster, Pass, condition, keys};
use crate::desired::config_map;
use crate::fake_runtime::{map, recorded, state, view};

const TINY: &str = include_str!("../../../examples/tiny-moe.yaml");
const WARM: &str = include_str!("../../../examples/tiny-moe-warm.yaml");

fn removed(pass: &Pass) -> Vec<(&str, Cause)> {
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
    moving.phase = Phase::Moving.into();
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
    assert_eq!(removed(&first), [("tiny-moe-0-coordinator", Cause::Outdated)]);
    assert_eq!(condition(&first.status, "Ready").1, "RollingOut");
    assert_eq!(condition(&first.status, "Available").0, "True");
    let ranks = cluster.pass();
    assert_eq!(ranks.decision.remove.len(), 4);
    assert!(ranks.decision.remove.iter().all(|removal| removal.name.starts_with("tiny-moe-0-rank-")));
    // Its pods are created and start; until it serves again, the other is left alone.
    for created in [1, 4] {
        let second = cluster.pass();
        assert_eq!((second.desired.pods.len(), second.decision.remove.len()), (created, 0));
        assert_eq!(cluster.pass().decision.remove.len(), 0);
        cluster.run_pods();
    }
    assert_eq!(removed(&cluster.pass()), [("tiny-moe-1-coordinator", Cause::Outdated)]);
    let done = cluster.settle();
    assert_eq!(condition(&done.status, "Ready"), ("True", "AllReplicasReady", "2 of 2 replicas serve"));
    assert_eq!(done.status.observed_generation, Some(2));
}

#[test]
fn ranks_stay_until_their_coordinator_has_let_its_requests_end() {
    let mut cluster = Cluster::new(TINY);
    cluster.settle();
    cluster.deployment.spec.parallelism.data = 2;
    cluster.deployment.spec.eplb.init_redundancy_expert = 2;
    let mut observed = cluster.observe();
    let verdict = operator::validate::validate(&cluster.deployment, &observed);
    let names = |observed: &operator::observed::Observed| -> Vec<String> {
        let decision = operator::decide::decide(&cluster.deployment, &verdict, observed);
        assert!(decision.groups[0].create.is_empty(), "{:?}", decision.groups);
        decision.remove.into_iter().map(|removal| removal.name).collect()
    };
    assert_eq!(names(&observed), ["tiny-moe-0-coordinator"]);
    // It is told to go, takes no more requests and lets those that run end.
    let coordinator = observed.members.get_mut("tiny-moe-0-coordinator").unwrap();
    (coordinator.deleting, coordinator.ready) = (true, false);
    assert_eq!(names(&observed), Vec::<String>::new());
    observed.members.remove("tiny-moe-0-coordinator");
    assert_eq!(names(&observed), ["tiny-moe-0-rank-0", "tiny-moe-0-rank-1", "tiny-moe-0-rank-2", "tiny-moe-0-rank-3"]);
}

#[test]
fn pods_of_a_replica_that_does_not_serve_are_replaced_all_at_once() {
    let mut cluster = Cluster::new(TINY);
    cluster.settle();
    cluster.set_ready("tiny-moe-0-coordinator", false);
    cluster.deployment.spec.eplb.num_iterations_eplb_update = 200;
    assert_eq!(cluster.pass().decision.remove.len(), 5);
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
fn the_revision_of_the_example_with_certain_keys_is_what_it_always_was() {
    assert_eq!(Cluster::new(TINY).pass().decision.groups[0].wanted.revision, "c9205ced7296a6f4");
}

/// The example as a release left it that knew no keys, with the revision that it gave its pods.
fn of_a_release_without_keys() -> Cluster {
    let mut cluster = Cluster::new(TINY);
    cluster.settle();
    cluster.keys = None;
    for pod in cluster.pods.values_mut() {
        pod.annotations_mut().insert(names::REVISION.to_owned(), "b509934e9b527f39".to_owned());
    }
    cluster
}

#[test]
fn pods_of_a_release_without_keys_go_on_and_one_that_is_lost_comes_back_as_it_was() {
    let mut cluster = of_a_release_without_keys();
    cluster.pods.remove("tiny-moe-0-rank-2");
    cluster.set_ready("tiny-moe-0-coordinator", false);
    let pass = cluster.pass();
    assert_eq!(removed(&pass), []);
    let [pod] = pass.desired.pods.as_slice() else { panic!("{:?}", pass.desired.pods) };
    assert_eq!(pod.annotations()[names::REVISION], "b509934e9b527f39");
    let json = serde_json::to_string(pod).unwrap();
    assert!(!json.contains("keys") && !json.contains("--secret-file"), "{json}");
    cluster.run_pods();
    assert_eq!(condition(&cluster.pass().status, "Ready").1, "AllReplicasReady");
}

#[test]
fn pods_of_a_release_without_keys_get_them_with_the_next_restart_or_rotation() {
    for annotation in [names::RESTARTED_AT, names::ROTATE_KEYS] {
        let mut cluster = of_a_release_without_keys();
        cluster.pass();
        cluster.deployment.metadata.annotations = Some([(annotation.to_owned(), "1".to_owned())].into());
        assert_eq!(removed(&cluster.pass()), [("tiny-moe-0-coordinator", Cause::Outdated)], "{annotation}");
        cluster.settle();
        for pod in cluster.pods.values() {
            let json = serde_json::to_string(pod).unwrap();
            assert!(json.contains("--secret-file") && json.contains("tiny-moe-keys"), "{annotation}: {json}");
        }
    }
}

#[test]
fn other_keys_replace_one_serving_replica_at_a_time() {
    let mut cluster = Cluster::new(TINY);
    cluster.deployment.spec.replicas = 2;
    cluster.settle();
    let before = cluster.keys.clone();
    assert_eq!(cluster.pass().decision.keys, None);
    cluster.deployment.metadata.annotations = Some([(names::ROTATE_KEYS.to_owned(), "1".to_owned())].into());
    cluster.deployment.spec.paused = true;
    let paused = cluster.pass();
    assert_eq!((removed(&paused), cluster.keys.clone()), (vec![], before.clone()));
    cluster.deployment.spec.paused = false;
    let first = cluster.pass();
    assert_eq!(removed(&first), [("tiny-moe-0-coordinator", Cause::Outdated)]);
    assert!(cluster.keys != before && cluster.keys.as_ref().unwrap().rotation.as_deref() == Some("1"));
    let rotated = cluster.keys.clone();
    assert_eq!(condition(&first.status, "Ready").1, "RollingOut");
    cluster.pass();
    // A pod of the other replica that is lost meanwhile cannot come back beside the old ones: all of it is replaced.
    cluster.pods.remove("tiny-moe-1-rank-0");
    cluster.set_ready("tiny-moe-1-coordinator", false);
    let lost = cluster.pass();
    assert_eq!(lost.decision.remove.iter().filter(|removal| removal.name.starts_with("tiny-moe-1-")).count(), 4);
    let done = cluster.settle();
    assert_eq!(condition(&done.status, "Ready"), ("True", "AllReplicasReady", "2 of 2 replicas serve"));
    assert_eq!(cluster.keys, rotated);
    // The demand stays on the deployment, and is met.
    assert_eq!(cluster.pass().decision.keys, None);
    cluster.deployment.metadata.annotations = None;
    assert_eq!((removed(&cluster.pass()), cluster.keys.clone()), (vec![], rotated));
}

#[test]
fn keys_that_are_restored_restart_nothing_and_those_that_are_edited_do() {
    let mut cluster = Cluster::new(TINY);
    cluster.settle();
    cluster.keys.as_mut().unwrap().uid = "secret-9".to_owned();
    assert_eq!(removed(&cluster.pass()), []);
    cluster.keys.as_mut().unwrap().keys = Some(keys(77));
    let pass = cluster.pass();
    assert_eq!((removed(&pass), pass.decision.keys.clone()), (vec![("tiny-moe-0-coordinator", Cause::Outdated)], None));
}

#[test]
fn no_status_event_or_object_shows_a_key() {
    let mut cluster = Cluster::new(TINY);
    let pass = cluster.pass();
    assert!(pass.desired.keys.is_some());
    let told = format!(
        "{:?} {:?} {:?} {:?} {}",
        cluster.observe(),
        pass.decision,
        pass.status,
        pass.notices,
        serde_json::to_string(&pass.desired).unwrap()
    );
    let value = "00".repeat(32);
    let encoded = "MDAwMDAw";
    assert!(!told.contains(&value) && !told.contains(encoded) && !format!("{:?}", pass.desired).contains(&value));
}

#[test]
fn a_folder_that_is_no_longer_allowed_takes_no_pod_that_runs_and_gives_none_to_others() {
    let mut cluster = Cluster::new(TINY);
    cluster.deployment.spec.model.source = host_path("/srv/models/tiny");
    cluster.allowed_host_paths = AllowedHostPaths::new(vec!["/srv/models".parse().unwrap()]);
    cluster.settle();
    cluster.allowed_host_paths = AllowedHostPaths::default();
    cluster.pods.remove("tiny-moe-0-rank-2");
    let pass = cluster.pass();
    assert_eq!((removed(&pass), pass.desired.clone()), (vec![], operator::build::Desired::default()));
    assert_eq!(condition(&pass.status, "SpecValid").1, "HostPathNotAllowed");
    cluster.allowed_host_paths = AllowedHostPaths::new(vec!["/srv".parse().unwrap()]);
    assert_eq!(condition(&cluster.settle().status, "SpecValid").1, "Valid");
}

fn host_path(path: &str) -> operator::api::model::ModelSource {
    serde_json::from_value(json!({"type": "HostPath", "hostPath": {"path": path}})).unwrap()
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
    assert_eq!(removed(&cluster.pass()), [("tiny-moe-0-coordinator", Cause::Outdated)]);
}

#[test]
fn fewer_replicas_remove_the_last_ones() {
    let mut cluster = Cluster::new(TINY);
    cluster.deployment.spec.replicas = 2;
    cluster.settle();
    cluster.deployment.spec.replicas = 1;
    assert_eq!(removed(&cluster.pass()), [("tiny-moe-1-coordinator", Cause::Surplus)]);
    let pass = cluster.pass();
    assert_eq!(pass.decision.remove.len(), 4);
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
fn ranks_come_when_their_coordinator_has_found_checkpoint_and_map_right() {
    let mut cluster = Cluster::new(TINY);
    let created = |pass: &Pass| -> Vec<String> { pass.desired.pods.iter().map(kube::ResourceExt::name_any).collect() };
    assert_eq!(created(&cluster.pass()), ["tiny-moe-0-coordinator"]);
    let reading = cluster.pass();
    assert_eq!(created(&reading), Vec::<String>::new());
    assert_eq!(
        condition(&reading.status, "Ready").2,
        "0 of 1 replicas serve; replica 0: its coordinator reads the checkpoint, the rank pods come after that"
    );
    cluster.run_pods();
    assert_eq!(created(&cluster.pass()), [0, 1, 2, 3].map(|rank| format!("tiny-moe-0-rank-{rank}")));
    // One that is lost later is replaced although its coordinator is not ready without it.
    cluster.run_pods();
    cluster.pods.remove("tiny-moe-0-rank-2");
    cluster.set_ready("tiny-moe-0-coordinator", false);
    assert_eq!(created(&cluster.pass()), ["tiny-moe-0-rank-2"]);
}

#[test]
fn a_checkpoint_that_the_runtime_refuses_is_told_in_its_words_and_holds_no_rank_pod() {
    let mut cluster = Cluster::new(TINY);
    cluster.pass();
    let crashed = json!({
        "phase": "Running",
        "podIP": "10.0.0.1",
        "conditions": [{"type": "Ready", "status": "False"}],
        "containerStatuses": [{
            "name": "coordinator", "image": "i", "imageID": "i", "ready": false, "restartCount": 4,
            "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 1m20s"}},
            "lastState": {"terminated": {"exitCode": 1, "message": LastWord::new("the checkpoint has 64 experts, not 32").to_json()}},
        }],
    });
    cluster.set_pod("tiny-moe-0-coordinator", &crashed, None);
    let pass = cluster.pass();
    assert_eq!(
        condition(&pass.status, "Ready"),
        (
            "False",
            "PodFailing",
            "0 of 1 replicas serve; pod tiny-moe-0-coordinator does not stay up: the checkpoint has 64 experts, not 32"
        )
    );
    assert_eq!(condition(&pass.status, "Degraded").1, "PodFailing");
    assert_eq!(cluster.pods.len(), 1);
}

#[test]
fn a_rank_that_fails_for_good_is_told_in_its_words_and_not_restarted() {
    let mut cluster = Cluster::new(TINY);
    cluster.settle();
    cluster.set_ready("tiny-moe-0-coordinator", false);
    let why = "rank 2 cannot serve its checkpoint: model.safetensors is corrupt or truncated";
    let mut failed = state(0, None, None);
    (failed.ready, failed.failure) = (false, Some(why.to_owned()));
    let mut said = view(0, None, None);
    said.state = Arc::new(failed);
    cluster.runtimes.insert(0, said);
    let pass = cluster.pass();
    let counted = format!("0 of 1 replicas serve; {why}");
    assert_eq!(condition(&pass.status, "Ready"), ("False", "RankFailed", counted.as_str()));
    assert_eq!(condition(&pass.status, "Degraded"), ("True", "RankFailed", why));
    assert_eq!(condition(&pass.status, "Progressing").1, "Blocked");
    assert_eq!((removed(&pass), pass.desired.pods.len()), (vec![], 0));
    assert_eq!(pass.notices.iter().map(|notice| notice.reason).collect::<Vec<_>>(), ["RankFailed"]);
    cluster.later(3600);
    let later = cluster.pass();
    assert_eq!((later.status, later.notices), (pass.status, vec![]));
}

#[test]
fn gpus_are_refused_before_there_are_replicas_that_hold_them() {
    let mut cluster = Cluster::new(TINY);
    (cluster.deployment.spec.gpus_per_pod, cluster.deployment.spec.replicas) = (1, 0);
    assert_eq!(condition(&cluster.pass().status, "Ready").1, "GPUsNotSupported");
}

#[test]
fn gpus_asked_for_in_vain_take_no_pod_that_serves() {
    let mut cluster = Cluster::new(TINY);
    cluster.settle();
    cluster.deployment.spec.gpus_per_pod = 1;
    assert_eq!(removed(&cluster.pass()), []);
    for node in ["node-1", "node-2", "node-3"] {
        cluster.set_node(node, true, 0);
    }
    let pass = cluster.pass();
    assert_eq!((removed(&pass), condition(&pass.status, "Ready").1), (vec![], "InsufficientGPUs"));
}

/// What the cluster decides: each specification is consistent, holds no pod all the same, and is told why.
#[test]
fn what_the_cluster_cannot_give_holds_no_pod_and_says_what_is_missing() {
    let document = |change: &dyn Fn(&mut serde_json::Value)| {
        let mut json = serde_json::to_value(map(0)).unwrap();
        change(&mut json);
        Reference::Found(Arc::new(config_map("a-map", &json.to_string())))
    };
    let empty = serde_json::from_value(json!({"metadata": {"name": "a-map"}})).unwrap();
    let maps = [
        ("a ConfigMap that does not exist", Reference::Missing { config_map: "a-map".to_owned() }),
        ("a deployment without a recorded map", Reference::NotRecorded { deployment: "tiny-moe".to_owned() }),
        ("a ConfigMap without a map", Reference::Found(Arc::new(empty))),
        ("a map of a later version", document(&|json| json["version"] = json!("swiftbalancer.io/v9"))),
        ("a map with an unknown field", document(&|json| json["weights"] = json!(1))),
        ("a map with an expert that the model does not have", document(&|json| json["placement"][1][2][3] = json!(99))),
        ("a map with an expert twice on a rank", document(&|json| json["placement"][0][1][0] = json!(9))),
        ("a map with unequal slots", document(&|json| json["placement"][0][1] = json!([1]))),
        ("a map for another model", document(&|json| json["model"]["name"] = json!("other"))),
        ("a map for another number of experts", document(&|json| json["model"]["experts"] = json!(64))),
        ("a map for another EP size", document(&|json| json["ranks"] = json!(8))),
        ("a map for another number of slots", document(&|json| json["slotsPerRank"] = json!(10))),
    ];
    let mut report = String::new();
    for (what, reference) in maps {
        let mut cluster = Cluster::new(WARM);
        cluster.reference = reference;
        let pass = cluster.pass();
        let (status, reason, message) = condition(&pass.status, "ExpertMapReady");
        assert_eq!((status, condition(&pass.status, "Ready").1), ("False", reason), "{what}");
        assert_eq!(pass.desired, operator::build::Desired::default(), "{what}");
        writeln!(report, "{what}: {reason}\n    {message}").unwrap();
    }
    let folders = [
        ("a folder of nodes", "/srv/models/tiny".to_owned(), &[][..]),
        ("a folder beside those that are allowed", "/srv/models-2".to_owned(), &["/srv/models"]),
        ("all of a node", "/".to_owned(), &["/srv/models", "/mnt/models"]),
        ("a long path", format!("/{}", "x/".repeat(250)), &["/srv/models", "/mnt/models", "/data", "/other"]),
    ];
    for (what, path, allowed) in folders {
        let mut cluster = Cluster::new(TINY);
        cluster.deployment.spec.model.source = host_path(&path);
        cluster.allowed_host_paths = AllowedHostPaths::new(allowed.iter().map(|path| path.parse().unwrap()).collect());
        let pass = cluster.pass();
        let (status, reason, message) = condition(&pass.status, "SpecValid");
        assert_eq!((status, condition(&pass.status, "Ready").1), ("False", reason), "{what}");
        assert_eq!(pass.desired, operator::build::Desired::default(), "{what}");
        assert!(message.chars().count() <= 300, "{message}");
        writeln!(report, "{what}: {reason}\n    {message}").unwrap();
    }
    for (what, per_node) in [("too few GPUs", 1), ("GPUs at all", 8)] {
        let mut cluster = Cluster::new(TINY);
        cluster.deployment.spec.gpus_per_pod = 4;
        for node in ["node-1", "node-2", "node-3"] {
            cluster.set_node(node, true, per_node);
        }
        let pass = cluster.pass();
        let (status, reason, message) = condition(&pass.status, "Ready");
        assert_eq!((status, &pass.desired), ("False", &operator::build::Desired::default()), "{what}");
        writeln!(report, "{what}: {reason}\n    {message}").unwrap();
    }
    assert_snapshot!(report);
}

#[test]
fn what_started_from_a_map_is_kept_up_when_the_map_is_gone() {
    let mut cluster = Cluster::new(WARM);
    let found = Reference::Found(Arc::new(config_map("a-map", &serde_json::to_string(&map(0)).unwrap())));
    cluster.reference = found.clone();
    cluster.settle();
    cluster.reference = Reference::Missing { config_map: "a-map".to_owned() };
    cluster.pods.remove("tiny-moe-warm-0-rank-2");
    let pass = cluster.pass();
    assert_eq!((removed(&pass), pass.desired.pods.len()), (vec![], 1));
    assert_eq!(condition(&pass.status, "ExpertMapReady").1, "ExpertMapMissing");
    assert!(pass.decision.look_again <= std::time::Duration::from_secs(10));
    cluster.run_pods();
    let kept = cluster.pass();
    assert_eq!(condition(&kept.status, "Ready").1, "AllReplicasReady");
    // Another specification would need it.
    cluster.deployment.spec.eplb.num_iterations_eplb_update = 200;
    let refused = cluster.pass();
    assert_eq!((removed(&refused), condition(&refused.status, "Ready").1), (vec![], "ExpertMapMissing"));
    cluster.reference = found;
    assert_eq!(condition(&cluster.settle().status, "ExpertMapReady").1, "Resolved");
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

#[test]
fn answers_that_cannot_be_read_say_what_was_found_and_what_to_do() {
    let of_state = |text: &str| RuntimeError::Document {
        path: path::STATE,
        source: State::from_json(text.as_bytes()).unwrap_err(),
    };
    let of_map = |text: &str| RuntimeError::Document {
        path: path::RECORDED_MAP,
        source: RecordedMap::from_json(text.as_bytes()).unwrap_err(),
    };
    let state = |field: &str, value: Value| {
        let mut document = serde_json::to_value(state(4, Some(0.6), None)).unwrap();
        document[field] = value;
        of_state(&document.to_string())
    };
    let map = |field: &str, value: Value| {
        let mut document = serde_json::to_value(recorded(0, 0.98)).unwrap();
        document["map"][field] = value;
        of_map(&document.to_string())
    };
    let answers = [
        ("a state of a later version", state("version", json!("swiftbalancer.io/v2"))),
        ("a state with an epoch that is no number", state("epoch", json!("four"))),
        ("a state without anything", of_state("{}")),
        ("a web page as a state", of_state("<html><body>no such page</body></html>")),
        ("a state that does not end", RuntimeError::TooLarge { path: path::STATE, most: LARGEST_STATE }),
        ("a recorded map of a later version", map("version", json!("swiftbalancer.io/v2"))),
        ("a recorded map with an unknown field", map("weights", json!([1]))),
        ("a recorded map whose ranks are no number", map("ranks", json!("four"))),
    ];
    let mut report = String::new();
    for (what, error) in answers {
        assert!(error.is_unreadable(), "{what}");
        let mut cluster = Cluster::new(TINY);
        cluster.settle();
        let found = words::shorten(&error.to_string());
        cluster.unreadable.insert(0, Unreadable { found, is_map: what.contains("map") });
        let pass = cluster.pass();
        let (status, reason, message) = condition(&pass.status, "Degraded");
        assert_eq!((status, condition(&pass.status, "Ready").0), ("True", "True"), "{what}: requests are answered");
        assert_eq!(pass.notices.iter().map(|notice| notice.reason).collect::<Vec<_>>(), [reason], "{what}");
        writeln!(report, "{what}: {reason}\n    {message}").unwrap();
    }
    assert_snapshot!(report);
}

#[test]
fn an_answer_that_could_not_be_read_stays_told_until_something_is_heard_again() {
    let mut cluster = Cluster::new(TINY);
    cluster.settle();
    cluster.unreadable.insert(0, Unreadable { found: "the answer is no state".to_owned(), is_map: false });
    let told = cluster.pass();
    assert_eq!(condition(&told.status, "Degraded").1, "RuntimeAnswerUnreadable");
    assert_eq!(told.notices.iter().map(|notice| notice.reason).collect::<Vec<_>>(), ["RuntimeAnswerUnreadable"]);
    assert_eq!(condition(&told.status, "Ready").0, "True");
    // The operator starts again and has asked nobody yet.
    cluster.unreadable.clear();
    let after = cluster.pass();
    assert_eq!((after.status, after.notices), (told.status, Vec::new()));
    cluster.runtimes.insert(0, view(2, Some(0.95), None));
    assert_eq!(condition(&cluster.pass().status, "Degraded").1, "AsExpected");
}
