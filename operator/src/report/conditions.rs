//! One small function for each condition.

mod finding;
mod refusals;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use plan::words::counted;

use self::finding::{Finding, Truth, dated, finding, no, unknown, yes};
pub(super) use self::refusals::describe;
use super::{Facts, groups};
use crate::api::conditions::{Reason, Type};
use crate::decide::{self, Cause, Hold, LARGEST_MAP, Spared};
use crate::error::ApplyError;
use crate::gpus;
use crate::pods::Unplaced;
use crate::reach::{GIVEN_IN_OUTAGE, Outage};
use crate::validate::{Refusal, Refused, Shape, StartMap};

/// From here on the load counts as even.
const EVEN: f64 = 0.90;
/// Below this it counts as uneven; between the two the condition stays what it was.
const UNEVEN: f64 = 0.85;
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

fn ready(facts: &Facts<'_>) -> Finding {
    if let Err(refused) = facts.verdict {
        let (reason, message) = describe(&refused.refusal);
        return no(reason, message);
    }
    let wanted = || facts.groups.iter().filter(|group| group.is_wanted);
    let total = wanted().count();
    if total == 0 {
        let left = facts.groups.iter().any(groups::Group::exists);
        return match (left, facts.decision.hold) {
            (false, _) => yes(Reason::ScaledToZero, "no replicas are asked for"),
            (true, Some(Hold::Paused)) => {
                no(Reason::Paused, "pods that are no longer asked for stay while spec.paused is true")
            }
            (true, _) => no(Reason::ScalingDown, SCALING_DOWN),
        };
    }
    let done = wanted().filter(|group| group.is_done()).count();
    if done == total {
        return yes(Reason::AllReplicasReady, format!("{total} of {total} replicas serve"));
    }
    not_ready(facts, &format!("{done} of {total} replicas serve"))
}

const SCALING_DOWN: &str = "pods that are no longer asked for are ending";

/// Why the first replica that should be ready is not.
fn not_ready(facts: &Facts<'_>, counts: &str) -> Finding {
    let waiting = || facts.groups.iter().filter(|group| group.is_wanted && !group.is_done());
    if let Some(why) = waiting().find_map(|group| group.failure()) {
        return no(Reason::RankFailed, format!("{counts}; {why}"));
    }
    if let Some(exhausted) = exhausted(facts) {
        return no(Reason::RestartBudgetExhausted, format!("{counts}; {exhausted}"));
    }
    if let Some((pod, why)) = waiting().find_map(|group| group.failing()) {
        return no(Reason::PodFailing, format!("{counts}; pod {pod} does not stay up: {why}"));
    }
    if let Some(stuck) = not_ending(facts) {
        return no(Reason::PodNotEnding, format!("{counts}; {stuck}"));
    }
    if let Some(error) = facts.outcome.failures.serving.as_deref() {
        let (own, foreign) = error.told();
        return no(error_reason(error), format!("{counts}; {own}")).because(&foreign);
    }
    let unplaced = waiting().find_map(|group| group.unplaced());
    if let Some(lack) = lack(facts).filter(|_| unplaced.is_some() || waiting().any(|group| !group.has_rank())) {
        let (reason, message) = describe(lack);
        return no(reason, format!("{counts}; {message}"));
    }
    if let Some((pod, unplaced)) = unplaced {
        return without_node(Truth::False, &format!("{counts}; "), pod, unplaced);
    }
    if facts.decision.hold == Some(Hold::Paused) {
        return no(Reason::Paused, format!("{counts}; spec.paused is true: no pod is created or replaced"));
    }
    if is_rolling(facts) {
        return no(Reason::RollingOut, format!("{counts}; pods of an older specification are being replaced"));
    }
    if let Some((pod, since)) = uncreated(facts) {
        return no(Reason::ContainersNotCreated, format!("{counts}; {}", not_created(pod, since)));
    }
    if let Some(pod) = waiting().find_map(|group| group.downloads()) {
        let message = format!("{counts}; the model is being downloaded in pod {pod}, and status.download says how far");
        return no(Reason::Downloading, message);
    }
    let message = waiting().next().map_or_else(|| counts.to_owned(), |group| format!("{counts}; {}", awaited(group)));
    no(Reason::WaitingForPods, message)
}

/// What a replica waits for.
fn awaited(group: &groups::Group<'_>) -> String {
    let index = group.index;
    match group.coordinator() {
        None => format!("replica {index}: its coordinator is being created"),
        Some(coordinator) if coordinator.node.is_none() && coordinator.address.is_none() => {
            format!("replica {index}: its coordinator has no node yet")
        }
        Some(_) if !group.has_started_coordinator() => {
            format!("replica {index}: its coordinator reads the checkpoint, the rank pods come after that")
        }
        Some(_) => format!("replica {index}: {} of {} rank pods are ready", group.ready_rank_pods, group.rank_pods),
    }
}

