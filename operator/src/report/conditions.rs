//! One small function for each condition, and one that owns their times.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use plan::words::counted;

use super::{Facts, groups};
use crate::api::conditions::{Reason, Type};
use crate::decide::{Cause, Hold, LARGEST_MAP};
use crate::error::ApplyError;
use crate::gpus::{self, Unlike};
use crate::host_paths::AllowedHostPaths;
use crate::names;
use crate::validate::{Refusal, Refused, Shape, StartMap};

/// From here on the load counts as even.
const EVEN: f64 = 0.90;
/// Below this it counts as uneven; between the two the condition stays what it was.
const UNEVEN: f64 = 0.85;
/// Conditions hold 32 KiB of message; nobody reads more than this.
const LONGEST_MESSAGE: usize = 1000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Truth {
    True,
    False,
    Unknown,
}

struct Finding {
    truth: Truth,
    reason: Reason,
    message: String,
}

fn yes(reason: Reason, message: impl Into<String>) -> Finding {
    Finding { truth: Truth::True, reason, message: message.into() }
}

fn no(reason: Reason, message: impl Into<String>) -> Finding {
    Finding { truth: Truth::False, reason, message: message.into() }
}

fn unknown(reason: Reason, message: impl Into<String>) -> Finding {
    Finding { truth: Truth::Unknown, reason, message: message.into() }
}

/// All conditions, in the order of [`Type`].
pub(super) fn conditions(facts: &Facts<'_>) -> Vec<Condition> {
    [
        (Type::Ready, ready(facts)),
        (Type::Available, available(facts)),
        (Type::Progressing, progressing(facts)),
        (Type::Degraded, degraded(facts)),
        (Type::SpecValid, spec_valid(facts)),
        (Type::ExpertMapReady, expert_map_ready(facts)),
        (Type::Balanced, balanced(facts)),
    ]
    .into_iter()
    .map(|(kind, finding)| dated(facts, kind, &finding))
    .collect()
}

/// A finding as a condition: its time is that of the last change of its status.
fn dated(facts: &Facts<'_>, kind: Type, finding: &Finding) -> Condition {
    let kind: &str = kind.into();
    let reason: &str = finding.reason.into();
    let status = match finding.truth {
        Truth::True => "True",
        Truth::False => "False",
        Truth::Unknown => "Unknown",
    };
    let before =
        facts.previous.conditions.iter().find(|condition| condition.type_ == kind && condition.status == status);
    // Whole seconds, as the API server keeps them: a time that is read back must equal the one that was written.
    let now = Timestamp::from_second(facts.observed.now.as_second()).unwrap_or(facts.observed.now);
    Condition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: reason.to_owned(),
        message: finding.message.chars().take(LONGEST_MESSAGE).collect(),
        last_transition_time: before.map_or(Time(now), |before| before.last_transition_time.clone()),
        observed_generation: facts.deployment.metadata.generation,
    }
}

fn ready(facts: &Facts<'_>) -> Finding {
    if let Err(refused) = facts.verdict {
        let (reason, message) = describe(&refused.refusal);
        return no(reason, message);
    }
    if facts.groups.is_empty() {
        return yes(Reason::ScaledToZero, "no replicas are asked for");
    }
    let total = facts.groups.len();
    let done = facts.groups.iter().filter(|group| group.serves && group.updated).count();
    if done == total {
        return yes(Reason::AllReplicasReady, format!("{total} of {total} replicas serve"));
    }
    not_ready(facts, &format!("{done} of {total} replicas serve"))
}

