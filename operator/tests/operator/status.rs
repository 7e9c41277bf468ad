//! What is decided and told when something happens.

mod downloads;
mod gpus;
mod holds;
mod keys;
mod maps;
mod outages;
mod pods;
mod troubles;

use std::fmt::Write as _;
use std::sync::Arc;

use insta::{assert_snapshot, assert_yaml_snapshot};
use operator::decide::Cause;
use operator::host_paths::AllowedHostPaths;
use operator::observed::{Reference, Unreadable};
use operator::runtime_client::{LARGEST_STATE, RuntimeError};
use operator::words;
use plan::wire::process::LastWord;
use plan::wire::{Phase, RecordedMap, State, path};
use serde_json::{Value, json};

use crate::cluster::{Cluster, Pass, condition};
use crate::desired::config_map;
use crate::fake_runtime::{map, recorded, state, view};

const TINY: &str = include_str!("../../../examples/tiny-moe.yaml");
const WARM: &str = include_str!("../../../examples/tiny-moe-warm.yaml");

fn removed(pass: &Pass) -> Vec<(&str, Cause)> {
    pass.decision.remove.iter().map(|removal| (removal.name.as_str(), removal.cause)).collect()
}

#[test]
fn every_condition_is_told_from_the_first_pass_on() {
    assert_yaml_snapshot!(Cluster::new(TINY).pass().status);
}

#[test]
fn a_deployment_that_serves_is_ready_and_its_status_stays_the_same() {
    let mut cluster = Cluster::new(TINY);
    cluster.settle();
    cluster.runtimes.insert(0, view(2, Some(0.968), None));
    let first = cluster.pass();
    assert_yaml_snapshot!(first.status);
    cluster.later(3600);
    let second = cluster.pass();
    assert_eq!(second.status, first.status);
    assert!(second.notices.is_empty(), "{:?}", second.notices);
}

#[test]
fn load_that_wavers_and_experts_on_the_move_change_no_status() {
    let mut cluster = Cluster::new(TINY);
    cluster.settle();
    cluster.runtimes.insert(0, view(2, Some(0.95), None));
    let before = cluster.pass().status;
    let mut moving = state(7, Some(0.962), None);
    moving.phase = Phase::Moving.into();
    moving.steps += 100;
    let mut wavering = view(0, None, None);
    wavering.state = Arc::new(moving);
    cluster.runtimes.insert(0, wavering);
    assert_eq!(cluster.pass().status, before);
    cluster.runtimes.insert(0, view(8, Some(0.7), None));
    let after = cluster.pass().status;
    assert_eq!((after.ratio.as_deref(), after.epoch), (Some("0.70"), Some(8)));
    assert_eq!(condition(&after, "Balanced").1, "LoadUneven");
}

#[test]
fn a_folder_that_is_no_longer_allowed_takes_no_pod_that_runs_and_gives_none_to_others() {
    let mut cluster = Cluster::new(TINY);
    cluster.deployment.spec.model.source = host_path("/srv/models/tiny");
    cluster.allowed_host_paths = AllowedHostPaths::new(vec!["/srv/models".parse().unwrap()]);
    cluster.settle();
    cluster.allowed_host_paths = AllowedHostPaths::default();
    cluster.pods.remove("tiny-moe-0-rank-2");
    let pass = cluster.pass();
    assert_eq!((removed(&pass), pass.desired.pods.len()), (vec![], 0));
    assert_eq!(condition(&pass.status, "SpecValid").1, "HostPathNotAllowed");
    cluster.allowed_host_paths = AllowedHostPaths::new(vec!["/srv".parse().unwrap()]);
    assert_eq!(condition(&cluster.settle().status, "SpecValid").1, "Valid");
}

fn host_path(path: &str) -> operator::api::model::ModelSource {
    serde_json::from_value(json!({"type": "HostPath", "hostPath": {"path": path}})).unwrap()
}

