//! One deployment, with what its coordinators say of its replicas. Pure but for the reading.

use kube::ResourceExt as _;
use operator::api::MoEDeployment;
use operator::api::status::{GroupStatus, MoEDeploymentStatus};
use plan::wire::State;
use serde::Serialize;

use crate::PluginError;
use crate::cluster::{Answer, Cluster, resource_name};
use crate::output::Output;
use crate::table::columns;
use crate::words::{bytes, counted};

pub(super) async fn read(cluster: &Cluster, name: &str, output: Output) -> Result<String, PluginError> {
    let deployment = cluster.deployment(name).await?;
    let answers = cluster.answers(&deployment).await;
    Ok(render(&deployment, &answers, output))
}

/// What programs get.
#[derive(Serialize)]
struct Document<'a> {
    name: String,
    namespace: Option<String>,
    status: Option<&'a MoEDeploymentStatus>,
    /// What the coordinator of each replica says.
    coordinators: Vec<Coordinator<'a>>,
}

#[derive(Serialize)]
struct Coordinator<'a> {
    replica: usize,
    state: Option<&'a State>,
    /// Why it says nothing.
    error: Option<&'a str>,
}

impl<'a> Coordinator<'a> {
    fn of(replica: usize, answer: &'a Answer) -> Self {
        Self { replica, state: answer.as_ref().ok(), error: answer.as_ref().err().map(String::as_str) }
    }
}

fn render(deployment: &MoEDeployment, answers: &[Answer], output: Output) -> String {
    let document = Document {
        name: deployment.name_any(),
        namespace: deployment.namespace(),
        status: deployment.status.as_ref(),
        coordinators: answers.iter().enumerate().map(|(replica, answer)| Coordinator::of(replica, answer)).collect(),
    };
    output.print(&document, |_| text(deployment, answers, output.is_wide()), |document| resource_name(&document.name))
}

fn text(deployment: &MoEDeployment, answers: &[Answer], is_wide: bool) -> String {
    let told = deployment.status.clone().unwrap_or_default();
    let conditions: Vec<_> = told
        .conditions
        .iter()
        .map(|condition| {
            vec![condition.type_.clone(), condition.status.clone(), condition.reason.clone(), condition.message.clone()]
        })
        .collect();
    let replicas: Vec<_> = told
        .groups
        .iter()
        .map(|group| {
            let answer = usize::try_from(group.index).ok().and_then(|index| answers.get(index));
            replica(group, answer.and_then(|answer| answer.as_ref().ok()), is_wide)
        })
        .collect();
    let mut header = vec![
        "REPLICA",
        "READY",
        "RANK PODS",
        "EPOCH",
        "PHASE",
        "RATIO",
        "REBALANCES",
        "EXPERTS MOVED",
        "BYTES MOVED",
        "PENDING",
    ];
    if is_wide {
        header.extend(["GENERATION", "STEPS", "MAP"]);
    }
    let mut parts = vec![
        title(deployment, &told),
        columns(&["CONDITION", "STATUS", "REASON", "MESSAGE"], conditions),
        columns(&header, replicas),
    ];
    parts.extend(told.start_map.map(|start| format!("Started from ConfigMap {}\n", start.config_map)));
    parts.extend(told.expert_map.map(|map| {
        let (name, time) = (map.config_map, map.recorded_at.0);
        format!("Recorded in ConfigMap {name} at {time}: ratio {}, epoch {}\n", map.ratio, map.epoch)
    }));
    parts.push(silence(answers));
    parts.retain(|part| !part.is_empty());
    parts.join("\n")
}

/// Which coordinators say nothing, and why: each reason once.
fn silence(answers: &[Answer]) -> String {
    let mut reasons: Vec<&str> =
        answers.iter().filter_map(|answer| answer.as_ref().err()).map(String::as_str).collect();
    reasons.dedup();
    let lines: Vec<String> = reasons.iter().map(|reason| format!("From the status alone: {reason}\n")).collect();
    lines.concat()
}

