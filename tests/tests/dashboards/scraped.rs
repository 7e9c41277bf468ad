//! What Prometheus scrapes: a coordinator and its ranks as processes, the operator's own metrics, and what only a GPU would tell.

use std::fs;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use axum::Router;
use axum::routing::get;
use kube::runtime::reflector;
use kube::runtime::watcher::Event;
use operator::context::Guarded;
use operator::health;
use operator::metrics::Metrics;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use tempfile::TempDir;
use tests::workspace::{self, Binaries};
use tests::{admin, wait};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;

use crate::prometheus::{Scraped, free_address};

const RANKS: usize = 4;

pub struct Deployment {
    pub openai: String,
    admin: String,
    health: Vec<String>,
    operator: String,
    gpus: String,
    coordinator: Child,
    _ranks: Vec<Child>,
    _serving: [JoinHandle<()>; 2],
    _folder: TempDir,
}

impl Deployment {
    pub async fn start() -> Result<Self> {
        let program = Binaries::build()?.runtime;
        let folder = tempfile::tempdir()?;
        let secret = folder.path().join("secret");
        fs::write(&secret, "a secret of this test alone, of 32 bytes and more")?;
        let model = workspace::root().join("examples/models/tiny-moe");
        let [openai, admin, control] = [free_address()?, free_address()?, free_address()?];
        let command = |role: &str| {
            let mut command = Command::new(&program);
            command.arg(role).arg("--model").arg(&model).arg("--secret-file").arg(&secret);
            command.stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true).env("RUST_LOG", "warn");
            command
        };
        let coordinator = command("coordinator")
            .args([
                "--served-model-name",
                "tiny-moe",
                "--ranks",
                "4",
                "--init-redundancy-expert",
                "4",
                "--dynamic-eplb",
            ])
            .args(["--num-iterations-eplb-update", "60", "--num-wait-worker-iterations", "30"])
            .args(["--listen", &openai, "--admin-listen", &admin, "--control-listen", &control])
            .arg("--expert-map-record-path")
            .arg(folder.path().join("map.json"))
            .spawn()
            .context("starting the coordinator")?;
        let (mut ranks, mut health) = (Vec::new(), Vec::new());
        for rank in 0..RANKS {
            let address = free_address()?;
            let started = command("worker")
                .args(["--rank", &rank.to_string(), "--coordinator", &control, "--health-listen", &address])
                .args(["--listen", "127.0.0.1:0", "--move-listen", "127.0.0.1:0", "--advertise-address", "127.0.0.1"])
                .args(["--threads", "1", "--backend", "cpu"])
                .spawn()
                .context("starting a rank")?;
            ranks.push(started);
            health.push(address);
        }
        let endpoint = admin::Endpoint { url: format!("http://{admin}"), token: None };
        wait::until("the runtime serves", Duration::from_mins(2), async || {
            ensure!(admin::state(&endpoint).await?.ready, "its group is not formed");
            Ok(())
        })
        .await?;
        let (operator, of_operator) = serve(operator()?).await?;
        let (gpus, of_gpus) = serve(Router::new().route("/metrics", get(|| async { gpus() }))).await?;
        let openai = format!("http://{openai}");
        let serving = [of_operator, of_gpus];
        Ok(Self {
            openai,
            admin,
            health,
            operator,
            gpus,
            coordinator,
            _ranks: ranks,
            _serving: serving,
            _folder: folder,
        })
    }

    /// With the labels that the chart's monitors give them.
    pub fn targets(&self) -> Vec<Scraped> {
        let of = |pod: &str| json!({"namespace": "serving", "deployment": "tiny-moe", "replica": "0", "pod": pod});
        let mut targets =
            vec![Scraped { address: self.admin.clone(), labels: of("tiny-moe-0-coordinator"), honor_labels: false }];
        for (rank, address) in self.health.iter().enumerate() {
            let labels = of(&format!("tiny-moe-0-rank-{rank}"));
            targets.push(Scraped { address: address.clone(), labels, honor_labels: false });
        }
        targets.push(Scraped { address: self.gpus.clone(), labels: of("tiny-moe-0-rank-0"), honor_labels: false });
        let labels = json!({"namespace": "swiftbalancer", "pod": "swiftbalancer-operator"});
        targets.push(Scraped { address: self.operator.clone(), labels, honor_labels: true });
        targets
    }

    /// Asks the coordinator to end, as Kubernetes would.
    pub async fn stop(mut self) -> Result<()> {
        let pid = self.coordinator.id().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
        kill_process(pid.context("the coordinator has ended")?, Signal::TERM)?;
        let ended = tokio::time::timeout(Duration::from_mins(1), self.coordinator.wait()).await;
        let ended = ended.context("the coordinator does not end")??;
        ensure!(ended.success(), "{ended}");
        Ok(())
    }
}

async fn serve(router: Router) -> Result<(String, JoinHandle<()>)> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?.to_string();
    let serving = tokio::spawn(async move {
        let _ = axum::serve(listener, router).await;
    });
    Ok((address, serving))
}

/// What the operator exports, of two deployments and some passes.
fn operator() -> Result<Router> {
    let metrics = Arc::new(Metrics::new()?);
    let (store, mut writer) = reflector::store::<Guarded>();
    metrics.show(store)?;
    metrics.set_ready();
    let example = fs::read_to_string(workspace::root().join("examples/tiny-moe.yaml"))?;
    for (name, ready) in [("tiny-moe", true), ("other", false)] {
        let mut deployment: serde_json::Value = serde_saphyr::from_str(&example)?;
        deployment["metadata"] = json!({"name": name, "namespace": "serving"});
        let condition = |kind: &str, is_true: bool, reason: &str| {
            let status = if is_true { "True" } else { "False" };
            json!({"type": kind, "status": status, "reason": reason, "message": "",
                   "lastTransitionTime": "2026-01-01T00:00:00Z"})
        };
        let reason = if ready { "AllReplicasReady" } else { "Unschedulable" };
        deployment["status"] = json!({"readyReplicas": i32::from(ready), "conditions": [
            condition("Ready", ready, reason),
            condition("Available", ready, if ready { "ReplicaReady" } else { "NoReplicaReady" }),
            condition("Progressing", false, "Complete"),
            condition("Degraded", false, "AsExpected"),
            condition("Balanced", ready, "LoadEven"),
        ]});
        writer.apply_watcher_event(&Event::Apply(serde_json::from_value(deployment)?));
    }
    // Passes and writes go on while Prometheus looks.
    let working = Arc::clone(&metrics);
    let router = health::router(metrics);
    let work = move || {
        let passes = Arc::clone(&working);
        async move {
            drop(passes.reconcile());
            passes.reconcile().failed("apply");
            passes.wrote("Pod", "create");
        }
    };
    Ok(router.layer(axum::middleware::from_fn(move |request: axum::extract::Request, next: axum::middleware::Next| {
        let work = work();
        async move {
            work.await;
            next.run(request).await
        }
    })))
}

/// What ranks on GPUs would tell too, as docs/operations.md lists it.
fn gpus() -> String {
    let of_rank = |rank: usize| {
        let (used, memory) = (8 - rank, 60 + rank);
        [
            format!("gpu_utilization{{rank=\"{rank}\"}} 0.{used}\n"),
            format!("swiftbalancer_rank_gpu_memory_used_bytes{{rank=\"{rank}\"}} {memory}e9\n"),
        ]
    };
    (0..RANKS).flat_map(of_rank).collect()
}
