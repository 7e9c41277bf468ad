//! What is watched and what it triggers.
//!
//! API calls: `list`, `watch` on moedeployments, pods, services, serviceaccounts, poddisruptionbudgets, configmaps, nodes.

use std::fmt::Debug;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::channel::mpsc;
use futures::stream::{BoxStream, SelectAll};
use futures::{FutureExt as _, Stream, StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::{ConfigMap, Node, Pod};
use kube::core::PartialObjectMeta;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::runtime::watcher::Event;
use kube::runtime::{Controller, WatchStreamExt as _, reflector, watcher};
use kube::{Api, Client, Resource, ResourceExt as _};
use plan::words::with_causes;
use serde::de::DeserializeOwned;

use crate::api::MoEDeployment;
use crate::context::{Context, Guarded, Heard, Parts, Settings, Stop, Stores};
use crate::lean::{Lean, without_data};
use crate::metrics::Metrics;
use crate::names;
use crate::observe::controller;
use crate::reconcile::{error_policy, reconcile};
use crate::runtime_client::RuntimeClient;
use crate::runtime_watch::{self, Coordinators};

/// Deployments that are reconciled at a time.
const CONCURRENCY: u16 = 8;

/// Objects that a list brings at a time: each may have more than a megabyte until it has been made lean.
const PAGE: u32 = 50;

type Triggers = SelectAll<BoxStream<'static, ObjectRef<Guarded>>>;

/// How long what is being reconciled may take to finish when the operator is to stop: a kubelet kills after 30 s.
const FINISHING: Duration = Duration::from_secs(5);

/// How long caches may take to fill before it is told which do not.
const FILLING: Duration = Duration::from_secs(10);

/// Runs the controller until `stop` resolves and what is being reconciled has been finished, or cannot be.
pub async fn run(
    client: Client,
    runtime_client: Arc<dyn RuntimeClient>,
    settings: Settings,
    metrics: Arc<Metrics>,
    stop: impl Future<Output = ()> + Send + 'static,
) {
    let stop: Stop = stop.boxed().shared();
    let deployments: Api<Guarded> = scoped(&client, &settings);
    let deployments = Controller::new(deployments, watcher::Config::default())
        .with_config(kube::runtime::controller::Config::default().concurrency(CONCURRENCY));
    if let Err(error) = metrics.show(deployments.store()) {
        tracing::error!(error = with_causes(&error), "metrics of deployments are not shown");
    }
    let (stores, mut triggers) = watches(&client, &settings, deployments.store());
    let heard = Heard::default();
    let (sender, changes) = mpsc::unbounded();
    triggers.push(changes.boxed());
    let poll = settings.poll;
    let coordinators = Coordinators {
        pods: stores.pods.clone(),
        deployments: stores.deployments.clone(),
        nodes: stores.nodes.clone(),
    };
    let asking = tokio::spawn(runtime_watch::watch(coordinators, runtime_client, heard.clone(), sender, poll));
    let ready = tokio::spawn(announce(stores.clone(), Arc::clone(&metrics)));
    let parts = Parts { client, stores: stores.clone(), heard, stop: stop.clone() };
    let context = Arc::new(Context::new(parts, settings, metrics));
    let running = deployments
        .reconcile_on(triggers)
        .graceful_shutdown_on(stop.clone())
        .run(reconcile, error_policy, context)
        .for_each(|result| async move {
            match result {
                Ok((object, action)) => tracing::debug!(%object, ?action, "reconciled"),
                // Told by the error policy already.
                Err(kube::runtime::controller::Error::ReconcilerFailed(..)) => {}
                Err(kube::runtime::controller::Error::QueueError(error)) => tell_failed_watch(&error),
                Err(error) => tracing::debug!(error = with_causes(&error), "not reconciled"),
            }
        });
    tokio::select! {
        () = running => {}
        () = too_long(stop, stores) => tracing::warn!("stopping before everything was finished"),
    }
    asking.abort();
    ready.abort();
}

/// Resolves when the operator is to stop and has had its time: none as long as it does not know what there is.
async fn too_long(stop: Stop, stores: Stores) {
    stop.await;
    if stores.unfilled().is_empty() {
        tokio::time::sleep(FINISHING).await;
    }
}

/// A watch of deployments that fails is tried again; without the definition it fails for ever.
fn tell_failed_watch(error: &watcher::Error) {
    let hint = "is the definition moedeployments.swiftbalancer.io installed, and may this operator list and watch it?";
    tracing::warn!(kind = "MoEDeployment", error = with_causes(error), hint, "watch failed, trying again");
}

async fn announce(stores: Stores, metrics: Arc<Metrics>) {
    let filled = async {
        if stores.wait_until_ready().await.is_ok() {
            metrics.set_ready();
            tracing::info!("caches are filled");
        }
    };
    let waiting = async {
        loop {
            tokio::time::sleep(FILLING).await;
            metrics.set_unfilled(&stores.unfilled());
            tracing::warn!(
                caches = stores.unfilled().join(", "),
                "waiting for caches to be filled; until then nothing is reconciled"
            );
        }
    };
    tokio::select! {
        () = filled => {}
        () = waiting => {}
    }
}

/// The objects of a kind in the namespace that is served, or in all.
fn scoped<K>(client: &Client, settings: &Settings) -> Api<K>
where
    K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
{
    match &settings.namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    }
}

