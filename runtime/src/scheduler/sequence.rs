//! A sequence from its submission to its end: what survives being put back.

use std::sync::Arc;

use crate::protocol::{Sampling, SequenceId, SequenceOutput, SequenceStep, TokenScore};

use super::blocks::Blocks;

/// What a request asks of one sequence.
#[derive(Clone, Debug, PartialEq)]
pub struct NewSequence {
    /// The prompt; at least one token.
    pub prompt: Vec<u32>,
    /// Tokens to generate at most; 0 only scores the prompt.
    pub max_tokens: u32,
    /// Tokens that end it.
    pub stop_tokens: Arc<[u32]>,
    /// How to choose tokens.
    pub sampling: Sampling,
    /// Whether to score every token of the prompt but the first.
    pub score_prompt: bool,
    /// Best tokens to report beside each score.
    pub top_logprobs: u32,
}

impl NewSequence {
    /// Tokens that it can grow to.
    #[must_use]
    pub fn tokens_at_most(&self) -> usize {
        self.prompt.len() + self.max_tokens as usize
    }
}

/// Why a sequence ended by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// It gave one of its stop tokens.
    Stop,
    /// It gave as many tokens as it may.
    Length,
}

/// What a step gave for one sequence.
#[derive(Clone, Debug, PartialEq)]
pub struct Output {
    /// The sequence.
    pub sequence: SequenceId,
    /// Scores of further tokens of the prompt, in order.
    pub prompt_scores: Vec<TokenScore>,
    /// The next token.
    pub token: Option<TokenScore>,
    /// Whether it ended with this.
    pub finish: Option<Finish>,
}

/// A sequence that has not ended.
#[derive(Debug)]
pub(super) struct Sequence {
    request: NewSequence,
    /// The prompt and every token given so far: a sequence that was put back computes all of them again and gives
    /// none of them again.
    tokens: Vec<u32>,
    /// Tokens of the prompt that have been scored, the first counted as one.
    scored: usize,
}

impl Sequence {
    pub(super) fn new(request: NewSequence) -> Self {
        Self { tokens: request.prompt.clone(), request, scored: 1 }
    }

    pub(super) fn tokens(&self) -> usize {
        self.tokens.len()
    }

    pub(super) fn tokens_at_most(&self) -> usize {
        self.request.tokens_at_most()
    }

    fn generated(&self) -> usize {
        self.tokens.len() - self.request.prompt.len()
    }
}

/// A sequence that a rank holds KV blocks for.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) sequence: Sequence,
    pub(super) blocks: Blocks,
    /// Tokens whose KV is in the blocks.
    computed: usize,
    /// Tokens of the step that is under way.
    in_step: usize,
}

impl Running {
    pub(super) const fn new(sequence: Sequence, blocks: Blocks) -> Self {
        Self { sequence, blocks, computed: 0, in_step: 0 }
    }

    /// Tokens whose KV is still to be computed; at least 1 between steps.
    pub(super) fn pending(&self) -> usize {
        self.sequence.tokens() - self.computed
    }

    /// The next `count` tokens as work of a step; the blocks must reach that far.
    pub(super) fn work(&mut self, id: SequenceId, count: usize) -> SequenceStep {
        self.in_step = count;
        let sequence = &self.sequence;
        let request = &sequence.request;
        let end = self.computed + count;
        let at_end = end == sequence.tokens();
        let samples = at_end && sequence.generated() < request.max_tokens as usize;
        SequenceStep {
            sequence: id,
            position: self.computed as u32,
            tokens: sequence.tokens[self.computed..end].to_vec(),
            blocks: self.blocks.of(end).to_vec(),
            sample: samples.then_some(request.sampling),
            score: self.wanted_scores(end),
            top_logprobs: request.top_logprobs,
        }
    }

    fn wanted_scores(&self, end: usize) -> Vec<Option<u32>> {
        let Sequence { request, tokens, scored } = &self.sequence;
        let wanted = |next: usize| request.score_prompt && next >= *scored && next < request.prompt.len();
        if !(self.computed + 1..=end).any(wanted) {
            return Vec::new();
        }
        (self.computed + 1..=end).map(|next| wanted(next).then(|| tokens[next])).collect()
    }

    /// Takes in what the step gave.
    pub(super) fn take(&mut self, output: SequenceOutput) -> Output {
        self.computed += std::mem::take(&mut self.in_step);
        let SequenceOutput { sequence: id, token, scores } = output;
        let prompt_scores: Vec<TokenScore> = scores.into_iter().flatten().collect();
        let sequence = &mut self.sequence;
        sequence.scored += prompt_scores.len();
        if let Some(token) = &token {
            sequence.tokens.push(token.token);
        }
        let stopped = token.as_ref().is_some_and(|token| sequence.request.stop_tokens.contains(&token.token));
        // With no token to give at all, the end of the prompt is the end.
        let complete = sequence.generated() >= sequence.request.max_tokens as usize
            && (token.is_some() || self.computed == sequence.tokens.len());
        let finish = if stopped { Some(Finish::Stop) } else { complete.then_some(Finish::Length) };
        Output { sequence: id, prompt_scores, token, finish }
    }
}
