//! Objects that somebody changes by hand, and those of a deployment of the same name that was deleted.

use std::time::Duration;

use serde_json::{Value, json};

use super::{TINY, World, node_object};
use crate::fake_api::FakeApi;

#[tokio::test(start_paused = true)]
async fn what_somebody_adds_to_a_selector_or_to_ports_is_taken_back() {
    let world = World::start();
    let name = world.apply(TINY);
    world.ready(&name).await;
    world.quiet().await;
    let cases: [(&str, &str, &str, Value); 6] = [
        ("services", "tiny-moe", "/spec/selector/team", json!("blue")),
        ("services", "tiny-moe-0-coordinator", "/spec/selector/team", json!("blue")),
        ("services", "tiny-moe", "/spec/selector/swiftbalancer.io~1role", json!("rank")),
        ("services", "tiny-moe", "/spec/ports/-", json!({"name": "more", "port": 9000})),
        ("poddisruptionbudgets", "tiny-moe-0", "/spec/selector/matchLabels/team", json!("blue")),
        ("poddisruptionbudgets", "tiny-moe-0", "/spec/maxUnavailable", json!(1)),
    ];
    for (resource, object, path, value) in cases {
        let wanted = world.api.get(resource, object).unwrap()["spec"].clone();
        world.api.edit(resource, object, |object| {
            let (parent, key) = path.rsplit_once('/').unwrap();
            match object.pointer_mut(parent).unwrap() {
                Value::Array(list) => list.push(value.clone()),
                parent => parent[key.replace("~1", "/")] = value.clone(),
            }
        });
        world.api.until(path, |api| api.get(resource, object).unwrap()["spec"] == wanted).await;
        world.quiet().await;
    }
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_lost_a_label_gets_it_back_whatever_watch_it_left() {
    let world = World::start();
    let name = world.apply(TINY);
    world.ready(&name).await;
    let uids = |api: &FakeApi| -> Vec<Value> {
        api.names("pods").iter().map(|pod| api.get("pods", pod).unwrap()["metadata"]["uid"].clone()).collect()
    };
    let before = uids(&world.api);
    for pod in ["tiny-moe-0-coordinator", "tiny-moe-0-rank-2"] {
        let wanted = world.api.get("pods", pod).unwrap()["metadata"]["labels"].clone();
        for label in wanted.as_object().unwrap().keys() {
            world.api.edit("pods", pod, |pod| {
                pod["metadata"]["labels"].as_object_mut().unwrap().remove(label);
            });
            world.api.until(label, |api| api.get("pods", pod).unwrap()["metadata"]["labels"] == wanted).await;
        }
    }
    world.ready(&name).await;
    assert_eq!(uids(&world.api), before, "no pod was replaced");
    world.quiet().await;
    world.stop().await;
}

/// Deleted and made again at once: the garbage collector has not come to what the first one left.
#[tokio::test(start_paused = true)]
async fn a_deployment_waits_for_what_one_of_its_name_has_left() {
    let world = World::start();
    let name = world.apply(TINY);
    world.ready(&name).await;
    let mut again = world.api.get("moedeployments", &name).unwrap();
    again["metadata"]["uid"] = json!("uid-of-the-second");
    again["status"] = Value::Null;
    // In place: nothing that the first one owned is collected yet.
    world.api.put("moedeployments", again);
    world.condition(&name, "Ready", "False", "WaitingForPods").await;
    let words = world.message(&name, "Ready");
    assert!(words.contains("of a deleted deployment of this name is still there: it is waited for"), "{words}");
    tokio::time::sleep(Duration::from_mins(1)).await;
    world.condition(&name, "Degraded", "False", "AsExpected").await;
    let writes = world.api.count("patch", "moedeployments/status");
    for resource in ["secrets", "services", "serviceaccounts", "poddisruptionbudgets", "pods"] {
        for object in world.api.names(resource) {
            world.api.delete(resource, &object);
        }
    }
    let start = tokio::time::Instant::now();
    world.ready(&name).await;
    assert!(start.elapsed() < Duration::from_secs(90), "{:?}", start.elapsed());
    assert!(world.api.count("patch", "moedeployments/status") - writes <= 8);
    let owner =
        world.api.get("pods", "tiny-moe-0-coordinator").unwrap()["metadata"]["ownerReferences"][0]["uid"].clone();
    assert_eq!(owner, json!("uid-of-the-second"));
    world.quiet().await;
    world.stop().await;
}

/// A node that the cache does not know yet is asked for; pods on it are not taken for lost.
#[tokio::test(start_paused = true)]
async fn a_pod_on_a_node_that_the_cache_does_not_know_is_left_where_it_is() {
    let world = World::start();
    let name = world.apply(TINY);
    world.ready(&name).await;
    let uid = |api: &FakeApi| api.get("pods", "tiny-moe-0-rank-1").map(|pod| pod["metadata"]["uid"].clone());
    let before = uid(&world.api);
    world.api.hide_from_watches("node-9");
    world.api.put("nodes", node_object("node-9", "True", "2026-01-01T00:00:00Z"));
    world.api.edit("pods", "tiny-moe-0-rank-1", |pod| pod["spec"]["nodeName"] = json!("node-9"));
    tokio::time::sleep(Duration::from_mins(5)).await;
    assert_eq!(uid(&world.api), before);
    world.stop().await;
}
