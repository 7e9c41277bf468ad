#![allow(clippy::float_cmp, reason = "the values are read, not computed")]

use serde_json::{Value, json};

use crate::model::config::{Attention, Config, ConfigError, FeedForward, Grouped};

/// A small configuration in the style of transformers 4, with keys replaced or added.
fn with(changes: Value) -> Result<Config, ConfigError> {
    let mut config = json!({
        "architectures": ["Qwen3MoeForCausalLM"],
        "model_type": "qwen3_moe",
        "vocab_size": 100,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "num_experts": 6,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 16,
        "max_position_embeddings": 64,
    });
    let Value::Object(changes) = changes else { panic!("changes are an object") };
    config.as_object_mut().unwrap().extend(changes);
    Config::from_json(config.to_string().as_bytes())
}

fn grouped(config: &Config) -> Grouped {
    let Attention::Grouped(grouped) = config.attention;
    grouped
}

fn refusal(changes: &Value) -> String {
    with(changes.clone()).expect_err(&changes.to_string()).to_string()
}

#[test]
fn keys_that_are_missing_have_the_values_that_the_reference_gives_them() {
    let config = Config::from_json(br#"{"model_type": "qwen3_moe"}"#).unwrap();
    // Values of `Qwen3MoeConfig()` in transformers 5.23; a head is hidden_size / num_attention_heads wide.
    assert_eq!((config.vocabulary, config.hidden, config.layers.len()), (151_936, 2048, 24));
    let Grouped { heads, projections, output, .. } = grouped(&config);
    assert_eq!((heads.query, heads.key_value, heads.dimension), (32, 4, 64));
    assert!(!projections.bias && !output.bias);
    assert_eq!((config.experts.count, config.router.top_k, config.experts.intermediate), (128, 8, 768));
    assert_eq!((config.rotary.base, config.rotary.dimension), (10_000.0, 64));
    assert_eq!((config.max_positions, config.norm_epsilon), (32_768, 1e-6));
    assert!(!config.tied_embeddings && !config.router.normalise);
    assert!(config.layers.iter().all(|layer| *layer == FeedForward::Sparse));
    let dense = Config::from_json(br#"{"model_type": "qwen3_moe", "mlp_only_layers": [0]}"#).unwrap();
    assert_eq!(dense.layers[..2], [FeedForward::Dense { name: "mlp", intermediate: 6144 }, FeedForward::Sparse]);
}

#[test]
fn the_width_of_a_head_is_rounded_down_when_heads_do_not_divide_the_hidden_size() {
    let config = with(json!({"head_dim": null, "hidden_size": 33, "num_attention_heads": 4})).unwrap();
    assert_eq!((grouped(&config).heads.dimension, config.rotary.dimension), (8, 8));
}

#[test]
fn a_layer_has_experts_if_the_step_says_so_and_it_is_not_listed_as_dense() {
    use FeedForward::Sparse;
    const DENSE: FeedForward = FeedForward::Dense { name: "mlp", intermediate: 48 };
    let layers = |changes| with(changes).unwrap().layers;
    assert_eq!(layers(json!({"num_hidden_layers": 4, "decoder_sparse_step": 2})), [DENSE, Sparse, DENSE, Sparse]);
    assert_eq!(layers(json!({"mlp_only_layers": [1, 1]})), [Sparse, DENSE, Sparse]);
    assert_eq!(
        layers(json!({"num_hidden_layers": 6, "decoder_sparse_step": 3, "mlp_only_layers": [2]})),
        [DENSE, DENSE, DENSE, DENSE, DENSE, Sparse]
    );
}

#[test]
fn the_base_of_the_rotary_embedding_is_found_wherever_a_version_writes_it() {
    let theta = |changes| with(changes).unwrap().rotary.base;
    assert_eq!(theta(json!({"rope_theta": 1_000_000})), 1e6);
    assert_eq!(theta(json!({"rope_theta": 5e6, "rope_scaling": null})), 5e6);
    assert_eq!(theta(json!({"rope_theta": 5e6, "rope_scaling": {}})), 5e6);
    assert_eq!(theta(json!({"rope_theta": 5e6, "rope_scaling": {"type": "default"}})), 5e6);
    assert_eq!(theta(json!({"rope_parameters": {"rope_type": "default", "rope_theta": 123.5}})), 123.5);
    assert_eq!(theta(json!({"rope_parameters": {"rope_type": "default"}})), 10_000.0);
    assert_eq!(theta(json!({"rope_parameters": {"rope_theta": 7.0, "partial_rotary_factor": 1.0}})), 7.0);
}

#[test]
fn values_that_say_what_the_model_does_anyway_are_accepted() {
    for changes in [
        json!({"hidden_act": "swish"}),
        json!({"use_sliding_window": true, "sliding_window": null}),
        json!({"use_sliding_window": false, "sliding_window": 4096, "max_window_layers": 2}),
        json!({"qkv_bias": false, "shared_expert_intermediate_size": 0, "use_qk_norm": true}),
        json!({"num_experts": 6, "num_local_experts": 6}),
        json!({"torch_dtype": "bfloat16", "dtype": "float32", "pruned_heads": {}, "quantization_config": null}),
        json!({"architectures": []}),
        json!({"layer_types": ["full_attention", "full_attention", "full_attention"], "partial_rotary_factor": 1.0}),
        json!({"a_key_of_the_future": null}),
    ] {
        assert_eq!(with(changes.clone()), with(json!({})), "{changes}");
    }
}

#[test]
fn what_is_not_supported_is_refused_by_its_name_and_value() {
    for (changes, parts) in [
        (json!({"hidden_act": "gelu"}), &["hidden_act = \"gelu\"", "only \"silu\""][..]),
        // The reference has a window of 4096 unless another is given.
        (json!({"use_sliding_window": true}), &["sliding_window = 4096"]),
        (json!({"use_sliding_window": true, "sliding_window": 128}), &["sliding_window = 128"]),
        (json!({"rope_scaling": {"type": "linear", "factor": 2.0}}), &["rope_scaling", "linear", "only"]),
        (json!({"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}), &["rope_scaling", "yarn"]),
        (json!({"rope_parameters": {"rope_type": "llama3", "rope_theta": 1e4}}), &["rope_parameters", "llama3"]),
        (json!({"rope_parameters": {"rope_type": "default", "factor": 2.0}}), &["rope_parameters", "factor"]),
        (json!({"rope_parameters": {"full_attention": {"rope_type": "default"}}}), &["rope_parameters"]),
        (json!({"rope_parameters": [1]}), &["rope_parameters = [1]"]),
        (json!({"rope_theta": 1e4, "rope_parameters": {"rope_theta": 2e4}}), &["rope_theta", "10000 and 20000"]),
        (
            json!({"rope_scaling": {"type": "default"}, "rope_parameters": {"rope_theta": 2e4}}),
            &["rope_scaling and rope_parameters"],
        ),
        (json!({"partial_rotary_factor": 0.5}), &["partial_rotary_factor = 0.5", "only 1.0"]),
        (json!({"rope_parameters": {"partial_rotary_factor": 0.5}}), &["partial_rotary_factor = 0.5"]),
        (json!({"rope_theta": 0}), &["rope_theta = 0"]),
        (json!({"rope_theta": "10000"}), &["rope_theta = \"10000\""]),
        (json!({"layer_types": ["sliding_attention"]}), &["layer_types", "full_attention"]),
        (json!({"dtype": "float64"}), &["dtype = \"float64\"", "bfloat16"]),
        (json!({"torch_dtype": 32}), &["torch_dtype = 32"]),
        (json!({"dtype": ""}), &["dtype = \"\" is not supported, only \"bfloat16\"", "\"auto\", or no such key"]),
        (json!({"torch_dtype": ""}), &["torch_dtype = \"\" is not supported, only \"bfloat16\"", "or no such key"]),
        (json!({"dtype": {}}), &["dtype = {} is not supported"]),
        (
            json!({"quantization_config": {"quant_method": "fp8", "modules_to_not_convert": ["m", "n"]}}),
            &["quantization_config says that weights are quantized by fp8, which", "BF16"],
        ),
        (json!({"quantization_config": {"load_in_4bit": true}}), &["by bitsandbytes,"]),
        (json!({"quantization_config": {"bits": 4}}), &["by {\"bits\":4},"]),
        (json!({"quantization": {"group_size": 64, "bits": 4}}), &["quantization says", "\"bits\":4"]),
        (json!({"compression_config": {"quant_method": "compressed-tensors"}}), &["by compressed-tensors,"]),
        (json!({"qkv_bias": true}), &["qkv_bias = true", "only false"]),
        (json!({"shared_expert_intermediate_size": 64}), &["shared_expert_intermediate_size = 64"]),
        (json!({"per_layer_config": {"0": {}}}), &["per_layer_config"]),
        (json!({"auto_map": {"AutoModelForCausalLM": "modeling.Model"}}), &["auto_map", "code of its own"]),
        (json!({"num_experts": 6, "num_local_experts": 8}), &["num_experts and num_local_experts", "6 and 8"]),
        (json!({"num_experts": 0}), &["num_experts", "no MoE model"]),
        (json!({"mlp_only_layers": [0, 1, 2]}), &["mlp_only_layers", "no MoE model"]),
        (json!({"decoder_sparse_step": 4}), &["decoder_sparse_step", "no MoE model"]),
        (json!({"decoder_sparse_step": 0}), &["decoder_sparse_step = 0"]),
        (json!({"mlp_only_layers": [3]}), &["mlp_only_layers = [3]", "below 3"]),
        (json!({"mlp_only_layers": [-1]}), &["mlp_only_layers = [-1]"]),
        (json!({"mlp_only_layers": 1}), &["mlp_only_layers = 1"]),
        (json!({"num_experts_per_tok": 7}), &["num_experts_per_tok = 7", "6 experts"]),
        (json!({"num_key_value_heads": 3}), &["num_attention_heads = 4", "num_key_value_heads = 3"]),
        (json!({"head_dim": 7}), &["head_dim = 7"]),
        (json!({"head_dim": null, "hidden_size": 3}), &["head_dim = 0"]),
        (json!({"hidden_size": "32"}), &["hidden_size = \"32\"", "from 1 to"]),
        (json!({"hidden_size": -32}), &["hidden_size = -32"]),
        (json!({"hidden_size": 32.0}), &["hidden_size = 32.0"]),
        (json!({"num_hidden_layers": 0}), &["num_hidden_layers = 0"]),
        (json!({"vocab_size": 18_446_744_073_709_551_615_u64}), &["vocab_size = 18446744073709551615"]),
        (json!({"attention_bias": "yes"}), &["attention_bias = \"yes\"", "true or false"]),
        (json!({"rms_norm_eps": -1e-6}), &["rms_norm_eps"]),
        (json!({"rms_norm_eps": 0}), &["rms_norm_eps = 0", "from 1e-30"]),
        // In f32 it is 0, and its inverse infinite.
        (json!({"rope_theta": 1e-300}), &["rope_theta = 1e-300"]),
        (json!({"model_type": "qwen2_moe"}), &["model_type \"qwen2_moe\"", "only \"qwen3_moe\""]),
        (json!({"model_type": null}), &["model_type none"]),
        (json!({"architectures": ["Qwen3MoeModel"]}), &["Qwen3MoeModel"]),
        (json!({"logit_softcap": 30.0}), &["logit_softcap = 30.0"]),
    ] {
        let message = refusal(&changes);
        for part in parts {
            assert!(message.contains(part), "{changes}: {message:?} does not say {part:?}");
        }
    }
}

#[test]
fn what_is_no_json_object_is_refused() {
    for text in ["", "[]", "3", "{\"model_type\": \"qwen3_moe\"", "{\"rope_theta\": nan}", "{\"a\": 1e}"] {
        let refused = matches!(Config::from_json(text.as_bytes()), Err(ConfigError::Json { .. }));
        assert!(refused, "{text:?}");
    }
    assert!(matches!(Config::from_json(&[0xff, 0xfe, 0]), Err(ConfigError::Json { .. })));
    let deep = "[".repeat(100_000);
    assert!(matches!(Config::from_json(deep.as_bytes()), Err(ConfigError::Json { .. })));
}

#[test]
fn another_family_is_told_before_anything_that_is_wrong_with_it() {
    let text =
        r#"{"model_type": "llama", "a": NaN, "a": {"b": -Infinity}, "quantization_config": {"quant_method": "fp8"}}"#;
    let message = Config::from_json(text.as_bytes()).unwrap_err().to_string();
    assert!(message.starts_with("model_type \"llama\" with architectures none"), "{message}");
}

#[test]
fn numbers_that_only_python_writes_are_refused_by_their_key_or_are_harmless() {
    let said = |text: &str| {
        let json = format!("\u{feff}{{\"model_type\": \"qwen3_moe\", {text}}}");
        Config::from_json(json.as_bytes()).err().map(|error| error.to_string())
    };
    assert_eq!(said("\"initializer_range\": NaN, \"router_aux_loss_coef\": -Infinity"), None);
    for (text, start) in [
        ("\"rope_theta\": Infinity", "rope_theta = \"Infinity\", expected a number from"),
        ("\"rms_norm_eps\": NaN", "rms_norm_eps = \"NaN\", expected a number from"),
        ("\"vocab_size\": 1e999", "vocab_size = \"Infinity\", expected a whole number"),
        ("\"norm_topk_prob\": NaN", "norm_topk_prob = \"NaN\", expected true or false"),
        ("\"logit_scale\": -Infinity", "logit_scale = \"-Infinity\": this key is not known"),
        ("\"rope_scaling\": {\"factor\": Infinity}", "rope_scaling = {\"factor\":\"Infinity\"} is not supported"),
        ("\"num_experts\": 8, \"num_experts\": 8", "num_experts is there twice: keep one"),
        ("\"rope_scaling\": {\"type\": 1, \"type\": 2}", "type is there twice: keep one"),
    ] {
        let message = said(text).expect(text);
        assert!(message.starts_with(start), "{message}");
    }
}

#[test]
fn every_family_is_told_where_another_is_refused() {
    let message = Config::from_json(b"{}").unwrap_err().to_string();
    let told = "model_type none with architectures none is not supported; only ";
    assert_eq!(message, format!("{told}{} is", crate::model::config::family::all()));
    assert!(message.ends_with("only \"qwen3_moe\" with [\"Qwen3MoeForCausalLM\"] is"), "{message}");
}

#[test]
fn a_tensor_belongs_to_experts_by_the_whole_of_their_name() {
    let config = with(json!({})).unwrap();
    for (name, is_of_an_expert) in [
        ("model.layers.0.mlp.experts.3.up_proj.weight", true),
        ("model.layers.0.mlp.experts.gate_up_proj", true),
        ("model.layers.0.mlp.gate.weight", false),
        ("model.layers.0.mlp.expertss.0", false),
        ("xmlp.experts.0", false),
    ] {
        assert_eq!(config.is_of_an_expert(name), is_of_an_expert, "{name}");
    }
    assert_eq!(config.names.layer(12), "model.layers.12");
}
