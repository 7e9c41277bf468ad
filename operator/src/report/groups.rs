//! State of each replica, from its pods and its coordinator.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use plan::wire::Phase;

use crate::api::MoEDeployment;
use crate::api::status::{GroupStatus, MoEDeploymentStatus, ReplacementsStatus};
use crate::decide::{self, Cause, Decision, Removal};
use crate::names::{self, Role};
use crate::observed::{DownloadView, Observed, RuntimeView, Unreadable};
use crate::pods::{Member, Unplaced};
use crate::ratio;
use crate::validate::{Checked, Refused};

/// The most replicas that a deployment may have.
const MOST: usize = 64;

/// A replica.
pub(super) struct Group<'a> {
    pub index: usize,
    /// Whether it is asked for.
    pub is_wanted: bool,
    /// Whether it answers requests.
    pub serves: bool,
    /// Whether all its pods were made from the current specification.
    pub updated: bool,
    pub rank_pods: usize,
    pub ready_rank_pods: usize,
    pub members: Vec<&'a Member>,
    /// How often pods of it that ended were replaced in a row.
    pub replacements: Option<ReplacementsStatus>,
    pub runtime: Option<&'a RuntimeView>,
    pub unreadable: Option<&'a Unreadable>,
    /// How far downloads are, by the identity of their pods.
    pub downloads: &'a BTreeMap<String, DownloadView>,
}

impl Group<'_> {
    /// Whether it has any pod.
    pub fn exists(&self) -> bool {
        !self.members.is_empty()
    }

    /// Whether it is as it should be.
    pub const fn is_done(&self) -> bool {
        self.serves && self.updated
    }

    /// Its coordinator's pod, if there is one.
    pub fn coordinator(&self) -> Option<&Member> {
        self.members.iter().find(|member| member.role == Role::Coordinator).copied()
    }

    /// Whether it has any pod of ranks.
    pub fn has_rank(&self) -> bool {
        self.members.iter().any(|member| member.role == Role::Rank)
    }

    /// Whether its coordinator has found the checkpoint and the map right.
    pub fn has_started_coordinator(&self) -> bool {
        self.members.iter().any(|member| member.role == Role::Coordinator && member.started)
    }

    /// Why a rank of it cannot do its work until somebody changes something, if so, in the rank's own words.
    pub fn failure(&self) -> Option<&str> {
        self.runtime?.state.failure.as_deref()
    }

    /// What its coordinator answers that cannot be read, what that means, and what to do.
    pub fn unreadable(&self) -> Option<String> {
        let Unreadable { found, is_map } = self.unreadable?;
        let (index, left_out) =
            (self.index, if *is_map { "its maps are not recorded" } else { "this status does not follow it" });
        Some(format!(
            "replica {index}: {found}; requests are not affected, but {left_out}: upgrade the operator to the release of the \
             coordinator's image, or name an image of the operator's release in spec.runtime.image"
        ))
    }

    /// Whether it serves and nothing has been heard of it yet, as after a start of the operator.
    pub const fn is_unheard(&self) -> bool {
        self.serves && self.runtime.is_none() && self.unreadable.is_none()
    }

    /// Why its pods do not stay up, if so: the first pod's reason.
    pub fn failing(&self) -> Option<(&str, &str)> {
        // A download that goes on works again, whatever its earlier run ended with.
        let goes_on = |member: &Member| {
            member.downloads && self.downloads.get(&member.uid).is_some_and(|view| view.advanced.is_some())
        };
        let mut members = self.members.iter().filter(|member| !goes_on(member));
        members.find_map(|member| Some((member.name.as_str(), member.failing.as_deref()?)))
    }

    /// A pod that downloads the model.
    pub fn downloads(&self) -> Option<&str> {
        self.members.iter().find(|member| member.downloads).map(|member| member.name.as_str())
    }

    /// A pod that has no node, and why.
    pub fn unplaced(&self) -> Option<(&str, &Unplaced)> {
        self.members.iter().find_map(|member| Some((member.name.as_str(), member.unplaced.as_ref()?)))
    }

    /// A pod without containers since this time.
    pub fn uncreated(&self) -> Option<(&str, Timestamp)> {
        self.members.iter().find_map(|member| Some((member.name.as_str(), member.uncreated?)))
    }

    /// A pod that should have ended, and when.
    pub fn not_ending(&self, now: Timestamp) -> Option<(&str, Timestamp)> {
        let overdue = self.members.iter().filter(|member| member.is_overdue(now));
        overdue.filter_map(|member| Some((member.name.as_str(), member.gone_by?))).min()
    }

    /// When a pod of it last came further.
    pub fn progressed(&self) -> Option<Timestamp> {
        self.members.iter().filter_map(|member| member.progressed).max()
    }

    pub fn status(&self, previous: &MoEDeploymentStatus) -> GroupStatus {
        let index = self.index as i32;
        let before = previous.groups.iter().find(|group| group.index == index);
        let before_ratio = before.and_then(|group| group.ratio.clone());
        let before_epoch = before.and_then(|group| group.epoch);
        let (ratio, epoch) = match self.runtime {
            Some(view) => (
                view.state
                    .last_window
                    .as_ref()
                    .and_then(|window| ratio::settle(before_ratio.as_deref(), Some(window.ratio))),
                if view.state.phase == Phase::Moving && before_epoch.is_some() {
                    before_epoch
                } else {
                    Some(view.state.epoch as i64)
                },
            ),
            // Without a pod there is nothing that was measured; without an answer it is what was said last.
            None if self.members.is_empty() => (None, None),
            None => (before_ratio, before_epoch),
        };
        GroupStatus {
            index,
            ready: self.serves,
            ready_rank_pods: self.ready_rank_pods as i32,
            rank_pods: self.rank_pods as i32,
            updated: self.updated,
            replacements: self.replacements.clone(),
            ratio,
            epoch,
        }
    }
}

