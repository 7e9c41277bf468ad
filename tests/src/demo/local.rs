//! The demo without Kubernetes: the runtime alone, its ranks as processes of this machine.

use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::process::{Child, Command};

use super::shift::{self, BALANCED, Endpoints, LAST};
use super::stages::Stages;
use crate::workspace::{self, Binaries};
use crate::{admin, wait};

pub async fn run(binaries: &Binaries, stages: &mut Stages) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let map = folder.path().join("map.json");
    let map_path = map.to_str().context("a path that is not UTF-8")?;

    stages.begin("swiftbalancer-runtime local, 4 ranks");
    let dynamic = ["--dynamic-eplb", "--num-iterations-eplb-update", "100", "--expert-map-record-path", map_path];
    let first = Runtime::start(&binaries.runtime, &dynamic).await?;
    stages.say("ready");

    stages.begin("Traffic that shifts from domain to domain");
    shift::shift(&first.endpoints, stages).await?;
    recorded(&map).await?;
    first.stop().await?;

    stages.begin("A second start, from the recorded map");
    let fixed = ["--num-iterations-eplb-update", "100", "--expert-map-path", map_path];
    let second = Runtime::start(&binaries.runtime, &fixed).await?;
    let window = shift::first_window(&second.endpoints, LAST).await?;
    stages.say(&format!("ratio of its first window, {} steps of {LAST}: {:.3}", window.steps, window.ratio));
    ensure!(
        window.ratio >= BALANCED,
        "it started from the map and its first window has a ratio of {:.3}",
        window.ratio
    );
    second.stop().await
}

/// The file is written beside the serving.
async fn recorded(map: &Path) -> Result<()> {
    wait::until("the map is recorded", Duration::from_secs(20), async || {
        ensure!(map.exists(), "no file {}", map.display());
        Ok(())
    })
    .await
}

struct Runtime {
    child: Child,
    endpoints: Endpoints,
}

impl Runtime {
    async fn start(program: &Path, arguments: &[&str]) -> Result<Self> {
        let [openai, admin] = [free_address()?, free_address()?];
        let child = Command::new(program)
            .args(["local", "--served-model-name", "tiny-moe", "--ranks", "4", "--init-redundancy-expert", "4"])
            .args(["--listen", &openai, "--admin-listen", &admin, "--model"])
            .arg(workspace::root().join("examples/models/tiny-moe"))
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .context("starting the runtime")?;
        let endpoints = Endpoints {
            openai: format!("http://{openai}"),
            admin: admin::Endpoint { url: format!("http://{admin}"), token: None },
        };
        wait::until("the runtime serves", Duration::from_secs(30), async || {
            ensure!(admin::state(&endpoints.admin).await?.ready, "its group is not formed");
            Ok(())
        })
        .await?;
        Ok(Self { child, endpoints })
    }

    /// Asks it to end, as Kubernetes would.
    async fn stop(mut self) -> Result<()> {
        let pid = self.child.id().and_then(|pid| rustix::process::Pid::from_raw(i32::try_from(pid).ok()?));
        if let Some(pid) = pid {
            rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        }
        tokio::time::timeout(Duration::from_secs(20), self.child.wait())
            .await
            .context("the runtime does not end")??;
        Ok(())
    }
}

/// An address that was free a moment ago.
fn free_address() -> Result<String> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.to_string())
}