#[test]
fn a_paused_deployment_is_reported_and_not_touched() {
    let mut cluster = Cluster::new(TINY);
    cluster.settle();
    cluster.deployment.spec.paused = true;
    cluster.pods.remove("tiny-moe-0-rank-0");
    let pass = cluster.pass();
    assert!(pass.desired.pods.is_empty());
    assert_eq!(condition(&pass.status, "Progressing").1, "Paused");
}

#[test]
fn ranks_come_when_their_coordinator_has_found_checkpoint_and_map_right() {
    let mut cluster = Cluster::new(TINY);
    let created = |pass: &Pass| -> Vec<String> { pass.desired.pods.iter().map(kube::ResourceExt::name_any).collect() };
    assert_eq!(created(&cluster.pass()), ["tiny-moe-0-coordinator"]);
    let waiting = cluster.pass();
    assert_eq!(created(&waiting), Vec::<String>::new());
    let words = "0 of 1 replicas serve; replica 0: its coordinator has no node yet";
    assert_eq!(condition(&waiting.status, "Ready"), ("False", "WaitingForPods", words));
    let mut container = crate::fake_api::started_container();
    (container["started"], container["ready"]) = (json!(false), json!(false));
    let starting = json!({"phase": "Running", "containerStatuses": [container]});
    cluster.set_pod("tiny-moe-0-coordinator", &starting, Some("node-1"));
    let reading = cluster.pass();
    assert_eq!(created(&reading), Vec::<String>::new());
    assert_eq!(
        condition(&reading.status, "Ready").2,
        "0 of 1 replicas serve; replica 0: its coordinator reads the checkpoint, the rank pods come after that"
    );
    cluster.run_pods();
    assert_eq!(created(&cluster.pass()), [0, 1, 2, 3].map(|rank| format!("tiny-moe-0-rank-{rank}")));
    // One that is lost later is replaced although its coordinator is not ready without it.
    cluster.run_pods();
    cluster.pods.remove("tiny-moe-0-rank-2");
    cluster.set_ready("tiny-moe-0-coordinator", false);
    assert_eq!(created(&cluster.pass()), ["tiny-moe-0-rank-2"]);
}

#[test]
fn a_checkpoint_that_the_runtime_refuses_is_told_in_its_words_and_holds_no_rank_pod() {
    let mut cluster = Cluster::new(TINY);
    cluster.pass();
    let crashed = json!({
        "phase": "Running",
        "podIP": "10.0.0.1",
        "conditions": [{"type": "Ready", "status": "False"}],
        "containerStatuses": [{
            "name": "coordinator", "image": "i", "imageID": "i", "ready": false, "restartCount": 4,
            "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 1m20s"}},
            "lastState": {"terminated": {"exitCode": 1, "message": LastWord::new("the checkpoint has 64 experts, not 32").to_json()}},
        }],
    });
    cluster.set_pod("tiny-moe-0-coordinator", &crashed, None);
    let pass = cluster.pass();
    assert_eq!(
        condition(&pass.status, "Ready"),
        (
            "False",
            "PodFailing",
            "0 of 1 replicas serve; pod tiny-moe-0-coordinator does not stay up: the checkpoint has 64 experts, not 32"
        )
    );
    assert_eq!(condition(&pass.status, "Degraded").1, "PodFailing");
    assert_eq!(cluster.pods.len(), 1);
}

