//! Bad checkpoints and the error that each gets before any weight is used.

use std::error::Error;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use runtime::model::checkpoint::Checkpoint;
use serde_json::{Value, json};

use crate::fixtures::{VARIANTS, tiny_moe, variant};

const WEIGHTS: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";
const SHARD: &str = "model-00002-of-00003.safetensors";

/// Opens a copy of a variant after `spoil` has changed it; gives the error with its sources.
fn refusal(name: &str, spoil: impl FnOnce(&Path)) -> String {
    let copy = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(variant(name)).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
    }
    spoil(copy.path());
    match Checkpoint::open(copy.path()) {
        Ok(_) => "accepted".to_owned(),
        Err(error) => {
            let mut text = error.to_string();
            let mut source = error.source();
            while let Some(error) = source {
                write!(text, ": {error}").unwrap();
                source = error.source();
            }
            text
        }
    }
}

/// Changes `config.json`; `null` removes a key.
fn config(key: &'static str, value: Value) -> impl FnOnce(&Path) {
    move |directory| {
        let path = directory.join("config.json");
        let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        let object = config.as_object_mut().unwrap();
        if value.is_null() {
            object.remove(key);
        } else {
            object.insert(key.to_owned(), value);
        }
        fs::write(path, config.to_string()).unwrap();
    }
}

/// Changes the header of the weights; the data stays as it is.
fn header(change: impl FnOnce(&mut Value)) -> impl FnOnce(&Path) {
    move |directory| {
        let path = directory.join(WEIGHTS);
        let bytes = fs::read(&path).unwrap();
        let size = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        let mut header: Value = serde_json::from_slice(&bytes[8..8 + size]).unwrap();
        change(&mut header);
        let header = header.to_string();
        let parts = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &bytes[8 + size..]];
        fs::write(path, parts.concat()).unwrap();
    }
}

/// Gives a tensor another name.
fn rename(from: &'static str, to: &'static str) -> impl FnOnce(&Path) {
    header(move |header| {
        let header = header.as_object_mut().unwrap();
        let tensor = header.remove(from).unwrap();
        header.insert(to.to_owned(), tensor);
    })
}

fn truncate(file: &'static str, bytes: u64) -> impl FnOnce(&Path) {
    move |directory| {
        let path = directory.join(file);
        let len = fs::metadata(&path).unwrap().len();
        fs::File::options().write(true).open(path).unwrap().set_len(len - bytes).unwrap();
    }
}

/// What is wrong, the variant that is spoilt, and how.
type Case = (&'static str, &'static str, Box<dyn FnOnce(&Path)>);

fn case(what: &'static str, name: &'static str, spoil: impl FnOnce(&Path) + 'static) -> Case {
    (what, name, Box::new(spoil))
}

#[test]
fn every_checkpoint_that_is_shipped_is_accepted() {
    Checkpoint::open(&tiny_moe()).unwrap();
    for name in VARIANTS {
        assert_eq!(refusal(name, |_| ()), "accepted", "{name}");
    }
}

