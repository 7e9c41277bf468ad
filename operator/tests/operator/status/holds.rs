//! What goes on while a specification is refused or a deployment paused, and what is told of it: what is, not what is wished.

use std::sync::Arc;

use kube::ResourceExt as _;
use operator::decide::Cause;
use operator::error::{ApplyError, Failures};
use operator::observed::Reference;

use super::{TINY, removed};
use crate::cluster::{Cluster, Pass, condition};
use crate::fake_runtime::view;

/// The example with so many replicas that serve, and then an edit that cannot be built.
fn refused(replicas: i32) -> Cluster {
    let mut cluster = Cluster::new(TINY);
    cluster.deployment.spec.replicas = replicas;
    cluster.settle();
    let eplb = &mut cluster.deployment.spec.eplb;
    eplb.num_iterations_eplb_update = 200;
    eplb.expert_map_ref = Some(serde_json::from_value(serde_json::json!({"name": "typo"})).unwrap());
    cluster.reference = Reference::Missing { config_map: "typo".to_owned() };
    cluster
}

fn created(pass: &Pass) -> Vec<String> {
    pass.desired.pods.iter().map(kube::ResourceExt::name_any).collect()
}

#[test]
fn what_was_accepted_is_healed_while_an_edit_of_it_is_refused() {
    let mut cluster = refused(1);
    let args = cluster.pods["tiny-moe-0-rank-2"].spec.clone();
    let pass = cluster.pass();
    assert_eq!((removed(&pass), created(&pass)), (vec![], vec![]));
    cluster.pods.remove("tiny-moe-0-rank-2");
    cluster.set_ready("tiny-moe-0-coordinator", false);
    let pass = cluster.pass();
    assert_eq!(created(&pass), ["tiny-moe-0-rank-2"]);
    assert_eq!(pass.desired.pods[0].spec.as_ref().unwrap().containers, args.unwrap().containers);
    assert_eq!(condition(&pass.status, "Ready").1, "ExpertMapMissing");
    assert_eq!(condition(&pass.status, "Progressing").1, "Blocked");
    assert!(!pass.status.groups[0].updated, "its pods are not of what is asked for");
    // The same over a restart of the operator, which knows no more than the cluster does; and a lost node.
    cluster.run_pods();
    cluster.nodes.remove("node-2");
    let lost = cluster.pass();
    assert!(!removed(&lost).is_empty() && removed(&lost).iter().all(|(_, cause)| *cause == Cause::NodeLost));
    cluster.set_node("node-2", true, 8);
    cluster.settle();
    // What is corrected is rolled out.
    cluster.deployment.spec.eplb.expert_map_ref = None;
    cluster.reference = Reference::None;
    assert_eq!(removed(&cluster.pass()), [("tiny-moe-0-coordinator", Cause::Outdated)]);
}

#[test]
fn a_refused_deployment_is_scaled_in_both_directions() {
    let mut cluster = refused(1);
    cluster.deployment.spec.replicas = 2;
    assert_eq!(created(&cluster.pass()), ["tiny-moe-1-coordinator"]);
    cluster.settle();
    cluster.deployment.spec.replicas = 0;
    assert_eq!(
        removed(&cluster.pass()),
        [("tiny-moe-0-coordinator", Cause::Surplus), ("tiny-moe-1-coordinator", Cause::Surplus)]
    );
    cluster.settle();
    assert!(cluster.pods.is_empty());
}

#[test]
fn what_was_never_accepted_by_this_release_is_scaled_down_and_not_built() {
    let mut cluster = refused(2);
    cluster.deployment.status.as_mut().unwrap().accepted = None;
    cluster.pods.remove("tiny-moe-0-rank-2");
    let pass = cluster.pass();
    assert_eq!((removed(&pass), created(&pass)), (vec![], vec![]));
    // Evictions are still held to what the replicas do.
    cluster.set_ready("tiny-moe-0-coordinator", false);
    assert_eq!(cluster.pass().decision.budgets, [(0, 0), (1, 5)].into());
    cluster.deployment.spec.replicas = 0;
    cluster.settle();
    assert!(cluster.pods.is_empty());
}

#[test]
fn a_paused_deployment_keeps_every_pod_and_its_budgets_follow_what_serves() {
    let mut cluster = Cluster::new(TINY);
    cluster.deployment.spec.replicas = 2;
    cluster.settle();
    cluster.deployment.spec.paused = true;
    for replicas in [2, 0, 3] {
        cluster.deployment.spec.replicas = replicas;
        let pass = cluster.pass();
        assert_eq!((removed(&pass), created(&pass)), (vec![], vec![]), "{replicas}");
        assert_eq!((pass.status.replicas, pass.status.ready_replicas), (2, 2), "{replicas}");
        assert_eq!(condition(&pass.status, "Progressing").1, "Paused");
        assert_eq!(condition(&pass.status, "Available"), ("True", "ReplicaReady", "requests are answered"));
    }
    assert_eq!(condition(&cluster.pass().status, "Ready").1, "Paused");
    cluster.deployment.spec.replicas = 2;
    cluster.set_ready("tiny-moe-1-coordinator", false);
    let pass = cluster.pass();
    assert_eq!(pass.decision.budgets, [(0, 5), (1, 0)].into());
    assert_eq!(pass.desired.budgets.len(), 2);
}

