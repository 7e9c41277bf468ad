//! What to change: which pods go, which come, which map is recorded, which maps are let go. Pure: no client, no clock.

mod lost;
mod recorded;
mod roll;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use kube::ResourceExt as _;
use plan::wire::RecordedMap;

use crate::api::MoEDeployment;
use crate::keys::Keys;
use crate::names::{self, Role};
use crate::observed::Observed;
use crate::pods::Member;
use crate::reach::Outage;
use crate::revision::{Revisions, Wanted};
use crate::validate::{Checked, Refused};

pub use lost::replacements;
use lost::{Broken, broken};
use recorded::maps;
pub use recorded::{LARGEST_MAP, own_maps, speaker};
use roll::{group, rolling, unwanted};

/// When to look again at a deployment that is as it should be: changes are watched, but for those of its keys, and those pods
/// that run have read already.
const SETTLED: Duration = Duration::from_secs(30);
/// When to look again at a deployment that waits for something that is not watched, such as a ConfigMap of the user's.
const BLOCKED: Duration = Duration::from_secs(10);

/// Why pods are left as they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Hold {
    /// `spec.paused`.
    Paused,
    /// The deployment may not be built. What was accepted last is kept up.
    Refused,
}

/// Why a pod goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cause {
    /// Its node is gone. It is removed at once, without waiting for its kubelet: it has no state.
    NodeLost,
    /// Its containers have ended for good.
    Ended,
    /// It was made from another revision.
    Outdated,
    /// It never started, and the operator's image is another one by now.
    NeverStarted,
    /// The deployment has fewer pods than that now.
    Surplus,
}

/// A pod that goes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Removal {
    /// Its name.
    pub name: String,
    /// Its identity; another pod of that name is left alone.
    pub uid: String,
    /// Why it goes, for whoever reads of it.
    pub cause: Cause,
}

/// A pod whose labels are put back.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Relabel {
    /// Its name.
    pub name: String,
    /// Its identity.
    pub uid: String,
    /// The labels that it is to have, beside others.
    pub labels: BTreeMap<String, String>,
}

/// Why pods on nodes that are out of reach are left as they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Spared {
    /// All nodes, or most, are out of reach at once.
    Outage(Outage),
    /// The replica of this pod answers.
    Answers(String),
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
    /// Revisions that pods may have; `None` if nothing was ever accepted.
    pub revisions: Option<Revisions>,
    /// Keys to store before any pod is made.
    pub keys: Option<KeysChange>,
    /// Replicas that should exist; of a paused deployment those that do.
    pub groups: Vec<Group>,
    /// Pods of a replica that an eviction must leave: all while another replica is out, none otherwise.
    pub budgets: BTreeMap<usize, usize>,
    /// Pods that go.
    pub remove: Vec<Removal>,
    /// Pods whose labels are put back.
    pub relabel: Vec<Relabel>,
    /// Why pods on nodes that are out of reach are left, if so.
    pub spared: Option<Spared>,
    /// Replicas whose pods ended for good as often as they may.
    pub exhausted: BTreeSet<usize>,
    /// Maps.
    pub maps: MapChanges,
    /// When to look again if nothing happens.
    pub look_again: Duration,
}

