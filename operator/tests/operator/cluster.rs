//! A cluster as plain data, to run passes of the pipeline over: pods appear and go as decided, and a test says what
//! happens to them. No client and no clock.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{ConfigMap, Node, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt as _;
use operator::api::MoEDeployment;
use operator::api::status::MoEDeploymentStatus;
use operator::apply::{Applied, Outcome};
use operator::build::{Desired, build};
use operator::decide::{Decision, KeysChange, decide};
use operator::error::Failures;
use operator::host_paths::AllowedHostPaths;
use operator::keys::{Keys, StoredKeys};
use operator::names;
use operator::observed::{DownloadView, Observed, Reference, RuntimeImages, RuntimeView, Unreadable};
use operator::pods::Member;
use operator::reach::{self, Sighting};
use operator::report::{Notice, notices, report};
use operator::validate::validate;
use serde_json::json;

use crate::fake_api::started_container;

pub struct Cluster {
    pub now: Timestamp,
    pub deployment: MoEDeployment,
    pub pods: BTreeMap<String, Pod>,
    pub watches_nodes: bool,
    pub nodes: BTreeMap<String, Node>,
    pub maps: BTreeMap<String, ConfigMap>,
    pub reference: Reference,
    pub downloads: BTreeMap<String, DownloadView>,
    pub runtimes: BTreeMap<usize, RuntimeView>,
    pub unreadable: BTreeMap<usize, Unreadable>,
    pub keys: Option<StoredKeys>,
    pub allowed_host_paths: AllowedHostPaths,
    pub images: RuntimeImages,
    pub sightings: BTreeMap<String, Sighting>,
    created: usize,
}

/// One pass: what was decided and told.
pub struct Pass {
    pub decision: Decision,
    pub desired: Desired,
    pub status: MoEDeploymentStatus,
    pub notices: Vec<Notice>,
}

impl Cluster {
    /// A cluster with three nodes and one deployment.
    pub fn new(deployment: &str) -> Self {
        let mut deployment: MoEDeployment = serde_saphyr::from_str(deployment).unwrap();
        deployment.metadata.namespace = Some("default".to_owned());
        deployment.metadata.uid = Some("uid-of-the-deployment".to_owned());
        deployment.metadata.generation = Some(1);
        let mut cluster = Self {
            now: "2026-01-01T00:00:00Z".parse().unwrap(),
            deployment,
            pods: BTreeMap::new(),
            watches_nodes: true,
            nodes: BTreeMap::new(),
            maps: BTreeMap::new(),
            reference: Reference::None,
            downloads: BTreeMap::new(),
            runtimes: BTreeMap::new(),
            unreadable: BTreeMap::new(),
            keys: None,
            allowed_host_paths: AllowedHostPaths::default(),
            images: RuntimeImages {
                cpu: "docker.io/swiftbalancer/runtime:1".to_owned(),
                gpu: Some("docker.io/swiftbalancer/runtime-cuda:1".to_owned()),
            },
            sightings: BTreeMap::new(),
            created: 0,
        };
        for node in ["node-1", "node-2", "node-3"] {
            cluster.set_node(node, true, 8);
        }
        // They have been there for long.
        cluster.later(3600);
        cluster
    }

    /// A node, reachable or not since now, with GPUs.
    pub fn set_node(&mut self, name: &str, reachable: bool, gpus: usize) {
        let node = json!({
            "metadata": {"name": name},
            "status": {
                "allocatable": {"nvidia.com/gpu": gpus.to_string()},
                "conditions": [{
                    "type": "Ready",
                    "status": if reachable { "True" } else { "Unknown" },
                    "lastTransitionTime": Time(self.now),
                }],
            },
        });
        self.nodes.insert(name.to_owned(), serde_json::from_value(node).unwrap());
        self.look();
    }

    fn look(&mut self) {
        self.sightings = reach::look(&self.sightings, self.nodes.values(), self.now);
    }

    /// What a node says of itself.
    pub fn label_node(&mut self, name: &str, label: &str, value: &str) {
        self.nodes.get_mut(name).unwrap().labels_mut().insert(label.to_owned(), value.to_owned());
    }

    pub fn later(&mut self, seconds: i64) {
        self.now += SignedDuration::from_secs(seconds);
    }

    pub fn observe(&self) -> Observed {
        Observed {
            now: self.now,
            images: self.images.clone(),
            allowed_host_paths: self.allowed_host_paths.clone(),
            keys: self.keys.clone(),
            fresh_keys: keys(self.drawn()),
            node_lost_after: SignedDuration::from_secs(10),
            predecessors: BTreeSet::new(),
            members: self.pods.iter().map(|(name, pod)| (name.clone(), Member::read(pod).unwrap())).collect(),
            services: BTreeMap::new(),
            accounts: BTreeMap::new(),
            budgets: BTreeMap::new(),
            maps: self.maps.iter().map(|(name, map)| (name.clone(), Arc::new(map.clone()))).collect(),
            maps_in_use: BTreeSet::new(),
            reference: self.reference.clone(),
            downloads: self.downloads.clone(),
            watches_nodes: self.watches_nodes,
            nodes: self.nodes.iter().map(|(name, node)| (name.clone(), Arc::new(node.clone()))).collect(),
            sightings: reach::look(&self.sightings, self.nodes.values(), self.now),
            runtimes: self.runtimes.clone(),
            unreadable: self.unreadable.clone(),
        }
    }

