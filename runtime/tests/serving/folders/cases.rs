//! Folders that cannot be served.

use serde_json::{Value, json};

use super::spoil::{
    CONFIG, INDEX, SHARD, Spoil, WEIGHTS, both, config, config_text, duplicate, edit, empty_tensors, header,
    header_text, json, link, pipe, remove, rename, rename_tensor, truncate, write,
};

/// What is wrong, the model whose copy is spoilt, and how.
type Case = (&'static str, &'static str, Spoil);

const TOKENIZER: &str = "tokenizer.json";
const TOKENIZER_CONFIG: &str = "tokenizer_config.json";
const GENERATION_CONFIG: &str = "generation_config.json";
const POINTER: &str = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab\nsize 3998893112\n";

pub fn all() -> Vec<Case> {
    [folders(), configurations(), weights(), headers(), shards(), texts()].into_iter().flatten().collect()
}

/// What is no folder of a model.
fn folders() -> Vec<Case> {
    vec![
        ("no config.json", "base", remove(CONFIG)),
        ("an adapter (LoRA) alone", "base", both(remove(CONFIG), write("adapter_config.json", "{}"))),
        ("a model of llama.cpp alone", "base", both(remove(CONFIG), write("tiny-q4_k_m.gguf", "GGUF"))),
        ("a vendor's own form", "base", both(remove(CONFIG), write("params.json", "{}"))),
        ("the hub's cache", "base", both(remove(CONFIG), write("snapshots/9c1b/config.json", "{}"))),
        ("the folder above", "base", both(remove(CONFIG), write("tiny/config.json", "{}"))),
        ("a pipe as config.json", "base", pipe(CONFIG)),
        ("a device as config.json", "base", link(CONFIG, "/dev/zero")),
        ("a link that leads nowhere", "base", link(CONFIG, "../../blobs/5a3f")),
        ("a Git LFS pointer as config.json", "base", write(CONFIG, POINTER)),
        ("an empty config.json", "base", write(CONFIG, "")),
        ("a web page as config.json", "base", write(CONFIG, "<!DOCTYPE html><html></html>")),
    ]
}

