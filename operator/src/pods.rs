//! What a pod object says about the rank or coordinator in it. Reads one pod; decides nothing.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStateTerminated, ContainerStatus, Pod};
use kube::ResourceExt as _;
use plan::wire::process::{LastWord, exit};

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

/// Why a container does not work: for one that has failed, its last word, until it works again. So the reason stays the same
/// while the container is started over and over.
fn last_words(status: &ContainerStatus) -> Option<String> {
    let state = status.state.as_ref()?;
    let failed = state.terminated.as_ref().or(status.last_state.as_ref().and_then(|last| last.terminated.as_ref()));
    let said = failed.filter(|failed| failed.exit_code != 0).map(why);
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

/// Why a container has failed: what its process said last; without that, what its kubelet says of it. The end of a log, which
/// a kubelet gives where there is no last word, is other text each time and for persons.
fn why(failed: &ContainerStateTerminated) -> String {
    let code = failed.exit_code;
    let message = failed.message.as_deref().unwrap_or_default();
    if let Ok(word) = LastWord::from_json(message.as_bytes()) {
        let words = shorten(&word.words);
        return if code == i32::from(exit::USAGE) {
            format!("the image is of a release that does not take what this operator starts it with: {words}")
        } else {
            words
        };
    }
    match failed.reason.as_deref() {
        // The process never ran.
        Some(reason @ ("ContainerCannotRun" | "StartError")) => format!("{reason}: {}", shorten(message)),
        None | Some("Error") => {
            format!("it ended with exit code {code} and without a last word: see the log of its previous run")
        }
        Some(reason) => format!("{} (exit code {code})", shorten(reason)),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn crashed(ended: &Value) -> String {
        let waiting = json!({"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 40s restarting"}});
        container(false, &waiting, &json!({"terminated": ended})).unwrap()
    }

    fn said(words: &str) -> Value {
        json!({"exitCode": 1, "reason": "Error", "message": LastWord::new(words).to_json()})
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
    fn a_container_that_failed_is_told_by_its_last_word_on_one_line() {
        assert_eq!(
            crashed(&said("rope_scaling \"yarn\" is not\u{1b}[2J\nsupported")),
            "rope_scaling \"yarn\" is not [2J supported"
        );
        let later = json!({"exitCode": 1, "message": r#"{"version": "swiftbalancer.io/v1", "cause": "x", "words": "no port"}"#});
        assert_eq!(crashed(&later), "no port");
    }

    #[test]
    fn a_log_is_no_last_word_and_changes_no_message() {
        let log = |time: u32| format!("2026-01-01T00:00:{time}Z ERROR runtime: no\nError: {time}\n");
        let silent = "it ended with exit code 101 and without a last word: see the log of its previous run";
        for message in [json!(log(1)), json!(log(2)), json!(r#"{"timestamp": 1}"#), json!(""), json!(null)] {
            assert_eq!(crashed(&json!({"exitCode": 101, "reason": "Error", "message": message})), silent);
        }
    }

    #[test]
    fn a_container_that_was_killed_or_never_ran_is_told_by_its_kubelet() {
        let killed = json!({"exitCode": 137, "reason": "OOMKilled", "message": "INFO 12:00:00 loading"});
        assert_eq!(crashed(&killed), "OOMKilled (exit code 137)");
        let absent = json!({"exitCode": 128, "reason": "StartError", "message": "exec: \"runtime\":\nnot found"});
        assert_eq!(crashed(&absent), "StartError: exec: \"runtime\": not found");
    }

    #[test]
    fn an_image_that_does_not_take_its_command_line_is_told_as_such() {
        let mut ended = said("unexpected argument '--more' found");
        ended["exitCode"] = json!(2);
        let words = "the image is of a release that does not take what this operator starts it with: unexpected argument '--more' found";
        assert_eq!(crashed(&ended), words);
    }

    #[test]
    fn the_reason_stays_while_a_container_is_started_over_and_over_and_goes_when_it_works() {
        let failed = json!({"terminated": said("no")});
        let running = json!({"running": {}});
        let reasons = [
            container(false, &failed, &json!({})).unwrap(),
            crashed(&said("no")),
            container(false, &running, &failed).unwrap(),
            container(false, &failed, &failed).unwrap(),
        ];
        assert_eq!(reasons, ["no"; 4]);
        assert_eq!(container(true, &running, &failed), None);
    }

    #[test]
    fn a_container_that_ended_as_it_was_told_to_has_not_failed() {
        let ended = json!({"terminated": {"exitCode": 0}});
        assert_eq!(container(false, &ended, &json!({})), None);
        assert_eq!(container(false, &json!({"running": {}}), &ended), None);
    }
}
