//! Expert maps and loads as other engines write them, checked as strictly as our own documents.

pub mod loads;
pub mod npy;
pub mod physical;
pub mod sglang;
pub mod trtllm;
pub mod vllm;
pub mod vllm_ascend;

use std::fmt;
use std::str::FromStr;

use serde::Deserialize;
use thiserror::Error;

use crate::map::ExpertMap;
use crate::wire::{MapDocument, ModelIdentity, RecordedMap, WireError};

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
    /// Whether second copies of an expert on a rank, which other engines write now and then, are taken away instead of
    /// refused: each changes places with a slot of another rank, or becomes a copy of an expert that its rank lacks.
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
}

/// Reads a map in any known format, which its text tells.
///
/// # Errors
/// If it is in none of them, or is no valid map or not the one expected.
pub fn read_any(text: &[u8], expected: &Expected) -> Result<Found, FormatError> {
    let is_json = text.iter().find(|byte| !byte.is_ascii_whitespace()).is_some_and(|byte| matches!(byte, b'[' | b'{'));
    if !is_json
        && !is_trtllm(text)
        && let Ok(value) = document(text)
    {
        return read_any(value.to_string().as_bytes(), expected);
    }
    let format = recognize(text)?;
    let (map, model) = match format {
        Format::Swift => read_own(text).map(|(map, model)| (map, Some(model)))?,
        Format::VllmAscend => (vllm_ascend::read_expected(text, expected).map_err(FormatError::VllmAscend)?, None),
        Format::Vllm => (vllm::read(text, expected).map_err(FormatError::Vllm)?, None),
        Format::Sglang => (sglang::read(text, expected).map_err(FormatError::Sglang)?, None),
        Format::Trtllm => (trtllm::read(text, expected).map_err(FormatError::Trtllm)?, None),
    };
    let shape = map.shape();
    for (what, found, wanted) in [
        ("MoE layers", shape.layers, expected.layers),
        ("experts", shape.experts, expected.experts),
        ("ranks", shape.ranks, expected.ranks),
    ] {
        if let Some(wanted) = wanted.filter(|&wanted| wanted != found) {
            return Err(FormatError::Dimension { format, what, found, expected: wanted });
        }
    }
    Ok(Found { format, map, model })
}

fn read_own(json: &[u8]) -> Result<(ExpertMap, ModelIdentity), FormatError> {
    let document = match head(json)? {
        Head { version: Some(_), .. } => MapDocument::from_json(json)?,
        _ => RecordedMap::from_json(json)?.map,
    };
    Ok((document.to_map(&document.model)?, document.model))
}

fn recognize(text: &[u8]) -> Result<Format, FormatError> {
    match text.iter().find(|byte| !byte.is_ascii_whitespace()) {
        Some(b'[') => Ok(Format::Vllm),
        Some(b'{') => match head(text)? {
            Head { version: Some(_), .. } | Head { map: Some(_), .. } => Ok(Format::Swift),
            Head { moe_layer_count: Some(_), .. } => Ok(Format::VllmAscend),
            Head { physical_to_logical_map: Some(_), .. } => Ok(Format::Sglang),
            Head { initial_global_assignments: Some(_), .. } => Ok(Format::Trtllm),
            Head { logical_count: Some(_), .. } => Err(FormatError::Load),
            _ => Err(FormatError::Unknown),
        },
        _ if is_trtllm(text) => Ok(Format::Trtllm),
        _ => Err(FormatError::Unknown),
    }
}

fn is_trtllm(text: &[u8]) -> bool {
    text.split(|&byte| byte == b'\n').any(|line| line.starts_with(b"initial_global_assignments"))
}

#[derive(Deserialize)]
struct Head {
    version: Option<serde::de::IgnoredAny>,
    map: Option<serde::de::IgnoredAny>,
    moe_layer_count: Option<serde::de::IgnoredAny>,
    physical_to_logical_map: Option<serde::de::IgnoredAny>,
    initial_global_assignments: Option<serde::de::IgnoredAny>,
    logical_count: Option<serde::de::IgnoredAny>,
}

/// The data of a text that is JSON, or YAML of lists or fields; otherwise what the reader of JSON says.
pub(crate) fn document(text: &[u8]) -> Result<serde_json::Value, String> {
    let error = match serde_json::from_slice(text) {
        Ok(value) => return Ok(value),
        Err(error) => error.to_string(),
    };
    // Almost every text is YAML, of one word.
    let yaml = std::str::from_utf8(text).ok().and_then(|text| serde_saphyr::from_str::<serde_json::Value>(text).ok());
    yaml.filter(|value| value.is_object() || value.is_array()).ok_or(error)
}

fn head(json: &[u8]) -> Result<Head, FormatError> {
    serde_json::from_slice(json).map_err(|source| FormatError::Json { reason: source.to_string() })
}

/// Reads a map of a model that is to be served, in a format that tells how many ranks it is for: a [`MapDocument`], a
/// [`RecordedMap`] or vllm-ascend's `eplb.json`.
///
/// # Errors
/// If it is in none of them, or is no valid map for the model.
pub fn read(json: &[u8], model: &ModelIdentity) -> Result<ExpertMap, FormatError> {
    match head(json)? {
        Head { version: Some(_), .. } => Ok(MapDocument::from_json(json)?.to_map(model)?),
        Head { map: Some(_), .. } => Ok(RecordedMap::from_json(json)?.map.to_map(model)?),
        Head { moe_layer_count: Some(_), .. } => vllm_ascend::read(json, model).map_err(FormatError::VllmAscend),
        Head { physical_to_logical_map: Some(_), .. } => Err(FormatError::Convert { format: Format::Sglang }),
        Head { initial_global_assignments: Some(_), .. } => Err(FormatError::Convert { format: Format::Trtllm }),
        _ => Err(FormatError::Unknown),
    }
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
    /// It is no JSON object.
    #[error("not an expert map: {reason}")]
    Json {
        /// What the parser says.
        reason: String,
    },
    /// Its fields are those of no known format.
    #[error(
        "not an expert map: it is no list (vllm), and neither `version` (a map of this project), `map` (a recorded map), \
         `moe_layer_count` (vllm-ascend), `physical_to_logical_map` (sglang) nor `initial_global_assignments` (trtllm) is \
         there"
    )]
    Unknown,
    /// It holds counts.
    #[error("a load, not an expert map: plan from it with `kubectl moe plan --load`")]
    Load,
    /// The format does not say what is needed to serve from it.
    #[error(
        "an expert map of {format}, which does not tell how many ranks it is for; `kubectl moe map convert --to swift` \
         makes one that does"
    )]
    Convert {
        /// The format.
        format: Format,
    },
    /// It is not the map that is expected.
    #[error("expert map of {format}: it has {found} {what}, expected are {expected}")]
    Dimension {
        /// The format.
        format: Format,
        /// Which dimension.
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
