//! What a pod object says about the rank or coordinator in it. Reads one pod; decides nothing.

mod failing;

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerState, ContainerStatus, Pod, PodCondition, PodStatus};
use kube::ResourceExt as _;
use plan::wire::DownloadDocument;

use self::failing::failing;
use crate::build::mounts::DOWNLOAD;
use crate::names::{self, Role};
use crate::words::shorten;

/// How long after its grace a pod that is to go may still be there: longer than a kubelet takes to unmount what it had.
const ENDING: Duration = Duration::from_mins(1);

/// A pod of a deployment.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "Kubernetes tells each by itself")]
pub struct Member {
    /// Its name.
    pub name: String,
    /// Its identity: a pod of the same name that is made later has another.
    pub uid: String,
    /// Deployment whose name it has.
    pub deployment: String,
    /// Replica it belongs to.
    pub group: usize,
    /// What it is.
    pub role: Role,
    /// Whether it has the labels by which it is selected.
    pub labelled: bool,
    /// What it was made from; empty if unknown.
    pub revision: String,
    /// Image that the operator gave its runtime.
    pub image: Option<String>,
    /// Node it is on.
    pub node: Option<String>,
    /// Address it has.
    pub address: Option<String>,
    /// Whether the startup probe of its runtime has succeeded since that was started last.
    pub started: bool,
    /// Whether its readiness probes succeed.
    pub ready: bool,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// When it should be gone, if it is being deleted.
    pub gone_by: Option<Timestamp>,
    /// Whether its containers have ended for good.
    pub ended: bool,
    /// When it was created.
    pub created: Option<Timestamp>,
    /// When it last came further: it was created, got a node, was set up, or became ready.
    pub progressed: Option<Timestamp>,
    /// Why its containers do not stay up, or are not started.
    pub failing: Option<String>,
    /// Why it has no node.
    pub unplaced: Option<Unplaced>,
    /// Since when it has a node, and no container of it is created.
    pub uncreated: Option<Timestamp>,
    /// Whether the checkpoint is being downloaded in it.
    pub downloads: bool,
    /// The commit that was downloaded, of a source that has such.
    pub commit: Option<String>,
}

/// Why a pod has no node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unplaced {
    /// Gates that somebody has set, for which the scheduler does not look at it; none if the scheduler found no node.
    pub gates: Vec<String>,
    /// The words of the scheduler.
    pub why: String,
    /// Since when.
    pub since: Option<Timestamp>,
}

impl Member {
    /// Reads a pod; `None` if its name is not that of a member.
    #[must_use]
    pub fn read(pod: &Pod) -> Option<Self> {
        let name = pod.name_any();
        let (deployment, group, role) = names::parse_pod(&name)?;
        let spec = pod.spec.as_ref();
        let status = pod.status.as_ref();
        let own = spec
            .and_then(|spec| spec.containers.iter().find(|container| names::is_own_container(role, &container.name)));
        let own_status = status.and_then(|status| own_status(status, role));
        let download = status.and_then(download_state);
        let phase = status.and_then(|status| status.phase.as_deref()).unwrap_or_default();
        let labels = names::pod_labels(deployment, group, role);
        let deleted = pod.metadata.deletion_timestamp.as_ref().map(|time| time.0);
        let created = pod.metadata.creation_timestamp.as_ref().map(|time| time.0);
        let reached = |condition: &&PodCondition| condition.status == "True";
        let times = conditions(status)
            .iter()
            .filter(reached)
            .filter_map(|condition| Some(condition.last_transition_time.as_ref()?.0));
        Some(Self {
            uid: pod.uid().unwrap_or_default(),
            deployment: deployment.to_owned(),
            group,
            role,
            labelled: labels.iter().all(|(key, value)| pod.labels().get(key) == Some(value)),
            revision: pod.annotations().get(names::REVISION).cloned().unwrap_or_default(),
            // A release that wrote no image into an annotation is known by what its container has.
            image: pod.annotations().get(names::IMAGE).cloned().or_else(|| own?.image.clone()),
            node: spec.and_then(|spec| spec.node_name.clone()),
            address: status.and_then(|status| status.pod_ip.clone()),
            started: own_status.is_some_and(|status| status.started == Some(true)),
            ready: condition(status, "Ready").is_some_and(|ready| ready.status == "True"),
            deleting: deleted.is_some(),
            gone_by: deleted.map(|by| by + ENDING),
            ended: matches!(phase, "Failed" | "Succeeded"),
            created,
            progressed: created.into_iter().chain(times).max(),
            downloads: deleted.is_none() && download.is_some_and(|state| state.running.is_some()),
            commit: download.and_then(downloaded),
            failing: status.filter(|_| deleted.is_none()).and_then(|status| failing(status, role, own)),
            unplaced: unplaced(pod),
            uncreated: status.filter(|_| deleted.is_none() && phase == "Pending").and_then(|status| {
                let placed = condition(Some(status), "PodScheduled").filter(|placed| placed.status == "True");
                let since = placed?.last_transition_time.as_ref().map(|time| time.0).or(created)?;
                (is_uncreated(own_status) && download.is_none_or(|state| state.running.is_none())).then_some(since)
            }),
            name,
        })
    }

