//! Which steps are alike for a device: those that generate a token for each of their sequences, by how many those are. So that a few
//! kinds are enough, operations are prepared for more tokens than there are.

use crate::protocol::SequenceStep;

/// The most tokens of steps that are made alike; a larger one takes longer than to ask for its operations.
const MOST: usize = 512;

/// The tokens that a step's operations are prepared for if it is like others, of `most` that a step may have.
pub(super) fn of(batch: &[SequenceStep], most: usize) -> Option<usize> {
    let tokens = batch.len();
    let is_like_others = tokens <= MOST && batch.iter().all(|step| step.tokens.len() == 1);
    is_like_others.then(|| tokens.next_power_of_two().min(most))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{Sampling, SequenceId};

    fn steps(tokens: impl IntoIterator<Item = usize>) -> Vec<SequenceStep> {
        let step = |(index, count)| SequenceStep {
            sequence: SequenceId(index as u64),
            position: 7,
            tokens: vec![0; count],
            blocks: vec![index as u32],
            sample: Some(Sampling::GREEDY),
            score: Vec::new(),
            top_logprobs: 0,
        };
        tokens.into_iter().enumerate().map(step).collect()
    }

    #[test]
    fn steps_that_generate_are_prepared_for_the_next_power_of_two_within_the_limit() {
        let bucket = |count| of(&steps(std::iter::repeat_n(1, count)), 300);
        let found = [0, 1, 2, 3, 5, 64, 65, 255, 257, 300].map(bucket);
        assert_eq!(found, [1, 1, 2, 4, 8, 64, 128, 256, 300, 300].map(Some));
        assert_eq!(of(&steps(std::iter::repeat_n(1, MOST + 1)), 1000), None);
    }

    #[test]
    fn a_step_that_reads_a_prompt_is_like_no_other() {
        assert_eq!(of(&steps([1, 2, 1]), 300), None);
    }
}
