//! Qwen3-MoE: attention with a norm of each head, experts chosen by softmax. What is usual is what `Qwen3MoeConfig` of transformers
//! says.

use plan::map::MAX_DIMENSION;

use super::{Family, TensorNames};
use crate::model::config::keys::{ConfigKeys, MAX_WIDTH};
use crate::model::config::{
    Attention, Config, ConfigError, Experts, FeedForward, Grouped, HeadNorm, Linear, Rotary, Router,
};

pub(super) const FAMILY: Family = Family {
    model_type: "qwen3_moe",
    architecture: "Qwen3MoeForCausalLM",
    // Its own configurations of Qwen3-Coder have these.
    fixed: &[("qkv_bias", "false"), ("shared_expert_intermediate_size", "0"), ("use_qk_norm", "true")],
    tokenizer_class: "Qwen2Tokenizer",
    describe,
};

const NAMES: TensorNames = TensorNames {
    embedding: "model.embed_tokens.weight",
    head: "lm_head.weight",
    norm: "model.norm.weight",
    layers: "model.layers",
    attention_norm: "input_layernorm",
    feed_forward_norm: "post_attention_layernorm",
    network: ["gate_proj", "up_proj", "down_proj"],
    derived: "rotary_emb.inv_freq",
};

fn describe(keys: &mut ConfigKeys) -> Result<Config, ConfigError> {
    keys.silu("hidden_act")?;
    keys.no_window(4096)?;
    let hidden = keys.size("hidden_size", 2048, MAX_WIDTH)?;
    let layers = keys.size("num_hidden_layers", 24, MAX_DIMENSION)?;
    let heads = keys.heads(hidden, (32, 4))?;
    let (experts, top_k) = keys.experts((128, 8))?;
    let have_experts = keys.layers_with_experts(layers)?;
    let dense = FeedForward::Dense { name: "mlp", intermediate: keys.size("intermediate_size", 6144, MAX_WIDTH)? };
    let vocabulary = keys.size("vocab_size", 151_936, MAX_WIDTH)?;
    let bias = keys.flag("attention_bias")?.unwrap_or(false);
    Ok(Config {
        vocabulary,
        hidden,
        norm_epsilon: keys.positive("rms_norm_eps")?.unwrap_or(1e-6) as f32,
        max_positions: keys.size("max_position_embeddings", 32_768, MAX_WIDTH)?,
        tied_embeddings: keys.flag("tie_word_embeddings")?.unwrap_or(false),
        attention: Attention::Grouped(Grouped {
            heads,
            norm: HeadNorm::Each(["self_attn.q_norm", "self_attn.k_norm"]),
            projections: Linear { names: &["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"], bias },
            output: Linear { names: &["self_attn.o_proj"], bias },
        }),
        rotary: Rotary { base: keys.rope_base(10_000.0)?, dimension: heads.dimension },
        layers: have_experts.into_iter().map(|have| if have { FeedForward::Sparse } else { dense }).collect(),
        router: Router {
            linear: Linear { names: &["mlp.gate"], bias: false },
            top_k,
            normalise: keys.flag("norm_topk_prob")?.unwrap_or(false),
        },
        experts: Experts {
            count: experts,
            intermediate: keys.size("moe_intermediate_size", 768, MAX_WIDTH)?,
            name: "mlp.experts",
            fused: ["gate_up_proj", "down_proj"],
        },
        names: &NAMES,
    })
}

#[cfg(test)]
mod tests;
