//! A sequence from its submission to its end: what survives being put back.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::protocol::{Sampling, SequenceId, SequenceOutput, SequenceWork, TokenScore, Tokens};

use super::blocks::Blocks;

/// What a request asks of one sequence.
#[derive(Clone, Debug, PartialEq)]
pub struct NewSequence {
    /// The prompt, at least one token; shared by the choices of one prompt.
    pub prompt: Arc<[u32]>,
    /// How many tokens it may give.
    pub length: Length,
    /// Tokens that end it.
    pub stop_tokens: Arc<[u32]>,
    /// How to choose tokens.
    pub sampling: Sampling,
    /// Whether to score every token of the prompt but the first.
    pub score_prompt: bool,
    /// Best tokens to report beside each score.
    pub top_logprobs: u32,
}

/// How many tokens a sequence may give.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    /// As many as were asked for; 0 only scores the prompt. What could outgrow the caches is refused.
    Asked(u32),
    /// As many as the caches leave room for, and at most so many; at least one.
    Open(u32),
}

impl Length {
    /// Tokens at most.
    #[must_use]
    pub const fn most(self) -> usize {
        let (Self::Asked(most) | Self::Open(most)) = self;
        most as usize
    }
}

impl NewSequence {
    /// Whether computing it gives anything: a token, or a score of its prompt.
    #[must_use]
    pub fn gives_something(&self) -> bool {
        self.length.most() > 0 || self.score_prompt && self.prompt.len() > 1
    }

    /// Tokens of prompt and answer for which it needs room whatever the caches hold.
    #[must_use]
    pub fn least_room(&self) -> usize {
        self.prompt.len()
            + match self.length {
                Length::Asked(tokens) => tokens as usize,
                Length::Open(_) => 1,
            }
    }

    /// Tokens that it may give where a sequence has `room` for tokens of prompt and answer.
    fn tokens_in(&self, room: usize) -> usize {
        match self.length {
            Length::Asked(tokens) => tokens as usize,
            Length::Open(most) => room.saturating_sub(self.prompt.len()).min(most as usize),
        }
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
    /// The model gave results that are no numbers: it has ended, and nothing was given.
    pub no_numbers: bool,
}

/// A sequence that has not ended.
#[derive(Debug)]
pub(super) struct Sequence {
    request: NewSequence,
    /// Tokens that it may give in the group that it is in.
    most: usize,
    /// Tokens given so far: a sequence that was put back computes them again behind its prompt and gives none of them
    /// again.
    given: Vec<u32>,
    /// Tokens of the prompt that have been scored, the first counted as one.
    scored: usize,
    pub(super) losses: Losses,
}

/// Lost groups that a sequence was computed in when they were lost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Losses {
    /// Groups that were lost since it last gave a token.
    pub in_a_row: u32,
    /// Groups that were lost since it began.
    pub in_all: u32,
}

impl Sequence {
    /// A sequence where there is `room` for so many tokens of prompt and answer.
    pub(super) fn new(request: NewSequence, room: usize) -> Self {
        let most = request.tokens_in(room);
        Self { given: Vec::new(), request, most, scored: 1, losses: Losses::default() }
    }

    /// Tokens that are known of it: its prompt and what it has given.
    pub(super) fn tokens(&self) -> usize {
        self.request.prompt.len() + self.given.len()
    }

    /// Whether it can go on where there is `room` for so many tokens of prompt and answer; adapts an open length to it.
    pub(super) fn fit(&mut self, room: usize) -> bool {
        self.most = self.request.tokens_in(room);
        match self.request.length {
            Length::Asked(_) => self.request.least_room() <= room,
            Length::Open(_) => self.given.len() < self.most,
        }
    }

    /// Tokens whose KV is needed at most: the last token that it gives is not computed.
    fn last(&self) -> usize {
        self.request.prompt.len() + self.most.saturating_sub(1)
    }

    fn token(&self, position: usize) -> u32 {
        let prompt = &self.request.prompt;
        prompt.get(position).copied().unwrap_or_else(|| self.given[position - prompt.len()])
    }
}

/// A sequence that a rank holds KV blocks for.
///
/// Steps may be under way whose tokens nobody knows yet: what they compute counts as computed, since the rank runs them before
/// any that follows, and the token that they choose as one that is there.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) sequence: Sequence,
    pub(super) blocks: Blocks,
    /// The first step that its rank computes it in.
    first_step: u64,
    /// Tokens whose KV is in the blocks when all steps under way are done.
    computed: usize,
    /// Blocks that its rank was told of; none before it has begun there.
    told: usize,
    /// Whether each step that is under way with it chooses a token, the oldest first.
    under_way: VecDeque<bool>,
    /// Its last step chose a token, which its rank goes on with.
    chose: bool,
}

