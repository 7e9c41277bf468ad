//! What is asked of logits, answered by the GPU's backend and by the CPU's.

use std::sync::Arc;

use anyhow::{Result, ensure};
use kernels::batch::{Asked, Draw, MOST_BEST, Sampled, Scored};
use kernels::cpu::Cpu;
use kernels::{Backend, Queue, StepArea};

use crate::steps::{Case, HIDDEN, Numbers, Steps, compared, gpu, tokens};

const ROWS: usize = 12;

/// Anything that can be asked of a row.
fn asked(numbers: &mut Numbers, row: usize, vocabulary: usize) -> Asked {
    let mut one_of = |values: &[f32]| values[numbers.below(values.len())];
    let draw = Draw {
        temperature: one_of(&[0.0, 0.3, 1.0, 1.0, 4.0]),
        top_p: one_of(&[1.0, 1.0, 0.9, 0.2]),
        top_k: one_of(&[0.0, 0.0, 1.0, 3.0, 40.0, 9000.0]) as u32,
        uniform: f64::from(one_of(&[0.001, 0.1, 0.37, 0.5, 0.93, 0.999_999])),
    };
    let (is_drawn, is_scored, is_summed) = (one_of(&[0.0, 1.0, 1.0]), one_of(&[0.0, 1.0]), one_of(&[0.0, 1.0]));
    let best = one_of(&[0.0, 1.0, 5.0, MOST_BEST as f32]) as u32;
    Asked {
        row: row as u32,
        draw: (is_drawn > 0.0).then_some(draw),
        score: (is_scored > 0.0).then_some(numbers.below(vocabulary) as u32),
        best,
        sum: is_summed > 0.0,
    }
}

/// Rows of logits, some of which are not as one would like them.
fn logits(numbers: &mut Numbers, vocabulary: usize) -> Vec<f32> {
    let mut logits: Vec<f32> = numbers.vec(ROWS * vocabulary).iter().map(|logit| 6.0 * logit).collect();
    for (row, logits) in logits.chunks_mut(vocabulary).enumerate() {
        let last = vocabulary - 1;
        match row {
            0 => logits.iter_mut().for_each(|logit| *logit = logit.round()),
            1 => logits[last / 2] = f32::NAN,
            2 => logits[last] = f32::INFINITY,
            3 => logits.fill(f32::NEG_INFINITY),
            4 => logits.iter_mut().step_by(2).for_each(|logit| *logit = f32::NEG_INFINITY),
            5 => logits.fill(1.0),
            6 => logits.iter_mut().for_each(|logit| *logit = 0.0_f32.copysign(*logit)),
            7 => logits[last] = 40.0,
            _ => {}
        }
    }
    logits
}

fn answers<B: Backend>(backend: &Arc<B>, area: &StepArea, logits: &[f32]) -> Result<(Vec<Sampled>, Vec<Scored>)> {
    let mut steps = Steps::alone(backend)?;
    steps.upload(area);
    let vocabulary = logits.len() / ROWS;
    // In two parts, as a model gives them.
    for part in [0..5, 5..area.asked.len()] {
        let rows = steps.filled(&logits[part.start * vocabulary..part.end * vocabulary])?;
        steps.queue.sample(&rows, part, &mut steps.batch);
    }
    steps.queue.finish(&mut steps.batch, &mut steps.slots);
    let collected = steps.queue.collect(&steps.batch, &steps.slots)?;
    Ok((collected.sampled.into_owned(), collected.best.into_owned()))
}

fn compare(asked: &Asked, expected: (&Sampled, &[Scored]), found: (&Sampled, &[Scored])) -> Result<()> {
    let ((expected, expected_best), (found, best)) = (expected, found);
    ensure!(expected.is_ordered == found.is_ordered, "{asked:?}: {found:?} instead of {expected:?}");
    if !expected.is_ordered {
        return Ok(());
    }
    let is_same = (expected.largest, expected.drawn, expected.score) == (found.largest, found.drawn, found.score);
    let is_close = (expected.log_sum - found.log_sum).abs() <= 1e-12 * expected.log_sum.abs().max(1.0);
    ensure!(is_same && is_close, "{asked:?}: {found:?} instead of {expected:?}");
    let places = ..asked.best as usize;
    ensure!(expected_best[places] == best[places], "{asked:?}: {best:?} instead of {expected_best:?}");
    Ok(())
}

fn gathered<B: Backend>(steps: &mut Steps<B>, x: &[f32], asked: &[u32]) -> Result<Vec<f32>> {
    let mut area = tokens(x.len() / HIDDEN);
    area.asked.extend(asked.iter().map(|&row| Asked::nothing(row)));
    steps.upload(&area);
    let (x, mut out) = (steps.rows(x, HIDDEN)?, steps.room()?);
    let mut all = Vec::new();
    for first in (0..asked.len()).step_by(64) {
        steps.queue.gather(&x, &steps.batch, first..asked.len().min(first + 64), &mut out);
        all.extend_from_slice(&steps.queue.read(&out));
    }
    Ok(all)
}

fn rows_that_are_asked_for_are_gathered() -> Result<()> {
    let (gpu, mut numbers) = (gpu()?, Numbers(79));
    let x = numbers.vec(100 * HIDDEN);
    for asked in [vec![], vec![99], (0..100).collect::<Vec<u32>>(), (0..65).map(|row| row + 7).collect()] {
        compared!(&gpu, "gathered rows", 0.0, gathered(&x, &asked));
    }
    Ok(())
}

fn what_is_asked_of_logits_is_answered_as_the_specification_does() -> Result<()> {
    let gpu = gpu()?;
    for (seed, vocabulary) in [(80, 5000), (81, 4096), (82, 4097), (83, 300), (84, 20), (85, 1)] {
        let mut numbers = Numbers(seed);
        let (mut area, logits) = (tokens(ROWS), logits(&mut numbers, vocabulary));
        area.asked.extend((0..ROWS).map(|row| asked(&mut numbers, row, vocabulary)));
        let (expected, expected_best) = answers(&Arc::new(Cpu::new(1)), &area, &logits)?;
        let (found, best) = answers(&gpu, &area, &logits)?;
        ensure!(expected.len() == found.len() && expected_best.len() == best.len(), "as many answers as are asked for");
        for (row, asked) in area.asked.iter().enumerate() {
            let places = row * MOST_BEST..(row + 1) * MOST_BEST;
            compare(asked, (&expected[row], &expected_best[places.clone()]), (&found[row], &best[places]))?;
        }
    }
    Ok(())
}

pub const CASES: &[Case] = &[
    ("rows_that_are_asked_for_are_gathered", rows_that_are_asked_for_are_gathered),
    (
        "what_is_asked_of_logits_is_answered_as_the_specification_does",
        what_is_asked_of_logits_is_answered_as_the_specification_does,
    ),
];
