//! Maps that are recorded, kept, started from and let go.

use std::sync::Arc;

use operator::observed::Reference;

use super::{TINY, WARM, removed};
use crate::cluster::{Cluster, condition};
use crate::desired::config_map;
use crate::fake_runtime::{map, recorded, view};

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
