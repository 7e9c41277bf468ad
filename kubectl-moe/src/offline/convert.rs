//! `kubectl moe map convert` and `map check`: maps of one engine for another.

use std::path::PathBuf;

use ::plan::coverage;
use ::plan::formats::{Expected, Format, Found, read_any};
use clap::Args;
use clap::builder::{PossibleValuesParser, TypedValueParser as _};

use super::input::identity;
use super::model::Model;
use super::units::counted;
use super::{OfflineError, read, write};

/// The name of one of the formats.
pub(super) fn format() -> impl clap::builder::TypedValueParser<Value = Format> {
    PossibleValuesParser::new(Format::ALL.map(Format::as_str))
        .map(|name| name.parse::<Format>().expect("only names of formats get here"))
}

#[derive(Args, Debug)]
struct MapOptions {
    /// Expert map in any of the formats, which its text tells
    #[arg(long, value_name = "FILE")]
    from: PathBuf,
    /// Ranks it is for; formats other than swift and vllm-ascend do not tell
    #[arg(long, value_name = "N")]
    ranks: Option<usize>,
    /// MoE layers of the model; another number is refused
    #[arg(long, value_name = "L")]
    layers: Option<usize>,
    /// Experts of each layer; another number is refused, and without it, the largest expert in the file is the last
    #[arg(long, value_name = "E")]
    experts: Option<usize>,
    /// Layers without experts before the first MoE layer, which the formats sglang and trtllm count
    #[arg(long, value_name = "K")]
    dense_layers: Option<usize>,
    /// Folder of the checkpoint, whose config.json gives layers, experts and dense layers
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
}

/// Arguments of `kubectl moe map convert`.
#[derive(Args, Debug)]
pub struct ConvertArguments {
    #[command(flatten)]
    map: MapOptions,
    /// Format to write
    #[arg(long, value_name = "FORMAT", value_parser = format())]
    to: Format,
    /// Write the map into this file instead of printing it
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Make a map of one that has an expert twice on a rank: the second copy changes places with a slot of another rank,
    /// or becomes one of the expert with the fewest copies
    #[arg(long)]
    repair: bool,
    /// Name of the served model in a map of the format swift; that of the map read if left out
    #[arg(long, value_name = "NAME")]
    model_name: Option<String>,
    /// Digest of the checkpoint in a map of the format swift, as swiftbalancer-runtime inspect prints it; that of the map
    /// read if left out. A map without one fits every model of its layers and experts
    #[arg(long, value_name = "HEX")]
    model_digest: Option<String>,
}

/// Arguments of `kubectl moe map check`.
#[derive(Args, Debug)]
pub struct CheckArguments {
    #[command(flatten)]
    map: MapOptions,
}

impl MapOptions {
    fn expected(&self, repair: bool) -> Result<Expected, OfflineError> {
        let model = self.model.as_deref().map(Model::read).transpose()?;
        let of_model = |of: fn(&Model) -> usize| model.as_ref().map(of);
        let dense_layers = self.dense_layers.or(of_model(|model| model.dense_layers)).unwrap_or(0);
        Ok(Expected {
            layers: self.layers.or(of_model(|model| model.layers).map(|layers| layers.saturating_sub(dense_layers))),
            experts: self.experts.or(of_model(|model| model.experts)),
            ranks: self.ranks,
            dense_layers,
            repair,
        })
    }

    fn read(&self, expected: &Expected) -> Result<Found, OfflineError> {
        let text = read(&self.from)?;
        read_any(&text, expected).map_err(|reason| OfflineError::Map { path: self.from.clone(), reason })
    }
}

/// Runs `map convert`; returns what to print.
pub fn convert(arguments: &ConvertArguments) -> Result<String, OfflineError> {
    let ConvertArguments { map: options, to, out, repair, model_name, model_digest } = arguments;
    let expected = options.expected(*repair)?;
    let Found { map, model, .. } = options.read(&expected)?;
    let shape = map.shape();
    let identity = identity(model, shape, (model_name.as_deref(), model_digest.as_deref()));
    let text = to.write(&map, &identity, expected.dense_layers)?;
    match out {
        None => Ok(text),
        Some(path) => {
            write(path, &text)?;
            Ok(format!("{} written in the format {to}\n", path.display()))
        }
    }
}

/// Runs `map check`; returns what to print.
pub fn check(arguments: &CheckArguments) -> Result<String, OfflineError> {
    let options = &arguments.map;
    let Found { format, map, model } = options.read(&options.expected(false)?)?;
    let shape = map.shape();
    let copies = || map.layers().flat_map(|layer| map.replica_counts(layer));
    let (fewest, most) = (copies().min().unwrap_or(0), copies().max().unwrap_or(0));
    let name = model.map(|model| model.name).filter(|name| !name.is_empty());
    let of = name.map_or_else(String::new, |name| format!(" for {name}"));
    Ok(format!(
        "{}: valid, {format}{of}\n{} of {} on {} with {} each (redundancy {}), {fewest} to {most} copies of an expert\n\
         every expert survives the loss of any {}\n",
        options.from.display(),
        counted(shape.layers, "layer"),
        counted(shape.experts, "expert"),
        counted(shape.ranks, "rank"),
        counted(shape.slots_per_rank, "slot"),
        map.physical() - shape.experts,
        counted(coverage::coverage(&map), "rank"),
    ))
}
