//! What a pod object says about the rank or coordinator in it. Reads one pod; decides nothing.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kube::ResourceExt as _;

use crate::names::{self, Role};
use crate::words::shorten;

/// A pod of a deployment.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "Kubernetes tells each by itself")]
pub struct Member {
    /// Its name.
    pub name: String,
    /// Its identity: a pod of the same name that is made later has another.
    pub uid: String,
    /// Replica it belongs to.
    pub group: usize,
    /// What it is.
    pub role: Role,
    /// What it was made from; empty if unknown.
    pub revision: String,
    /// Image of its first container.
    pub image: Option<String>,
    /// Node it is on.
    pub node: Option<String>,
    /// Address it has.
    pub address: Option<String>,
    /// Whether its startup probes have succeeded since its containers started last.
    pub started: bool,
    /// Whether its readiness probes succeed.
    pub ready: bool,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// Whether its containers have ended for good.
    pub ended: bool,
    /// When it was created.
    pub created: Option<Timestamp>,
    /// Why its containers do not stay up, in the words of the last one that ended.
    pub failing: Option<String>,
    /// Why it has no node.
    pub unschedulable: Option<String>,
}

impl Member {
    /// Reads a pod; `None` if its labels are not those of a member.
    #[must_use]
    pub fn read(pod: &Pod) -> Option<Self> {
        let labels = pod.labels();
        let group = labels.get(names::GROUP)?.parse().ok()?;
        let role = labels.get(names::ROLE)?.parse().ok()?;
        let spec = pod.spec.as_ref();
        let status = pod.status.as_ref();
        let conditions = || status.and_then(|status| status.conditions.as_deref()).unwrap_or_default();
        let containers = status.and_then(|status| status.container_statuses.as_deref()).unwrap_or_default();
        let phase = status.and_then(|status| status.phase.as_deref()).unwrap_or_default();
        Some(Self {
            name: pod.name_any(),
            uid: pod.uid().unwrap_or_default(),
            group,
            role,
            revision: pod.annotations().get(names::REVISION).cloned().unwrap_or_default(),
            image: spec.and_then(|spec| spec.containers.first()).and_then(|container| container.image.clone()),
            node: spec.and_then(|spec| spec.node_name.clone()),
            address: status.and_then(|status| status.pod_ip.clone()),
            started: !containers.is_empty() && containers.iter().all(|container| container.started == Some(true)),
            ready: conditions().iter().any(|condition| condition.type_ == "Ready" && condition.status == "True"),
            deleting: pod.metadata.deletion_timestamp.is_some(),
            ended: matches!(phase, "Failed" | "Succeeded"),
            created: pod.metadata.creation_timestamp.as_ref().map(|time| time.0),
            failing: status.filter(|_| pod.metadata.deletion_timestamp.is_none()).and_then(|status| {
                containers.iter().find_map(last_words).or_else(|| evicted(phase, status.message.as_deref()))
            }),
            unschedulable: conditions()
                .iter()
                .find(|condition| {
                    condition.type_ == "PodScheduled" && condition.reason.as_deref() == Some("Unschedulable")
                })
                .and_then(|condition| condition.message.as_deref().map(shorten)),
        })
    }
}

fn evicted(phase: &str, message: Option<&str>) -> Option<String> {
    (phase == "Failed").then(|| message.map(shorten)).flatten()
}

/// Why a container does not work: for one that has failed, what it wrote last, until it works again. So the reason stays
/// the same while the container is started over and over.
fn last_words(status: &ContainerStatus) -> Option<String> {
    let state = status.state.as_ref()?;
    let failed = state.terminated.as_ref().or(status.last_state.as_ref().and_then(|last| last.terminated.as_ref()));
    let said = failed.filter(|failed| failed.exit_code != 0).map(|failed| {
        let said = failed.message.as_deref().map(error_of).filter(|text| !text.is_empty());
        said.unwrap_or_else(|| format!("exit code {}", failed.exit_code))
    });
    let Some(waiting) = &state.waiting else { return said.filter(|_| !status.ready) };
    let reason = waiting.reason.as_deref()?;
    match reason {
        "ContainerCreating" | "PodInitializing" => None,
        "CrashLoopBackOff" => Some(said.unwrap_or_else(|| reason.to_owned())),
        _ => Some(match waiting.message.as_deref() {
            Some(message) => format!("{reason}: {}", shorten(message)),
            None => reason.to_owned(),
        }),
    }
}

/// The error at the end of a log, without the time and the place before it and without the lines before that: times would
/// make each message new.
fn error_of(log: &str) -> String {
    let logged = || log.lines().rev().find_map(|line| Some(line.split_once(" ERROR ")?.1.split_once(": ")?.1));
    let printed = || log.rfind("Error: ").map(|at| &log[at..]);
    let last = || log.lines().rfind(|line| !line.trim().is_empty());
    let text = logged().or_else(printed).or_else(last).unwrap_or_default();
    shorten(text)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn crashed(log: &str) -> Option<String> {
        let waiting = json!({"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 40s restarting"}});
        container(false, &waiting, &json!({"terminated": {"exitCode": 1, "message": log}}))
    }

    fn container(ready: bool, state: &Value, last: &Value) -> Option<String> {
        last_words(
            &serde_json::from_value(json!({
                "name": "coordinator", "image": "i", "imageID": "i", "ready": ready, "restartCount": 3,
                "state": state, "lastState": last,
            }))
            .unwrap(),
        )
    }

    #[test]
    fn the_error_that_ended_a_container_is_told_without_the_log_before_it() {
        let log = "2026-01-01T00:00:00Z INFO starting\nError: open /model\n\nCaused by:\n    rope_scaling \"yarn\" is not supported\n";
        assert_eq!(crashed(log).unwrap(), "Error: open /model Caused by: rope_scaling \"yarn\" is not supported");
    }

    #[test]
    fn an_error_is_the_same_at_each_start_of_a_container() {
        let log = |time| {
            format!("{time}  INFO runtime: starting\n{time} ERROR swiftbalancer_runtime: /model: no such file\n")
        };
        assert_eq!(crashed(&log("2026-01-01T00:00:00Z")).unwrap(), "/model: no such file");
        assert_eq!(crashed(&log("2026-01-01T00:00:00Z")), crashed(&log("2026-01-01T00:00:10Z")));
    }

    #[test]
    fn a_container_that_ended_in_silence_is_told_by_its_exit_code() {
        assert_eq!(crashed("").unwrap(), "exit code 1");
    }

    #[test]
    fn the_reason_stays_while_a_container_is_started_over_and_over_and_goes_when_it_works() {
        let failed = json!({"terminated": {"exitCode": 1, "message": "Error: no"}});
        let running = json!({"running": {}});
        let reasons = [
            container(false, &failed, &json!({})),
            crashed("Error: no"),
            container(false, &running, &failed),
            container(false, &failed, &failed),
        ];
        assert_eq!(reasons.map(Option::unwrap), ["Error: no"; 4]);
        assert_eq!(container(true, &running, &failed), None);
    }

    #[test]
    fn a_container_that_ended_as_it_was_told_to_has_not_failed() {
        let ended = json!({"terminated": {"exitCode": 0}});
        assert_eq!(container(false, &ended, &json!({})), None);
        assert_eq!(container(false, &json!({"running": {}}), &ended), None);
    }
}
