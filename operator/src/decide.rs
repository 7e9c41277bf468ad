//! What to change: which pods go, which come, which map is recorded, which maps are let go. Pure: no client, no clock.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::ResourceExt as _;
use plan::wire::RecordedMap;

use crate::api::MoEDeployment;
use crate::api::rollout::Rollout;
use crate::keys::Keys;
use crate::names::{self, Role};
use crate::nodes::{self, Reach};
use crate::observed::{Observed, RuntimeView};
use crate::pods::Member;
use crate::revision::{Revisions, Wanted};
use crate::validate::{Checked, Refused, StartMap};

/// How soon a pod that has ended may be replaced after it was created: one that ends at once is replaced at this pace.
const REPLACE_AFTER: SignedDuration = SignedDuration::from_secs(10);
/// When to look again at a deployment that is as it should be: changes are watched, but for those of its keys, and those pods
/// that run have read already.
const SETTLED: Duration = Duration::from_secs(30);
/// When to look again at a deployment that waits for something that is not watched, such as a ConfigMap of the user's.
const BLOCKED: Duration = Duration::from_secs(10);
/// Largest map that is stored: a ConfigMap holds 1 MiB, and its metadata needs some of it.
pub const LARGEST_MAP: usize = 1_000_000;

/// Why pods are left as they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// `spec.paused`.
    Paused,
    /// The deployment may not be built.
    Refused,
}

/// Why a pod goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// Its node is gone. It is removed at once, without waiting for its kubelet: it has no state.
    NodeLost,
    /// Its containers have ended for good.
    Ended,
    /// It was made from another revision.
    Outdated,
    /// The deployment has fewer pods than that now.
    Surplus,
}

/// A pod that goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removal {
    /// Its name.
    pub name: String,
    /// Its identity; another pod of that name is left alone.
    pub uid: String,
    /// Why it goes, for whoever reads of it.
    pub cause: Cause,
}

/// What a replica is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Its number.
    pub index: usize,
    /// What its pods are made from.
    pub wanted: Wanted,
    /// Image of its pods: that of those it has, so that a pod that is replaced agrees with the others.
    pub image: String,
    /// Pods to create.
    pub create: BTreeSet<String>,
    /// Pods of it that an eviction must leave: all while another replica is out, none otherwise.
    pub min_available: usize,
}

/// What to do about the keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeysChange {
    /// None are stored: these are.
    Create(Keys),
    /// Those in the Secret of this identity are incomplete, or others are asked for: these take their place.
    Replace {
        /// Identity of the Secret that goes.
        uid: String,
        /// What comes.
        keys: Keys,
    },
}

/// What to do about recorded maps.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MapChanges {
    /// A map to record.
    pub record: Option<Arc<RecordedMap>>,
    /// The replica whose map was recorded last has one of this content hash.
    pub current: Option<String>,
    /// Whether a map is too large to record.
    pub too_large: bool,
    /// Recorded maps to delete.
    pub prune: Vec<String>,
    /// Recorded map to hold on to, as this deployment starts from it.
    pub pin: Option<String>,
    /// Recorded maps to let go.
    pub unpin: Vec<String>,
}

/// What to change.
#[derive(Clone, Debug, PartialEq)]
pub struct Decision {
    /// Why pods stay as they are, if so.
    pub hold: Option<Hold>,
    /// Revisions that pods may have; `None` if the deployment may not be built.
    pub revisions: Option<Revisions>,
    /// Keys to store before any pod is made.
    pub keys: Option<KeysChange>,
    /// Replicas that should exist.
    pub groups: Vec<Group>,
    /// Pods that go.
    pub remove: Vec<Removal>,
    /// Maps.
    pub maps: MapChanges,
    /// When to look again if nothing happens.
    pub look_again: Duration,
}

