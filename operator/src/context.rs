//! What every reconcile shares: the client, the caches that watches keep, settings, metrics.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt as _, Shared};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{ConfigMap, Node, Pod, Service, ServiceAccount};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::core::DeserializeGuard;
use kube::runtime::events::{Recorder, Reporter};
use kube::runtime::reflector::Store;
use kube::runtime::reflector::store::WriterDropped;
use kube::{Client, Resource};
use tokio::time::Instant;

use crate::admin_tokens::AdminTokens;
use crate::api::MoEDeployment;
use crate::attempt::Attempt;
use crate::backoff;
use crate::error::Failures;
use crate::host_paths::AllowedHostPaths;
use crate::metrics::Metrics;
use crate::names;
use crate::observed::RuntimeImages;
use crate::reach::{self, Sighting};
use crate::runtime_watch::{Downloads, RuntimeViews};

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
    /// How long a node may be out of reach, while most are not, before its pods are replaced: longer than the hiccup of a
    /// kubelet that restarts, short against loading a model. The cluster itself takes some 50 s to notice that a node is gone.
    pub node_lost_after: SignedDuration,
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
    /// Caches that have not been filled once yet, by resource.
    #[must_use]
    pub fn unfilled(&self) -> Vec<&'static str> {
        // No `..`: a cache that is added has to be waited for.
        let Self { deployments, pods, services, accounts, budgets, maps, nodes } = self;
        let caches = [
            ("moedeployments", is_filled(deployments)),
            ("pods", is_filled(pods)),
            ("services", is_filled(services)),
            ("serviceaccounts", is_filled(accounts)),
            ("poddisruptionbudgets", is_filled(budgets)),
            ("configmaps", is_filled(maps)),
            ("nodes", is_filled(nodes)),
        ];
        caches.into_iter().filter(|(_, is_filled)| !is_filled).map(|(resource, _)| resource).collect()
    }

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

fn is_filled<K>(store: &Store<K>) -> bool
where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    store.wait_until_ready().now_or_never().is_some_and(|filled| filled.is_ok())
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
    /// What downloads say.
    pub downloads: Downloads,
    /// Tokens of the coordinators' admin APIs.
    pub admin_tokens: AdminTokens,
}

/// What a context is put together from.
pub struct Parts {
    /// Talks to the API server.
    pub client: Client,
    /// What the watches have seen.
    pub stores: Stores,
    /// What coordinators say.
    pub heard: Heard,
    /// Resolves when the operator is to stop.
    pub stop: Stop,
}

/// What every reconcile shares.
pub struct Context {
    /// Talks to the API server.
    pub client: Client,
    /// Publishes events.
    pub recorder: Recorder,
    /// What the watches have seen.
    pub stores: Stores,
    /// What coordinators say.
    pub runtimes: RuntimeViews,
    /// What downloads say.
    pub downloads: Downloads,
    /// Tokens of the coordinators' admin APIs.
    pub admin_tokens: AdminTokens,
    /// Settings.
    pub settings: Settings,
    /// Metrics.
    pub metrics: Arc<Metrics>,
    /// What is seen of nodes.
    pub sightings: Sightings,
    stop: Stop,
    failures: Mutex<BTreeMap<String, Failure>>,
    ending: Mutex<BTreeSet<String>>,
}

/// Resolves when the operator is to stop.
pub type Stop = Shared<BoxFuture<'static, ()>>;

/// That the operator stops.
#[derive(Clone, Copy, Debug)]
pub struct Stopped;

/// What was seen of nodes last.
#[derive(Debug, Default)]
pub struct Sightings(Mutex<BTreeMap<String, Sighting>>);

impl Sightings {
    /// Looks at all nodes.
    pub fn look<'a>(&self, nodes: impl IntoIterator<Item = &'a Node>, now: Timestamp) -> BTreeMap<String, Sighting> {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *seen = reach::look(&seen, nodes, now);
        seen.clone()
    }
}

/// Failures of an object in a row.
#[derive(Default)]
struct Failure {
    count: u32,
    /// What was tried last, what came of it, and when to try it again.
    last: Option<(Attempt, Failures, Instant)>,
}

impl Context {
    /// Puts together what every reconcile shares.
    #[must_use]
    pub fn new(parts: Parts, settings: Settings, metrics: Arc<Metrics>) -> Self {
        let Parts { client, stores, heard, stop } = parts;
        let Heard { runtimes, downloads, admin_tokens } = heard;
        let recorder = Recorder::new(client.clone(), Reporter::from(names::MANAGER));
        Self {
            client,
            recorder,
            stores,
            runtimes,
            downloads,
            admin_tokens,
            settings,
            metrics,
            sightings: Sightings::default(),
            stop,
            failures: Mutex::default(),
            ending: Mutex::default(),
        }
    }

    /// Waits until every cache has been filled once.
    ///
    /// # Errors
    /// If the operator stops.
    pub async fn wait_until_ready(&self) -> Result<(), Stopped> {
        tokio::select! {
            filled = self.stores.wait_until_ready() => filled.map_err(|_: WriterDropped| Stopped),
            () = self.stop.clone() => Err(Stopped),
        }
    }

    /// Counts a failure of an object; how long to wait before it is tried again.
    pub fn failed(&self, uid: &str) -> Duration {
        let mut failures = self.lock_failures();
        let failure = failures.entry(uid.to_owned()).or_default();
        failure.count = failure.count.saturating_add(1);
        let wait = backoff::wait(failure.count, uid);
        if let Some((_, _, again)) = &mut failure.last {
            *again = Instant::now() + wait;
        }
        wait
    }

    /// Notes what was tried without success. It is not due again before [`failed`](Self::failed) has said when.
    pub fn tried(&self, uid: &str, attempt: Attempt, failures: Failures) {
        let mut all = self.lock_failures();
        all.entry(uid.to_owned()).or_default().last = Some((attempt, failures, Instant::now()));
    }

    /// What came of this when it was tried last, and for how long it is not to be tried again, if it is not.
    pub fn not_due(&self, uid: &str, attempt: &Attempt) -> Option<(Failures, Duration)> {
        let failures = self.lock_failures();
        let (last, outcome, again) = failures.get(uid)?.last.as_ref()?;
        let wait = again.saturating_duration_since(Instant::now());
        (last == attempt && !wait.is_zero()).then(|| (outcome.clone(), wait))
    }

    fn lock_failures(&self) -> MutexGuard<'_, BTreeMap<String, Failure>> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
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
        self.lock_failures().remove(uid);
    }
}
