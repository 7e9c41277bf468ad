//! Models that their pods download.

use insta::assert_yaml_snapshot;
use operator::observed::DownloadView;
use plan::wire::DownloadDocument;
use plan::wire::process::LastWord;
use serde_json::{Value, json};

use crate::cluster::{Cluster, condition};

const HUB: &str = include_str!("../../../../examples/hugging-face.yaml");
const STORE: &str = include_str!("../../../../examples/s3.yaml");
const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// A pod of which the first container is in this state.
fn initializing(state: &Value, last: &Value) -> Value {
    json!({
        "phase": "Pending", "podIP": "10.0.0.1",
        "conditions": [{"type": "PodScheduled", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}],
        "initContainerStatuses": [{
            "name": "download", "image": "i", "imageID": "i", "ready": false, "restartCount": 0, "state": state, "lastState": last,
        }],
        "containerStatuses": [{
            "name": "coordinator", "image": "i", "imageID": "", "ready": false, "restartCount": 0,
            "state": {"waiting": {"reason": "PodInitializing"}},
        }],
    })
}

fn document(fields: &Value) -> DownloadDocument {
    let mut document = json!({"version": plan::wire::VERSION, "phase": "downloading", "bytes": 0});
    document.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    DownloadDocument::from_json(document.to_string().as_bytes()).unwrap()
}

/// A cluster with GPUs in which the coordinator of the example has been made.
fn cluster(example: &str) -> (Cluster, String) {
    let mut cluster = Cluster::new(example);
    for node in ["node-1", "node-2", "node-3"] {
        cluster.label_node(node, "nvidia.com/gpu.product", "NVIDIA-H200");
    }
    cluster.pass();
    let pod = format!("{}-0-coordinator", cluster.deployment.metadata.name.clone().unwrap());
    (cluster, pod)
}

fn say(cluster: &mut Cluster, pod: &str, fields: &Value, advanced: bool) {
    let advanced = advanced.then_some(cluster.now);
    let uid = cluster.pods[pod].metadata.uid.clone().unwrap();
    cluster.downloads.insert(uid, DownloadView { document: document(fields), advanced });
}

#[test]
fn a_download_is_told_in_whole_percent_and_by_its_pod() {
    let (mut cluster, pod) = cluster(HUB);
    cluster.set_pod(&pod, &initializing(&json!({"running": {}}), &json!({})), Some("node-1"));
    cluster.later(3600);
    assert_eq!(condition(&cluster.pass().status, "Ready").1, "Downloading");
    say(&mut cluster, &pod, &json!({"bytes": 37_900, "totalBytes": 100_000, "trouble": "answered with 503"}), true);
    let pass = cluster.pass();
    assert_yaml_snapshot!((&pass.status.download, condition(&pass.status, "Ready")));
    assert_eq!(condition(&pass.status, "Degraded").1, "AsExpected");
    say(&mut cluster, &pod, &json!({"bytes": 37_999, "totalBytes": 100_000, "trouble": "answered with 503"}), true);
    assert_eq!(cluster.pass().status, pass.status);
    say(&mut cluster, &pod, &json!({"phase": "waiting"}), false);
    assert_eq!(cluster.pass().status.download.unwrap().progress, "waiting");
}

#[test]
fn a_download_that_goes_on_is_past_no_deadline_and_one_that_does_not_is() {
    let (mut cluster, pod) = cluster(HUB);
    cluster.set_pod(&pod, &initializing(&json!({"running": {}}), &json!({})), Some("node-1"));
    for _ in 0..5 {
        cluster.later(1800);
        say(&mut cluster, &pod, &json!({"bytes": 1, "totalBytes": 100}), true);
        assert_eq!(condition(&cluster.pass().status, "Progressing").1, "WaitingForPods");
    }
    cluster.later(2400);
    assert_eq!(condition(&cluster.pass().status, "Progressing").1, "ProgressDeadlineExceeded");
}

