//! What is asked of logits, and what is told of the answers: the next token, and how likely tokens were. Equal inputs give the
//! equal token: randomness is a function of the request's seed and the position.

use kernels::batch::{Asked, Collected, Draw, MOST_BEST, Sampled, Scored};

use crate::draws::{INCREMENT, mix};
use crate::protocol::{Sampling, SequenceOutput, SequenceStep, TokenScore};

/// What is told of a token that cannot come, whose log-probability is minus infinity and so no number in JSON. Other
/// servers and their clients know the value with this meaning.
const LEAST_LOGPROB: f32 = -9999.0;

/// What a step asks of the logits of its token `index`, which is row `row`, if it asks anything.
fn asked_of(step: &SequenceStep, index: usize, row: u32) -> Option<Asked> {
    let last = index + 1 == step.tokens.len();
    let sampling = step.sample.filter(|_| last);
    let score = step.score.get(index).copied().flatten();
    if sampling.is_none() && score.is_none() {
        return None;
    }
    let Sampling { temperature, top_p, top_k, seed, logprob } = sampling.unwrap_or(Sampling::GREEDY);
    let position = step.position + step.tokens.len() as u32;
    let draw = Draw { temperature, top_p, top_k, uniform: uniform(seed, position) };
    let sum = score.is_some() || logprob || step.top_logprobs > 0;
    Some(Asked { row, draw: sampling.map(|_| draw), score, best: step.top_logprobs, sum })
}

/// What a batch asks, in the order of its rows.
pub(super) fn ask(batch: &[SequenceStep], asked: &mut Vec<Asked>) {
    let mut first = 0;
    for step in batch {
        asked.extend((0..step.tokens.len()).filter_map(|index| asked_of(step, index, first + index as u32)));
        first += step.tokens.len() as u32;
    }
}

/// The outputs of a batch from what [`ask`] has asked, with a vocabulary of this size.
///
/// # Panics
/// If not every question has an answer.
pub(super) fn outputs(batch: &[SequenceStep], vocabulary: usize, collected: &Collected<'_>) -> Vec<SequenceOutput> {
    let mut answers = collected.sampled.iter().zip(collected.best.chunks_exact(MOST_BEST));
    let mut output = |step: &SequenceStep| {
        let mut output = SequenceOutput {
            sequence: step.sequence,
            token: None,
            scores: vec![None; step.score.len()],
            no_numbers: false,
        };
        for index in 0..step.tokens.len() {
            let Some(asked) = asked_of(step, index, 0) else { continue };
            let (sampled, best) = answers.next().expect("each question has an answer");
            if !sampled.is_ordered {
                output.no_numbers = true;
                continue;
            }
            let best = &best[..vocabulary.min(step.top_logprobs as usize)];
            if let Some(token) = asked.score {
                output.scores[index] = Some(score(sampled, Scored { token, logit: sampled.score }, best));
            }
            if asked.draw.is_some() {
                let wanted = step.sample.is_some_and(|sampling| sampling.logprob) || step.top_logprobs > 0;
                output.token = Some(if wanted {
                    score(sampled, sampled.drawn, best)
                } else {
                    TokenScore { token: sampled.drawn.token, logprob: 0.0, top: Vec::new() }
                });
            }
        }
        output
    };
    batch.iter().map(&mut output).collect()
}

/// Log-probability of a token, and the best tokens, under unmodified logits; always finite.
fn score(sampled: &Sampled, token: Scored, best: &[Scored]) -> TokenScore {
    let logprob = |logit: f32| sampled.logprob(logit).max(LEAST_LOGPROB);
    let top = best.iter().map(|best| (best.token, logprob(best.logit))).collect();
    TokenScore { token: token.token, logprob: logprob(token.logit), top }
}

/// A number in [0, 1) for a position: `SplitMix64`, which starts where the seed says.
fn uniform(seed: u64, position: u32) -> f64 {
    let bits = mix(mix(seed).wrapping_add(u64::from(position).wrapping_mul(INCREMENT)));
    (bits >> 11) as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests;