/// Why the first replica that should be ready is not.
fn not_ready(facts: &Facts<'_>, counts: &str) -> Finding {
    let waiting = || facts.groups.iter().filter(|group| !(group.serves && group.updated));
    if let Some(why) = waiting().find_map(|group| group.failure()) {
        return no(Reason::RankFailed, format!("{counts}; {why}"));
    }
    if let Some((pod, why)) = waiting().find_map(|group| group.failing()) {
        return no(Reason::PodFailing, format!("{counts}; pod {pod} does not stay up: {why}"));
    }
    if let Some((pod, why)) = waiting().find_map(|group| group.unschedulable()) {
        return no(Reason::Unschedulable, format!("{counts}; pod {pod} has no node: {why}"));
    }
    if facts.groups.iter().any(|group| group.exists() && !group.updated) {
        return no(Reason::RollingOut, format!("{counts}; pods of an older specification are being replaced"));
    }
    match waiting().next() {
        Some(group) if !group.has_started_coordinator() => no(
            Reason::WaitingForPods,
            format!(
                "{counts}; replica {}: its coordinator reads the checkpoint, the rank pods come after that",
                group.index
            ),
        ),
        Some(group) => no(
            Reason::WaitingForPods,
            format!(
                "{counts}; replica {}: {} of {} rank pods are ready",
                group.index, group.ready_rank_pods, group.rank_pods
            ),
        ),
        None => no(Reason::WaitingForPods, counts),
    }
}

fn available(facts: &Facts<'_>) -> Finding {
    let serving = facts.groups.iter().filter(|group| group.serves).count();
    if serving > 0 {
        yes(Reason::ReplicaReady, "requests are answered")
    } else if facts.deployment.spec.replicas == 0 {
        no(Reason::ScaledToZero, "no replicas are asked for")
    } else {
        no(Reason::NoReplicaReady, "no replica serves")
    }
}

fn progressing(facts: &Facts<'_>) -> Finding {
    match facts.decision.hold {
        Some(Hold::Paused) => return no(Reason::Paused, "spec.paused is true: pods stay as they are"),
        Some(Hold::Refused) => return no(Reason::Blocked, "pods stay as they are: see the condition Ready"),
        None => {}
    }
    if facts.groups.iter().any(|group| group.exists() && !group.updated) {
        yes(Reason::RollingOut, "pods of an older specification are being replaced, one serving replica at a time")
    } else if facts.groups.iter().all(|group| group.serves) {
        no(Reason::Complete, "everything is as specified")
    } else if facts.groups.iter().any(|group| group.failure().is_some()) {
        no(Reason::Blocked, "a rank cannot do its work, whatever it is given time for: see the condition Ready")
    } else {
        yes(Reason::WaitingForPods, "pods are starting")
    }
}

fn degraded(facts: &Facts<'_>) -> Finding {
    if let Err(error) = facts.outcome {
        let reason = match error {
            ApplyError::NameConflict { .. } => Reason::NameConflict,
            ApplyError::NamespaceEnding | ApplyError::Call { .. } => Reason::ReconcileFailed,
        };
        return yes(reason, error.stable_message());
    }
    if let Some(why) = facts.groups.iter().find_map(groups::Group::failure) {
        return yes(Reason::RankFailed, why);
    }
    if let Some((pod, why)) = facts.groups.iter().find_map(|group| group.failing()) {
        return yes(Reason::PodFailing, format!("pod {pod} does not stay up: {why}"));
    }
    let lost = |cause| matches!(cause, Cause::NodeLost | Cause::Ended);
    let replaced = facts.decision.remove.iter().any(|removal| lost(removal.cause));
    let was_lost = was_degraded(facts, Reason::RankLost).is_some();
    if replaced || (was_lost && !facts.groups.iter().all(|group| group.serves)) {
        return yes(Reason::RankLost, "pods whose node is lost, or which ended, are being replaced");
    }
    if let Some(why) = facts.groups.iter().find_map(groups::Group::unreadable) {
        return yes(Reason::RuntimeAnswerUnreadable, why);
    }
    let was_unreadable = was_degraded(facts, Reason::RuntimeAnswerUnreadable);
    if let Some(before) = was_unreadable.filter(|_| facts.groups.iter().any(groups::Group::is_unheard)) {
        return yes(Reason::RuntimeAnswerUnreadable, &before.message);
    }
    if let Some(why) = facts.groups.iter().find_map(|group| group.runtime?.state.degraded.as_deref()) {
        return yes(Reason::RebalancingDegraded, why);
    }
    if facts.decision.maps.too_large {
        return yes(
            Reason::ExpertMapTooLarge,
            format!(
                "the recorded map is larger than the {LARGEST_MAP} bytes that a ConfigMap can hold: read it with \
                 kubectl moe map, or record it to a file with eplb.expertMapRecordPath"
            ),
        );
    }
    no(Reason::AsExpected, "nothing is wrong")
}

