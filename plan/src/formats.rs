//! Expert maps and loads as other engines write them, checked as strictly as our own documents.

pub mod loads;
pub mod npy;
pub mod physical;
mod second;
pub mod sglang;
pub mod statistics;
pub mod trtllm;
pub mod vllm;
pub mod vllm_ascend;

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;
use thiserror::Error;

use crate::map::ExpertMap;
use crate::wire::{MapDocument, ModelIdentity, RecordedMap, WireError};
use crate::words::counted;
pub use second::SecondCopy;

/// A form of expert maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// A [`MapDocument`]; a [`RecordedMap`] is read too.
    Swift,
    /// See [`vllm_ascend`].
    VllmAscend,
    /// See [`vllm`].
    Vllm,
    /// See [`sglang`].
    Sglang,
    /// See [`trtllm`].
    Trtllm,
}

impl Format {
    /// Every format.
    pub const ALL: [Self; 5] = [Self::Swift, Self::VllmAscend, Self::Vllm, Self::Sglang, Self::Trtllm];

    /// Its name on command lines and in documents.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Swift => "swift",
            Self::VllmAscend => "vllm-ascend",
            Self::Vllm => "vllm",
            Self::Sglang => "sglang",
            Self::Trtllm => "trtllm",
        }
    }

    /// Writes a map in this format. Only our own keeps unequal shares; copies share evenly in the others.
    ///
    /// # Errors
    /// If the format knows only ranks with equally many slots, and the map's differ.
    pub fn write(self, map: &ExpertMap, model: &ModelIdentity, dense_layers: usize) -> Result<String, WriteError> {
        if self != Self::Swift && map.slots_of_ranks().per_rank().is_none() {
            return Err(WriteError::UnequalSlots { format: self });
        }
        Ok(match self {
            Self::Swift => {
                serde_json::to_string(&MapDocument::new(model.clone(), map)).expect("a map document is plain data")
                    + "\n"
            }
            Self::VllmAscend => vllm_ascend::write(map),
            Self::Vllm => vllm::write(map),
            Self::Sglang => sglang::write(map, dense_layers),
            Self::Trtllm => trtllm::write(map, dense_layers),
        })
    }
}

impl fmt::Display for Format {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

impl FromStr for Format {
    type Err = UnknownFormat;

    fn from_str(text: &str) -> Result<Self, UnknownFormat> {
        let known = Self::ALL.into_iter().find(|format| format.as_str() == text);
        known.ok_or_else(|| UnknownFormat(text.to_owned()))
    }
}

/// No format has this name.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("no format is called {0:?}; the formats are swift, vllm-ascend, vllm, sglang and trtllm")]
pub struct UnknownFormat(pub String);

/// What is known of a map before it is read; what is `None` is taken from the file where it can be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Expected {
    /// MoE layers.
    pub layers: Option<usize>,
    /// Logical experts of each layer.
    pub experts: Option<usize>,
    /// Ranks; vLLM's, SGLang's and TensorRT-LLM's formats do not tell them.
    pub ranks: Option<usize>,
    /// Layers without experts before the first MoE layer, which SGLang's and TensorRT-LLM's formats count.
    pub dense_layers: usize,
    /// Layers of experts after the last of the model, for predicting further tokens: engines that serve them have them in
    /// their maps too. They are left out.
    pub mtp_layers: usize,
    /// Whether second copies of an expert on a rank, which other engines write now and then, are taken away: each changes
    /// places with a slot of another rank, or becomes a copy of an expert that its rank lacks. Otherwise they are kept, as
    /// [`Found::second_copies`] tells.
    pub repair: bool,
}

/// A map that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The form it had.
    pub format: Format,
    /// The map.
    pub map: ExpertMap,
    /// Its model, where the format names it.
    pub model: Option<ModelIdentity>,
    /// Slots whose expert another slot of the rank holds too. In [`Self::map`] each holds another expert and takes none of
    /// its tokens, and the first copy takes those of both: ranks have the load that they have under the map that was read.
    pub second_copies: Vec<SecondCopy>,
    /// Layers that were left out as those for predicting further tokens.
    pub mtp_layers: usize,
}

