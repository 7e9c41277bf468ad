//! Commands about one replica of a deployment: its load, and a rebalance.

use clap::Args;
use plan::wire::LoadDocument;
use serde::Serialize;

use crate::cluster::{Cluster, resource_name};
use crate::connection::Connection;
use crate::output::{Output, json, yaml};
use crate::table::columns;
use crate::watch::{WatchOption, watch};
use crate::words::{counted, percent};
use crate::{PluginError, Terminal};

/// Experts of a layer that are named, hottest first.
const HOTTEST: usize = 5;

/// Arguments of `kubectl moe load`.
#[derive(Args, Clone, Debug)]
pub(crate) struct LoadArguments {
    /// Name of the MoEDeployment
    name: String,
    /// Replica whose load is printed
    #[arg(long, default_value_t = 0)]
    replica: usize,
    #[command(flatten)]
    watch: WatchOption,
    /// How the load is printed; plan, simulate and size read json and yaml
    #[arg(long, short, value_enum, default_value_t = Output::Json)]
    output: Output,
    #[command(flatten)]
    pub connection: Connection,
}

/// Arguments of `kubectl moe rebalance`.
#[derive(Args, Clone, Debug)]
pub(crate) struct RebalanceArguments {
    /// Name of the MoEDeployment
    name: String,
    /// Replica to rebalance
    #[arg(long, default_value_t = 0)]
    replica: usize,
    /// How the result is printed
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
    #[command(flatten)]
    pub connection: Connection,
}

pub(crate) async fn load(
    arguments: &LoadArguments,
    cluster: &Cluster,
    terminal: &mut Terminal<'_>,
) -> Result<(), PluginError> {
    terminal.progress.doing("asking the coordinator");
    if arguments.watch.watch {
        return watch(arguments.output, terminal, async || read_load(arguments, cluster).await).await;
    }
    let text = read_load(arguments, cluster).await?;
    terminal.print(&text)
}

async fn read_load(arguments: &LoadArguments, cluster: &Cluster) -> Result<String, PluginError> {
    let LoadArguments { name, replica, output, .. } = arguments;
    let coordinator = cluster.coordinator(name, *replica).await?;
    let document = cluster.within(coordinator.load()).await?;
    Ok(match output {
        Output::Json => serde_json::to_string(&document).expect("a load document is plain data") + "\n",
        Output::Yaml => yaml(&document),
        Output::Name => resource_name(name) + "\n",
        Output::Table | Output::Wide => hottest(&document, output.is_wide()),
    })
}

/// The load of each layer, and which experts have most of it.
fn hottest(document: &LoadDocument, is_wide: bool) -> String {
    let row = |(layer, counts): (usize, &Vec<u64>)| {
        let pairs: u64 = counts.iter().sum();
        let mut order: Vec<usize> = (0..counts.len()).collect();
        order.sort_by_key(|&expert| (std::cmp::Reverse(counts[expert]), expert));
        let share = |expert: usize| percent(counts[expert] as f64 / pairs.max(1) as f64);
        let told: Vec<String> = order
            .iter()
            .filter(|&&expert| counts[expert] > 0)
            .take(if is_wide { HOTTEST } else { 1 })
            .map(|&expert| format!("{expert} ({})", share(expert)))
            .collect();
        let idle = counts.iter().filter(|&&count| count == 0).count();
        let told = if told.is_empty() { "-".to_owned() } else { told.join(", ") };
        vec![layer.to_string(), pairs.to_string(), idle.to_string(), told]
    };
    let rows = document.counts.iter().enumerate().map(row).collect();
    format!(
        "window {} of {}\n\n{}",
        document.window,
        counted(usize::try_from(document.steps).unwrap_or(usize::MAX), "step"),
        columns(&["LAYER", "PAIRS", "EXPERTS WITHOUT LOAD", "HOTTEST"], rows)
    )
}

#[derive(Serialize)]
struct Accepted<'a> {
    name: &'a str,
    namespace: &'a str,
    replica: usize,
}

pub(crate) async fn rebalance(
    arguments: &RebalanceArguments,
    cluster: &Cluster,
    terminal: &mut Terminal<'_>,
) -> Result<(), PluginError> {
    let &RebalanceArguments { ref name, replica, output, connection: _ } = arguments;
    terminal.progress.doing("asking the coordinator");
    let coordinator = cluster.coordinator(name, replica).await?;
    cluster.within(coordinator.rebalance()).await?;
    let accepted = Accepted { name, namespace: &cluster.namespace, replica };
    let text = match output {
        Output::Json => json(&accepted),
        Output::Yaml => yaml(&accepted),
        Output::Name => resource_name(name) + "\n",
        Output::Table | Output::Wide => {
            let namespace = &cluster.namespace;
            format!(
                "replica {replica} of {name} rebalances; watch it with: kubectl moe status {name} --namespace {namespace} --watch\n"
            )
        }
    };
    terminal.print(&text)
}

#[cfg(test)]
mod tests {
    use plan::wire::{ModelIdentity, VERSION};

    use super::*;

    #[test]
    fn the_hottest_experts_of_each_layer_are_named_with_their_shares() {
        let model = ModelIdentity { name: "m".to_owned(), digest: String::new(), layers: 2, experts: 3 };
        let counts = vec![vec![1, 3, 0], vec![0, 0, 0]];
        let document = LoadDocument { version: VERSION.to_owned(), model, window: 4, steps: 1, counts };
        assert_eq!(
            hottest(&document, false),
            "window 4 of 1 step\n\nLAYER   PAIRS   EXPERTS WITHOUT LOAD   HOTTEST\n0       4       1                      1 (75.00 %)\n\
             1       0       3                      -\n"
        );
        assert!(hottest(&document, true).contains("1 (75.00 %), 0 (25.00 %)\n"));
    }
}
