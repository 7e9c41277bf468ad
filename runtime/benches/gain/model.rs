//! A checkpoint whose steps are mostly experts, half of which are chosen more often than the others.

use std::fs;
use std::path::Path;

use half::bf16;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::json;

pub const VOCABULARY: u32 = 512;
const LAYERS: usize = 2;
const HIDDEN: usize = 512;
const INTERMEDIATE: usize = 768;
const EXPERTS: usize = 32;
const TOP_K: usize = 4;
const HEADS: usize = 4;
const HEAD: usize = 64;
/// By how much the logits of the first half of the experts are larger than those of the others: then these get four fifths
/// of the tokens.
const HEAT: f32 = 2.0;

/// Writes it.
pub fn write(folder: &Path) -> anyhow::Result<()> {
    let mut random = StdRng::seed_from_u64(1);
    let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
    let mut add = |name: String, shape: &[usize], weight: &mut dyn FnMut(usize) -> f32| {
        let start = data.len();
        for element in 0..shape.iter().product() {
            data.extend_from_slice(&bf16::from_f32(weight(element)).to_le_bytes());
        }
        header.insert(name, json!({"dtype": "BF16", "shape": shape, "data_offsets": [start, data.len()]}));
    };
    // A row of unit variance gives results of unit variance.
    let mut matrix = |rows: usize, columns: usize, name: String, scale: &dyn Fn(usize) -> f32| {
        let most = (3.0 / columns as f32).sqrt();
        add(name, &[rows, columns], &mut |element| scale(element / columns) * random.random_range(-most..most));
    };
    let even = |_: usize| 1.0;
    // Of unit variance too: then a token is more than what attention adds to it, and tokens of one prompt choose apart. If they chose
    // alike every step's load would be another, which nobody foresees.
    let embedding = (HIDDEN as f32).sqrt();
    matrix(VOCABULARY as usize, HIDDEN, "model.embed_tokens.weight".to_owned(), &|_| embedding);
    matrix(VOCABULARY as usize, HIDDEN, "lm_head.weight".to_owned(), &even);
    for layer in 0..LAYERS {
        let name = |part: &str| format!("model.layers.{layer}.{part}.weight");
        for part in ["q", "k", "v"] {
            matrix(HEADS * HEAD, HIDDEN, name(&format!("self_attn.{part}_proj")), &even);
        }
        matrix(HIDDEN, HEADS * HEAD, name("self_attn.o_proj"), &even);
        matrix(EXPERTS, HIDDEN, name("mlp.gate"), &|expert| if expert < EXPERTS / 2 { HEAT } else { 1.0 });
        for expert in 0..EXPERTS {
            for part in ["gate", "up"] {
                matrix(INTERMEDIATE, HIDDEN, name(&format!("mlp.experts.{expert}.{part}_proj")), &even);
            }
            matrix(HIDDEN, INTERMEDIATE, name(&format!("mlp.experts.{expert}.down_proj")), &even);
        }
    }
    let mut ones = |name: String, width: usize| add(name, &[width], &mut |_| 1.0);
    ones("model.norm.weight".to_owned(), HIDDEN);
    for layer in 0..LAYERS {
        let norms = [("input_layernorm", HIDDEN), ("post_attention_layernorm", HIDDEN)];
        for (part, width) in norms.into_iter().chain([("self_attn.q_norm", HEAD), ("self_attn.k_norm", HEAD)]) {
            ones(format!("model.layers.{layer}.{part}.weight"), width);
        }
    }
    let header = serde_json::to_vec(&header)?;
    let file = [&(header.len() as u64).to_le_bytes(), &header[..], &data].concat();
    fs::write(folder.join("model.safetensors"), file)?;
    let config = json!({
        "architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "vocab_size": VOCABULARY,
        "hidden_size": HIDDEN, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "num_key_value_heads": HEADS,
        "head_dim": HEAD, "num_experts": EXPERTS, "num_experts_per_tok": TOP_K, "moe_intermediate_size": INTERMEDIATE,
        "norm_topk_prob": true, "rope_theta": 1_000_000, "max_position_embeddings": 1024,
    });
    Ok(fs::write(folder.join("config.json"), serde_json::to_vec_pretty(&config)?)?)
}
