//! The whole controller against an API server in memory: watches, reconciles, polls, writes, and then is quiet.

mod answers;
mod drift;
mod failures;
mod keys;
mod specification;
mod stopping;
mod world;

use std::time::Duration;

use serde_json::json;

pub use self::world::node_object;
pub use self::world::{TINY, WARM, World};
use crate::fake_api::FakeApi;
use crate::fake_runtime::recorded;

#[tokio::test(start_paused = true)]
async fn a_deployment_becomes_ready_is_then_quiet_and_leaves_nothing() {
    let world = World::start();
    let name = world.apply(TINY);
    world.ready(&name).await;
    assert_eq!(world.api.names("pods").len(), 5);
    world.quiet().await;
    world.api.delete("moedeployments", &name);
    world
        .api
        .until("nothing is left", |api| {
            ["secrets", "pods", "services", "serviceaccounts", "poddisruptionbudgets", "configmaps"]
                .iter()
                .all(|kind| api.names(kind).is_empty())
        })
        .await;
    world.quiet().await;
    assert!(world.api.names("pods").is_empty());
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn traffic_that_changes_nothing_that_is_shown_writes_nothing() {
    let world = World::start();
    let name = world.apply(TINY);
    world.ready(&name).await;
    world.runtimes.set("tiny-moe-0-coordinator", 2, 0.95, None);
    world.condition(&name, "Balanced", "True", "LoadEven").await;
    tokio::time::sleep(Duration::from_secs(30)).await;
    let before = world.api.writes();
    for ratio in [0.951, 0.962, 0.943, 0.938] {
        world.runtimes.set("tiny-moe-0-coordinator", 2, ratio, None);
        tokio::time::sleep(Duration::from_secs(10)).await;
    }
    assert_eq!(world.api.writes(), before);
    world.runtimes.set("tiny-moe-0-coordinator", 2, 0.6, None);
    world.condition(&name, "Balanced", "False", "LoadUneven").await;
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_deleted_pod_comes_back_under_its_name() {
    let world = World::start();
    let name = world.apply(TINY);
    world.ready(&name).await;
    let before = world.api.get("pods", "tiny-moe-0-rank-1").unwrap()["metadata"]["uid"].clone();
    world.api.delete("pods", "tiny-moe-0-rank-1");
    world
        .api
        .until("the pod is another one", |api| {
            api.get("pods", "tiny-moe-0-rank-1").is_some_and(|pod| pod["metadata"]["uid"] != before)
        })
        .await;
    world.ready(&name).await;
    world.quiet().await;
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn pods_of_a_lost_node_are_removed_by_force_and_created_again() {
    let world = World::start();
    let name = world.apply(TINY);
    world.ready(&name).await;
    let uid = |api: &FakeApi| api.get("pods", "tiny-moe-0-rank-1").map(|pod| pod["metadata"]["uid"].clone());
    let before = uid(&world.api);
    // Out of reach for a long time by the clock; new pods get another node.
    world.api.edit("pods", "tiny-moe-0-rank-1", |pod| pod["spec"]["nodeName"] = json!("node-2"));
    world.api.put("nodes", node_object("node-2", "Unknown", "2026-01-01T00:00:00Z"));
    world.api.until("the pod is another one", |api| uid(api).is_some() && uid(api) != before).await;
    world.ready(&name).await;
    world.quiet().await;
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_operator_that_does_not_watch_nodes_asks_for_none_and_leaves_pods_of_lost_ones() {
    let world = World::with(false);
    let name = world.apply(TINY);
    world.ready(&name).await;
    let uid = |api: &FakeApi| api.get("pods", "tiny-moe-0-rank-1").map(|pod| pod["metadata"]["uid"].clone());
    let before = uid(&world.api);
    world.api.edit("pods", "tiny-moe-0-rank-1", |pod| pod["spec"]["nodeName"] = json!("node-9"));
    world.api.put("nodes", node_object("node-2", "Unknown", "2026-01-01T00:00:00Z"));
    world.quiet().await;
    assert_eq!(uid(&world.api), before);
    // One that is gone is replaced as everywhere.
    world.api.delete("pods", "tiny-moe-0-rank-1");
    world.api.until("the pod is another one", |api| uid(api).is_some() && uid(api) != before).await;
    world.ready(&name).await;
    let asked: Vec<_> = world.api.calls().into_iter().filter(|call| call.resource == "nodes").collect();
    assert!(asked.is_empty(), "{asked:?}");
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_second_deployment_starts_from_the_recorded_map_and_keeps_it() {
    let world = World::start();
    let first = world.apply(TINY);
    let second = world.apply(WARM);
    world.condition(&second, "ExpertMapReady", "False", "ExpertMapNotRecorded").await;
    world.ready(&first).await;
    assert!(world.api.names("pods").iter().all(|pod| pod.starts_with("tiny-moe-0-")), "{:?}", world.api.names("pods"));
    world.runtimes.set("tiny-moe-0-coordinator", 2, 0.95, Some(recorded(0, 0.98)));
    world.ready(&second).await;
    let map = world.api.names("configmaps").pop().unwrap();
    let started =
        |api: &FakeApi| api.get("moedeployments", "tiny-moe-warm").unwrap()["status"]["startMap"]["configMap"].clone();
    assert_eq!(started(&world.api), json!(map));
    // A later record of the first does not restart the second.
    let pods = world.api.get("pods", "tiny-moe-warm-0-coordinator").unwrap()["metadata"]["uid"].clone();
    world.runtimes.set("tiny-moe-0-coordinator", 5, 0.95, Some(recorded(1, 0.99)));
    world.api.until("two maps", |api| api.names("configmaps").len() == 2).await;
    world.quiet().await;
    assert_eq!(world.api.get("pods", "tiny-moe-warm-0-coordinator").unwrap()["metadata"]["uid"], pods);
    // The first goes; the map that the second starts from stays, the other goes with it.
    world.api.delete("moedeployments", &first);
    world.api.until("one map", |api| api.names("configmaps") == [map.clone()]).await;
    world.quiet().await;
    world.api.delete("moedeployments", &second);
    world.api.until("no map", |api| api.names("configmaps").is_empty()).await;
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_namespace_that_ends_is_left_to_end() {
    let world = World::start();
    let name = world.apply(TINY);
    world.ready(&name).await;
    world.quiet().await;
    world.api.end_namespace();
    let before = world.api.writes();
    for pod in world.api.names("pods") {
        world.api.delete("pods", &pod);
        tokio::time::sleep(Duration::from_secs(5)).await;
    }
    world.quiet().await;
    // One pod that cannot be created tells it; the status stays what it was.
    assert_eq!(world.api.writes() - before, 1);
    world.api.delete("moedeployments", &name);
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_object_of_somebody_else_is_refused_and_left_as_it_is() {
    let world = World::start();
    let foreign =
        json!({"metadata": {"name": "tiny-moe", "namespace": "default"}, "spec": {"selector": {"app": "mine"}}});
    world.api.put("services", foreign);
    let name = world.apply(TINY);
    world.condition(&name, "Degraded", "True", "NameConflict").await;
    assert_eq!(world.api.get("services", "tiny-moe").unwrap()["spec"]["selector"], json!({"app": "mine"}));
    world.api.delete("services", "tiny-moe");
    world.ready(&name).await;
    world.condition(&name, "Degraded", "False", "AsExpected").await;
    world.quiet().await;
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_deployment_that_cannot_be_read_does_not_stop_the_others() {
    let world = World::start();
    world.api.put("moedeployments", json!({"metadata": {"name": "odd", "namespace": "default"}, "spec": {"model": 3}}));
    let name = world.apply(TINY);
    world.ready(&name).await;
    world.stop().await;
}
