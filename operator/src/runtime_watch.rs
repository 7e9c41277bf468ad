//! Asks every coordinator for its state at a fixed pace, and asks for a reconcile only when the answer changes what the
//! status shows: load that wavers, or experts on the move, cause no write.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt as _;
use futures::channel::mpsc::UnboundedSender;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use kube::runtime::reflector::{ObjectRef, Store};
use plan::wire::{Phase, State};

use crate::context::Guarded;
use crate::names::{self, Role};
use crate::observed::RuntimeView;
use crate::pods::Member;
use crate::ratio;
use crate::runtime_client::RuntimeClient;

/// Coordinators asked at a time.
const CONCURRENCY: usize = 32;

/// What coordinators said last, by namespace, deployment and replica.
#[derive(Clone, Debug, Default)]
pub struct RuntimeViews(Arc<Mutex<BTreeMap<Key, Entry>>>);

type Key = (String, String, usize);

#[derive(Clone, Debug)]
struct Entry {
    view: RuntimeView,
    shown: Shown,
}

/// The part of a state that a status shows.
#[derive(Clone, Debug, PartialEq)]
struct Shown {
    ready: bool,
    epoch: u64,
    ratio: Option<String>,
    recorded: Option<String>,
    degraded: Option<String>,
    failure: Option<String>,
}

impl Shown {
    fn after(previous: Option<&Self>, state: &State, recorded: Option<String>) -> Self {
        let measured = state.last_window.as_ref().map(|window| window.ratio);
        Self {
            ready: state.ready,
            epoch: match (state.phase, previous) {
                (Phase::Moving, Some(previous)) => previous.epoch,
                _ => state.epoch,
            },
            ratio: measured
                .and_then(|ratio| ratio::settle(previous.and_then(|shown| shown.ratio.as_deref()), Some(ratio))),
            recorded,
            degraded: state.degraded.clone(),
            failure: state.failure.clone(),
        }
    }
}

impl RuntimeViews {
    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<Key, Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the coordinators of a deployment said last.
    #[must_use]
    pub fn of(&self, namespace: &str, deployment: &str) -> BTreeMap<usize, RuntimeView> {
        let from = (namespace.to_owned(), deployment.to_owned(), 0);
        let views = self.lock();
        let own = views.range(from..).take_while(|((space, name, _), _)| space == namespace && name == deployment);
        own.map(|((_, _, group), entry)| (*group, entry.view.clone())).collect()
    }

    /// Takes an answer in; whether it changes what is shown.
    fn take(&self, key: &Key, view: RuntimeView) -> bool {
        let mut views = self.lock();
        let previous = views.get(key).filter(|entry| entry.view.pod_uid == view.pod_uid).map(|entry| &entry.shown);
        let recorded = view.recorded.as_ref().map(|recorded| recorded.map.content_hash());
        let shown = Shown::after(previous, &view.state, recorded);
        let changed = previous != Some(&shown);
        views.insert(key.clone(), Entry { view, shown });
        changed
    }

    fn recorded_of(&self, key: &Key, pod_uid: &str) -> Option<RuntimeView> {
        self.lock().get(key).filter(|entry| entry.view.pod_uid == pod_uid).map(|entry| entry.view.clone())
    }

    /// Forgets coordinators that are gone.
    fn keep(&self, living: &BTreeMap<Key, Member>) {
        self.lock().retain(|key, entry| living.get(key).is_some_and(|member| member.uid == entry.view.pod_uid));
    }
}

/// Asks for ever; `changed` gets each deployment whose status is to be looked at.
pub async fn watch(
    pods: Store<Pod>,
    client: Arc<dyn RuntimeClient>,
    views: RuntimeViews,
    changed: UnboundedSender<ObjectRef<Guarded>>,
    period: Duration,
) {
    let mut ticks = tokio::time::interval(period);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let coordinators = coordinators(&pods);
        views.keep(&coordinators);
        futures::stream::iter(&coordinators)
            .for_each_concurrent(CONCURRENCY, |(key, member)| ask(client.as_ref(), &views, &changed, (key, member)))
            .await;
        if changed.is_closed() {
            return;
        }
    }
}

/// Coordinators that have an address.
fn coordinators(pods: &Store<Pod>) -> BTreeMap<Key, Member> {
    let read = |pod: Arc<Pod>| {
        let member = Member::read(&pod).filter(|member| member.role == Role::Coordinator && !member.deleting)?;
        member.address.as_ref()?;
        let deployment = pod.labels().get(names::DEPLOYMENT)?.clone();
        Some(((pod.namespace()?, deployment, member.group), member))
    };
    pods.state().into_iter().filter_map(read).collect()
}

async fn ask(
    client: &dyn RuntimeClient,
    views: &RuntimeViews,
    changed: &UnboundedSender<ObjectRef<Guarded>>,
    (key, member): (&Key, &Member),
) {
    let host = member.address.as_deref().unwrap_or_default();
    let address = if host.contains(':') {
        format!("[{host}]:{}", names::ADMIN_PORT)
    } else {
        format!("{host}:{}", names::ADMIN_PORT)
    };
    match look(client, views, key, member, &address).await {
        Ok(view) => {
            if views.take(key, view) {
                // A closed channel means that the operator stops.
                let _ = changed.unbounded_send(ObjectRef::new(&key.1).within(&key.0));
            }
        }
        // A coordinator that is starting or ending does not answer; its pod's readiness says so where it matters.
        Err(error) => {
            tracing::debug!(namespace = key.0, deployment = key.1, group = key.2, %error, "coordinator does not answer");
        }
    }
}

async fn look(
    client: &dyn RuntimeClient,
    views: &RuntimeViews,
    key: &Key,
    member: &Member,
    address: &str,
) -> Result<RuntimeView, crate::runtime_client::RuntimeError> {
    let state = client.state(address).await?;
    let known = views.recorded_of(key, &member.uid);
    let known_hash = known.as_ref().and_then(|view| view.state.recorded_map_hash.clone());
    let recorded = match (&state.recorded_map_hash, known) {
        (None, _) => None,
        (Some(hash), Some(view)) if Some(hash) == known_hash.as_ref() && view.recorded.is_some() => view.recorded,
        (Some(_), _) => client.recorded_map(address).await?.map(Arc::new),
    };
    Ok(RuntimeView { pod_uid: member.uid.clone(), state: Arc::new(state), recorded })
}
