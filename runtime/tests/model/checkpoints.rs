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

type Case = (&'static str, Box<dyn FnOnce(&Path)>, &'static str);

fn case(name: &'static str, spoil: impl FnOnce(&Path) + 'static, error: &'static str) -> Case {
    (name, Box::new(spoil), error)
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
        case("base", |directory| fs::remove_file(directory.join("config.json")).unwrap(), "failed to read config.json"),
        case("base", |directory| fs::write(directory.join("config.json"), "{").unwrap(), "config.json cannot be read"),
        case("base", config("model_type", json!("llama")), "model_type \"llama\""),
        case("base", config("architectures", json!(["Qwen2MoeForCausalLM"])), "[\"Qwen2MoeForCausalLM\"]"),
        case("base", config("rope_scaling", yarn), "rope_scaling = {\"rope_type\":\"yarn\""),
        case("base", config("quantization_config", json!({"bits": 4})), "quantization_config = {\"bits\":4}"),
        case("base", config("hidden_act", json!("gelu")), "hidden_act = \"gelu\" is not supported"),
        case("base", config("shared_expert_intermediate_size", json!(64)), "shared_expert_intermediate_size = 64"),
        case("base", config("hidden_size", json!(null)), "tensor model.embed_tokens.weight has shape [96, 32]"),
        case("base", config("num_experts", json!(-1)), "num_experts = -1"),
        case("base", config("num_experts_per_tok", json!(9)), "num_experts_per_tok = 9 is more than the 8 experts"),
        case("base", config("num_key_value_heads", json!(3)), "num_attention_heads = 4 is no multiple"),
        case("base", config("mlp_only_layers", json!([0, 1])), "no layer has experts"),
        case("base", config("mlp_only_layers", json!([2])), "mlp_only_layers = [2]"),
        case("base", config("num_experts", json!(7)), "tensor model.layers.0.mlp.gate.weight has shape [8, 32]"),
        case("base", config("num_local_experts", json!(9)), "num_experts and num_local_experts disagree: 8 and 9"),
        case("base", config("vocab_size", json!(97)), "tensor model.embed_tokens.weight has shape [96, 32]"),
        case("base", config("attention_bias", json!(true)), "self_attn.q_proj.bias is missing"),
        case(
            "base",
            config("tie_word_embeddings", json!(true)),
            "lm_head.weight differs from model.embed_tokens.weight",
        ),
        case("base", |directory| fs::remove_file(directory.join(WEIGHTS)).unwrap(), "failed to read model.safetensors"),
        case("base", truncate(WEIGHTS, 1), "model.safetensors is corrupt or truncated"),
        case(
            "base",
            |directory| fs::write(directory.join(WEIGHTS), [0xFF; 64]).unwrap(),
            "a header of 18446744073709551615",
        ),
        case("base", rename("model.norm.weight", "model.norm.bias"), "tensor model.norm.weight is missing"),
        case(
            "base",
            header(|header| header["model.norm.weight"]["dtype"] = json!("I16")),
            "tensor model.norm.weight has type I16",
        ),
        case(
            "base",
            header(|header| header["model.norm.weight"]["shape"] = json!([31])),
            "model.safetensors is corrupt or truncated: invalid shape",
        ),
        case("attention_bias", config("attention_bias", json!(false)), "k_proj.bias is not part of this model"),
        case(
            "dense_layers",
            config("decoder_sparse_step", json!(1)),
            "layers.0.mlp.experts.0.gate_proj.weight is missing",
        ),
        case("sharded_v5", config("sliding_window", json!(8)), "accepted"),
        case("sharded_v5", truncate(SHARD, 2), "model-00002-of-00003.safetensors is corrupt or truncated"),
        case("sharded_v5", |directory| fs::remove_file(directory.join(SHARD)).unwrap(), "failed to read model-00002"),
        case("sharded_v5", |directory| fs::write(directory.join(INDEX), "[]").unwrap(), "index.json is corrupt"),
        case(
            "sharded_v5",
            |directory| {
                let path = directory.join(INDEX);
                let index = fs::read_to_string(&path).unwrap();
                fs::write(path, index.replace("model-00002", "../model-00002")).unwrap();
            },
            "is no file of this directory",
        ),
        case(
            "sharded_v5",
            |directory| {
                let path = directory.join(INDEX);
                let mut index: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
                index["weight_map"]["model.norm.weight"] = json!("model-00001-of-00003.safetensors");
                fs::write(path, index.to_string()).unwrap();
            },
            "does not name model-00003-of-00003.safetensors for tensor model.norm.weight",
        ),
    ];
    for (name, spoil, expected) in cases {
        let error = refusal(name, spoil);
        assert!(error.contains(expected), "expected {expected:?}, got {error:?}");
        println!("{error}");
    }
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
