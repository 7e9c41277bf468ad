//! The demo on a cluster.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::shift::{self, Endpoints, LAST};
use super::site::{NAMESPACE, Reach, Site};
use super::stages::Stages;
use crate::image::Archive;
use crate::traffic::{Domain, ask};
use crate::{admin, wait};

const FIRST: &str = "tiny-moe";
const SECOND: &str = "tiny-moe-warm";
const READY: Duration = Duration::from_mins(2);

pub async fn run(site: &Site, images: &[Archive], stages: &mut Stages) -> Result<()> {
    stages.begin("The chart");
    site.install_chart(images)?;

    stages.begin("kubectl apply -f examples/tiny-moe.yaml, until its first token");
    site.kubectl(&["create", "namespace", NAMESPACE])?;
    let applied = apply(site, "examples/tiny-moe.yaml")?;
    let first = Deployment::ready(site, FIRST, applied, stages).await?;
    first.first_token(stages).await?;

    stages.begin("Traffic that shifts from domain to domain");
    shift::shift(&first.endpoints, stages).await?;
    show(site)?;

    stages.begin("The recorded map");
    let map = recorded_map(site, &first.endpoints).await?;
    stages.say(&format!("ConfigMap {map}, with where it comes from:"));
    let annotations: BTreeMap<String, String> =
        serde_json::from_str(&site.field("configmap", &map, "{.metadata.annotations}")?)?;
    for (name, value) in annotations {
        println!("      {name}: {value}");
    }

    stages.begin("kubectl apply -f examples/tiny-moe-warm.yaml, which starts from it");
    drop(first);
    let applied = apply(site, "examples/tiny-moe-warm.yaml")?;
    let second = Deployment::ready(site, SECOND, applied, stages).await?;
    let window = shift::first_window(&second.endpoints, LAST).await?;
    stages.say(&format!(
        "ratio of its first window, {} steps of {LAST}: {:.3}; it moved {} experts",
        window.steps,
        window.ratio,
        admin::state(&second.endpoints.admin).await?.moves.experts_moved
    ));
    show(site)
}

/// Applies a file; when that began.
fn apply(site: &Site, file: &str) -> Result<Instant> {
    let began = Instant::now();
    site.kubectl(&["apply", "--namespace", NAMESPACE, "--filename", file])?;
    Ok(began)
}

fn show(site: &Site) -> Result<()> {
    let table = site.kubectl(&["get", "moedeployments", "--namespace", NAMESPACE])?;
    for line in table.lines() {
        println!("   {line}");
    }
    Ok(())
}

/// The ConfigMap with the map that the coordinator has recorded last.
async fn recorded_map(site: &Site, endpoints: &Endpoints) -> Result<String> {
    let hash = admin::state(&endpoints.admin).await?.recorded_map_hash.context("no map was recorded")?;
    wait::until("the map is a ConfigMap", Duration::from_secs(90), async || {
        let recorded = site.field("moedeployment", FIRST, "{.status.expertMap.hash} {.status.expertMap.configMap}")?;
        match recorded.split_once(' ') {
            Some((found, map)) if found == hash => Ok(map.to_owned()),
            _ => anyhow::bail!("status.expertMap is {recorded:?}, not {hash}"),
        }
    })
    .await
}

/// A deployment that serves, and the ways to it.
struct Deployment {
    endpoints: Endpoints,
    applied: Instant,
    _ways: [Reach; 2],
}

impl Deployment {
    async fn ready(site: &Site, name: &str, applied: Instant, stages: &Stages) -> Result<Self> {
        let ready = r#"{.status.conditions[?(@.type=="Ready")].status}"#;
        let reason = r#"{.status.conditions[?(@.type=="Ready")].message}"#;
        wait::until(&format!("{name} is ready"), READY, async || {
            ensure!(site.field("moedeployment", name, ready)? == "True", site.field("moedeployment", name, reason)?);
            Ok(())
        })
        .await?;
        stages.say("ready");
        let openai = site.reach_service(name, 80)?;
        let admin = site.reach_pod(&format!("{name}-0-coordinator"), 8001)?;
        let token = Some(site.admin_token(name)?);
        let endpoints = Endpoints { openai: openai.url(), admin: admin::Endpoint { url: admin.url(), token } };
        Ok(Self { endpoints, applied, _ways: [openai, admin] })
    }

    async fn first_token(&self, stages: &Stages) -> Result<()> {
        let http = reqwest::Client::new();
        let chat = Domain::load("chat")?;
        let mut first = None;
        let target = shift::target(&self.endpoints.openai);
        let answer = wait::until("it answers", Duration::from_secs(10), async || {
            ask(&http, &target, chat.question(2), |_| {
                first.get_or_insert_with(|| self.applied.elapsed());
            })
            .await
        });
        let answer = answer.await?;
        let first = first.context("an answer without a token")?;
        stages.say(&format!("first token {:.1} s after apply: {:?}", first.as_secs_f64(), answer.text));
        Ok(())
    }
}
