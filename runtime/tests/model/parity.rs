//! Logits and greedy continuations are those of transformers in float32.

use std::path::Path;

use crate::fixtures::{Prompt, VARIANTS, tiny_moe, tiny_moe_prompts, variant, variant_prompts};
use crate::group::{Run, Sequence, run};

/// The promise is 1e-3; what rounding leaves is far less.
const TOLERANCE: f32 = 1e-4;

fn check(checkpoint: &Path, prompts: &[Prompt]) {
    let sequences: Vec<Sequence> =
        prompts.iter().map(|prompt| Sequence { prompt: prompt.ids.clone(), new: prompt.greedy_ids.len() }).collect();
    let (outcomes, _) = run(checkpoint, &Run::plain(checkpoint), &sequences);
    let mut worst = 0.0_f32;
    for (prompt, outcome) in prompts.iter().zip(outcomes) {
        let vocabulary = outcome.logits.len() / (prompt.ids.len() + prompt.greedy_ids.len() - 1);
        let end = prompt.ids.len() * vocabulary;
        let ours = &outcome.logits[end - prompt.logits.len()..end];
        let difference = ours.iter().zip(&prompt.logits).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(difference <= TOLERANCE, "{}: logits differ by {difference}", prompt.name);
        assert_eq!(outcome.tokens, prompt.greedy_ids, "{}", prompt.name);
        worst = worst.max(difference);
    }
    println!("{}: largest difference of a logit {worst:.2e}", checkpoint.display());
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