    /// How many keys were stored: those drawn next differ from them.
    fn drawn(&self) -> u8 {
        self.keys.as_ref().map_or(0, |stored| stored.uid.strip_prefix("secret-").unwrap().parse().unwrap())
    }

    /// Runs one pass and does what it decided.
    pub fn pass(&mut self) -> Pass {
        self.pass_with(None)
    }

    /// Runs one pass of which everything that is to be written fails like this.
    pub fn failed_pass(&mut self, failures: Failures) -> Pass {
        self.pass_with(Some(failures))
    }

    fn pass_with(&mut self, failures: Option<Failures>) -> Pass {
        self.look();
        let observed = self.observe();
        let verdict = validate(&self.deployment, &observed);
        let decision = decide(&self.deployment, &verdict, &observed);
        let desired = build(&self.deployment, &verdict, &decision);
        let outcome = match failures {
            None => Outcome { applied: self.apply(&decision, &desired), failures: Failures::default() },
            Some(failures) => Outcome { applied: Applied::default(), failures },
        };
        let status = report(&self.deployment, &observed, &verdict, &decision, &outcome);
        let before = self.deployment.status.replace(status.clone()).unwrap_or_default();
        Pass { notices: notices(&before, &status, &outcome), decision, desired, status }
    }

    fn apply(&mut self, decision: &Decision, desired: &Desired) -> Applied {
        if let Some(KeysChange::Create(keys) | KeysChange::Replace { uid: _, keys }) = &decision.keys {
            let rotation = self.deployment.annotations().get(names::ROTATE_KEYS).cloned();
            let uid = format!("secret-{}", self.drawn() + 1);
            self.keys = Some(StoredKeys { uid, keys: Some(keys.clone()), rotation });
        }
        for removal in &decision.remove {
            self.pods.remove(&removal.name);
        }
        for name in &decision.maps.prune {
            self.maps.remove(name);
        }
        let map = desired.map.clone().map(|mut map| {
            map.metadata.creation_timestamp = Some(Time(self.now));
            self.maps.insert(map.name_any(), map.clone());
            map
        });
        for pod in &desired.pods {
            let mut pod = pod.clone();
            self.created += 1;
            pod.metadata.uid = Some(format!("pod-{}", self.created));
            pod.metadata.creation_timestamp = Some(Time(self.now));
            self.pods.insert(pod.name_any(), pod);
        }
        let created = desired.pods.iter().map(kube::ResourceExt::name_any).collect();
        for relabel in &decision.relabel {
            self.pods.get_mut(&relabel.name).unwrap().labels_mut().extend(relabel.labels.clone());
        }
        let relabelled = decision.relabel.iter().map(|relabel| relabel.name.clone()).collect();
        Applied { created, removed: decision.remove.clone(), relabelled, map }
    }

    /// Gives every pod a node and lets it run; coordinators of complete replicas become ready.
    pub fn run_pods(&mut self) {
        let spec = &self.deployment.spec;
        let rank_pods = usize::try_from(spec.parallelism.data / spec.gpus_per_pod.max(1)).unwrap();
        let names: Vec<String> = self.pods.keys().cloned().collect();
        for (index, name) in names.iter().enumerate() {
            let node = format!("node-{}", 1 + index % 3);
            self.set_pod(name, &running(true), Some(&node));
        }
        for name in names.iter().filter(|name| name.ends_with("-coordinator")) {
            let group = self.pods[name].labels()[names::GROUP].clone();
            let members = self.pods.values().filter(|pod| pod.labels()[names::GROUP] == group).count();
            if members < rank_pods + 1 {
                self.set_ready(name, false);
            }
        }
    }

    pub fn set_ready(&mut self, pod: &str, is_ready: bool) {
        self.set_pod(pod, &running(is_ready), None);
    }

    pub fn set_pod(&mut self, pod: &str, status: &serde_json::Value, node: Option<&str>) {
        let pod = self.pods.get_mut(pod).unwrap();
        pod.status = Some(serde_json::from_value(status.clone()).unwrap());
        if let Some(node) = node {
            pod.spec.as_mut().unwrap().node_name = Some(node.to_owned());
        }
    }

    /// Passes until nothing is created or removed any more, with pods that run at once.
    pub fn settle(&mut self) -> Pass {
        for _ in 0..20 {
            let pass = self.pass();
            if pass.desired.pods.is_empty() && pass.decision.remove.is_empty() {
                return pass;
            }
            self.run_pods();
        }
        panic!("no end of changes");
    }
}

fn running(is_ready: bool) -> serde_json::Value {
    json!({
        "phase": "Running",
        "podIP": "10.0.0.1",
        "conditions": [{"type": "Ready", "status": if is_ready { "True" } else { "False" }}],
        "containerStatuses": [started_container()],
    })
}

/// Keys that differ from those of another number.
pub fn keys(number: u8) -> Keys {
    Keys::from_random(&[number; operator::keys::RANDOM_BYTES])
}

/// `True`, `False` or `Unknown`, the reason, and the message of a condition.
pub fn condition<'a>(status: &'a MoEDeploymentStatus, kind: &str) -> (&'a str, &'a str, &'a str) {
    let condition = status.conditions.iter().find(|condition| condition.type_ == kind).unwrap();
    (&condition.status, &condition.reason, &condition.message)
}
