//! `kubectl moe map convert` and `map check`: maps of one engine for another, and what a map holds in words.

use std::path::{Path, PathBuf};

use ::plan::coverage;
use ::plan::formats::{Expected, Format, Found, SecondCopy, read_any};
use ::plan::map::ExpertMap;
use ::plan::wire::ModelIdentity;
use clap::Args;
use serde::Serialize;

use super::input::{further_layers, identity};
use super::model::Model;
use super::{OfflineError, is_standard, named, read, second_copies, write};
use crate::Terminal;
use crate::map::format;
use crate::output::Output;
use crate::table::columns;
use crate::words::{counted, range};

#[derive(Args, Debug)]
struct MapOptions {
    /// Expert map in any of the formats, which its text tells; - is standard input
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
    /// Folder of the checkpoint, or its config.json, which gives layers, experts and dense layers
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
}

/// Arguments of `kubectl moe map convert`.
#[derive(Args, Debug)]
pub struct ConvertArguments {
    #[command(flatten)]
    map: MapOptions,
    /// Format to write
    #[arg(long, visible_alias = "map-format", value_name = "FORMAT", value_parser = format())]
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
    /// How the result is printed; wide has the experts of each rank
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
}

impl MapOptions {
    fn expected(&self, repair: bool, terminal: &mut Terminal<'_>) -> Result<Expected, OfflineError> {
        let model = self.model.as_deref().map(|path| Model::read(path, terminal)).transpose()?;
        let of_model = |of: fn(&Model) -> usize| model.as_ref().map(of);
        let dense_layers = self.dense_layers.or(of_model(|model| model.dense_layers)).unwrap_or(0);
        let of_dense = |dense: usize| model.as_ref().map(|model| model.layers.saturating_sub(dense));
        let layers = self.dense_layers.map_or_else(|| of_model(|model| model.moe_layers), of_dense);
        Ok(Expected {
            layers: self.layers.or(layers),
            mtp_layers: of_model(|model| model.mtp_layers).unwrap_or(0),
            experts: self.experts.or(of_model(|model| model.experts)),
            ranks: self.ranks,
            dense_layers,
            repair,
        })
    }

    fn read(&self, expected: &Expected, terminal: &mut Terminal<'_>) -> Result<Found, OfflineError> {
        let text = read(&self.from, terminal)?;
        let found = read_any(&text, expected);
        let found = found.map_err(|reason| OfflineError::Map { path: self.from.clone(), reason })?;
        if found.mtp_layers > 0 {
            terminal.warn(&format!("{}, left out", further_layers(&named(&self.from), found.mtp_layers)));
        }
        Ok(found)
    }
}

/// Runs `map convert`; returns what to print.
pub fn convert(arguments: &ConvertArguments, terminal: &mut Terminal<'_>) -> Result<String, OfflineError> {
    let ConvertArguments { map: options, to, out, repair, model_name, model_digest } = arguments;
    let expected = options.expected(*repair, terminal)?;
    let Found { map, model, second_copies, .. } = options.read(&expected, terminal)?;
    if let Some(&first) = second_copies.first() {
        return Err(OfflineError::SecondCopies { path: options.from.clone(), count: second_copies.len(), first });
    }
    let shape = map.shape();
    let identity = identity(model, shape, (model_name.as_deref(), model_digest.as_deref()));
    let text = to.write(&map, &identity, expected.dense_layers)?;
    let Some(path) = out.as_deref().filter(|path| !is_standard(path)) else { return Ok(text) };
    write(path, text)?;
    Ok(format!("{} written in the format {to}\n", path.display()))
}

/// Runs `map check`; returns what to print.
pub fn check(arguments: &CheckArguments, terminal: &mut Terminal<'_>) -> Result<String, OfflineError> {
    let options = &arguments.map;
    let expected = options.expected(false, terminal)?;
    let Found { format, map, model, second_copies, mtp_layers: _ } = options.read(&expected, terminal)?;
    warn_of(&options.from, &second_copies, terminal);
    let what = named(&options.from);
    let mut description = Description::new(what, format, model.as_ref(), &map);
    description.second_copies = second_copies.len();
    let is_wide = arguments.output.is_wide();
    Ok(arguments.output.print(
        &description,
        |description| description.text(is_wide),
        |description| description.what.clone(),
    ))
}

