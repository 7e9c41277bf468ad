//! What a changed specification does to objects that are there.

use serde_json::{Value, json};

use super::{TINY, World};
use crate::fake_api::FakeApi;

fn uids(api: &FakeApi) -> Vec<Value> {
    api.names("pods").iter().map(|name| api.get("pods", name).unwrap()["metadata"]["uid"].clone()).collect()
}

#[tokio::test(start_paused = true)]
async fn the_service_is_as_the_specification_says_and_what_it_says_no_more_goes() {
    let world = World::start();
    let name = world.apply(TINY);
    world.ready(&name).await;
    world.quiet().await;
    let (plain, pods) = (world.api.get("services", &name).unwrap(), uids(&world.api));
    let settings = json!({
        "type": "LoadBalancer", "port": 443, "labels": {"team": "a"}, "annotations": {"cloud.example.com/kind": "fast"},
        "sessionAffinity": "ClientIP", "loadBalancerClass": "example.com/lb",
    });
    world.api.edit("moedeployments", &name, |object| object["spec"]["service"] = settings);
    let of = |api: &FakeApi| api.get("services", &name).unwrap();
    world.api.until("the Service is another", |api| of(api)["spec"]["type"] == "LoadBalancer").await;
    let service = of(&world.api);
    let spec = &service["spec"];
    assert_eq!((&spec["ports"][0]["port"], &spec["sessionAffinity"]), (&json!(443), &json!("ClientIP")));
    assert_eq!(service["metadata"]["annotations"]["cloud.example.com/kind"], "fast");
    assert_eq!(
        (&service["metadata"]["labels"]["team"], &spec["loadBalancerClass"]),
        (&json!("a"), &json!("example.com/lb"))
    );
    world.quiet().await;
    // One annotation less, and then nothing at all.
    world.api.edit("moedeployments", &name, |object| object["spec"]["service"]["annotations"] = json!({}));
    let has = |api: &FakeApi, key: &str| !of(api)["metadata"]["annotations"][key].is_null();
    world.api.until("the annotation goes", |api| !has(api, "cloud.example.com/kind")).await;
    world.quiet().await;
    world.api.edit("moedeployments", &name, |object| object["spec"]["service"] = json!({}));
    world.api.until("the Service is as it was", |api| of(api)["spec"] == plain["spec"]).await;
    assert!(!has(&world.api, "swiftbalancer.io/service-settings"), "{}", of(&world.api)["metadata"]);
    assert_eq!(of(&world.api)["metadata"]["labels"], plain["metadata"]["labels"]);
    world.quiet().await;
    assert_eq!(uids(&world.api), pods, "a Service restarts no pod");
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_template_replaces_pods_once_and_a_bad_one_leaves_them() {
    let world = World::start();
    let name = world.apply(TINY);
    world.ready(&name).await;
    let before = uids(&world.api);
    let template =
        |name: &str| json!({"spec": {"containers": [{"name": name, "env": [{"name": "RUST_LOG", "value": "debug"}]}]}});
    world.api.edit("moedeployments", &name, |object| object["spec"]["ranks"]["podTemplate"] = template("rank-0"));
    world.condition(&name, "SpecValid", "False", "Invalid").await;
    world.quiet().await;
    assert_eq!(uids(&world.api), before);
    world.api.edit("moedeployments", &name, |object| object["spec"]["ranks"]["podTemplate"] = template("rank"));
    let env = |api: &FakeApi| Some(api.get("pods", "tiny-moe-0-rank-2")?["spec"]["containers"][0]["env"].to_string());
    world.api.until("a rank has the variable", |api| env(api).is_some_and(|env| env.contains("RUST_LOG"))).await;
    world.ready(&name).await;
    assert!(uids(&world.api).iter().all(|uid| !before.contains(uid)));
    world.quiet().await;
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_account_that_the_specification_names_takes_the_place_of_the_operators() {
    let world = World::start();
    let name = world.apply(TINY);
    world.ready(&name).await;
    assert_eq!(world.api.names("serviceaccounts"), ["tiny-moe-runtime"]);
    world.api.edit("moedeployments", &name, |object| object["spec"]["runtime"]["serviceAccountName"] = json!("cloud"));
    let account = |api: &FakeApi| Some(api.get("pods", "tiny-moe-0-rank-2")?["spec"]["serviceAccountName"].clone());
    world.api.until("pods have the account", |api| account(api) == Some(json!("cloud"))).await;
    world.ready(&name).await;
    world.api.until("the operator's account goes", |api| api.names("serviceaccounts").is_empty()).await;
    world.quiet().await;
    world.stop().await;
}
