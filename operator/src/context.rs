//! What every reconcile shares: the client, the caches that watches keep, settings, metrics.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMap, Node, Pod, Service, ServiceAccount};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::core::DeserializeGuard;
use kube::runtime::events::{Recorder, Reporter};
use kube::runtime::reflector::Store;
use kube::runtime::reflector::store::WriterDropped;
use kube::{Client, Resource};

use crate::admin_tokens::AdminTokens;
use crate::api::MoEDeployment;
use crate::backoff;
use crate::host_paths::AllowedHostPaths;
use crate::metrics::Metrics;
use crate::names;
use crate::observed::RuntimeImages;
use crate::runtime_watch::RuntimeViews;

/// A deployment, or the reason why it cannot be read: one malformed object must not stop the watch.
pub type Guarded = DeserializeGuard<MoEDeployment>;

/// What an operator is told at its start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Images of the runtime for deployments that name none.
    pub images: RuntimeImages,
    /// Namespace that is served; all if `None`.
    pub namespace: Option<String>,
    /// Whether nodes are watched, which takes a right that no namespace gives.
    pub watch_nodes: bool,
    /// Folders of nodes that deployments may mount; none if there are none.
    pub allowed_host_paths: AllowedHostPaths,
    /// Pace at which coordinators are asked for their state.
    pub poll: Duration,
}

/// Caches that watches keep.
#[derive(Clone)]
pub struct Stores {
    /// Deployments.
    pub deployments: Store<Guarded>,
    /// Pods of deployments.
    pub pods: Store<Pod>,
    /// Services of deployments.
    pub services: Store<Service>,
    /// Service accounts of deployments.
    pub accounts: Store<ServiceAccount>,
    /// Disruption budgets of deployments.
    pub budgets: Store<PodDisruptionBudget>,
    /// Recorded maps, without their content.
    pub maps: Store<ConfigMap>,
    /// Nodes.
    pub nodes: Store<Node>,
}

impl Stores {
    /// Waits until every cache has been filled once.
    ///
    /// # Errors
    /// If a watch has ended, as it does when the operator stops.
    pub async fn wait_until_ready(&self) -> Result<(), WriterDropped> {
        // No `..`: a cache that is added has to be waited for.
        let Self { deployments, pods, services, accounts, budgets, maps, nodes } = self;
        filled(deployments).await?;
        filled(pods).await?;
        filled(services).await?;
        filled(accounts).await?;
        filled(budgets).await?;
        filled(maps).await?;
        filled(nodes).await
    }
}

/// Waits until a cache has been filled once. Asks again from time to time: of several tasks that wait for one cache,
/// kube-runtime wakes only the one that asked last.
async fn filled<K>(store: &Store<K>) -> Result<(), WriterDropped>
where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    loop {
        if let Ok(outcome) = tokio::time::timeout(Duration::from_millis(100), store.wait_until_ready()).await {
            return outcome;
        }
    }
}

/// What reconciles and the watch of coordinators tell each other.
#[derive(Clone, Default)]
pub struct Heard {
    /// What coordinators say.
    pub runtimes: RuntimeViews,
    /// Tokens of the coordinators' admin APIs.
    pub admin_tokens: AdminTokens,
}

/// What every reconcile shares.
pub struct Context {
    /// Talks to the API server.
    pub client: Client,
    /// Publishes events.
    pub recorder: Recorder,
    /// Caches.
    pub stores: Stores,
    /// What coordinators say.
    pub runtimes: RuntimeViews,
    /// Tokens of the coordinators' admin APIs.
    pub admin_tokens: AdminTokens,
    /// Settings.
    pub settings: Settings,
    /// Metrics.
    pub metrics: Arc<Metrics>,
    failures: Mutex<BTreeMap<String, u32>>,
    ending: Mutex<BTreeSet<String>>,
}

impl Context {
    /// Puts together what every reconcile shares.
    #[must_use]
    pub fn new(client: Client, stores: Stores, heard: Heard, settings: Settings, metrics: Arc<Metrics>) -> Self {
        let Heard { runtimes, admin_tokens } = heard;
        let recorder = Recorder::new(client.clone(), Reporter::from(names::MANAGER));
        Self {
            client,
            recorder,
            stores,
            runtimes,
            admin_tokens,
            settings,
            metrics,
            failures: Mutex::default(),
            ending: Mutex::default(),
        }
    }

    /// Counts a failure of an object; how long to wait before it is tried again.
    pub fn failed(&self, uid: &str) -> Duration {
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let count = failures.entry(uid.to_owned()).or_default();
        *count = count.saturating_add(1);
        backoff::wait(*count, uid)
    }

    /// Notes that the namespace of an object is being deleted, which nothing takes back.
    pub fn ends(&self, uid: &str) {
        self.ending.lock().unwrap_or_else(PoisonError::into_inner).insert(uid.to_owned());
    }

    /// Whether the namespace of an object is known to be in deletion.
    pub fn is_ending(&self, uid: &str) -> bool {
        self.ending.lock().unwrap_or_else(PoisonError::into_inner).contains(uid)
    }

    /// Forgets the failures of an object.
    pub fn succeeded(&self, uid: &str) {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner).remove(uid);
    }
}