/// A map of another engine's file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    /// The map.
    pub map: ExpertMap,
    /// As in [`Found::second_copies`].
    pub second_copies: Vec<SecondCopy>,
    /// As in [`Found::mtp_layers`].
    pub mtp_layers: usize,
}

/// Reads a map in any known format, which its text tells.
///
/// # Errors
/// If it is in none of them, or is no valid map or not the one expected.
pub fn read_any(text: &[u8], expected: &Expected) -> Result<Found, FormatError> {
    let json = &*as_json(text)?;
    read_as(recognize(json)?, json, expected)
}

/// Reads a map whose format is known.
fn read_as(format: Format, json: &[u8], expected: &Expected) -> Result<Found, FormatError> {
    let (placed, model) = match format {
        Format::Swift => {
            let (map, model) = read_own(json)?;
            (Placed { map, second_copies: Vec::new(), mtp_layers: 0 }, Some(model))
        }
        Format::VllmAscend => (vllm_ascend::read_expected(json, expected).map_err(FormatError::VllmAscend)?, None),
        Format::Vllm => (vllm::read(json, expected).map_err(FormatError::Vllm)?, None),
        Format::Sglang => (sglang::read(json, expected).map_err(FormatError::Sglang)?, None),
        Format::Trtllm => (trtllm::read(json, expected).map_err(FormatError::Trtllm)?, None),
    };
    let Placed { map, second_copies, mtp_layers } = placed;
    let shape = map.shape();
    for (what, found, wanted) in [
        ("MoE layer", shape.layers, expected.layers),
        ("expert", shape.experts, expected.experts),
        ("rank", shape.ranks, expected.ranks),
    ] {
        if let Some(wanted) = wanted.filter(|&wanted| wanted != found) {
            return Err(FormatError::Dimension { format, what, found, expected: wanted });
        }
    }
    Ok(Found { format, map, model, second_copies, mtp_layers })
}

/// Reads a map of a model that is to be served by this many ranks, in any known format.
///
/// # Errors
/// If it is in none of them, or is no valid map for the model.
pub fn read(text: &[u8], model: &ModelIdentity, ranks: usize) -> Result<Found, FormatError> {
    let json = &*as_json(text)?;
    let format = recognize(json)?;
    let placed = match format {
        Format::Swift => {
            let map = own_document(json)?.to_map(model)?;
            Placed { map, second_copies: Vec::new(), mtp_layers: 0 }
        }
        Format::VllmAscend => vllm_ascend::read(json, model).map_err(FormatError::VllmAscend)?,
        Format::Vllm | Format::Sglang | Format::Trtllm => {
            let (layers, experts) = (Some(model.layers), Some(model.experts));
            return read_as(format, json, &Expected { layers, experts, ranks: Some(ranks), ..Expected::default() });
        }
    };
    let Placed { map, second_copies, mtp_layers } = placed;
    Ok(Found { format, map, model: None, second_copies, mtp_layers })
}

fn read_own(json: &[u8]) -> Result<(ExpertMap, ModelIdentity), FormatError> {
    let document = own_document(json)?;
    Ok((document.to_map(&document.model)?, document.model))
}

fn own_document(json: &[u8]) -> Result<MapDocument, FormatError> {
    Ok(match head(json)? {
        Head { version: Some(_), .. } => MapDocument::from_json(json)?,
        _ => RecordedMap::from_json(json)?.map,
    })
}

fn recognize(json: &[u8]) -> Result<Format, FormatError> {
    if json.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'[') {
        return Ok(Format::Vllm);
    }
    match head(json)? {
        Head { version: Some(_), .. } | Head { map: Some(_), .. } => Ok(Format::Swift),
        Head { moe_layer_count: Some(_), .. } => Ok(Format::VllmAscend),
        Head { physical_to_logical_map: Some(_), .. } => Ok(Format::Sglang),
        Head { initial_global_assignments: Some(_), .. }
        | Head { num_slots: Some(_), .. }
        | Head { moe_config: Some(_), .. }
        | Head { moe_load_balancer: Some(_), .. } => Ok(Format::Trtllm),
        Head { logical_count: Some(_), .. } | Head { counts: Some(_), .. } => Err(FormatError::Load),
        _ => Err(FormatError::Unknown),
    }
}

