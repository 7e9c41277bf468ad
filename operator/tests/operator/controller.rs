//! The whole controller against an API server in memory: watches, reconciles, polls, writes, and then is quiet.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::BoxFuture;
use operator::context::Settings;
use operator::host_paths::AllowedHostPaths;
use operator::metrics::Metrics;
use operator::runtime_client::{Endpoint, RuntimeClient, RuntimeError};
use plan::wire::{RecordedMap, State, WireError, path};
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::fake_api::{FakeApi, kubelets};
use crate::fake_runtime::{recorded, state};

/// Coordinators, by address.
#[derive(Default)]
struct Runtimes {
    said: Mutex<BTreeMap<String, (State, Option<RecordedMap>)>>,
    /// What is answered instead, by path, by those of another release.
    answers: Mutex<BTreeMap<&'static str, String>>,
    asked: Mutex<Vec<Endpoint>>,
    maps_asked_for: AtomicUsize,
}

impl Runtimes {
    fn set(&self, pod: &str, epoch: u64, ratio: f64, map: Option<RecordedMap>) {
        let said = (state(epoch, Some(ratio), map.as_ref()), map);
        self.said.lock().unwrap().insert(format!("{pod}.test:8001"), said);
    }

    fn get(&self, endpoint: &Endpoint) -> Result<(State, Option<RecordedMap>), RuntimeError> {
        let silent = RuntimeError::Status { path: "/admin/v1/state", status: 503 };
        self.asked.lock().unwrap().push(endpoint.clone());
        self.said.lock().unwrap().get(&endpoint.address).cloned().ok_or(silent)
    }

    /// Has every coordinator answer this, or what it says again.
    fn answer(&self, path: &'static str, text: Option<String>) {
        let mut answers = self.answers.lock().unwrap();
        match text {
            Some(text) => answers.insert(path, text),
            None => answers.remove(path),
        };
    }

    fn other<T>(&self, path: &'static str, read: fn(&[u8]) -> Result<T, WireError>) -> Option<Result<T, RuntimeError>> {
        let text = self.answers.lock().unwrap().get(path).cloned()?;
        Some(read(text.as_bytes()).map_err(|source| RuntimeError::Document { path, source }))
    }

    fn asked(&self) -> Vec<Endpoint> {
        self.asked.lock().unwrap().clone()
    }
}

impl RuntimeClient for Runtimes {
    fn state<'a>(&'a self, endpoint: &'a Endpoint) -> BoxFuture<'a, Result<State, RuntimeError>> {
        Box::pin(async move {
            let said = self.get(endpoint)?.0;
            self.other(path::STATE, State::from_json).unwrap_or(Ok(said))
        })
    }

    fn recorded_map<'a>(&'a self, endpoint: &'a Endpoint) -> BoxFuture<'a, Result<Option<RecordedMap>, RuntimeError>> {
        Box::pin(async move {
            self.maps_asked_for.fetch_add(1, Ordering::Relaxed);
            let said = self.get(endpoint)?.1;
            self.other(path::RECORDED_MAP, RecordedMap::from_json).map_or(Ok(said), |read| read.map(Some))
        })
    }
}

/// A cluster with an operator that runs.
pub struct World {
    pub api: FakeApi,
    runtimes: Arc<Runtimes>,
    stop: oneshot::Sender<()>,
    operator: JoinHandle<()>,
    kubelets: JoinHandle<()>,
}

impl World {
    pub fn start() -> Self {
        let api = FakeApi::new();
        for node in ["node-1", "node-2"] {
            api.put("nodes", node_object(node, "True", "2026-01-01T00:00:00Z"));
        }
        let runtimes = Arc::new(Runtimes::default());
        let settings = Settings {
            runtime_image: "docker.io/swiftbalancer/runtime:1".to_owned(),
            namespace: None,
            allowed_host_paths: AllowedHostPaths::default(),
            poll: Duration::from_secs(2),
        };
        let (stop, stopped) = oneshot::channel::<()>();
        let metrics = Arc::new(Metrics::new().unwrap());
        let client: Arc<dyn RuntimeClient> = Arc::clone(&runtimes) as _;
        let stopped = async {
            let _ = stopped.await;
        };
        let operator = tokio::spawn(operator::controller::run(api.client(), client, settings, metrics, stopped));
        let kubelets = tokio::spawn(kubelets(api.clone(), 4));
        Self { api, runtimes, stop, operator, kubelets }
    }

    pub fn apply(&self, yaml: &str) -> String {
        let mut object: Value = serde_saphyr::from_str(yaml).unwrap();
        object["metadata"]["namespace"] = json!("default");
        let name = object["metadata"]["name"].as_str().unwrap().to_owned();
        self.api.put("moedeployments", object);
        name
    }

    /// Lets a coordinator record a map.
    pub fn record(&self, coordinator: &str) {
        self.runtimes.set(coordinator, 2, 0.95, Some(recorded(0, 0.98)));
    }

    pub async fn condition(&self, deployment: &str, kind: &str, status: &str, reason: &str) {
        let what = format!("{deployment} is {kind}={status} for {reason}");
        self.api
            .until(&what, |api| {
                let object = api.get("moedeployments", deployment).unwrap();
                let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
                conditions.iter().any(|condition| {
                    condition["type"] == kind && condition["status"] == status && condition["reason"] == reason
                })
            })
            .await;
    }

    pub async fn ready(&self, deployment: &str) {
        self.condition(deployment, "Ready", "True", "AllReplicasReady").await;
    }

    /// Ten minutes, in which every timer of the operator runs off, without a write.
    pub async fn quiet(&self) {
        tokio::time::sleep(Duration::from_secs(30)).await;
        let before = self.api.calls().len();
        tokio::time::sleep(Duration::from_mins(10)).await;
        let calls = &self.api.calls()[before..];
        let writes: Vec<_> = calls.iter().filter(|call| call.is_write()).collect();
        assert!(writes.is_empty(), "{writes:?}");
    }

    pub async fn stop(self) {
        self.stop.send(()).unwrap();
        self.operator.await.unwrap();
        self.kubelets.abort();
    }
}

fn node_object(name: &str, ready: &str, since: &str) -> Value {
    json!({
        "metadata": {"name": name},
        "status": {"conditions": [{"type": "Ready", "status": ready, "lastTransitionTime": since}]},
    })
}

pub const TINY: &str = include_str!("../../../examples/tiny-moe.yaml");
pub const WARM: &str = include_str!("../../../examples/tiny-moe-warm.yaml");

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
