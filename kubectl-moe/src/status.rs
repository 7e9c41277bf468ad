//! `kubectl moe status`, as text. Pure.

use kube::ResourceExt as _;
use plan::wire::State;

use super::table::columns;
use operator::api::MoEDeployment;
use operator::api::status::{GroupStatus, MoEDeploymentStatus};

/// A deployment and what its coordinators say, `None` for one that does not answer.
pub(super) fn render(deployment: &MoEDeployment, states: &[Option<State>]) -> String {
    let told = deployment.status.clone().unwrap_or_default();
    let conditions: Vec<_> = told
        .conditions
        .iter()
        .map(|condition| {
            [condition.type_.clone(), condition.status.clone(), condition.reason.clone(), condition.message.clone()]
        })
        .collect();
    let replicas: Vec<_> = told
        .groups
        .iter()
        .map(|group| replica(group, usize::try_from(group.index).ok().and_then(|index| states.get(index)?.as_ref())))
        .collect();
    let header = [
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
    let mut parts = vec![
        title(deployment, &told),
        columns(["CONDITION", "STATUS", "REASON", "MESSAGE"], &conditions),
        columns(header, &replicas),
    ];
    parts.extend(told.start_map.map(|start| format!("Started from ConfigMap {}\n", start.config_map)));
    parts.extend(told.expert_map.map(|map| {
        let (name, time) = (map.config_map, map.recorded_at.0);
        format!("Recorded in ConfigMap {name} at {time}: ratio {}, epoch {}\n", map.ratio, map.epoch)
    }));
    parts.join("\n")
}

fn title(deployment: &MoEDeployment, told: &MoEDeploymentStatus) -> String {
    let name = deployment.name_any();
    match (told.expert_parallel_size, told.slots_per_rank) {
        (Some(ranks), Some(slots)) => {
            let experts = deployment.spec.model.experts;
            format!("MoEDeployment {name}: {experts} experts over {ranks} ranks with {slots} slots per layer\n")
        }
        _ => format!("MoEDeployment {name}\n"),
    }
}

fn replica(group: &GroupStatus, state: Option<&State>) -> [String; 10] {
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let of_state = |read: fn(&State) -> String| or_dash(state.map(read));
    [
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
        of_state(|state| state.moves.bytes_moved.to_string()),
        of_state(|state| state.pending_transactions.to_string()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replica_that_does_not_answer_is_shown_from_the_status() {
        let mut deployment: MoEDeployment =
            serde_saphyr::from_str(include_str!("../../examples/tiny-moe.yaml")).unwrap();
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
        insta::assert_snapshot!(render(&deployment, &[None]));
    }
}
