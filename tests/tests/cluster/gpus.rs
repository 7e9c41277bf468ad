//! Ranks on GPUs, as users have them: nodes that offer GPUs, pods that ask for them, the image for GPUs. The GPUs are emulated, and
//! their driver is put into pods as a container runtime of NVIDIA's puts the node's, by this test alone. Nothing here is a result of
//! a GPU.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::ResourceExt as _;
use operator::names;
use plan::wire::{MapDocument, path};
use serde_json::{Value, json};
use tests::cluster::{Cluster, NODES};
use tests::emulator::Emulator;
use tests::namespace::{Namespace, in_namespace};
use tests::wait;

use crate::deployment::{Deployment, condition};
use crate::suite::{Suite, block_on, seconds};

/// The emulated GPU computes a thousandth of what a processor does.
const PATIENCE: Duration = Duration::from_mins(4);
/// Label of the kind of GPU.
const PRODUCT: &str = "nvidia.com/gpu.product";
/// GPUs that each node is given.
const GPUS: usize = 2;
/// Tokens that a processor's answer is compared by. Its rounding is another, so that later ones may differ.
const COMPARED: usize = 8;
/// Tokens of an answer during which experts move: they wait for 30 steps after a group has formed.
const TOKENS: usize = 40;

/// Nodes with emulated GPUs, and pods of a namespace that find their driver, until it is dropped.
struct EmulatedGpus<'a> {
    cluster: &'a Cluster,
    policy: String,
    folder: PathBuf,
}

impl<'a> EmulatedGpus<'a> {
    fn install(namespace: &'a Namespace<'_>) -> Result<Self> {
        let cluster = namespace.cluster;
        // Every node has the folder for temporary files of this machine.
        let folder = std::env::temp_dir().join(format!("swiftbalancer-driver-{}", namespace.name));
        let gpus = Self { cluster, policy: format!("driver-in-{}", namespace.name), folder };
        Emulator::build()?.install(&gpus.folder)?;
        namespace.apply(&serde_json::to_string(&gpus.policy(&namespace.name)?)?)?;
        gpus.offer(&json!(GPUS.to_string()))?;
        Ok(gpus)
    }

    /// What nodes say that they have, as a device plugin has them say; null is nothing.
    fn offer(&self, gpus: &Value) -> Result<()> {
        let has = json!({"nvidia.com/gpu": gpus});
        let patch = json!({"status": {"capacity": has, "allocatable": has}}).to_string();
        for node in 1..=NODES {
            let node = format!("node-{node}");
            self.cluster.kubectl([
                "patch",
                "node",
                &node,
                "--subresource=status",
                "--type=merge",
                "--patch",
                &patch,
            ])?;
        }
        Ok(())
    }

    /// Gives a node's GPUs a name.
    fn name(&self, node: usize, product: &str) -> Result<()> {
        let (node, label) = (format!("node-{node}"), format!("{PRODUCT}={product}"));
        self.cluster.kubectl(["label", "node", &node, &label, "--overwrite"]).map(drop)
    }

    /// Puts the driver into the namespace's pods that ask for GPUs, and tells it how many it has.
    fn policy(&self, namespace: &str) -> Result<Value> {
        let folder = self.folder.to_str().context("a path that is not UTF-8")?;
        let name = &self.policy;
        let expression = format!(
            r#"Object{{spec: Object.spec{{
              volumes: [Object.spec.volumes{{name: "driver",
                hostPath: Object.spec.volumes.hostPath{{path: "{folder}", type: "Directory"}}}}],
              containers: object.spec.containers.map(c, Object.spec.containers{{name: c.name,
                volumeMounts: [Object.spec.containers.volumeMounts{{name: "driver", mountPath: "/driver", readOnly: true}}],
                env: [
                  Object.spec.containers.env{{name: "LD_LIBRARY_PATH", value: "/driver"}},
                  Object.spec.containers.env{{name: "CUDA_MODEL_KERNELS", value: "/driver/product.so"}},
                  Object.spec.containers.env{{name: "CUDA_MODEL_DEVICES",
                    value: string(c.resources.limits["nvidia.com/gpu"])}}
                ]}})}}}}"#
        );
        let asks = r#"object.spec.containers.all(c, has(c.resources) && has(c.resources.limits) && "nvidia.com/gpu" in c.resources.limits)"#;
        let group = "admissionregistration.k8s.io/v1";
        Ok(json!({"apiVersion": "v1", "kind": "List", "items": [
            {
                "apiVersion": group, "kind": "MutatingAdmissionPolicy", "metadata": {"name": name},
                "spec": {
                    "failurePolicy": "Fail", "reinvocationPolicy": "Never",
                    "matchConstraints": {"resourceRules": [
                        {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}
                    ]},
                    "matchConditions": [{"name": "asks-for-gpus", "expression": asks}],
                    "mutations": [
                        {"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": expression}}
                    ],
                },
            },
            {
                "apiVersion": group, "kind": "MutatingAdmissionPolicyBinding", "metadata": {"name": name},
                "spec": {
                    "policyName": name,
                    "matchResources": {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace}}},
                },
            },
        ]}))
    }
}

