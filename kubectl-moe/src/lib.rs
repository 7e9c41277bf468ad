//! The commands of `kubectl moe`. Some read an MoEDeployment and ask its coordinators through the API server, with the
//! rights of whoever calls; the others, in `offline`, need no cluster.

mod coordinator;
mod offline;
mod status;
mod table;

use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use k8s_openapi::api::core::v1::Secret;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config, ResourceExt as _};
use offline::{CheckArguments, ConvertArguments, PlanArguments, SimulateArguments, SizeArguments};
use plan::formats::vllm_ascend;
use plan::wire::MapDocument;
use thiserror::Error;

use coordinator::Coordinator;
pub use offline::OfflineError;
use operator::api::MoEDeployment;
use operator::keys::{AdminToken, Keys};
use operator::names;
use operator::observe::controls;

/// Looks into MoEDeployments and their expert maps, and plans without a cluster
///
/// status, map NAME, load and rebalance ask the cluster; plan, simulate, size, map convert and map check need none. The exit status
/// is 0 when the command did its work, 1 when something was refused or failed, which is then said, and 2 when the command line
/// is wrong.
#[derive(Debug, Parser)]
#[command(name = "kubectl-moe", bin_name = "kubectl moe", version)]
#[expect(clippy::doc_markdown, reason = "the help text is no Markdown")]
pub struct Arguments {
    /// Namespace of the deployment; that of the context if left out
    #[arg(long, short, global = true, help_heading = "Options of the cluster")]
    namespace: Option<String>,
    /// Context of the kubeconfig to use
    #[arg(long, global = true, help_heading = "Options of the cluster")]
    context: Option<String>,
    /// Kubeconfig file to use
    #[arg(long, global = true, help_heading = "Options of the cluster")]
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
    /// Prints the expert map in force, or the one recorded last; converts and checks files
    Map(MapArguments),
    /// Prints the load of the window that closed last, as plan, simulate and size read it
    Load {
        /// Name of the MoEDeployment
        name: String,
        /// Replica whose load is printed
        #[arg(long, default_value_t = 0)]
        replica: usize,
    },
    /// Closes the current window and rebalances now
    Rebalance {
        /// Name of the MoEDeployment
        name: String,
        /// Replica to rebalance
        #[arg(long, default_value_t = 0)]
        replica: usize,
    },
    /// Plans a placement for a recorded load, with its figures; needs no cluster
    Plan(PlanArguments),
    /// Replays recorded windows as the runtime decides, under each policy; needs no cluster
    Simulate(SimulateArguments),
    /// Shows what redundancy a recorded load is worth; needs no cluster
    Size(SizeArguments),
}

