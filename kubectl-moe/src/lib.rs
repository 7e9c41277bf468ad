#![forbid(unsafe_code)]
//! The commands of `kubectl moe`. Some read deployments and ask their coordinators through the API server, with the
//! rights of whoever calls; the others, in `offline`, need no cluster.

mod bench;
mod chart;
mod cluster;
mod completion;
mod connection;
mod coordinator;
mod error;
mod manual;
mod map;
mod monitor;
mod offline;
mod output;
mod refusal;
mod replica;
mod secret_file;
mod status;
mod table;
mod terminal;
mod top;
mod version;
mod watch;
mod words;

use bench::BenchArguments;
use clap::{Parser, Subcommand};
use cluster::Cluster;
use completion::CompletionArguments;
use connection::Connection;
use manual::ManualArguments;
use map::{MapArguments, MapCommand, ShowArguments};
use monitor::MonitorArguments;
use offline::{PlanArguments, SimulateArguments, SizeArguments};
use replica::{LoadArguments, RebalanceArguments};
use status::StatusArguments;
use top::TopArguments;
use version::VersionArguments;

pub use completion::complete_for_kubectl;
pub use error::PluginError;
pub use offline::OfflineError;
pub use terminal::{Progress, Terminal};

/// Looks into MoEDeployments and their expert maps, and plans without a cluster
///
/// status, top, map NAME, load, monitor, bench, rebalance and version ask the cluster; the other commands need none. Where a command reads a
/// file, - is standard input. The exit status is 0 when the command did its work, 1 when something was refused or failed, which
/// is then said, and 2 when the command line is wrong.
#[derive(Debug, Parser)]
#[command(name = "kubectl-moe", bin_name = "kubectl moe", version)]
#[expect(clippy::doc_markdown, reason = "the help text is no Markdown")]
pub struct Arguments {
    #[command(flatten)]
    connection: Connection,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Shows conditions, replicas, balance ratio, moves and maps of one deployment, or a row for each
    Status(StatusArguments),
    /// Shows how busy each replica is: tokens a second, requests, balance, latencies
    ///
    /// Every coordinator is asked twice, and what is a rate is taken over the seconds between. One that does not answer says why.
    Top(TopArguments),
    /// Prints the expert map in force, or the one recorded last; converts and checks files
    Map(MapArguments),
    /// Prints the load of the window that closed last, as plan, simulate and size read it
    Load(LoadArguments),
    /// Shows live what a coordinator does: load of ranks, balance, latency, decisions and moves
    ///
    /// On a terminal it is a picture: space holds it, q ends it. Elsewhere it is lines. --url asks a coordinator without a cluster.
    Monitor(MonitorArguments),
    /// Measures a deployment, or any server, with synthetic traffic: skewed, shifting and in bursts
    ///
    /// Each topic draws its tokens from a few that are frequent in it, so that a few experts have most of the load; with the next topic
    /// they are others. With --against a second target gets the same requests in turn: what a change, such as EPLB, is worth. Through
    /// the name of a deployment requests go by the API server, whose time counts too: a URL is measured without.
    Bench(BenchArguments),
    /// Closes the current window and rebalances now
    Rebalance(RebalanceArguments),
    /// Plans a placement for a recorded load, with its figures; needs no cluster
    Plan(PlanArguments),
    /// Replays recorded windows as the runtime decides, under each policy; needs no cluster
    Simulate(SimulateArguments),
    /// Shows what redundancy a recorded load is worth; needs no cluster
    Size(SizeArguments),
    /// Shows the versions of this program, of operators and of coordinators
    Version(VersionArguments),
    /// Prints a script that completes kubectl-moe in a shell; needs no cluster
    ///
    /// kubectl completes `kubectl moe` with a program of its own: put kubectl_complete-moe on the PATH, beside kubectl-moe.
    Completion(CompletionArguments),
    /// Prints the manual as pages for man; needs no cluster
    Man(ManualArguments),
}

/// Runs a command.
///
/// # Errors
/// If the API server or a coordinator does not answer as expected, a file is refused, or the result cannot be written.
pub async fn run(arguments: Arguments, terminal: &mut Terminal<'_>) -> Result<(), PluginError> {
    let Arguments { connection: outer, command } = arguments;
    let (asking, connection) = match command {
        Command::Plan(arguments) => return offline::plan(&arguments, terminal).printed_on(terminal),
        Command::Simulate(arguments) => return offline::simulate(&arguments, terminal).printed_on(terminal),
        Command::Size(arguments) => return offline::size(&arguments, terminal).printed_on(terminal),
        Command::Completion(arguments) => return terminal.print(&completion::script(&arguments)),
        Command::Man(arguments) => return manual::manual(&arguments, terminal),
        Command::Version(arguments) => {
            let connection = arguments.connection.clone().or(outer);
            return version::version(&arguments, &connection, terminal).await;
        }
        Command::Monitor(arguments) => return monitor::monitor(&arguments, outer, terminal).await,
        Command::Bench(arguments) => return bench::bench(&arguments, outer, terminal).await,
        Command::Map(arguments) => match arguments.command() {
            MapCommand::Convert(arguments) => return offline::convert(&arguments, terminal).printed_on(terminal),
            MapCommand::Check(arguments) => return offline::check(&arguments, terminal).printed_on(terminal),
            MapCommand::Show(arguments) => (Asking::Map(arguments.clone()), arguments.connection),
        },
        Command::Status(arguments) => (Asking::Status(arguments.clone()), arguments.connection),
        Command::Top(arguments) => (Asking::Top(arguments.clone()), arguments.connection),
        Command::Load(arguments) => (Asking::Load(arguments.clone()), arguments.connection),
        Command::Rebalance(arguments) => (Asking::Rebalance(arguments.clone()), arguments.connection),
    };
    let cluster = Cluster::reach(&connection.or(outer)).await?;
    ask(&asking, &cluster, terminal).await
}

/// What is asked of a cluster.
enum Asking {
    Status(StatusArguments),
    Top(TopArguments),
    Map(Box<ShowArguments>),
    Load(LoadArguments),
    Rebalance(RebalanceArguments),
}

async fn ask(asking: &Asking, cluster: &Cluster, terminal: &mut Terminal<'_>) -> Result<(), PluginError> {
    match asking {
        Asking::Status(arguments) => status::status(arguments, cluster, terminal).await,
        Asking::Top(arguments) => top::top(arguments, cluster, terminal).await,
        Asking::Map(arguments) => map::show(arguments, cluster, terminal).await,
        Asking::Load(arguments) => replica::load(arguments, cluster, terminal).await,
        Asking::Rebalance(arguments) => replica::rebalance(arguments, cluster, terminal).await,
    }
}

/// A result that is printed, or told not to be there.
trait Printed {
    fn printed_on(self, terminal: &mut Terminal<'_>) -> Result<(), PluginError>;
}

impl Printed for Result<String, OfflineError> {
    fn printed_on(self, terminal: &mut Terminal<'_>) -> Result<(), PluginError> {
        terminal.print(&self?)
    }
}

#[cfg(test)]
mod tests;
