//! What is said of sequences from step to step, and what it comes to. A rank keeps what it was told of each of its sequences, so
//! a step carries only what is new: a token that the rank has chosen itself is not sent back to it, and blocks and settings
//! are sent once.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::{Sampling, SequenceId, SequenceOutput};

/// What a step says of a rank's sequences.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Batch {
    /// Sequences that are forgotten before anything else: they have ended, or run elsewhere.
    pub ended: Vec<SequenceId>,
    /// What is computed.
    pub work: Vec<SequenceWork>,
}

impl Batch {
    /// Tokens whose KV the step computes.
    #[must_use]
    pub fn tokens(&self) -> usize {
        self.work.iter().map(|work| work.tokens.count()).sum()
    }
}

/// How much a step is on the rank where it is most, which all ranks know: those that exchange frames of one size agree on it by this.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepExtent {
    /// Tokens of the rank with the most.
    pub tokens: u32,
    /// Tokens of the sequence with the most.
    pub tokens_of_sequence: u32,
}

impl StepExtent {
    /// Of one rank, whose sequences have so many tokens each.
    #[must_use]
    pub fn of_rank(sequences: impl IntoIterator<Item = usize>) -> Self {
        sequences.into_iter().fold(Self::default(), |Self { tokens, tokens_of_sequence }, count| {
            let count = u32::try_from(count).unwrap_or(u32::MAX);
            Self { tokens: tokens.saturating_add(count), tokens_of_sequence: tokens_of_sequence.max(count) }
        })
    }

    /// Of all ranks.
    #[must_use]
    pub fn of_ranks<'a>(batches: impl IntoIterator<Item = &'a Batch>) -> Self {
        let counts = |batch: &Batch| Self::of_rank(batch.work.iter().map(|work| work.tokens.count()));
        batches.into_iter().map(counts).fold(Self::default(), Self::or)
    }

    /// The most of both.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            tokens: self.tokens.max(other.tokens),
            tokens_of_sequence: self.tokens_of_sequence.max(other.tokens_of_sequence),
        }
    }
}

/// What one step does to one sequence, as far as its rank does not know it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SequenceWork {
    /// The sequence.
    pub sequence: SequenceId,
    /// It begins on this rank, and its tokens are chosen so; whatever the rank knew of it is forgotten.
    pub begins: Option<Sampling>,
    /// Position of the first of `tokens`: behind what the rank has computed of it.
    pub position: u32,
    /// Tokens whose KV this step computes.
    pub tokens: Tokens,
    /// KV blocks behind those that it has: together they hold every position to the last token.
    pub blocks: Vec<u32>,
    /// Whether to sample the token after the last of `tokens`; not while a prompt is not at its end.
    pub sample: bool,
    /// For each of `tokens` the token that follows it, if its log-probability is wanted; empty if none is.
    pub score: Vec<Option<u32>>,
    /// How many best tokens to report beside each score and sample; 0 for none.
    pub top_logprobs: u32,
}

/// Tokens that are computed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Tokens {
    /// The one that the rank chose in the sequence's last step.
    Chosen,
    /// These, in order; never none.
    Given(Vec<u32>),
}

impl Tokens {
    /// How many.
    #[must_use]
    pub const fn count(&self) -> usize {
        match self {
            Self::Chosen => 1,
            Self::Given(tokens) => tokens.len(),
        }
    }
}

/// What one step does to one sequence, as it is computed.
#[derive(Clone, Debug, PartialEq)]
pub struct SequenceStep {
    /// The sequence.
    pub sequence: SequenceId,
    /// Position of the first of `tokens`.
    pub position: u32,
    /// Tokens whose KV this step computes, in order; never empty.
    pub tokens: Vec<u32>,
    /// KV blocks of the sequence from position 0 to the last token, in order.
    pub blocks: Vec<u32>,
    /// Sample the token after the last of `tokens`. `None` while a prompt is not at its end.
    pub sample: Option<Sampling>,
    /// Score given tokens: one entry for each of `tokens`, the token that follows it, if its log-probability is wanted.
    /// Empty if none is.
    pub score: Vec<Option<u32>>,
    /// How many best tokens to report beside each score and sample; 0 for none.
    pub top_logprobs: u32,
}

/// What a rank knows of its sequences.
#[derive(Debug, Default)]
pub struct Sequences(BTreeMap<SequenceId, Known>);

#[derive(Debug)]
struct Known {
    sampling: Sampling,
    /// In the step that is computed while it is.
    blocks: Vec<u32>,
    /// Tokens whose KV has been computed.
    computed: u32,
    /// What was chosen in its last step.
    chosen: Option<u32>,
    in_step: bool,
}