#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
struct MapArguments {
    #[command(subcommand)]
    file: Option<MapFile>,
    /// Name of the MoEDeployment
    #[arg(required = true)]
    name: Option<String>,
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

#[derive(Debug, Subcommand)]
enum MapFile {
    /// Writes a map file in another format; needs no cluster
    Convert(ConvertArguments),
    /// Checks a map file and says what it holds; needs no cluster
    Check(CheckArguments),
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
    /// The token of the coordinators cannot be read.
    #[error(
        "the coordinators of {name} ask for a token, and the Secret {secret} that holds it cannot be read: this needs the right \
         to get secrets {secret} in namespace {namespace}"
    )]
    Token {
        /// The deployment.
        name: String,
        /// Its namespace.
        namespace: String,
        /// The Secret.
        secret: String,
        /// Why.
        source: Box<kube::Error>,
    },
    /// A coordinator answers with more than is read.
    #[error("coordinator {pod} answers {path} with more than {most} bytes, as no coordinator does")]
    TooLarge {
        /// Its pod.
        pod: String,
        /// What was asked for.
        path: &'static str,
        /// Bytes that are read.
        most: usize,
    },
    /// A coordinator does not come to an end.
    #[error("coordinator {pod} has not answered {path} within {seconds} s")]
    TooSlow {
        /// Its pod.
        pod: String,
        /// What was asked for.
        path: &'static str,
        /// Seconds that are waited.
        seconds: u64,
    },
    /// A coordinator does not do what it is asked for, or not yet.
    #[error("coordinator {pod} answers {path} with: {message}")]
    Refused {
        /// Its pod.
        pod: String,
        /// What was asked for.
        path: &'static str,
        /// Why, in its words.
        message: String,
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
    /// A command that needs no cluster failed.
    #[error(transparent)]
    Offline(#[from] OfflineError),
}

/// Runs a command; returns what to print. `now` tells the time since some moment.
///
/// # Errors
/// If the API server or a coordinator does not answer as expected, or a file is refused.
pub async fn run(arguments: Arguments, now: impl Fn() -> Duration) -> Result<String, PluginError> {
    let Arguments { namespace, context, kubeconfig, command } = arguments;
    let command = match command {
        Command::Plan(arguments) => return Ok(offline::plan(&arguments, now)?),
        Command::Simulate(arguments) => return Ok(offline::simulate(&arguments)?),
        Command::Size(arguments) => return Ok(offline::size(&arguments)?),
        Command::Map(MapArguments { file: Some(MapFile::Convert(arguments)), .. }) => {
            return Ok(offline::convert(&arguments)?);
        }
        Command::Map(MapArguments { file: Some(MapFile::Check(arguments)), .. }) => {
            return Ok(offline::check(&arguments)?);
        }
        Command::Map(MapArguments { file: None, name, replica, recorded, output }) => {
            // The command line requires it where there is no subcommand.
            let name = name.unwrap_or_default();
            Asked::Map { name, replica, recorded, output }
        }
        Command::Status { name } => Asked::Status { name },
        Command::Load { name, replica } => Asked::Load { name, replica },
        Command::Rebalance { name, replica } => Asked::Rebalance { name, replica },
    };
    let options = KubeConfigOptions { context, ..KubeConfigOptions::default() };
    let config = match kubeconfig {
        Some(path) => Config::from_custom_kubeconfig(Kubeconfig::read_from(path)?, &options).await?,
        None => Config::from_kubeconfig(&options).await?,
    };
    let namespace = namespace.unwrap_or_else(|| config.default_namespace.clone());
    let client = Client::try_from(config).map_err(|source| PluginError::Client(Box::new(source)))?;
    let plugin = Plugin { client, namespace };
    match command {
        Asked::Status { name } => plugin.status(&name).await,
        Asked::Map { name, replica, recorded, output } => {
            print_map(&plugin.map(&name, replica, recorded).await?, output)
        }
        Asked::Load { name, replica } => plugin.load(&name, replica).await,
        Asked::Rebalance { name, replica } => plugin.rebalance(&name, replica).await,
    }
}

/// What is asked of the cluster.
enum Asked {
    Status { name: String },
    Map { name: String, replica: usize, recorded: bool, output: Format },
    Load { name: String, replica: usize },
    Rebalance { name: String, replica: usize },
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
        let token = self.token(&deployment).await?;
        Ok(Coordinator::new(&self.client, &self.namespace, name, replica).with(token))
    }

    /// The token of a deployment's coordinators, read with the rights of whoever calls; none if it has no keys, as under a
    /// release that knew none.
    async fn token(&self, deployment: &MoEDeployment) -> Result<Option<AdminToken>, PluginError> {
        let name = deployment.name_any();
        let secret = names::keys(&name);
        let api: Api<Secret> = Api::namespaced(self.client.clone(), &self.namespace);
        let found = api.get_opt(&secret).await.map_err(|source| PluginError::Token {
            name,
            namespace: self.namespace.clone(),
            secret,
            source: Box::new(source),
        })?;
        let own = found.filter(|secret| controls(deployment, secret));
        Ok(own.as_ref().and_then(Keys::read).map(|keys| keys.admin_token().clone()))
    }

    async fn status(&self, name: &str) -> Result<String, PluginError> {
        let deployment = self.deployment(name).await?;
        let replicas = 0..usize::try_from(deployment.spec.replicas).unwrap_or(0);
        let token = match self.token(&deployment).await {
            Ok(token) => token,
            // What the status tells is there without the coordinators.
            Err(error) => {
                let states: Vec<_> = replicas.map(|_| None).collect();
                return Ok(format!("{}\nFrom the status alone: {error}\n", status::render(&deployment, &states)));
            }
        };
        let mut states = Vec::new();
        for replica in replicas {
            // One that does not answer is shown as such; the others are still of interest.
            let coordinator = Coordinator::new(&self.client, &self.namespace, name, replica).with(token.clone());
            states.push(coordinator.state().await.ok());
        }
        Ok(status::render(&deployment, &states))
    }

    async fn map(&self, name: &str, replica: usize, recorded: bool) -> Result<(MapDocument, Coordinator), PluginError> {
        let coordinator = self.coordinator(name, replica).await?;
        let document = if recorded { coordinator.recorded_map().await?.map } else { coordinator.map().await? };
        Ok((document, coordinator))
    }

    async fn load(&self, name: &str, replica: usize) -> Result<String, PluginError> {
        let document = self.coordinator(name, replica).await?.load().await?;
        Ok(serde_json::to_string(&document).expect("a load document is plain data") + "\n")
    }

    async fn rebalance(&self, name: &str, replica: usize) -> Result<String, PluginError> {
        self.coordinator(name, replica).await?.rebalance().await?;
        Ok(format!("replica {replica} of {name} rebalances; watch it with: kubectl moe status {name}\n"))
    }
}

fn print_map((document, coordinator): &(MapDocument, Coordinator), format: Format) -> Result<String, PluginError> {
    let map = document.to_map(&document.model).map_err(|source| coordinator.unreadable(source))?;
    Ok(match format {
        Format::Json => serde_json::to_string(document).expect("a map document is plain data") + "\n",
        Format::VllmAscend => vllm_ascend::write(&map),
    })
}

#[cfg(test)]
mod tests;