/// Decides.
#[must_use]
pub fn decide(deployment: &MoEDeployment, verdict: &Result<Checked, Refused>, observed: &Observed) -> Decision {
    let serving = serving(verdict);
    let (maps, record_due) = maps(deployment, serving, observed);
    let is_paused = deployment.spec.paused;
    let hold = match verdict {
        Err(_) => Some(Hold::Refused),
        Ok(_) => is_paused.then_some(Hold::Paused),
    };
    let revisions = serving.map(|checked| revisions(checked, observed));
    let replicas = usize::try_from(deployment.spec.replicas).ok();
    let mut decision = Decision {
        hold,
        keys: None,
        groups: Vec::new(),
        budgets: budgets(serving, replicas.unwrap_or(0), observed),
        remove: Vec::new(),
        relabel: Vec::new(),
        spared: None,
        exhausted: BTreeSet::new(),
        maps,
        look_again: if verdict.as_ref().is_ok_and(|checked| checked.concern.is_none()) { SETTLED } else { BLOCKED },
        revisions,
    };
    let mut look = record_due;
    match (serving, &decision.revisions) {
        // What pods are made from stays with them: new keys wait until pods may be replaced.
        (Some(checked), Some(revisions)) if is_paused => {
            let there: BTreeSet<usize> = observed.members.values().map(|member| member.group).collect();
            decision.groups = there.into_iter().map(|index| group(checked, observed, index, revisions)).collect();
            decision.groups.iter_mut().for_each(|group| group.create.clear());
        }
        (Some(checked), Some(revisions)) => {
            let Broken { remove, spared, exhausted, look: doubtful } = broken(deployment, observed);
            decision.keys = keys(deployment, observed);
            let is_outage = matches!(spared, Some(Spared::Outage(_)));
            let rolling = if is_outage { BTreeMap::new() } else { rolling(checked, observed, revisions) };
            let unwanted = unwanted(checked.replicas, observed, &rolling, &remove);
            decision.groups = (0..checked.replicas).map(|index| group(checked, observed, index, revisions)).collect();
            decision.remove = remove.into_iter().chain(unwanted).collect();
            decision.relabel = relabel(observed, &decision.remove);
            decision.spared = spared;
            decision.exhausted = exhausted;
            look = [look, doubtful, overdue(observed)].into_iter().flatten().min();
        }
        // Nothing is known of what runs but how much of it is asked for.
        _ if !is_paused => {
            if let Some(replicas) = replicas {
                decision.remove = unwanted(replicas, observed, &BTreeMap::new(), &[]);
            }
            look = [look, overdue(observed)].into_iter().flatten().min();
        }
        _ => {}
    }
    decision.remove.sort_by(|a, b| a.name.cmp(&b.name));
    if let Some(at) = look {
        let soon = Duration::try_from(at.duration_since(observed.now)).unwrap_or_default() + Duration::from_millis(100);
        decision.look_again = decision.look_again.min(soon);
    }
    decision
}

/// What is kept up: what is asked for if that may be built, otherwise what was accepted last.
#[must_use]
pub fn serving(verdict: &Result<Checked, Refused>) -> Option<&Checked> {
    match verdict {
        Ok(checked) => Some(checked),
        Err(refused) => refused.serving.as_deref(),
    }
}

/// Pods of each replica that there is or should be that an eviction must leave.
fn budgets(serving: Option<&Checked>, replicas: usize, observed: &Observed) -> BTreeMap<usize, usize> {
    let there: BTreeSet<usize> = observed.members.values().map(|member| member.group).collect();
    let wanted = if serving.is_some_and(|checked| !checked.deployment.spec.paused) { 0..replicas } else { 0..0 };
    let pods = |group: usize| match serving {
        Some(checked) => 1 + checked.shape.rank_pods(),
        None => observed.members.values().filter(|member| member.group == group).count(),
    };
    let least = |group: usize| {
        let others_serve = (0..replicas).all(|other| other == group || serves(observed, other));
        if others_serve { 0 } else { pods(group) }
    };
    there.into_iter().chain(wanted).map(|group| (group, least(group))).collect()
}

/// When pods that are being deleted should be gone, if that is still to come.
fn overdue(observed: &Observed) -> Option<Timestamp> {
    observed.members.values().filter_map(|member| member.gone_by).filter(|by| *by > observed.now).min()
}

/// Pods that stay, without the labels by which they are selected.
fn relabel(observed: &Observed, going: &[Removal]) -> Vec<Relabel> {
    let stays = |member: &&Member| {
        !member.labelled && !member.deleting && !going.iter().any(|removal| removal.uid == member.uid)
    };
    let labels = |member: &Member| names::pod_labels(&member.deployment, member.group, member.role);
    let members = observed.members.values().filter(stays);
    members
        .map(|member| Relabel { name: member.name.clone(), uid: member.uid.clone(), labels: labels(member) })
        .collect()
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

fn removal(member: &Member, cause: Cause) -> Removal {
    Removal { name: member.name.clone(), uid: member.uid.clone(), cause }
}