#[test]
fn a_download_that_fails_is_told_by_its_last_word_until_it_goes_on() {
    let (mut cluster, pod) = cluster(HUB);
    let words = "asking huggingface.co was answered with 401: name a Secret with a token in tokenSecretRef";
    let failed = json!({"terminated": {"exitCode": 1, "message": LastWord::new(words).to_json()}});
    let waiting = json!({"waiting": {"reason": "CrashLoopBackOff"}});
    cluster.set_pod(&pod, &initializing(&waiting, &failed), Some("node-1"));
    let told = cluster.pass().status;
    let (_, reason, message) = condition(&told, "Ready");
    assert_eq!(reason, "PodFailing");
    assert!(message.ends_with(&format!("init container download: {words}")), "{message}");
    // It is started again, and fails again or does not.
    cluster.set_pod(&pod, &initializing(&json!({"running": {}}), &failed), Some("node-1"));
    say(&mut cluster, &pod, &json!({"bytes": 0}), false);
    assert_eq!(condition(&cluster.pass().status, "Ready").1, "PodFailing");
    say(&mut cluster, &pod, &json!({"bytes": 9, "totalBytes": 100}), true);
    assert_eq!(condition(&cluster.pass().status, "Ready").1, "Downloading");
    let no_secret =
        json!({"waiting": {"reason": "CreateContainerConfigError", "message": "secret \"hugging-face\" not found"}});
    cluster.set_pod(&pod, &initializing(&no_secret, &json!({})), Some("node-1"));
    let told = cluster.pass().status;
    assert!(
        condition(&told, "Ready").2.contains("secret \"hugging-face\" not found"),
        "{:?}",
        condition(&told, "Ready")
    );
}

#[test]
fn the_commit_that_was_downloaded_first_is_told_to_pods_that_are_made_later() {
    let (mut cluster, pod) = cluster(HUB);
    let said = document(&json!({"phase": "complete", "commit": COMMIT, "bytes": 9, "totalBytes": 9})).to_json();
    let done = json!({"terminated": {"exitCode": 0, "message": said}});
    cluster.set_pod(&pod, &initializing(&done, &json!({})), Some("node-1"));
    let model = cluster.pass().status.model.unwrap();
    assert_eq!((model.revision.as_str(), model.commit.as_str()), ("main", COMMIT));
    cluster.run_pods();
    let pods = cluster.pass().desired.pods;
    let init = &pods[0].spec.as_ref().unwrap().init_containers.as_ref().unwrap()[0];
    let args = init.args.as_ref().unwrap();
    assert!(args.windows(2).any(|pair| pair == ["--commit", COMMIT]), "{args:?}");
    // Pods that run have read another revision than the one that is asked for now.
    cluster.deployment.spec.model.source.hugging_face.as_mut().unwrap().revision = "v2".to_owned();
    assert_eq!(cluster.pass().status.model, None);
}

#[test]
fn what_is_no_commit_is_not_believed() {
    let (mut cluster, pod) = cluster(HUB);
    for commit in ["main", "--x", "0123"] {
        let said = document(&json!({"phase": "complete", "commit": commit})).to_json();
        let done = json!({"terminated": {"exitCode": 0, "message": said}});
        cluster.set_pod(&pod, &initializing(&done, &json!({})), Some("node-1"));
        assert_eq!(cluster.pass().status.model, None, "{commit}");
    }
}

#[test]
fn a_download_is_the_first_container_of_each_pod_and_has_what_it_needs_alone() {
    let (cluster, pod) = cluster(&HUB.replace("# tokenSecretRef", "tokenSecretRef"));
    let spec = cluster.pods[&pod].spec.as_ref().unwrap();
    let volume = spec.volumes.iter().flatten().find(|volume| volume.name == "model");
    assert_yaml_snapshot!((&spec.init_containers, volume));
    let (cluster, pod) = self::cluster(STORE);
    let spec = cluster.pods[&pod].spec.as_ref().unwrap();
    let volume = spec.volumes.iter().flatten().find(|volume| volume.name == "model");
    assert_yaml_snapshot!((&spec.init_containers, volume));
}

#[test]
fn a_template_says_how_the_download_reaches_the_world_too() {
    let template = json!({"spec": {
        "volumes": [{"name": "ca", "configMap": {"name": "ca"}}],
        "containers": [{
            "name": "coordinator",
            "env": [{"name": "HTTPS_PROXY", "value": "http://proxy:3128"}, {"name": "SSL_CERT_FILE", "value": "/ca/ca.pem"},
                    {"name": "RUST_LOG", "value": "debug"}],
            "volumeMounts": [{"name": "ca", "mountPath": "/ca", "readOnly": true}],
        }],
    }});
    let mut cluster = Cluster::new(HUB);
    cluster.deployment.spec.coordinator.pod_template = Some(serde_json::from_value(template).unwrap());
    for node in ["node-1", "node-2", "node-3"] {
        cluster.label_node(node, "nvidia.com/gpu.product", "NVIDIA-H200");
    }
    let pods = cluster.pass().desired.pods;
    let init = &pods[0].spec.as_ref().unwrap().init_containers.as_ref().unwrap()[0];
    let names: Vec<&str> = init.env.iter().flatten().map(|variable| variable.name.as_str()).collect();
    assert_eq!(names, ["SWIFTBALANCER_TERMINATION_FILE", "HTTPS_PROXY", "SSL_CERT_FILE"]);
    assert!(init.volume_mounts.iter().flatten().any(|mount| mount.mount_path == "/ca"));
}
