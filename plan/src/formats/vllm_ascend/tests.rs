use serde_json::{Value, json};

use super::*;
use crate::ids::ExpertId;

fn model() -> ModelIdentity {
    ModelIdentity { name: "small".to_owned(), digest: "d1".to_owned(), layers: 2, experts: 3 }
}

/// Two layers of three experts on two devices of two slots.
fn file() -> Value {
    json!({"moe_layer_count": 2, "layer_list": [
        {"layer_id": 0, "device_count": 2, "device_list": [
            {"device_id": 0, "device_expert": [0, 1]}, {"device_id": 1, "device_expert": [2, 0]}]},
        {"layer_id": 1, "device_count": 2, "device_list": [
            {"device_id": 0, "device_expert": [2, 1]}, {"device_id": 1, "device_expert": [1, 0]}]},
    ]})
}

/// What reading the file says after the value at a path was replaced.
fn refused(path: &str, value: Value) -> String {
    let mut file = file();
    *file.pointer_mut(path).unwrap() = value;
    read(file.to_string().as_bytes(), &model()).unwrap_err().to_string()
}

const DEVICE: &str = "/layer_list/1/device_list/1";

fn in_device(field: &str, value: Value) -> String {
    refused(&format!("{DEVICE}/{field}"), value)
}

#[test]
fn a_map_is_read_and_written_as_it_was() {
    let map = read(file().to_string().as_bytes(), &model()).unwrap().map;
    assert_eq!(map.slots(), [0, 1, 2, 0, 2, 1, 1, 0].map(ExpertId));
    assert_eq!(map.shape(), MapShape { layers: 2, experts: 3, ranks: 2, slots_per_rank: 2 });
    assert_eq!(serde_json::from_str::<Value>(&write(&map)).unwrap(), file());
}

#[test]
fn layers_and_devices_are_known_by_their_ids_not_by_their_order() {
    let mut shuffled = file();
    shuffled["layer_list"].as_array_mut().unwrap().reverse();
    shuffled["layer_list"][0]["device_list"].as_array_mut().unwrap().reverse();
    let read = |file: &Value| read(file.to_string().as_bytes(), &model()).unwrap();
    assert_eq!(read(&shuffled), read(&file()));
}

#[test]
fn text_that_is_not_in_this_format_is_refused() {
    let unknown_field = in_device("device_expert", json!({"0": 1}));
    assert!(unknown_field.starts_with("not in its format: invalid type: map, expected a sequence"), "{unknown_field}");
    let mut extra = file();
    extra["layer_list"][0]["weight"] = json!(1);
    let extra = read(extra.to_string().as_bytes(), &model()).unwrap_err().to_string();
    assert!(extra.starts_with("not in its format: unknown field `weight`"), "{extra}");
    let cut = &file().to_string()[..100];
    assert!(matches!(read(cut.as_bytes(), &model()), Err(ReadError::Json { .. })));
}

#[test]
fn wrong_counts_are_refused() {
    assert_eq!(refused("/moe_layer_count", json!(3)), "moe_layer_count is 3, layer_list has 2 layers");
    assert_eq!(refused("/layer_list", json!([])), "moe_layer_count is 2, layer_list has 0 layers");
    assert_eq!(refused("/moe_layer_count", json!(-1)), "moe_layer_count is -1, layer_list has 2 layers");
    let devices = refused("/layer_list/1/device_count", json!(4));
    assert_eq!(devices, "layer 1: device_count is 4, device_list has 2 devices");
    let empty = json!({"layer_id": 1, "device_count": 0, "device_list": []});
    assert_eq!(refused("/layer_list/1", empty), "layer 1: device_count is 0, device_list has 0 devices");
}

#[test]
fn duplicate_missing_and_unknown_ids_are_refused() {
    let layer = refused("/layer_list/1/layer_id", json!(0));
    assert_eq!(layer, "layer_id 0 is there twice or out of range, layer_id 1 is missing");
    let layer = refused("/layer_list/0/layer_id", json!(-3));
    assert_eq!(layer, "layer_id -3 is there twice or out of range, layer_id 0 is missing");
    let device = in_device("device_id", json!(2));
    assert_eq!(device, "layer 1: device_id 2 is there twice or out of range, device_id 1 is missing");
}