/// That a map in force wastes slots, and what can be done.
pub(super) fn warn_of(path: &Path, copies: &[SecondCopy], terminal: &mut Terminal<'_>) {
    if let Some(first) = copies.first() {
        let what = second_copies(path, copies.len(), first);
        terminal.warn(&format!(
            "{what}; it is taken as it is, and kubectl moe map convert --repair makes a map that uses them"
        ));
    }
}

/// What a map holds.
#[derive(Debug, Serialize)]
pub(crate) struct Description {
    /// The file, or the replica, that it is of.
    #[serde(rename = "from")]
    what: String,
    format: &'static str,
    model: Option<String>,
    layers: usize,
    experts: usize,
    ranks: usize,
    slots_per_rank: usize,
    redundancy: usize,
    fewest_copies: u32,
    most_copies: u32,
    /// Ranks of which any may be lost with every expert present.
    coverage: usize,
    /// Slots whose expert another slot of the rank holds too.
    second_copies: usize,
    #[serde(skip)]
    placement: Vec<Vec<String>>,
}

impl Description {
    pub fn new(what: String, format: Format, model: Option<&ModelIdentity>, map: &ExpertMap) -> Self {
        let shape = map.shape();
        let copies = || map.layers().flat_map(|layer| map.copy_counts(layer));
        let ranks = |layer| (0..shape.ranks).map(move |rank| (layer, rank));
        let row = |(layer, rank): (::plan::ids::LayerId, usize)| {
            let experts: Vec<String> = map.rank(layer, rank.into()).iter().map(|expert| expert.0.to_string()).collect();
            vec![layer.0.to_string(), rank.to_string(), experts.join(" ")]
        };
        Self {
            what,
            format: format.as_str(),
            model: model.map(|model| model.name.clone()).filter(|name| !name.is_empty()),
            layers: shape.layers,
            experts: shape.experts,
            ranks: shape.ranks,
            slots_per_rank: shape.slots_per_rank,
            redundancy: map.physical() - shape.experts,
            fewest_copies: copies().min().unwrap_or(0),
            most_copies: copies().max().unwrap_or(0),
            coverage: coverage::coverage(map),
            second_copies: 0,
            placement: map.layers().flat_map(ranks).map(row).collect(),
        }
    }

    pub fn text(&self, is_wide: bool) -> String {
        let Self { what, format, .. } = self;
        let of = self.model.as_ref().map_or_else(String::new, |name| format!(" for {name}"));
        let copies = range(self.fewest_copies as usize, self.most_copies as usize, "copy");
        let text = format!(
            "{what}: valid, {format}{of}\n{} of {} on {} with {} each (redundancy {}), {copies} of each expert\n{}\n",
            counted(self.layers, "layer"),
            counted(self.experts, "expert"),
            counted(self.ranks, "rank"),
            counted(self.slots_per_rank, "slot"),
            self.redundancy,
            survival(self.coverage),
        );
        if !is_wide {
            return text;
        }
        format!("{text}\n{}", columns(&["LAYER", "RANK", "EXPERTS"], self.placement.clone()))
    }
}

/// What a loss costs.
fn survival(coverage: usize) -> String {
    match coverage {
        0 => "the loss of a rank can take the only copy of an expert away".to_owned(),
        1 => "every expert survives the loss of any one rank".to_owned(),
        some => format!("every expert survives the loss of any {some} ranks"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_loss_costs_is_said_for_every_coverage() {
        assert_eq!(
            [0, 1, 2].map(survival),
            [
                "the loss of a rank can take the only copy of an expert away",
                "every expert survives the loss of any one rank",
                "every expert survives the loss of any 2 ranks",
            ]
        );
    }
}
