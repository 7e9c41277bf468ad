//! Makes the cluster what it should be. Writes only: it decides nothing but whether a write is needed.
//!
//! API calls (the chart's `ClusterRole` grants these and no others; a test compares):
//! `get`, `patch`, `delete` on services, serviceaccounts, poddisruptionbudgets; `get`, `create`, `delete` on secrets;
//! `get`, `create`, `patch`, `delete` on pods and configmaps.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::sync::Arc;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret, Service, ServiceAccount};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, Resource, ResourceExt as _};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::api::{GROUP, MoEDeployment};
use crate::build::{self, Desired, KeysSecret};
use crate::context::Context;
use crate::decide::{Cause, Decision, KeysChange, MapChanges, Relabel, Removal};
use crate::drift::{is_as_desired, take_back};
use crate::error::{ApplyError, Failures};
use crate::keys::Keys;
use crate::lean::Lean;
use crate::names;
use crate::observe::{controls, is_of_predecessor};
use crate::observed::Observed;

/// Cause that the API server names when it creates nothing more in a namespace.
const NAMESPACE_ENDING: &str = "NamespaceTerminating";

/// What was changed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Applied {
    /// Pods that were created.
    pub created: Vec<String>,
    /// Pods that were removed.
    pub removed: Vec<Removal>,
    /// Pods whose labels were put back.
    pub relabelled: Vec<String>,
    /// The map that was recorded.
    pub map: Option<ConfigMap>,
}

/// What came of a decision: what was changed, and what of it failed.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// What was changed.
    pub applied: Applied,
    /// What could not be.
    pub failures: Failures,
}

/// Applies. Order: first what pods refer to, then pods that go, since names must be free, then pods that come, then what
/// nothing refers to any more, and recorded maps last. What fails keeps nothing from being done but what needs it: a pod needs
/// its account, keys and Services.
pub async fn apply(
    context: &Context,
    deployment: &MoEDeployment,
    observed: &Observed,
    decision: &Decision,
    desired: Desired,
) -> Outcome {
    // No `..`: a kind of object that is added must be applied here before this compiles.
    let Desired { accounts, services, budgets, keys, map, pods, is_whole } = desired;
    let writer = Writer { context, deployment, predecessors: &observed.predecessors };
    let mut outcome = Outcome::default();
    let Outcome { applied, failures: Failures { serving: failed, maps } } = &mut outcome;
    let mut missing = writer.ensure_all(&accounts, &observed.accounts, failed).await;
    missing.extend(writer.ensure_all(&services, &observed.services, failed).await);
    writer.ensure_all(&budgets, &observed.budgets, failed).await;
    let has_keys = match keys {
        Some(keys) => note(writer.store_keys(&keys, decision.keys.as_ref()).await, failed).is_some(),
        None => true,
    };
    for removal in &decision.remove {
        // Without the keys that they would be made from, none could take their place.
        if !has_keys && removal.cause == Cause::Outdated {
            continue;
        }
        let immediately = removal.cause == Cause::NodeLost;
        let removed = writer.remove::<Pod>(&removal.name, Some(&removal.uid), immediately).await;
        applied.removed.extend(note(removed, failed).map(|()| removal.clone()));
    }
    for relabel in &decision.relabel {
        applied.relabelled.extend(note(writer.relabel(relabel).await, failed).map(|()| relabel.name.clone()));
    }
    // What hinders one pod of a replica, a quota say, hinders the others too; what hinders a replica may be its own.
    let mut hindered = BTreeSet::new();
    for pod in pods {
        let (pod_name, name) = (pod.name_any(), deployment.name_any());
        let Some((_, group, _)) = names::parse_pod(&pod_name) else { continue };
        let is_new = !observed.members.values().any(|member| member.group == group);
        let lacks = missing.contains(&names::account(&name))
            || missing.contains(&names::coordinator(&name, group))
            // Clients would not reach it: it holds nothing until they can.
            || is_new && missing.contains(&names::service(&name));
        if lacks || !has_keys || hindered.contains(&group) {
            continue;
        }
        match note(writer.create(&pod).await, failed) {
            Some(_) => applied.created.push(pod_name),
            None => drop(hindered.insert(group)),
        }
    }
    if is_whole {
        note(writer.remove_others(&budgets, &observed.budgets).await, failed);
        note(writer.remove_others(&services, &observed.services).await, failed);
        note(writer.remove_others(&accounts, &observed.accounts).await, failed);
    }
    if let Some(map) = map {
        applied.map = note(writer.create(&map).await, maps);
    }
    note(writer.keep_start_map(&decision.maps).await, maps);
    for name in &decision.maps.prune {
        note(writer.remove::<ConfigMap>(name, None, false).await, maps);
    }
    outcome
}

