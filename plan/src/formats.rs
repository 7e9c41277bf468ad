//! Expert maps as other engines write them, checked as strictly as our own documents.

pub mod vllm_ascend;

use serde::Deserialize;
use thiserror::Error;

use crate::map::ExpertMap;
use crate::wire::{MapDocument, ModelIdentity, RecordedMap, WireError};

/// Reads a map in any known format, which its fields tell: a [`MapDocument`], a [`RecordedMap`] or vllm-ascend's
/// `eplb.json`.
///
/// # Errors
/// If it is in none of them, or is no valid map for the model.
pub fn read(json: &[u8], model: &ModelIdentity) -> Result<ExpertMap, FormatError> {
    #[derive(Deserialize)]
    struct Head {
        version: Option<serde::de::IgnoredAny>,
        map: Option<serde::de::IgnoredAny>,
        moe_layer_count: Option<serde::de::IgnoredAny>,
    }
    let head: Head = serde_json::from_slice(json).map_err(|source| FormatError::Json { reason: source.to_string() })?;
    match head {
        Head { version: Some(_), .. } => Ok(MapDocument::from_json(json)?.to_map(model)?),
        Head { map: Some(_), .. } => Ok(RecordedMap::from_json(json)?.map.to_map(model)?),
        Head { moe_layer_count: Some(_), .. } => Ok(vllm_ascend::read(json, model)?),
        _ => Err(FormatError::Unknown),
    }
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
        "not an expert map: neither `version` (a map of this project), `map` (a recorded map) nor `moe_layer_count` \
         (vllm-ascend) is there"
    )]
    Unknown,
    /// It is one of ours, and refused.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// It is in the format of vllm-ascend, and refused.
    #[error("expert map of vllm-ascend: {0}")]
    VllmAscend(#[from] vllm_ascend::ReadError),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::map::MapShape;
    use crate::wire::Provenance;

    fn model() -> ModelIdentity {
        ModelIdentity { name: "small".to_owned(), digest: "d1".to_owned(), layers: 1, experts: 4 }
    }

    fn map() -> ExpertMap {
        ExpertMap::contiguous(MapShape { layers: 1, experts: 4, ranks: 2, slots_per_rank: 3 }).unwrap()
    }

    #[test]
    fn a_map_is_read_in_whatever_format_it_is() {
        let document = MapDocument::new(model(), &map());
        let provenance = Provenance { window: 1, window_steps: 1, window_pairs: 1, epoch: 1, ratio: 1.0 };
        let recorded = RecordedMap { map: document.clone(), provenance };
        for json in [
            serde_json::to_string(&document).unwrap(),
            serde_json::to_string(&recorded).unwrap(),
            vllm_ascend::write(&map()),
        ] {
            assert_eq!(read(json.as_bytes(), &model()), Ok(map()), "{json}");
        }
    }

    #[test]
    fn what_is_in_no_known_format_is_refused() {
        assert_eq!(read(br#"{"layers": 4}"#, &model()), Err(FormatError::Unknown));
        assert!(matches!(read(b"layers: 4", &model()), Err(FormatError::Json { .. })));
    }

    #[test]
    fn what_is_wrong_in_a_known_format_is_said_in_its_words() {
        let refused = |json: &str| read(json.as_bytes(), &model()).unwrap_err().to_string();
        let version = r#"version "v9" is not known here, only "swiftbalancer.io/v1""#;
        assert_eq!(refused(r#"{"version": "v9"}"#), version);
        assert_eq!(refused(r#"{"map": {"version": "v9"}}"#), version);
        let count = "expert map of vllm-ascend: moe_layer_count is 1, layer_list has 0 layers";
        assert_eq!(refused(r#"{"moe_layer_count": 1, "layer_list": []}"#), count);
    }
}
