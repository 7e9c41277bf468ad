//! Makes the cluster what it should be. Writes only: it decides nothing but whether a write is needed.
//!
//! API calls (the chart's `ClusterRole` grants these and no others; a test compares):
//! `get`, `patch`, `delete` on services, serviceaccounts, poddisruptionbudgets; `get`, `create`, `delete` on pods and
//! secrets; `get`, `create`, `patch`, `delete` on configmaps.

use std::collections::BTreeMap;
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
use crate::decide::{Cause, Decision, KeysChange, MapChanges, Removal};
use crate::error::ApplyError;
use crate::keys::Keys;
use crate::lean::Lean;
use crate::names;
use crate::observe::controls;
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
    /// The map that was recorded.
    pub map: Option<ConfigMap>,
}

/// Applies. Order: first what pods refer to, then pods that go, since names must be free, then pods that come, then what
/// nothing refers to any more.
///
/// # Errors
/// The first write that failed; what was written before stays, and the next reconcile goes on from there.
pub async fn apply(
    context: &Context,
    deployment: &MoEDeployment,
    observed: &Observed,
    decision: &Decision,
    desired: Desired,
) -> Result<Applied, ApplyError> {
    // No `..`: a kind of object that is added must be applied here before this compiles.
    let Desired { accounts, services, budgets, keys, map, pods } = desired;
    let writer = Writer { context, deployment };
    let mut applied = Applied::default();
    writer.ensure_all(&accounts, &observed.accounts).await?;
    writer.ensure_all(&services, &observed.services).await?;
    writer.ensure_all(&budgets, &observed.budgets).await?;
    if let Some(keys) = keys {
        writer.store_keys(&keys, decision.keys.as_ref()).await?;
    }
    if let Some(map) = map {
        applied.map = Some(writer.create(&map).await?);
    }
    writer.keep_start_map(&decision.maps).await?;
    for removal in &decision.remove {
        let immediately = removal.cause == Cause::NodeLost;
        writer.remove::<Pod>(&removal.name, Some(&removal.uid), immediately).await?;
        applied.removed.push(removal.clone());
    }
    for pod in pods {
        writer.create(&pod).await?;
        applied.created.push(pod.name_any());
    }
    if decision.hold.is_none() {
        writer.remove_others(&budgets, &observed.budgets).await?;
        writer.remove_others(&services, &observed.services).await?;
        writer.remove_others(&accounts, &observed.accounts).await?;
    }
    for name in &decision.maps.prune {
        writer.remove::<ConfigMap>(name, None, false).await?;
    }
    Ok(applied)
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
        match found {
            Some(object) if !controls(self.deployment, &object) => {
                Err(ApplyError::NameConflict { kind: K::kind(&()).into_owned(), name: name.to_owned() })
            }
            found => Ok(found),
        }
    }

    async fn ensure_all<K: Kind + Lean>(
        &self,
        desired: &[K],
        observed: &BTreeMap<String, Arc<K>>,
    ) -> Result<(), ApplyError> {
        for object in desired {
            self.ensure(object, observed.get(&object.name_any()).map(AsRef::as_ref)).await?;
        }
        Ok(())
    }

    /// Applies an object that may change, unless it is already as it should be.
    async fn ensure<K: Kind + Lean>(&self, desired: &K, observed: Option<&K>) -> Result<(), ApplyError> {
        let name = desired.name_any();
        if let Some(observed) = observed {
            let json = |object: &K| serde_json::to_value(object).expect("an object is plain data");
            // As the cache has it, without what it does not keep.
            let mut kept = desired.clone();
            kept.make_lean();
            if contains(&json(observed), &json(&kept)) && own_annotations(observed) == own_annotations(&kept) {
                return Ok(());
            }
        } else {
            self.refuse_foreign::<K>(&name).await?;
        }
        let parameters = PatchParams::apply(names::MANAGER).force();
        let patch = Patch::Apply(desired);
        self.api::<K>()
            .patch(&name, &parameters, &patch)
            .await
            .map_err(|error| Self::call::<K>("apply", &name, error))?;
        self.wrote::<K>("patch");
        Ok(())
    }

    /// Creates an object that never changes. One of this deployment that is there already is left as it is: the cache
    /// lags behind.
    async fn create<K: Kind>(&self, desired: &K) -> Result<K, ApplyError> {
        let name = desired.name_any();
        let parameters = PostParams { field_manager: Some(names::MANAGER.to_owned()), ..PostParams::default() };
        match self.api::<K>().create(&parameters, desired).await {
            Ok(created) => {
                self.wrote::<K>("create");
                Ok(created)
            }
            Err(error @ kube::Error::Api(_)) if is(&error, 409) => {
                Ok(self.refuse_foreign::<K>(&name).await?.unwrap_or_else(|| desired.clone()))
            }
            Err(error) => Err(Self::call::<K>("create", &name, error)),
        }
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
        let parameters = PostParams { field_manager: Some(names::MANAGER.to_owned()), ..PostParams::default() };
        let created = self.api::<Secret>().create(&parameters, secret).await;
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
            let parameters = PatchParams { field_manager: Some(names::MANAGER.to_owned()), ..PatchParams::default() };
            let patched = self.api::<ConfigMap>().patch(name, &parameters, &Patch::Strategic(patch)).await;
            let patched = patched.map_err(|error| Self::call::<ConfigMap>("patch", name, error))?;
            self.wrote::<ConfigMap>("patch");
            if patched.owner_references().is_empty() {
                self.remove::<ConfigMap>(name, patched.uid().as_deref(), false).await?;
            }
        }
        Ok(())
    }
}

/// Annotations that nobody but the operator gives: one that is desired no more says that something else is not, too.
fn own_annotations<K: Kind>(object: &K) -> BTreeMap<&String, &String> {
    object.annotations().iter().filter(|(key, _)| key.starts_with(GROUP)).collect()
}

fn is(error: &kube::Error, code: u16) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == code)
}

fn names_cause(error: &kube::Error, reason: &str) -> bool {
    let kube::Error::Api(status) = error else { return false };
    status.details.iter().flat_map(|details| &details.causes).any(|cause| cause.reason == reason)
}

/// Whether an object has everything that is desired of it; the API server adds defaults of its own.
fn contains(observed: &serde_json::Value, desired: &serde_json::Value) -> bool {
    use serde_json::Value;
    match (observed, desired) {
        (Value::Object(observed), Value::Object(desired)) => {
            desired.iter().all(|(key, desired)| observed.get(key).is_some_and(|observed| contains(observed, desired)))
        }
        (Value::Array(observed), Value::Array(desired)) => {
            observed.len() == desired.len()
                && observed.iter().zip(desired).all(|(observed, desired)| contains(observed, desired))
        }
        (observed, desired) => observed == desired,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_that_the_server_adds_are_no_difference() {
        let desired = json!({"spec": {"ports": [{"port": 80}], "type": "ClusterIP"}});
        let observed =
            json!({"spec": {"ports": [{"port": 80, "nodePort": 0}], "type": "ClusterIP", "sessionAffinity": "None"}});
        assert!(contains(&observed, &desired));
    }

    #[test]
    fn a_changed_removed_or_extra_entry_is_a_difference() {
        let desired = json!({"spec": {"ports": [{"port": 80}]}});
        assert!(!contains(&json!({"spec": {"ports": [{"port": 81}]}}), &desired));
        assert!(!contains(&json!({"spec": {"ports": []}}), &desired));
        assert!(!contains(&json!({"spec": {"ports": [{"port": 80}, {"port": 81}]}}), &desired));
        assert!(!contains(&json!({}), &desired));
    }
}
