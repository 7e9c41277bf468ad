//! Checkpoints on volumes: a folder of the nodes, a claim; those that cannot be served hold nothing but a coordinator.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;
use tests::namespace::{Namespace, in_namespace};
use tests::traffic::{Domain, Traffic};
use tests::{wait, workspace};

use crate::deployment::{Deployment, condition, target};
use crate::suite::{HOST_PATHS, Suite, block_on, seconds};

/// Name, what is done to the folder, settings that go with it, part of the error.
type Case = (&'static str, fn(&Path) -> Result<()>, fn(&mut Value), &'static str);

const BAD: &[Case] = &[
    (
        "feature",
        |folder| edit_config(folder, |config| config["rope_scaling"] = json!({"rope_type": "yarn", "factor": 4.0})),
        |_| {},
        "rope_scaling",
    ),
    (
        "truncated",
        |folder| {
            let weights = fs::OpenOptions::new().write(true).open(folder.join("model.safetensors"))?;
            Ok(weights.set_len(1 << 20)?)
        },
        |_| {},
        "model.safetensors",
    ),
    (
        "map",
        |folder| Ok(fs::write(folder.join("map.json"), r#"{"moe_layer_count": 4, "layer_list": []}"#)?),
        |object| object["spec"]["eplb"]["expertMapPath"] = json!("map.json"),
        "moe_layer_count",
    ),
    ("empty", |folder| Ok(fs::remove_file(folder.join("config.json"))?), |_| {}, "config.json"),
];

pub fn bad_checkpoints(suite: &Suite) -> Result<()> {
    let cluster = suite.installed()?;
    block_on(in_namespace(cluster, "bad_checkpoints", async |namespace| {
        let folders = BAD.iter().map(|(_, spoil, ..)| {
            let folder = checkpoint()?;
            spoil(folder.path())?;
            Ok(folder)
        });
        let folders = folders.collect::<Result<Vec<_>>>()?;
        let deployments = BAD.iter().zip(&folders).map(|((name, _, set, _), folder)| {
            Deployment::apply(namespace, "tiny-moe.yaml", |object| {
                object["metadata"]["name"] = json!(name);
                object["spec"]["model"]["source"] =
                    json!({ "type": "HostPath", "hostPath": { "path": folder.path() } });
                set(object);
            })
        });
        let deployments = deployments.collect::<Result<Vec<_>>>()?;
        for ((name, .., expected), deployment) in BAD.iter().zip(&deployments) {
            let message = refused(deployment).await?;
            println!("{name}: {message}");
            ensure!(message.contains(expected), "{name}: {message:?} does not say {expected:?}");
            ensure!(!message.contains("ERROR"), "{name}: {message:?} has the time of a log line, new at each restart");
            let pods = deployment.pods().await?;
            ensure!(pods.keys().eq([&deployment.coordinator()]), "{name} holds {:?}", pods.keys());
        }
        suite.figure("bad checkpoints and maps on a volume, none with a rank pod", BAD.len())?;
        // What was wrong is put right where it lies: nothing has to be applied again.
        fs::copy(model().join("config.json"), folders[0].path().join("config.json"))?;
        deployments[0].ready().await?;
        deployments[0].answer(1, || {}).await.map(drop)
    }))
}

async fn refused(deployment: &Deployment<'_>) -> Result<String> {
    wait::until(&format!("{} is refused", deployment.name), Duration::from_mins(1), async || {
        let object = deployment.object().await?;
        let ready = condition(&object, "Ready").context("no condition Ready")?;
        ensure!(ready["status"] == "False" && ready["reason"] == "PodFailing", "{ready}");
        Ok(ready["message"].as_str().unwrap_or_default().to_owned())
    })
    .await
}

/// A map is recorded beside the checkpoint on its claim; another deployment starts from it there.
pub fn claim(suite: &Suite) -> Result<()> {
    let cluster = suite.installed()?;
    block_on(in_namespace(cluster, "claim", async |namespace| {
        let folder = checkpoint()?;
        let maps = folder.path().join("maps");
        fs::create_dir(&maps)?;
        fs::set_permissions(&maps, Permissions::from_mode(0o777))?; // pods run as a user that the node does not know
        provide_claim(namespace, folder.path())?;
        let outcome = record_and_start_from(suite, namespace, &maps.join("now.json")).await;
        let volume = ["delete", "persistentvolume", &namespace.name, "--wait=false"];
        outcome.and(cluster.kubectl(volume).map(drop))
    }))
}

async fn record_and_start_from(suite: &Suite, namespace: &Namespace<'_>, map: &Path) -> Result<()> {
    let on_claim = |object: &mut Value| {
        object["spec"]["model"]["source"] =
            json!({ "type": "PersistentVolumeClaim", "persistentVolumeClaim": { "claimName": "models" } });
    };
    let first = Deployment::apply(namespace, "tiny-moe.yaml", |object| {
        on_claim(object);
        object["spec"]["eplb"]["expertMapRecordPath"] = json!("maps/now.json");
        object["spec"]["eplb"]["numIterationsEplbUpdate"] = json!(100);
    })?;
    first.ready().await?;
    suite.figure("kubectl apply until ready, the checkpoint on a claim", seconds(first.applied))?;
    first.answer(1, || {}).await?;
    let service = first.service(1).await?;
    let traffic = Traffic::start(target(&service.url()), Domain::load("python")?);
    let recorded = wait::until("the map is beside the checkpoint", Duration::from_secs(90), async || {
        fs::read_to_string(map).with_context(|| map.display().to_string())
    });
    let recorded = recorded.await;
    let seen = traffic.stop().await;
    recorded?;
    ensure!(seen.failures.is_empty(), "{} requests failed: {:?}", seen.failures.len(), seen.failures.first());

    let second = Deployment::apply(namespace, "tiny-moe.yaml", |object| {
        on_claim(object);
        object["metadata"]["name"] = json!("warm");
        object["spec"]["eplb"]["expertMapPath"] = json!("maps/now.json");
    })?;
    second.ready().await?;
    ensure!(second.state().await?.static_map, "it did not start from the map");
    second.answer(2, || {}).await.map(drop)
}

/// A claim `models` in the namespace, bound to a folder that every node has.
fn provide_claim(namespace: &Namespace<'_>, folder: &Path) -> Result<()> {
    let volume = &namespace.name;
    let common = json!({ "accessModes": ["ReadWriteMany"], "storageClassName": "" });
    let with = |mut spec: Value| {
        for (key, value) in common.as_object().into_iter().flatten() {
            spec[key] = value.clone();
        }
        spec
    };
    let volume_spec = with(json!({
        "capacity": { "storage": "1Gi" },
        "persistentVolumeReclaimPolicy": "Retain",
        "hostPath": { "path": folder, "type": "Directory" },
        "claimRef": { "name": "models", "namespace": namespace.name },
    }));
    let claim_spec = with(json!({ "volumeName": volume, "resources": { "requests": { "storage": "1Gi" } } }));
    let items = [("PersistentVolume", volume.as_str(), volume_spec), ("PersistentVolumeClaim", "models", claim_spec)];
    for (kind, name, spec) in items {
        let object = json!({ "apiVersion": "v1", "kind": kind, "metadata": { "name": name }, "spec": spec });
        namespace.apply(&object.to_string())?;
    }
    Ok(())
}

fn model() -> std::path::PathBuf {
    workspace::root().join("examples/models/tiny-moe")
}

/// A copy of the small model that pods may read, in a folder that goes when the test ends.
fn checkpoint() -> Result<TempDir> {
    fs::create_dir_all(HOST_PATHS)?;
    let folder = tempfile::Builder::new().permissions(Permissions::from_mode(0o755)).tempdir_in(HOST_PATHS)?;
    for file in fs::read_dir(model())? {
        let file = file?;
        fs::copy(file.path(), folder.path().join(file.file_name()))?;
    }
    Ok(folder)
}

fn edit_config(folder: &Path, edit: impl FnOnce(&mut Value)) -> Result<()> {
    let path = folder.join("config.json");
    let mut config = serde_json::from_slice(&fs::read(&path)?)?;
    edit(&mut config);
    Ok(fs::write(path, serde_json::to_vec(&config)?)?)
}
