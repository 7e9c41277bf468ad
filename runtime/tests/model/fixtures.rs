//! Checkpoints and the reference outputs that belong to them.

use std::path::{Path, PathBuf};

use safetensors::SafeTensors;
use serde::Deserialize;

/// The checkpoints with random weights, each another way to write the format.
pub const VARIANTS: [&str; 6] =
    ["attention_bias", "base", "dense_layers", "norm_topk_false_f16", "sharded_v5", "tied_f32"];

#[derive(Deserialize)]
struct Oracle {
    prompts: Vec<Prompt>,
}

/// One prompt and what the reference makes of it.
#[derive(Clone, Debug, Deserialize)]
pub struct Prompt {
    pub name: String,
    pub ids: Vec<u32>,
    pub greedy_ids: Vec<u32>,
    /// Logits of the last positions of the prompt, of all for some prompts.
    #[serde(skip)]
    pub logits: Vec<f32>,
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..")
}

pub fn tiny_moe() -> PathBuf {
    root().join("examples/models/tiny-moe")
}

pub fn variant(name: &str) -> PathBuf {
    root().join("tests/models/variants").join(name)
}

/// The reference outputs of the trained model.
pub fn tiny_moe_prompts() -> Vec<Prompt> {
    prompts(&root().join("tests/models/tiny-moe-oracle"))
}

/// The reference outputs of a variant.
pub fn variant_prompts(name: &str) -> Vec<Prompt> {
    prompts(&variant(name))
}

fn prompts(directory: &Path) -> Vec<Prompt> {
    let oracle: Oracle = serde_json::from_slice(&std::fs::read(directory.join("oracle.json")).unwrap()).unwrap();
    let bytes = std::fs::read(directory.join("oracle.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let logits = |prompt: &Prompt| {
        let all = tensors.tensor(&format!("{}.logits", prompt.name));
        let tensor = all.or_else(|_| tensors.tensor(&format!("{}.last", prompt.name))).unwrap();
        bytemuck::pod_collect_to_vec(tensor.data())
    };
    let with_logits = |prompt: Prompt| Prompt { logits: logits(&prompt), ..prompt };
    oracle.prompts.into_iter().map(with_logits).collect()
}
