//! Specifications that cannot work: each is refused with an error that says what to do, and none holds a pod.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use serde_json::{Value, json};
use tests::namespace::{Namespace, in_namespace};
use tests::wait;

use crate::deployment::{Deployment, condition};
use crate::suite::{HOST_PATHS, Suite, block_on};

/// Where, the value, and part of the error.
type Case = (&'static str, fn() -> Value, &'static str);

/// Refused by the API server.
const BY_THE_API_SERVER: &[Case] = &[
    ("/spec/eplb/initRedundancyExpert", || json!(3), "must divide by parallelism.tensor * parallelism.data"),
    ("/spec/eplb/initRedundancyExpert", || json!(8), "larger than the number of GPUs"),
    ("/spec/eplb/initRedundancyExpert", || json!(-4), "greater than or equal to 0"),
    ("/spec/eplb/numWaitWorkerIterations", || json!(29), "must be at least 30"),
    ("/spec/eplb/numIterationsEplbUpdate", || json!(0), "greater than or equal to 1"),
    ("/spec/eplb/policy", || json!("best"), "Unsupported value"),
    ("/spec/eplb/expertMapRef", || json!({}), "exactly one of name"),
    ("/spec/eplb/expertMapRef", || json!({ "name": "a", "fromDeployment": "b" }), "exactly one of name"),
    ("/spec/eplb/expertMapPath", || json!("../map.json"), "must not start with '/' nor contain '..'"),
    ("/spec/eplb/expertMapRecordPath", || json!("map.json"), "an image or a folder of nodes is not written to"),
    ("/spec/eplb/gateEplb", || json!(true), "unknown field \"spec.eplb.gateEplb\""),
    ("/spec/parallelism/tensor", || json!(2), "tensor parallelism is not supported yet"),
    ("/spec/parallelism/data", || json!(0), "greater than or equal to 1"),
    ("/spec/gpusPerPod", || json!(3), "must divide by gpusPerPod"),
    ("/spec/model/experts", || json!(0), "greater than or equal to 1"),
    ("/spec/model/source/type", || json!("HostPath"), "model.source.hostPath must be set"),
    ("/spec/model/name", || json!(""), "at least 1"),
    ("/spec/replicas", || json!(-1), "greater than or equal to 0"),
    ("/metadata/name", || json!("a-name-that-is-much-too-long-to-name-pods-after"), "at most 40 characters"),
];

/// Refused by the operator, in a condition: where, the value, type and reason of the condition, part of its message.
const BY_THE_OPERATOR: &[(Case, &str, &str)] = &[
    (
        ("/spec/model/source", || host_path("/var/lib/kubelet"), "the operator allows only"),
        "SpecValid",
        "HostPathNotAllowed",
    ),
    (
        ("/spec/model/source", || host_path(&format!("{HOST_PATHS}-2")), "or have it added to allowedHostPaths"),
        "SpecValid",
        "HostPathNotAllowed",
    ),
    (("/spec/eplb/expertMapRef", || json!({ "name": "absent" }), "absent"), "ExpertMapReady", "ExpertMapMissing"),
    (
        ("/spec/eplb/expertMapRef", || json!({ "fromDeployment": "absent" }), "absent"),
        "ExpertMapReady",
        "ExpertMapNotRecorded",
    ),
];

pub fn bad_specs(suite: &Suite) -> Result<()> {
    let cluster = suite.installed()?;
    block_on(in_namespace(cluster, "bad_specs", async |namespace| {
        for (path, value, expected) in BY_THE_API_SERVER {
            let applied = Deployment::apply(namespace, "tiny-moe.yaml", |object| set(object, path, value()));
            let Err(error) = applied else { anyhow::bail!("{path}: {} was accepted", value()) };
            let error = format!("{error:#}");
            println!("{path} = {}: {}", value(), refusal(&error));
            ensure!(error.contains(expected), "{path}: {} gives {error}, not {expected:?}", value());
        }
        for case in BY_THE_OPERATOR {
            refused_by_the_operator(namespace, case).await?;
        }
        let pods = namespace.api::<Pod>().list(&ListParams::default()).await?;
        ensure!(pods.items.is_empty(), "{} pods exist", pods.items.len());
        suite.figure("bad specs refused, none with a pod", BY_THE_API_SERVER.len() + BY_THE_OPERATOR.len())
    }))
}

async fn refused_by_the_operator(namespace: &Namespace<'_>, case: &(Case, &str, &str)) -> Result<()> {
    let ((path, value, expected), kind, reason) = case;
    let deployment = Deployment::apply(namespace, "tiny-moe.yaml", |object| set(object, path, value()))?;
    let what = format!("{path} is refused");
    let found = wait::until(&what, Duration::from_secs(20), async || {
        let object = deployment.object().await?;
        let found = condition(&object, kind).with_context(|| format!("no condition {kind}"))?.clone();
        ensure!(found["status"] == "False" && found["reason"] == *reason, "{found}");
        Ok(found)
    });
    let message = found.await?["message"].as_str().unwrap_or_default().to_owned();
    println!("{path} = {}: {message}", value());
    ensure!(message.contains(expected), "{path}: {} gives {message:?}, not {expected:?}", value());
    deployment.delete().await
}

/// What kubectl says, in one line.
fn refusal(error: &str) -> String {
    let said = error.split_once("exit status: 1: ").map_or(error, |(_, said)| said);
    said.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn host_path(path: &str) -> Value {
    json!({ "type": "HostPath", "hostPath": { "path": path } })
}

/// Sets a value; objects on the way to it are made.
fn set(object: &mut Value, path: &str, value: Value) {
    let place = path.split('/').skip(1).fold(object, |object, key| &mut object[key]);
    *place = value;
}
