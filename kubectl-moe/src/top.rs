//! `kubectl moe top`: how busy each replica of each deployment is. Here is the shell: who is asked, and when; what a row tells is made in
//! `row`.

mod row;

use std::time::Duration;

use clap::{Args, ValueEnum};
use futures::StreamExt as _;
use kube::ResourceExt as _;
use plan::wire::MonitorDocument;
use plan::words::with_causes;
use tokio::sync::Semaphore;

use self::row::{Row, render};
use crate::cluster::Cluster;
use crate::connection::Connection;
use crate::coordinator::Coordinator;
use crate::monitor::View;
use crate::output::Output;
use crate::watch::{WatchOption, watch};
use crate::{PluginError, Terminal};

/// Coordinators that are asked at a time.
const AT_A_TIME: usize = 16;
/// What happened is not shown: none of it is asked for.
const NO_EVENTS: u64 = u64::MAX;

/// Arguments of `kubectl moe top`.
#[derive(Args, Clone, Debug)]
pub(crate) struct TopArguments {
    /// Name of the MoEDeployment; all of the namespace if left out
    name: Option<String>,
    /// All namespaces
    #[arg(long, short = 'A', conflicts_with = "name")]
    all_namespaces: bool,
    /// Seconds over which rates and balance are taken
    #[arg(long, value_name = "S", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=60))]
    seconds: u64,
    /// What comes first
    #[arg(long, value_enum, default_value_t)]
    sort_by: SortBy,
    #[command(flatten)]
    watch: WatchOption,
    /// How the result is printed
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
    #[command(flatten)]
    pub connection: Connection,
}

/// What comes first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum SortBy {
    /// Names in order
    #[default]
    Name,
    /// Most tokens a second
    Tokens,
    /// Most requests that wait
    Waiting,
    /// Least balance
    Ratio,
    /// Longest time to the first token
    FirstToken,
}

pub(crate) async fn top(
    arguments: &TopArguments,
    cluster: &Cluster,
    terminal: &mut Terminal<'_>,
) -> Result<(), PluginError> {
    terminal.progress.doing("asking the coordinators");
    if arguments.watch.watch {
        return watch(arguments.output, terminal, async || Ok(shown(&read(arguments, cluster).await?, arguments)))
            .await;
    }
    let rows = read(arguments, cluster).await?;
    if rows.is_empty() {
        terminal.warn(&format!("no replica of an MoEDeployment in {}", cluster.place(arguments.all_namespaces)));
    }
    terminal.print(&shown(&rows, arguments))
}

fn shown(rows: &[Row], arguments: &TopArguments) -> String {
    render(rows, arguments.all_namespaces, arguments.output)
}

/// A row for each replica.
async fn read(arguments: &TopArguments, cluster: &Cluster) -> Result<Vec<Row>, PluginError> {
    let deployments = match &arguments.name {
        Some(name) => vec![cluster.deployment(name).await?],
        None => cluster.deployments(arguments.all_namespaces).await?,
    };
    let period = Duration::from_secs(arguments.seconds);
    let replicas = futures::stream::iter(&deployments).then(async |deployment| {
        let of_it = cluster.with_namespace_of(deployment);
        let coordinators = of_it.coordinators(deployment).await;
        let replicas = 0..usize::try_from(deployment.spec.replicas).unwrap_or(0);
        let (namespace, name) = (of_it.namespace.clone(), deployment.name_any());
        futures::stream::iter(replicas.map(move |replica| {
            let coordinator = coordinators.as_ref().map(|all| all[replica].clone()).map_err(|error| with_causes(error));
            (namespace.clone(), name.clone(), replica, coordinator)
        }))
    });
    let turns = Semaphore::new(AT_A_TIME);
    let asked = replicas.flatten().map(async |(namespace, name, replica, coordinator)| {
        let view = match coordinator {
            Ok(coordinator) => seen(cluster, &coordinator, period, &turns).await.map_err(|error| with_causes(&error)),
            Err(why) => Err(why),
        };
        Row::new(namespace, name, replica, view.as_ref())
    });
    let mut rows: Vec<Row> = asked.buffer_unordered(usize::from(u16::MAX)).collect().await;
    row::sort(&mut rows, arguments.sort_by);
    Ok(rows)
}

/// What a coordinator does over a period.
async fn seen(
    cluster: &Cluster,
    coordinator: &Coordinator,
    period: Duration,
    turns: &Semaphore,
) -> Result<View, PluginError> {
    let ask = async || -> Result<MonitorDocument, PluginError> {
        let _turn = turns.acquire().await;
        cluster.within(coordinator.monitor(NO_EVENTS)).await
    };
    let mut view = View::default();
    view.take(ask().await?);
    tokio::time::sleep(period).await;
    view.take(ask().await?);
    Ok(view)
}
