//! What is done with logits: the next token, and how likely tokens were. Equal inputs give the equal token: randomness is
//! a function of the request's seed and the position.

use crate::draws::{INCREMENT, mix};
use crate::protocol::{Sampling, SequenceOutput, SequenceStep, TokenScore};

/// What is told of a token that cannot come, whose log-probability is minus infinity and so no number in JSON. Other
/// servers and their clients know the value with this meaning.
const LEAST_LOGPROB: f32 = -9999.0;

/// Whether a step asks for the logits of its token `index`.
pub(super) fn wants(step: &SequenceStep, index: usize) -> bool {
    let last = index + 1 == step.tokens.len();
    (last && step.sample.is_some()) || step.score.get(index).is_some_and(Option::is_some)
}

/// Turns rows of logits into the outputs of a batch. Rows come in the order of the batch's tokens, only those that are
/// wanted.
#[derive(Debug)]
pub(super) struct Outputs<'a> {
    batch: &'a [SequenceStep],
    finished: Vec<SequenceOutput>,
    /// The sequence and the token of the last row.
    at: (usize, usize),
    scratch: Vec<(u32, f32)>,
}

impl<'a> Outputs<'a> {
    pub fn new(batch: &'a [SequenceStep]) -> Self {
        let empty = |step: &SequenceStep| SequenceOutput {
            sequence: step.sequence,
            token: None,
            scores: vec![None; step.score.len()],
            no_numbers: false,
        };
        Self { batch, finished: batch.iter().map(empty).collect(), at: (0, 0), scratch: Vec::new() }
    }

    /// Takes the next row.
    ///
    /// # Panics
    /// If there are more rows than the batch wants.
    pub fn take(&mut self, logits: &[f32]) {
        let (mut sequence, mut token) = self.at;
        while token >= self.batch[sequence].tokens.len() || !wants(&self.batch[sequence], token) {
            if token < self.batch[sequence].tokens.len() {
                token += 1;
            } else {
                (sequence, token) = (sequence + 1, 0);
            }
        }
        self.at = (sequence, token + 1);
        let step = &self.batch[sequence];
        let output = &mut self.finished[sequence];
        let Some(row) = Row::of(logits) else {
            output.no_numbers = true;
            return;
        };
        if let Some(next) = step.score.get(token).copied().flatten() {
            output.scores[token] = Some(row.score(next, step.top_logprobs));
        }
        if let (true, Some(sampling)) = (token + 1 == step.tokens.len(), &step.sample) {
            let position = step.position + step.tokens.len() as u32;
            let chosen = row.choose(sampling, position, &mut self.scratch);
            output.token = Some(if sampling.logprob || step.top_logprobs > 0 {
                row.score(chosen, step.top_logprobs)
            } else {
                TokenScore { token: chosen, logprob: 0.0, top: Vec::new() }
            });
        }
    }

    /// The outputs, in the batch's order.
    pub fn finish(self) -> Vec<SequenceOutput> {
        self.finished
    }
}

/// Logits by which tokens can be chosen: none is NaN or plus infinity, and one is more than minus infinity.
#[derive(Clone, Copy)]
struct Row<'a> {
    logits: &'a [f32],
    largest: f32,
}

impl<'a> Row<'a> {
    fn of(logits: &'a [f32]) -> Option<Self> {
        const LANES: usize = 16;
        let (parts, rest) = logits.as_chunks::<LANES>();
        // Lanes of one width, so that both are one instruction for several of them.
        let (mut largest, mut unordered) = ([f32::NEG_INFINITY; LANES], [0_u32; LANES]);
        for part in parts {
            for ((largest, unordered), logit) in largest.iter_mut().zip(&mut unordered).zip(part) {
                *largest = if *logit > *largest { *logit } else { *largest };
                *unordered |= u32::from(logit.is_nan());
            }
        }
        let largest = largest.iter().chain(rest).copied().fold(f32::NEG_INFINITY, f32::max);
        let ordered = unordered.iter().all(|lane| *lane == 0) && !rest.iter().any(|logit| logit.is_nan());
        (ordered && largest.is_finite()).then_some(Self { logits, largest })
    }

