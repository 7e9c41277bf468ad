//! What `kubectl moe status` shows of deployments: pure, from objects and from what coordinators say.

mod list;
mod one;
mod watch;

use clap::Args;

use crate::cluster::Cluster;
use crate::connection::Connection;
use crate::output::Output;
use crate::watch::WatchOption;
use crate::{PluginError, Terminal};

/// Arguments of `kubectl moe status`.
#[derive(Args, Clone, Debug)]
pub(crate) struct StatusArguments {
    /// Name of the MoEDeployment; all of the namespace if left out
    name: Option<String>,
    /// All namespaces
    #[arg(long, short = 'A', conflicts_with = "name")]
    all_namespaces: bool,
    #[command(flatten)]
    watch: WatchOption,
    /// How the result is printed
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
    #[command(flatten)]
    pub connection: Connection,
}

pub(crate) async fn status(
    arguments: &StatusArguments,
    cluster: &Cluster,
    terminal: &mut Terminal<'_>,
) -> Result<(), PluginError> {
    let &StatusArguments { ref name, all_namespaces, watch, output, .. } = arguments;
    match name {
        Some(name) if watch.watch => {
            terminal.progress.doing("asking the coordinators");
            crate::watch::watch(output, terminal, async || one::read(cluster, name, output).await).await
        }
        Some(name) => {
            terminal.progress.doing("asking the coordinators");
            let text = one::read(cluster, name, output).await?;
            terminal.print(&text)
        }
        None if watch.watch => watch::all(cluster, all_namespaces, output, terminal).await,
        None => {
            terminal.progress.doing("asking the API server");
            let deployments = cluster.deployments(all_namespaces).await?;
            if deployments.is_empty() {
                terminal.warn(&format!("no MoEDeployment in {}", cluster.place(all_namespaces)));
            }
            terminal.print(&list::render(&deployments, all_namespaces, output))
        }
    }
}
