//! `kubectl moe map`: the map of a deployment, in any format; and the commands for files of maps.

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Subcommand};
use plan::formats::Format;
use serde_json::Value;

use crate::cluster::{Cluster, resource_name};
use crate::connection::Connection;
use crate::offline::{CheckArguments, ConvertArguments, Description};
use crate::output::{Output, json, yaml};
use crate::watch::{WatchOption, watch};
use crate::{PluginError, Terminal};

/// The name of one of the formats of maps.
pub(crate) fn format() -> impl TypedValueParser<Value = Format> {
    PossibleValuesParser::new(Format::ALL.map(Format::as_str))
        .map(|name| name.parse::<Format>().expect("only names of formats get here"))
}

/// Arguments of `kubectl moe map`.
#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct MapArguments {
    #[command(subcommand)]
    file: Option<MapFile>,
    #[command(flatten)]
    show: ShowArguments,
}

#[derive(Debug, Subcommand)]
enum MapFile {
    /// Writes a map file in another format; needs no cluster
    Convert(ConvertArguments),
    /// Checks a map file and says what it holds; needs no cluster
    Check(CheckArguments),
}

/// Arguments of `kubectl moe map NAME`.
#[derive(Args, Clone, Debug)]
pub(crate) struct ShowArguments {
    /// Name of the MoEDeployment
    #[arg(required = true)]
    name: Option<String>,
    /// Replica whose map is printed
    #[arg(long, default_value_t = 0)]
    replica: usize,
    /// Print the map that was recorded last instead of the one in force
    #[arg(long)]
    recorded: bool,
    #[command(flatten)]
    watch: WatchOption,
    /// Format of the map: swift is what a ConfigMap for expertMapRef holds, vllm-ascend is an eplb.json
    #[arg(long, value_name = "FORMAT", value_parser = format(), default_value_t = Format::Swift)]
    map_format: Format,
    /// Layers without experts before the first MoE layer, which the formats sglang and trtllm count
    #[arg(long, value_name = "K", default_value_t = 0)]
    dense_layers: u16,
    /// How the map is printed; as the format has it if left out
    #[arg(long, short, value_enum)]
    output: Option<Output>,
    #[command(flatten)]
    pub connection: Connection,
}

/// What `map` is to do.
pub(crate) enum MapCommand {
    Convert(ConvertArguments),
    Check(CheckArguments),
    Show(Box<ShowArguments>),
}

impl MapArguments {
    pub fn command(self) -> MapCommand {
        match self.file {
            Some(MapFile::Convert(arguments)) => MapCommand::Convert(arguments),
            Some(MapFile::Check(arguments)) => MapCommand::Check(arguments),
            None => MapCommand::Show(Box::new(self.show)),
        }
    }
}

pub(crate) async fn show(
    arguments: &ShowArguments,
    cluster: &Cluster,
    terminal: &mut Terminal<'_>,
) -> Result<(), PluginError> {
    terminal.progress.doing("asking the coordinator");
    if arguments.watch.watch {
        return watch(arguments.form(), terminal, async || read_map(arguments, cluster).await).await;
    }
    let text = read_map(arguments, cluster).await?;
    terminal.print(&text)
}

impl ShowArguments {
    /// What the map is printed as, where that is left out too.
    const fn form(&self) -> Output {
        match (self.output, self.map_format) {
            (Some(output), _) => output,
            (None, Format::Trtllm) => Output::Yaml,
            (None, _) => Output::Json,
        }
    }
}

async fn read_map(arguments: &ShowArguments, cluster: &Cluster) -> Result<String, PluginError> {
    let ShowArguments { name, replica, recorded, map_format, dense_layers, output, .. } = arguments;
    // The command line requires it where there is no subcommand.
    let name = name.as_deref().unwrap_or_default();
    let coordinator = cluster.coordinator(name, *replica).await?;
    let asked = async { Ok(if *recorded { coordinator.recorded_map().await?.map } else { coordinator.map().await? }) };
    let document = cluster.within(asked).await?;
    let map = document.to_map(&document.model).map_err(|source| coordinator.unreadable(source))?;
    let text = match map_format {
        // What the coordinator says, as it says it.
        Format::Swift => serde_json::to_string(&document).expect("a map document is plain data") + "\n",
        other => other.write(&map, &document.model, usize::from(*dense_layers))?,
    };
    Ok(match output {
        None => text,
        Some(Output::Json) => json(&value(&text)),
        Some(Output::Yaml) => yaml(&value(&text)),
        Some(Output::Name) => resource_name(name) + "\n",
        Some(table) => {
            let what = format!("{}, replica {replica}", resource_name(name));
            Description::new(what, *map_format, Some(&document.model), &map).text(table.is_wide())
        }
    })
}

/// The data of a map, which are JSON or YAML.
fn value(text: &str) -> Value {
    serde_json::from_str(text)
        .ok()
        .or_else(|| serde_saphyr::from_str(text).ok())
        .expect("a map that was written is JSON or YAML")
}
