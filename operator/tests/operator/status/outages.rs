//! What is done about pods when the cluster loses sight of nodes.

use operator::decide::Cause;

use super::{TINY, removed};
use crate::cluster::{Cluster, condition};
use crate::fake_runtime::view;

const NODES: [&str; 3] = ["node-1", "node-2", "node-3"];

/// The coordinator says now that all its ranks serve.
fn says_that_it_serves(cluster: &mut Cluster) {
    let mut said = view(2, Some(0.95), None);
    said.pod_uid = cluster.pods["tiny-moe-0-coordinator"].metadata.uid.clone().unwrap();
    said.heard = cluster.now;
    cluster.runtimes.insert(0, said);
}

#[test]
fn pods_of_nodes_that_are_all_out_of_sight_stay_and_so_they_do_when_the_nodes_come_back_one_after_the_other() {
    let mut cluster = Cluster::new(TINY);
    cluster.settle();
    for node in NODES {
        cluster.set_node(node, false, 0);
    }
    // The cluster takes pods of such nodes for not ready; a change of the specification rolls nothing meanwhile.
    for pod in cluster.pods.keys().cloned().collect::<Vec<_>>() {
        cluster.set_ready(&pod, false);
    }
    cluster.deployment.spec.eplb.num_iterations_eplb_update = 200;
    for seconds in [5, 10, 300, 600] {
        cluster.later(seconds);
        let pass = cluster.pass();
        assert_eq!((removed(&pass), pass.desired.pods.len()), (vec![], 0), "{seconds}");
        assert_eq!(condition(&pass.status, "Degraded").1, "NodesOutOfReach");
    }
    cluster.deployment.spec.eplb.num_iterations_eplb_update = 400;
    for node in NODES {
        cluster.set_node(node, true, 8);
        assert!(removed(&cluster.pass()).iter().all(|(_, cause)| *cause != Cause::NodeLost));
        cluster.later(15);
    }
    assert_ne!(condition(&cluster.pass().status, "Degraded").1, "NodesOutOfReach");
}

#[test]
fn pods_of_most_nodes_are_given_as_long_as_kubernetes_gives_them() {
    let mut cluster = Cluster::new(TINY);
    cluster.settle();
    cluster.set_node("node-1", false, 0);
    cluster.set_node("node-2", false, 0);
    cluster.later(299);
    let waiting = cluster.pass();
    assert_eq!(removed(&waiting), []);
    assert_eq!(condition(&waiting.status, "Degraded").1, "NodesOutOfReach");
    assert!(waiting.decision.look_again <= std::time::Duration::from_secs(2), "{:?}", waiting.decision.look_again);
    cluster.later(1);
    assert_eq!(removed(&cluster.pass()).len(), 4);
}

#[test]
fn a_replica_that_answers_is_left_alone_and_one_that_stops_answering_is_not() {
    let mut cluster = Cluster::new(TINY);
    cluster.settle();
    cluster.set_node("node-2", false, 0);
    for _ in 0..30 {
        cluster.later(10);
        says_that_it_serves(&mut cluster);
        let pass = cluster.pass();
        assert_eq!(removed(&pass), []);
    }
    let told = cluster.pass();
    let words =
        "the node of pod tiny-moe-0-rank-0 is out of reach and its replica answers requests: it is left as it is";
    assert_eq!(condition(&told.status, "Degraded"), ("True", "NodesOutOfReach", words));
    cluster.later(14);
    assert_eq!(removed(&cluster.pass()), []);
    cluster.later(2);
    assert_eq!(removed(&cluster.pass()).len(), 2);
}

#[test]
fn a_replica_whose_coordinator_says_that_it_does_not_serve_or_is_another_pod_keeps_no_lost_pod() {
    for is_another in [true, false] {
        let mut cluster = Cluster::new(TINY);
        cluster.settle();
        cluster.set_node("node-2", false, 0);
        cluster.later(11);
        says_that_it_serves(&mut cluster);
        let said = cluster.runtimes.get_mut(&0).unwrap();
        if is_another {
            said.pod_uid = "another".to_owned();
        } else {
            std::sync::Arc::make_mut(&mut said.state).ready = false;
        }
        assert_eq!(removed(&cluster.pass()).len(), 2);
    }
}

#[test]
fn a_node_that_was_removed_takes_its_pods_with_it_whatever_answers() {
    let mut cluster = Cluster::new(TINY);
    cluster.settle();
    cluster.nodes.remove("node-2");
    says_that_it_serves(&mut cluster);
    assert_eq!(removed(&cluster.pass()).len(), 2);
}
