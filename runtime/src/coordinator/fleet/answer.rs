//! Whether a rank's answer can be the answer to its batch. Pure: a rank that answers what cannot be is lost, and nothing of
//! it is believed.

use std::time::Duration;

use plan::words::counted;

use crate::protocol::{SequenceOutput, SequenceWork, SlotPairs, StepDone, StepTiming, TokenScore};

/// By how much a log-probability may be above 0: the sum of many roundings.
const ROUNDING: f32 = 1e-3;

/// By how much a rank's clock may run ahead within a step.
const CLOCK_SLACK: Duration = Duration::from_secs(1);

/// The most bytes of a number in a message.
const NUMBER: usize = 10;
/// The most bytes of a token and its log-probability in a message.
const PAIR: usize = 5 + 4;

/// What every answer of a group has in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Expected {
    /// Tokens that the model has.
    pub vocabulary: usize,
    /// Experts that each token goes to in each layer.
    pub top_k: usize,
    /// MoE layers.
    pub layers: usize,
    /// Slots of each rank and layer.
    pub slots_per_rank: usize,
}

impl Expected {
    /// The length that the answer to a batch can have, bytes.
    pub fn most_bytes(&self, work: &[SequenceWork]) -> usize {
        let of_sequence = |step: &SequenceWork| {
            let score = 1 + PAIR + NUMBER + (step.top_logprobs as usize).min(self.vocabulary) * PAIR;
            2 * NUMBER + (step.score.len() + 1) * score
        };
        let sequences: usize = work.iter().map(of_sequence).sum();
        9 * NUMBER + sequences + self.layers * self.slots_per_rank * size_of::<u32>()
    }

    /// Why an answer cannot be right, if it cannot. `tokens` is how many all ranks together had; `elapsed` how long ago the
    /// step was sent.
    pub fn wrong(&self, done: &StepDone, work: &[SequenceWork], tokens: usize, elapsed: Duration) -> Option<String> {
        let StepDone { generation: _, number: _, outputs, slot_pairs, timing } = done;
        if outputs.len() != work.len() {
            return Some(format!("{} for a batch of {}", counted(outputs.len(), "sequence"), work.len()));
        }
        if let Some(reason) = work.iter().zip(outputs).find_map(|(step, output)| self.wrong_output(step, output)) {
            return Some(reason);
        }
        self.wrong_pairs(slot_pairs, tokens).or_else(|| wrong_timing(timing, elapsed))
    }

    fn wrong_output(&self, step: &SequenceWork, output: &SequenceOutput) -> Option<String> {
        let SequenceOutput { sequence, token, scores, no_numbers } = output;
        if *sequence != step.sequence {
            return Some(format!("sequence {} in the place of {}", sequence.0, step.sequence.0));
        }
        let is_given = |asked: bool, given: bool| given == asked || (*no_numbers && !given);
        if !is_given(step.sample, token.is_some()) || scores.len() != step.score.len() {
            return Some(format!("other tokens or scores of sequence {} than were asked for", sequence.0));
        }
        let top = (step.top_logprobs as usize).min(self.vocabulary);
        let sampled = token.as_ref().and_then(|score| self.wrong_score(score, top));
        let scored = step.score.iter().zip(scores).find_map(|(wanted, score)| match (wanted, score) {
            (None, None) => None,
            (Some(_), None) if *no_numbers => None,
            (Some(wanted), Some(score)) if score.token == *wanted => self.wrong_score(score, top),
            _ => Some("a score of another token than the one asked for".to_owned()),
        });
        sampled.or(scored).map(|reason| format!("{reason}, sequence {}", sequence.0))
    }

    fn wrong_score(&self, score: &TokenScore, top: usize) -> Option<String> {
        let all = std::iter::once((score.token, score.logprob)).chain(score.top.iter().copied());
        for (token, logprob) in all {
            if token as usize >= self.vocabulary {
                return Some(format!("token {token} of a vocabulary of {}", self.vocabulary));
            }
            // No number is above a certainty, and where logits are no numbers the rank says so.
            if !logprob.is_finite() || logprob > ROUNDING {
                return Some(format!("a log-probability of {logprob}"));
            }
        }
        (score.top.len() != top).then(|| format!("{} best tokens instead of {top}", score.top.len()))
    }

    fn wrong_pairs(&self, pairs: &SlotPairs, tokens: usize) -> Option<String> {
        let (found, slots) = (pairs.slots(), self.layers * self.slots_per_rank);
        if found != slots {
            return Some(format!("pairs of {} instead of {slots}", counted(found, "slot")));
        }
        // A slot computes a token once.
        let most = pairs.most() as usize;
        let words = || format!("{} in a slot of a step of {}", counted(most, "pair"), counted(tokens, "token"));
        (most > tokens).then(words)
    }

    /// Why the answers of all ranks do not fit together, if they do not: every token goes to its experts in every layer.
    pub fn wrong_sum(&self, answers: &[StepDone], tokens: usize) -> Option<String> {
        let expected = (tokens * self.top_k) as u64;
        let mut of_layers = vec![0; self.layers];
        for done in answers {
            done.slot_pairs.add_rows_to(self.slots_per_rank, &mut of_layers);
        }
        let (layer, found) = of_layers.into_iter().enumerate().find(|&(_, found)| found != expected)?;
        let found = counted(found as usize, "pair");
        Some(format!("the ranks together computed {found} in layer {layer} instead of {expected}"))
    }
}

