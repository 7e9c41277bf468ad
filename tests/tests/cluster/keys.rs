//! The keys of a deployment: made and owned, asked for, rotated; and whom the operator believes to be a coordinator.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::ResourceExt as _;
use kube::api::{DeleteParams, LogParams};
use plan::wire::keys::{ADMIN_TOKEN, GROUP_SECRET, secret_name};
use plan::wire::{State, WindowReport, path};
use serde_json::json;
use tests::namespace::{Namespace, in_namespace};
use tests::traffic::{Domain, Traffic};
use tests::{admin, chart, wait};

use crate::deployment::{Deployment, target};
use crate::suite::{Suite, block_on, seconds};

pub fn made_and_rotated(suite: &Suite) -> Result<()> {
    let cluster = suite.installed()?;
    block_on(in_namespace(cluster, "keys", async |namespace| {
        let deployment = Deployment::apply(namespace, "tiny-moe.yaml", |_| {})?;
        deployment.ready().await?;
        let answer = deployment.answer(1, || {}).await?;
        owned(&deployment).await?;
        only_with_the_token(&deployment).await?;

        let began = Instant::now();
        let annotation = "swiftbalancer.io/rotate-keys=once";
        let name = deployment.name.as_str();
        rolled(&deployment, async || {
            let arguments = ["annotate", "moedeployment", name, annotation, "--namespace", &namespace.name];
            cluster.kubectl(arguments).map(drop)
        })
        .await?;
        suite.figure("new keys for a deployment until ready", seconds(began))?;
        ensure!(deployment.answer(1, || {}).await? == answer, "another answer than with the old keys");

        rolled(&deployment, async || {
            namespace.api::<Secret>().delete(&secret_name(name), &DeleteParams::default()).await?;
            Ok(())
        })
        .await?;
        ensure!(deployment.answer(1, || {}).await? == answer, "another answer than before the Secret was lost");
        told_nowhere(namespace, &deployment).await
    }))
}

/// The Secret belongs to the deployment, ranks have one key of it and the coordinator both.
async fn owned(deployment: &Deployment<'_>) -> Result<()> {
    let secret = deployment.keys().await?;
    let uid = deployment.object().await?.metadata.uid;
    let owner = secret.owner_references().first().context("the Secret has no owner")?;
    ensure!(Some(&owner.uid) == uid.as_ref() && owner.controller == Some(true), "{owner:?}");
    for (name, pod) in deployment.pods().await? {
        let volumes = pod.spec.and_then(|spec| spec.volumes).unwrap_or_default();
        let keys = volumes.into_iter().find_map(|volume| volume.secret).with_context(|| format!("{name}: no keys"))?;
        let files: Vec<String> = keys.items.unwrap_or_default().into_iter().map(|item| item.key).collect();
        let expected: &[&str] =
            if name == deployment.coordinator() { &[GROUP_SECRET, ADMIN_TOKEN] } else { &[GROUP_SECRET] };
        ensure!(files == expected, "{name} has {files:?}");
    }
    Ok(())
}

async fn only_with_the_token(deployment: &Deployment<'_>) -> Result<()> {
    let admin = deployment.admin().await?;
    admin::state(&admin.endpoint).await?;
    for token in [None, Some("another-token-of-the-same-length-as-those-that-are-made-by-it".to_owned())] {
        let refused = admin::state(&admin::Endpoint { url: admin.endpoint.url.clone(), token }).await;
        ensure!(refused.as_ref().is_err_and(|error| format!("{error:#}").contains("401")), "{refused:?}");
    }
    let http = reqwest::Client::new();
    let rebalance = http.post(format!("{}{}", admin.endpoint.url, path::REBALANCE)).send().await?;
    ensure!(rebalance.status() == 401, "rebalancing without a token is answered with {}", rebalance.status());
    for open in ["/livez", "/metrics"] {
        let status = http.get(format!("{}{open}", admin.endpoint.url)).send().await?.status();
        ensure!(status == 200, "{open} is answered with {status}");
    }
    Ok(())
}

/// Makes a change, and waits until there are other keys and only other pods, and these serve.
async fn rolled(deployment: &Deployment<'_>, change: impl AsyncFnOnce() -> Result<()>) -> Result<()> {
    let before = deployment.keys().await?;
    let old: BTreeSet<_> = deployment.pods().await?.into_values().filter_map(|pod| pod.metadata.uid).collect();
    change().await?;
    wait::until("every pod is another one", Duration::from_mins(2), async || {
        let keys = deployment.keys().await?;
        ensure!(keys.data.is_some() && keys.data != before.data, "the keys are those of before");
        let pods = deployment.pods().await?;
        let kept = pods.values().filter(|pod| pod.metadata.uid.as_ref().is_some_and(|uid| old.contains(uid))).count();
        ensure!(kept == 0 && pods.len() == old.len(), "{kept} of {} pods are old", pods.len());
        Ok(())
    })
    .await?;
    deployment.ready().await?;
    wait::until("its admin API takes the new token", Duration::from_secs(30), async || {
        deployment.state().await.map(drop)
    })
    .await
}

