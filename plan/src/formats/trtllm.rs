//! TensorRT-LLM's configuration of its MoE load balancer, YAML: `num_slots`, `initial_global_assignments` (logical experts
//! of all slots, by number of layer) and `layer_updates_per_iter` (`MoeLoadBalancerConfig` in
//! `tensorrt_llm/llmapi/llm_args.py`, which refuses other fields, and
//! `examples/ep_load_balancer/generate_eplb_config.py`, which writes it).
//!
//! Layers have their numbers in the model, dense ones included: DeepSeek-V3's MoE layers are 3 to 60.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Deserialize;
use thiserror::Error;

use super::Expected;
use super::physical::{self, PhysicalError};
use crate::ids::LayerId;
use crate::map::ExpertMap;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(clippy::struct_field_names, reason = "the names of the format")]
struct File {
    num_slots: i64,
    initial_global_assignments: BTreeMap<i64, Vec<i64>>,
    /// Weights moved while serving; has no bearing on the placement.
    #[serde(default, rename = "layer_updates_per_iter")]
    _layer_updates_per_iter: i64,
}

/// The map as TensorRT-LLM reads it, for a model whose first `dense_layers` layers have no experts. The placement stays as
/// it is while serving.
#[must_use]
pub fn write(map: &ExpertMap, dense_layers: usize) -> String {
    let mut yaml = "initial_global_assignments:\n".to_owned();
    for (layer, row) in physical::rows(map).iter().enumerate() {
        let experts: Vec<String> = row.iter().map(ToString::to_string).collect();
        writeln!(yaml, "  {}: [{}]", dense_layers + layer, experts.join(", "))
            .expect("writing to a string does not fail");
    }
    writeln!(yaml, "layer_updates_per_iter: 0\nnum_slots: {}", map.physical())
        .expect("writing to a string does not fail");
    yaml
}

/// Reads a map; the number of ranks must be known, and the MoE layers must follow the dense ones without a gap.
///
/// # Errors
/// If it is not in this format or not a valid map; the error names the layer, the rank and the id.
pub fn read(yaml: &[u8], expected: &Expected) -> Result<ExpertMap, ReadError> {
    let text = std::str::from_utf8(yaml).map_err(|source| ReadError::Yaml { reason: source.to_string() })?;
    let file: File = serde_saphyr::from_str(text).map_err(|source| ReadError::Yaml { reason: first_line(&source) })?;
    let File { num_slots, initial_global_assignments, _layer_updates_per_iter } = file;
    let first = expected.dense_layers;
    for (number, (&layer, row)) in (first as i64..).zip(&initial_global_assignments) {
        if layer != number {
            return Err(ReadError::LayerIds { found: layer, expected: number, dense: first });
        }
        if usize::try_from(num_slots) != Ok(row.len()) {
            return Err(ReadError::Slots { layer: LayerId(layer as u32), found: row.len(), named: num_slots });
        }
    }
    let rows: Vec<Vec<i64>> = initial_global_assignments.into_values().collect();
    Ok(physical::to_map(&rows, first, expected)?)
}

/// What went wrong, without the excerpt of the file, in which a line may be long.
fn first_line(source: &serde_saphyr::Error) -> String {
    source.to_string().lines().next().unwrap_or_default().to_owned()
}

/// Why a file is no map. Reading it again does not help.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ReadError {
    /// It is no YAML of this format.
    #[error("not in its format, num_slots and initial_global_assignments: {reason}")]
    Yaml {
        /// What the parser says.
        reason: String,
    },
    /// The numbers of layers are not those that follow the dense layers.
    #[error(
        "layer {found} is there where layer {expected} should be; layers count from 0, dense ones included, and the model \
         is said to start with {dense} dense layers"
    )]
    LayerIds {
        /// The number found.
        found: i64,
        /// The number that should be there.
        expected: i64,
        /// Dense layers of the model.
        dense: usize,
    },
    /// A layer has another number of slots than named.
    #[error("{layer}: {found} slots, num_slots is {named}")]
    Slots {
        /// Where.
        layer: LayerId,
        /// Slots of this layer.
        found: usize,
        /// `num_slots`.
        named: i64,
    },
    /// It is no valid map.
    #[error(transparent)]
    Physical(#[from] PhysicalError),
}

#[cfg(test)]
mod tests;
