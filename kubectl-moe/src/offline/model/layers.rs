//! Which layers of a model have experts.

use serde_json::Value;

use super::{Config, MOST};
use crate::words::counted;

/// Whether each layer has experts. Families say it by the first that has some, by a period, or layer by layer.
pub(super) fn with_experts(config: Config<'_>, layers: usize) -> Result<Vec<bool>, String> {
    if let Some(listed) = listed(config, layers)? {
        return Ok(listed);
    }
    let number = |name: &str| config.number(name, 0..=MOST).map(|number| number.map(|number| number as usize));
    let first = match number("first_k_dense_replace")? {
        Some(first) => first,
        None => number("moe_layer_start_index")?.unwrap_or(0),
    };
    let last = number("moe_layer_end_index")?.unwrap_or(layers);
    // Of Qwen3-MoE and Llama 4, every so many layers the last has experts; of Jamba, one at an offset.
    let step = match number("decoder_sparse_step")? {
        Some(step) => step,
        None => number("interleave_moe_layer_step")?.unwrap_or(1),
    };
    let period = number("expert_layer_period")?.unwrap_or(1).max(1);
    let offset = number("expert_layer_offset")?.unwrap_or(0);
    let interval = match config.get("moe_layer_freq").filter(|value| value.is_number()) {
        Some(_) => number("moe_layer_freq")?.unwrap_or(1),
        None => number("moe_layer_interval")?.unwrap_or(1),
    };
    let dense: Vec<usize> = numbers(config.get("mlp_only_layers"));
    let has = |layer: usize| {
        (first..=last).contains(&layer)
            && step > 0
            && (layer + 1).is_multiple_of(step)
            && layer % period == offset % period
            && interval > 0
            && layer.is_multiple_of(interval)
            && !dense.contains(&layer)
    };
    Ok((0..layers).map(has).collect())
}

/// What a list or a pattern says of each layer.
fn listed(config: Config<'_>, layers: usize) -> Result<Option<Vec<bool>>, String> {
    let whole = |name: &str, has: Vec<bool>| {
        let found = has.len();
        if found < layers {
            return Err(format!("has {name} of {}, and num_hidden_layers {layers}", counted(found, "layer")));
        }
        Ok(Some(has.into_iter().take(layers).collect()))
    };
    if let Some(types) = config.get("mlp_layer_types").and_then(Value::as_array) {
        return whole("mlp_layer_types", types.iter().map(|kind| kind.as_str() == Some("sparse")).collect());
    }
    if let Some(each) = config.get("moe_layer_freq").and_then(Value::as_array) {
        return whole("moe_layer_freq", each.iter().map(|has| has.as_u64() == Some(1)).collect());
    }
    if let Some(pattern) = config.text("hybrid_override_pattern") {
        return whole("hybrid_override_pattern", pattern.chars().map(|kind| kind == 'E').collect());
    }
    let named = match config.get("moe_layers") {
        Some(list) if list.is_array() => Some(numbers(Some(list))),
        _ => config
            .text("moe_layers_enum")
            .map(|list| list.split(',').filter_map(|one| one.trim().parse().ok()).collect()),
    };
    Ok(named.map(|named: Vec<usize>| (0..layers).map(|layer| named.contains(&layer)).collect()))
}

fn numbers(list: Option<&Value>) -> Vec<usize> {
    let items = list.and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    items.iter().filter_map(Value::as_u64).map(|number| number as usize).collect()
}
