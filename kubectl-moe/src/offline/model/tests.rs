use super::*;

fn parsed(config: &str) -> Result<Model, String> {
    Model::parse(config.as_bytes(), Path::new("config.json"))
}

/// Layers, dense ones before the first with experts, layers with experts, those after the last, experts, router groups, and
/// bytes of an expert.
type Facts = (usize, usize, usize, usize, usize, usize, u64);

fn facts(config: &str) -> Facts {
    let model = parsed(config).unwrap_or_else(|error| panic!("{error}: {config}"));
    let Model { path: _, layers, dense_layers, moe_layers, mtp_layers, experts, router_groups, ref expert_bytes } =
        model;
    let bytes = expert_bytes.clone().unwrap_or_else(|error| panic!("{error}: {config}"));
    (layers, dense_layers, moe_layers, mtp_layers, experts, router_groups, bytes)
}

/// The keys of each family's configuration on its experts, with the values of a model that is served.
const FAMILIES: [(&str, &str, Facts); 22] = [
    (
        "Qwen3-235B-A22B",
        r#"{"model_type": "qwen3_moe", "num_hidden_layers": 94, "num_experts": 128, "hidden_size": 4096, "intermediate_size": 12288,
            "moe_intermediate_size": 1536, "decoder_sparse_step": 1, "mlp_only_layers": [], "torch_dtype": "bfloat16"}"#,
        (94, 0, 94, 0, 128, 1, 2 * 3 * 4096 * 1536),
    ),
    (
        "Qwen3-30B-A3B-FP8",
        r#"{"model_type": "qwen3_moe", "num_hidden_layers": 48, "num_experts": 128, "hidden_size": 2048, "moe_intermediate_size": 768,
            "torch_dtype": "bfloat16", "quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]}}"#,
        (48, 0, 48, 0, 128, 1, 3 * 2048 * 768 + 4 * 3 * 16 * 6),
    ),
    (
        "Qwen3-235B-A22B-GPTQ-Int4",
        r#"{"model_type": "qwen3_moe", "num_hidden_layers": 94, "num_experts": 128, "hidden_size": 4096, "moe_intermediate_size": 1536,
            "torch_dtype": "bfloat16", "quantization_config": {"quant_method": "gptq", "bits": 4, "group_size": 128}}"#,
        (94, 0, 94, 0, 128, 1, 3 * 4096 * 1536 / 2 + (3 * 4096 * 1536 / 128) * 5 / 2 + 4 * (2 * 4096 + 1536)),
    ),
    (
        "Qwen3-30B-A3B-NVFP4",
        r#"{"model_type": "qwen3_moe", "num_hidden_layers": 48, "num_experts": 128, "hidden_size": 2048, "moe_intermediate_size": 768,
            "torch_dtype": "bfloat16", "quantization_config": {"quant_method": "modelopt", "quant_algo": "NVFP4"}}"#,
        (48, 0, 48, 0, 128, 1, 3 * 2048 * 768 * 9 / 16 + 24),
    ),
    (
        "Qwen3.5-35B-A3B",
        r#"{"model_type": "qwen3_5_moe", "text_config": {"num_hidden_layers": 40, "num_experts": 256, "hidden_size": 2048,
            "moe_intermediate_size": 512, "mtp_num_hidden_layers": 1, "dtype": "bfloat16"}}"#,
        (40, 0, 40, 1, 256, 1, 2 * 3 * 2048 * 512),
    ),
    (
        "Mixtral-8x7B",
        r#"{"model_type": "mixtral", "num_hidden_layers": 32, "num_local_experts": 8, "hidden_size": 4096, "intermediate_size": 14336,
            "torch_dtype": "bfloat16"}"#,
        (32, 0, 32, 0, 8, 1, 2 * 3 * 4096 * 14336),
    ),
    (
        "Mixtral-8x7B-AWQ",
        r#"{"model_type": "mixtral", "num_hidden_layers": 32, "num_local_experts": 8, "hidden_size": 4096, "intermediate_size": 14336,
            "torch_dtype": "float16", "quantization_config": {"quant_method": "awq", "bits": 4, "group_size": 128}}"#,
        (32, 0, 32, 0, 8, 1, 3 * 4096 * 14336 / 2 + (3 * 4096 * 14336 / 128) * 5 / 2),
    ),
    (
        "OLMoE-1B-7B",
        r#"{"model_type": "olmoe", "num_hidden_layers": 16, "num_experts": 64, "hidden_size": 2048, "intermediate_size": 1024,
            "torch_dtype": "bfloat16"}"#,
        (16, 0, 16, 0, 64, 1, 2 * 3 * 2048 * 1024),
    ),
    (
        "DeepSeek-V2-Lite",
        r#"{"model_type": "deepseek_v2", "num_hidden_layers": 27, "first_k_dense_replace": 1, "moe_layer_freq": 1, "n_group": 1,
            "n_routed_experts": 64, "hidden_size": 2048, "intermediate_size": 10944, "moe_intermediate_size": 1408,
            "torch_dtype": "bfloat16"}"#,
        (27, 1, 26, 0, 64, 1, 2 * 3 * 2048 * 1408),
    ),
    (
        "DeepSeek-V3",
        r#"{"model_type": "deepseek_v3", "num_hidden_layers": 61, "first_k_dense_replace": 3, "moe_layer_freq": 1, "n_group": 8,
            "n_routed_experts": 256, "hidden_size": 7168, "intermediate_size": 18432, "moe_intermediate_size": 2048,
            "num_nextn_predict_layers": 1, "torch_dtype": "bfloat16",
            "quantization_config": {"quant_method": "fp8", "fmt": "e4m3", "weight_block_size": [128, 128]}}"#,
        (61, 3, 58, 1, 256, 8, 3 * 7168 * 2048 + 4 * 3 * 56 * 16),
    ),
    (
        "Kimi-K2-Instruct",
        r#"{"model_type": "kimi_k2", "num_hidden_layers": 61, "first_k_dense_replace": 1, "moe_layer_freq": 1, "n_group": 1,
            "n_routed_experts": 384, "hidden_size": 7168, "moe_intermediate_size": 2048, "num_nextn_predict_layers": 0,
            "torch_dtype": "bfloat16", "quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]}}"#,
        (61, 1, 60, 0, 384, 1, 3 * 7168 * 2048 + 4 * 3 * 56 * 16),
    ),
    (
        "Kimi-K2.5",
        r#"{"model_type": "kimi_k25", "dtype": "bfloat16", "text_config": {"model_type": "kimi_k2", "num_hidden_layers": 61,
            "first_k_dense_replace": 1, "n_routed_experts": 384, "hidden_size": 7168, "moe_intermediate_size": 2048,
            "quantization_config": {"quant_method": "compressed-tensors", "config_groups": {"group_0": {"weights":
            {"num_bits": 4, "type": "int", "strategy": "group", "group_size": 32}}}}}}"#,
        (61, 1, 60, 0, 384, 1, 3 * 7168 * 2048 / 2 + 2 * (3 * 7168 * 2048 / 32)),
    ),
    (
        "GLM-4.5",
        r#"{"model_type": "glm4_moe", "num_hidden_layers": 92, "first_k_dense_replace": 3, "n_routed_experts": 160, "n_group": 1,
            "hidden_size": 5120, "intermediate_size": 12288, "moe_intermediate_size": 1536, "num_nextn_predict_layers": 1,
            "torch_dtype": "bfloat16"}"#,
        (92, 3, 89, 1, 160, 1, 2 * 3 * 5120 * 1536),
    ),
    (
        "Hy3",
        r#"{"model_type": "hy_v3", "num_hidden_layers": 4, "num_experts": 192, "hidden_size": 4096, "expert_hidden_dim": 1536,
            "moe_intermediate_size": 1536, "intermediate_size": 13312, "dtype": "bfloat16", "first_k_dense_replace": 1,
            "mlp_layer_types": ["dense", "sparse", "sparse", "sparse"]}"#,
        (4, 1, 3, 0, 192, 1, 2 * 3 * 4096 * 1536),
    ),
    (
        "MiniMax-M2",
        r#"{"model_type": "minimax_m2", "num_hidden_layers": 62, "num_local_experts": 256, "hidden_size": 3072,
            "intermediate_size": 1536, "num_mtp_modules": 3,
            "quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]}}"#,
        (62, 0, 62, 3, 256, 1, 3 * 3072 * 1536 + 4 * 3 * 24 * 12),
    ),
    (
        "gpt-oss-120b",
        r#"{"model_type": "gpt_oss", "num_hidden_layers": 36, "num_local_experts": 128, "hidden_size": 2880,
            "intermediate_size": 2880, "quantization_config": {"quant_method": "mxfp4"}}"#,
        (36, 0, 36, 0, 128, 1, 3 * 2880 * 2880 * 17 / 32 + 2 * 3 * 2880),
    ),
    (
        "gpt-oss in bfloat16",
        r#"{"model_type": "gpt_oss", "num_hidden_layers": 24, "num_local_experts": 32, "hidden_size": 2880,
            "intermediate_size": 2880, "torch_dtype": "bfloat16"}"#,
        (24, 0, 24, 0, 32, 1, 2 * 3 * 2880 * 2880 + 2 * 3 * 2880),
    ),
    (
        "Llama-4-Maverick",
        r#"{"model_type": "llama4", "torch_dtype": "bfloat16", "text_config": {"model_type": "llama4_text", "num_hidden_layers": 48,
            "num_local_experts": 128, "hidden_size": 5120, "intermediate_size": 8192, "intermediate_size_mlp": 16384,
            "interleave_moe_layer_step": 2}}"#,
        (48, 1, 24, 0, 128, 1, 2 * 3 * 5120 * 8192),
    ),
    (
        "Llama-4-Scout, compressed",
        r#"{"text_config": {"num_hidden_layers": 48, "num_local_experts": 16, "hidden_size": 5120, "intermediate_size": 8192,
            "interleave_moe_layer_step": 1, "torch_dtype": "bfloat16"},
            "quantization_config": {"quant_method": "compressed-tensors", "config_groups": {"group_0": {"weights":
            {"num_bits": 8, "type": "float", "strategy": "channel"}}}}}"#,
        (48, 0, 48, 0, 16, 1, 3 * 5120 * 8192 + 2 * (2 * 8192 + 5120)),
    ),
    (
        "Nemotron-3-Nano",
        r#"{"model_type": "nemotron_h", "num_hidden_layers": 6, "hybrid_override_pattern": "MEM*EM", "n_routed_experts": 128,
            "hidden_size": 2688, "moe_intermediate_size": 1856, "mlp_hidden_act": "relu2", "torch_dtype": "bfloat16"}"#,
        (6, 1, 2, 0, 128, 1, 2 * 2 * 2688 * 1856),
    ),
    (
        "MiMo-V2-Flash",
        r#"{"model_type": "mimo_v2_flash", "num_hidden_layers": 4, "moe_layer_freq": [0, 1, 1, 1], "n_routed_experts": 256,
            "hidden_size": 4096, "moe_intermediate_size": 2048, "quantization_config": {"quant_method": "fp8"}}"#,
        (4, 1, 3, 0, 256, 1, 3 * 4096 * 2048 + 4 * 3),
    ),
    (
        "Ernie-4.5",
        r#"{"model_type": "ernie4_5_moe", "num_hidden_layers": 28, "moe_num_experts": 64, "moe_layer_start_index": 1,
            "moe_layer_end_index": 27, "moe_layer_interval": 1, "hidden_size": 2560, "moe_intermediate_size": 1536,
            "torch_dtype": "bfloat16"}"#,
        (28, 1, 27, 0, 64, 1, 2 * 3 * 2560 * 1536),
    ),
];