fn wrong_timing(timing: &StepTiming, elapsed: Duration) -> Option<String> {
    let StepTiming { total, commit, exchange, experts } = *timing;
    let longest = (elapsed + CLOCK_SLACK).as_micros();
    let whole = u128::from(total);
    if whole > longest || [commit, exchange, experts].iter().any(|&part| part > total) {
        return Some(format!(
            "{total} us of work, with parts of {commit}, {exchange} and {experts}, after {longest} us"
        ));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{SequenceId, Tokens};

    const EXPECTED: Expected = Expected { vocabulary: 100, top_k: 2, layers: 2, slots_per_rank: 3 };
    const TOKENS: usize = 4;

    fn batch() -> Vec<SequenceWork> {
        let step = |sequence, score, sample| SequenceWork {
            sequence: SequenceId(sequence),
            begins: None,
            position: 0,
            tokens: Tokens::Given(vec![1, 2]),
            blocks: vec![0],
            sample,
            score,
            top_logprobs: 2,
        };
        vec![step(5, vec![Some(2), None], true), step(9, Vec::new(), false)]
    }

    fn score(token: u32) -> TokenScore {
        TokenScore { token, logprob: -0.5, top: vec![(token, -0.5), (3, -2.0)] }
    }

    fn done() -> StepDone {
        let first = SequenceOutput {
            sequence: SequenceId(5),
            token: Some(score(7)),
            scores: vec![Some(score(2)), None],
            no_numbers: false,
        };
        let second = SequenceOutput { sequence: SequenceId(9), token: None, scores: Vec::new(), no_numbers: false };
        let timing = StepTiming { total: 100, commit: 1, exchange: 50, experts: 40 };
        let slot_pairs = SlotPairs::from(&[4, 0, 4, 2, 2, 4][..]);
        StepDone { generation: 1, number: 1, outputs: vec![first, second], slot_pairs, timing }
    }

    fn wrong(change: impl FnOnce(&mut StepDone)) -> String {
        let mut done = done();
        change(&mut done);
        EXPECTED.wrong(&done, &batch(), TOKENS, Duration::ZERO).unwrap_or_default()
    }

    #[test]
    fn an_answer_that_fits_its_batch_is_believed() {
        assert_eq!(wrong(|_| {}), "");
        assert_eq!(EXPECTED.wrong_sum(&[done()], TOKENS), None);
        let bytes = postcard::to_allocvec(&done()).unwrap().len();
        assert!(bytes <= EXPECTED.most_bytes(&batch()));
    }

    #[test]
    fn a_sequence_whose_logits_are_no_numbers_has_neither_token_nor_scores() {
        let reason = wrong(|done| {
            let SequenceOutput { token, scores, no_numbers, .. } = &mut done.outputs[0];
            (*token, scores[0], *no_numbers) = (None, None, true);
        });
        assert_eq!(reason, "");
    }

    #[test]
    fn an_answer_that_cannot_be_is_told_from_one_that_can() {
        let reasons = [
            wrong(|done| done.outputs.truncate(1)),
            wrong(|done| done.outputs.swap(0, 1)),
            wrong(|done| done.outputs[1].sequence = SequenceId(6)),
            wrong(|done| done.outputs[0].token = None),
            wrong(|done| done.outputs[1].token = Some(score(1))),
            wrong(|done| done.outputs[0].scores.truncate(1)),
            wrong(|done| done.outputs[0].scores[0] = None),
            wrong(|done| done.outputs[0].scores[1] = Some(score(1))),
            wrong(|done| done.outputs[0].scores[0] = Some(score(8))),
            wrong(|done| done.outputs[0].token = Some(score(100))),
            wrong(|done| done.outputs[0].token = Some(TokenScore { logprob: 0.5, ..score(7) })),
            wrong(|done| done.outputs[0].token = Some(TokenScore { logprob: f32::NAN, ..score(7) })),
            wrong(|done| {
                done.outputs[0].token = Some(TokenScore { top: vec![(7, 0.0), (u32::MAX, -1.0)], ..score(7) });
            }),
            wrong(|done| done.outputs[0].token = Some(TokenScore { top: vec![(7, 0.0)], ..score(7) })),
            wrong(|done| done.slot_pairs = SlotPairs::from(&[4, 0, 4, 2, 2][..])),
            wrong(|done| done.slot_pairs = SlotPairs::from(&[4, 0, 4, 5, 2, 4][..])),
            wrong(|done| done.timing.total = 10_000_000),
            wrong(|done| done.timing.commit = u32::MAX),
        ];
        insta::assert_yaml_snapshot!(reasons);
    }

    #[test]
    fn every_token_goes_to_its_experts_in_every_layer() {
        let mut other = done();
        other.slot_pairs = SlotPairs::from(&[4, 0, 4, 2, 1, 4][..]);
        let reason = EXPECTED.wrong_sum(&[other], TOKENS).unwrap();
        assert_eq!(reason, "the ranks together computed 7 pairs in layer 1 instead of 8");
    }
}
