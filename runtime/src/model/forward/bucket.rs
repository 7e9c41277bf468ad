//! Which steps are alike for a device: those that generate a token for each of their sequences, by how many those are. So that a few
//! kinds are enough, operations are prepared for more tokens than there are.

use crate::protocol::StepExtent;

/// The most tokens of steps that are made alike; a larger one takes longer than to ask for its operations.
const MOST: usize = 512;

/// The tokens that a step's operations are prepared for if it is like others, of `most` that a step may have.
pub(super) fn of(StepExtent { tokens, tokens_of_sequence }: StepExtent, most: usize) -> Option<usize> {
    let tokens = tokens as usize;
    let is_like_others = tokens <= MOST && tokens_of_sequence <= 1;
    is_like_others.then(|| padded(tokens, most))
}

/// Tokens that there is room for where so many are to have it, of `most` that a step may have: few numbers for all steps.
pub(super) fn padded(tokens: usize, most: usize) -> usize {
    tokens.next_power_of_two().min(most)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extent(tokens: impl IntoIterator<Item = usize>) -> StepExtent {
        StepExtent::of_rank(tokens)
    }

    #[test]
    fn steps_that_generate_are_prepared_for_the_next_power_of_two_within_the_limit() {
        let bucket = |count| of(extent(std::iter::repeat_n(1, count)), 300);
        let found = [0, 1, 2, 3, 5, 64, 65, 255, 257, 300].map(bucket);
        assert_eq!(found, [1, 1, 2, 4, 8, 64, 128, 256, 300, 300].map(Some));
        assert_eq!(of(extent(std::iter::repeat_n(1, MOST + 1)), 1000), None);
    }

    #[test]
    fn a_step_that_reads_a_prompt_is_like_no_other_and_has_room_for_few_numbers_of_tokens() {
        let step = extent([1, 2, 1]);
        assert_eq!(of(step, 300), None);
        assert_eq!(padded(step.tokens as usize, 300), 4);
        assert_eq!(padded(299, 300), 300);
    }
}
