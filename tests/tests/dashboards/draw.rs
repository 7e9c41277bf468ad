//! Draws dashboards from their files and a Prometheus, with a page of our own in Chromium.

use std::fs;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use axum::Router;
use axum::response::Html;
use axum::routing::get;
use tests::workspace;
use tokio::process::Command;

use crate::prometheus::Prometheus;
use crate::queries::dashboards;

/// What Chromium is called, where it is.
const PROGRAMS: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];
const WIDTH: u64 = 1600;
/// Height of one of Grafana's units of a grid, and of what is above the panels.
const UNIT: u64 = 38;
const HEAD: u64 = 60;

/// Whether the dashboards are to be drawn.
pub fn is_asked() -> bool {
    std::env::var_os("SWIFTBALANCER_DASHBOARDS").is_some_and(|value| value == "draw")
}

/// Draws every dashboard into docs/dashboards.
pub async fn all(prometheus: &Prometheus) -> Result<()> {
    let page = fs::read_to_string(workspace::root().join("tests/dashboards/page.html"))?;
    let mut router = Router::new().route("/", get(move || async { Html(page) }));
    for (name, dashboard) in dashboards() {
        let text = dashboard.to_string();
        router = router.route(&format!("/{name}.json"), get(move || async { text }));
    }
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let serving = tokio::spawn(async move {
        let _ = axum::serve(listener, router).await;
    });
    let folder = workspace::root().join("docs/dashboards");
    fs::create_dir_all(&folder)?;
    for (name, dashboard) in dashboards() {
        let ends = dashboard["panels"].as_array().context("panels")?.iter().map(|panel| {
            let position = &panel["gridPos"];
            position["y"].as_u64().unwrap_or_default() + position["h"].as_u64().unwrap_or_default()
        });
        let height = HEAD + UNIT * ends.max().unwrap_or_default();
        let picture = folder.join(format!("{name}.png"));
        let url = format!("http://{address}/?dashboard={name}&prometheus={}&minutes=4", prometheus.url);
        picture_of(&url, height, &picture.to_string_lossy()).await?;
        println!("{}", picture.display());
    }
    serving.abort();
    Ok(())
}

async fn picture_of(url: &str, height: u64, path: &str) -> Result<()> {
    let profile = tempfile::tempdir()?;
    for program in PROGRAMS {
        let drawn = Command::new(program)
            .args(["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--virtual-time-budget=30000"])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg(format!("--window-size={WIDTH},{height}"))
            .arg(format!("--screenshot={path}"))
            .arg(url)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await;
        if let Ok(drawn) = drawn {
            ensure!(drawn.status.success(), "{program}: {}", String::from_utf8_lossy(&drawn.stderr));
            return Ok(());
        }
    }
    anyhow::bail!("there is no Chromium here to draw with: install the package chromium")
}
