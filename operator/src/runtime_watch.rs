//! Asks every coordinator for its state at a fixed pace, and asks for a reconcile only when the answer changes what the
//! status shows: load that wavers, or experts on the move, cause no write.
//!
//! A pod is a coordinator only if it is the one that a deployment that exists controls under the name of one: labels alone,
//! which anybody can give to any pod, are not believed.

mod downloads;
mod patience;
mod views;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::channel::mpsc::UnboundedSender;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Resource as _, ResourceExt as _};
use plan::wire::State;
use tokio::time::Instant;

use crate::api::MoEDeployment;
use crate::context::{Guarded, Heard};
use crate::keys::AdminToken;
use crate::names::{self, Role};
use crate::nodes;
use crate::observe::controller;
use crate::observed::RuntimeView;
use crate::pods::Member;
use crate::runtime_client::{Endpoint, RuntimeClient, RuntimeError};
use crate::words;

pub use downloads::Downloads;
use patience::Patience;
pub use views::RuntimeViews;
use views::{Key, Known};

/// Coordinators asked at a time.
const CONCURRENCY: usize = 32;

/// Where coordinators are found.
pub struct Coordinators {
    /// Pods of deployments.
    pub pods: Store<Pod>,
    /// Deployments.
    pub deployments: Store<Guarded>,
    /// Nodes that pods are on.
    pub nodes: Store<Node>,
}

impl Coordinators {
    /// Those that have an address, with the uid of their deployment.
    fn found(&self) -> BTreeMap<Key, (Member, String)> {
        let deployment = |namespace: &str, name: &str| {
            let found = self.deployments.get(&ObjectRef::new(name).within(namespace))?;
            found.uid()
        };
        self.pods.state().iter().filter_map(|pod| coordinator(pod, &deployment)).collect()
    }

    /// Whether what is sent to the address of a coordinator reaches it and nobody else.
    fn holds_its_address(&self, member: &Member, now: Timestamp, answered: bool) -> bool {
        let node = member.node.as_deref().and_then(|node| self.nodes.get(&ObjectRef::new(node)));
        holds_its_address(member, node.as_deref(), now, answered)
    }

    fn deployment_uids(&self) -> BTreeSet<String> {
        self.deployments.state().iter().filter_map(|deployment| deployment.uid()).collect()
    }
}

/// A pod as the coordinator of a deployment of this uid, if it is that. `deployment` tells the uid of the one of a namespace
/// and a name.
fn coordinator(pod: &Pod, deployment: &impl Fn(&str, &str) -> Option<String>) -> Option<(Key, (Member, String))> {
    let member = Member::read(pod).filter(|member| member.role == Role::Coordinator && !member.deleting)?;
    member.address.as_ref()?;
    let uid = controlled(pod, &member, deployment)?;
    let (namespace, name) = (pod.namespace()?, member.deployment.clone());
    Some(((namespace, name, member.group), (member, uid)))
}

/// Uid of the deployment of a pod's name, if that controls it.
fn controlled(pod: &Pod, member: &Member, deployment: &impl Fn(&str, &str) -> Option<String>) -> Option<String> {
    let uid = deployment(&pod.namespace()?, &member.deployment)?;
    let is_controlled = controller(pod).is_some_and(|owner| {
        owner.uid == uid && owner.kind == MoEDeployment::kind(&()) && owner.name == member.deployment
    });
    is_controlled.then_some(uid)
}

/// How long after a node was called out of reach its pods are taken to have their addresses, without having said anything.
const HICCUP: SignedDuration = SignedDuration::from_secs(10);
/// How long after its last answer a pod on such a node is taken to have its address.
const CONVERSATION: SignedDuration = SignedDuration::from_secs(15);

/// Whether a pod still has the address that it shows: of one that has ended, or whose node is gone, another may have it by
/// now, and would be sent the token. One that has just `answered` is there, whatever is said of its node.
fn holds_its_address(member: &Member, node: Option<&Node>, now: Timestamp, answered: bool) -> bool {
    let is_there = match node {
        None => member.node.is_none(),
        Some(node) => nodes::is_ready(node) || answered || nodes::turned(node, now) + HICCUP > now,
    };
    member.started && !member.ended && !member.deleting && is_there
}

/// Asks for ever; `changed` gets each deployment whose status is to be looked at.
pub async fn watch(
    coordinators: Coordinators,
    client: Arc<dyn RuntimeClient>,
    heard: Heard,
    changed: UnboundedSender<ObjectRef<Guarded>>,
    period: Duration,
) {
    let mut ticks = tokio::time::interval(period);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let patience = Patience::default();
    let asking = Asking { client: client.as_ref(), heard: &heard, changed: &changed, patience: &patience };
    loop {
        ticks.tick().await;
        let found = coordinators.found();
        heard.runtimes.keep(|key, uid| found.get(key).is_some_and(|(member, _)| member.uid == uid));
        heard.admin_tokens.keep(&coordinators.deployment_uids());
        patience.keep(|uid| found.values().any(|(member, _)| member.uid == uid));
        let now = Instant::now();
        let time = Timestamp::now();
        let due = found.iter().filter(|(key, (member, _))| {
            let answered = heard.runtimes.heard(&member.uid, key).is_some_and(|heard| heard + CONVERSATION > time);
            patience.is_due(&member.uid, now) && coordinators.holds_its_address(member, time, answered)
        });
        // Until a pass over the deployment has read its keys there is no token, and nothing is asked without one.
        let due = due.filter_map(|(key, (member, uid))| Some((key, member, heard.admin_tokens.of(uid)?)));
        futures::stream::iter(due)
            .for_each_concurrent(CONCURRENCY, |(key, member, token)| asking.ask(key, member, token))
            .await;
        downloads::ask(&coordinators, client.as_ref(), &heard.downloads, &changed).await;
        if changed.is_closed() {
            return;
        }
    }
}