    /// Whether it is being deleted and should be gone by now.
    #[must_use]
    pub fn is_overdue(&self, now: Timestamp) -> bool {
        self.gone_by.is_some_and(|by| by <= now)
    }
}

fn conditions(status: Option<&PodStatus>) -> &[PodCondition] {
    status.and_then(|status| status.conditions.as_deref()).unwrap_or_default()
}

fn condition<'a>(status: Option<&'a PodStatus>, kind: &str) -> Option<&'a PodCondition> {
    conditions(status).iter().find(|condition| condition.type_ == kind)
}

/// The status of the container that runs the runtime: that of its name, or the only one.
fn own_status(status: &PodStatus, role: Role) -> Option<&ContainerStatus> {
    let statuses = status.container_statuses.as_deref().unwrap_or_default();
    let named = statuses.iter().find(|status| names::is_own_container(role, &status.name));
    named.or_else(|| statuses.first().filter(|_| statuses.len() == 1))
}

/// How the container is that downloads the checkpoint, if there is one.
fn download_state(status: &PodStatus) -> Option<&ContainerState> {
    let mut inits = status.init_container_statuses.iter().flatten();
    inits.find(|init| init.name == DOWNLOAD)?.state.as_ref()
}

/// The commit that a download that has ended well tells.
fn downloaded(state: &ContainerState) -> Option<String> {
    let ended = state.terminated.as_ref().filter(|ended| ended.exit_code == 0)?;
    let document = DownloadDocument::from_json(ended.message.as_deref()?.as_bytes()).ok()?;
    // What a pod says is believed as far as it has the form of a commit.
    document.commit.filter(|commit| commit.len() == 40 && commit.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// Whether a container waits for what comes before it: an image, volumes, or what runs first in its pod.
fn is_uncreated(own: Option<&ContainerStatus>) -> bool {
    let waiting = own.and_then(|own| own.state.as_ref()).map(|state| state.waiting.as_ref());
    match waiting {
        None => true,
        Some(None) => false,
        Some(Some(waiting)) => {
            matches!(waiting.reason.as_deref(), None | Some("ContainerCreating" | "PodInitializing"))
        }
    }
}

fn unplaced(pod: &Pod) -> Option<Unplaced> {
    let found = condition(pod.status.as_ref(), "PodScheduled")?;
    let reason = found.reason.as_deref()?;
    let is_gated = reason == "SchedulingGated";
    if found.status == "True" || !(is_gated || reason == "Unschedulable") {
        return None;
    }
    let gates = pod.spec.as_ref().and_then(|spec| spec.scheduling_gates.as_deref()).unwrap_or_default();
    Some(Unplaced {
        gates: gates.iter().filter(|_| is_gated).take(3).map(|gate| shorten(&gate.name)).collect(),
        why: found.message.as_deref().map(shorten).unwrap_or_default(),
        since: found.last_transition_time.as_ref().map(|time| time.0),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn member(name: &str, spec: &Value, status: &Value) -> Member {
        let pod = json!({"metadata": {"name": name}, "spec": spec, "status": status});
        Member::read(&serde_json::from_value(pod).unwrap()).unwrap()
    }

    fn status(name: &str, state: &Value) -> Value {
        json!({
            "name": name, "image": format!("{name}:1"), "imageID": "", "ready": false, "restartCount": 0, "started": false,
            "state": state,
        })
    }

    #[test]
    fn a_container_that_took_too_much_memory_is_told_with_its_limit_and_the_field_to_raise() {
        let killed = json!({"terminated": {"exitCode": 137, "reason": "OOMKilled", "message": "2026-01-01T00:00:00Z INFO reading"}});
        for (name, own, limits, words) in [
            ("a-0-rank-2", "rank-2", json!({"memory": "8Mi"}), "its limit of 8Mi: raise ranks.resources.limits.memory"),
            (
                "a-0-coordinator",
                "coordinator",
                json!({"memory": "1Gi"}),
                "its limit of 1Gi: raise coordinator.resources.limits.memory",
            ),
            ("a-0-rank-2", "rank-2", json!({}), "its node ran out of memory: set ranks.resources.requests.memory"),
        ] {
            let spec = json!({"containers": [{"name": "proxy"}, {"name": own, "resources": {"limits": limits}}]});
            let found = member(name, &spec, &json!({"phase": "Running", "containerStatuses": [status(own, &killed)]}));
            let failing = found.failing.unwrap();
            assert!(failing.starts_with("OOMKilled: ") && failing.contains(words), "{failing}");
        }
    }

    #[test]
    fn the_runtime_is_found_by_name_and_others_in_its_pod_are_told_by_theirs() {
        let spec = json!({"containers": [{"name": "istio-proxy", "image": "proxy:1"}, {"name": "rank-1", "image": "runtime:1"}]});
        let mut own = status("rank-1", &json!({"running": {}}));
        (own["started"], own["ready"]) = (json!(true), json!(true));
        let proxy = status("istio-proxy", &json!({"waiting": {"reason": "CrashLoopBackOff"}}));
        let found = member("a-0-rank-1", &spec, &json!({"phase": "Running", "containerStatuses": [proxy, own]}));
        assert_eq!((found.image.as_deref(), found.started), (Some("runtime:1"), true));
        assert_eq!(found.failing.as_deref(), Some("container istio-proxy: CrashLoopBackOff"));
        let init = status(
            "istio-init",
            &json!({"waiting": {"reason": "CreateContainerConfigError", "message": "no such secret"}}),
        );
        let waits = status("rank-1", &json!({"waiting": {"reason": "PodInitializing"}}));
        let found = member(
            "a-0-rank-1",
            &spec,
            &json!({"phase": "Pending", "initContainerStatuses": [init], "containerStatuses": [waits]}),
        );
        assert_eq!(
            found.failing.as_deref(),
            Some("init container istio-init: CreateContainerConfigError: no such secret")
        );
    }

    #[test]
    fn the_image_is_the_one_that_the_operator_gave_whatever_a_policy_made_of_it() {
        let pod = json!({
            "metadata": {"name": "a-0-coordinator", "annotations": {(names::IMAGE): "docker.io/runtime:1"}},
            "spec": {"containers": [{"name": "coordinator", "image": "mirror.example.com/runtime:1"}]},
        });
        let found = Member::read(&serde_json::from_value(pod).unwrap()).unwrap();
        assert_eq!(found.image.as_deref(), Some("docker.io/runtime:1"));
    }

    #[test]
    fn a_pod_whose_containers_are_not_created_or_that_nobody_schedules_says_since_when() {
        let spec = json!({"containers": [{"name": "coordinator"}]});
        let time = "2026-01-01T00:00:00Z";
        let placed = json!({"type": "PodScheduled", "status": "True", "lastTransitionTime": time});
        let creating = status("coordinator", &json!({"waiting": {"reason": "ContainerCreating"}}));
        for statuses in [json!([creating]), json!([])] {
            let seen = json!({"phase": "Pending", "conditions": [placed], "containerStatuses": statuses});
            assert_eq!(member("a-0-coordinator", &spec, &seen).uncreated, Some(time.parse().unwrap()));
        }
        let pulling = status("coordinator", &json!({"waiting": {"reason": "ErrImagePull"}}));
        let seen = json!({"phase": "Pending", "conditions": [placed], "containerStatuses": [pulling]});
        assert_eq!(member("a-0-coordinator", &spec, &seen).uncreated, None);
        let gated = json!({
            "type": "PodScheduled", "status": "False", "reason": "SchedulingGated", "message": "gated", "lastTransitionTime": time,
        });
        let spec =
            json!({"containers": [{"name": "coordinator"}], "schedulingGates": [{"name": "kueue.x-k8s.io/admission"}]});
        let unplaced =
            member("a-0-coordinator", &spec, &json!({"phase": "Pending", "conditions": [gated]})).unplaced.unwrap();
        assert_eq!(
            (unplaced.gates, unplaced.since),
            (vec!["kueue.x-k8s.io/admission".to_owned()], Some(time.parse().unwrap()))
        );
    }
}
