//! What SGLang takes for `--init-expert-location`: `{"physical_to_logical_map": [[ids of physical experts...], ...]}` in a
//! file whose name ends in `.json` (`compute_initial_expert_location_metadata` in
//! `python/sglang/srt/eplb/expert_location.py`, which passes every other field on as an argument that does not exist).
//!
//! A row for each layer of the model: dense layers have rows too, which nothing reads.

use serde::Deserialize;
use thiserror::Error;

use super::physical::{self, PhysicalError};
use super::{Expected, Placed, vllm};
use crate::map::ExpertMap;
use crate::words::counted;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    physical_to_logical_map: Vec<Vec<i64>>,
}

/// The map as SGLang reads it, for a model whose first `dense_layers` layers have no experts; JSON with a newline at its
/// end, a layer on each line.
#[must_use]
pub fn write(map: &ExpertMap, dense_layers: usize) -> String {
    let mut rows = vec![physical::dense_row(map); dense_layers];
    rows.extend(physical::rows(map));
    format!("{{\n  \"physical_to_logical_map\": {}\n}}\n", vllm::lines(&rows, "  "))
}

/// Reads a map; the number of ranks must be known. Rows of dense layers are left out.
///
/// # Errors
/// If it is not in this format or not a valid map; the error names the layer, the rank and the id.
pub fn read(json: &[u8], expected: &Expected) -> Result<Placed, ReadError> {
    let File { mut physical_to_logical_map } =
        serde_json::from_slice(json).map_err(|source| ReadError::Json { reason: source.to_string() })?;
    let (dense, found) = (expected.dense_layers, physical_to_logical_map.len());
    if dense > 0 && found <= dense {
        return Err(ReadError::OnlyDense { found, dense });
    }
    let rows = physical_to_logical_map.split_off(dense.min(found));
    Ok(physical::to_map(&rows, dense, expected)?)
}

/// Why a file is no map. Reading it again does not help.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ReadError {
    /// It is no JSON of this format.
    #[error("not in its format, {{\"physical_to_logical_map\": [[...]]}}: {reason}")]
    Json {
        /// What the parser says.
        reason: String,
    },
    /// No layer is left.
    #[error(
        "it has {}, and the model is said to start with {}; dense layers are counted too in this format",
        counted(*found, "layer"),
        counted(*dense, "dense layer")
    )]
    OnlyDense {
        /// Layers of the file.
        found: usize,
        /// Dense layers of the model.
        dense: usize,
    },
    /// It is no valid map.
    #[error(transparent)]
    Physical(#[from] PhysicalError),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::map::MapShape;

    fn expected(dense_layers: usize) -> Expected {
        Expected { layers: Some(1), experts: Some(3), ranks: Some(2), dense_layers, mtp_layers: 0, repair: false }
    }

    #[test]
    fn a_map_is_read_as_it_was_written_with_rows_for_dense_layers() {
        let map = ExpertMap::contiguous(MapShape { layers: 1, experts: 3, ranks: 2, slots_per_rank: 2 }).unwrap();
        let json = write(&map, 1);
        assert_eq!(json, "{\n  \"physical_to_logical_map\": [\n    [0,1,2,0],\n    [0,1,2,0]\n  ]\n}\n");
        assert_eq!(read(json.as_bytes(), &expected(1)).map(|placed| placed.map), Ok(map.clone()));
        assert_eq!(read(write(&map, 0).as_bytes(), &expected(0)).map(|placed| placed.map), Ok(map));
    }

    #[test]
    fn fields_that_sglang_would_refuse_are_refused() {
        let refused = |json: &str| read(json.as_bytes(), &expected(0)).unwrap_err().to_string();
        let extra = refused(r#"{"physical_to_logical_map": [[0]], "rank": 0}"#);
        assert!(extra.contains("unknown field `rank`"), "{extra}");
        let missing = refused("{}");
        assert!(missing.contains("missing field `physical_to_logical_map`"), "{missing}");
    }

    #[test]
    fn rows_are_named_as_in_the_file() {
        let json = br#"{"physical_to_logical_map": [[0, 1, 2, 0], [0, 1, 2, 7]]}"#;
        let unknown = "layer 1, rank 1: expert 7 does not exist, the model has 3";
        assert_eq!(read(json, &expected(1)).unwrap_err().to_string(), unknown);
        assert_eq!(read(json, &expected(2)), Err(ReadError::OnlyDense { found: 2, dense: 2 }));
    }
}