/// What succeeded; the first of what did not is kept.
fn note<T>(result: Result<T, ApplyError>, failed: &mut Option<Arc<ApplyError>>) -> Option<T> {
    match result {
        Ok(done) => Some(done),
        Err(error) => {
            failed.get_or_insert_with(|| Arc::new(error));
            None
        }
    }
}

/// The operator as who changes a part of an object.
fn patching() -> PatchParams {
    PatchParams { field_manager: Some(names::MANAGER.to_owned()), ..PatchParams::default() }
}

/// The operator as who creates an object.
fn creating() -> PostParams {
    PostParams { field_manager: Some(names::MANAGER.to_owned()), ..PostParams::default() }
}

/// Kinds that the operator writes.
trait Kind:
    Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + Serialize + DeserializeOwned + Send + Sync
{
}
impl Kind for ServiceAccount {}
impl Kind for Service {}
impl Kind for PodDisruptionBudget {}
impl Kind for ConfigMap {}
impl Kind for Pod {}
impl Kind for Secret {}

struct Writer<'a> {
    context: &'a Context,
    deployment: &'a MoEDeployment,
    predecessors: &'a BTreeSet<String>,
}

impl Writer<'_> {
    fn api<K: Kind>(&self) -> Api<K> {
        Api::namespaced(self.context.client.clone(), &self.deployment.namespace().unwrap_or_default())
    }

    fn call<K: Kind>(verb: &'static str, name: &str, source: kube::Error) -> ApplyError {
        if names_cause(&source, NAMESPACE_ENDING) {
            return ApplyError::NamespaceEnding;
        }
        ApplyError::Call { verb, kind: K::kind(&()).into_owned(), name: name.to_owned(), source: Box::new(source) }
    }

    fn wrote<K: Kind>(&self, verb: &str) {
        self.context.metrics.wrote(&K::kind(&()), verb);
    }

    /// Refuses to go on if an object of that name exists and belongs to somebody else.
    async fn refuse_foreign<K: Kind>(&self, name: &str) -> Result<Option<K>, ApplyError> {
        let found = self.api::<K>().get_opt(name).await.map_err(|error| Self::call::<K>("get", name, error))?;
        let kind = || K::kind(&()).into_owned();
        match found {
            Some(object) if is_of_predecessor(self.deployment, &object) => {
                Err(ApplyError::Predecessor { kind: kind(), name: name.to_owned() })
            }
            Some(object) if !controls(self.deployment, &object) => {
                Err(ApplyError::NameConflict { kind: kind(), name: name.to_owned() })
            }
            found => Ok(found),
        }
    }

    /// Applies objects that may change; those that are not there after that.
    async fn ensure_all<K: Kind + Lean>(
        &self,
        desired: &[K],
        observed: &BTreeMap<String, Arc<K>>,
        failed: &mut Option<Arc<ApplyError>>,
    ) -> BTreeSet<String> {
        let mut missing = BTreeSet::new();
        for object in desired {
            let name = object.name_any();
            let there = observed.get(&name).map(AsRef::as_ref);
            if note(self.ensure(object, there).await, failed).is_none() && there.is_none() {
                missing.insert(name);
            }
        }
        missing
    }

    /// Applies an object that may change, unless it is already as it should be.
    async fn ensure<K: Kind + Lean>(&self, desired: &K, observed: Option<&K>) -> Result<(), ApplyError> {
        let name = desired.name_any();
        let json = |object: &K| serde_json::to_value(object).expect("an object is plain data");
        let wanted = json(desired);
        if let Some(observed) = observed {
            if is_kept(observed, desired) {
                return Ok(());
            }
        } else if self.predecessors.contains(&name) {
            return Err(ApplyError::Predecessor { kind: K::kind(&()).into_owned(), name });
        } else {
            self.refuse_foreign::<K>(&name).await?;
        }
        let parameters = PatchParams::apply(names::MANAGER).force();
        let applied = self.api::<K>().patch(&name, &parameters, &Patch::Apply(desired)).await;
        let there = match (applied, observed) {
            (Ok(applied), _) => {
                self.wrote::<K>("patch");
                json(&applied)
            }
            // What somebody has added may be what makes it invalid.
            (Err(error), Some(observed)) if is(&error, 422) => json(observed),
            (Err(error), _) => return Err(Self::call::<K>("apply", &name, error)),
        };
        if is_as_desired(&there, &wanted) {
            return Ok(());
        }
        let patch = Patch::Merge(take_back(&there, &wanted));
        let patched = self.api::<K>().patch(&name, &patching(), &patch).await;
        patched.map_err(|error| Self::call::<K>("patch", &name, error))?;
        self.wrote::<K>("patch");
        Ok(())
    }

    /// Creates an object that never changes. One of this deployment that is there already is left as it is, since the cache lags
    /// behind, but for labels that it lacks, without which no watch sees it.
    async fn create<K: Kind>(&self, desired: &K) -> Result<K, ApplyError> {
        let name = desired.name_any();
        match self.api::<K>().create(&creating(), desired).await {
            Ok(created) => {
                self.wrote::<K>("create");
                Ok(created)
            }
            Err(error @ kube::Error::Api(_)) if is(&error, 409) => {
                let Some(there) = self.refuse_foreign::<K>(&name).await? else { return Ok(desired.clone()) };
                if !desired.labels().iter().all(|(key, value)| there.labels().get(key) == Some(value)) {
                    self.label::<K>(&name, there.uid().as_deref(), desired.labels()).await?;
                }
                Ok(there)
            }
            Err(error) => Err(Self::call::<K>("create", &name, error)),
        }
    }

    async fn relabel(&self, Relabel { name, uid, labels }: &Relabel) -> Result<(), ApplyError> {
        self.label::<Pod>(name, Some(uid), labels).await
    }

    /// Gives an object labels, if it is still the one of that identity.
    async fn label<K: Kind>(
        &self,
        name: &str,
        uid: Option<&str>,
        labels: &BTreeMap<String, String>,
    ) -> Result<(), ApplyError> {
        let patch = Patch::Merge(json!({"metadata": {"uid": uid, "labels": labels}}));
        match self.api::<K>().patch(name, &patching(), &patch).await {
            Ok(_) => self.wrote::<K>("patch"),
            // Gone, or another one by now.
            Err(error) if is(&error, 404) || is(&error, 409) => {}
            Err(error) => return Err(Self::call::<K>("patch", name, error)),
        }
        Ok(())
    }

    /// Stores keys in the place of those that go. Whoever has stored others meanwhile is an error and not overwritten: pods are
    /// made from the keys that are read, so the next pass takes those.
    async fn store_keys(&self, desired: &KeysSecret, change: Option<&KeysChange>) -> Result<(), ApplyError> {
        let KeysSecret(secret) = desired;
        let name = secret.name_any();
        match change {
            Some(KeysChange::Replace { uid, .. }) => self.remove::<Secret>(&name, Some(uid), false).await?,
            Some(KeysChange::Create(_)) | None => drop(self.refuse_foreign::<Secret>(&name).await?),
        }
        let created = self.api::<Secret>().create(&creating(), secret).await;
        created.map_err(|error| Self::call::<Secret>("create", &name, error))?;
        self.wrote::<Secret>("create");
        if let (Some(keys), Some(uid)) = (Keys::read(secret), &self.deployment.metadata.uid) {
            self.context.admin_tokens.set(uid, keys.admin_token());
        }
        Ok(())
    }

    /// Removes an object, if it is still the one of that identity.
    async fn remove<K: Kind>(&self, name: &str, uid: Option<&str>, immediately: bool) -> Result<(), ApplyError> {
        let parameters = DeleteParams {
            preconditions: uid.map(|uid| Preconditions { uid: Some(uid.to_owned()), resource_version: None }),
            grace_period_seconds: immediately.then_some(0),
            ..DeleteParams::default()
        };
        match self.api::<K>().delete(name, &parameters).await {
            Ok(_) => self.wrote::<K>("delete"),
            // Gone, or another one by now.
            Err(error) if is(&error, 404) || is(&error, 409) => {}
            Err(error) => return Err(Self::call::<K>("delete", name, error)),
        }
        Ok(())
    }

    async fn remove_others<K: Kind>(
        &self,
        desired: &[K],
        observed: &BTreeMap<String, Arc<K>>,
    ) -> Result<(), ApplyError> {
        for (name, object) in observed {
            let wanted = desired.iter().any(|desired| desired.name_any() == *name);
            if !wanted && object.meta().deletion_timestamp.is_none() {
                self.remove::<K>(name, object.uid().as_deref(), false).await?;
            }
        }
        Ok(())
    }

    /// Owns the recorded map that this deployment starts from beside the one that recorded it, so that it outlives it.
    async fn keep_start_map(&self, changes: &MapChanges) -> Result<(), ApplyError> {
        let own = build::pin(self.deployment);
        let uid = self.deployment.metadata.uid.clone();
        let pins = changes.pin.iter().map(|name| (name, json!(own)));
        let unpins = changes.unpin.iter().map(|name| (name, json!({"$patch": "delete", "uid": uid})));
        for (name, reference) in pins.chain(unpins) {
            let patch = json!({"metadata": {"ownerReferences": [reference]}});
            let patched = self.api::<ConfigMap>().patch(name, &patching(), &Patch::Strategic(patch)).await;
            let patched = patched.map_err(|error| Self::call::<ConfigMap>("patch", name, error))?;
            self.wrote::<ConfigMap>("patch");
            if patched.owner_references().is_empty() {
                self.remove::<ConfigMap>(name, patched.uid().as_deref(), false).await?;
            }
        }
        Ok(())
    }
}

/// Whether an object of the cache is as desired, in what the cache keeps of it.
pub(crate) fn is_kept<K: Resource + Lean + Clone + Serialize>(observed: &K, desired: &K) -> bool {
    let json = |object: &K| serde_json::to_value(object).expect("an object is plain data");
    let mut kept = desired.clone();
    kept.make_lean();
    is_as_desired(&json(observed), &json(&kept)) && own_annotations(observed) == own_annotations(&kept)
}

/// Annotations that nobody but the operator gives: one that is desired no more says that something else is not, too.
fn own_annotations<K: Resource>(object: &K) -> BTreeMap<&String, &String> {
    object.annotations().iter().filter(|(key, _)| key.starts_with(GROUP)).collect()
}

fn is(error: &kube::Error, code: u16) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == code)
}

fn names_cause(error: &kube::Error, reason: &str) -> bool {
    let kube::Error::Api(status) = error else { return false };
    status.details.iter().flat_map(|details| &details.causes).any(|cause| cause.reason == reason)
}
