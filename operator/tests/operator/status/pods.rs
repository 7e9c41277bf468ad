//! Which pods are replaced, in which order, and when.

use operator::decide::Cause;
use operator::names;
use serde_json::json;

use super::{TINY, removed};
use crate::cluster::{Cluster, condition};

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

/// A rank that is evicted as soon as it runs; when it was replaced, by seconds since the first time.
fn evicted_over_and_over(cluster: &mut Cluster, seconds: usize) -> Vec<usize> {
    let mut replaced = Vec::new();
    for second in 0..seconds {
        let evicted =
            json!({"phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: memory."});
        cluster.set_pod("tiny-moe-0-rank-1", &evicted, None);
        cluster.set_ready("tiny-moe-0-coordinator", false);
        let pass = cluster.pass();
        if !pass.decision.remove.is_empty() {
            replaced.push(second);
            // Its successor is created when its name is free.
            cluster.pass();
        }
        cluster.later(1);
    }
    replaced
}

#[test]
fn pods_that_end_over_and_over_are_replaced_ever_later_and_begin_anew_when_the_replica_has_served() {
    let mut cluster = Cluster::new(TINY);
    cluster.settle();
    cluster.later(100);
    let replaced = evicted_over_and_over(&mut cluster, 1490);
    let pauses: Vec<_> = replaced.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert_eq!(pauses, [20, 40, 80, 160, 300, 300, 300]);
    assert_eq!(cluster.pass().status.groups[0].replacements.as_ref().unwrap().count, 8);
    cluster.run_pods();
    let served = cluster.settle();
    assert_eq!(served.status.groups[0].replacements.as_ref().unwrap().count, 8);
    cluster.later(601);
    assert_eq!(cluster.pass().status.groups[0].replacements, None);
}

#[test]
fn a_replica_that_used_up_its_restarts_is_told_and_left_until_it_is_changed() {
    let mut cluster = Cluster::new(TINY);
    cluster.deployment.spec.restart_budget = Some(2);
    cluster.settle();
    cluster.later(100);
    assert_eq!(evicted_over_and_over(&mut cluster, 600), [0, 20]);
    let pass = cluster.pass();
    let words = "replica 0: pods that ended for good were replaced 2 times in a row, as often as restartBudget has it, the last was \
                 tiny-moe-0-rank-1: Evicted: The node was low on resource: memory.";
    assert_eq!(condition(&pass.status, "Degraded"), ("True", "RestartBudgetExhausted", words));
    assert_eq!(condition(&pass.status, "Ready").1, "RestartBudgetExhausted");
    cluster.deployment.metadata.generation = Some(2);
    cluster.deployment.spec.eplb.num_iterations_eplb_update = 200;
    cluster.settle();
    assert_eq!(condition(&cluster.settle().status, "Ready").0, "True");
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
    observed.images.cpu = "docker.io/swiftbalancer/runtime:2".to_owned();
    let verdict = operator::validate::validate(&cluster.deployment, &observed);
    let decision = operator::decide::decide(&cluster.deployment, &verdict, &observed);
    assert_eq!(decision.remove, []);
    assert_eq!(decision.groups[0].image, "docker.io/swiftbalancer/runtime:1");
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
fn an_eviction_may_take_a_replica_only_while_all_others_serve() {
    let mut cluster = Cluster::new(TINY);
    cluster.deployment.spec.replicas = 2;
    cluster.settle();
    let least = |pass: &crate::cluster::Pass| -> Vec<usize> { pass.decision.budgets.values().copied().collect() };
    assert_eq!(least(&cluster.pass()), [0, 0]);
    cluster.set_ready("tiny-moe-1-coordinator", false);
    assert_eq!(least(&cluster.pass()), [5, 0]);
}