#[test]
fn a_rank_that_fails_for_good_is_told_in_its_words_and_not_restarted() {
    let mut cluster = Cluster::new(TINY);
    cluster.settle();
    cluster.set_ready("tiny-moe-0-coordinator", false);
    let why = "rank 2 cannot serve its checkpoint: model.safetensors is corrupt or truncated";
    let mut failed = state(0, None, None);
    (failed.ready, failed.failure) = (false, Some(why.to_owned()));
    let mut said = view(0, None, None);
    said.state = Arc::new(failed);
    cluster.runtimes.insert(0, said);
    let pass = cluster.pass();
    let counted = format!("0 of 1 replicas serve; {why}");
    assert_eq!(condition(&pass.status, "Ready"), ("False", "RankFailed", counted.as_str()));
    assert_eq!(condition(&pass.status, "Degraded"), ("True", "RankFailed", why));
    assert_eq!(condition(&pass.status, "Progressing").1, "Blocked");
    assert_eq!((removed(&pass), pass.desired.pods.len()), (vec![], 0));
    assert_eq!(pass.notices.iter().map(|notice| notice.reason).collect::<Vec<_>>(), ["RankFailed"]);
    cluster.later(3600);
    let later = cluster.pass();
    assert_eq!((later.status, later.notices), (pass.status, vec![]));
}

/// What the cluster decides: each specification is consistent, holds no pod all the same, and is told why.
#[test]
fn what_the_cluster_cannot_give_holds_no_pod_and_says_what_is_missing() {
    let document = |change: &dyn Fn(&mut serde_json::Value)| {
        let mut json = serde_json::to_value(map(0)).unwrap();
        change(&mut json);
        Reference::Found(Arc::new(config_map("a-map", &json.to_string())))
    };
    let empty = serde_json::from_value(json!({"metadata": {"name": "a-map"}})).unwrap();
    let maps = [
        ("a ConfigMap that does not exist", Reference::Missing { config_map: "a-map".to_owned() }),
        ("a deployment without a recorded map", Reference::NotRecorded { deployment: "tiny-moe".to_owned() }),
        ("a ConfigMap without a map", Reference::Found(Arc::new(empty))),
        ("a map of a later version", document(&|json| json["version"] = json!("swiftbalancer.io/v9"))),
        ("a map with an unknown field", document(&|json| json["weights"] = json!(1))),
        ("a map with an expert that the model does not have", document(&|json| json["placement"][1][2][3] = json!(99))),
        ("a map with an expert twice on a rank", document(&|json| json["placement"][0][1][0] = json!(9))),
        ("a map with unequal slots", document(&|json| json["placement"][0][1] = json!([1]))),
        ("a map for another model", document(&|json| json["model"]["name"] = json!("other"))),
        ("a map for another number of experts", document(&|json| json["model"]["experts"] = json!(64))),
        ("a map for another EP size", document(&|json| json["ranks"] = json!(8))),
        ("a map for another number of slots", document(&|json| json["slotsPerRank"] = json!(10))),
    ];
    let mut report = String::new();
    for (what, reference) in maps {
        let mut cluster = Cluster::new(WARM);
        cluster.reference = reference;
        let pass = cluster.pass();
        let (status, reason, message) = condition(&pass.status, "ExpertMapReady");
        assert_eq!((status, condition(&pass.status, "Ready").1), ("False", reason), "{what}");
        assert_eq!(pass.desired, operator::build::Desired::default(), "{what}");
        writeln!(report, "{what}: {reason}\n    {message}").unwrap();
    }
    let folders = [
        ("a folder of nodes", "/srv/models/tiny".to_owned(), &[][..]),
        ("a folder beside those that are allowed", "/srv/models-2".to_owned(), &["/srv/models"]),
        ("all of a node", "/".to_owned(), &["/srv/models", "/mnt/models"]),
        ("a long path", format!("/{}", "x/".repeat(250)), &["/srv/models", "/mnt/models", "/data", "/other"]),
    ];
    for (what, path, allowed) in folders {
        let mut cluster = Cluster::new(TINY);
        cluster.deployment.spec.model.source = host_path(&path);
        cluster.allowed_host_paths = AllowedHostPaths::new(allowed.iter().map(|path| path.parse().unwrap()).collect());
        let pass = cluster.pass();
        let (status, reason, message) = condition(&pass.status, "SpecValid");
        assert_eq!((status, condition(&pass.status, "Ready").1), ("False", reason), "{what}");
        assert_eq!(pass.desired, operator::build::Desired::default(), "{what}");
        assert!(message.chars().count() <= 300, "{message}");
        writeln!(report, "{what}: {reason}\n    {message}").unwrap();
    }
    let mut cluster = Cluster::new(TINY);
    (cluster.deployment.spec.gpus_per_pod, cluster.images.gpu) = (4, None);
    let pass = cluster.pass();
    let (status, reason, message) = condition(&pass.status, "Ready");
    assert_eq!((status, &pass.desired), ("False", &operator::build::Desired::default()));
    writeln!(report, "GPUs without an image for them: {reason}\n    {message}").unwrap();
    assert_snapshot!(report);
}