/// What `config.json` says.
fn configurations() -> Vec<Case> {
    let yarn = json!({"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64});
    let modules: Vec<String> = (0..400).map(|layer| format!("model.layers.{layer}.mlp.gate")).collect();
    let fp8 = json!({"activation_scheme": "dynamic", "modules_to_not_convert": modules, "quant_method": "fp8"});
    let tensors =
        json!({"config_groups": {"group_0": {}}, "format": "pack-quantized", "quant_method": "compressed-tensors"});
    vec![
        ("half a config.json", "base", write(CONFIG, "{")),
        ("another family", "base", config("model_type", json!("llama"))),
        (
            "another family, with Infinity and a key twice",
            "base",
            both(
                config("model_type", json!("deepseek_v3")),
                config_text(", \"rope_theta\": Infinity, \"rope_theta\": NaN"),
            ),
        ),
        ("another architecture", "base", config("architectures", json!(["Qwen2MoeForCausalLM"]))),
        ("Infinity", "base", config_text(", \"rope_parameters\": {\"rope_theta\": Infinity}")),
        ("not a number", "base", config_text(", \"logits_scaling\": NaN")),
        ("a key that is there twice", "base", config_text(", \"num_experts\": 8")),
        ("scaled positions", "base", config("rope_scaling", yarn)),
        ("weights quantized to fp8", "base", config("quantization_config", fp8)),
        (
            "weights quantized by GPTQ",
            "base",
            config("quantization_config", json!({"bits": 4, "quant_method": "gptq"})),
        ),
        ("weights quantized by AWQ", "base", config("quantization_config", json!({"bits": 4, "quant_method": "awq"}))),
        ("weights of compressed-tensors", "base", config("quantization_config", tensors)),
        ("weights of bitsandbytes", "base", config("quantization_config", json!({"load_in_4bit": true}))),
        ("weights quantized by MLX", "base", config("quantization", json!({"group_size": 64, "bits": 4}))),
        ("another activation", "base", config("hidden_act", json!("gelu"))),
        ("a shared expert", "base", config("shared_expert_intermediate_size", json!(64))),
        ("no hidden_size", "base", config("hidden_size", Value::Null)),
        ("a negative number of experts", "base", config("num_experts", json!(-1))),
        ("more experts per token than there are", "base", config("num_experts_per_tok", json!(9))),
        ("heads that do not divide", "base", config("num_key_value_heads", json!(3))),
        ("no layer with experts", "base", config("mlp_only_layers", json!([0, 1]))),
        ("a dense layer that does not exist", "base", config("mlp_only_layers", json!([2]))),
        ("fewer experts than the router has", "base", config("num_experts", json!(7))),
        ("two numbers of experts", "base", config("num_local_experts", json!(9))),
        ("another vocabulary than the weights", "base", config("vocab_size", json!(97))),
        ("biases that the weights do not have", "base", config("attention_bias", json!(true))),
        ("biases that the config does not have", "attention_bias", config("attention_bias", json!(false))),
        ("experts that the weights do not have", "dense_layers", config("decoder_sparse_step", json!(1))),
        (
            "billions of experts",
            "base",
            both(config("num_experts", json!(16_384)), config("num_hidden_layers", json!(16_384))),
        ),
        ("tied weights that differ", "base", config("tie_word_embeddings", json!(true))),
    ]
}

/// The files with weights.
fn weights() -> Vec<Case> {
    let torch = || both(remove(WEIGHTS), write("pytorch_model.bin", "PK\u{3}\u{4}"));
    vec![
        ("no weights", "base", remove(WEIGHTS)),
        ("weights of torch alone", "base", torch()),
        ("weights of llama.cpp alone", "base", both(remove(WEIGHTS), write("model-Q8_0.gguf", "GGUF"))),
        ("weights of a vendor's own form alone", "base", rename(WEIGHTS, "consolidated.safetensors")),
        ("an adapter beside the weights", "base", write("adapter_model.safetensors", "")),
        ("a Git LFS pointer as weights", "base", write(WEIGHTS, POINTER)),
        ("a web page as weights", "base", write(WEIGHTS, "Entry not found")),
        (
            "a file of torch.save as weights",
            "base",
            edit(WEIGHTS, |bytes| drop(bytes.splice(..16, *b"PK\x03\x04\0\0\x08\x08\0\0\0\0\0\0\0\0"))),
        ),
        ("weights that have not come yet", "base", edit(WEIGHTS, |bytes| bytes.fill(0))),
        ("a folder as weights", "base", both(remove(WEIGHTS), write("model.safetensors/part", ""))),
        ("a pipe as weights", "base", pipe(WEIGHTS)),
        ("a device as weights", "base", link(WEIGHTS, "/dev/zero")),
        ("weights that are a link that leads nowhere", "base", link(WEIGHTS, "../../blobs/77e0")),
        ("weights without their last byte", "base", truncate(WEIGHTS, 1)),
        ("weights with bytes after their end", "base", edit(WEIGHTS, |bytes| bytes.extend([0; 3]))),
    ]
}

/// The heads of files with weights.
fn headers() -> Vec<Case> {
    const NORM: &str = "model.norm.weight";
    let norm = |key: &'static str, value: Value| header(move |header| header[NORM][key] = value);
    let twice = |text: String| {
        let tensor = "\"model.norm.weight\":{\"dtype\":\"BF16\",\"shape\":[0],\"data_offsets\":[0,0]}";
        format!("{{{tensor},{}", &text[1..])
    };
    vec![
        ("weights without a header", "base", write(WEIGHTS, [0xff; 64])),
        (
            "a header that is longer than its file",
            "base",
            edit(WEIGHTS, |bytes| drop(bytes.splice(..8, 200_000_u64.to_le_bytes()))),
        ),
        ("a header that is no JSON", "base", header_text(|text| text.replace("data_offsets", "data_offsets\"\""))),
        ("a header with a tensor twice", "base", header_text(twice)),
        ("a header of 200,000 empty tensors", "base", write(WEIGHTS, empty_tensors(200_000))),
        ("a tensor under another name", "base", rename_tensor(NORM, "model.norm.bias")),
        (
            "a tensor with a name that a terminal obeys",
            "base",
            rename_tensor("lm_head.weight", "lm_head\u{1b}[31m\n.weight"),
        ),
        ("a tensor of whole numbers", "base", norm("dtype", json!("I16"))),
        ("a tensor of fp8", "base", norm("dtype", json!("F8_E4M3"))),
        ("a tensor of another shape", "base", norm("shape", json!([31]))),
        ("a tensor of a shape that no number holds", "base", norm("shape", json!([u64::MAX, u64::MAX]))),
        ("a tensor past the end", "base", norm("data_offsets", json!([87_424, 87_552]))),
        ("a tensor that overlaps another", "base", norm("data_offsets", json!([0, 64]))),
        ("a tensor that ends before it begins", "base", norm("data_offsets", json!([64, 0]))),
        (
            "an empty tensor",
            "base",
            header(|header| {
                header.insert("extra".to_owned(), json!({"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}));
            }),
        ),
    ]
}

/// Several files with weights.
fn shards() -> Vec<Case> {
    let index = |change: fn(&mut serde_json::Map<String, Value>)| {
        json(INDEX, move |index| change(index["weight_map"].as_object_mut().unwrap()))
    };
    vec![
        ("a shard without its last bytes", "sharded_v5", truncate(SHARD, 2)),
        ("a missing shard", "sharded_v5", remove(SHARD)),
        ("a missing shard and no index", "sharded_v5", both(remove(INDEX), remove(SHARD))),
        ("a Git LFS pointer as a shard", "sharded_v5", write(SHARD, POINTER)),
        ("a Git LFS pointer as the index", "sharded_v5", write(INDEX, POINTER)),
        ("a device as the index", "sharded_v5", link(INDEX, "/dev/urandom")),
        ("an index that is none", "sharded_v5", write(INDEX, "[]")),
        ("an index without tensors", "sharded_v5", write(INDEX, "{\"metadata\": {}}")),
        (
            "an index with a tensor twice",
            "sharded_v5",
            edit(INDEX, |bytes| {
                let text = String::from_utf8(std::mem::take(bytes)).unwrap();
                let twice = "\"weight_map\": {\"lm_head.weight\": \"model-00001-of-00003.safetensors\",";
                *bytes = text.replacen("\"weight_map\": {", twice, 1).into_bytes();
            }),
        ),
        (
            "an index that leaves its folder",
            "sharded_v5",
            index(|map| {
                map.values_mut().for_each(|file| *file = format!("../{}", file.as_str().unwrap()).into());
            }),
        ),
        (
            "an index that names no weights",
            "sharded_v5",
            index(|map| {
                map.values_mut().for_each(|file| *file = "config.json".into());
            }),
        ),
        (
            "an index that names another shard",
            "sharded_v5",
            index(|map| {
                map["model.norm.weight"] = json!("model-00001-of-00003.safetensors");
            }),
        ),
        (
            "an index of torch",
            "sharded_v5",
            index(|map| {
                map.values_mut().for_each(|file| *file = json!("pytorch_model-00001-of-00001.bin"));
            }),
        ),
        ("a tensor in two files", "sharded_v5", both(remove(INDEX), duplicate(SHARD, "more.safetensors"))),
        ("an index and a single file", "sharded_v5", write(WEIGHTS, "")),
    ]
}

/// Tokenizer, templates and what goes with them.
fn texts() -> Vec<Case> {
    vec![
        ("no tokenizer", "tiny-moe", remove(TOKENIZER)),
        ("a Git LFS pointer as tokenizer", "tiny-moe", write(TOKENIZER, POINTER)),
        ("a pipe as tokenizer", "tiny-moe", pipe(TOKENIZER)),
        ("a device as tokenizer", "tiny-moe", link(TOKENIZER, "/dev/zero")),
        ("half a tokenizer", "tiny-moe", truncate(TOKENIZER, 1000)),
        ("a normalizer that cannot be read", "tiny-moe", charsmap("AAAA")),
        ("a normalizer that fails at every text", "tiny-moe", charsmap("AAAAAA==")),
        ("a normalizer that makes texts long", "tiny-moe", doubling()),
        ("a token beyond the vocabulary around every text", "tiny-moe", around(1_792)),
        ("a tokenizer in UTF-16", "tiny-moe", edit(TOKENIZER, to_utf16)),
        ("a configuration in UTF-16", "base", edit("config.json", to_utf16)),
        ("a device as tokenizer_config.json", "tiny-moe", link(TOKENIZER_CONFIG, "/dev/zero")),
        ("a list as tokenizer_config.json", "tiny-moe", write(TOKENIZER_CONFIG, "[]")),
        ("a pipe as generation_config.json", "tiny-moe", pipe(GENERATION_CONFIG)),
        ("a web page as generation_config.json", "tiny-moe", write(GENERATION_CONFIG, "<html>")),
    ]
}

/// A tokenizer that doubles every `a` seven times.
fn doubling() -> Spoil {
    json(TOKENIZER, |tokenizer| {
        let double = json!({"type": "Replace", "pattern": {"String": "a"}, "content": "aa"});
        tokenizer["normalizer"] = json!({"type": "Sequence", "normalizers": vec![double; 7]});
    })
}

/// A tokenizer that puts this token before every text.
fn around(token: u32) -> Spoil {
    json(TOKENIZER, move |tokenizer| {
        tokenizer["post_processor"] = json!({
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"<s>": {"id": "<s>", "ids": [token], "tokens": ["<s>"]}},
        });
    })
}

fn to_utf16(bytes: &mut Vec<u8>) {
    let text = format!("\u{feff}{}", String::from_utf8(std::mem::take(bytes)).unwrap());
    *bytes = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
}

/// A tokenizer with this map of characters, as sentencepiece makes them.
fn charsmap(map: &'static str) -> Spoil {
    json(TOKENIZER, move |tokenizer| {
        tokenizer["normalizer"] = json!({"type": "Precompiled", "precompiled_charsmap": map});
    })
}