#[test]
fn layers_with_different_numbers_of_devices_are_refused() {
    let device = json!({"device_id": 0, "device_expert": [0, 1, 2]});
    let layer = json!({"layer_id": 1, "device_count": 1, "device_list": [device]});
    assert_eq!(refused("/layer_list/1", layer), "layer 1: 1 device, layer 0 has 2");
}

#[test]
fn unequal_slots_are_refused() {
    let unequal = "layer 1, device 1: 1 expert, layer 0, device 0 has 2";
    assert_eq!(in_device("device_expert", json!([0])), unequal);
}

#[test]
fn unknown_experts_are_refused() {
    let unknown = |id: i64| format!("layer 1, device 1: expert {id} does not exist, the model has 3");
    assert_eq!(in_device("device_expert", json!([1, 7])), unknown(7));
    assert_eq!(in_device("device_expert", json!([-1, 0])), unknown(-1));
    assert_eq!(in_device("device_expert", json!([0, 4_294_967_297_i64])), unknown(4_294_967_297));
}

#[test]
fn missing_experts_are_refused() {
    assert_eq!(in_device("device_expert", json!([1, 2])), "layer 1: expert 0 is on no device of 2");
}

#[test]
fn an_expert_twice_on_one_device_is_kept_as_it_works() {
    let mut twice = file();
    twice["layer_list"][1]["device_list"][1]["device_expert"] = json!([0, 0]);
    let read = read(twice.to_string().as_bytes(), &model()).unwrap();
    assert_eq!(read.second_copies.len(), 1);
    assert_eq!(read.map.rank(LayerId(1), RankId(1)), [ExpertId(0), ExpertId(1)]);
}

#[test]
fn layers_are_counted_from_wherever_and_devices_need_no_numbers() {
    let read = |file: &Value| read(file.to_string().as_bytes(), &model()).map_err(|error| error.to_string());
    let expected = read(&file());
    for first in [1, 3] {
        let mut numbered = file();
        for (layer, number) in [(1, first), (0, first + 1)] {
            numbered["layer_list"][layer]["layer_id"] = json!(number);
        }
        numbered["layer_list"].as_array_mut().unwrap().reverse();
        let mut swapped = numbered.clone();
        swapped["layer_list"][0]["layer_id"] = json!(first);
        swapped["layer_list"][1]["layer_id"] = json!(first + 1);
        assert!(read(&swapped).is_ok() && read(&numbered).is_ok(), "from {first}");
    }
    let mut unnamed = file();
    for (layer, device) in [(0, 0), (0, 1), (1, 0), (1, 1)] {
        unnamed["layer_list"][layer]["device_list"][device].as_object_mut().unwrap().remove("device_id");
    }
    assert_eq!(read(&unnamed), expected);
    unnamed["layer_list"][1]["device_list"][0]["device_id"] = json!(0);
    let some = "layer 1: a device_id is given for 1 of 2 devices; either all have one or none";
    assert_eq!(read(&unnamed).unwrap_err(), some);
}

#[test]
fn a_map_of_another_model_is_refused() {
    let refused = |model: &ModelIdentity| read(file().to_string().as_bytes(), model).unwrap_err().to_string();
    assert_eq!(
        refused(&ModelIdentity { layers: 4, ..model() }),
        "made for another model, with 2 MoE layers and 3 experts; small has 4 and 3"
    );
    assert_eq!(
        refused(&ModelIdentity { experts: 2, ..model() }),
        "made for another model, with 2 MoE layers and 3 experts; small has 2 and 2: \
         layer 0, device 1: expert 2 does not exist, the model has 2"
    );
    assert_eq!(
        refused(&ModelIdentity { experts: 4, ..model() }),
        "made for another model, with 2 MoE layers and 3 experts; small has 2 and 4: \
         layer 0: expert 3 is on no device of 2"
    );
}

#[test]
fn devices_without_slots_are_refused() {
    let none = json!([{"device_id": 0, "device_expert": []}]);
    let layer = |id| json!({"layer_id": id, "device_count": 1, "device_list": none});
    let file = json!({"moe_layer_count": 2, "layer_list": [layer(0), layer(1)]});
    let refused = read(file.to_string().as_bytes(), &model()).unwrap_err().to_string();
    assert_eq!(refused, "layer 0: expert 0 is on no device of 1");
}