/// Decides.
#[must_use]
pub fn decide(deployment: &MoEDeployment, verdict: &Result<Checked, Refused>, observed: &Observed) -> Decision {
    let (maps, record_due) = maps(deployment, verdict.as_ref().ok(), observed);
    let accepted = match verdict {
        Ok(checked) if !deployment.spec.paused => checked,
        kept => {
            let hold = Some(if kept.is_err() { Hold::Refused } else { Hold::Paused });
            // What pods are made from stays with them: new keys wait until pods may be replaced.
            let revisions = kept.as_ref().ok().map(|checked| revisions(checked, observed));
            let look_again = if kept.is_err() { BLOCKED } else { SETTLED };
            let (groups, remove) = (Vec::new(), Vec::new());
            return Decision { hold, revisions, keys: None, groups, remove, maps, look_again };
        }
    };
    let keys = keys(deployment, observed);
    let revisions = revisions(accepted, observed);
    let (mut remove, doubtful) = broken(observed);
    remove.extend(unwanted(accepted, observed, &revisions, &remove));
    remove.sort_by(|a, b| a.name.cmp(&b.name));
    let groups = (0..accepted.replicas).map(|index| group(accepted, observed, index, &revisions)).collect();
    let settled = if accepted.concern.is_some() { BLOCKED } else { SETTLED };
    let look_again = [doubtful, record_due]
        .into_iter()
        .flatten()
        .map(|at| Duration::try_from(at.duration_since(observed.now)).unwrap_or_default() + Duration::from_millis(100))
        .fold(settled, Duration::min);
    Decision { hold: None, revisions: Some(revisions), keys, groups, remove, maps, look_again }
}

/// Stored keys that are complete and for which no others are asked.
fn kept_keys<'a>(deployment: &MoEDeployment, observed: &'a Observed) -> Option<&'a Keys> {
    let stored = observed.keys.as_ref()?;
    let asked = deployment.annotations().get(names::ROTATE_KEYS);
    stored.keys.as_ref().filter(|_| asked.is_none() || asked == stored.rotation.as_ref())
}

fn keys(deployment: &MoEDeployment, observed: &Observed) -> Option<KeysChange> {
    let keys = || observed.fresh_keys.clone();
    match (kept_keys(deployment, observed), &observed.keys) {
        (Some(_), _) => None,
        (None, Some(stored)) => Some(KeysChange::Replace { uid: stored.uid.clone(), keys: keys() }),
        (None, None) => Some(KeysChange::Create(keys())),
    }
}

/// Revisions with the keys that are stored when this pass is over.
#[must_use]
pub fn revisions(checked: &Checked, observed: &Observed) -> Revisions {
    Revisions::new(checked, kept_keys(&checked.deployment, observed).unwrap_or(&observed.fresh_keys))
}

/// What the pods of a replica are to be made from.
#[must_use]
pub fn wanted(revisions: &Revisions, observed: &Observed, group: usize) -> Wanted {
    revisions.of(observed.members.values().filter(|member| member.group == group))
}

/// Names of all pods of a replica, with what they are and their first rank.
#[must_use]
pub fn pod_names(checked: &Checked, group: usize) -> BTreeMap<String, (Role, usize)> {
    let shape = checked.shape;
    let ranks = (0..shape.ranks)
        .step_by(shape.ranks_per_pod)
        .map(|rank| (names::rank(&checked.name, group, rank), (Role::Rank, rank)));
    std::iter::once((names::coordinator(&checked.name, group), (Role::Coordinator, 0))).chain(ranks).collect()
}

/// Whether a replica serves: its coordinator is ready only while every rank is part of its group.
#[must_use]
pub fn serves(observed: &Observed, group: usize) -> bool {
    coordinator(observed, group).is_some_and(|coordinator| coordinator.ready)
}

/// The coordinator of a replica, unless it is going.
fn coordinator(observed: &Observed, group: usize) -> Option<&Member> {
    let mut members = observed.members.values();
    members.find(|member| member.group == group && member.role == Role::Coordinator && !member.deleting)
}

/// Pods whose node is lost or which ended, and when to look again at those that may turn out so.
fn broken(observed: &Observed) -> (Vec<Removal>, Option<Timestamp>) {
    let mut remove = Vec::new();
    let mut look = None::<Timestamp>;
    let mut later = |at: Timestamp| look = Some(look.map_or(at, |earlier| earlier.min(at)));
    for member in observed.members.values() {
        if let Some(node) = &member.node {
            match nodes::reach(observed.nodes.get(node).map(AsRef::as_ref), observed.now) {
                Reach::Lost => {
                    remove.push(removal(member, Cause::NodeLost));
                    continue;
                }
                Reach::Doubtful(lost) => later(lost),
                Reach::Ready => {}
            }
        }
        if member.ended && !member.deleting {
            let at = member.created.map_or(observed.now, |created| created + REPLACE_AFTER);
            if at <= observed.now { remove.push(removal(member, Cause::Ended)) } else { later(at) }
        }
    }
    (remove, look)
}

