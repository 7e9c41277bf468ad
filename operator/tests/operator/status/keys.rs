//! What keys of a deployment do to its pods, and where they do not show.

use kube::ResourceExt as _;
use operator::decide::Cause;
use operator::names;

use super::{TINY, removed};
use crate::cluster::{Cluster, condition, keys};

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