/// GPUs that are known to be missing.
fn lack<'a>(facts: &Facts<'a>) -> Option<&'a Refusal> {
    let concern = facts.verdict.as_ref().ok().and_then(|checked| checked.concern.as_ref());
    concern.filter(|concern| matches!(concern, Refusal::InsufficientGpus { .. } | Refusal::GpusPerPodTooMany { .. }))
}

/// Why a pod has no node, after some words: a gate, or what the scheduler says.
fn without_node(truth: Truth, start: &str, pod: &str, unplaced: &Unplaced) -> Finding {
    if unplaced.gates.is_empty() {
        return finding(truth, Reason::Unschedulable, format!("{start}pod {pod} has no node: ")).because(&unplaced.why);
    }
    let gates = unplaced.gates.join(", ");
    finding(truth, Reason::SchedulingGated, format!("{start}pod {pod} is held back by the scheduling gate {gates}"))
}

/// How long containers may take to be created before it is told: images are pulled and volumes mounted meanwhile.
const CREATED_AFTER: SignedDuration = SignedDuration::from_secs(120);
/// How long a pod may be without a node before that is a degradation: an autoscaler brings one meanwhile.
const PLACED_AFTER: SignedDuration = SignedDuration::from_secs(60);

fn uncreated<'a>(facts: &'a Facts<'_>) -> Option<(&'a str, Timestamp)> {
    let late = |(_, since): &(&str, Timestamp)| *since + CREATED_AFTER <= facts.observed.now;
    facts.groups.iter().filter(|group| group.is_wanted).filter_map(groups::Group::uncreated).find(late)
}

fn not_created(pod: &str, since: Timestamp) -> String {
    format!(
        "pod {pod} has a node, and its containers are not created since {since}: an image is pulled or a volume cannot be mounted, as kubectl describe pod {pod} tells"
    )
}

/// That pods are no longer replaced, with why they end.
fn exhausted(facts: &Facts<'_>) -> Option<String> {
    let group = facts.groups.iter().find(|group| facts.decision.exhausted.contains(&group.index))?;
    let why = group.failing().map(|(pod, why)| format!(", the last was {pod}: {why}")).unwrap_or_default();
    let budget = facts.deployment.spec.restart_budget.unwrap_or_default();
    Some(format!(
        "replica {}: pods that ended for good were replaced {budget} times in a row, as often as restartBudget has it{why}",
        group.index
    ))
}

fn not_ending(facts: &Facts<'_>) -> Option<String> {
    let (pod, since) = facts.groups.iter().find_map(|group| group.not_ending(facts.observed.now))?;
    Some(format!(
        "pod {pod} should have ended by {since} and is still there, so no other takes its name: look for finalizers in its metadata, and at the kubelet of its node"
    ))
}

/// Whether pods of an older specification are being replaced.
fn is_rolling(facts: &Facts<'_>) -> bool {
    facts.groups.iter().any(|group| group.is_wanted && group.exists() && !group.updated)
}

/// What was to be done for what serves and failed, but for what the end of a namesake's pods brings by itself.
fn failed<'a>(facts: &Facts<'a>) -> Option<&'a ApplyError> {
    facts.outcome.failures.serving.as_deref().filter(|error| error_reason(error) != Reason::WaitingForPods)
}

const fn error_reason(error: &ApplyError) -> Reason {
    match error {
        ApplyError::NameConflict { .. } => Reason::NameConflict,
        ApplyError::Predecessor { .. } => Reason::WaitingForPods,
        ApplyError::NamespaceEnding | ApplyError::Call { .. } => Reason::ReconcileFailed,
    }
}

