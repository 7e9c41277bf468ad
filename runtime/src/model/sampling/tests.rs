use super::*;
use crate::protocol::SequenceId;

fn sampling(temperature: f32, top_p: f32, top_k: u32, seed: u64) -> Sampling {
    Sampling { temperature, top_p, top_k, seed, logprob: true }
}

fn row(logits: &[f32]) -> Row<'_> {
    Row::of(logits).unwrap()
}

/// Whatever else is asked for, without temperature.
fn greedy(logits: &[f32]) -> u32 {
    row(logits).choose(&sampling(0.0, 0.1, 1, 5), 0, &mut Vec::new())
}

/// How often each token is chosen over many positions.
fn histogram(logits: &[f32], sampling: &Sampling) -> Vec<f64> {
    const DRAWS: u32 = 20_000;
    let mut counts = vec![0.0; logits.len()];
    for position in 0..DRAWS {
        counts[row(logits).choose(sampling, position, &mut Vec::new()) as usize] += 1.0 / f64::from(DRAWS);
    }
    counts
}

fn close(found: &[f64], expected: &[f64]) {
    let worst = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    assert!(worst < 0.015, "{found:?} instead of {expected:?}");
}

/// Logits with the probabilities 0.5, 0.25, 0.15, 0.1.
fn logits() -> Vec<f32> {
    [0.15_f32, 0.5, 0.1, 0.25].iter().map(|p| p.ln() + 3.0).collect()
}

#[test]
fn greedy_takes_the_best_token_and_the_lowest_of_equal_ones() {
    for len in [1, 15, 16, 17, 50] {
        let mut logits = vec![-1.0; len];
        assert_eq!(greedy(&logits), 0);
        logits[len - 1] = 2.0;
        assert_eq!(greedy(&logits), len as u32 - 1);
        logits[len / 2] = 2.0;
        assert_eq!(greedy(&logits), len as u32 / 2);
    }
}

#[test]
fn tokens_are_chosen_as_often_as_temperature_says() {
    close(&histogram(&logits(), &sampling(1.0, 1.0, 0, 1)), &[0.15, 0.5, 0.1, 0.25]);
    let hot: Vec<f64> = [0.15_f64, 0.5, 0.1, 0.25].iter().map(|p| p.sqrt()).collect();
    let sum: f64 = hot.iter().sum();
    close(&histogram(&logits(), &sampling(2.0, 1.0, 0, 2)), &hot.iter().map(|p| p / sum).collect::<Vec<_>>());
}

#[test]
fn top_k_and_top_p_leave_only_the_best_tokens_in_their_proportions() {
    close(&histogram(&logits(), &sampling(1.0, 1.0, 2, 3)), &[0.0, 2.0 / 3.0, 0.0, 1.0 / 3.0]);
    // 0.5 + 0.25 < 0.8 <= 0.5 + 0.25 + 0.15
    close(&histogram(&logits(), &sampling(1.0, 0.8, 0, 4)), &[0.15 / 0.9, 0.5 / 0.9, 0.0, 0.25 / 0.9]);
    // Of the two that top_k leaves, the best alone has 2/3.
    close(&histogram(&logits(), &sampling(1.0, 0.6, 2, 5)), &[0.0, 1.0, 0.0, 0.0]);
    close(&histogram(&logits(), &sampling(1.0, 1e-6, 0, 6)), &[0.0, 1.0, 0.0, 0.0]);
}

#[test]
fn settings_that_leave_every_token_choose_as_if_they_were_not_given() {
    let logits = logits();
    let run = |top_p, top_k| -> Vec<u32> {
        (0..50).map(|at| row(&logits).choose(&sampling(1.0, top_p, top_k, 7), at, &mut Vec::new())).collect()
    };
    for top_k in [4, 5, u32::MAX] {
        assert_eq!(run(1.0, top_k), run(1.0, 0), "top_k {top_k}");
    }
}

#[test]
fn equal_seeds_and_positions_choose_the_equal_token_and_others_do_not() {
    let logits = vec![0.0; 1000];
    let run = |seed| (0..20).map(|at| row(&logits).choose(&sampling(1.0, 1.0, 0, seed), at, &mut Vec::new())).collect();
    let (a, b, c): (Vec<u32>, Vec<u32>, Vec<u32>) = (run(7), run(7), run(8));
    assert_eq!(a, b);
    let same = a.iter().zip(&c).filter(|(a, c)| a == c).count();
    assert!(same < 3, "{same} of 20 tokens are the same under another seed");
}

