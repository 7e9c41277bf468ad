//! Which pods are lost with their node or have ended, and which are spared. Pure.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};

use super::{Cause, Removal, Spared, coordinator, removal, serves};
use crate::api::MoEDeployment;
use crate::api::status::{GroupStatus, ReplacementsStatus};
use crate::observed::Observed;
use crate::reach::{Patience, Reach};

/// How soon a pod that has ended may be replaced after it was created, and after another one of its replica was; doubled for each in
/// a row up to the longest.
const REPLACE_AFTER: SignedDuration = SignedDuration::from_secs(10);
const REPLACE_AT_LAST_AFTER: SignedDuration = SignedDuration::from_secs(300);
/// How long a replica has to serve until what ended before no longer counts.
const FORGIVEN_AFTER: SignedDuration = SignedDuration::from_secs(600);
/// How long what a coordinator says holds. Until then its pods are left alone, whatever is said of their nodes.
const ANSWER_HOLDS: SignedDuration = SignedDuration::from_secs(15);

/// Whether the coordinator of a replica has just said that all its ranks serve.
fn answers(observed: &Observed, group: usize) -> Option<Timestamp> {
    let view = observed.runtimes.get(&group).filter(|view| view.state.ready)?;
    let coordinator = coordinator(observed, group)?;
    let until = view.heard + ANSWER_HOLDS;
    (view.pod_uid == coordinator.uid && until > observed.now).then_some(until)
}

#[derive(Default)]
pub(super) struct Broken {
    pub remove: Vec<Removal>,
    pub spared: Option<Spared>,
    pub exhausted: BTreeSet<usize>,
    pub look: Option<Timestamp>,
}

/// How long after the last replacement of so many in a row the next one comes.
fn pace(count: i32) -> SignedDuration {
    let doubled = 1_i32 << count.clamp(0, 16);
    REPLACE_AFTER.saturating_mul(doubled).min(REPLACE_AT_LAST_AFTER)
}

fn is_exhausted(deployment: &MoEDeployment, before: Option<&ReplacementsStatus>) -> bool {
    let count = before.map_or(0, |before| before.count);
    deployment.spec.restart_budget.is_some_and(|budget| count >= budget)
}

/// How often pods of a replica that ended were replaced in a row, as far as that still counts.
#[must_use]
pub fn replacements(deployment: &MoEDeployment, observed: &Observed, group: usize) -> Option<ReplacementsStatus> {
    let status = deployment.status.as_ref()?;
    let of_group = |status: &&GroupStatus| usize::try_from(status.index) == Ok(group);
    let before = status.groups.iter().find(of_group)?.replacements.clone()?;
    let is_forgiven = serves(observed, group) && before.last.0 + FORGIVEN_AFTER <= observed.now;
    (status.observed_generation == deployment.metadata.generation && !is_forgiven).then_some(before)
}

/// Pods whose node is lost or which ended, those that are spared, and when to look again at what may turn out so.
pub(super) fn broken(deployment: &MoEDeployment, observed: &Observed) -> Broken {
    let patience = Patience::new(&observed.sightings, observed.node_lost_after, observed.now);
    let mut found = Broken::default();
    let mut look = Vec::new();
    for member in observed.members.values() {
        if let Some(node) = &member.node {
            let seen = observed.sightings.get(node);
            let reach = patience.reach(seen, observed.now);
            if reach != Reach::Ready
                && let Some(outage) = patience.outage
            {
                found.spared = Some(Spared::Outage(outage));
            }
            match reach {
                // What answers is there. A node that was removed from the cluster takes its pods with it all the same.
                Reach::Lost if seen.is_some() && answers(observed, member.group).is_some() => {
                    look.extend(answers(observed, member.group));
                    found.spared.get_or_insert_with(|| Spared::Answers(member.name.clone()));
                }
                Reach::Lost => {
                    found.remove.push(removal(member, Cause::NodeLost));
                    continue;
                }
                Reach::Doubtful(at) => look.extend(at),
                Reach::Ready => {}
            }
        }
        if member.ended && !member.deleting {
            let before = replacements(deployment, observed, member.group);
            let created = member.created.map_or(observed.now, |created| created + REPLACE_AFTER);
            let at = before.as_ref().map_or(created, |before| created.max(before.last.0 + pace(before.count)));
            if is_exhausted(deployment, before.as_ref()) {
                found.exhausted.insert(member.group);
            } else if at <= observed.now {
                found.remove.push(removal(member, Cause::Ended));
            } else {
                look.push(at);
            }
        }
    }
    found.look = look.into_iter().min();
    found
}