/// A step says of a sequence what its rank cannot understand: coordinator and rank have lost each other's track.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum NotKnown {
    /// It has not begun here, or has ended.
    #[error("a step goes on with sequence {}, which this rank does not know", sequence.0)]
    Sequence {
        /// The sequence.
        sequence: SequenceId,
    },
    /// A step names a sequence twice.
    #[error("a step computes sequence {} twice", sequence.0)]
    Twice {
        /// The sequence.
        sequence: SequenceId,
    },
    /// It goes on elsewhere than where it is.
    #[error("a step goes on with sequence {} at position {position}, it is at {computed}", sequence.0)]
    Position {
        /// The sequence.
        sequence: SequenceId,
        /// Where the step goes on.
        position: u32,
        /// Where the sequence is.
        computed: u32,
    },
    /// There is no token to go on with.
    #[error("a step goes on with sequence {} from no token", sequence.0)]
    NoToken {
        /// The sequence.
        sequence: SequenceId,
    },
}

impl Sequences {
    /// Sequences that are known.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// What a batch comes to. [`Self::computed`] has to follow before the next.
    ///
    /// # Errors
    /// If it does not fit what is known; nothing of it is to be computed then, nor anything after it.
    pub fn next(&mut self, batch: Batch) -> Result<Vec<SequenceStep>, NotKnown> {
        let Batch { ended, work } = batch;
        for sequence in ended {
            self.0.remove(&sequence).ok_or(NotKnown::Sequence { sequence })?;
        }
        work.into_iter().map(|work| self.go_on(work)).collect()
    }

    fn go_on(&mut self, work: SequenceWork) -> Result<SequenceStep, NotKnown> {
        let SequenceWork { sequence, begins, position, tokens, blocks, sample, score, top_logprobs } = work;
        if let Some(sampling) = begins {
            let known = Known { sampling, blocks: Vec::new(), computed: 0, chosen: None, in_step: false };
            if self.0.insert(sequence, known).is_some_and(|before| before.in_step) {
                return Err(NotKnown::Twice { sequence });
            }
        }
        let known = self.0.get_mut(&sequence).ok_or(NotKnown::Sequence { sequence })?;
        if std::mem::replace(&mut known.in_step, true) {
            return Err(NotKnown::Twice { sequence });
        }
        let computed = known.computed;
        if position != computed {
            return Err(NotKnown::Position { sequence, position, computed });
        }
        let tokens = match (tokens, known.chosen.take()) {
            (Tokens::Given(tokens), _) if !tokens.is_empty() => tokens,
            (Tokens::Chosen, Some(chosen)) => vec![chosen],
            _ => return Err(NotKnown::NoToken { sequence }),
        };
        let mut all = std::mem::take(&mut known.blocks);
        all.extend(blocks);
        let sample = sample.then_some(known.sampling);
        Ok(SequenceStep { sequence, position, tokens, blocks: all, sample, score, top_logprobs })
    }

