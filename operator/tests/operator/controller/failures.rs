//! What an API server that refuses or fails keeps from being done, and how often it is asked again.

use std::time::Duration;

use serde_json::json;

use super::{TINY, World};
use crate::fake_api::Refusal;
use crate::fake_runtime::recorded;

fn refusal(verb: &'static str, resource: &'static str, code: u16, message: &'static str) -> Refusal {
    Refusal { verb, resource, code, message }
}

#[tokio::test(start_paused = true)]
async fn an_error_that_is_worded_anew_each_time_is_tried_ever_more_seldom_and_written_once() {
    for message in [
        "failed calling webhook: read tcp 172.30.0.1:#->10.96.4.7:443: connection reset by peer",
        "pods is forbidden: exceeded quota: q, requested: pods=1, used: pods=#, limited: pods=3",
        "denied (request id 7f-#-aa)",
    ] {
        let world = World::start();
        world.api.refuse(&[refusal("create", "pods", 500, message)]);
        let name = world.apply(TINY);
        world.condition(&name, "Degraded", "True", "ReconcileFailed").await;
        tokio::time::sleep(Duration::from_mins(2)).await;
        // 1, 2, 4, ... s, of which up to a quarter is taken off.
        let creates = world.api.count("create", "pods");
        assert!((5..=9).contains(&creates), "{creates} tries in two minutes");
        let writes = world.api.count("patch", "moedeployments/status");
        assert!(writes <= 2, "{writes} status writes");
        assert!(world.message(&name, "Ready").contains("failed to create Pod tiny-moe-0-coordinator"));
        world.api.refuse(&[]);
        world.ready(&name).await;
        world.condition(&name, "Degraded", "False", "AsExpected").await;
        world.quiet().await;
        world.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn words_that_mean_something_else_each_time_do_not_shorten_the_wait_either() {
    let world = World::start();
    let name = world.apply(TINY);
    for message in ["one", "two", "three", "four", "five", "six", "seven"].into_iter().cycle().take(60) {
        world.api.refuse(&[refusal("create", "pods", 500, message)]);
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    let (creates, writes) = (world.api.count("create", "pods"), world.api.count("patch", "moedeployments/status"));
    assert!(creates <= 9 && writes <= creates + 1, "{creates} tries and {writes} writes in two minutes");
    // A change of what is asked for does not wait.
    world.api.refuse(&[]);
    let start = tokio::time::Instant::now();
    world.api.edit("moedeployments", &name, |object| {
        object["metadata"]["annotations"]["swiftbalancer.io/restarted-at"] = json!("now");
    });
    world.ready(&name).await;
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_map_that_cannot_be_stored_keeps_nothing_else_from_being_done() {
    let world = World::start();
    let name = world.apply(TINY);
    world.ready(&name).await;
    world.api.refuse(&[refusal("create", "configmaps", 403, "exceeded quota: maps, used: count/configmaps=#")]);
    world.runtimes.set("tiny-moe-0-coordinator", 2, 0.95, Some(recorded(0, 0.98)));
    world.condition(&name, "Degraded", "True", "ExpertMapNotStored").await;
    world.condition(&name, "Ready", "True", "AllReplicasReady").await;
    world.api.delete("pods", "tiny-moe-0-rank-1");
    world.api.until("the pod is back", |api| api.get("pods", "tiny-moe-0-rank-1").is_some()).await;
    world.ready(&name).await;
    let before = world.api.count("create", "configmaps");
    tokio::time::sleep(Duration::from_mins(10)).await;
    assert!(world.api.count("create", "configmaps") - before <= 12, "it is tried in a hot loop");
    world.api.edit("moedeployments", &name, |object| object["spec"]["replicas"] = json!(0));
    world.api.until("the pods are gone", |api| api.names("pods").is_empty()).await;
    world.condition(&name, "Ready", "True", "ScaledToZero").await;
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_one_kind_of_object_is_refused_for_stops_no_healing() {
    for resource in ["services", "poddisruptionbudgets", "serviceaccounts"] {
        let world = World::start();
        let name = world.apply(TINY);
        world.ready(&name).await;
        world.api.edit("services", "tiny-moe", |service| service["spec"]["selector"]["team"] = json!("blue"));
        world.api.refuse(&[refusal("patch", resource, 403, "denied by a policy")]);
        world.api.delete("pods", "tiny-moe-0-rank-1");
        world.api.until("the pod is back", |api| api.get("pods", "tiny-moe-0-rank-1").is_some()).await;
        world.ready(&name).await;
        world.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn after_minutes_of_an_overloaded_server_a_lost_pod_comes_back_soon() {
    let world = World::start();
    let name = world.apply(TINY);
    world.ready(&name).await;
    let busy = |verb, resource| refusal(verb, resource, 429, "too many requests");
    world.api.refuse(&[
        busy("create", "pods"),
        busy("get", "pods"),
        busy("get", "secrets"),
        busy("patch", "moedeployments/status"),
    ]);
    world.api.delete("pods", "tiny-moe-0-rank-1");
    tokio::time::sleep(Duration::from_secs(40)).await;
    world.api.refuse(&[]);
    let start = tokio::time::Instant::now();
    world.api.until("the pod is back", |api| api.get("pods", "tiny-moe-0-rank-1").is_some()).await;
    assert!(start.elapsed() < Duration::from_secs(33), "{:?}", start.elapsed());
    world.ready(&name).await;
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_refused_deployment_is_healed_and_scaled_from_what_was_accepted() {
    let world = World::start();
    let name = world.apply(TINY);
    world.ready(&name).await;
    world.api.edit("moedeployments", &name, |object| {
        object["spec"]["eplb"]["numIterationsEplbUpdate"] = json!(200);
        object["spec"]["eplb"]["expertMapRef"] = json!({"name": "typo"});
    });
    world.condition(&name, "Ready", "False", "ExpertMapMissing").await;
    let before = world.api.get("pods", "tiny-moe-0-rank-2").unwrap();
    world.api.delete("pods", "tiny-moe-0-rank-2");
    world.api.until("the pod is back", |api| api.get("pods", "tiny-moe-0-rank-2").is_some()).await;
    let after = world.api.get("pods", "tiny-moe-0-rank-2").unwrap();
    assert_eq!(after["spec"]["containers"], before["spec"]["containers"]);
    world.quiet().await;
    world.api.edit("moedeployments", &name, |object| object["spec"]["replicas"] = json!(0));
    world.api.until("the pods are gone", |api| api.names("pods").is_empty()).await;
    world.stop().await;
}
