//! Which pods go since others are asked for, in which order, and which come. Pure.

use std::collections::{BTreeMap, BTreeSet};

use jiff::SignedDuration;

use super::{Cause, Group, Removal, coordinator, pod_names, removal, serves, wanted};
use crate::api::rollout::Rollout;
use crate::names::Role;
use crate::observed::Observed;
use crate::pods::Member;
use crate::revision::{Revisions, Wanted};
use crate::validate::Checked;

/// How long a pod has to be without a node before a replica of the present specification that waits for it no longer keeps the
/// others from being rolled: what is missing may be what they hold.
const ROLL_PAST: SignedDuration = SignedDuration::from_secs(300);

/// Pods of replicas that are no longer asked for, and outdated pods of the replicas whose turn it is.
pub(super) fn unwanted(
    replicas: usize,
    observed: &Observed,
    rolling: &BTreeMap<usize, Turn>,
    going: &[Removal],
) -> Vec<Removal> {
    let cause = |member: &Member| {
        if member.group >= replicas {
            return Some(Cause::Surplus);
        }
        match rolling.get(&member.group)? {
            Turn::Outdated(wanted) => (member.revision != wanted.revision).then_some(Cause::Outdated),
            Turn::NeverStarted => Some(Cause::NeverStarted),
        }
    };
    let goes = |member: &&Member| {
        !member.deleting && !is_needed(member, observed) && !going.iter().any(|removal| removal.uid == member.uid)
    };
    let unwanted = observed.members.values().filter(goes);
    unwanted.filter_map(|member| Some(removal(member, cause(member)?))).collect()
}

/// Whether a rank is needed for requests that run: its coordinator lets them end before it goes, and goes first. One that does
/// not go when it should keeps nobody waiting: what it served has ended with its grace.
fn is_needed(rank: &Member, observed: &Observed) -> bool {
    let of_it = |other: &&Member| other.group == rank.group && other.role == Role::Coordinator;
    let serves = |coordinator: &Member| {
        if coordinator.deleting { !coordinator.is_overdue(observed.now) } else { coordinator.ready }
    };
    rank.role == Role::Rank && observed.members.values().filter(of_it).any(serves)
}

/// Why pods of a replica are replaced.
pub(super) enum Turn {
    /// Pods that are not made from this.
    Outdated(Wanted),
    /// All, since none of them ever started with the image that it has.
    NeverStarted,
}

/// Replicas whose outdated pods are replaced now: each that does not serve, and as many of those that do as may be out beside
/// them, from the first that takes a new specification on. One that waits for room that a rolled one may give it does not count.
pub(super) fn rolling(checked: &Checked, observed: &Observed, revisions: &Revisions) -> BTreeMap<usize, Turn> {
    let outdated = |group: usize| {
        let wanted = wanted(revisions, observed, group);
        members(observed, group).any(|member| member.revision != wanted.revision).then_some(Turn::Outdated(wanted))
    };
    let never_started = |group: usize| {
        let image = observed.images.of(&checked.deployment.spec)?;
        let is_wrong = |member: &Member| member.image.as_deref().is_some_and(|own| own != image);
        let stuck = members(observed, group).all(|member| !member.started && !member.deleting);
        (stuck && members(observed, group).any(is_wrong)).then_some(Turn::NeverStarted)
    };
    let turn = |group: usize| Some((group, outdated(group).or_else(|| never_started(group))?));
    let out: BTreeSet<usize> = (0..checked.replicas).filter(|&group| !serves(observed, group)).collect();
    let mut rolling: BTreeMap<usize, Turn> = out.iter().copied().filter_map(turn).collect();
    let Rollout { max_unavailable, partition } = checked.deployment.spec.rollout;
    let count = |number: i32| usize::try_from(number).unwrap_or_default();
    let holds = |group: &&usize| outdated(**group).is_some() || !waits_for_room(observed, **group);
    let left = max_unavailable.map_or(1, count).saturating_sub(out.iter().filter(holds).count());
    let serving = (partition.map_or(0, count)..checked.replicas).filter(|group| !out.contains(group));
    rolling.extend(serving.filter_map(|group| Some((group, outdated(group)?))).take(left));
    rolling
}

/// Whether a replica has been without room for a pod for so long that it will not serve by itself.
fn waits_for_room(observed: &Observed, group: usize) -> bool {
    members(observed, group).any(|member| {
        let unplaced = member.unplaced.as_ref().filter(|unplaced| unplaced.gates.is_empty());
        unplaced.and_then(|unplaced| unplaced.since).is_some_and(|since| since + ROLL_PAST <= observed.now)
    })
}

fn members(observed: &Observed, group: usize) -> impl Iterator<Item = &Member> {
    observed.members.values().filter(move |member| member.group == group)
}

pub(super) fn group(checked: &Checked, observed: &Observed, index: usize, revisions: &Revisions) -> Group {
    let spec = &checked.deployment.spec;
    let wanted = wanted(revisions, observed, index);
    let revision = wanted.revision.as_str();
    // Pods of two revisions would not agree on ranks, settings or keys: new ones come when the last old one goes.
    let outdated = members(observed, index).any(|member| member.revision != revision && !member.deleting);
    // It reads the checkpoint and the map first of all: ranks, which may hold GPUs, come when both have been found right.
    let accepted = coordinator(observed, index).is_some_and(|coordinator| coordinator.started);
    let current = || members(observed, index).filter(|member| member.revision == revision);
    // An image with which nothing ever started is not one to agree with.
    let kept =
        current().any(|member| member.started).then(|| current().find_map(|member| member.image.clone())).flatten();
    let kept = kept.filter(|_| spec.runtime.image.is_none());
    let is_free = |name: &String| !observed.members.contains_key(name) && !observed.predecessors.contains(name);
    let create = pod_names(checked, index)
        .into_iter()
        .filter(|(name, (role, _))| !outdated && is_free(name) && (accepted || *role == Role::Coordinator))
        .map(|(name, _)| name)
        .collect();
    Group {
        index,
        image: kept.or_else(|| observed.images.of(spec).map(str::to_owned)).unwrap_or_default(),
        create,
        wanted,
    }
}
