//! Logits and greedy continuations are those of transformers in float32.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use plan::map::ExpertMap;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

use crate::fixtures::{Prompt, VARIANTS, tiny_moe, tiny_moe_prompts, variant, variant_prompts};
use crate::group::{Run, Sequence, run, shape};

/// The promise is 1e-3; what rounding leaves is far less.
const TOLERANCE: f32 = 1e-4;

/// Ranks that share the experts.
const RANKS: [usize; 3] = [1, 2, 4];

fn check(checkpoint: &Path, prompts: &[Prompt]) {
    for ranks in RANKS {
        check_on(ranks, checkpoint, prompts);
    }
}

fn check_on(ranks: usize, checkpoint: &Path, prompts: &[Prompt]) {
    let map = ExpertMap::contiguous(shape(checkpoint, ranks, 0)).unwrap();
    let sequences: Vec<Sequence> =
        prompts.iter().map(|prompt| Sequence { prompt: prompt.ids.clone(), new: prompt.greedy_ids.len() }).collect();
    let (outcomes, _) = run(checkpoint, &Run { map, ..Run::plain(checkpoint) }, &sequences);
    let mut worst = 0.0_f32;
    for (prompt, outcome) in prompts.iter().zip(outcomes) {
        let vocabulary = outcome.logits.len() / (prompt.ids.len() + prompt.greedy_ids.len() - 1);
        let end = prompt.ids.len() * vocabulary;
        let ours = &outcome.logits[end - prompt.logits.len()..end];
        let difference = ours.iter().zip(&prompt.logits).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(difference <= TOLERANCE, "{}, {ranks} ranks: logits differ by {difference}", prompt.name);
        assert_eq!(outcome.tokens, prompt.greedy_ids, "{}, {ranks} ranks", prompt.name);
        worst = worst.max(difference);
    }
    println!("{}, {ranks} ranks: largest difference of a logit {worst:.2e}", checkpoint.display());
}

#[test]
fn the_trained_model_gives_the_references_logits_and_greedy_tokens_for_every_prompt() {
    let prompts = tiny_moe_prompts();
    assert_eq!(prompts.len(), 13);
    check(&tiny_moe(), &prompts);
}

#[test]
fn every_way_to_write_the_format_gives_the_references_logits_and_greedy_tokens() {
    for name in VARIANTS {
        check(&variant(name), &variant_prompts(name));
    }
}

/// Writes a variant's experts in the fused layout of transformers 5.
fn fuse(from: &Path, to: &Path, layers: usize, experts: usize) {
    let bytes = fs::read(from.join("model.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let mut fused: BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)> = BTreeMap::new();
    for (name, tensor) in tensors.iter().filter(|(name, _)| !name.contains(".experts.")) {
        fused.insert(name.to_owned(), (tensor.dtype(), tensor.shape().to_vec(), tensor.data().to_vec()));
    }
    for layer in 0..layers {
        let part = |expert: usize, name: &str| {
            tensors.tensor(&format!("model.layers.{layer}.mlp.experts.{expert}.{name}_proj.weight")).unwrap()
        };
        for (name, parts) in [("gate_up_proj", &["gate", "up"][..]), ("down_proj", &["down"])] {
            let first = part(0, parts[0]);
            let shape = vec![experts, parts.len() * first.shape()[0], first.shape()[1]];
            let data = (0..experts).flat_map(|expert| parts.iter().map(move |name| (expert, *name)));
            let data: Vec<u8> = data.flat_map(|(expert, name)| part(expert, name).data().to_vec()).collect();
            fused.insert(format!("model.layers.{layer}.mlp.experts.{name}"), (first.dtype(), shape, data));
        }
    }
    let views =
        fused.iter().map(|(name, (dtype, shape, data))| (name, TensorView::new(*dtype, shape.clone(), data).unwrap()));
    safetensors::serialize_to_file(views, None, &to.join("model.safetensors")).unwrap();
    fs::copy(from.join("config.json"), to.join("config.json")).unwrap();
}

#[test]
fn fused_experts_give_the_references_logits_too() {
    for name in ["base", "norm_topk_false_f16", "tied_f32"] {
        let directory = tempfile::tempdir().unwrap();
        fuse(&variant(name), directory.path(), 2, 8);
        check(directory.path(), &variant_prompts(name));
    }
}
