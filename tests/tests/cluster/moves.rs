//! Moves that are asked for, and answers while they happen.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::ResourceExt as _;
use operator::names;
use plan::wire::{MapDocument, path};
use serde_json::{Value, json};
use tests::wait;

use crate::deployment::Deployment;

/// Tokens by which answers are compared: where processors and emulated GPUs answer, rounding is another, so that later ones may differ.
pub const COMPARED: usize = 8;
/// Tokens of an answer during which experts move: they wait for 30 steps after a group has formed.
const TOKENS: usize = 40;

/// What a deployment goes on with, greedily.
pub async fn continued(deployment: &Deployment<'_>, tokens: usize, patience: Duration) -> Result<String> {
    let service = deployment.service(1).await?;
    let request = json!({"model": "tiny-moe", "prompt": "The capital of", "max_tokens": tokens, "temperature": 0, "ignore_eos": true});
    let client = reqwest::Client::new();
    let answer: Value = wait::until("a prompt is continued", patience, async || {
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
pub async fn served_and_moved(deployment: &Deployment<'_>, patience: Duration) -> Result<String> {
    deployment.ready_within(patience).await?;
    // A map is recorded with the load of the last window, so one is closed first.
    let before = continued(deployment, COMPARED, patience).await?;
    ask_for_another_map(deployment).await?;
    let answer = continued(deployment, TOKENS, patience).await?;
    ensure!(answer.starts_with(&before), "{answer:?} while experts move, {before:?} before");
    let epoch = wait::until("experts have moved", patience, async || {
        let state = deployment.state().await?;
        if state.epoch == 0 || state.recorded_map_hash.is_none() {
            // It moves with steps, and without requests there are none.
            let again = continued(deployment, COMPARED, patience).await?;
            ensure!(answer.starts_with(&again), "{again:?} while experts move, not the start of {answer:?}");
        }
        ensure!(state.epoch > 0 && state.recorded_map_hash.is_some(), "{state:?}");
        Ok(state.epoch)
    })
    .await?;
    ensure!(
        answer.starts_with(&continued(deployment, COMPARED, patience).await?),
        "another answer after experts have moved"
    );
    wait::until("the map is recorded", patience, async || {
        let object = deployment.object().await?;
        let name = object.data["status"]["expertMap"]["configMap"].as_str().context("no map is recorded")?;
        let map = deployment.namespace.api::<ConfigMap>().get(name).await?;
        let recorded = map.annotations().get(names::MAP_EPOCH).context("a recorded map has an epoch")?;
        ensure!(*recorded == epoch.to_string(), "{name} is of epoch {recorded}, not {epoch}");
        ensure!(object.data["status"]["epoch"] == epoch, "{}", object.data["status"]);
        Ok(())
    })
    .await?;
    Ok(answer)
}
