//! Traffic shifts, the map follows, is recorded, and a second deployment starts from it.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use clap::Parser as _;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::ResourceExt;
use kubectl_moe::{Arguments, Terminal};
use plan::wire::WindowReport;
use serde_json::{Value, json};
use tests::namespace::{Namespace, in_namespace};
use tests::traffic::{Domain, Traffic};
use tests::{admin, wait};

use crate::deployment::{Deployment, target};
use crate::suite::{Suite, block_on};

const WINDOW: Duration = Duration::from_mins(2);
/// Windows within which a shift has to be balanced again: the one in which it happens is not whole.
const MOST_WINDOWS: usize = 4;

pub fn recorded_map(suite: &Suite) -> Result<()> {
    let cluster = suite.installed()?;
    block_on(in_namespace(cluster, "recorded_map", async |namespace| {
        let first = Deployment::apply(namespace, "tiny-moe.yaml", |_| {})?;
        first.ready().await?;
        // A node routes a service a moment after its pods are ready.
        first.answer(1, || {}).await?;
        let service = first.service(1).await?;
        let admin = first.admin().await?;
        let traffic = Traffic::start(target(&service.url()), Domain::load("python")?);
        balanced(&admin.endpoint, 0).await?;
        traffic.shift(Domain::load("scripture")?);
        let before = admin::state(&admin.endpoint).await?.last_window.map_or(0, |window| window.number);
        // The window in which the shift happens has traffic of both; the next is the first of the new domain alone.
        let shifted = window_after(&admin.endpoint, before).await?;
        suite.figure("ratio of the window in which traffic shifts, 4 ranks", format_args!("{:.3}", shifted.ratio))?;
        let windows = balanced(&admin.endpoint, before + 1).await?;
        suite.figure("ratios of the windows after a shift until one is 0.94, 4 ranks", in_short(&windows))?;
        let seen = traffic.stop().await;
        ensure!(seen.failures.is_empty(), "{} requests failed: {:?}", seen.failures.len(), seen.failures.first());

        // The last window may still change shares, and with them the map that is recorded.
        let map = wait::until("the map is a ConfigMap", Duration::from_secs(90), async || {
            let recorded = admin::state(&admin.endpoint).await?.recorded_map_hash.context("no map was recorded")?;
            let object = first.object().await?;
            let status = &object.data["status"]["expertMap"];
            ensure!(status["hash"] == recorded, "status.expertMap is {status}, not {recorded}");
            Ok(status["configMap"].as_str().context("no name")?.to_owned())
        })
        .await?;
        let object = namespace.api::<ConfigMap>().get(&map).await?;
        ensure!(object.immutable == Some(true), "{map} can be changed");
        println!("{map}: {:?}", object.annotations());

        let second = Deployment::apply(namespace, "tiny-moe-warm.yaml", |object| {
            object["spec"]["eplb"]["expertMapRef"] = json!({ "name": map });
        })?;
        second.ready().await?;
        second.answer(2, || {}).await?;
        let service = second.service(2).await?;
        let admin = second.admin().await?;
        let traffic = Traffic::start(target(&service.url()), Domain::load("scripture")?);
        let window = window_after(&admin.endpoint, 0).await?;
        let seen = traffic.stop().await;
        ensure!(seen.failures.is_empty(), "{} requests failed: {:?}", seen.failures.len(), seen.failures.first());
        let state = admin::state(&admin.endpoint).await?;
        ensure!(state.static_map, "it did not start from the map");
        let tokens = window.pairs / (state.model.layers as u64 * 4);
        suite.figure(
            "ratio of the first window of a deployment started from the recorded map",
            format_args!("{:.3} ({tokens} tokens)", window.ratio),
        )?;
        ensure!(window.ratio >= 0.94, "{window:?}");
        resized(suite, namespace, &first).await
    }))
}