impl Drop for EmulatedGpus<'_> {
    fn drop(&mut self) {
        // Later tests want nodes without GPUs. What cannot be taken back ends with the cluster.
        let _ = self.offer(&Value::Null);
        for node in 1..=NODES {
            let _ = self.cluster.kubectl(["label", "node", &format!("node-{node}"), &format!("{PRODUCT}-")]);
        }
        for kind in ["mutatingadmissionpolicybinding", "mutatingadmissionpolicy"] {
            let _ = self.cluster.kubectl(["delete", kind, &self.policy, "--ignore-not-found"]);
        }
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Why these tests cannot run here, if they cannot.
pub fn unavailable() -> Option<String> {
    Emulator::unavailable()
}

/// The example on so many ranks, with so many GPUs in each pod, of one kind if that is chosen.
fn deploy<'a>(
    namespace: &'a Namespace<'a>,
    (name, product): (&str, Option<&str>),
    (ranks, gpus): (usize, usize),
) -> Result<Deployment<'a>> {
    Deployment::apply(namespace, "tiny-moe.yaml", |object| {
        object["metadata"]["name"] = json!(name);
        let spec = &mut object["spec"];
        (spec["parallelism"]["data"], spec["gpusPerPod"]) = (json!(ranks), json!(gpus));
        spec["ranks"]["kvBlocks"] = json!(32);
        if let Some(product) = product {
            spec["placement"]["nodeSelector"] = json!({PRODUCT: product});
        }
        // Nothing moves but what is asked for.
        spec["eplb"] = json!({
            "dynamicEplb": false, "initRedundancyExpert": if ranks > 1 { ranks } else { 0 }, "numIterationsEplbUpdate": 5,
        });
    })
}

/// What a deployment goes on with, greedily.
async fn continued(deployment: &Deployment<'_>, tokens: usize) -> Result<String> {
    let service = deployment.service(1).await?;
    let request = json!({"model": "tiny-moe", "prompt": "The capital of", "max_tokens": tokens, "temperature": 0, "ignore_eos": true});
    let client = reqwest::Client::new();
    let answer: Value = wait::until("a prompt is continued", PATIENCE, async || {
        let url = format!("{}/v1/completions", service.url());
        Ok(client.post(url).json(&request).send().await?.error_for_status()?.json().await?)
    })
    .await?;
    Ok(answer["choices"][0]["text"].as_str().context("an answer has a text")?.to_owned())
}

/// Asks for a map with which the ranks of the first layer change places.
async fn ask_for_another_map(deployment: &Deployment<'_>) -> Result<()> {
    let admin = deployment.admin().await?;
    let (client, url) = (reqwest::Client::new(), format!("{}{}", admin.endpoint.url, path::MAP));
    let token = admin.endpoint.token.as_deref().context("a deployment has keys")?;
    let map = client.get(&url).bearer_auth(token).send().await?.error_for_status()?.bytes().await?;
    let mut map = MapDocument::from_json(&map)?;
    map.placement[0].rotate_left(1);
    if let Some(shares) = &mut map.shares {
        shares[0].rotate_left(1);
    }
    client.post(&url).bearer_auth(token).json(&map).send().await?.error_for_status()?;
    Ok(())
}

