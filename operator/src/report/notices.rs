//! Events: one for each change that a person would want to know of, none for what only goes on.

use std::collections::BTreeMap;

use strum::{IntoStaticStr, VariantArray};

use super::Outcome;
use crate::api::conditions::{Reason, Type};
use crate::api::status::MoEDeploymentStatus;
use crate::decide::Cause;

/// What the operator did, or tried. Documented with the reasons in docs/operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoStaticStr)]
pub enum Activity {
    /// Looked at the specification and what it refers to.
    Validate,
    /// Created or removed pods.
    Reconcile,
    /// Stored an expert map.
    Record,
}

/// Reason of an event that is not that of a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoStaticStr, VariantArray)]
pub enum Happening {
    /// Pods of a lost node, or that ended, are replaced.
    RankLost,
    /// Pods of an older specification are replaced.
    RollingOut,
    /// Pods that are no longer asked for are removed.
    ScaledDown,
    /// An expert map was stored.
    ExpertMapRecorded,
}

/// An event to publish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// Whether it is unexpected.
    pub warning: bool,
    /// Reason; fixed at compile time.
    pub reason: &'static str,
    /// What was being done.
    pub activity: Activity,
    /// What a person reads.
    pub note: String,
}

/// Events that follow from a status that differs from the one before.
#[must_use]
pub fn notices(before: &MoEDeploymentStatus, after: &MoEDeploymentStatus, outcome: &Outcome) -> Vec<Notice> {
    let mut notices = Vec::new();
    if let Ok(applied) = outcome {
        let mut causes: BTreeMap<Cause, Vec<&str>> = BTreeMap::new();
        for removal in &applied.removed {
            causes.entry(removal.cause).or_default().push(&removal.name);
        }
        notices.extend(causes.into_iter().map(|(cause, pods)| removed(cause, &pods.join(", "))));
    }
    for kind in [Type::SpecValid, Type::ExpertMapReady, Type::Ready, Type::Degraded] {
        notices.extend(change(before, after, kind));
    }
    if let Some(map) = &after.expert_map
        && before.expert_map.as_ref().is_none_or(|old| old.hash != map.hash)
    {
        notices.push(Notice {
            warning: false,
            reason: Happening::ExpertMapRecorded.into(),
            activity: Activity::Record,
            note: format!("the expert map is recorded in ConfigMap {}; its ratio is {}", map.config_map, map.ratio),
        });
    }
    notices
}

fn removed(cause: Cause, pods: &str) -> Notice {
    let (warning, reason, note) = match cause {
        Cause::NodeLost => (true, Happening::RankLost, format!("replacing pods of a lost node: {pods}")),
        Cause::Ended => (true, Happening::RankLost, format!("replacing pods that ended: {pods}")),
        Cause::Outdated => (false, Happening::RollingOut, format!("replacing pods of an older specification: {pods}")),
        Cause::Surplus => (false, Happening::ScaledDown, format!("removing pods that are no longer asked for: {pods}")),
    };
    Notice { warning, reason: reason.into(), activity: Activity::Reconcile, note }
}

/// The event of a condition, if it turned to what a person would want to know.
fn change(before: &MoEDeploymentStatus, after: &MoEDeploymentStatus, kind: Type) -> Option<Notice> {
    let name: &str = kind.into();
    let find =
        |status: &MoEDeploymentStatus| status.conditions.iter().find(|condition| condition.type_ == name).cloned();
    let now = find(after)?;
    let same = find(before).is_some_and(|old| old.status == now.status && old.reason == now.reason);
    let unwanted = match kind {
        Type::Degraded => "True",
        Type::Ready | Type::Available | Type::Progressing | Type::SpecValid | Type::ExpertMapReady | Type::Balanced => {
            "False"
        }
    };
    let reason = Reason::VARIANTS.iter().copied().find(|reason| <&str>::from(reason) == now.reason)?;
    let told = match kind {
        // Another condition gives the reason already, or it is only a step on the way.
        Type::Ready => matches!(
            reason,
            Reason::AllReplicasReady
                | Reason::InsufficientGPUs
                | Reason::GPUsPerPodTooMany
                | Reason::GPUsNotAlike
                | Reason::GPUsNotSupported
        ),
        Type::Degraded => now.status == unwanted && reason != Reason::RankLost,
        Type::Available | Type::Progressing | Type::SpecValid | Type::ExpertMapReady | Type::Balanced => {
            now.status == unwanted
        }
    };
    (told && !same).then(|| Notice {
        warning: now.status == unwanted,
        reason: reason.into(),
        activity: match kind {
            Type::SpecValid | Type::ExpertMapReady => Activity::Validate,
            Type::Ready | Type::Available | Type::Progressing | Type::Degraded | Type::Balanced => Activity::Reconcile,
        },
        note: now.message,
    })
}