#[test]
fn a_deployment_paused_from_the_start_says_that_it_is() {
    let mut cluster = Cluster::new(TINY);
    cluster.deployment.spec.paused = true;
    let pass = cluster.pass();
    assert!(pass.desired.pods.is_empty());
    let words = "0 of 1 replicas serve; spec.paused is true: no pod is created or replaced";
    assert_eq!(condition(&pass.status, "Ready"), ("False", "Paused", words));
}

#[test]
fn pods_that_end_are_told_until_they_are_gone_and_nothing_is_measured_of_none() {
    let mut cluster = Cluster::new(TINY);
    cluster.settle();
    cluster.runtimes.insert(0, view(34, Some(0.92), None));
    assert_eq!(cluster.pass().status.ratio.as_deref(), Some("0.92"));
    cluster.deployment.spec.replicas = 0;
    let observed = cluster.observe();
    let ending = cluster.failed_pass(Failures::default());
    assert_eq!(observed.members.len(), 5);
    assert_eq!((ending.status.replicas, ending.status.groups.len()), (1, 1));
    assert_eq!(condition(&ending.status, "Ready").1, "ScalingDown");
    assert_eq!(
        condition(&ending.status, "Progressing"),
        ("True", "ScalingDown", "pods that are no longer asked for are ending")
    );
    let gone = cluster.settle();
    cluster.runtimes.clear();
    let gone = if cluster.pods.is_empty() { cluster.pass() } else { gone };
    assert_eq!((gone.status.replicas, gone.status.ratio, gone.status.epoch), (0, None, None));
    let gone = cluster.pass();
    assert_eq!(condition(&gone.status, "Ready"), ("True", "ScaledToZero", "no replicas are asked for"));
    assert_eq!(condition(&gone.status, "Progressing").1, "Complete");
    assert_eq!(condition(&gone.status, "Balanced").1, "NotMeasured");
}

#[test]
fn what_a_failed_pass_did_not_do_is_not_told_as_done() {
    let mut cluster = Cluster::new(TINY);
    cluster.settle();
    cluster.deployment.spec.replicas = 0;
    cluster.deployment.metadata.generation = Some(2);
    let error = ApplyError::NameConflict { kind: "Service".to_owned(), name: "x".to_owned() };
    let failures = Failures { serving: Some(Arc::new(error)), maps: None };
    let pass = cluster.failed_pass(failures);
    assert_eq!((pass.status.replicas, pass.status.observed_generation), (1, Some(1)));
    assert_eq!(condition(&pass.status, "Ready").1, "ScalingDown");
    assert_eq!(condition(&pass.status, "Progressing").1, "Blocked");
    assert_eq!(condition(&pass.status, "Available").0, "True");
    assert!(pass.notices.iter().all(|notice| notice.reason != "ScaledDown"), "{:?}", pass.notices);
}

#[test]
fn a_map_that_cannot_be_stored_is_told_and_is_no_fault_of_what_serves() {
    let mut cluster = Cluster::new(TINY);
    cluster.settle();
    let error = ApplyError::NameConflict { kind: "ConfigMap".to_owned(), name: "x".to_owned() };
    let pass = cluster.failed_pass(Failures { serving: None, maps: Some(Arc::new(error)) });
    assert_eq!(condition(&pass.status, "Degraded").1, "ExpertMapNotStored");
    assert_eq!(condition(&pass.status, "Ready").0, "True");
    assert_eq!(condition(&pass.status, "Progressing").1, "Complete");
    assert_eq!(pass.status.observed_generation, cluster.deployment.metadata.generation);
}

#[test]
fn a_condition_keeps_its_time_until_its_status_turns() {
    let mut cluster = Cluster::new(TINY);
    let time = |pass: &Pass| {
        let ready = pass.status.conditions.iter().find(|condition| condition.type_ == "Ready").unwrap();
        (ready.reason.clone(), ready.last_transition_time.0)
    };
    let start = cluster.now;
    assert_eq!(time(&cluster.pass()), ("WaitingForPods".to_owned(), start));
    cluster.later(100);
    cluster.deployment.spec.paused = true;
    assert_eq!(time(&cluster.pass()), ("Paused".to_owned(), start));
    cluster.deployment.spec.paused = false;
    cluster.run_pods();
    cluster.settle();
    let done = cluster.pass();
    assert_eq!(time(&done), ("AllReplicasReady".to_owned(), start + jiff::SignedDuration::from_secs(100)));
}

#[test]
fn what_is_accepted_is_kept_without_what_is_scaled_and_paused() {
    let mut cluster = Cluster::new(TINY);
    let first = cluster.pass().status.accepted.unwrap();
    cluster.deployment.spec.replicas = 5;
    cluster.deployment.spec.paused = true;
    assert_eq!(cluster.pass().status.accepted.unwrap(), first);
    assert_eq!((first.spec.get("replicas"), first.spec.get("paused")), (None, None));
    assert_eq!(cluster.deployment.name_any(), "tiny-moe");
}
