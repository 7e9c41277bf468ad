//! TensorRT-LLM's configuration of its MoE load balancer, YAML: `num_slots`, `initial_global_assignments` (logical experts
//! of all slots, by number of layer) and `layer_updates_per_iter` (`MoeLoadBalancerConfig` in
//! `tensorrt_llm/llmapi/llm_args.py`, which refuses other fields, and
//! `examples/ep_load_balancer/generate_eplb_config.py`, which writes it). It stands in a file of its own, or in the options
//! of the server as `moe_config: {load_balancer: ...}`, formerly `moe_load_balancer: ...`, where a text names such a file.
//!
//! Layers have their numbers in the model, dense ones included: DeepSeek-V3's MoE layers are 3 to 60. A configuration for
//! balancing online names no assignments: rank `r` of `N` starts with experts `r E / N` and those that follow it, as
//! `tensorrt_llm/_torch/modules/fused_moe` has it.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Deserialize;
use serde_json::Value;
use thiserror::Error;

use super::physical::{self, PhysicalError};
use super::{Expected, Placed};
use crate::ids::LayerId;
use crate::map::{ExpertMap, MAX_DIMENSION};
use crate::words::counted;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(clippy::struct_field_names, reason = "the names of the format")]
struct File {
    num_slots: i64,
    initial_global_assignments: Option<BTreeMap<i64, Vec<i64>>>,
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

/// Reads a map; the number of ranks must be known, and the MoE layers must follow the dense ones without a gap. Where
/// nothing is assigned, layers and experts must be known too.
///
/// # Errors
/// If it is not in this format or not a valid map; the error names the layer, the rank and the id.
pub fn read(text: &[u8], expected: &Expected) -> Result<Placed, ReadError> {
    let form = |reason: String| ReadError::Form { reason };
    let whole = super::document(text).map_err(form)?;
    let of_options = whole.get("moe_config").map(|options| options.get("load_balancer").unwrap_or(&Value::Null));
    let balancer = of_options.or_else(|| whole.get("moe_load_balancer")).unwrap_or(&whole);
    match balancer {
        Value::String(file) => return Err(ReadError::Elsewhere { file: file.chars().take(SHOWN).collect() }),
        Value::Null => return Err(ReadError::NoBalancer),
        _ => {}
    }
    let file: File = serde_json::from_value(balancer.clone()).map_err(|source| form(source.to_string()))?;
    let File { num_slots, initial_global_assignments, _layer_updates_per_iter } = file;
    let first = expected.dense_layers;
    let Some(assignments) = initial_global_assignments else {
        return Ok(physical::to_map(&started(num_slots, expected)?, first, expected)?);
    };
    for (number, (&layer, row)) in (first as i64..).zip(&assignments) {
        if layer != number {
            return Err(ReadError::LayerIds { found: layer, expected: number, dense: first });
        }
        if usize::try_from(num_slots) != Ok(row.len()) {
            return Err(ReadError::Slots { layer: LayerId(layer as u32), found: row.len(), named: num_slots });
        }
    }
    let rows: Vec<Vec<i64>> = assignments.into_values().collect();
    Ok(physical::to_map(&rows, first, expected)?)
}

/// Characters of the name of another file that an error shows.
const SHOWN: usize = 80;

/// The rows that it starts with where it assigns nothing.
fn started(num_slots: i64, expected: &Expected) -> Result<Vec<Vec<i64>>, ReadError> {
    let slots = usize::try_from(num_slots).ok().filter(|slots| (1..=MAX_DIMENSION * MAX_DIMENSION).contains(slots));
    let slots = slots.ok_or(ReadError::NumSlots { named: num_slots })?;
    let &Expected { layers: Some(layers), experts: Some(experts), ranks: Some(ranks), .. } = expected else {
        return Err(ReadError::Online { slots });
    };
    if ranks == 0 || experts == 0 || !slots.is_multiple_of(ranks) {
        return Err(PhysicalError::Indivisible { physical: slots, ranks }.into());
    }
    let per_rank = slots / ranks;
    let row: Vec<i64> = (0..ranks)
        .flat_map(|rank| (0..per_rank).map(move |slot| ((rank * experts / ranks + slot) % experts) as i64))
        .collect();
    Ok(vec![row; layers.min(MAX_DIMENSION)])
}

/// Why a file is no map. Reading it again does not help.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ReadError {
    /// It is no YAML of this format.
    #[error("not in its format, num_slots and initial_global_assignments: {reason}")]
    Form {
        /// What the parser says.
        reason: String,
    },
    /// It names another file.
    #[error("the options of a server, which have their load balancer in another file, {file:?}: read that one")]
    Elsewhere {
        /// The file.
        file: String,
    },
    /// The options of a server have no load balancer.
    #[error("the options of a server without a load_balancer in their moe_config, so without a placement")]
    NoBalancer,
    /// `num_slots` is impossible.
    #[error("num_slots is {named}; it must be at least the number of experts")]
    NumSlots {
        /// What it is.
        named: i64,
    },
    /// A placement that is not assigned is known only with the model.
    #[error(
        "a configuration for balancing online, which assigns no expert to its {}: where it starts follows from --ranks, \
         --layers and --experts, or --ranks and --model; where experts are by now only TensorRT-LLM knows",
        counted(*slots, "slot")
    )]
    Online {
        /// `num_slots`.
        slots: usize,
    },
    /// The numbers of layers are not those that follow the dense layers.
    #[error(
        "layer {found} is there where layer {expected} should be; layers count from 0, dense ones included, and the model \
         is said to start with {}",
        counted(*dense, "dense layer")
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
    #[error("{layer}: {}, num_slots is {named}", counted(*found, "slot"))]
    Slots {
        /// The layer.
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
