//! Why the containers of a pod do not work, in words that stay the same while they are started over and over.

use k8s_openapi::api::core::v1::{Container, ContainerStateTerminated, ContainerStatus, PodStatus};
use plan::wire::process::{LastWord, exit};

use super::own_status;
use crate::names::Role;
use crate::words::shorten;

/// Why a pod does not work: the runtime's own container first, then those that others have put into it, by name.
pub(super) fn failing(status: &PodStatus, role: Role, own: Option<&Container>) -> Option<String> {
    let own_status = own_status(status, role);
    if let Some(why) = own_status.and_then(|status| last_words(status, role, own)) {
        return Some(why);
    }
    let inits = status.init_container_statuses.iter().flatten().map(|status| ("init container", status));
    let others = status
        .container_statuses
        .iter()
        .flatten()
        .filter(|status| own_status.is_none_or(|own| own.name != status.name));
    let foreign = inits.chain(others.map(|status| ("container", status)));
    foreign
        .into_iter()
        .find_map(|(what, status)| {
            Some(format!("{what} {}: {}", shorten(&status.name), last_words(status, role, None)?))
        })
        .or_else(|| evicted(status))
}

fn evicted(status: &PodStatus) -> Option<String> {
    if status.phase.as_deref() != Some("Failed") {
        return None;
    }
    let told = [status.reason.as_deref(), status.message.as_deref()].into_iter().flatten().map(shorten);
    Some(told.collect::<Vec<_>>().join(": ")).filter(|told| !told.is_empty())
}

/// Why a container does not work: for one that has failed, its last word, until it works again. So the reason stays the same
/// while the container is started over and over.
fn last_words(status: &ContainerStatus, role: Role, own: Option<&Container>) -> Option<String> {
    let state = status.state.as_ref()?;
    let failed = state.terminated.as_ref().or(status.last_state.as_ref().and_then(|last| last.terminated.as_ref()));
    let said = failed.filter(|failed| failed.exit_code != 0).map(|failed| why(failed, role, own));
    let Some(waiting) = &state.waiting else { return said.filter(|_| !status.ready) };
    let reason = waiting.reason.as_deref()?;
    let message = waiting.message.as_deref().unwrap_or_default();
    match reason {
        "ContainerCreating" | "PodInitializing" => None,
        "CrashLoopBackOff" => Some(said.unwrap_or_else(|| reason.to_owned())),
        // A kubelet turns between the two, and says why each time in other words.
        "ErrImagePull" | "ImagePullBackOff" => Some(unpulled(&status.image, message)),
        _ if message.is_empty() => Some(reason.to_owned()),
        _ => Some(format!("{reason}: {}", shorten(message))),
    }
}

/// That an image cannot be pulled, in words that are the same whichever of its two reasons a kubelet gives: the kind of trouble,
/// where its words name one that is known, is in both.
fn unpulled(image: &str, message: &str) -> String {
    let said = message.to_lowercase();
    let has = |words: &[&str]| words.iter().any(|word| said.contains(word));
    let kind = if has(&["x509", "certificate"]) {
        ": the registry's certificate is not trusted"
    } else if has(&["unauthorized", "denied", "authentication required", "authorization failed", "forbidden"]) {
        ": the registry does not allow it, or has no such repository"
    } else if has(&["not found", "manifest unknown", "name unknown"]) {
        ": the registry does not have it"
    } else if has(&["toomanyrequests", "too many requests", "rate limit"]) {
        ": the registry limits how often it is asked"
    } else if has(&["no such host", "dial tcp", "i/o timeout", "connection refused", "deadline exceeded"]) {
        ": the registry cannot be reached"
    } else {
        ""
    };
    format!("its image {} cannot be pulled{kind}", shorten(image))
}

/// Why a container has failed: what its process said last; without that, what its kubelet says of it. The end of a log, which
/// a kubelet gives where there is no last word, is other text each time and for persons.
fn why(failed: &ContainerStateTerminated, role: Role, own: Option<&Container>) -> String {
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
        Some("OOMKilled") => out_of_memory(role, own),
        None | Some("Error") => {
            format!("it ended with exit code {code} and without a last word: see the log of its previous run")
        }
        Some(reason) => format!("{} (exit code {code})", shorten(reason)),
    }
}

/// What to do about a container that took more memory than it may; of one that is not the runtime's, that it did.
fn out_of_memory(role: Role, own: Option<&Container>) -> String {
    let Some(own) = own else { return "OOMKilled: it took more memory than it may".to_owned() };
    let part = match role {
        Role::Coordinator => "coordinator",
        Role::Rank => "ranks",
    };
    let limits = own.resources.as_ref().and_then(|resources| resources.limits.as_ref());
    match limits.and_then(|limits| limits.get("memory")) {
        Some(limit) => {
            let limit = shorten(&limit.0);
            format!("OOMKilled: it took more memory than its limit of {limit}: raise {part}.resources.limits.memory")
        }
        None => format!("OOMKilled: its node ran out of memory: set {part}.resources.requests.memory to what it needs"),
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
            Role::Coordinator,
            Some(&Container::default()),
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
        let killed = json!({"exitCode": 137, "reason": "DeadlineExceeded", "message": "INFO 12:00:00 loading"});
        assert_eq!(crashed(&killed), "DeadlineExceeded (exit code 137)");
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

    #[test]
    fn an_image_that_cannot_be_pulled_is_told_in_the_same_words_whichever_reason_the_kubelet_turns_to() {
        let unpulled =
            "failed to pull and unpack image \"docker.io/typo/runtime:1\": failed to resolve reference: not found";
        let told = |reason: &str, message: &str| {
            container(false, &json!({"waiting": {"reason": reason, "message": message}}), &json!({})).unwrap()
        };
        let first = told("ErrImagePull", unpulled);
        assert_eq!(first, "its image i cannot be pulled: the registry does not have it");
        let back_off = format!("Back-off pulling image \"docker.io/typo/runtime:1\": ErrImagePull: {unpulled}");
        assert_eq!(told("ImagePullBackOff", &back_off), first);
        for (message, kind) in [
            ("pull access denied, repository does not exist or may require authorization", "does not allow it"),
            ("tls: failed to verify certificate: x509: certificate signed by unknown authority", "certificate"),
            ("dial tcp 10.0.0.1:443: i/o timeout", "cannot be reached"),
            ("429 Too Many Requests", "limits how often"),
            ("something new", "cannot be pulled"),
        ] {
            assert!(told("ErrImagePull", message).contains(kind), "{message}");
        }
    }
}
