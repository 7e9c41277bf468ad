//! Reads everything that a decision needs. Reads only; from the caches of watches, except for the map that a deployment
//! starts from, of which no cache has the content, and for the Secret with the keys: a watch of Secrets would need the right to read all of them.
//!
//! A node that a pod is on and that the cache does not have is asked for: the cache may lag, and what is on a node that is gone is
//! removed by force.
//!
//! API calls: `get` on configmaps, secrets, nodes.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Node, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::runtime::reflector::Store;
use kube::{Api, Resource, ResourceExt as _};
use plan::words::with_causes;

use crate::api::MoEDeployment;
use crate::context::Context;
use crate::error::Error;
use crate::keys::{Keys, RANDOM_BYTES, StoredKeys};
use crate::names;
use crate::observed::{Observed, Reference};
use crate::pods::Member;

/// Reads.
///
/// # Errors
/// If the API server cannot be asked for a ConfigMap or the keys, the machine gives no randomness, or the operator is stopping.
pub async fn observe(context: &Context, deployment: &MoEDeployment, now: Timestamp) -> Result<Observed, Error> {
    let stores = &context.stores;
    context.wait_until_ready().await.map_err(|_| Error::Stopping)?;
    let namespace = deployment.namespace().unwrap_or_default();
    let maps = named(stores.maps.state().into_iter().filter(|map| map.namespace().as_ref() == Some(&namespace)));
    let reference = reference(context, deployment).await?;
    let keys = keys(context, deployment).await?;
    let pods = owned(&stores.pods, deployment);
    let members: BTreeMap<String, Member> =
        pods.into_iter().filter_map(|(name, pod)| Some((name, Member::read(&pod)?))).collect();
    let downloads = context.downloads.of(members.values().map(|member| member.uid.as_str()));
    let nodes = nodes(context, &members).await;
    let sightings = context.sightings.look(nodes.values().map(AsRef::as_ref), now);
    Ok(Observed {
        now,
        images: context.settings.images.clone(),
        allowed_host_paths: context.settings.allowed_host_paths.clone(),
        keys,
        fresh_keys: draw_keys()?,
        node_lost_after: context.settings.node_lost_after,
        members,
        predecessors: predecessors(context, deployment),
        services: owned(&stores.services, deployment),
        accounts: owned(&stores.accounts, deployment),
        budgets: owned(&stores.budgets, deployment),
        maps_in_use: maps_in_use(context, &namespace, deployment),
        maps,
        reference,
        downloads,
        watches_nodes: context.settings.watch_nodes,
        nodes,
        sightings,
        runtimes: context.runtimes.of(&namespace, &deployment.name_any()),
        unreadable: context.runtimes.unreadable_of(&namespace, &deployment.name_any()),
    })
}

fn named<K: Resource<DynamicType = ()>>(objects: impl IntoIterator<Item = Arc<K>>) -> BTreeMap<String, Arc<K>> {
    objects.into_iter().map(|object| (object.name_any(), object)).collect()
}

/// All nodes, with those that pods are on and that the cache does not have, if there are such.
async fn nodes(context: &Context, members: &BTreeMap<String, Member>) -> BTreeMap<String, Arc<Node>> {
    let mut nodes = named(context.stores.nodes.state());
    let missing: BTreeSet<&String> =
        members.values().filter_map(|member| member.node.as_ref()).filter(|node| !nodes.contains_key(*node)).collect();
    let api: Api<Node> = Api::all(context.client.clone());
    let mut found = BTreeMap::new();
    for name in missing {
        match api.get_opt(name).await {
            Ok(None) => {}
            Ok(Some(node)) => drop(found.insert(name.clone(), Arc::new(node))),
            // Nothing is known against it.
            Err(error) => {
                tracing::warn!(node = name, error = with_causes(&error), "a node that has a pod cannot be asked for");
                let node = Node {
                    metadata: ObjectMeta { name: Some(name.clone()), ..ObjectMeta::default() },
                    ..Node::default()
                };
                found.insert(name.clone(), Arc::new(node));
            }
        }
    }
    nodes.extend(found);
    nodes
}

/// Names of what a deployment of the same name has left that was deleted.
fn predecessors(context: &Context, deployment: &MoEDeployment) -> BTreeSet<String> {
    let stores = &context.stores;
    left_over(&stores.pods, deployment)
        .chain(left_over(&stores.services, deployment))
        .chain(left_over(&stores.accounts, deployment))
        .chain(left_over(&stores.budgets, deployment))
        .collect()
}

fn left_over<K>(store: &Store<K>, deployment: &MoEDeployment) -> impl Iterator<Item = String> + use<K>
where
    K: Resource<DynamicType = ()> + Clone + Debug + 'static,
{
    let is_left_over = |object: &Arc<K>| is_of_predecessor(deployment, object.as_ref());
    store.state().into_iter().filter(is_left_over).map(|object| object.name_any()).collect::<Vec<_>>().into_iter()
}