/// A move is asked for, an answer is given while it happens, and the map that it led to is a ConfigMap of its epoch.
async fn served_and_moved(namespace: &Namespace<'_>, deployment: &Deployment<'_>) -> Result<String> {
    deployment.ready_within(PATIENCE).await?;
    // A map is recorded with the load of the last window, so one is closed first.
    let before = continued(deployment, COMPARED).await?;
    ask_for_another_map(deployment).await?;
    let answer = continued(deployment, TOKENS).await?;
    ensure!(answer.starts_with(&before), "{answer:?} while experts move, {before:?} before");
    let epoch = wait::until("experts have moved", PATIENCE, async || {
        let state = deployment.state().await?;
        if state.epoch == 0 || state.recorded_map_hash.is_none() {
            // It moves with steps, and without requests there are none.
            let again = continued(deployment, COMPARED).await?;
            ensure!(answer.starts_with(&again), "{again:?} while experts move, not the start of {answer:?}");
        }
        ensure!(state.epoch > 0 && state.recorded_map_hash.is_some(), "{state:?}");
        Ok(state.epoch)
    })
    .await?;
    ensure!(answer.starts_with(&continued(deployment, COMPARED).await?), "another answer after experts have moved");
    wait::until("the map is recorded", PATIENCE, async || {
        let object = deployment.object().await?;
        let name = object.data["status"]["expertMap"]["configMap"].as_str().context("no map is recorded")?;
        let map = namespace.api::<ConfigMap>().get(name).await?;
        let recorded = map.annotations().get(names::MAP_EPOCH).context("a recorded map has an epoch")?;
        ensure!(*recorded == epoch.to_string(), "{name} is of epoch {recorded}, not {epoch}");
        ensure!(object.data["status"]["epoch"] == epoch, "{}", object.data["status"]);
        Ok(())
    })
    .await?;
    Ok(answer)
}

pub fn serve_and_move(suite: &Suite) -> Result<()> {
    let cluster = suite.installed()?;
    block_on(in_namespace(cluster, "gpus", async |namespace| {
        let gpus = EmulatedGpus::install(namespace)?;
        gpus.name(1, "model-A")?;
        gpus.name(2, "model-B")?;
        let apart = deploy(namespace, ("apart", None), (2, 1))?;
        wait::until("unlike GPUs are refused", PATIENCE, async || {
            let object = apart.object().await?;
            let ready = condition(&object, "Ready").context("no condition Ready")?;
            ensure!(ready["reason"] == "GPUsNotAlike", "{ready}");
            Ok(())
        })
        .await?;
        ensure!(apart.pods().await?.is_empty(), "pods hold GPUs that were refused");
        let began = Instant::now();
        // On one node each: the emulated NCCL, which ranks of several would exchange by, does not leave a network namespace.
        let apart = deploy(namespace, ("apart", Some("model-A")), (2, 1))?;
        let together = deploy(namespace, ("together", Some("model-B")), (2, 2))?;
        let expected = {
            let on_processors = deploy(namespace, ("processors", None), (1, 0))?;
            on_processors.ready().await?;
            let expected = continued(&on_processors, COMPARED).await?;
            on_processors.delete().await?;
            expected
        };
        let (one, other) =
            futures::try_join!(served_and_moved(namespace, &apart), served_and_moved(namespace, &together))?;
        suite.figure("two deployments on emulated GPUs until both have served and moved", seconds(began))?;
        ensure!(!expected.is_empty() && one.starts_with(&expected), "{one:?} instead of {expected:?}");
        ensure!(one == other, "ranks of one pod answer {other:?}, those of several {one:?}");
        for (deployment, means) in [(&together, "peer"), (&apart, "tcp")] {
            let ranks = deployment.state().await?.ranks;
            ensure!(ranks.len() == 2 && ranks.iter().all(|rank| rank.exchange == means), "not by {means}: {ranks:?}");
        }
        let pods = together.pods().await?;
        ensure!(pods.len() == 2, "{:?}", pods.keys());
        let object = apart.object().await?;
        let valid = condition(&object, "SpecValid").context("no condition SpecValid")?;
        ensure!(valid["message"].as_str().is_some_and(|said| said.contains("with gpusPerPod 2")), "{valid}");
        let object = together.object().await?;
        let valid = condition(&object, "SpecValid").context("no condition SpecValid")?;
        ensure!(valid["message"] == "the specification is consistent", "{valid}");
        Ok(())
    }))
}
