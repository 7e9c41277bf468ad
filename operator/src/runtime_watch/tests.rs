//! What is kept of what coordinators say.

use plan::map::{ExpertMap, MapShape};
use plan::wire::{MapDocument, ModelIdentity, Provenance, RecordedMap};
use serde_json::json;

use super::views::Key;
use super::*;

fn state(change: impl FnOnce(&mut State)) -> State {
    let json = json!({
        "version": plan::wire::VERSION,
        "model": {"name": "tiny-moe", "digest": "d1", "layers": 2, "experts": 32},
        "ready": true, "generation": 1,
        "ranks": [{"rank": 0, "connected": true, "address": "10.0.0.1:8004", "node": "node-1"}],
        "epoch": 3, "mapHash": "h", "staticMap": false, "steps": 1, "phase": "collecting", "windowSteps": 1,
        "lastWindow": {"number": 1, "steps": 400, "pairs": 1, "ratio": 0.9, "ratioPerLayer": [0.9, 0.9]},
        "firstWindow": null, "pendingTransactions": 0,
        "moves": {"rebalances": 0, "skipped": 0, "committed": 0, "aborted": 0, "expertsMoved": 0, "bytesMoved": 0},
        "recordedMapHash": null, "degraded": null, "failure": null,
    });
    let mut state = State::from_json(json.to_string().as_bytes()).unwrap();
    change(&mut state);
    state
}

fn view(pod: &str, state: State, recorded: Option<RecordedMap>) -> RuntimeView {
    let pod_uid = pod.to_owned();
    let heard = Timestamp::UNIX_EPOCH;
    RuntimeView { pod_uid, heard, state: Arc::new(state), recorded: recorded.map(Arc::new), recorded_too_large: false }
}

fn key(group: usize) -> Key {
    ("default".to_owned(), "tiny-moe".to_owned(), group)
}

#[test]
fn of_a_state_only_what_is_shown_is_kept_and_no_words_are_long() {
    let long = "x\n".repeat(100_000);
    let kept = in_short(state(|state| {
        state.failure = Some(long.clone());
        state.degraded = Some("\u{1b}\n".to_owned());
        state.model.name.clone_from(&long);
        state.map_hash.clone_from(&long);
        state.recorded_map_hash = Some(long);
        state.ranks = vec![state.ranks[0].clone(); 10_000];
        state.last_window.as_mut().unwrap().ratio_per_layer = vec![0.5; 100_000];
        state.first_window.clone_from(&state.last_window);
    }));
    let bytes = serde_json::to_vec(&kept).unwrap().len();
    assert!(bytes < 4000, "{bytes} bytes are kept for a replica");
    assert_eq!((kept.degraded, kept.epoch, kept.last_window.unwrap().ratio), (None, 3, 0.9));
}

#[test]
fn a_later_replica_speaks_only_while_no_earlier_one_serves() {
    let views = RuntimeViews::default();
    assert!(views.may_speak(&key(0)) && views.may_speak(&key(2)));
    views.take(&key(1), view("a", state(|_| {}), None));
    assert!(views.may_speak(&key(0)) && views.may_speak(&key(1)) && !views.may_speak(&key(2)));
    assert!(views.may_speak(&("default".to_owned(), "tiny-moe-2".to_owned(), 2)), "of another deployment");
    views.take(&key(1), view("a", state(|state| state.ready = false), None));
    assert!(views.may_speak(&key(2)));
}

#[test]
fn the_maps_of_all_deployments_together_take_bounded_memory() {
    let shape = MapShape { layers: 64, experts: 512, ranks: 512, slots_per_rank: 1 };
    let model = ModelIdentity { name: "m".to_owned(), digest: String::new(), layers: 64, experts: 512 };
    let slots = (0..64 * 512).map(|slot| plan::ids::ExpertId(slot % 512)).collect();
    let map = MapDocument::new(model, &ExpertMap::new(shape, slots).unwrap());
    let provenance = Provenance { window: 1, window_steps: 1, window_pairs: 1, epoch: 1, ratio: 0.9 };
    let recorded = RecordedMap { map, provenance };
    let views = RuntimeViews::default();
    for number in 0..100 {
        let key = ("default".to_owned(), format!("moe-{number}"), 0);
        views.take(&key, view("a", state(|_| {}), Some(recorded.clone())));
    }
    let kept = (0..100).filter(|number| views.of("default", &format!("moe-{number}"))[&0].recorded.is_some()).count();
    assert!((30..60).contains(&kept), "{kept} maps of 1.4 MB are kept");
    // Every state is.
    assert_eq!(views.of("default", "moe-99")[&0].state.epoch, 3);
}

