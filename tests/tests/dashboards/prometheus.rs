//! A Prometheus of the test's own.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use tempfile::TempDir;
use tests::cluster::program;
use tests::wait;

/// What is scraped, and the labels that the chart's monitors give it.
pub struct Scraped {
    pub address: String,
    pub labels: Value,
    pub honor_labels: bool,
}

pub struct Prometheus {
    pub url: String,
    client: reqwest::Client,
    _process: tokio::process::Child,
    _folder: TempDir,
}

/// An address that was free a moment ago.
pub fn free_address() -> Result<String> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.to_string())
}

impl Prometheus {
    pub async fn start(targets: &[Scraped]) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let jobs = targets.iter().enumerate().map(|(number, Scraped { address, labels, honor_labels })| {
            json!({
                "job_name": format!("job-{number}"), "honor_labels": honor_labels,
                "static_configs": [{"targets": [address], "labels": labels}],
            })
        });
        let settings = json!({
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s"},
            "scrape_configs": jobs.collect::<Vec<_>>(),
        });
        // JSON is YAML.
        let file = folder.path().join("prometheus.yml");
        fs::write(&file, settings.to_string())?;
        let address = free_address()?;
        let process = tokio::process::Command::new(program("prometheus")?)
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .args(["--log.level=warn", "--query.lookback-delta=30s"])
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .context("starting Prometheus")?;
        let (url, client) = (format!("http://{address}"), reqwest::Client::new());
        let prometheus = Self { url, client, _process: process, _folder: folder };
        wait::until("Prometheus is ready", Duration::from_mins(1), async || {
            let ready = prometheus.client.get(format!("{}/-/ready", prometheus.url)).send().await?;
            Ok(ready.error_for_status().map(drop)?)
        })
        .await?;
        Ok(prometheus)
    }

    async fn data(&self, path: &str, parameters: &[(&str, &str)]) -> Result<Value> {
        let answer = self.client.get(format!("{}/api/v1/{path}", self.url)).query(parameters).send().await?;
        let answer: Value = serde_json::from_slice(&answer.bytes().await?)?;
        if answer["status"] != "success" {
            bail!("{path} {parameters:?}: {answer}");
        }
        Ok(answer["data"].clone())
    }

    /// Values of an expression now.
    pub async fn query(&self, expression: &str) -> Result<Vec<Value>> {
        let data = self.data("query", &[("query", expression)]).await?;
        Ok(data["result"].as_array().cloned().unwrap_or_default())
    }

    /// An expression as a tree.
    pub async fn parse(&self, expression: &str) -> Result<Value> {
        self.data("parse_query", &[("query", expression)]).await
    }

    /// Series of a metric, as their labels.
    pub async fn series(&self, metric: &str) -> Result<Vec<Value>> {
        Ok(self.data("series", &[("match[]", metric)]).await?.as_array().cloned().unwrap_or_default())
    }
}