impl Running {
    /// One that begins in a step.
    pub(super) const fn new(sequence: Sequence, blocks: Blocks, first_step: u64) -> Self {
        Self { sequence, blocks, first_step, computed: 0, told: 0, under_way: VecDeque::new(), chose: false }
    }

    /// Whether its rank has been told of it.
    pub(super) const fn has_begun(&self) -> bool {
        self.told > 0
    }

    /// Tokens that are there when all steps under way are done.
    fn tokens(&self) -> usize {
        self.sequence.tokens() + self.under_way.iter().filter(|chooses| **chooses).count()
    }

    /// Tokens whose KV is still to be computed: none while a step that is under way may be its last.
    pub(super) fn pending(&self) -> usize {
        self.tokens().min(self.sequence.last()) - self.computed
    }

    /// Takes what is missing of blocks to compute all that is pending; false if there are too few.
    pub(super) fn reach(&mut self) -> bool {
        self.blocks.reach(self.computed + self.pending())
    }

    /// The next `count` tokens as work of a step; the blocks must reach that far.
    pub(super) fn work(&mut self, id: SequenceId, count: usize) -> SequenceWork {
        let end = self.computed + count;
        let samples = end == self.tokens() && self.tokens() - self.sequence.request.prompt.len() < self.sequence.most;
        let tokens = if self.chose {
            Tokens::Chosen
        } else {
            Tokens::Given((self.computed..end).map(|position| self.sequence.token(position)).collect())
        };
        let blocks = self.blocks.of(end);
        let work = SequenceWork {
            sequence: id,
            begins: (!self.has_begun()).then_some(self.sequence.request.sampling),
            position: self.computed as u32,
            tokens,
            blocks: blocks[self.told..].to_vec(),
            sample: samples,
            score: self.wanted_scores(end),
            top_logprobs: self.sequence.request.top_logprobs,
        };
        self.told = blocks.len();
        self.computed = end;
        self.chose = samples;
        self.under_way.push_back(samples);
        work
    }

    fn wanted_scores(&self, end: usize) -> Vec<Option<u32>> {
        let Sequence { request, scored, .. } = &self.sequence;
        let wanted = |next: usize| request.score_prompt && next >= *scored && next < request.prompt.len();
        if !(self.computed + 1..=end).any(wanted) {
            return Vec::new();
        }
        (self.computed + 1..=end).map(|next| wanted(next).then(|| request.prompt[next])).collect()
    }

    /// The sequence as it waits again when its ranks are gone, perhaps in the middle of a step.
    pub(super) fn put_back(self) -> Sequence {
        let mut sequence = self.sequence;
        if !self.under_way.is_empty() {
            sequence.losses.in_a_row += 1;
            sequence.losses.in_all += 1;
        }
        sequence
    }

    /// Takes in what the oldest step under way gave; `None` if it is of a step before this one began.
    pub(super) fn take(&mut self, step: u64, output: SequenceOutput) -> Option<Output> {
        if step < self.first_step {
            return None;
        }
        self.under_way.pop_front();
        let SequenceOutput { sequence: id, token, scores, no_numbers } = output;
        let prompt_scores: Vec<TokenScore> = scores.into_iter().flatten().collect();
        let is_number =
            |score: &TokenScore| score.logprob.is_finite() && score.top.iter().all(|(_, logprob)| logprob.is_finite());
        if no_numbers || !prompt_scores.iter().chain(&token).all(is_number) {
            let (prompt_scores, token) = (Vec::new(), None);
            return Some(Output { sequence: id, prompt_scores, token, finish: None, no_numbers: true });
        }
        let sequence = &mut self.sequence;
        sequence.scored += prompt_scores.len();
        if token.is_some() || !prompt_scores.is_empty() {
            sequence.losses.in_a_row = 0;
        }
        if let Some(token) = &token {
            sequence.given.push(token.token);
        }
        let stopped = token.as_ref().is_some_and(|token| sequence.request.stop_tokens.contains(&token.token));
        // With no token to give at all, the end of the prompt is the end.
        let at_end = self.under_way.is_empty() && self.computed == sequence.tokens();
        let complete = sequence.given.len() >= sequence.most && (token.is_some() || at_end);
        let finish = if stopped { Some(Finish::Stop) } else { complete.then_some(Finish::Length) };
        Some(Output { sequence: id, prompt_scores, token, finish, no_numbers: false })
    }
}
