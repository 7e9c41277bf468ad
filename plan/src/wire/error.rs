//! Why a document is refused.

use thiserror::Error;

use super::{ModelIdentity, VERSION};
use crate::map::MapError;
use crate::words::{counted, is_hidden};

/// Characters that are said of a name that a document gives. A digest has as many.
const MOST_NAME: usize = 64;
/// Characters that are said of what is wrong with its form: a parser quotes what it found.
const MOST_REASON: usize = 240;
/// Stands for what was left out.
const GAP: &str = "...";

/// Why a document was refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum WireError {
    /// It is no JSON of the expected form.
    #[error("not a valid document: {}", shortened(reason, MOST_REASON))]
    Json {
        /// What the parser says.
        reason: String,
    },
    /// It was written by another version.
    #[error("version {:?} is not known here, only {VERSION:?}", shortened(found, MOST_NAME))]
    Version {
        /// The version it names.
        found: String,
    },
    /// It belongs to another model.
    #[error(
        "made for model {found_name} ({found_layers}, {found_experts}, digest {found_digest}), not \
         for {expected_name} ({expected_layers}, {expected_experts}, {expected_digest})",
        found_name = shortened(&found.name, MOST_NAME), found_layers = counted(found.layers, "MoE layer"),
        found_experts = counted(found.experts, "expert"),
        found_digest = shortened(&found.digest, MOST_NAME), expected_name = shortened(&expected.name, MOST_NAME),
        expected_layers = expected.layers, expected_experts = expected.experts,
        expected_digest = shortened(&expected.digest, MOST_NAME)
    )]
    OtherModel {
        /// The model it was made for.
        found: Box<ModelIdentity>,
        /// The model that is served.
        expected: Box<ModelIdentity>,
    },
    /// It has another number of layers than its model.
    #[error("{} instead of {expected}", counted(*found, "layer"))]
    Layers {
        /// Layers found.
        found: usize,
        /// Layers of the model.
        expected: usize,
    },
    /// A layer has another number of ranks.
    #[error("layer {layer}: {} instead of {expected}", counted(*found, "rank"))]
    Ranks {
        /// The layer.
        layer: usize,
        /// Ranks found.
        found: usize,
        /// Ranks named.
        expected: usize,
    },
    /// A rank has another number of slots.
    #[error("layer {layer}, rank {rank}: {} instead of {expected}", counted(*found, "slot"))]
    Slots {
        /// The layer.
        layer: usize,
        /// The rank.
        rank: usize,
        /// Slots found.
        found: usize,
        /// Slots named.
        expected: usize,
    },
    /// The slots of the ranks are not given once for each.
    #[error("slotsOfRanks has {} for {}", counted(*found, "number"), counted(*expected, "rank"))]
    SlotsOfRanks {
        /// Numbers found.
        found: usize,
        /// Ranks named.
        expected: usize,
    },
    /// A rank has more slots than the document says that any has.
    #[error("rank {rank} has {}, more than the {most} of slotsPerRank", counted(*found, "slot"))]
    MoreSlots {
        /// Which.
        rank: usize,
        /// Its slots.
        found: usize,
        /// The most.
        most: usize,
    },
    /// A layer of a load has another number of experts.
    #[error("layer {layer}: {} instead of {expected}", counted(*found, "expert"))]
    Experts {
        /// The layer.
        layer: usize,
        /// Experts found.
        found: usize,
        /// Experts of the model.
        expected: usize,
    },
    /// The placement breaks an invariant.
    #[error(transparent)]
    Map(#[from] MapError),
}

/// At most `most` characters of a text, on one line; of a longer one both ends, since a parser says first what is wrong and
/// last where.
fn shortened(text: &str, most: usize) -> String {
    let shown =
        |letters: Vec<char>| letters.into_iter().map(|c| if is_hidden(c) { ' ' } else { c }).collect::<String>();
    if text.chars().nth(most).is_none() {
        return shown(text.chars().collect());
    }
    let last = (most - GAP.len()) / 3;
    let head = text.chars().take(most - GAP.len() - last).collect();
    let mut tail: Vec<char> = text.chars().rev().take(last).collect();
    tail.reverse();
    format!("{}{GAP}{}", shown(head), shown(tail))
}
