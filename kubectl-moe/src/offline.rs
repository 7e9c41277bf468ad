//! The commands that need no cluster: they read files, plan, and print or write what comes of it. Reading and writing are
//! here; what is computed is in `plan` and in the modules below.

mod basis;
mod convert;
mod input;
mod judge;
mod model;
mod plan;
mod simulate;
mod size;

use std::path::{Path, PathBuf};

use ::plan::balance::BalanceError;
use ::plan::formats::loads::LoadError;
use ::plan::formats::statistics::StatisticsError;
use ::plan::formats::{FormatError, SecondCopy, WriteError};
use ::plan::map::MapError;
use ::plan::proposal::ProposalError;
use ::plan::sizing::SizingError;
use ::plan::topology::TopologyError;
use thiserror::Error;

use crate::Terminal;
use crate::words::counted;

pub(super) use convert::{CheckArguments, ConvertArguments, Description, check, convert};
pub(super) use plan::{PlanArguments, run as plan};
pub(super) use simulate::{SimulateArguments, run as simulate};
pub(super) use size::{SizeArguments, run as size};

/// What stands for standard input, and for the result's place on standard output.
const STANDARD: &str = "-";

fn is_standard(path: &Path) -> bool {
    path == Path::new(STANDARD)
}

/// That a map has slots of no use, with the first of them.
fn second_copies(path: &Path, count: usize, first: &SecondCopy) -> String {
    let SecondCopy { layer, rank, expert, stand_in: _ } = first;
    let slots = counted(count, "slot");
    let whose = if count == 1 { "whose expert is" } else { "whose experts are" };
    format!(
        "{} has {slots} {whose} on the same rank twice, such as expert {} on rank {} in MoE layer {}",
        named(path),
        expert.0,
        rank.0,
        layer.0
    )
}

/// A file as errors name it.
fn named(path: &Path) -> String {
    if is_standard(path) { "standard input".to_owned() } else { path.display().to_string() }
}

fn read(path: &Path, terminal: &mut Terminal<'_>) -> Result<Vec<u8>, OfflineError> {
    terminal.progress.doing(&format!("reading {}", named(path)));
    let bytes =
        if is_standard(path) { terminal.read_input().ok_or(OfflineError::InputTwice)? } else { std::fs::read(path) };
    bytes.map_err(|source| OfflineError::Read { path: path.to_owned(), source })
}

/// Writes a file; `-` gives its text back, to be printed in the place of the result.
pub(crate) fn write(path: &Path, text: String) -> Result<Option<String>, OfflineError> {
    if is_standard(path) {
        return Ok(Some(text));
    }
    std::fs::write(path, text).map_err(|source| OfflineError::Write { path: path.to_owned(), source })?;
    Ok(None)
}

/// Why a command that needs no cluster failed.
#[derive(Debug, Error)]
pub enum OfflineError {
    /// A file cannot be read.
    #[error("{} cannot be read", named(path))]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// Standard input is named for two files.
    #[error("standard input can be read once, and - names it for two files; give one of them as a file")]
    InputTwice,
    /// A file cannot be written.
    #[error("{} cannot be written", named(path))]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A file holds no load.
    #[error("{} is no load to plan from", named(path))]
    Load {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: LoadError,
    },
    /// A folder that is not one of statistics.
    #[error(
        "{} is a folder, and not one of TensorRT-LLM's statistics: it has no {}",
        named(path),
        ::plan::formats::statistics::META
    )]
    Folder {
        /// The folder.
        path: PathBuf,
    },
    /// A folder whose statistics cannot be used.
    #[error("{} holds no statistics to plan from", named(path))]
    Statistics {
        /// The folder.
        path: PathBuf,
        /// What is wrong with it.
        source: StatisticsError,
    },
    /// No window has load.
    #[error("{} has no load: every count is 0", named(path))]
    NoLoad {
        /// The first file.
        path: PathBuf,
    },
    /// Router groups that are not equally large.
    #[error(
        "{} cannot be of equally many experts, of {} in all; give --router-groups a divisor of the experts",
        counted(*groups, "router group"),
        counted(*experts, "expert")
    )]
    RouterGroups {
        /// Groups.
        groups: usize,
        /// Experts.
        experts: usize,
    },
    /// A map that is to be converted has experts twice on a rank.
    #[error("{}; give --repair to make a map that uses these slots", second_copies(path, *count, first))]
    SecondCopies {
        /// The file.
        path: PathBuf,
        /// Slots that are of no use.
        count: usize,
        /// The first of them.
        first: SecondCopy,
    },
    /// Two files hold loads of different models.
    #[error(
        "{} has {} of {}, {} has {first_layers} of {first_experts}; loads must be of one model",
        named(path),
        counted(*layers, "layer"),
        counted(*experts, "expert"),
        named(first)
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
    #[error("{} is no expert map that can be used: {reason}", named(path))]
    Map {
        /// The file.
        path: PathBuf,
        /// Why; it tells its own causes.
        reason: FormatError,
    },
    /// A map in force is for other ranks or slots.
    #[error(
        "{} is for {} with {}, the plan for {wanted_ranks} with {wanted_slots}; plan without --current, or with its \
         --ranks and --redundancy",
        named(path),
        counted(*ranks, "rank"),
        counted(*slots, "slot")
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
    #[error("{} {what}", named(path))]
    Config {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what to do.
        what: String,
    },
    /// A load or map is of another model than the configuration.
    #[error(
        "the load has {} of {}, {} has {} of {model_experts}; give the model of the load, or --dense-layers where a dump of \
         SGLang counts dense layers",
        counted(*layers, "layer"),
        counted(*experts, "expert"),
        named(path),
        counted(*model_layers, "MoE layer")
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
    #[error("{} is of {difference} as {}; loads must be of one model", named(path), named(first))]
    LoadModels {
        /// The file.
        path: PathBuf,
        /// The first file.
        first: PathBuf,
        /// How they differ.
        difference: String,
    },
    /// The map in force names another model than the load.
    #[error(
        "{} is of {difference} as the load; plan without --current, or with a map of the load's model",
        named(path)
    )]
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