fn removal(member: &Member, cause: Cause) -> Removal {
    Removal { name: member.name.clone(), uid: member.uid.clone(), cause }
}

/// Pods of replicas that are no longer asked for, and outdated pods of the replicas whose turn it is.
fn unwanted(checked: &Checked, observed: &Observed, revisions: &Revisions, going: &[Removal]) -> Vec<Removal> {
    let rolling = rolling(checked, observed, revisions);
    let cause = |member: &Member| {
        if member.group >= checked.replicas {
            return Some(Cause::Surplus);
        }
        let wanted = rolling.get(&member.group)?;
        (member.revision != wanted.revision).then_some(Cause::Outdated)
    };
    let goes = |member: &&Member| {
        !member.deleting && !is_needed(member, observed) && !going.iter().any(|removal| removal.uid == member.uid)
    };
    let unwanted = observed.members.values().filter(goes);
    unwanted.filter_map(|member| Some(removal(member, cause(member)?))).collect()
}

/// Whether a rank is needed for requests that run: its coordinator lets them end before it goes, and goes first.
fn is_needed(rank: &Member, observed: &Observed) -> bool {
    let of_it = |other: &&Member| other.group == rank.group && other.role == Role::Coordinator;
    rank.role == Role::Rank
        && observed.members.values().filter(of_it).any(|coordinator| coordinator.ready || coordinator.deleting)
}

/// Replicas whose outdated pods are replaced now: each that does not serve, and as many of those that do as may be out beside
/// them, from the first that takes a new specification on.
fn rolling(checked: &Checked, observed: &Observed, revisions: &Revisions) -> BTreeMap<usize, Wanted> {
    let outdated = |group: usize| {
        let wanted = wanted(revisions, observed, group);
        let mut members = observed.members.values().filter(|member| member.group == group);
        members.any(|member| member.revision != wanted.revision).then_some((group, wanted))
    };
    let out: BTreeSet<usize> = (0..checked.replicas).filter(|&group| !serves(observed, group)).collect();
    let mut rolling: BTreeMap<usize, Wanted> = out.iter().copied().filter_map(outdated).collect();
    let Rollout { max_unavailable, partition } = checked.deployment.spec.rollout;
    let count = |number: i32| usize::try_from(number).unwrap_or_default();
    let serving = (partition.map_or(0, count)..checked.replicas).filter(|group| !out.contains(group));
    rolling.extend(serving.filter_map(outdated).take(max_unavailable.map_or(1, count).saturating_sub(out.len())));
    rolling
}

fn group(checked: &Checked, observed: &Observed, index: usize, revisions: &Revisions) -> Group {
    let spec = &checked.deployment.spec;
    let members = || observed.members.values().filter(move |member| member.group == index);
    let wanted = wanted(revisions, observed, index);
    let revision = wanted.revision.as_str();
    // Pods of two revisions would not agree on ranks, settings or keys: new ones come when the last old one goes.
    let outdated = members().any(|member| member.revision != revision && !member.deleting);
    // It reads the checkpoint and the map first of all: ranks, which may hold GPUs, come when both have been found right.
    let accepted = coordinator(observed, index).is_some_and(|coordinator| coordinator.started);
    let kept = members().filter(|member| member.revision == revision).find_map(|member| member.image.clone());
    let kept = kept.filter(|_| spec.runtime.image.is_none());
    let create = pod_names(checked, index)
        .into_iter()
        .filter(|(name, (role, _))| {
            !outdated && !observed.members.contains_key(name) && (accepted || *role == Role::Coordinator)
        })
        .map(|(name, _)| name)
        .collect();
    let others_serve = (0..checked.replicas).all(|group| group == index || serves(observed, group));
    Group {
        index,
        image: kept.or_else(|| observed.images.of(spec).map(str::to_owned)).unwrap_or_default(),
        create,
        wanted,
        min_available: if others_serve { 0 } else { 1 + checked.shape.rank_pods() },
    }
}

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
fn maps(deployment: &MoEDeployment, checked: Option<&Checked>, observed: &Observed) -> (MapChanges, Option<Timestamp>) {
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
