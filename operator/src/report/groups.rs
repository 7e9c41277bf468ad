//! State of each replica, from its pods and its coordinator.

use plan::wire::Phase;

use crate::api::MoEDeployment;
use crate::api::status::{GroupStatus, MoEDeploymentStatus};
use crate::decide::{self, Decision};
use crate::names::Role;
use crate::observed::{Observed, RuntimeView, Unreadable};
use crate::pods::Member;
use crate::ratio;
use crate::validate::{Checked, Refused};

/// A replica.
pub(super) struct Group<'a> {
    pub index: usize,
    /// Whether it answers requests.
    pub serves: bool,
    /// Whether all its pods were made from the current specification.
    pub updated: bool,
    pub rank_pods: usize,
    pub ready_rank_pods: usize,
    pub members: Vec<&'a Member>,
    pub runtime: Option<&'a RuntimeView>,
    pub unreadable: Option<&'a Unreadable>,
}

impl Group<'_> {
    /// Whether it has any pod.
    pub fn exists(&self) -> bool {
        !self.members.is_empty()
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
        self.members.iter().find_map(|member| Some((member.name.as_str(), member.failing.as_deref()?)))
    }

    /// Why it has pods without a node, if so.
    pub fn unschedulable(&self) -> Option<(&str, &str)> {
        self.members.iter().find_map(|member| Some((member.name.as_str(), member.unschedulable.as_deref()?)))
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
            None => (before_ratio, before_epoch),
        };
        GroupStatus {
            index,
            ready: self.serves,
            ready_rank_pods: self.ready_rank_pods as i32,
            rank_pods: self.rank_pods as i32,
            updated: self.updated,
            ratio,
            epoch,
        }
    }
}

/// Replicas that should exist, in order.
pub(super) fn groups<'a>(
    deployment: &MoEDeployment,
    observed: &'a Observed,
    verdict: &Result<Checked, Refused>,
    decision: &Decision,
) -> Vec<Group<'a>> {
    let shape = match verdict {
        Ok(checked) => Some(checked.shape),
        Err(refused) => refused.shape,
    };
    let Some(shape) = shape else { return Vec::new() };
    let replicas = usize::try_from(deployment.spec.replicas).unwrap_or(0);
    let removed = |member: &Member| decision.remove.iter().any(|removal| removal.uid == member.uid);
    let is_updated = |members: &[&Member]| {
        let wanted = decision.revisions.as_ref().map(|revisions| revisions.of(members.iter().copied()));
        wanted.is_some_and(|wanted| members.iter().all(|member| member.revision == wanted.revision))
    };
    let group = |index: usize| {
        let members: Vec<&Member> =
            observed.members.values().filter(|member| member.group == index && !removed(member)).collect();
        let ready = |member: &&&Member| member.role == Role::Rank && member.ready && !member.deleting;
        let removed_coordinator = members.iter().all(|member| member.role != Role::Coordinator);
        Group {
            index,
            serves: !removed_coordinator && decide::serves(observed, index),
            updated: !members.is_empty() && is_updated(&members),
            rank_pods: shape.rank_pods(),
            ready_rank_pods: members.iter().filter(ready).count(),
            runtime: observed.runtimes.get(&index),
            unreadable: observed.unreadable.get(&index),
            members,
        }
    };
    (0..replicas).map(group).collect()
}