/// No value of a key is in the deployment, its events, or what the operator and the pods log.
async fn told_nowhere(namespace: &Namespace<'_>, deployment: &Deployment<'_>) -> Result<()> {
    let values: Vec<String> = deployment
        .keys()
        .await?
        .data
        .unwrap_or_default()
        .into_values()
        .map(|value| String::from_utf8(value.0))
        .collect::<Result<_, _>>()?;
    ensure!(values.len() == 2 && values.iter().all(|value| value.len() == 64), "{} keys", values.len());
    let kinds = "moedeployments,pods,events.events.k8s.io,services,configmaps";
    let mut told = namespace.cluster.kubectl(["get", kinds, "--namespace", &namespace.name, "--output=yaml"])?.stdout;
    let operator = format!("deployment/{}", chart::RELEASE);
    told += &namespace.cluster.kubectl(["logs", &operator, "--namespace", chart::NAMESPACE])?.stdout;
    for pod in deployment.pods().await?.into_keys() {
        told += &namespace.api::<Pod>().logs(&pod, &LogParams::default()).await?;
    }
    ensure!(values.iter().all(|value| !told.contains(value.as_str())), "a key is told");
    Ok(())
}

/// What a stranger's coordinator says of the balance: lower than any real one.
const FORGED_RATIO: f64 = 0.01;

/// A pod that says of itself that it is a coordinator, as whoever may create pods can let one, and answers as one does.
pub fn strangers_are_not_believed(suite: &Suite) -> Result<()> {
    let cluster = suite.installed()?;
    block_on(in_namespace(cluster, "strangers", async |namespace| {
        let deployment = Deployment::apply(namespace, "tiny-moe.yaml", |object| {
            object["spec"]["eplb"]["numIterationsEplbUpdate"] = json!(40);
        })?;
        deployment.ready().await?;
        let mut state = deployment.state().await?;
        let ratio_per_layer = vec![FORGED_RATIO; state.model.layers];
        state.last_window = Some(WindowReport { number: 1, steps: 40, pairs: 1, ratio: FORGED_RATIO, ratio_per_layer });
        let genuine = deployment.pods().await?.remove(&deployment.coordinator()).context("no coordinator")?;
        forge(namespace, "stranger", &genuine, &state)?;
        namespace.ready_pod("stranger", Duration::from_secs(30)).await?;
        deployment.answer(1, || {}).await?;
        let service = deployment.service(1).await?;
        let traffic = Traffic::start(target(&service.url()), Domain::load("prose")?);
        let ratio = wait::until("the operator shows a ratio", Duration::from_mins(1), async || {
            let object = deployment.object().await?;
            Ok(object.data["status"]["ratio"].as_str().context("none yet")?.parse::<f64>()?)
        });
        let ratio = ratio.await;
        traffic.stop().await;
        let ratio = ratio?;
        ensure!(ratio > 10.0 * FORGED_RATIO, "the status shows {ratio}, which a stranger says");
        Ok(())
    }))
}

/// A pod without an owner, with the labels of the coordinator of a second replica, that serves `state`.
fn forge(namespace: &Namespace<'_>, name: &str, genuine: &Pod, state: &State) -> Result<()> {
    let mut labels = genuine.labels().clone();
    labels.insert("swiftbalancer.io/group".to_owned(), "1".to_owned());
    let file = path::STATE.trim_start_matches('/');
    let map = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name},
        "data": {"state": serde_json::to_string(state)?},
    });
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "labels": labels},
        "spec": {
            "terminationGracePeriodSeconds": 1,
            "containers": [{
                "name": "stranger", "image": "docker.io/swiftbalancer/test-pod:1", "imagePullPolicy": "Never",
                "args": ["serve", "/volume", ":8001"],
                "readinessProbe": {"httpGet": {"path": path::STATE, "port": 8001}, "periodSeconds": 1},
                "volumeMounts": [{"name": "volume", "mountPath": "/volume"}],
            }],
            "volumes": [{
                "name": "volume", "configMap": {"name": name, "items": [{"key": "state", "path": file}]},
            }],
        },
    });
    namespace.apply(&map.to_string())?;
    namespace.apply(&pod.to_string())
}