#[test]
fn every_family_says_where_its_experts_are_and_how_large() {
    for (name, config, expected) in FAMILIES {
        assert_eq!(facts(config), expected, "{name}");
    }
    let tiny = facts(include_str!("../../../../examples/models/tiny-moe/config.json"));
    assert_eq!(tiny, (4, 0, 4, 0, 32, 1, 2 * 3 * 128 * 64));
}

#[test]
fn layers_that_are_told_one_by_one_are_those() {
    let layers = |more: &str| {
        let config =
            format!(r#"{{"num_hidden_layers": 6, "num_experts": 8, "hidden_size": 8, "intermediate_size": 8{more}}}"#);
        parsed(&config).map(|model| (model.dense_layers, model.moe_layers))
    };
    assert_eq!(layers(r#", "mlp_only_layers": [0, 2]"#), Ok((1, 4)));
    assert_eq!(layers(r#", "decoder_sparse_step": 2"#), Ok((1, 3)));
    assert_eq!(layers(r#", "expert_layer_period": 2, "expert_layer_offset": 1"#), Ok((1, 3)));
    assert_eq!(layers(r#", "moe_layers_enum": "2,3, 4""#), Ok((2, 3)));
    assert_eq!(layers(r#", "moe_layers": [5]"#), Ok((5, 1)));
    let short = layers(r#", "mlp_layer_types": ["sparse"]"#).unwrap_err();
    assert_eq!(short, "has mlp_layer_types of 1 layer, and num_hidden_layers 6");
    let none = layers(r#", "first_k_dense_replace": 6"#).unwrap_err();
    assert_eq!(none, "is of a model without experts: it has no layer with some");
}

#[test]
fn what_is_missing_or_unknown_is_said() {
    assert!(parsed("{").unwrap_err().starts_with("is no JSON"));
    assert_eq!(parsed("{}").unwrap_err(), "has no num_hidden_layers");
    assert_eq!(parsed(r#"{"num_hidden_layers": 2}"#).unwrap_err(), "is of a model without experts");
    let sized = |rest: &str| {
        let config = format!(
            r#"{{"num_hidden_layers": 2, "num_experts": 8, "hidden_size": 10, "moe_intermediate_size": 20{rest}}}"#
        );
        parsed(&config).unwrap().expert_bytes().unwrap_err().to_string()
    };
    assert_eq!(sized(""), "config.json names no torch_dtype; give --expert-bytes");
    let other = sized(r#", "quantization_config": {"quant_method": "bitsandbytes"}"#);
    assert_eq!(
        other,
        "config.json names the quantization bitsandbytes, whose size is not known here; give --expert-bytes"
    );
}

#[test]
fn numbers_that_no_model_has_are_refused_by_name() {
    let with = |hidden: &str, inner: &str, layers: &str| {
        let config = format!(
            r#"{{"num_hidden_layers": {layers}, "num_experts": 8, "hidden_size": {hidden}, "moe_intermediate_size": {inner},
                "torch_dtype": "bfloat16"}}"#
        );
        let model = parsed(&config)?;
        model.expert_bytes
    };
    assert_eq!(with("10", "20", "2"), Ok(2 * 600));
    for wrong in ["0", "9223372036854775808", "-1", "1.5", "\"many\""] {
        let must = "it must be from 1 to 1048576";
        assert_eq!(with(wrong, "20", "2"), Err(format!("has hidden_size {wrong}; {must}")));
        assert_eq!(with("10", wrong, "2"), Err(format!("has moe_intermediate_size {wrong}; {must}")));
        assert_eq!(with("10", "20", wrong), Err(format!("has num_hidden_layers {wrong}; it must be from 1 to 16384")));
    }
}
