use kernels::StepArea;
use kernels::backend::Backend;
use kernels::batch::StepLimits;
use kernels::cpu::Cpu;
use kernels::queue::Queue;
use kernels::routing::{GroupShape, LayerRouting};

use super::*;
use crate::protocol::SequenceId;

fn sampling(temperature: f32, top_p: f32, top_k: u32, seed: u64) -> Sampling {
    Sampling { temperature, top_p, top_k, seed, logprob: true }
}

/// The outputs of a batch for these rows of logits, one for each question.
fn run(batch: &[SequenceStep], rows: &[Vec<f32>]) -> Vec<SequenceOutput> {
    let cpu = Cpu::new(1);
    let queue = cpu.queue().unwrap();
    let mut area = StepArea::default();
    for step in batch {
        area.push(0, 0, &step.tokens, &[]);
    }
    ask(batch, &mut area.asked);
    assert_eq!(area.asked.len(), rows.len());
    let group = GroupShape { ranks: 1, rank: 0, layers: 1, slots: 1, top_k: 1, tokens: 1 };
    let mut slots = cpu.slots(group, vec![LayerRouting::default()]).unwrap();
    let limits = StepLimits { tokens: area.ids.len(), vocabulary: rows[0].len(), ..StepLimits::default() };
    let mut device = cpu.batch(limits, &slots).unwrap();
    queue.upload(&area, &mut device, &mut slots);
    queue.begin(&mut device, &mut slots);
    queue.sample(&cpu.filled(&rows.concat()).unwrap(), 0..rows.len(), &mut device);
    outputs(batch, rows[0].len(), &queue.collect(&device, &slots).unwrap())
}

fn step(sequence: u64, tokens: usize, sample: bool, score: Vec<Option<u32>>) -> SequenceStep {
    SequenceStep {
        sequence: SequenceId(sequence),
        position: 10,
        tokens: vec![0; tokens],
        blocks: vec![0],
        sample: sample.then_some(Sampling::GREEDY),
        score,
        top_logprobs: 0,
    }
}

/// The token at a position, by these settings.
fn choose(logits: &[f32], sampling: Sampling, position: u32) -> u32 {
    let step = SequenceStep { position, sample: Some(sampling), ..step(1, 1, true, vec![]) };
    run(&[step], &[logits.to_vec()]).remove(0).token.unwrap().token
}

/// The score of a token, with the `top` best.
fn score_of(logits: &[f32], token: u32, top: u32) -> TokenScore {
    let step = SequenceStep { top_logprobs: top, ..step(1, 1, false, vec![Some(token)]) };
    run(&[step], &[logits.to_vec()]).remove(0).scores.remove(0).unwrap()
}

/// Logits with the probabilities 0.5, 0.25, 0.15, 0.1.
fn logits() -> Vec<f32> {
    [0.15_f32, 0.5, 0.1, 0.25].iter().map(|p| p.ln() + 3.0).collect()
}

#[test]
fn positions_draw_tokens_as_often_as_temperature_says() {
    const DRAWS: u32 = 5_000;
    let mut counts = [0.0; 4];
    for position in 0..DRAWS {
        counts[choose(&logits(), sampling(1.0, 1.0, 0, 1), position) as usize] += 1.0 / f64::from(DRAWS);
    }
    for (found, expected) in counts.iter().zip([0.15, 0.5, 0.1, 0.25]) {
        assert!((found - expected).abs() < 0.03, "{counts:?}");
    }
}

#[test]
fn equal_seeds_and_positions_choose_the_equal_token_and_others_do_not() {
    let logits = vec![0.0; 1000];
    let run = |seed| (0..20).map(|at| choose(&logits, sampling(1.0, 1.0, 0, seed), at)).collect();
    let (a, b, c): (Vec<u32>, Vec<u32>, Vec<u32>) = (run(7), run(7), run(8));
    assert_eq!(a, b);
    let same = a.iter().zip(&c).filter(|(a, c)| a == c).count();
    assert!(same < 3, "{same} of 20 tokens are the same under another seed");
}

#[test]
fn scores_are_log_probabilities_of_the_unmodified_logits_best_first() {
    let logits = logits();
    let score = score_of(&logits, 2, 3);
    assert!((score.logprob - 0.1_f32.ln()).abs() < 1e-6);
    assert_eq!(score.top.iter().map(|(token, _)| *token).collect::<Vec<_>>(), [1, 3, 0]);
    assert!((score.top[1].1 - 0.25_f32.ln()).abs() < 1e-6);
    let top = |logits: &[f32], top| score_of(logits, 0, top).top.iter().map(|(token, _)| *token).collect::<Vec<_>>();
    assert_eq!(top(&[1.0; 4], 2), [0, 1]);
    assert_eq!(top(&[1.0; 4], 9), [0, 1, 2, 3], "as many as there are");
}

#[test]
fn logits_that_are_no_numbers_choose_and_score_nothing_and_leave_the_others_alone() {
    let batch = [step(1, 1, true, vec![Some(1)]), step(2, 1, true, vec![Some(1)])];
    let outputs = run(&batch, &[vec![0.0, f32::NAN], vec![0.0, 1.0]]);
    assert_eq!((outputs[0].no_numbers, outputs[1].no_numbers), (true, false));
    assert_eq!((&outputs[0].token, &outputs[0].scores[0]), (&None, &None));
    assert_eq!(outputs[1].token.as_ref().map(|token| token.token), Some(1));
}

#[test]
fn a_token_that_cannot_come_has_a_logprob_that_is_a_number() {
    let mut logits = logits();
    logits[1] = f32::NEG_INFINITY;
    let score = score_of(&logits, 1, 4);
    let is_least = |logprob: f32| logprob.to_bits() == LEAST_LOGPROB.to_bits();
    assert!(is_least(score.logprob));
    assert!(score.top[3].0 == 1 && is_least(score.top[3].1));
    assert!(is_least(score_of(&[0.0, f32::MAX], 0, 0).logprob));
}

#[test]
fn rows_of_logits_go_to_the_tokens_that_want_them() {
    let batch = [
        step(1, 3, false, vec![]),
        step(2, 3, true, vec![None, Some(1), Some(0)]),
        step(3, 1, true, vec![]),
        step(4, 2, false, vec![Some(2), None]),
    ];
    let mut asked = Vec::new();
    ask(&batch, &mut asked);
    assert_eq!(asked.iter().map(|asked| asked.row).collect::<Vec<_>>(), [4, 5, 6, 7]);
    let rows: Vec<Vec<f32>> =
        (0..4).map(|best| (0..4).map(|token| if token == best { 50.0 } else { 0.0 }).collect()).collect();
    let outputs = run(&batch, &rows);
    let token = |index: usize| outputs[index].token.as_ref().map(|score| score.token);
    assert_eq!((token(0), token(1), token(2), token(3)), (None, Some(1), Some(2), None));
    let scored = |index: usize| -> Vec<Option<bool>> {
        outputs[index].scores.iter().map(|score| score.as_ref().map(|score| score.logprob > -1.0)).collect()
    };
    assert_eq!(scored(1), [None, Some(false), Some(false)]);
    assert_eq!(scored(3), [Some(false), None]);
    assert_eq!(outputs[0].scores.len(), 0);
}