/// The condition that was reported before, if it was true for this reason.
fn was_degraded<'a>(facts: &Facts<'a>, reason: Reason) -> Option<&'a Condition> {
    let (kind, reason): (&str, &str) = (Type::Degraded.into(), reason.into());
    let mut before = facts.previous.conditions.iter();
    before.find(|condition| condition.type_ == kind && condition.status == "True" && condition.reason == reason)
}

fn spec_valid(facts: &Facts<'_>) -> Finding {
    match facts.verdict {
        Err(Refused {
            refusal: refusal @ (Refusal::Specification(_) | Refusal::HostPathNotAllowed { .. }), ..
        }) => {
            let (reason, message) = describe(refusal);
            no(reason, message)
        }
        Ok(checked) => yes(Reason::Valid, consistent(facts, checked.shape)),
        Err(Refused { shape: Some(shape), .. }) => yes(Reason::Valid, consistent(facts, *shape)),
        Err(Refused { shape: None, .. }) => yes(Reason::Valid, CONSISTENT),
    }
}

const CONSISTENT: &str = "the specification is consistent";

/// What may be said of a consistent specification beside that.
fn consistent(facts: &Facts<'_>, shape: Shape) -> String {
    gpus::better_per_pod(&facts.deployment.spec, shape, facts.observed).map_or_else(
        || CONSISTENT.to_owned(),
        |better| {
            let (per_pod, ranks) = (counted(shape.ranks_per_pod, "GPU"), counted(shape.ranks, "rank"));
            format!(
                "{CONSISTENT}; its {ranks} have {per_pod} a pod, and only those of one pod reach each other \
                 directly (NVLink): with gpusPerPod {better}, which every node has, tokens and experts travel faster"
            )
        },
    )
}

fn expert_map_ready(facts: &Facts<'_>) -> Finding {
    let (start_map, refusal) = match facts.verdict {
        Ok(checked) => (Some(&checked.start_map), checked.concern.as_ref()),
        Err(refused) => (refused.start_map.as_ref(), Some(&refused.refusal)),
    };
    match refusal {
        Some(
            refusal @ (Refusal::MapMissing { .. }
            | Refusal::MapNotRecorded { .. }
            | Refusal::MapInvalid { .. }
            | Refusal::MapIncompatible { .. }),
        ) => {
            let (reason, message) = describe(refusal);
            return no(reason, message);
        }
        Some(
            Refusal::Specification(_)
            | Refusal::HostPathNotAllowed { .. }
            | Refusal::InsufficientGpus { .. }
            | Refusal::GpusPerPodTooMany { .. }
            | Refusal::GpusNotAlike(_)
            | Refusal::GpusNotSupported,
        )
        | None => {}
    }
    match start_map {
        None => unknown(Reason::NotChecked, "the specification is not consistent"),
        Some(StartMap::Even) => yes(Reason::NotRequested, "no map is asked for: experts start evenly spread"),
        Some(StartMap::InModelSource(path)) => {
            yes(Reason::InModelSource, format!("the coordinator reads {path:?} of the model source"))
        }
        Some(StartMap::ConfigMap { name, .. }) => {
            yes(Reason::Resolved, format!("experts start as in ConfigMap {name}"))
        }
    }
}

fn balanced(facts: &Facts<'_>) -> Finding {
    let Some(ratio) = facts.ratio.as_deref().and_then(|ratio| ratio.parse::<f64>().ok()) else {
        return unknown(Reason::NotMeasured, "no window has closed yet");
    };
    let kind: &str = Type::Balanced.into();
    let before = facts.previous.conditions.iter().find(|condition| condition.type_ == kind);
    let was_even = before.is_some_and(|condition| condition.status == "True");
    if ratio >= EVEN || (ratio >= UNEVEN && was_even) {
        yes(Reason::LoadEven, "ranks get about equally many tokens")
    } else if facts.deployment.spec.eplb.dynamic_eplb {
        no(Reason::LoadUneven, "some ranks get many more tokens than others; experts are moved if that pays")
    } else {
        no(
            Reason::LoadUneven,
            "some ranks get many more tokens than others: set eplb.dynamicEplb to true to move experts",
        )
    }
}