#[test]
fn answers_that_cannot_be_read_say_what_was_found_and_what_to_do() {
    let of_state = |text: &str| RuntimeError::Document {
        path: path::STATE,
        source: State::from_json(text.as_bytes()).unwrap_err(),
    };
    let of_map = |text: &str| RuntimeError::Document {
        path: path::RECORDED_MAP,
        source: RecordedMap::from_json(text.as_bytes()).unwrap_err(),
    };
    let state = |field: &str, value: Value| {
        let mut document = serde_json::to_value(state(4, Some(0.6), None)).unwrap();
        document[field] = value;
        of_state(&document.to_string())
    };
    let map = |field: &str, value: Value| {
        let mut document = serde_json::to_value(recorded(0, 0.98)).unwrap();
        document["map"][field] = value;
        of_map(&document.to_string())
    };
    let answers = [
        ("a state of a later version", state("version", json!("swiftbalancer.io/v2"))),
        ("a state with an epoch that is no number", state("epoch", json!("four"))),
        ("a state without anything", of_state("{}")),
        ("a web page as a state", of_state("<html><body>no such page</body></html>")),
        ("a state that does not end", RuntimeError::TooLarge { path: path::STATE, most: LARGEST_STATE }),
        ("a recorded map of a later version", map("version", json!("swiftbalancer.io/v2"))),
        ("a recorded map with an unknown field", map("weights", json!([1]))),
        ("a recorded map whose ranks are no number", map("ranks", json!("four"))),
    ];
    let mut report = String::new();
    for (what, error) in answers {
        assert!(error.is_unreadable(), "{what}");
        let mut cluster = Cluster::new(TINY);
        cluster.settle();
        let found = words::shorten(&error.to_string());
        cluster.unreadable.insert(0, Unreadable { found, is_map: what.contains("map") });
        let pass = cluster.pass();
        let (status, reason, message) = condition(&pass.status, "Degraded");
        assert_eq!((status, condition(&pass.status, "Ready").0), ("True", "True"), "{what}: requests are answered");
        assert_eq!(pass.notices.iter().map(|notice| notice.reason).collect::<Vec<_>>(), [reason], "{what}");
        writeln!(report, "{what}: {reason}\n    {message}").unwrap();
    }
    assert_snapshot!(report);
}

#[test]
fn an_answer_that_could_not_be_read_stays_told_until_something_is_heard_again() {
    let mut cluster = Cluster::new(TINY);
    cluster.settle();
    cluster.unreadable.insert(0, Unreadable { found: "the answer is no state".to_owned(), is_map: false });
    let told = cluster.pass();
    assert_eq!(condition(&told.status, "Degraded").1, "RuntimeAnswerUnreadable");
    assert_eq!(told.notices.iter().map(|notice| notice.reason).collect::<Vec<_>>(), ["RuntimeAnswerUnreadable"]);
    assert_eq!(condition(&told.status, "Ready").0, "True");
    // The operator starts again and has asked nobody yet.
    cluster.unreadable.clear();
    let after = cluster.pass();
    assert_eq!((after.status, after.notices), (told.status, Vec::new()));
    cluster.runtimes.insert(0, view(2, Some(0.95), None));
    assert_eq!(condition(&cluster.pass().status, "Degraded").1, "AsExpected");
}