#[test]
fn scores_are_log_probabilities_of_the_unmodified_logits_best_first() {
    let logits = logits();
    let score = row(&logits).score(2, 3);
    assert!((score.logprob - 0.1_f32.ln()).abs() < 1e-6);
    assert_eq!(score.top.iter().map(|(token, _)| *token).collect::<Vec<_>>(), [1, 3, 0]);
    assert!((score.top[1].1 - 0.25_f32.ln()).abs() < 1e-6);
    assert_eq!(row(&[1.0; 4]).score(0, 2).top.iter().map(|(token, _)| *token).collect::<Vec<_>>(), [0, 1]);
}

#[test]
fn logits_that_are_no_numbers_choose_and_score_nothing_and_leave_the_others_alone() {
    for wrong in [f32::NAN, -f32::NAN, f32::INFINITY] {
        for place in [0, 5, 16, 36] {
            let mut logits = vec![0.5; 37];
            assert!(Row::of(&logits).is_some());
            logits[place] = wrong;
            assert!(Row::of(&logits).is_none(), "{wrong} at {place}");
        }
    }
    assert!(Row::of(&[f32::NEG_INFINITY; 37]).is_none());
    let batch = [step(1, 1, true, vec![Some(1)]), step(2, 1, true, vec![Some(1)])];
    let mut outputs = Outputs::new(&batch);
    outputs.take(&[0.0, f32::NAN]);
    outputs.take(&[0.0, 1.0]);
    let outputs = outputs.finish();
    assert_eq!((outputs[0].no_numbers, outputs[1].no_numbers), (true, false));
    assert_eq!((&outputs[0].token, &outputs[0].scores[0]), (&None, &None));
    assert_eq!(outputs[1].token.as_ref().map(|token| token.token), Some(1));
}

#[test]
fn a_token_that_cannot_come_has_a_logprob_that_is_a_number() {
    let mut logits = logits();
    logits[1] = f32::NEG_INFINITY;
    assert!(Row::of(&logits).is_some());
    let score = row(&logits).score(1, 4);
    let is_least = |logprob: f32| logprob.to_bits() == LEAST_LOGPROB.to_bits();
    assert!(is_least(score.logprob));
    assert!(score.top[3].0 == 1 && is_least(score.top[3].1));
    assert!(is_least(row(&[0.0, f32::MAX]).score(0, 0).logprob));
    let chosen = row(&[f32::NEG_INFINITY, f32::MIN]).choose(&sampling(1.0, 1.0, 0, 0), 0, &mut Vec::new());
    assert_eq!(chosen, 1);
}

fn step(sequence: u64, tokens: usize, sample: bool, score: Vec<Option<u32>>) -> SequenceStep {
    SequenceStep {
        sequence: SequenceId(sequence),
        position: 10,
        tokens: vec![0; tokens],
        blocks: vec![0],
        sample: sample.then(|| sampling(0.0, 1.0, 0, 0)),
        score,
        top_logprobs: 0,
    }
}

#[test]
fn rows_of_logits_go_to_the_tokens_that_want_them() {
    let batch = [
        step(1, 3, false, vec![]),
        step(2, 3, true, vec![None, Some(1), Some(0)]),
        step(3, 1, true, vec![]),
        step(4, 2, false, vec![Some(2), None]),
    ];
    let wanted: Vec<(usize, usize)> = (0..4)
        .flat_map(|sequence| (0..batch[sequence].tokens.len()).map(move |token| (sequence, token)))
        .filter(|&(sequence, token)| wants(&batch[sequence], token))
        .collect();
    assert_eq!(wanted, [(1, 1), (1, 2), (2, 0), (3, 0)]);
    let mut outputs = Outputs::new(&batch);
    for best in 0..wanted.len() {
        let mut logits = vec![0.0; 4];
        logits[best] = 50.0;
        outputs.take(&logits);
    }
    let outputs = outputs.finish();
    let token = |index: usize| outputs[index].token.as_ref().map(|score| score.token);
    assert_eq!((token(0), token(1), token(2), token(3)), (None, Some(1), Some(2), None));
    let scored = |index: usize| -> Vec<Option<bool>> {
        outputs[index].scores.iter().map(|score| score.as_ref().map(|score| score.logprob > -1.0)).collect()
    };
    assert_eq!(scored(1), [None, Some(false), Some(false)]);
    assert_eq!(scored(3), [Some(false), None]);
    assert_eq!(outputs[0].scores.len(), 0);
}
