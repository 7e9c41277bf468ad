//! What to tell: the status and the events that follow from what was seen, decided and done. Pure: no client, no clock.

mod conditions;
mod download;
mod groups;
mod notices;

use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt as _;
use plan::wire::Phase;

use crate::api::MoEDeployment;
use crate::api::status::{AcceptedStatus, ExpertMapStatus, MoEDeploymentStatus, StartMapStatus};
use crate::apply::Outcome;
use crate::decide::{self, Decision};
use crate::names;
use crate::observed::Observed;
use crate::ratio;
use crate::validate::{Checked, Refused, StartMap};

pub use download::shown_download;
pub use notices::{Happening, Notice, notices};

/// Everything that a status is made from.
struct Facts<'a> {
    deployment: &'a MoEDeployment,
    previous: &'a MoEDeploymentStatus,
    observed: &'a Observed,
    verdict: &'a Result<Checked, Refused>,
    decision: &'a Decision,
    outcome: &'a Outcome,
    groups: Vec<groups::Group<'a>>,
    ratio: Option<String>,
}

/// The status of a deployment.
#[must_use]
pub fn report(
    deployment: &MoEDeployment,
    observed: &Observed,
    verdict: &Result<Checked, Refused>,
    decision: &Decision,
    outcome: &Outcome,
) -> MoEDeploymentStatus {
    let previous = deployment.status.clone().unwrap_or_default();
    let groups = groups::groups(deployment, observed, verdict, decision, &outcome.applied.removed);
    let ratio = shown_ratio(&previous, observed);
    let facts = Facts { deployment, previous: &previous, observed, verdict, decision, outcome, groups, ratio };
    let shape = decide::serving(verdict).map(|checked| checked.shape).or_else(|| verdict.as_ref().err()?.shape);
    MoEDeploymentStatus {
        observed_generation: match outcome.failures.serving {
            None => deployment.metadata.generation,
            Some(_) => previous.observed_generation,
        },
        conditions: conditions::conditions(&facts),
        replicas: count(facts.groups.iter().filter(|group| group.exists())),
        ready_replicas: count(facts.groups.iter().filter(|group| group.serves)),
        selector: names::scale_selector(&deployment.name_any()),
        expert_parallel_size: shape.map(|shape| shape.ranks as i32),
        slots_per_rank: shape.map(|shape| shape.slots_per_rank() as i32),
        epoch: shown_epoch(&previous, observed),
        expert_map: expert_map(deployment, observed, decision, outcome),
        start_map: start_map(&facts),
        model: download::model(
            deployment,
            &previous,
            observed,
            decision.revisions.as_ref().filter(|_| verdict.is_ok()),
        ),
        download: download::status(observed),
        accepted: accepted(verdict, &previous),
        groups: facts.groups.iter().map(|group| group.status(&previous)).collect(),
        ratio: facts.ratio,
    }
}

fn count<T>(items: impl Iterator<Item = T>) -> i32 {
    items.count() as i32
}

/// The lowest ratio of all replicas: what is to be improved.
fn shown_ratio(previous: &MoEDeploymentStatus, observed: &Observed) -> Option<String> {
    if observed.members.is_empty() {
        return None;
    }
    if observed.runtimes.is_empty() {
        return previous.ratio.clone();
    }
    let windows = observed.runtimes.values().filter_map(|view| view.state.last_window.as_ref());
    let lowest = windows.map(|window| window.ratio).reduce(f64::min)?;
    ratio::settle(previous.ratio.as_deref(), Some(lowest))
}

/// The epoch, which stands still while experts are on the move.
fn shown_epoch(previous: &MoEDeploymentStatus, observed: &Observed) -> Option<i64> {
    match decide::speaker(observed) {
        _ if observed.members.is_empty() => None,
        Some(view) if view.state.phase == Phase::Moving && previous.epoch.is_some() => previous.epoch,
        Some(view) => Some(view.state.epoch as i64),
        None => previous.epoch,
    }
}

/// The map that was recorded last: the one in use by the coordinator if it is stored, else the newest that is.
fn expert_map(
    deployment: &MoEDeployment,
    observed: &Observed,
    decision: &Decision,
    outcome: &Outcome,
) -> Option<ExpertMapStatus> {
    if let Some(map) = &outcome.applied.map {
        return describe_map(map);
    }
    let own = decide::own_maps(deployment, observed);
    let current = decision.maps.current.as_ref();
    let hash = |map: &ConfigMap| map.annotations().get(names::MAP_HASH).cloned();
    let is_gone = |name: String| outcome.failures.maps.is_none() && decision.maps.prune.contains(&name);
    let kept = own.iter().filter(|map| !is_gone(map.name_any()));
    let mut candidates = kept.clone().filter(|map| current.is_some() && hash(map).as_ref() == current);
    let found = candidates.next().or_else(|| kept.clone().next());
    found.and_then(|map| describe_map(map))
}

fn describe_map(map: &ConfigMap) -> Option<ExpertMapStatus> {
    let annotation = |key: &str| map.annotations().get(key);
    Some(ExpertMapStatus {
        config_map: map.name_any(),
        hash: annotation(names::MAP_HASH)?.clone(),
        ratio: ratio::text(annotation(names::MAP_RATIO)?.parse().ok()?),
        epoch: annotation(names::MAP_EPOCH)?.parse().ok()?,
        recorded_at: map.metadata.creation_timestamp.clone().unwrap_or(Time(jiff::Timestamp::UNIX_EPOCH)),
    })
}

/// What was accepted last.
fn accepted(verdict: &Result<Checked, Refused>, previous: &MoEDeploymentStatus) -> Option<AcceptedStatus> {
    let Ok(checked) = verdict else { return previous.accepted.clone() };
    let mut spec = serde_json::to_value(&checked.deployment.spec).expect("a specification is plain data");
    if let Some(fields) = spec.as_object_mut() {
        fields.remove("replicas");
        fields.remove("paused");
    }
    Some(AcceptedStatus { spec, start_map: started_from(&checked.start_map) })
}

fn started_from(map: &StartMap) -> Option<StartMapStatus> {
    match map {
        StartMap::ConfigMap { reference, name, hash } => {
            Some(StartMapStatus { reference: reference.clone(), config_map: name.clone(), hash: hash.clone() })
        }
        StartMap::Even | StartMap::InModelSource(_) => None,
    }
}

fn start_map(facts: &Facts<'_>) -> Option<StartMapStatus> {
    let found = match facts.verdict {
        Ok(checked) => Some(&checked.start_map),
        Err(refused) => refused.start_map.as_ref(),
    };
    if let Some(found) = found {
        return started_from(found);
    }
    // What was resolved once holds, even while the map cannot be found, for as long as the same is asked for.
    let asked = facts.deployment.spec.eplb.expert_map_ref.as_ref();
    facts.previous.start_map.clone().filter(|start| Some(&start.reference) == asked)
}