/// A deployment with fewer ranks starts from what `kubectl moe` plans for the load that it has seen with more.
async fn resized(suite: &Suite, namespace: &Namespace<'_>, deployment: &Deployment<'_>) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let file = |name: &str| folder.path().join(name);
    fs::write(file("kubeconfig"), namespace.cluster.kubeconfig()?)?;
    let moe = async |arguments: &str| {
        let [kubeconfig, load, map] =
            ["kubeconfig", "load.json", "map.json"].map(|name| file(name).display().to_string());
        let arguments = arguments.replace("LOAD", &load).replace("MAP", &map);
        let command = format!("kubectl-moe --kubeconfig {kubeconfig} --namespace {} {arguments}", namespace.name);
        let arguments = Arguments::try_parse_from(command.split(' '))?;
        let (mut output, mut errors) = (Vec::new(), Vec::new());
        let mut terminal = Terminal {
            input: &mut std::io::empty(),
            output: &mut output,
            errors: &mut errors,
            now: &Duration::default,
            progress: &(),
            input_is_read: false,
            is_a_screen: false,
        };
        kubectl_moe::run(arguments, &mut terminal).await.with_context(|| command.clone())?;
        anyhow::Ok(String::from_utf8(output)?)
    };
    let status = moe(&format!("status {}", deployment.name)).await?;
    ensure!(status.contains("Ready"), "{status}");
    fs::write(file("load.json"), moe(&format!("load {}", deployment.name)).await?)?;
    let planned = moe("plan --load LOAD --ranks 2 --redundancy 2 --out MAP --output json").await?;
    let planned: Value = serde_json::from_str(&planned)?;
    let even = planned["ratio_before"].as_f64().context("no ratio_before")?;
    namespace.apply(&serde_json::to_string(&json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "for-2-ranks" },
        "data": { "map.json": fs::read_to_string(file("map.json"))? },
    }))?)?;
    let resized = Deployment::apply(namespace, "tiny-moe.yaml", |object| {
        object["spec"]["parallelism"]["data"] = json!(2);
        object["spec"]["eplb"]["initRedundancyExpert"] = json!(2);
        object["spec"]["eplb"]["expertMapRef"] = json!({ "name": "for-2-ranks" });
    })?;
    resized.ready().await?;
    let refused = moe(&format!("load {}", deployment.name)).await.map_err(|error| format!("{error:#}"));
    ensure!(refused.as_ref().is_err_and(|error| error.contains("no window has closed yet")), "{refused:?}");
    resized.answer(1, || {}).await?;
    let service = resized.service(1).await?;
    let admin = resized.admin().await?;
    let traffic = Traffic::start(target(&service.url()), Domain::load("scripture")?);
    let window = window_after(&admin.endpoint, 0).await?;
    let seen = traffic.stop().await;
    ensure!(seen.failures.is_empty(), "{} requests failed: {:?}", seen.failures.len(), seen.failures.first());
    suite.figure(
        "ratio of the first window of 2 ranks started from a plan for the load that 4 have seen",
        format_args!("{:.3}, {even:.3} without it", window.ratio),
    )?;
    ensure!(window.ratio >= 0.94 && window.ratio > even, "{window:?}, {even} without a plan");
    Ok(())
}

/// The first closed window with a number above `number`.
async fn window_after(admin: &admin::Endpoint, number: u64) -> Result<WindowReport> {
    wait::until("a window has closed", WINDOW, async || {
        let state = admin::state(admin).await?;
        match state.last_window {
            Some(window) if window.number > number => Ok(window),
            _ => bail!("{} steps of it", state.window_steps),
        }
    })
    .await
}

/// The windows after `number` up to the first with a ratio of 0.94.
async fn balanced(admin: &admin::Endpoint, number: u64) -> Result<Vec<WindowReport>> {
    let mut windows: Vec<WindowReport> = Vec::new();
    while windows.len() < MOST_WINDOWS {
        let window = window_after(admin, windows.last().map_or(number, |last| last.number)).await?;
        let reached = window.ratio >= 0.94;
        windows.push(window);
        if reached {
            return Ok(windows);
        }
    }
    bail!("ratios of {} in {MOST_WINDOWS} windows", in_short(&windows))
}

fn in_short(windows: &[WindowReport]) -> String {
    let ratios: Vec<_> = windows.iter().map(|window| format!("{:.3}", window.ratio)).collect();
    ratios.join(", ")
}