fn title(deployment: &MoEDeployment, told: &MoEDeploymentStatus) -> String {
    let name = deployment.name_any();
    let size = |number: Option<i32>| usize::try_from(number?).ok();
    match (size(told.expert_parallel_size), size(told.slots_per_rank)) {
        (Some(ranks), Some(slots)) => {
            let experts = counted(usize::try_from(deployment.spec.model.experts).unwrap_or(0), "expert");
            let (ranks, slots) = (counted(ranks, "rank"), counted(slots, "slot"));
            format!("MoEDeployment {name}: {experts} over {ranks} with {slots} per layer\n")
        }
        _ => format!("MoEDeployment {name}\n"),
    }
}

fn replica(group: &GroupStatus, state: Option<&State>, is_wide: bool) -> Vec<String> {
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let of_state = |read: fn(&State) -> String| or_dash(state.map(read));
    let mut cells = vec![
        group.index.to_string(),
        group.ready.to_string(),
        format!("{}/{}", group.ready_rank_pods, group.rank_pods),
        or_dash(state.map(|state| state.epoch.to_string()).or_else(|| group.epoch.map(|epoch| epoch.to_string()))),
        of_state(|state| state.phase.to_string()),
        or_dash(
            state
                .and_then(|state| state.last_window.as_ref())
                .map(|window| format!("{:.3}", window.ratio))
                .or_else(|| group.ratio.clone()),
        ),
        of_state(|state| state.moves.rebalances.to_string()),
        of_state(|state| state.moves.experts_moved.to_string()),
        of_state(|state| bytes(state.moves.bytes_moved as f64)),
        of_state(|state| state.pending_transactions.to_string()),
    ];
    if is_wide {
        cells.extend([
            of_state(|state| state.generation.to_string()),
            of_state(|state| state.steps.to_string()),
            of_state(|state| state.map_hash.chars().take(10).collect()),
        ]);
    }
    cells
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deployment() -> MoEDeployment {
        let mut deployment: MoEDeployment =
            serde_saphyr::from_str(include_str!("../../../examples/tiny-moe.yaml")).unwrap();
        deployment.status = serde_json::from_value(serde_json::json!({
            "expertParallelSize": 4,
            "slotsPerRank": 9,
            "conditions": [{
                "type": "Ready", "status": "True", "reason": "AllReplicasReady", "message": "1 of 1 replicas serve",
                "lastTransitionTime": "2026-01-01T00:00:00Z",
            }],
            "groups": [{
                "index": 0, "ready": true, "readyRankPods": 4, "rankPods": 4, "updated": true, "ratio": "0.95", "epoch": 3,
            }],
            "expertMap": {
                "configMap": "tiny-moe-map-0123456789", "hash": "0123456789", "ratio": "0.98", "epoch": 2,
                "recordedAt": "2026-01-01T00:00:00Z",
            },
        }))
        .unwrap();
        deployment
    }

    #[test]
    fn a_replica_that_does_not_answer_is_shown_from_the_status() {
        insta::assert_snapshot!(render(&deployment(), &[Err("it is gone".to_owned())], Output::Table));
    }

    #[test]
    fn programs_get_the_status_and_every_answer_and_scripts_the_name() {
        let json = render(&deployment(), &[Err("it is gone".to_owned())], Output::Json);
        let document: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!((&document["name"], &document["status"]["slotsPerRank"]), (&"tiny-moe".into(), &9.into()), "{json}");
        let coordinators = serde_json::json!([{"replica": 0, "state": null, "error": "it is gone"}]);
        assert_eq!(document["coordinators"], coordinators);
        assert_eq!(render(&deployment(), &[], Output::Name), "moedeployment.swiftbalancer.io/tiny-moe\n");
    }

    #[test]
    fn a_deployment_without_a_status_is_shown_without_empty_tables() {
        let fresh = MoEDeployment { status: None, ..deployment() };
        assert_eq!(render(&fresh, &[], Output::Wide), "MoEDeployment tiny-moe\n");
    }
}