    /// The token at `position` of a sequence; of equally likely best ones the lowest.
    fn choose(self, sampling: &Sampling, position: u32, scratch: &mut Vec<(u32, f32)>) -> u32 {
        let Self { logits, largest } = self;
        let best = logits.iter().position(|logit| *logit >= largest).unwrap_or(0) as u32;
        if sampling.temperature <= 0.0 {
            return best;
        }
        let weight = |logit: f32| f64::from((logit - largest) / sampling.temperature).exp() as f32;
        scratch.clear();
        scratch.extend((0..).zip(logits.iter().map(|logit| weight(*logit))));
        if (1..scratch.len()).contains(&(sampling.top_k as usize)) {
            keep_best(scratch, sampling.top_k as usize);
        }
        if sampling.top_p < 1.0 {
            nucleus(scratch, sampling.top_p);
        }
        let total: f64 = scratch.iter().map(|(_, weight)| f64::from(*weight)).sum();
        let mut left = uniform(sampling.seed, position) * total;
        for (token, weight) in &*scratch {
            left -= f64::from(*weight);
            if left < 0.0 {
                return *token;
            }
        }
        // Rounding left a little over: the last token that could be chosen.
        scratch.iter().rev().find(|(_, weight)| *weight > 0.0).map_or(best, |(token, _)| *token)
    }

    /// Log-probability of a token, and the `top` best tokens, under unmodified logits; always finite.
    fn score(self, token: u32, top: u32) -> TokenScore {
        let Self { logits, largest } = self;
        let sum: f64 = logits.iter().map(|logit| f64::from(logit - largest).exp()).sum();
        let logprob = |logit: f32| ((f64::from(logit - largest) - sum.ln()) as f32).max(LEAST_LOGPROB);
        let mut best: Vec<(u32, f32)> = Vec::new();
        if top > 0 {
            best.extend((0..).zip(logits.iter().copied()));
            keep_best(&mut best, top as usize);
            for (_, value) in &mut best {
                *value = logprob(*value);
            }
        }
        TokenScore { token, logprob: logprob(logits[token as usize]), top: best }
    }
}

/// The `count` best, best first; equal ones by ascending token.
fn keep_best(tokens: &mut Vec<(u32, f32)>, count: usize) {
    let better = |a: &(u32, f32), b: &(u32, f32)| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0));
    if count < tokens.len() {
        tokens.select_nth_unstable_by(count, better);
        tokens.truncate(count);
    }
    tokens.sort_unstable_by(better);
}

/// The fewest best tokens whose weights are at least `top_p` of all.
fn nucleus(tokens: &mut Vec<(u32, f32)>, top_p: f32) {
    let total: f64 = tokens.iter().map(|(_, weight)| f64::from(*weight)).sum();
    // All tokens below this threshold together weigh less than what the nucleus leaves out, so none is in it.
    let threshold = f64::from(1.0 - top_p) * total / tokens.len() as f64;
    tokens.retain(|(_, weight)| f64::from(*weight) >= threshold);
    let count = tokens.len();
    keep_best(tokens, count);
    let (mut sum, mut count) = (0.0, 0);
    while count < tokens.len() && (count == 0 || sum < f64::from(top_p) * total) {
        sum += f64::from(tokens[count].1);
        count += 1;
    }
    tokens.truncate(count);
}

/// A number in [0, 1) for a position: `SplitMix64`, which starts where the seed says.
fn uniform(seed: u64, position: u32) -> f64 {
    let bits = mix(mix(seed).wrapping_add(u64::from(position).wrapping_mul(INCREMENT)));
    (bits >> 11) as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests;
