//! `eplb.json` of vllm-ascend:
//! `{"moe_layer_count": L, "layer_list": [{"layer_id": i, "device_count": N, "device_list": [{"device_id": j,
//! "device_expert": [ids...]}]}]}`. A device is a rank. Layers and devices may come in any order, as each names itself. The
//! tools of `MindStudio` write the same form: some number layers from 1, or as the model does with its dense layers, and some
//! leave the numbers of devices out, which are then in order.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::physical::{self, PhysicalError, Placement, or_other};
use super::{Expected, Placed};
use crate::ids::{LayerId, RankId};
use crate::map::{ExpertMap, MapError, MapShape};
use crate::wire::ModelIdentity;
use crate::words::counted;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    moe_layer_count: i64,
    layer_list: Vec<Layer>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(clippy::struct_field_names, reason = "the names of the format")]
struct Layer {
    layer_id: i64,
    device_count: i64,
    device_list: Vec<Device>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Device {
    #[serde(default)]
    device_id: Option<i64>,
    device_expert: Vec<i64>,
}

/// The map as vllm-ascend reads it, JSON with a newline at its end.
#[must_use]
pub fn write(map: &ExpertMap) -> String {
    let devices = |layer: LayerId| -> Vec<Device> {
        (0..map.shape().ranks)
            .map(|rank| Device {
                device_id: Some(rank as i64),
                device_expert: map.rank(layer, rank.into()).iter().map(|expert| i64::from(expert.0)).collect(),
            })
            .collect()
    };
    let layer_list = map.layers().map(|layer| Layer {
        layer_id: i64::from(layer.0),
        device_count: map.shape().ranks as i64,
        device_list: devices(layer),
    });
    let file = File { moe_layer_count: map.shape().layers as i64, layer_list: layer_list.collect() };
    let mut json = serde_json::to_string_pretty(&file).expect("an expert map is plain data");
    json.push('\n');
    json
}

/// Reads a map for a model. The format does not name its model, so one of another model is known by its layers and
/// experts only.
///
/// # Errors
/// If it is not in this format or not a valid map of the model; the error names the layer, the device and the id.
pub fn read(json: &[u8], model: &ModelIdentity) -> Result<Placed, ReadError> {
    to_map(&placement(json)?, model, 0)
}

/// Reads a map of a model of which everything or nothing may be known. What is not known is taken from the file.
pub(super) fn read_expected(json: &[u8], expected: &Expected) -> Result<Placed, ReadError> {
    let whole = placement(json)?;
    let (layers, mtp_layers) = physical::without_mtp(&whole, expected);
    let mut layers = layers.to_vec();
    let experts = expected.experts.unwrap_or_else(|| physical::experts_named(&layers));
    if expected.repair {
        physical::repair(&mut layers, experts);
    }
    let model = ModelIdentity {
        name: "the model".to_owned(),
        digest: String::new(),
        layers: expected.layers.unwrap_or(layers.len()),
        experts,
    };
    to_map(&layers, &model, mtp_layers)
}

/// Experts of each slot, with equally many devices in each layer and slots on each.
fn placement(json: &[u8]) -> Result<Placement, ReadError> {
    let file: File = serde_json::from_slice(json).map_err(|source| ReadError::Json { reason: source.to_string() })?;
    let layers = in_order(file)?;
    check_even(&layers, layers[0].len(), layers[0][0].len())?;
    Ok(layers)
}

fn to_map(layers: &Placement, model: &ModelIdentity, mtp_layers: usize) -> Result<Placed, ReadError> {
    check_model(layers, model)?;
    check_experts(layers, model.experts)?;
    let (ranks, slots_per_rank) = (layers[0].len(), layers[0][0].len());
    let shape = MapShape { layers: layers.len(), experts: model.experts, ranks, slots_per_rank };
    let (map, second_copies) = physical::map_of(layers, shape, 0).map_err(|error| match error {
        PhysicalError::Twice { layer, rank, id } => ReadError::Twice { layer, device: rank, id },
        PhysicalError::Map(error) => ReadError::Map(error),
        other => unreachable!("experts and dimensions were checked: {other}"),
    })?;
    Ok(Placed { map, second_copies, mtp_layers })
}

/// Experts of each slot, `[layers][devices][slots]`, layers and devices by their numbers; at least one layer, and one
/// device in each.
fn in_order(file: File) -> Result<Placement, ReadError> {
    let File { moe_layer_count, layer_list } = file;
    if usize::try_from(moe_layer_count) != Ok(layer_list.len()) || layer_list.is_empty() {
        return Err(ReadError::LayerCount { found: layer_list.len(), named: moe_layer_count });
    }
    let layers = by_id(layer_list.into_iter().map(|layer| (layer.layer_id, layer)).collect())
        .map_err(|(id, missing)| ReadError::LayerIds { id, missing })?;
    let numbered = layers.into_iter().enumerate().map(|(number, layer)| {
        let Layer { layer_id: _, device_count, device_list } = layer;
        let layer = LayerId::from(number);
        if usize::try_from(device_count) != Ok(device_list.len()) || device_list.is_empty() {
            return Err(ReadError::DeviceCount { layer, found: device_list.len(), named: device_count });
        }
        let named = device_list.iter().filter(|device| device.device_id.is_some()).count();
        if named != 0 && named != device_list.len() {
            return Err(ReadError::SomeDeviceIds { layer, named, devices: device_list.len() });
        }
        let by_order = device_list.into_iter().enumerate();
        by_id(
            by_order.map(|(place, device)| (device.device_id.unwrap_or(place as i64), device.device_expert)).collect(),
        )
        .map_err(|(id, missing)| ReadError::DeviceIds { layer, id, missing })
    });
    numbered.collect()
}

/// The items by their ids, which must follow each other, each once, from wherever counting begins; otherwise an id that is
/// one too many and one that is missing.
fn by_id<T>(items: Vec<(i64, T)>) -> Result<Vec<T>, (i64, i64)> {
    let mut places: Vec<Option<T>> = items.iter().map(|_| None).collect();
    let mut surplus = None;
    let first = items.iter().map(|&(id, _)| id).min().unwrap_or(0).max(0);
    for (id, item) in items {
        match usize::try_from(id - first).ok().and_then(|index| places.get_mut(index)) {
            Some(place @ None) => *place = Some(item),
            _ => surplus = surplus.or(Some(id)),
        }
    }
    let missing = places.iter().position(Option::is_none);
    match (surplus, missing) {
        (Some(id), Some(missing)) => Err((id, first + missing as i64)),
        _ => Ok(places.into_iter().flatten().collect()),
    }
}

fn check_even(layers: &[Vec<Vec<i64>>], ranks: usize, slots_per_rank: usize) -> Result<(), ReadError> {
    for (layer, devices) in layers.iter().enumerate() {
        let layer = LayerId::from(layer);
        if devices.len() != ranks {
            return Err(ReadError::UnequalDevices { layer, found: devices.len(), expected: ranks });
        }
        if let Some(device) = devices.iter().position(|experts| experts.len() != slots_per_rank) {
            let found = devices[device].len();
            return Err(ReadError::UnequalSlots { layer, device: device.into(), found, expected: slots_per_rank });
        }
    }
    Ok(())
}

/// Refuses a map that is in order for a model with another number of layers or experts.
fn check_model(layers: &[Vec<Vec<i64>>], model: &ModelIdentity) -> Result<(), ReadError> {
    let experts = physical::experts_without_gap(layers);
    if layers.len() != model.layers || experts.is_some_and(|experts| experts != model.experts) {
        let same_layers = layers.len() == model.layers;
        let first = check_experts(layers, model.experts).err().filter(|_| same_layers).map(Box::new);
        return Err(ReadError::OtherModel { layers: layers.len(), experts, expected: model.clone().into(), first });
    }
    Ok(())
}

fn check_experts(layers: &[Vec<Vec<i64>>], experts: usize) -> Result<(), ReadError> {
    for (layer, devices) in layers.iter().enumerate() {
        let layer = LayerId::from(layer);
        let mut is_held = vec![false; experts];
        for (device, ids) in devices.iter().enumerate() {
            for &id in ids {
                let place = usize::try_from(id).ok().and_then(|index| is_held.get_mut(index));
                *place.ok_or(ReadError::UnknownExpert { layer, device: device.into(), id, experts })? = true;
            }
        }
        if let Some(id) = is_held.iter().position(|&is_held| !is_held) {
            return Err(ReadError::Missing { layer, id, devices: devices.len() });
        }
    }
    Ok(())
}

/// Why a file is no map for the model. Reading it again does not help.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ReadError {
    /// It is no JSON of this format.
    #[error("not in its format: {reason}")]
    Json {
        /// What the parser says.
        reason: String,
    },
    /// `moe_layer_count` is wrong, or there are no layers.
    #[error("moe_layer_count is {named}, layer_list has {}", counted(*found, "layer"))]
    LayerCount {
        /// Layers listed.
        found: usize,
        /// Layers named.
        named: i64,
    },
    /// Layer ids do not follow each other, each once.
    #[error("layer_id {id} is there twice or out of range, layer_id {missing} is missing")]
    LayerIds {
        /// The id that should not be there.
        id: i64,
        /// The first id that should.
        missing: i64,
    },
    /// `device_count` is wrong, or there are no devices.
    #[error("{layer}: device_count is {named}, device_list has {}", counted(*found, "device"))]
    DeviceCount {
        /// The layer.
        layer: LayerId,
        /// Devices listed.
        found: usize,
        /// Devices named.
        named: i64,
    },
    /// Some devices have ids and some have none.
    #[error("{layer}: a device_id is given for {named} of {}; either all have one or none", counted(*devices, "device"))]
    SomeDeviceIds {
        /// The layer.
        layer: LayerId,
        /// Devices with an id.
        named: usize,
        /// Devices.
        devices: usize,
    },
    /// Device ids do not follow each other, each once.
    #[error("{layer}: device_id {id} is there twice or out of range, device_id {missing} is missing")]
    DeviceIds {
        /// The layer.
        layer: LayerId,
        /// The id that should not be there.
        id: i64,
        /// The first id that should.
        missing: i64,
    },
    /// Layers have different numbers of devices.
    #[error("{layer}: {}, layer 0 has {expected}", counted(*found, "device"))]
    UnequalDevices {
        /// The layer.
        layer: LayerId,
        /// Devices of this layer.
        found: usize,
        /// Devices of layer 0.
        expected: usize,
    },
    /// Devices have different numbers of experts.
    #[error(
        "{layer}, device {device}: {}, layer 0, device 0 has {expected}",
        counted(*found, "expert"),
        device = device.0
    )]
    UnequalSlots {
        /// The layer.
        layer: LayerId,
        /// The device.
        device: RankId,
        /// Experts of this device.
        found: usize,
        /// Experts of the first device.
        expected: usize,
    },
    /// It is of a model with other dimensions.
    #[error(
        "made for another model, with {} and {found}; {name} has {expected_layers} and \
         {expected_experts}{first}",
        counted(*layers, "MoE layer"),
        first = first.as_ref().map_or_else(String::new, |first| format!(": {first}")),
        found = or_other(*experts),
        name = expected.name, expected_layers = expected.layers, expected_experts = expected.experts
    )]
    OtherModel {
        /// MoE layers of the file.
        layers: usize,
        /// Experts of each of its layers, if all have the same without a gap.
        experts: Option<usize>,
        /// The model that is to be served.
        expected: Box<ModelIdentity>,
        /// The first expert that does not fit, where layers do.
        first: Option<Box<Self>>,
    },
    /// An expert that the model does not have.
    #[error("{layer}, device {device}: expert {id} does not exist, the model has {experts}", device = device.0)]
    UnknownExpert {
        /// The layer.
        layer: LayerId,
        /// The device.
        device: RankId,
        /// The expert named.
        id: i64,
        /// Logical experts per layer.
        experts: usize,
    },
    /// A device has an expert twice.
    #[error(
        "{layer}, device {device}: expert {id} is there twice, and the device has every expert already; it has too many slots",
        device = device.0
    )]
    Twice {
        /// The layer.
        layer: LayerId,
        /// The device.
        device: RankId,
        /// The expert.
        id: i64,
    },
    /// An expert is on no device.
    #[error("{layer}: expert {id} is on no device of {devices}")]
    Missing {
        /// The layer.
        layer: LayerId,
        /// The expert.
        id: usize,
        /// Devices of the layer.
        devices: usize,
    },
    /// The dimensions are impossible.
    #[error(transparent)]
    Map(#[from] MapError),
}

#[cfg(test)]
mod tests;
