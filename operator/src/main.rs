//! The SwiftBalancer operator.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::{ArgAction, Args, Parser, Subcommand};
use jiff::SignedDuration;
use kube::{Client, Config, CustomResourceExt as _};
use operator::api::MoEDeployment;
use operator::context::Settings;
use operator::host_paths::{AllowedHostPaths, HostPath};
use operator::metrics::Metrics;
use operator::observed::RuntimeImages;
use operator::runtime_client::HttpRuntimeClient;
use operator::{controller, health};
use plan::wire::process::{everywhere, listen};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// Runs `MoEDeployments`.
#[derive(Parser)]
#[command(name = "swiftbalancer-operator", version, about)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Print the custom resource definition as YAML.
    Crd,
    /// Run until SIGTERM or SIGINT.
    Run(Run),
    /// Ask an operator whether it is ready, and fail if it is not within 30 s.
    Check {
        /// Where it serves its probes, as `http://host:port`.
        url: String,
    },
}

#[derive(Args)]
struct Run {
    /// Image of the runtime for deployments that name none.
    #[arg(long, env = "RUNTIME_IMAGE")]
    runtime_image: String,
    /// Image of the runtime for deployments that ask for GPUs and name none; without it those are refused.
    #[arg(long, env = "GPU_RUNTIME_IMAGE")]
    gpu_runtime_image: Option<String>,
    /// Serve one namespace instead of all.
    #[arg(long, env = "WATCH_NAMESPACE")]
    namespace: Option<String>,
    /// Whether to watch nodes. Without it no right beyond a namespace is needed: pods of lost nodes are replaced when Kubernetes
    /// removes them, and GPUs are not counted before pods ask for them.
    #[arg(long, env = "WATCH_NODES", default_value_t = true, action = ArgAction::Set)]
    watch_nodes: bool,
    /// Folder of nodes that deployments may mount, with what is below it; give it again for each further one. Without any,
    /// a deployment that mounts one is refused.
    #[arg(long = "allow-host-path", value_name = "FOLDER")]
    allowed_host_paths: Vec<HostPath>,
    /// Address of /livez, /readyz and /metrics.
    #[arg(long, default_value_t = everywhere(8080))]
    listen: SocketAddr,
    /// Seconds between two questions to a coordinator.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=3600))]
    poll_seconds: u64,
    /// Seconds for which a node may be out of reach, while most are not, before its pods are replaced.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(i64).range(1..=86_400))]
    node_lost_seconds: i64,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    match Arguments::parse().command {
        Command::Crd => {
            print!("{}", serde_saphyr::to_string(&MoEDeployment::crd()).context("write the definition as YAML")?);
            Ok(())
        }
        Command::Run(arguments) => run(arguments).await,
        Command::Check { url } => {
            health::check(&url, Duration::from_secs(30)).await?;
            println!("{url} is ready");
            Ok(())
        }
    }
}

async fn run(arguments: Run) -> anyhow::Result<()> {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().json().with_env_filter(filter).init();
    let mut config = Config::infer().await.context("find the API server")?;
    // A client that tries again by itself, unseen and for minutes, holds back everything else: passes are tried again instead.
    config.default_retry = false;
    let client = Client::try_from(config).context("set up the client of the API server")?;
    let metrics = Arc::new(Metrics::new().context("register metrics")?);
    let listener = listen(arguments.listen).and_then(|listener| {
        listener.set_nonblocking(true)?;
        TcpListener::from_std(listener)
    });
    let listener = listener.with_context(|| format!("listen on {} for probes", arguments.listen))?;
    let probes = tokio::spawn(axum::serve(listener, health::router(Arc::clone(&metrics))).into_future());
    let runtime_client = Arc::new(HttpRuntimeClient::new().context("set up the HTTP client")?);
    let settings = Settings {
        images: RuntimeImages {
            cpu: arguments.runtime_image,
            gpu: arguments.gpu_runtime_image.filter(|image| !image.is_empty()),
        },
        namespace: arguments.namespace.filter(|namespace| !namespace.is_empty()),
        watch_nodes: arguments.watch_nodes,
        allowed_host_paths: AllowedHostPaths::new(arguments.allowed_host_paths),
        poll: Duration::from_secs(arguments.poll_seconds),
        node_lost_after: SignedDuration::from_secs(arguments.node_lost_seconds),
    };
    controller::run(client, runtime_client, settings, metrics, stopped()?).await;
    probes.abort();
    Ok(())
}

/// Resolves at SIGTERM or SIGINT.
fn stopped() -> anyhow::Result<impl Future<Output = ()> + Send> {
    let mut terminate = signal(SignalKind::terminate()).context("handle SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("handle SIGINT")?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("stopping");
    })
}