/// Whether an object is controlled by a deployment of this name in this namespace that was another one.
#[must_use]
pub fn is_of_predecessor(deployment: &MoEDeployment, object: &impl Resource) -> bool {
    let (uid, name) = (deployment.metadata.uid.as_deref(), deployment.metadata.name.as_deref());
    object.meta().namespace == deployment.metadata.namespace
        && controller(object).is_some_and(|owner| {
            owner.kind == MoEDeployment::kind(&())
                && Some(owner.name.as_str()) == name
                && Some(owner.uid.as_str()) != uid
        })
}

/// Objects that a deployment controls.
fn owned<K>(store: &Store<K>, deployment: &MoEDeployment) -> BTreeMap<String, Arc<K>>
where
    K: Resource<DynamicType = ()> + Clone + Debug + 'static,
{
    named(store.state().into_iter().filter(|object| controls(deployment, object.as_ref())))
}

/// The keys of a deployment, if it controls a Secret of their name. What is somebody else's is not looked at.
async fn keys(context: &Context, deployment: &MoEDeployment) -> Result<Option<StoredKeys>, Error> {
    let name = names::keys(&deployment.name_any());
    let api: Api<Secret> = Api::namespaced(context.client.clone(), &deployment.namespace().unwrap_or_default());
    let found = api
        .get_opt(&name)
        .await
        .map_err(|source| Error::Read { what: format!("Secret {name}"), source: Box::new(source) })?;
    let Some(secret) = found.filter(|secret| controls(deployment, secret)) else { return Ok(None) };
    let keys = Keys::read(&secret);
    if let (Some(keys), Some(uid)) = (&keys, &deployment.metadata.uid) {
        context.admin_tokens.set(uid, keys.admin_token());
    }
    let rotation = secret.annotations().get(names::ROTATE_KEYS).cloned();
    Ok(Some(StoredKeys { uid: secret.uid().unwrap_or_default(), keys, rotation }))
}

fn draw_keys() -> Result<Keys, Error> {
    let mut bytes = [0; RANDOM_BYTES];
    getrandom::fill(&mut bytes).map_err(Error::Randomness)?;
    Ok(Keys::from_random(&bytes))
}

/// Whether a deployment controls an object: by its identity, not by labels, which anybody can set.
#[must_use]
pub fn controls(deployment: &MoEDeployment, object: &impl Resource) -> bool {
    let uid = deployment.metadata.uid.as_deref();
    controller(object).is_some_and(|owner| Some(owner.uid.as_str()) == uid)
}

/// The owner that controls an object: the API server allows one.
#[must_use]
pub fn controller(object: &impl Resource) -> Option<&OwnerReference> {
    object.owner_references().iter().find(|owner| owner.controller == Some(true))
}

/// Recorded maps that other deployments of the namespace start from.
fn maps_in_use(context: &Context, namespace: &str, deployment: &MoEDeployment) -> BTreeSet<String> {
    let others = context.stores.deployments.state();
    let others = others.iter().filter_map(|other| other.0.as_ref().ok()).filter(|other| {
        other.namespace().as_deref() == Some(namespace) && other.metadata.uid != deployment.metadata.uid
    });
    others
        .flat_map(|other| {
            let named = other.spec.eplb.expert_map_ref.as_ref().and_then(|reference| reference.name.clone());
            let status = other.status.as_ref();
            let started = status.and_then(|status| status.start_map.as_ref());
            let accepted = status.and_then(|status| status.accepted.as_ref()?.start_map.as_ref());
            [named, started.map(|start| start.config_map.clone()), accepted.map(|start| start.config_map.clone())]
        })
        .flatten()
        .collect()
}

/// Follows `expertMapRef`, to the map itself: no cache has more of it than its metadata.
async fn reference(context: &Context, deployment: &MoEDeployment) -> Result<Reference, Error> {
    let Some(asked) = &deployment.spec.eplb.expert_map_ref else { return Ok(Reference::None) };
    let namespace = deployment.namespace().unwrap_or_default();
    let started = deployment.status.as_ref().and_then(|status| status.start_map.as_ref());
    let name = match (&asked.name, &asked.from_deployment) {
        (Some(name), _) => name.clone(),
        // The map that was found first stays: a later record of the other deployment must not restart this one.
        (None, Some(_)) if started.is_some_and(|start| start.reference == *asked) => {
            started.map(|start| start.config_map.clone()).unwrap_or_default()
        }
        (None, Some(from)) => match recorded_by(context, &namespace, from) {
            Some(name) => name,
            None => return Ok(Reference::NotRecorded { deployment: from.clone() }),
        },
        (None, None) => return Ok(Reference::None),
    };
    let api: Api<ConfigMap> = Api::namespaced(context.client.clone(), &namespace);
    let found = api
        .get_opt(&name)
        .await
        .map_err(|source| Error::Read { what: format!("ConfigMap {name}"), source: Box::new(source) })?;
    Ok(found.map_or(Reference::Missing { config_map: name }, |map| Reference::Found(Arc::new(map))))
}

fn recorded_by(context: &Context, namespace: &str, name: &str) -> Option<String> {
    let key = kube::runtime::reflector::ObjectRef::new(name).within(namespace);
    let other = context.stores.deployments.get(&key)?;
    let status = other.0.as_ref().ok()?.status.as_ref()?;
    status.expert_map.as_ref().map(|map| map.config_map.clone())
}