#[test]
fn a_bad_checkpoint_is_refused_with_an_error_that_names_what_is_wrong() {
    let yarn = json!({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64});
    let cases = [
        case("no config.json", "base", |directory| fs::remove_file(directory.join("config.json")).unwrap()),
        case("half a config.json", "base", |directory| fs::write(directory.join("config.json"), "{").unwrap()),
        case("another family", "base", config("model_type", json!("llama"))),
        case("another architecture", "base", config("architectures", json!(["Qwen2MoeForCausalLM"]))),
        case("scaled positions", "base", config("rope_scaling", yarn)),
        case("quantized weights", "base", config("quantization_config", json!({"bits": 4}))),
        case("another activation", "base", config("hidden_act", json!("gelu"))),
        case("a shared expert", "base", config("shared_expert_intermediate_size", json!(64))),
        case("no hidden_size", "base", config("hidden_size", json!(null))),
        case("a negative number of experts", "base", config("num_experts", json!(-1))),
        case("more experts per token than there are", "base", config("num_experts_per_tok", json!(9))),
        case("heads that do not divide", "base", config("num_key_value_heads", json!(3))),
        case("no layer with experts", "base", config("mlp_only_layers", json!([0, 1]))),
        case("a dense layer that does not exist", "base", config("mlp_only_layers", json!([2]))),
        case("fewer experts than the router has", "base", config("num_experts", json!(7))),
        case("two numbers of experts", "base", config("num_local_experts", json!(9))),
        case("another vocabulary than the weights", "base", config("vocab_size", json!(97))),
        case("biases that the weights do not have", "base", config("attention_bias", json!(true))),
        case("tied weights that differ", "base", config("tie_word_embeddings", json!(true))),
        case("no weights", "base", |directory| fs::remove_file(directory.join(WEIGHTS)).unwrap()),
        case("weights without their last byte", "base", truncate(WEIGHTS, 1)),
        case("weights without a header", "base", |directory| {
            fs::write(directory.join(WEIGHTS), [0xFF; 64]).unwrap();
        }),
        case("a tensor under another name", "base", rename("model.norm.weight", "model.norm.bias")),
        case("a tensor of whole numbers", "base", header(|header| header["model.norm.weight"]["dtype"] = json!("I16"))),
        case("a tensor of another shape", "base", header(|header| header["model.norm.weight"]["shape"] = json!([31]))),
        case("biases that the config does not have", "attention_bias", config("attention_bias", json!(false))),
        case("experts that the weights do not have", "dense_layers", config("decoder_sparse_step", json!(1))),
        case("a shard without its last bytes", "sharded_v5", truncate(SHARD, 2)),
        case("a missing shard", "sharded_v5", |directory| fs::remove_file(directory.join(SHARD)).unwrap()),
        case("an index that is none", "sharded_v5", |directory| fs::write(directory.join(INDEX), "[]").unwrap()),
        case("an index that leaves its folder", "sharded_v5", |directory| {
            let path = directory.join(INDEX);
            let index = fs::read_to_string(&path).unwrap();
            fs::write(path, index.replace("model-00002", "../model-00002")).unwrap();
        }),
        case("an index that names another shard", "sharded_v5", |directory| {
            let path = directory.join(INDEX);
            let mut index: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
            index["weight_map"]["model.norm.weight"] = json!("model-00001-of-00003.safetensors");
            fs::write(path, index.to_string()).unwrap();
        }),
    ];
    let mut report = String::new();
    for (what, name, spoil) in cases {
        writeln!(report, "{what}\n    {}", refusal(name, spoil)).unwrap();
    }
    assert!(!report.contains("accepted"), "{report}");
    insta::assert_snapshot!(report);
}

#[test]
fn a_window_of_a_layer_type_that_is_not_used_is_no_reason_to_refuse() {
    assert_eq!(refusal("sharded_v5", config("sliding_window", json!(8))), "accepted");
}

#[test]
fn a_window_that_is_in_use_is_refused_and_one_that_is_not_is_not() {
    let window = |used: bool| {
        refusal("base", |directory| {
            config("sliding_window", json!(64))(directory);
            config("use_sliding_window", json!(used))(directory);
        })
    };
    assert!(window(true).contains("sliding_window = 64 is not supported"), "{}", window(true));
    assert_eq!(window(false), "accepted");
}

#[test]
fn the_identity_changes_with_the_configuration_and_the_layout_and_with_nothing_else() {
    let digest = |name: &str| Checkpoint::open(&variant(name)).unwrap().identity("a name").digest;
    assert_eq!(digest("base"), Checkpoint::open(&variant("base")).unwrap().identity("another").digest);
    let all: std::collections::BTreeSet<String> = VARIANTS.iter().map(|name| digest(name)).collect();
    assert_eq!(all.len(), VARIANTS.len());
    let identity = Checkpoint::open(&variant("dense_layers")).unwrap().identity("dense");
    assert_eq!((identity.layers, identity.experts, identity.name.as_str()), (1, 8, "dense"));
}
