//! Whom the controller asks, and what it makes of answers that it cannot read or that waver.

use std::sync::atomic::Ordering;
use std::time::Duration;

use plan::wire::path;
use serde_json::{Value, json};

use super::{TINY, World};
use crate::fake_api::FakeApi;
use crate::fake_runtime::{recorded, state};

/// Each pod differs from the coordinator of a deployment in one thing that a stranger could not make true.
#[tokio::test(start_paused = true)]
async fn only_the_coordinators_of_deployments_that_exist_are_asked() {
    let world = World::start();
    let name = world.apply(TINY);
    world.ready(&name).await;
    let genuine = world.api.get("pods", "tiny-moe-0-coordinator").unwrap();
    let forged = |pod: &str, change: &dyn Fn(&mut Value)| {
        let mut object = genuine.clone();
        object["metadata"]["name"] = json!(pod);
        object["metadata"]["uid"] = json!(format!("uid-of-{pod}"));
        object["status"]["podIP"] = json!(format!("{pod}.test"));
        change(&mut object);
        // No kubelet of this cluster: it has its address already, and stays as it is.
        world.api.put("pods", object);
    };
    forged("labels-only", &|pod| pod["metadata"]["ownerReferences"] = json!([]));
    forged("other-uid", &|pod| pod["metadata"]["ownerReferences"][0]["uid"] = json!("uid-of-another"));
    forged("no-controller", &|pod| pod["metadata"]["ownerReferences"][0]["controller"] = json!(false));
    forged("other-name", &|pod| pod["metadata"]["labels"]["swiftbalancer.io/group"] = json!("7"));
    forged("absent-0-coordinator", &|pod| {
        pod["metadata"]["labels"]["swiftbalancer.io/deployment"] = json!("absent");
        pod["metadata"]["ownerReferences"][0]["name"] = json!("absent");
    });
    forged("tiny-moe-0-coordinator", &|pod| {
        pod["metadata"]["namespace"] = json!("elsewhere");
        pod["status"]["podIP"] = json!("elsewhere.test");
    });
    tokio::time::sleep(Duration::from_mins(2)).await;
    let asked: std::collections::BTreeSet<String> =
        world.runtimes.asked().into_iter().map(|endpoint| endpoint.address).collect();
    assert_eq!(asked, ["tiny-moe-0-coordinator.test:8001".to_owned()].into());
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn words_that_differ_each_time_write_nothing() {
    let world = World::start();
    let name = world.apply(TINY);
    world.ready(&name).await;
    let say = |words: &str| {
        let mut said = state(2, Some(0.95), None);
        said.degraded = Some(words.to_owned());
        world.runtimes.said.lock().unwrap().insert("tiny-moe-0-coordinator.test:8001".to_owned(), (said, None));
    };
    say("failed at first");
    world.condition(&name, "Degraded", "True", "RebalancingDegraded").await;
    world.quiet().await;
    let before = world.api.writes();
    for number in 0..100 {
        say(&format!("failed at {number}\u{1b}[2J"));
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    assert_eq!(world.api.writes(), before);
    say(&"failed for good \n".repeat(100_000));
    world.api.until("the last words are shown", |api| api.writes() > before).await;
    let object = world.api.get("moedeployments", &name).unwrap();
    let degraded =
        object["status"]["conditions"].as_array().unwrap().iter().find(|one| one["type"] == "Degraded").unwrap();
    let message = degraded["message"].as_str().unwrap();
    assert!(message.starts_with("failed for good failed for good") && message.len() < 420, "{message}");
    world.stop().await;
}

fn message(api: &FakeApi, deployment: &str, kind: &str) -> String {
    let object = api.get("moedeployments", deployment).unwrap();
    let mut conditions = object["status"]["conditions"].as_array().unwrap().iter();
    conditions.find(|condition| condition["type"] == kind).unwrap()["message"].as_str().unwrap().to_owned()
}

/// A world of which the coordinator has said something that could be read.
async fn heard() -> (World, String) {
    let world = World::start();
    let name = world.apply(TINY);
    world.ready(&name).await;
    world.runtimes.set("tiny-moe-0-coordinator", 2, 0.95, None);
    world.condition(&name, "Balanced", "True", "LoadEven").await;
    (world, name)
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_cannot_be_read_is_a_condition_until_it_can_be_again() {
    let (world, name) = heard().await;
    world.runtimes.answer(path::STATE, Some(r#"{"version": "swiftbalancer.io/v2", "ranks": {}}"#.to_owned()));
    world.condition(&name, "Degraded", "True", "RuntimeAnswerUnreadable").await;
    let words = "replica 0: the answer to GET /admin/v1/state cannot be read: version \"swiftbalancer.io/v2\" is not known here, \
                 only \"swiftbalancer.io/v1\"; requests are not affected, but this status does not follow it: upgrade the operator to \
                 the release of the coordinator's image, or name an image of the operator's release in spec.runtime.image";
    assert_eq!(message(&world.api, &name, "Degraded"), words);
    world.ready(&name).await;
    world.quiet().await;
    let before = world.api.writes();
    for number in 0..100 {
        world.runtimes.answer(path::STATE, Some("x".repeat(number)));
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    for number in 0..40 {
        world.runtimes.answer(path::STATE, (number % 4 == 0).then(|| "{}".to_owned()));
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    assert_eq!(world.api.writes(), before, "what is found differs each time, and some of it can be read");
    world.runtimes.answer(path::STATE, None);
    world.condition(&name, "Degraded", "False", "AsExpected").await;
    world.quiet().await;
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_a_later_release_tells_besides_is_no_trouble() {
    let (world, name) = heard().await;
    let mut later = serde_json::to_value(state(4, Some(0.6), None)).unwrap();
    (later["phase"], later["recovering"]) = (json!("recovering"), json!({"ranks": [2]}));
    (later["model"]["family"], later["lastWindow"]["skew"]) = (json!("mixtral"), json!(1.5));
    world.runtimes.answer(path::STATE, Some(later.to_string()));
    world.condition(&name, "Balanced", "False", "LoadUneven").await;
    world.condition(&name, "Degraded", "False", "AsExpected").await;
    world.quiet().await;
    world.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_map_that_cannot_be_read_is_asked_for_once_and_all_else_is_followed() {
    let (world, name) = heard().await;
    let mut later = serde_json::to_value(recorded(0, 0.98)).unwrap();
    later["map"]["weights"] = json!([1]);
    world.runtimes.answer(path::RECORDED_MAP, Some(later.to_string()));
    world.runtimes.set("tiny-moe-0-coordinator", 3, 0.95, Some(recorded(0, 0.98)));
    world.condition(&name, "Degraded", "True", "RuntimeAnswerUnreadable").await;
    let told = message(&world.api, &name, "Degraded");
    assert!(told.contains("unknown field `weights`") && told.contains("but its maps are not recorded: "), "{told}");
    world.runtimes.set("tiny-moe-0-coordinator", 3, 0.6, Some(recorded(0, 0.98)));
    world.condition(&name, "Balanced", "False", "LoadUneven").await;
    world.quiet().await;
    assert_eq!(world.runtimes.maps_asked_for.load(Ordering::Relaxed), 1);
    assert!(world.api.names("configmaps").is_empty());
    world.runtimes.answer(path::RECORDED_MAP, None);
    world.runtimes.set("tiny-moe-0-coordinator", 4, 0.6, Some(recorded(1, 0.99)));
    world.condition(&name, "Degraded", "False", "AsExpected").await;
    world.api.until("the map is recorded", |api| api.names("configmaps").len() == 1).await;
    world.quiet().await;
    world.stop().await;
}
