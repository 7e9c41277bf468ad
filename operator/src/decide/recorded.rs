//! Which maps are recorded, kept and let go. Pure.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::ResourceExt as _;

use super::MapChanges;
use crate::api::MoEDeployment;
use crate::names;
use crate::observed::{Observed, RuntimeView};
use crate::validate::{Checked, StartMap};

/// Largest map that is stored: a ConfigMap holds 1 MiB, and its metadata needs some of it.
pub const LARGEST_MAP: usize = 1_000_000;

/// The replica whose maps are recorded: the first that serves. Replicas share traffic, so one speaks for all.
#[must_use]
pub fn speaker(observed: &Observed) -> Option<&RuntimeView> {
    observed.runtimes.values().find(|view| view.state.ready)
}

/// Recorded maps that a deployment owns, the latest first.
#[must_use]
pub fn own_maps<'a>(deployment: &MoEDeployment, observed: &'a Observed) -> Vec<&'a Arc<ConfigMap>> {
    let mut own: Vec<_> = observed
        .maps
        .values()
        .filter(|map| {
            owners(map).any(|(uid, controller)| controller && Some(uid) == deployment.metadata.uid.as_deref())
        })
        .collect();
    own.sort_by_key(|map| (std::cmp::Reverse(map.metadata.creation_timestamp.clone()), map.name_any()));
    own
}

fn owners(map: &ConfigMap) -> impl Iterator<Item = (&str, bool)> {
    map.owner_references().iter().map(|owner| (owner.uid.as_str(), owner.controller == Some(true)))
}

/// Changes of recorded maps, and when a map that has to wait may be recorded.
pub(super) fn maps(
    deployment: &MoEDeployment,
    checked: Option<&Checked>,
    observed: &Observed,
) -> (MapChanges, Option<Timestamp>) {
    let record = deployment.spec.eplb.record;
    let own = own_maps(deployment, observed);
    let mut changes = MapChanges::default();
    let mut wait = None;
    changes.too_large = record.enabled && speaker(observed).is_some_and(|view| view.recorded_too_large);
    if let Some(found) = speaker(observed).filter(|_| record.enabled).and_then(|view| view.recorded.clone()) {
        let hash = found.map.content_hash();
        let stored = observed.maps.contains_key(&names::recorded_map(&deployment.name_any(), &hash));
        let bytes = serde_json::to_vec(&found.map).expect("a map document is plain data").len();
        let interval = SignedDuration::from_secs(record.min_interval_seconds.into());
        let due = own.first().and_then(|map| map.metadata.creation_timestamp.as_ref()).map(|time| time.0 + interval);
        match due {
            _ if stored => changes.current = Some(hash),
            _ if bytes > LARGEST_MAP => changes.too_large = true,
            Some(due) if due > observed.now => wait = Some(due),
            _ => {
                changes.current = Some(hash);
                changes.record = Some(found);
            }
        }
    }
    let keep = usize::try_from(record.keep).unwrap_or(1) - usize::from(changes.record.is_some());
    let current = changes.current.as_ref().map(|hash| names::recorded_map(&deployment.name_any(), hash));
    changes.prune = own
        .iter()
        .skip(keep.max(usize::from(changes.record.is_none())))
        .filter(|map| owners(map).count() == 1)
        .map(|map| map.name_any())
        .filter(|name| !observed.maps_in_use.contains(name) && current.as_ref() != Some(name))
        .collect();
    if let Some(checked) = checked {
        let uid = deployment.metadata.uid.as_deref();
        let pinned = |map: &ConfigMap| owners(map).any(|(owner, controller)| Some(owner) == uid && !controller);
        let start = match &checked.start_map {
            StartMap::ConfigMap { name, .. } => Some(name),
            StartMap::Even | StartMap::InModelSource(_) => None,
        };
        changes.pin = start
            .filter(|name| {
                observed.maps.get(*name).is_some_and(|map| !owners(map).any(|(owner, _)| Some(owner) == uid))
            })
            .cloned();
        changes.unpin = observed
            .maps
            .iter()
            .filter(|(name, map)| pinned(map) && start != Some(name))
            .map(|(name, _)| name.clone())
            .collect();
    }
    (changes, wait)
}