    /// Takes note of what [`Self::next`] has come to, with what it gave, in its order.
    pub fn computed(&mut self, steps: Vec<SequenceStep>, outputs: &[SequenceOutput]) {
        for (step, output) in steps.into_iter().zip(outputs) {
            if let Some(known) = self.0.get_mut(&step.sequence) {
                known.computed = step.position + step.tokens.len() as u32;
                // One without numbers has ended, though the next step may be on its way: any token will do for that.
                known.chosen = output.token.as_ref().map(|token| token.token).or(output.no_numbers.then_some(0));
                known.blocks = step.blocks;
                known.in_step = false;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::TokenScore;

    const SAMPLING: Sampling = Sampling { temperature: 0.5, top_p: 0.9, top_k: 3, seed: 7, logprob: false };

    fn begins(sequence: u64, tokens: &[u32], blocks: &[u32]) -> SequenceWork {
        SequenceWork {
            sequence: SequenceId(sequence),
            begins: Some(SAMPLING),
            position: 0,
            tokens: Tokens::Given(tokens.to_vec()),
            blocks: blocks.to_vec(),
            sample: true,
            score: Vec::new(),
            top_logprobs: 2,
        }
    }

    fn goes_on(sequence: u64, position: u32, blocks: &[u32]) -> SequenceWork {
        SequenceWork { begins: None, position, tokens: Tokens::Chosen, ..begins(sequence, &[], blocks) }
    }

    fn chose(sequence: u64, token: Option<u32>) -> SequenceOutput {
        SequenceOutput {
            sequence: SequenceId(sequence),
            token: token.map(|token| TokenScore { token, logprob: 0.0, top: Vec::new() }),
            scores: Vec::new(),
            no_numbers: false,
        }
    }

    fn of(work: &[SequenceWork]) -> Batch {
        Batch { ended: Vec::new(), work: work.to_vec() }
    }

    /// Sequence 1 of two tokens in block 5, after which token 9 was chosen.
    fn known() -> Sequences {
        let mut known = Sequences::default();
        let steps = known.next(of(&[begins(1, &[3, 4], &[5])])).unwrap();
        known.computed(steps, &[chose(1, Some(9))]);
        known
    }

    #[test]
    fn what_was_told_once_is_there_in_every_step() {
        let mut known = known();
        let step = |position, tokens: &[u32], blocks: &[u32]| SequenceStep {
            sequence: SequenceId(1),
            position,
            tokens: tokens.to_vec(),
            blocks: blocks.to_vec(),
            sample: Some(SAMPLING),
            score: Vec::new(),
            top_logprobs: 2,
        };
        let steps = known.next(of(&[goes_on(1, 2, &[])])).unwrap();
        assert_eq!(steps, [step(2, &[9], &[5])]);
        known.computed(steps, &[chose(1, Some(8))]);
        let steps = known.next(of(&[goes_on(1, 3, &[7, 6])])).unwrap();
        assert_eq!(steps, [step(3, &[8], &[5, 7, 6])]);
        known.computed(steps, &[chose(1, None)]);
        let given = SequenceWork { tokens: Tokens::Given(vec![1, 2]), ..goes_on(1, 4, &[]) };
        assert_eq!(known.next(of(&[given])).unwrap(), [step(4, &[1, 2], &[5, 7, 6])]);
    }

    #[test]
    fn a_sequence_that_begins_again_or_has_ended_leaves_nothing_behind() {
        let mut known = known();
        let steps = known.next(of(&[begins(1, &[3], &[2])])).unwrap();
        assert_eq!((steps[0].position, &steps[0].blocks[..]), (0, &[2][..]));
        known.computed(steps, &[chose(1, Some(9))]);
        let again = Batch { ended: vec![SequenceId(1)], work: vec![begins(1, &[4, 5], &[1])] };
        let steps = known.next(again).unwrap();
        assert_eq!((&steps[0].tokens[..], &steps[0].blocks[..]), (&[4, 5][..], &[1][..]));
        known.computed(steps, &[chose(1, Some(9))]);
        let ended = Batch { ended: vec![SequenceId(1)], work: Vec::new() };
        assert_eq!(known.next(ended), Ok(Vec::new()));
        assert_eq!(known.count(), 0);
    }

    #[test]
    fn a_sequence_without_numbers_may_be_in_the_step_that_was_on_its_way() {
        let mut known = known();
        let steps = known.next(of(&[goes_on(1, 2, &[])])).unwrap();
        known.computed(steps, &[SequenceOutput { no_numbers: true, ..chose(1, None) }]);
        assert_eq!(known.next(of(&[goes_on(1, 3, &[])])).unwrap()[0].tokens, [0]);
    }

    #[test]
    fn what_does_not_fit_what_is_known_is_refused() {
        let sequence = SequenceId(1);
        let refused = |batch| known().next(batch).unwrap_err();
        let other = SequenceId(2);
        assert_eq!(refused(of(&[goes_on(2, 0, &[])])), NotKnown::Sequence { sequence: other });
        let ended = Batch { ended: vec![other], work: Vec::new() };
        assert_eq!(refused(ended), NotKnown::Sequence { sequence: other });
        let ended = Batch { ended: vec![sequence], work: vec![goes_on(1, 2, &[])] };
        assert_eq!(refused(ended), NotKnown::Sequence { sequence });
        let twice = of(&[goes_on(1, 2, &[]), goes_on(1, 3, &[])]);
        assert_eq!(refused(twice), NotKnown::Twice { sequence });
        assert_eq!(refused(of(&[goes_on(1, 2, &[]), begins(1, &[3], &[])])), NotKnown::Twice { sequence });
        for position in [0, 1, 3, u32::MAX] {
            let expected = NotKnown::Position { sequence, position, computed: 2 };
            assert_eq!(refused(of(&[goes_on(1, position, &[])])), expected);
        }
        let nothing = SequenceWork { tokens: Tokens::Given(Vec::new()), ..goes_on(1, 2, &[]) };
        assert_eq!(refused(of(&[nothing])), NotKnown::NoToken { sequence });
        let chosen = SequenceWork { tokens: Tokens::Chosen, ..begins(2, &[], &[1]) };
        assert_eq!(refused(of(&[chosen])), NotKnown::NoToken { sequence: other });
    }
}
