//! A cluster with coordinators and an operator that runs.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::BoxFuture;
use jiff::SignedDuration;
use operator::context::Settings;
use operator::host_paths::AllowedHostPaths;
use operator::metrics::Metrics;
use operator::observed::RuntimeImages;
use operator::runtime_client::{Endpoint, RuntimeClient, RuntimeError};
use plan::wire::{DownloadDocument, RecordedMap, State, WireError, path};
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::fake_api::{FakeApi, kubelets};
use crate::fake_runtime::{recorded, state};

/// Coordinators, by address.
#[derive(Default)]
pub struct Runtimes {
    pub said: Mutex<BTreeMap<String, (State, Option<RecordedMap>)>>,
    /// What is answered instead, by path, by those of another release.
    answers: Mutex<BTreeMap<&'static str, String>>,
    asked: Mutex<Vec<Endpoint>>,
    pub maps_asked_for: AtomicUsize,
}

impl Runtimes {
    pub fn set(&self, pod: &str, epoch: u64, ratio: f64, map: Option<RecordedMap>) {
        let said = (state(epoch, Some(ratio), map.as_ref()), map);
        self.said.lock().unwrap().insert(format!("{pod}.test:8001"), said);
    }

    pub fn get(&self, endpoint: &Endpoint) -> Result<(State, Option<RecordedMap>), RuntimeError> {
        let silent = RuntimeError::Status { path: "/admin/v1/state", status: 503 };
        self.asked.lock().unwrap().push(endpoint.clone());
        self.said.lock().unwrap().get(&endpoint.address).cloned().ok_or(silent)
    }

    /// Has every coordinator answer this, or what it says again.
    pub fn answer(&self, path: &'static str, text: Option<String>) {
        let mut answers = self.answers.lock().unwrap();
        match text {
            Some(text) => answers.insert(path, text),
            None => answers.remove(path),
        };
    }

    pub fn other<T>(
        &self,
        path: &'static str,
        read: fn(&[u8]) -> Result<T, WireError>,
    ) -> Option<Result<T, RuntimeError>> {
        let text = self.answers.lock().unwrap().get(path).cloned()?;
        Some(read(text.as_bytes()).map_err(|source| RuntimeError::Document { path, source }))
    }

    pub fn asked(&self) -> Vec<Endpoint> {
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

    fn download<'a>(&'a self, _: &'a str) -> BoxFuture<'a, Result<DownloadDocument, RuntimeError>> {
        Box::pin(async move {
            let nothing = || Err(RuntimeError::Status { path: path::DOWNLOAD, status: 404 });
            self.other(path::DOWNLOAD, DownloadDocument::from_json).unwrap_or_else(nothing)
        })
    }
}

/// A cluster with an operator that runs.
pub struct World {
    pub api: FakeApi,
    pub runtimes: Arc<Runtimes>,
    pub metrics: Arc<Metrics>,
    stop: oneshot::Sender<()>,
    operator: JoinHandle<()>,
    kubelets: JoinHandle<()>,
}

impl World {
    pub fn start() -> Self {
        Self::start_at(FakeApi::new(), true)
    }

    /// Whose operator watches nodes, or does not.
    pub fn with(watch_nodes: bool) -> Self {
        Self::start_at(FakeApi::new(), watch_nodes)
    }

    /// An operator at an API server that has something already.
    pub fn start_at(api: FakeApi, watch_nodes: bool) -> Self {
        for node in ["node-1", "node-2"] {
            api.put("nodes", node_object(node, "True", "2026-01-01T00:00:00Z"));
        }
        let runtimes = Arc::new(Runtimes::default());
        let settings = Settings {
            images: RuntimeImages { cpu: "docker.io/swiftbalancer/runtime:1".to_owned(), gpu: None },
            namespace: None,
            watch_nodes,
            allowed_host_paths: AllowedHostPaths::default(),
            poll: Duration::from_secs(2),
            node_lost_after: SignedDuration::from_secs(10),
        };
        let (stop, stopped) = oneshot::channel::<()>();
        let metrics = Arc::new(Metrics::new().unwrap());
        let client: Arc<dyn RuntimeClient> = Arc::clone(&runtimes) as _;
        let stopped = async {
            let _ = stopped.await;
        };
        let run = operator::controller::run(api.client(), client, settings, Arc::clone(&metrics), stopped);
        let operator = tokio::spawn(run);
        let kubelets = tokio::spawn(kubelets(api.clone(), 4));
        Self { api, runtimes, metrics, stop, operator, kubelets }
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

    /// The status and the message of a condition.
    pub fn message(&self, deployment: &str, kind: &str) -> String {
        let object = self.api.get("moedeployments", deployment).unwrap();
        let mut conditions = object["status"]["conditions"].as_array().unwrap().iter();
        conditions.find(|condition| condition["type"] == kind).unwrap()["message"].as_str().unwrap().to_owned()
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

pub fn node_object(name: &str, ready: &str, since: &str) -> Value {
    json!({
        "metadata": {"name": name},
        "status": {"conditions": [{"type": "Ready", "status": ready, "lastTransitionTime": since}]},
    })
}

pub const TINY: &str = include_str!("../../../../examples/tiny-moe.yaml");
pub const WARM: &str = include_str!("../../../../examples/tiny-moe-warm.yaml");