#[derive(Deserialize)]
struct Head {
    version: Option<IgnoredAny>,
    map: Option<IgnoredAny>,
    moe_layer_count: Option<IgnoredAny>,
    physical_to_logical_map: Option<IgnoredAny>,
    initial_global_assignments: Option<IgnoredAny>,
    num_slots: Option<IgnoredAny>,
    moe_config: Option<IgnoredAny>,
    moe_load_balancer: Option<IgnoredAny>,
    logical_count: Option<IgnoredAny>,
    counts: Option<IgnoredAny>,
}

/// The text, or the JSON that says the same where it is YAML.
fn as_json(text: &[u8]) -> Result<Cow<'_, [u8]>, FormatError> {
    let first = text.iter().find(|byte| !byte.is_ascii_whitespace());
    if first.is_some_and(|byte| matches!(byte, b'[' | b'{')) && serde_json::from_slice::<IgnoredAny>(text).is_ok() {
        return Ok(Cow::Borrowed(text));
    }
    let value = document(text).map_err(|reason| FormatError::Json { reason })?;
    Ok(Cow::Owned(value.to_string().into_bytes()))
}

/// The data of a text that is JSON, or YAML of lists or fields; otherwise what its reader says.
pub(crate) fn document(text: &[u8]) -> Result<Value, String> {
    let error = match serde_json::from_slice(text) {
        Ok(value) => return Ok(value),
        Err(error) => error.to_string(),
    };
    let is_json = text.iter().find(|byte| !byte.is_ascii_whitespace()).is_some_and(|byte| matches!(byte, b'[' | b'{'));
    let Ok(text) = std::str::from_utf8(text) else { return Err(error) };
    match serde_saphyr::from_str::<Value>(text) {
        Ok(value) if value.is_object() || value.is_array() => Ok(value),
        // Almost every text is YAML, of one word.
        Ok(_) => Err(error),
        Err(_) if is_json => Err(error),
        // What went wrong, without the excerpt of the file, in which a line may be long.
        Err(source) => Err(source.to_string().lines().next().unwrap_or_default().to_owned()),
    }
}

fn head(json: &[u8]) -> Result<Head, FormatError> {
    serde_json::from_slice(json).map_err(|source| FormatError::Json { reason: source.to_string() })
}

/// Why a map cannot be written in a format.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum WriteError {
    /// The format has one number of slots for all ranks.
    #[error("the format {format} knows only ranks with equally many slots; write it as swift")]
    UnequalSlots {
        /// The format.
        format: Format,
    },
}

/// Why a file is no expert map for the model.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum FormatError {
    /// It is neither JSON nor YAML with fields.
    #[error("not an expert map: neither JSON nor YAML of one: {reason}")]
    Json {
        /// What the parser says.
        reason: String,
    },
    /// Its fields are those of no known format.
    #[error(
        "not an expert map: it is no list (vllm), and neither `version` (a map of this project), `map` (a recorded map), \
         `moe_layer_count` (vllm-ascend), `physical_to_logical_map` (sglang), `num_slots` nor `moe_config` (trtllm) is there"
    )]
    Unknown,
    /// It holds counts.
    #[error("a load, not an expert map: plan from it with `kubectl moe plan --load`")]
    Load,
    /// It is not the map that is expected.
    #[error("expert map of {format}: {} instead of {expected}", counted(*found, what))]
    Dimension {
        /// The format.
        format: Format,
        /// Which dimension, as one of it is called.
        what: &'static str,
        /// Its value.
        found: usize,
        /// The value expected.
        expected: usize,
    },
    /// It is one of ours, and refused.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// It is in the format of vllm-ascend, and refused.
    #[error("expert map of vllm-ascend: {0}")]
    VllmAscend(vllm_ascend::ReadError),
    /// It is in the format of vLLM, and refused.
    #[error("expert map of vllm: {0}")]
    Vllm(vllm::ReadError),
    /// It is in the format of SGLang, and refused.
    #[error("expert map of sglang: {0}")]
    Sglang(sglang::ReadError),
    /// It is in the format of TensorRT-LLM, and refused.
    #[error("expert map of trtllm: {0}")]
    Trtllm(trtllm::ReadError),
}

#[cfg(test)]
mod tests;
