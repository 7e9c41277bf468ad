//! Keys that the controller makes, renews and gives to pods.

use serde_json::{Value, json};

use super::{TINY, World};
use crate::fake_api::FakeApi;

/// What a person does to a cluster.
type Change = fn(&FakeApi);

fn key(api: &FakeApi, secret: &str, key: &str) -> String {
    api.get("secrets", secret).unwrap()["data"][key].as_str().unwrap().to_owned()
}

fn uids(api: &FakeApi) -> Vec<Value> {
    api.names("pods").iter().map(|pod| api.get("pods", pod).unwrap()["metadata"]["uid"].clone()).collect()
}

#[tokio::test(start_paused = true)]
async fn keys_are_made_once_and_the_coordinator_is_asked_with_their_token() {
    let world = World::start();
    let name = world.apply(TINY);
    world.ready(&name).await;
    let secret = world.api.get("secrets", "tiny-moe-keys").unwrap();
    let keys: Vec<&String> = secret["data"].as_object().unwrap().keys().collect();
    assert_eq!(keys, ["admin-token", "group-secret"]);
    let owner = &secret["metadata"]["ownerReferences"][0];
    let deployment = world.api.get("moedeployments", &name).unwrap();
    assert_eq!((&owner["uid"], &owner["controller"]), (&deployment["metadata"]["uid"], &json!(true)));
    world.quiet().await;
    assert_eq!(world.api.get("secrets", "tiny-moe-keys").unwrap(), secret);
    let stored: k8s_openapi::api::core::v1::Secret = serde_json::from_value(secret).unwrap();
    let token = operator::keys::Keys::read(&stored).unwrap().admin_token().clone();
    let asked = world.runtimes.asked();
    assert!(!asked.is_empty() && asked.iter().all(|endpoint| endpoint.token == token));
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn other_keys_come_when_they_are_asked_for_deleted_or_incomplete_and_every_pod_gets_them() {
    let world = World::start();
    let name = world.apply(TINY);
    world.ready(&name).await;
    let changes: [(&str, Change); 3] = [
        ("a rotation is asked for", |api| {
            api.edit("moedeployments", "tiny-moe", |object| {
                object["metadata"]["annotations"]["swiftbalancer.io/rotate-keys"] = json!("2026-01-01");
            });
        }),
        ("the Secret is deleted", |api| api.delete("secrets", "tiny-moe-keys")),
        ("a key is missing", |api| {
            api.edit("secrets", "tiny-moe-keys", |object| {
                object["data"].as_object_mut().unwrap().remove("group-secret");
            });
        }),
    ];
    for (what, change) in changes {
        let before = (uids(&world.api), key(&world.api, "tiny-moe-keys", "admin-token"));
        change(&world.api);
        world
            .api
            .until(what, |api| {
                let pods = uids(api);
                api.get("secrets", "tiny-moe-keys")
                    .is_some_and(|_| key(api, "tiny-moe-keys", "admin-token") != before.1)
                    && pods.len() == 5
                    && pods.iter().all(|uid| !before.0.contains(uid))
            })
            .await;
        world.ready(&name).await;
        world.quiet().await;
    }
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_secret_of_somebody_else_is_refused_not_read_and_left_as_it_is() {
    let world = World::start();
    let data = json!({"group-secret": "QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUE=", "admin-token": "QUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUE="});
    let foreign = json!({"metadata": {"name": "tiny-moe-keys", "namespace": "default"}, "data": data});
    world.api.put("secrets", foreign);
    let name = world.apply(TINY);
    world.condition(&name, "Degraded", "True", "NameConflict").await;
    assert!(world.api.names("pods").is_empty());
    assert_eq!(world.api.get("secrets", "tiny-moe-keys").unwrap()["data"], data);
    world.api.delete("secrets", "tiny-moe-keys");
    world.ready(&name).await;
    world.condition(&name, "Degraded", "False", "AsExpected").await;
    // The same while it serves: nothing is taken away from what runs.
    let pods = uids(&world.api);
    world.api.delete("secrets", "tiny-moe-keys");
    world.api.put("secrets", json!({"metadata": {"name": "tiny-moe-keys", "namespace": "default"}, "data": data}));
    world.condition(&name, "Degraded", "True", "NameConflict").await;
    assert_eq!(uids(&world.api), pods);
    world.stop().await;
}
