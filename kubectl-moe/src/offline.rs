//! The commands that need no cluster: they read files, plan, and print or write what comes of it. Reading and writing are
//! here; what is computed is in `plan` and in the modules below.

mod chart;
mod convert;
mod input;
mod judge;
mod model;
mod plan;
mod simulate;
mod size;
mod units;

use std::path::{Path, PathBuf};

use ::plan::balance::BalanceError;
use ::plan::formats::loads::LoadError;
use ::plan::formats::{FormatError, WriteError};
use ::plan::map::MapError;
use ::plan::proposal::ProposalError;
use ::plan::sizing::SizingError;
use ::plan::topology::TopologyError;
use clap::ValueEnum;
use thiserror::Error;

pub(super) use convert::{CheckArguments, ConvertArguments, check, convert};
pub(super) use plan::{PlanArguments, run as plan};
pub(super) use simulate::{SimulateArguments, run as simulate};
pub(super) use size::{SizeArguments, run as size};

/// How a result is printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For people
    #[default]
    Table,
    /// For programs
    Json,
}

impl Output {
    fn print<T: serde::Serialize>(self, document: &T, table: impl FnOnce(&T) -> String) -> String {
        match self {
            Self::Table => table(document),
            Self::Json => with_rows(&serde_json::to_string_pretty(document).expect("a result is plain data")) + "\n",
        }
    }
}

/// Indented JSON with each list of numbers on one line. A line that ends with a bracket is in no text: texts have no lines.
fn with_rows(json: &str) -> String {
    let mut parts = json.split("[\n");
    let mut rows = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let of_numbers =
            |list: &&str| list.chars().all(|one| one.is_ascii_digit() || one.is_whitespace() || one == ',');
        match part.split_once(']').filter(|(list, _)| of_numbers(list)) {
            Some((list, rest)) => {
                let numbers: Vec<&str> = list.split(',').map(str::trim).collect();
                rows.extend(["[", &numbers.join(", "), "]", rest]);
            }
            None => rows.extend(["[\n", part]),
        }
    }
    rows
}

fn read(path: &Path) -> Result<Vec<u8>, OfflineError> {
    std::fs::read(path).map_err(|source| OfflineError::Read { path: path.to_owned(), source })
}

fn write(path: &Path, text: &str) -> Result<(), OfflineError> {
    std::fs::write(path, text).map_err(|source| OfflineError::Write { path: path.to_owned(), source })
}

/// Why a command that needs no cluster failed.
#[derive(Debug, Error)]
pub enum OfflineError {
    /// A file cannot be read.
    #[error("{} cannot be read", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file cannot be written.
    #[error("{} cannot be written", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file holds no load.
    #[error("{} is no load to plan from", path.display())]
    Load {
        /// The file.
        path: PathBuf,
        /// Why.
        source: LoadError,
    },
    /// Two files hold loads of different models.
    #[error(
        "{} has {layers} layers of {experts} experts, {} has {first_layers} of {first_experts}; loads must be of one model",
        path.display(), first.display()
    )]
    Loads {
        /// The file.
        path: PathBuf,
        /// Its layers.
        layers: usize,
        /// Its experts.
        experts: usize,
        /// The first file.
        first: PathBuf,
        /// Layers there.
        first_layers: usize,
        /// Experts there.
        first_experts: usize,
    },
    /// A file holds no map that can be used.
    #[error("{} is no expert map that can be used: {reason}", path.display())]
    Map {
        /// The file.
        path: PathBuf,
        /// Why; it tells its own causes.
        reason: FormatError,
    },
    /// A map in force is for other ranks or slots.
    #[error(
        "{} is for {ranks} ranks with {slots} slots, the plan for {wanted_ranks} with {wanted_slots}; plan without \
         --current, or with its --ranks and --redundancy",
        path.display()
    )]
    Current {
        /// The file.
        path: PathBuf,
        /// Its ranks.
        ranks: usize,
        /// Slots of each.
        slots: usize,
        /// Ranks of the plan.
        wanted_ranks: usize,
        /// Slots of each.
        wanted_slots: usize,
    },
    /// A model's configuration does not say what is needed.
    #[error("{} {what}", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what to do.
        what: String,
    },
    /// A load or map is of another model than the configuration.
    #[error(
        "the load has {layers} layers of {experts} experts, {} has {model_layers} MoE layers of {model_experts}; give the \
         model of the load, or --dense-layers where a dump of SGLang counts dense layers",
        path.display()
    )]
    OtherModel {
        /// The configuration.
        path: PathBuf,
        /// Layers of the load.
        layers: usize,
        /// Experts of the load.
        experts: usize,
        /// MoE layers of the model.
        model_layers: usize,
        /// Experts of the model.
        model_experts: usize,
    },
    /// Two load documents name different models.
    #[error("{} is of {difference} as {}; loads must be of one model", path.display(), first.display())]
    LoadModels {
        /// The file.
        path: PathBuf,
        /// The first file.
        first: PathBuf,
        /// How they differ.
        difference: String,
    },
    /// The map in force names another model than the load.
    #[error("{} is of {difference} as the load; plan without --current, or with a map of the load's model", path.display())]
    CurrentModel {
        /// The map.
        path: PathBuf,
        /// How they differ.
        difference: String,
    },
    /// A limit in bytes says nothing of experts of unknown size.
    #[error("{name} needs the size of an expert: give --expert-bytes or --model")]
    ExpertBytes {
        /// The option.
        name: &'static str,
    },
    /// A replay needs windows that follow each other.
    #[error(
        "{windows} window is too few to replay: what is decided after one is judged on the next; give a load [windows, \
         layers, experts] with at least 2, or several --load"
    )]
    TooFewWindows {
        /// Windows there are.
        windows: usize,
    },
    /// The slots are impossible.
    #[error(transparent)]
    Shape(#[from] MapError),
    /// The ranks cannot be arranged so.
    #[error(transparent)]
    Topology(#[from] TopologyError),
    /// No plan can be made.
    #[error(transparent)]
    Balance(#[from] BalanceError),
    /// Nothing can be decided.
    #[error(transparent)]
    Proposal(#[from] ProposalError),
    /// Nothing can be sized.
    #[error(transparent)]
    Sizing(#[from] SizingError),
    /// A map cannot be written in the format.
    #[error(transparent)]
    Format(#[from] WriteError),
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::with_rows;

    #[test]
    fn lists_of_numbers_are_on_one_line_and_nothing_else_changes() {
        let value = json!({"a": [[1, 2], [3]], "text": "x: [\n 1,\n 2]", "empty": [], "mixed": [{"b": [4, 5]}]});
        let rows = with_rows(&serde_json::to_string_pretty(&value).unwrap());
        assert_eq!(serde_json::from_str::<Value>(&rows).unwrap(), value);
        assert!(rows.contains("[1, 2]") && rows.contains("\"b\": [4, 5]"), "{rows}");
    }
}
