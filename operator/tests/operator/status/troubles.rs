//! What is told of pods that cannot start, do not end, or have nowhere to be, and what is done about them.

use kube::ResourceExt as _;
use operator::decide::Cause;
use serde_json::{Value, json};

use super::{TINY, removed};
use crate::cluster::{Cluster, condition};

/// The first coordinator with a status of its own, so many seconds later.
fn coordinator_with(status: &Value, seconds: i64) -> Cluster {
    let mut cluster = Cluster::new(TINY);
    cluster.pass();
    cluster.set_pod("tiny-moe-0-coordinator", status, Some("node-1"));
    cluster.later(seconds);
    cluster
}

fn waiting(reason: &str, message: &str) -> Value {
    json!({
        "name": "coordinator", "image": "docker.io/typo/runtime:1", "imageID": "", "ready": false, "restartCount": 0,
        "started": false, "state": {"waiting": {"reason": reason, "message": message}},
    })
}

fn unschedulable(since: &str, why: &str) -> Value {
    json!({"phase": "Pending", "conditions": [
        {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": why, "lastTransitionTime": since},
    ]})
}

const START: &str = "2026-01-01T01:00:00Z";

#[test]
fn containers_that_are_not_created_are_told_with_the_time_since_and_what_to_look_at() {
    let placed = json!({"type": "PodScheduled", "status": "True", "lastTransitionTime": START});
    let creating =
        json!({"phase": "Pending", "conditions": [placed], "containerStatuses": [waiting("ContainerCreating", "")]});
    let soon = coordinator_with(&creating, 119).pass();
    assert_eq!(condition(&soon.status, "Ready").1, "WaitingForPods");
    let mut cluster = coordinator_with(&creating, 120);
    let late = cluster.pass();
    let words = "pod tiny-moe-0-coordinator has a node, and its containers are not created since 2026-01-01T01:00:00Z: an image \
                 is pulled or a volume cannot be mounted, as kubectl describe pod tiny-moe-0-coordinator tells";
    let ready = format!("0 of 1 replicas serve; {words}");
    assert_eq!(condition(&late.status, "Ready"), ("False", "ContainersNotCreated", ready.as_str()));
    assert_eq!(condition(&late.status, "Degraded"), ("True", "ContainersNotCreated", words));
    assert_eq!(late.notices.iter().map(|notice| notice.reason).collect::<Vec<_>>(), ["ContainersNotCreated"]);
    cluster.later(100);
    assert_eq!(cluster.pass().status, late.status);
}

#[test]
fn a_pod_that_a_gate_holds_back_is_told_as_such() {
    let gated = json!({"phase": "Pending", "conditions": [{
        "type": "PodScheduled", "status": "False", "reason": "SchedulingGated", "message": "blocked", "lastTransitionTime": START,
    }]});
    let mut cluster = Cluster::new(TINY);
    cluster.pass();
    cluster.set_pod("tiny-moe-0-coordinator", &gated, None);
    let spec = cluster.pods.get_mut("tiny-moe-0-coordinator").unwrap().spec.as_mut().unwrap();
    spec.scheduling_gates = Some(vec![serde_json::from_value(json!({"name": "kueue.x-k8s.io/admission"})).unwrap()]);
    let words = "0 of 1 replicas serve; pod tiny-moe-0-coordinator is held back by the scheduling gate kueue.x-k8s.io/admission";
    assert_eq!(condition(&cluster.pass().status, "Ready"), ("False", "SchedulingGated", words));
}

#[test]
fn a_pod_without_a_node_is_a_degradation_once_an_autoscaler_has_had_its_time() {
    let mut cluster = Cluster::new(TINY);
    cluster.pass();
    let why = |nodes: usize| format!("0/{nodes} nodes are available: {nodes} Insufficient memory.");
    cluster.set_pod("tiny-moe-0-coordinator", &unschedulable(START, &why(3)), None);
    let soon = cluster.pass();
    assert_eq!(condition(&soon.status, "Ready").1, "Unschedulable");
    assert_eq!(condition(&soon.status, "Degraded").1, "AsExpected");
    cluster.later(60);
    let late = cluster.pass();
    assert_eq!(condition(&late.status, "Degraded").1, "Unschedulable");
    assert_eq!(late.notices.iter().map(|notice| notice.reason).collect::<Vec<_>>(), ["Unschedulable"]);
    // The scheduler counts anew; it says the same.
    cluster.set_pod("tiny-moe-0-coordinator", &unschedulable(START, &why(4)), None);
    assert_eq!(cluster.pass().status, late.status);
    cluster.set_pod("tiny-moe-0-coordinator", &unschedulable(START, "no such priority"), None);
    assert!(condition(&cluster.pass().status, "Ready").2.ends_with("no such priority"));
}

#[test]
fn an_image_that_cannot_be_pulled_writes_one_status_however_the_kubelet_turns() {
    let status =
        |reason: &str, message: &str| json!({"phase": "Pending", "containerStatuses": [waiting(reason, message)]});
    let mut cluster = coordinator_with(&status("ErrImagePull", "reading manifest: not found"), 1);
    let first = cluster.pass();
    let (_, reason, message) = condition(&first.status, "Ready");
    assert_eq!(reason, "PodFailing");
    assert!(
        message.ends_with("its image docker.io/typo/runtime:1 cannot be pulled: the registry does not have it"),
        "{message}"
    );
    for turn in ["ImagePullBackOff", "ErrImagePull", "ImagePullBackOff"] {
        cluster.set_pod(
            "tiny-moe-0-coordinator",
            &status(turn, "Back-off pulling image: ErrImagePull: not found"),
            None,
        );
        let pass = cluster.pass();
        assert_eq!((pass.status, pass.notices), (first.status.clone(), vec![]));
    }
}

#[test]
fn nothing_that_comes_further_for_the_deadline_is_told_with_an_event() {
    let running = json!({"phase": "Running", "containerStatuses": [{
        "name": "coordinator", "image": "i", "imageID": "", "ready": false, "restartCount": 0, "started": false,
        "state": {"running": {}},
    }]});
    let mut cluster = coordinator_with(&running, 0);
    cluster.deployment.spec.progress_deadline_seconds = 600;
    cluster.later(599);
    assert_eq!(condition(&cluster.pass().status, "Progressing").0, "True");
    cluster.later(1);
    let pass = cluster.pass();
    let words = "no pod has come further since 2026-01-01T01:00:00Z: see the condition Ready";
    assert_eq!(condition(&pass.status, "Progressing"), ("False", "ProgressDeadlineExceeded", words));
    let told: Vec<_> = pass.notices.iter().map(|notice| (notice.reason, notice.warning)).collect();
    assert_eq!(told, [("ProgressDeadlineExceeded", true)]);
    cluster.run_pods();
    cluster.settle();
    assert_eq!(condition(&cluster.pass().status, "Progressing").1, "Complete");
}

#[test]
fn a_coordinator_that_does_not_end_lets_its_ranks_go_and_is_told() {
    let mut cluster = Cluster::new(TINY);
    cluster.settle();
    let coordinator = cluster.pods.get_mut("tiny-moe-0-coordinator").unwrap();
    let ends = serde_json::from_value(json!("2026-01-01T01:00:30Z")).unwrap();
    coordinator.metadata.deletion_timestamp = Some(ends);
    coordinator.metadata.finalizers = Some(vec!["example.dev/hold".to_owned()]);
    cluster.deployment.spec.eplb.num_iterations_eplb_update = 200;
    cluster.later(89);
    let waiting = cluster.pass();
    assert_eq!(removed(&waiting), []);
    assert!(waiting.decision.look_again <= std::time::Duration::from_secs(2), "{:?}", waiting.decision.look_again);
    cluster.later(1);
    let pass = cluster.pass();
    assert_eq!(pass.decision.remove.len(), 4);
    assert!(removed(&pass).iter().all(|(name, cause)| name.contains("-rank-") && *cause == Cause::Outdated));
    let (_, reason, message) = condition(&pass.status, "Ready");
    assert_eq!(reason, "PodNotEnding");
    assert!(message.contains("pod tiny-moe-0-coordinator should have ended by 2026-01-01T01:01:30Z"), "{message}");
    assert_eq!(condition(&pass.status, "Degraded").1, "PodNotEnding");
    // It says the same for as long as it takes.
    cluster.later(3600);
    assert_eq!(condition(&cluster.pass().status, "Degraded").1, "PodNotEnding");
}

#[test]
fn pods_that_never_started_get_the_image_of_a_corrected_operator_and_those_that_did_keep_theirs() {
    let right = "docker.io/swiftbalancer/runtime:1";
    let image =
        |cluster: &Cluster, pod: &str| cluster.pods[pod].spec.as_ref().unwrap().containers[0].image.clone().unwrap();
    let mut cluster = Cluster::new(TINY);
    cluster.images.cpu = "docker.io/typo/runtime:1".to_owned();
    cluster.pass();
    let stuck = json!({"phase": "Pending", "containerStatuses": [waiting("ImagePullBackOff", "")]});
    cluster.set_pod("tiny-moe-0-coordinator", &stuck, Some("node-1"));
    assert_eq!(removed(&cluster.pass()), []);
    cluster.images.cpu = right.to_owned();
    let pass = cluster.pass();
    assert_eq!(removed(&pass), [("tiny-moe-0-coordinator", Cause::NeverStarted)]);
    assert_eq!(pass.notices[0].note, "replacing pods that never started, with another image: tiny-moe-0-coordinator");
    cluster.settle();
    assert_eq!(image(&cluster, "tiny-moe-0-coordinator"), right);
    // A replica of which something has started keeps its image, also when its coordinator starts over.
    cluster.images.cpu = "docker.io/swiftbalancer/runtime:2".to_owned();
    cluster.set_pod("tiny-moe-0-coordinator", &stuck, None);
    cluster.pods.remove("tiny-moe-0-rank-1");
    assert_eq!(removed(&cluster.pass()), []);
    cluster.run_pods();
    cluster.settle();
    assert!(cluster.pods.keys().all(|pod| image(&cluster, pod) == right));
}

#[test]
fn a_sidecar_in_the_first_place_gives_no_rank_its_image() {
    let mut cluster = Cluster::new(TINY);
    cluster.pass();
    let inject = |cluster: &mut Cluster| {
        for pod in cluster.pods.values_mut() {
            let containers = &mut pod.spec.as_mut().unwrap().containers;
            if containers[0].name != "istio-proxy" {
                let proxy = json!({"name": "istio-proxy", "image": "docker.io/istio/proxyv2:1.27.0"});
                containers.insert(0, serde_json::from_value(proxy).unwrap());
            }
        }
    };
    inject(&mut cluster);
    cluster.run_pods();
    let ranks = cluster.pass().desired.pods;
    assert_eq!(ranks.len(), 4);
    for rank in &ranks {
        assert_eq!(
            rank.spec.as_ref().unwrap().containers[0].image.as_deref(),
            Some("docker.io/swiftbalancer/runtime:1")
        );
    }
    inject(&mut cluster);
    cluster.run_pods();
    assert_eq!(condition(&cluster.settle().status, "Ready").0, "True");
}

#[test]
fn a_replica_without_room_does_not_keep_the_others_from_being_rolled() {
    let mut cluster = Cluster::new(TINY);
    cluster.deployment.spec.replicas = 2;
    cluster.settle();
    cluster.deployment.spec.replicas = 3;
    cluster.pass();
    let since = cluster.now.to_string();
    cluster.deployment.spec.eplb.num_iterations_eplb_update = 200;
    // The third is made anew, and waits for room.
    cluster.pass();
    cluster.pass();
    cluster.set_pod("tiny-moe-2-coordinator", &unschedulable(&since, "0/3 nodes are available"), None);
    cluster.later(299);
    assert_eq!(removed(&cluster.pass()), []);
    cluster.later(1);
    assert_eq!(removed(&cluster.pass()), [("tiny-moe-0-coordinator", Cause::Outdated)]);
    // One at a time all the same.
    let more = removed(&cluster.pass()).iter().filter(|(name, _)| name.starts_with("tiny-moe-1-")).count();
    assert_eq!(more, 0);
}

#[test]
fn events_fit_into_what_the_api_server_takes_however_many_pods_they_name() {
    let long = "a".repeat(40);
    let mut cluster = Cluster::new(&TINY.replace("name: tiny-moe\nspec", &format!("name: {long}\nspec")));
    assert_eq!(cluster.deployment.name_any(), long);
    cluster.deployment.spec.replicas = 20;
    cluster.settle();
    cluster.deployment.spec.replicas = 0;
    let pass = cluster.pass();
    let scaled = pass.notices.iter().find(|notice| notice.reason == "ScaledDown").unwrap();
    assert!(scaled.note.len() <= 1024 && scaled.note.ends_with("and 12 more"), "{}", scaled.note);
    // Words of others have bytes beyond ASCII.
    let words = "\u{1d11e}".repeat(900);
    cluster.deployment.spec.replicas = 1;
    cluster.settle();
    let failed = json!({"phase": "Failed", "message": words});
    let name = format!("{long}-0-coordinator");
    cluster.set_pod(&name, &failed, None);
    for notice in cluster.pass().notices {
        assert!(notice.note.len() <= 1024, "{}", notice.note.len());
    }
}

#[test]
fn labels_that_somebody_took_from_a_pod_are_put_back_and_told() {
    for label in [
        "swiftbalancer.io/role",
        "swiftbalancer.io/group",
        "swiftbalancer.io/deployment",
        "app.kubernetes.io/managed-by",
    ] {
        let mut cluster = Cluster::new(TINY);
        cluster.settle();
        cluster.pods.get_mut("tiny-moe-0-coordinator").unwrap().labels_mut().remove(label);
        let pass = cluster.pass();
        assert_eq!((removed(&pass), pass.desired.pods.len()), (vec![], 0), "{label}");
        let told: Vec<_> = pass.notices.iter().map(|notice| notice.reason).collect();
        assert_eq!(told, ["LabelsRestored"]);
        assert!(cluster.pods["tiny-moe-0-coordinator"].labels().contains_key(label));
        assert!(cluster.pass().decision.relabel.is_empty());
        // Who wants a pod out of a Service pauses first.
        cluster.deployment.spec.paused = true;
        cluster.pods.get_mut("tiny-moe-0-coordinator").unwrap().labels_mut().remove(label);
        assert!(cluster.pass().decision.relabel.is_empty());
    }
}
