use super::*;
use crate::Backend as _;
use crate::Queue as _;
use crate::cpu::{Batch, Buffer, Cpu};

const DRAWS: u32 = 20_000;

fn settings(temperature: f32, top_p: f32, top_k: u32) -> Draw {
    Draw { temperature, top_p, top_k, uniform: 0.0 }
}

fn row(logits: &[f32]) -> Row<'_> {
    Row::of(logits).unwrap()
}

fn draw(logits: &[f32], draw: &Draw) -> u32 {
    row(logits).draw(draw, &mut Vec::new())
}

/// Whatever else is asked for, without temperature.
fn greedy(logits: &[f32]) -> u32 {
    draw(logits, &settings(0.0, 0.1, 1))
}

/// How often each token is drawn by places that are evenly spread.
fn histogram(logits: &[f32], how: &Draw) -> Vec<f64> {
    let mut counts = vec![0.0; logits.len()];
    for place in 0..DRAWS {
        let uniform = (f64::from(place) + 0.5) / f64::from(DRAWS);
        counts[draw(logits, &Draw { uniform, ..*how }) as usize] += 1.0 / f64::from(DRAWS);
    }
    counts
}

fn close(found: &[f64], expected: &[f64]) {
    let worst = found.iter().zip(expected).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    assert!(worst < 1e-3, "{found:?} instead of {expected:?}");
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
fn tokens_are_drawn_as_often_as_temperature_says() {
    close(&histogram(&logits(), &settings(1.0, 1.0, 0)), &[0.15, 0.5, 0.1, 0.25]);
    let hot: Vec<f64> = [0.15_f64, 0.5, 0.1, 0.25].iter().map(|p| p.sqrt()).collect();
    let sum: f64 = hot.iter().sum();
    close(&histogram(&logits(), &settings(2.0, 1.0, 0)), &hot.iter().map(|p| p / sum).collect::<Vec<_>>());
}

#[test]
fn top_k_and_top_p_leave_only_the_best_tokens_in_their_proportions() {
    close(&histogram(&logits(), &settings(1.0, 1.0, 2)), &[0.0, 2.0 / 3.0, 0.0, 1.0 / 3.0]);
    // 0.5 + 0.25 < 0.8 <= 0.5 + 0.25 + 0.15
    close(&histogram(&logits(), &settings(1.0, 0.8, 0)), &[0.15 / 0.9, 0.5 / 0.9, 0.0, 0.25 / 0.9]);
    // Of the two that top_k leaves, the best alone has 2/3.
    close(&histogram(&logits(), &settings(1.0, 0.6, 2)), &[0.0, 1.0, 0.0, 0.0]);
    close(&histogram(&logits(), &settings(1.0, 1e-6, 0)), &[0.0, 1.0, 0.0, 0.0]);
}

#[test]
fn settings_that_leave_every_token_draw_as_if_they_were_not_given() {
    let run = |top_p, top_k| -> Vec<u32> {
        (0..50)
            .map(|at| draw(&logits(), &Draw { uniform: f64::from(at) / 50.0, ..settings(1.0, top_p, top_k) }))
            .collect()
    };
    for top_k in [4, 5, u32::MAX] {
        assert_eq!(run(1.0, top_k), run(1.0, 0), "top_k {top_k}");
    }
}

#[test]
fn only_tokens_that_can_come_are_drawn() {
    let logits = [f32::NEG_INFINITY, f32::MIN];
    for uniform in [0.0, 0.5, 1.0] {
        assert_eq!(draw(&logits, &Draw { uniform, ..settings(1.0, 1.0, 0) }), 1);
    }
}

#[test]
fn logits_that_are_no_numbers_are_told_apart() {
    for wrong in [f32::NAN, -f32::NAN, f32::INFINITY] {
        for place in [0, 5, 16, 36] {
            let mut logits = vec![0.5; 37];
            assert!(Row::of(&logits).is_some());
            logits[place] = wrong;
            assert!(Row::of(&logits).is_none(), "{wrong} at {place}");
        }
    }
    assert!(Row::of(&[f32::NEG_INFINITY; 37]).is_none());
}

/// What is asked of each of these rows, on so many threads.
fn answers(threads: usize, asked: &[Asked], logits: &[f32]) -> (Vec<Sampled>, Vec<Scored>) {
    let cpu = Cpu::new(threads);
    let run = || {
        let queue = cpu.queue().unwrap();
        let mut area = StepArea { asked: asked.to_vec(), ..StepArea::default() };
        area.push(0, 0, &vec![0; asked.len()], &[]);
        let limits = StepLimits { tokens: asked.len(), vocabulary: logits.len(), ..StepLimits::default() };
        let mut batch = Batch::new(limits).unwrap();
        cpu.scratch.fit_tokens(limits.vocabulary).unwrap();
        batch.begin(&area);
        let mut rows: Buffer<f32> = Buffer::new(logits.len()).unwrap();
        rows.append(logits);
        queue.sample(&rows, 0..asked.len(), &mut batch);
        (batch.sampled().0.to_vec(), batch.sampled().1.to_vec())
    };
    std::thread::scope(|scope| scope.spawn(run).join().unwrap())
}

#[test]
fn a_row_is_answered_as_it_was_asked_and_one_of_no_numbers_leaves_the_others_alone() {
    let nothing = Asked::nothing(0);
    let asked = [
        Asked { draw: Some(settings(0.0, 1.0, 0)), best: 3, sum: true, ..nothing },
        nothing,
        Asked { score: Some(2), ..nothing },
    ];
    let mut rows = [logits(), logits(), logits()].concat();
    rows[5] = f32::NAN;
    let (sampled, best) = answers(1, &asked, &rows);
    assert_eq!(sampled.iter().map(|row| row.is_ordered).collect::<Vec<_>>(), [true, false, true]);
    assert_eq!(best[..3].iter().map(|scored| scored.token).collect::<Vec<_>>(), [1, 3, 0]);
    let Sampled { drawn, .. } = sampled[0];
    assert_eq!(drawn.token, 1);
    assert!((sampled[0].logprob(drawn.logit) - 0.5_f32.ln()).abs() < 1e-6);
    assert!((sampled[0].logprob(best[1].logit) - 0.25_f32.ln()).abs() < 1e-6);
    assert_eq!(sampled[2].score.to_bits(), logits()[2].to_bits());
}

#[test]
fn rows_are_answered_alike_by_any_number_of_threads() {
    const ROWS: usize = 64;
    let vocabulary = 5000;
    let logits: Vec<f32> = (0..ROWS * vocabulary).map(|at| (at * 7919 % 104_729) as f32 / 20_000.0).collect();
    let how = |row: usize| Draw { uniform: row as f64 / ROWS as f64, ..settings(0.7, 0.9, (row % 3 * 40) as u32) };
    let asked: Vec<Asked> = (0..ROWS)
        .map(|row| Asked { draw: Some(how(row)), best: (row % 5) as u32, sum: true, ..Asked::nothing(row as u32) })
        .collect();
    let (sampled, best) = answers(1, &asked, &logits);
    assert_eq!(answers(3, &asked, &logits), (sampled.clone(), best));
    let tokens: std::collections::BTreeSet<u32> = sampled.iter().map(|row| row.drawn.token).collect();
    assert!(tokens.len() > ROWS / 2, "{tokens:?}");
}

#[test]
fn what_a_step_takes_is_what_its_lists_have_room_for() {
    fn room<T>(list: &Vec<T>) -> usize {
        list.capacity() * size_of::<T>()
    }
    for (tokens, blocks) in [(1, 1), (512, 100), (17, 3)] {
        let limits = StepLimits { tokens, blocks, ..StepLimits::default() };
        let Batch { limits: _, area, clock: _, sampled, best } = &Batch::new(limits).unwrap();
        let StepArea { ids, positions, sequences, spans, blocks, asked, changes, bucket: _ } = area;
        let mut held = [ids, positions, sequences, blocks].map(room).iter().sum::<usize>();
        held += room(spans) + room(asked) + room(changes) + room(sampled) + room(best);
        assert_eq!(Batch::bytes(limits), held as u64, "{limits:?}");
    }
}
