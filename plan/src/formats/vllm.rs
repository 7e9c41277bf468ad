//! vLLM's `physical_to_logical_map` as JSON: `[[ids of physical experts...], ...]`, a row for each MoE layer, as
//! `EplbModelState` in `vllm/distributed/eplb/eplb_state.py` holds it.
//!
//! No release of vLLM reads or writes a map in a file (0.33.0 starts from `p mod E` and plans from there). The form is that
//! of its state and of the setting `eplb_config.initial_expert_map_path` proposed in vllm-project/vllm#49572.

use thiserror::Error;

use super::physical::{self, PhysicalError};
use super::{Expected, Placed};
use crate::map::ExpertMap;

/// The rows of a map, JSON with a newline at its end, a layer on each line.
#[must_use]
pub fn write(map: &ExpertMap) -> String {
    format!("{}\n", lines(&physical::rows(map), ""))
}

/// Rows as JSON, each on a line of its own.
pub(super) fn lines(rows: &[Vec<u32>], indent: &str) -> String {
    let rows: Vec<String> =
        rows.iter().map(|row| format!("{indent}  {}", serde_json::to_string(row).expect("numbers are JSON"))).collect();
    format!("[\n{}\n{indent}]", rows.join(",\n"))
}

/// Reads rows; the number of ranks must be known.
///
/// # Errors
/// If it is not in this format or not a valid map; the error names the layer, the rank and the id.
pub fn read(json: &[u8], expected: &Expected) -> Result<Placed, ReadError> {
    let rows: Vec<Vec<i64>> =
        serde_json::from_slice(json).map_err(|source| ReadError::Json { reason: source.to_string() })?;
    Ok(physical::to_map(&rows, 0, expected)?)
}

/// Why a file is no map. Reading it again does not help.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ReadError {
    /// It is no JSON of this format.
    #[error("not in its format, a list of layers that are lists of experts: {reason}")]
    Json {
        /// What the parser says.
        reason: String,
    },
    /// It is no valid map.
    #[error(transparent)]
    Physical(#[from] PhysicalError),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::map::MapShape;

    const EXPECTED: Expected =
        Expected { layers: Some(2), experts: Some(3), ranks: Some(2), dense_layers: 0, mtp_layers: 0, repair: false };

    #[test]
    fn a_map_is_read_as_it_was_written() {
        let map = ExpertMap::contiguous(MapShape { layers: 2, experts: 3, ranks: 2, slots_per_rank: 2 }).unwrap();
        assert_eq!(write(&map), "[\n  [0,1,2,0],\n  [0,1,2,0]\n]\n");
        assert_eq!(read(write(&map).as_bytes(), &EXPECTED).map(|placed| placed.map), Ok(map));
    }

    #[test]
    fn other_forms_are_refused() {
        for json in ["[0, 1, 2, 0]", "[[0, 1.5]]", r#"[{"0": 1}]"#, "[[0, 1], [2"] {
            let refused = read(json.as_bytes(), &EXPECTED);
            assert!(matches!(refused, Err(ReadError::Json { .. })), "{json}: {refused:?}");
        }
    }
}
