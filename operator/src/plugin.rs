//! The commands of `kubectl moe`. They read an MoEDeployment and ask its coordinators through the API server, with the
//! rights of whoever calls.

mod coordinator;
mod status;
mod table;

use clap::{Args, Parser, Subcommand, ValueEnum};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config, ResourceExt as _};
use plan::formats::vllm_ascend;
use plan::wire::MapDocument;
use thiserror::Error;

use crate::api::MoEDeployment;
use coordinator::Coordinator;

/// Looks into MoEDeployments and their expert maps
#[derive(Debug, Parser)]
#[command(name = "kubectl-moe", bin_name = "kubectl moe", version)]
#[expect(clippy::doc_markdown, reason = "the help text is no Markdown")]
pub struct Arguments {
    /// Namespace of the deployment; that of the context if left out
    #[arg(long, short, global = true)]
    namespace: Option<String>,
    /// Context of the kubeconfig to use
    #[arg(long, global = true)]
    context: Option<String>,
    /// Kubeconfig file to use
    #[arg(long, global = true)]
    kubeconfig: Option<std::path::PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Shows conditions, replicas, balance ratio, moves and maps
    Status {
        /// Name of the MoEDeployment
        name: String,
    },
    /// Prints the expert map in force, or the one recorded last
    Map(MapArguments),
    /// Closes the current window and rebalances now
    Rebalance {
        /// Name of the MoEDeployment
        name: String,
        /// Replica to rebalance
        #[arg(long, default_value_t = 0)]
        replica: usize,
    },
}

#[derive(Args, Debug)]
struct MapArguments {
    /// Name of the MoEDeployment
    name: String,
    /// Replica whose map is printed
    #[arg(long, default_value_t = 0)]
    replica: usize,
    /// Print the map that was recorded last instead of the one in force
    #[arg(long)]
    recorded: bool,
    /// Format: json is what a ConfigMap for expertMapRef holds, vllm-ascend is an eplb.json
    #[arg(long, short, value_enum, default_value_t = Format::Json)]
    output: Format,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    Json,
    VllmAscend,
}

/// Why a command failed.
#[derive(Debug, Error)]
pub enum PluginError {
    /// The kubeconfig cannot be used.
    #[error("the kubeconfig cannot be used")]
    Kubeconfig(#[from] kube::config::KubeconfigError),
    /// The deployment cannot be read.
    #[error("failed to read MoEDeployment {namespace}/{name}")]
    Deployment {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// Why.
        source: Box<kube::Error>,
    },
    /// The API server cannot be asked.
    #[error("the API server cannot be asked")]
    Client(#[source] Box<kube::Error>),
    /// A coordinator cannot be asked.
    #[error(
        "coordinator {pod} cannot be asked for {path}: this needs the right to {verb} pods/proxy, and a pod that runs"
    )]
    Coordinator {
        /// Its pod.
        pod: String,
        /// What was asked for.
        path: &'static str,
        /// The right that is needed.
        verb: &'static str,
        /// Why.
        source: Box<kube::Error>,
    },
    /// A coordinator's answer cannot be read.
    #[error("the answer of coordinator {pod} cannot be read")]
    Document {
        /// Its pod.
        pod: String,
        /// Why.
        source: plan::wire::WireError,
    },
    /// There is no such replica.
    #[error("MoEDeployment {name} has {replicas} replicas, so none has the number {replica}")]
    NoReplica {
        /// The deployment.
        name: String,
        /// How many it has.
        replicas: i32,
        /// The one that was asked for.
        replica: usize,
    },
}

/// Runs a command; returns what to print.
///
/// # Errors
/// If the API server or a coordinator does not answer as expected.
pub async fn run(arguments: Arguments) -> Result<String, PluginError> {
    let Arguments { namespace, context, kubeconfig, command } = arguments;
    let options = KubeConfigOptions { context, ..KubeConfigOptions::default() };
    let config = match kubeconfig {
        Some(path) => Config::from_custom_kubeconfig(Kubeconfig::read_from(path)?, &options).await?,
        None => Config::from_kubeconfig(&options).await?,
    };
    let namespace = namespace.unwrap_or_else(|| config.default_namespace.clone());
    let client = Client::try_from(config).map_err(|source| PluginError::Client(Box::new(source)))?;
    let plugin = Plugin { client, namespace };
    match command {
        Command::Status { name } => plugin.status(&name).await,
        Command::Map(arguments) => plugin.map(&arguments).await,
        Command::Rebalance { name, replica } => plugin.rebalance(&name, replica).await,
    }
}

struct Plugin {
    client: Client,
    namespace: String,
}

impl Plugin {
    async fn deployment(&self, name: &str) -> Result<MoEDeployment, PluginError> {
        let api: Api<MoEDeployment> = Api::namespaced(self.client.clone(), &self.namespace);
        api.get(name).await.map_err(|source| PluginError::Deployment {
            namespace: self.namespace.clone(),
            name: name.to_owned(),
            source: Box::new(source),
        })
    }

    async fn coordinator(&self, name: &str, replica: usize) -> Result<Coordinator, PluginError> {
        let deployment = self.deployment(name).await?;
        if usize::try_from(deployment.spec.replicas).unwrap_or(0) <= replica {
            let replicas = deployment.spec.replicas;
            return Err(PluginError::NoReplica { name: deployment.name_any(), replicas, replica });
        }
        Ok(Coordinator::new(&self.client, &self.namespace, name, replica))
    }

    async fn status(&self, name: &str) -> Result<String, PluginError> {
        let deployment = self.deployment(name).await?;
        let mut states = Vec::new();
        for replica in 0..usize::try_from(deployment.spec.replicas).unwrap_or(0) {
            // One that does not answer is shown as such; the others are still of interest.
            states.push(Coordinator::new(&self.client, &self.namespace, name, replica).state().await.ok());
        }
        Ok(status::render(&deployment, &states))
    }

    async fn map(&self, arguments: &MapArguments) -> Result<String, PluginError> {
        let coordinator = self.coordinator(&arguments.name, arguments.replica).await?;
        let document =
            if arguments.recorded { coordinator.recorded_map().await?.map } else { coordinator.map().await? };
        print_map(&document, arguments.output).map_err(|source| coordinator.unreadable(source))
    }

    async fn rebalance(&self, name: &str, replica: usize) -> Result<String, PluginError> {
        self.coordinator(name, replica).await?.rebalance().await?;
        Ok(format!("replica {replica} of {name} rebalances; watch it with: kubectl moe status {name}\n"))
    }
}

fn print_map(document: &MapDocument, format: Format) -> Result<String, plan::wire::WireError> {
    let map = document.to_map(&document.model)?;
    Ok(match format {
        Format::Json => serde_json::to_string(document).expect("a map document is plain data") + "\n",
        Format::VllmAscend => vllm_ascend::write(&map),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        <Arguments as clap::CommandFactory>::command().debug_assert();
    }
}