#[test]
fn words_are_as_they_are_shown() {
    let views = RuntimeViews::default();
    let say = |words: Option<&str>| {
        views.take(&key(0), view("a", state(|state| state.failure = words.map(str::to_owned)), None))
    };
    assert!(say(Some("at 1")));
    assert!(!say(Some("at 2")) && !say(Some("at 3")));
    assert_eq!(views.of("default", "tiny-moe")[&0].state.failure.as_deref(), Some("at 1"));
    assert!(say(Some("at 3")) && !say(Some("at 3")));
    assert_eq!(views.of("default", "tiny-moe")[&0].state.failure.as_deref(), Some("at 3"));
    assert!(say(None));
    // Another pod says it for itself.
    assert!(views.take(&key(0), view("b", state(|state| state.failure = Some("at 4".to_owned())), None)));
    assert_eq!(views.of("default", "tiny-moe")[&0].state.failure.as_deref(), Some("at 4"));
}

#[test]
fn a_token_is_sent_only_to_an_address_that_the_coordinator_still_has() {
    let now: Timestamp = "2026-01-01T00:01:00Z".parse().unwrap();
    let node = |ready: &str, since: &str| -> Node {
        let ready = json!({"type": "Ready", "status": ready, "lastTransitionTime": since});
        serde_json::from_value(json!({"metadata": {"name": "node-1"}, "status": {"conditions": [ready]}})).unwrap()
    };
    let pod = json!({
        "metadata": {"name": "tiny-moe-0-coordinator", "uid": "u", "labels": {(names::GROUP): "0", (names::ROLE): "coordinator"}},
        "spec": {"nodeName": "node-1", "containers": []},
        "status": {"phase": "Running", "podIP": "10.0.0.1", "containerStatuses": [{
            "name": "coordinator", "image": "i", "imageID": "i", "ready": true, "restartCount": 0, "started": true,
        }]},
    });
    let with = |path: &str, value: serde_json::Value| {
        let mut pod = pod.clone();
        *pod.pointer_mut(path).unwrap() = value;
        Member::read(&serde_json::from_value(pod).unwrap()).unwrap()
    };
    let works = node("True", "2026-01-01T00:00:00Z");
    let running = with("/status/phase", json!("Running"));
    assert!(holds_its_address(&running, Some(&works), now, false));
    assert!(holds_its_address(&running, Some(&node("Unknown", "2026-01-01T00:00:55Z")), now, false), "a hiccup");
    assert!(!holds_its_address(&running, Some(&node("Unknown", "2026-01-01T00:00:00Z")), now, false), "a lost node");
    let lost = node("Unknown", "2026-01-01T00:00:00Z");
    assert!(holds_its_address(&running, Some(&lost), now, true), "a node that is called lost, and answers");
    for answered in [false, true] {
        assert!(!holds_its_address(&running, None, now, answered), "a removed node");
    }
    for phase in ["Failed", "Succeeded"] {
        let ended = with("/status/phase", json!(phase));
        assert_eq!(ended.address.as_deref(), Some("10.0.0.1"));
        assert!(!holds_its_address(&ended, Some(&works), now, false), "{phase}");
    }
    let restarting = with("/status/containerStatuses/0/started", json!(false));
    assert!(!holds_its_address(&restarting, Some(&works), now, false));
    let mut deleting = running;
    deleting.deleting = true;
    assert!(!holds_its_address(&deleting, Some(&works), now, false));
}
