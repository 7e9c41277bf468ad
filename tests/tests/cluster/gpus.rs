//! Ranks on GPUs, as users have them: nodes that offer GPUs, pods that ask for them, the image for GPUs. The GPUs are emulated, and
//! their driver is put into pods as a container runtime of NVIDIA's puts the node's, by this test alone. Nothing here is a result of
//! a GPU.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tests::cluster::{Cluster, NODES};
use tests::emulator::Emulator;
use tests::namespace::{Namespace, in_namespace};
use tests::wait;

use crate::deployment::{Deployment, condition};
use crate::moves::{COMPARED, continued, served_and_moved};
use crate::suite::{Suite, block_on, seconds};

/// The emulated GPU computes a thousandth of what a processor does.
const PATIENCE: Duration = Duration::from_mins(4);
/// Label of the kind of GPU.
const PRODUCT: &str = "nvidia.com/gpu.product";
/// GPUs that each node is given.
const GPUS: usize = 2;

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
            let expected = continued(&on_processors, COMPARED, PATIENCE).await?;
            on_processors.delete().await?;
            expected
        };
        let (one, other) =
            futures::try_join!(served_and_moved(&apart, PATIENCE), served_and_moved(&together, PATIENCE))?;
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
