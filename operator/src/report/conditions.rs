//! One small function for each condition, and one that owns their times.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use plan::words::counted;

use super::{Facts, groups};
use crate::api::conditions::{Reason, Type};
use crate::decide::{self, Cause, Hold, LARGEST_MAP, Spared};
use crate::error::ApplyError;
use crate::gpus::{self, Unlike};
use crate::host_paths::AllowedHostPaths;
use crate::names;
use crate::pods::Unplaced;
use crate::reach::{GIVEN_IN_OUTAGE, Outage};
use crate::validate::{Refusal, Refused, Shape, StartMap};
use crate::words;

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
    /// From here on the message is of somebody who may word the same anew each time.
    foreign_from: usize,
}

impl Finding {
    /// With the words of somebody else at the end.
    fn because(mut self, words: &str) -> Self {
        self.foreign_from = self.message.len();
        self.message.push_str(words);
        self
    }

    /// Its message, or the one of before if that said the same.
    fn message_after(&self, before: Option<&Condition>) -> String {
        let cut = |text: &str| text.chars().take(LONGEST_MESSAGE).collect::<String>();
        let (own, foreign) = self.message.split_at(self.foreign_from);
        let reason: &str = self.reason.into();
        let said = before.filter(|before| before.reason == reason).map(|before| before.message.as_str());
        match said.and_then(|said| said.strip_prefix(own)) {
            Some(rest) if !foreign.is_empty() && words::say_the_same(rest, &cut(foreign)) => format!("{own}{rest}"),
            _ => cut(&self.message),
        }
    }
}

fn finding(truth: Truth, reason: Reason, message: impl Into<String>) -> Finding {
    let message = message.into();
    Finding { truth, reason, foreign_from: message.len(), message }
}

fn yes(reason: Reason, message: impl Into<String>) -> Finding {
    finding(Truth::True, reason, message)
}

fn no(reason: Reason, message: impl Into<String>) -> Finding {
    finding(Truth::False, reason, message)
}

fn unknown(reason: Reason, message: impl Into<String>) -> Finding {
    finding(Truth::Unknown, reason, message)
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
        message: finding.message_after(before),
        last_transition_time: before.map_or(Time(now), |before| before.last_transition_time.clone()),
        observed_generation: facts.deployment.metadata.generation,
    }
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
        return without_node(counts, pod, unplaced);
    }
    if facts.decision.hold == Some(Hold::Paused) {
        return no(Reason::Paused, format!("{counts}; spec.paused is true: no pod is created or replaced"));
    }
    if facts.groups.iter().any(|group| group.is_wanted && group.exists() && !group.updated) {
        return no(Reason::RollingOut, format!("{counts}; pods of an older specification are being replaced"));
    }
    if let Some((pod, since)) = uncreated(facts) {
        return no(Reason::ContainersNotCreated, format!("{counts}; {}", not_created(pod, since)));
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

/// Why a pod has no node: a gate, or what the scheduler says.
fn without_node(counts: &str, pod: &str, unplaced: &Unplaced) -> Finding {
    if unplaced.gates.is_empty() {
        return no(Reason::Unschedulable, format!("{counts}; pod {pod} has no node: ")).because(&unplaced.why);
    }
    let gates = unplaced.gates.join(", ");
    no(Reason::SchedulingGated, format!("{counts}; pod {pod} is held back by the scheduling gate {gates}"))
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
    let is_rolling = facts.groups.iter().any(|group| group.is_wanted && group.exists() && !group.updated);
    let is_done = !is_rolling && wanted.all(|group| group.serves);
    if facts.outcome.failures.serving.as_deref().is_some_and(|error| error_reason(error) != Reason::WaitingForPods) {
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
    let last = waiting.filter_map(groups::Group::progressed).max()?;
    (last + deadline <= facts.observed.now).then_some(last)
}

fn degraded(facts: &Facts<'_>) -> Finding {
    if let Some(error) = facts.outcome.failures.serving.as_deref()
        && error_reason(error) != Reason::WaitingForPods
    {
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
        if unplaced.gates.is_empty() {
            return Some(yes(Reason::Unschedulable, format!("pod {pod} has no node: ")).because(&unplaced.why));
        }
        let gates = unplaced.gates.join(", ");
        return Some(yes(Reason::SchedulingGated, format!("pod {pod} is held back by the scheduling gate {gates}")));
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
