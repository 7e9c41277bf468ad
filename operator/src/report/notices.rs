//! Events: one for each change that a person would want to know of, none for what only goes on.

use std::collections::BTreeMap;

use strum::{IntoStaticStr, VariantArray};

use crate::api::conditions::{Reason, Type};
use crate::api::status::MoEDeploymentStatus;
use crate::apply::Outcome;
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
    /// Labels of pods that somebody changed are put back.
    LabelsRestored,
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
    let mut causes: BTreeMap<Cause, Vec<&str>> = BTreeMap::new();
    for removal in &outcome.applied.removed {
        causes.entry(removal.cause).or_default().push(&removal.name);
    }
    notices.extend(causes.into_iter().map(|(cause, pods)| removed(cause, &listed(&pods))));
    if !outcome.applied.relabelled.is_empty() {
        let pods: Vec<&str> = outcome.applied.relabelled.iter().map(String::as_str).collect();
        notices.push(Notice {
            warning: true,
            reason: Happening::LabelsRestored.into(),
            activity: Activity::Reconcile,
            note: format!(
                "labels by which Services and the operator select pods were changed and are put back: {}",
                listed(&pods)
            ),
        });
    }
    for kind in [Type::SpecValid, Type::ExpertMapReady, Type::Ready, Type::Progressing, Type::Degraded] {
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
    notices.into_iter().map(|notice| Notice { note: cut(notice.note), ..notice }).collect()
}

/// The most names that an event repeats: a name has up to 63 bytes, and a note 1024.
const MOST_NAMES: usize = 8;
/// Bytes of the note of an event, as the API server has it.
const LONGEST_NOTE: usize = 1024;

/// Names, of many the first.
fn listed(names: &[&str]) -> String {
    let (shown, rest) = names.split_at(names.len().min(MOST_NAMES));
    let shown = shown.join(", ");
    if rest.is_empty() { shown } else { format!("{shown} and {} more", rest.len()) }
}

/// As much of a text as an event takes.
fn cut(text: String) -> String {
    if text.len() <= LONGEST_NOTE {
        return text;
    }
    let end = (0..=LONGEST_NOTE - 3).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
    format!("{}...", &text[..end])
}

fn removed(cause: Cause, pods: &str) -> Notice {
    let (warning, reason, note) = match cause {
        Cause::NodeLost => (true, Happening::RankLost, format!("replacing pods of a lost node: {pods}")),
        Cause::Ended => (true, Happening::RankLost, format!("replacing pods that ended: {pods}")),
        Cause::Outdated => (false, Happening::RollingOut, format!("replacing pods of an older specification: {pods}")),
        Cause::NeverStarted => {
            (false, Happening::RollingOut, format!("replacing pods that never started, with another image: {pods}"))
        }
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
        Type::Progressing => reason == Reason::ProgressDeadlineExceeded,
        Type::Available | Type::SpecValid | Type::ExpertMapReady | Type::Balanced => now.status == unwanted,
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