/// Replacements in a row, with those of this pass.
fn replacements(
    deployment: &MoEDeployment,
    observed: &Observed,
    removed: &[Removal],
    group: usize,
) -> Option<ReplacementsStatus> {
    let before = decide::replacements(deployment, observed, group);
    let is_of_it = |name: &str| names::parse_pod(name).is_some_and(|(_, index, _)| index == group);
    if !removed.iter().any(|removal| removal.cause == Cause::Ended && is_of_it(&removal.name)) {
        return before;
    }
    // Whole seconds, as the API server keeps them.
    let last = Timestamp::from_second(observed.now.as_second()).unwrap_or(observed.now);
    Some(ReplacementsStatus { count: before.map_or(1, |before| before.count.saturating_add(1)), last: Time(last) })
}

/// Replicas that exist or should, in order: as they are seen, but for pods that this pass has removed.
pub(super) fn groups<'a>(
    deployment: &MoEDeployment,
    observed: &'a Observed,
    verdict: &Result<Checked, Refused>,
    decision: &Decision,
    removed: &[Removal],
) -> Vec<Group<'a>> {
    let shape = decide::serving(verdict).map(|checked| checked.shape).or_else(|| verdict.as_ref().err()?.shape);
    let replicas = usize::try_from(deployment.spec.replicas).unwrap_or(0);
    let is_removed = |member: &Member| removed.iter().any(|removal| removal.uid == member.uid);
    let is_updated = |members: &[&Member]| {
        let wanted = decision.revisions.as_ref().map(|revisions| revisions.of(members.iter().copied()));
        verdict.is_ok() && wanted.is_some_and(|wanted| members.iter().all(|member| member.revision == wanted.revision))
    };
    let group = |index: usize| {
        let members: Vec<&Member> =
            observed.members.values().filter(|member| member.group == index && !is_removed(member)).collect();
        let ready = |member: &&&Member| member.role == Role::Rank && member.ready && !member.deleting;
        let has_coordinator = members.iter().any(|member| member.role == Role::Coordinator);
        let rank_pods = members.iter().filter(|member| member.role == Role::Rank).count();
        Group {
            index,
            is_wanted: index < replicas,
            serves: has_coordinator && decide::serves(observed, index),
            updated: !members.is_empty() && is_updated(&members),
            rank_pods: shape.map_or(rank_pods, |shape| shape.rank_pods()),
            ready_rank_pods: members.iter().filter(ready).count(),
            runtime: observed.runtimes.get(&index),
            unreadable: observed.unreadable.get(&index),
            downloads: &observed.downloads,
            replacements: replacements(deployment, observed, removed, index),
            members,
        }
    };
    let wanted = if shape.is_some() { 0..replicas } else { 0..0 };
    let there = observed.members.values().filter(|member| !is_removed(member)).map(|member| member.group);
    there.chain(wanted).filter(|index| *index < MOST).collect::<BTreeSet<_>>().into_iter().map(group).collect()
}