/// Starts all watches but that of the deployments.
fn watches(client: &Client, settings: &Settings, deployments: Store<Guarded>) -> (Stores, Triggers) {
    let managed = || watcher::Config::default().labels(&format!("{}={}", names::MANAGED_BY, names::MANAGER));
    let recorded = watcher::Config::default().labels(&format!("{}={}", names::EXPERT_MAP, names::RECORDED));
    let mut triggers = Triggers::new();
    let watches_nodes = settings.watch_nodes;
    let pods = watcher(scoped::<Pod>(client, settings), managed().page_size(PAGE));
    // A pod whose node nobody looks at is on none that could be lost.
    let pods =
        pods.modify(move |pod| pod.spec.iter_mut().filter(|_| !watches_nodes).for_each(|spec| spec.node_name = None));
    let (pods, pod_changes) = cached(pods);
    let (services, service_changes) = watched(scoped(client, settings), managed());
    let (accounts, account_changes) = watched(scoped(client, settings), managed());
    let (budgets, budget_changes) = watched(scoped(client, settings), managed());
    // Maps are large, anybody can label a ConfigMap, and a pass that needs one map reads that one.
    let maps = watcher(scoped::<PartialObjectMeta<ConfigMap>>(client, settings), recorded).map_ok(without_data);
    let (maps, map_changes) = cached(maps);
    let nodes = if watches_nodes {
        watcher(Api::<Node>::all(client.clone()), watcher::Config::default().page_size(PAGE)).boxed()
    } else {
        // Filled at once, and with nothing.
        futures::stream::iter([Ok(Event::Init), Ok(Event::InitDone)]).boxed()
    };
    let (nodes, node_changes) = cached(nodes);
    triggers.push(of_deployment(pod_changes));
    triggers.push(of_deployment(service_changes));
    triggers.push(of_deployment(account_changes));
    triggers.push(of_deployment(budget_changes));
    triggers.push(of_deployment(map_changes));
    let on = pods.clone();
    triggers
        .push(node_changes.flat_map(move |node: Node| futures::stream::iter(on_node(&on, &node.name_any()))).boxed());
    (Stores { deployments, pods, services, accounts, budgets, maps, nodes }, triggers)
}

/// A cache of a kind and the stream of its changes, which keeps the cache filled as long as it is polled.
fn watched<K>(api: Api<K>, config: watcher::Config) -> (Store<K>, impl Stream<Item = K> + Send + 'static)
where
    K: Resource<DynamicType = ()> + Lean + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    cached(watcher(api, config.page_size(PAGE)))
}

/// A cache of what is watched, without what no pass reads, and the stream of its changes.
fn cached<K>(
    events: impl Stream<Item = watcher::Result<watcher::Event<K>>> + Send + 'static,
) -> (Store<K>, impl Stream<Item = K> + Send + 'static)
where
    K: Resource<DynamicType = ()> + Lean + Clone + Debug + Send + Sync + 'static,
{
    let (store, writer) = reflector::store();
    let events = events.modify(Lean::make_lean).default_backoff();
    let changes = events.reflect(writer).touched_objects().filter_map(|object| async move {
        object
            .inspect_err(
                |error| tracing::warn!(kind = %K::kind(&()), error = with_causes(error), "watch failed, trying again"),
            )
            .ok()
    });
    (store, changes)
}

/// Deployments that changed objects belong to.
fn of_deployment<K>(changes: impl Stream<Item = K> + Send + 'static) -> BoxStream<'static, ObjectRef<Guarded>>
where
    K: Resource<DynamicType = ()> + Send + 'static,
{
    changes.filter_map(|object| async move { owner(&object) }).boxed()
}

/// The deployment that controls an object, or one of the name that it is labelled with: anybody can change a label.
fn owner(object: &impl Resource) -> Option<ObjectRef<Guarded>> {
    let kind = MoEDeployment::kind(&());
    let owner = controller(object).filter(|owner| owner.kind == kind).map(|owner| &owner.name);
    let name = owner.or_else(|| object.labels().get(names::DEPLOYMENT))?;
    Some(ObjectRef::new(name).within(&object.namespace()?))
}

/// Deployments that have a pod on a node.
fn on_node(pods: &Store<Pod>, node: &str) -> Vec<ObjectRef<Guarded>> {
    let there = |pod: &Arc<Pod>| pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()) == Some(node);
    let mut found: Vec<_> =
        pods.state().iter().filter(|pod| there(pod)).filter_map(|pod| owner(pod.as_ref())).collect();
    found.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
    found.dedup();
    found
}