/// A refusal as reason and message.
pub(super) fn describe(refusal: &Refusal) -> (Reason, String) {
    match refusal {
        Refusal::Specification(broken) => (Reason::Invalid, broken.join("; ")),
        Refusal::HostPathNotAllowed { at, path, allowed } => {
            (Reason::HostPathNotAllowed, not_allowed(at, path, allowed))
        }
        Refusal::MapMissing { config_map } => (
            Reason::ExpertMapMissing,
            format!("ConfigMap {config_map} of eplb.expertMapRef does not exist in this namespace"),
        ),
        Refusal::MapNotRecorded { deployment } => (
            Reason::ExpertMapNotRecorded,
            format!("MoEDeployment {deployment} of eplb.expertMapRef does not exist or has not recorded a map yet"),
        ),
        Refusal::MapInvalid { config_map, problem } => (
            Reason::ExpertMapInvalid,
            format!("ConfigMap {config_map} holds no valid map under {:?}: {problem}", names::MAP_KEY),
        ),
        Refusal::MapIncompatible { config_map, difference } => {
            (Reason::ExpertMapIncompatible, format!("the map in ConfigMap {config_map} does not fit: {difference}"))
        }
        Refusal::InsufficientGpus { resource, needed, offered, per_pod } => {
            let pods = if *per_pod > 1 { format!(" in pods of {per_pod}") } else { String::new() };
            let message = format!(
                "{needed} {resource} are needed and all nodes together offer {offered}{pods}: add nodes, or lower replicas or \
                 parallelism.data"
            );
            (Reason::InsufficientGPUs, message)
        }
        Refusal::GpusPerPodTooMany { resource, per_pod, most } => (
            Reason::GPUsPerPodTooMany,
            format!(
                "gpusPerPod is {per_pod} and no node offers more than {most} {resource}: lower gpusPerPod, or add nodes that \
                 have as many"
            ),
        ),
        Refusal::GpusNotAlike(unlike) => (Reason::GPUsNotAlike, not_alike(unlike)),
        Refusal::GpusNotSupported => (
            Reason::GPUsNotSupported,
            "the operator was given no image of a runtime that computes on GPUs: set runtime.gpuImage of the chart, name one \
             in runtime.image, or set gpusPerPod to 0"
                .to_owned(),
        ),
    }
}

/// Longest part of a node's name, or of a label's value, that a message repeats.
const LONGEST_LABEL: usize = 40;

fn not_alike(Unlike { label, first, second }: &Unlike) -> String {
    let short = |text: &str| text.chars().take(LONGEST_LABEL).collect::<String>();
    let said = |(node, value): &(String, String)| format!("{:?} on {}", short(value), short(node));
    format!(
        "the nodes that it may use have unlike GPUs, which compute unlike: {label} is {} and {}; choose one kind with \
         placement.nodeSelector",
        said(first),
        said(second)
    )
}

/// Longest part of a path, and most allowed folders, that a message repeats.
const LONGEST_PATH: usize = 80;
const MOST_FOLDERS: usize = 2;

fn not_allowed(at: &str, path: &str, allowed: &AllowedHostPaths) -> String {
    let quoted: String = path.chars().take(LONGEST_PATH).collect();
    let quoted = if quoted.len() < path.len() { format!("{quoted:?}...") } else { format!("{quoted:?}") };
    let folders = allowed.folders();
    let named: Vec<String> = folders
        .iter()
        .take(MOST_FOLDERS)
        .map(|folder| folder.to_string().chars().take(LONGEST_PATH / 2).collect())
        .collect();
    let (which, remedy) = match folders.len() {
        0 => ("allows no folder of nodes".to_owned(), String::new()),
        count if count > MOST_FOLDERS => {
            (format!("allows {} and {} more", named.join(", "), count - MOST_FOLDERS), "name one below, ".to_owned())
        }
        _ => (format!("allows only {}", named.join(" and ")), "name one below, ".to_owned()),
    };
    format!(
        "{at} is {quoted} and the operator {which}: {remedy}use a claim or an image, or have it added \
         to allowedHostPaths of the chart"
    )
}