fn available(facts: &Facts<'_>) -> Finding {
    if facts.groups.iter().any(|group| group.serves) {
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
        Some(Hold::Refused) => return no(Reason::Blocked, blocked(facts)),
        None => {}
    }
    let mut wanted = facts.groups.iter().filter(|group| group.is_wanted);
    let is_rolling = is_rolling(facts);
    let is_done = !is_rolling && wanted.all(|group| group.serves);
    if failed(facts).is_some() {
        return no(Reason::Blocked, "what is to be done fails: see the condition Degraded");
    }
    if !is_done && facts.groups.iter().any(|group| group.failure().is_some()) {
        return no(
            Reason::Blocked,
            "a rank cannot do its work, whatever it is given time for: see the condition Ready",
        );
    }
    if let Some(since) = stalled(facts).filter(|_| !is_done) {
        let message = format!("no pod has come further since {since}: see the condition Ready");
        return no(Reason::ProgressDeadlineExceeded, message);
    }
    if is_rolling {
        yes(Reason::RollingOut, "pods of an older specification are being replaced, one serving replica at a time")
    } else if !is_done {
        yes(Reason::WaitingForPods, "pods are starting")
    } else if facts.groups.iter().any(|group| !group.is_wanted) {
        yes(Reason::ScalingDown, SCALING_DOWN)
    } else {
        no(Reason::Complete, "everything is as specified")
    }
}

/// What becomes of pods while the specification is refused.
fn blocked(facts: &Facts<'_>) -> &'static str {
    if decide::serving(facts.verdict).is_some() {
        "what was accepted last is kept up and scaled: see the condition Ready"
    } else {
        "pods stay as they are: see the condition Ready"
    }
}

/// Since when nothing has come further, if that is too long.
fn stalled(facts: &Facts<'_>) -> Option<Timestamp> {
    let deadline = SignedDuration::from_secs(facts.deployment.spec.progress_deadline_seconds.into());
    let waiting = facts.groups.iter().filter(|group| group.is_wanted && !group.is_done());
    let downloaded = facts.observed.downloads.values().filter_map(|view| view.advanced).max();
    let last = waiting.filter_map(groups::Group::progressed).chain(downloaded).max()?;
    (last + deadline <= facts.observed.now).then_some(last)
}

fn degraded(facts: &Facts<'_>) -> Finding {
    if let Some(error) = failed(facts) {
        let (own, foreign) = error.told();
        return yes(error_reason(error), own).because(&foreign);
    }
    if let Some(why) = facts.groups.iter().find_map(groups::Group::failure) {
        return yes(Reason::RankFailed, why);
    }
    if let Some(exhausted) = exhausted(facts) {
        return yes(Reason::RestartBudgetExhausted, exhausted);
    }
    if let Some((pod, why)) = facts.groups.iter().find_map(|group| group.failing()) {
        return yes(Reason::PodFailing, format!("pod {pod} does not stay up: {why}"));
    }
    if let Some(spared) = &facts.decision.spared {
        return yes(Reason::NodesOutOfReach, out_of_reach(spared));
    }
    if let Some(stuck) = not_ending(facts) {
        return yes(Reason::PodNotEnding, stuck);
    }
    let lost = |cause| matches!(cause, Cause::NodeLost | Cause::Ended);
    let replaced = facts.decision.remove.iter().any(|removal| lost(removal.cause));
    let was_lost = was_degraded(facts, Reason::RankLost).is_some();
    if replaced || (was_lost && !facts.groups.iter().all(|group| group.serves || !group.is_wanted)) {
        return yes(Reason::RankLost, "pods whose node is lost, or which ended, are being replaced");
    }
    if let Some(found) = waits_too_long(facts) {
        return found;
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
    if let Some(error) = facts.outcome.failures.maps.as_deref() {
        let (own, foreign) = error.told();
        return yes(Reason::ExpertMapNotStored, own).because(&foreign);
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

/// A pod that has been without a node, or without containers, for longer than that takes by itself.
fn waits_too_long(facts: &Facts<'_>) -> Option<Finding> {
    let late = |unplaced: &Unplaced| unplaced.since.is_some_and(|since| since + PLACED_AFTER <= facts.observed.now);
    let wanted = || facts.groups.iter().filter(|group| group.is_wanted);
    if let Some((pod, unplaced)) = wanted().filter_map(groups::Group::unplaced).find(|(_, unplaced)| late(unplaced)) {
        return Some(without_node(Truth::True, "", pod, unplaced));
    }
    uncreated(facts).map(|(pod, since)| yes(Reason::ContainersNotCreated, not_created(pod, since)))
}

fn out_of_reach(spared: &Spared) -> String {
    match spared {
        Spared::Outage(Outage::All) => {
            "all nodes are out of reach of the control plane at once, which is its own trouble more \
                                        likely than theirs: pods are left as they are"
                .to_owned()
        }
        Spared::Outage(Outage::Most) => format!(
            "most nodes are out of reach of the control plane at once: pods on them are left as they are for {} s",
            GIVEN_IN_OUTAGE.as_secs()
        ),
        Spared::Answers(pod) => {
            format!("the node of pod {pod} is out of reach and its replica answers requests: it is left as it is")
        }
    }
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