struct Asking<'a> {
    client: &'a dyn RuntimeClient,
    heard: &'a Heard,
    changed: &'a UnboundedSender<ObjectRef<Guarded>>,
    patience: &'a Patience,
}

impl Asking<'_> {
    async fn ask(&self, key: &Key, member: &Member, token: AdminToken) {
        let endpoint = Endpoint { address: address(member), token };
        let began = Instant::now();
        let outcome = self.look(key, member, &endpoint).await;
        let has_answered = outcome.as_ref().map_or_else(RuntimeError::is_unreadable, |_| true);
        self.patience.asked(&member.uid, began, Instant::now(), has_answered);
        let runtimes = &self.heard.runtimes;
        let is_news = match outcome {
            Ok((view, map)) => {
                let of_map = match map {
                    Map::Readable => runtimes.could_read(key, &member.uid),
                    Map::Unreadable => false,
                    Map::News(hash, error) => self.cannot_read(key, member, &error, Some(&hash)),
                };
                runtimes.take(key, view) || of_map
            }
            Err(error) if error.is_unreadable() => self.cannot_read(key, member, &error, None),
            // A coordinator that is starting or ending does not answer; its pod's readiness says so where it matters.
            Err(error) => {
                let error = words::shorten(&error.to_string());
                tracing::debug!(
                    namespace = key.0,
                    deployment = key.1,
                    group = key.2,
                    error,
                    "no answer of a coordinator"
                );
                false
            }
        };
        if is_news {
            // A closed channel means that the operator stops.
            let _ = self.changed.unbounded_send(ObjectRef::new(&key.1).within(&key.0));
        }
    }

    /// Notes an answer that cannot be read, and logs the first; whether it is that.
    fn cannot_read(&self, key: &Key, member: &Member, error: &RuntimeError, map_hash: Option<&str>) -> bool {
        let error = words::shorten(&error.to_string());
        let is_news = self.heard.runtimes.cannot_read(key, &member.uid, &error, map_hash);
        if is_news {
            let (namespace, deployment, group) = key;
            tracing::warn!(namespace, deployment, group, error, "an answer of a coordinator cannot be read");
        }
        is_news
    }

    async fn look(&self, key: &Key, member: &Member, endpoint: &Endpoint) -> Result<(RuntimeView, Map), RuntimeError> {
        let state = in_short(self.client.state(endpoint).await?);
        let pod_uid = member.uid.clone();
        let view = |recorded, recorded_too_large| RuntimeView {
            pod_uid,
            heard: Timestamp::now(),
            state: Arc::new(state.clone()),
            recorded,
            recorded_too_large,
        };
        let Some(hash) = &state.recorded_map_hash else { return Ok((view(None, false), Map::Readable)) };
        // Replicas share traffic and one speaks for all: the maps of the others are of no use.
        if !self.heard.runtimes.may_speak(key) {
            return Ok((view(None, false), Map::Readable));
        }
        match self.heard.runtimes.known_map(key, &member.uid, hash) {
            Known::Map(map) => Ok((view(Some(map), false), Map::Readable)),
            Known::TooLarge => Ok((view(None, true), Map::Readable)),
            Known::Unreadable => Ok((view(None, false), Map::Unreadable)),
            Known::Not => match self.client.recorded_map(endpoint).await {
                Ok(map) => Ok((view(map.map(Arc::new), false), Map::Readable)),
                Err(RuntimeError::TooLarge { .. }) => Ok((view(None, true), Map::Readable)),
                Err(error) if error.is_unreadable() => Ok((view(None, false), Map::News(hash.clone(), error))),
                Err(error) => Err(error),
            },
        }
    }
}

/// What came of the map that a coordinator recorded last.
enum Map {
    /// It was read, or is of no use, or there is none.
    Readable,
    /// It could not be read before, and is not asked for again.
    Unreadable,
    /// It cannot be read: its hash, and why.
    News(String, RuntimeError),
}

fn address(member: &Member) -> String {
    let host = member.address.as_deref().unwrap_or_default();
    if host.contains(':') { format!("[{host}]:{}", names::ADMIN_PORT) } else { format!("{host}:{}", names::ADMIN_PORT) }
}

/// A state without what no status shows, and with words as they are shown: it is kept for each replica of the cluster.
fn in_short(mut state: State) -> State {
    let short = |words: Option<String>| words.map(|words| words::shorten(&words)).filter(|words| !words.is_empty());
    state.ranks = Vec::new();
    state.last_decision = None;
    state.first_window = None;
    if let Some(window) = &mut state.last_window {
        window.ratio_per_layer = Vec::new();
    }
    for text in [&mut state.model.name, &mut state.model.digest, &mut state.map_hash] {
        *text = words::shorten(text);
    }
    state.recorded_map_hash = state.recorded_map_hash.map(|hash| words::shorten(&hash));
    state.degraded = short(state.degraded);
    state.failure = short(state.failure);
    state
}

#[cfg(test)]
mod tests;
