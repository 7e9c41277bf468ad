//! What EPLB is worth: throughput of two ranks of one thread each with EPLB off and on, beside what the load of the experts allows. The
//! model's steps are mostly experts, and most of the traffic goes to those that are on one rank. Prints one JSON object and fails if
//! the limit is missed.
//!
//! `cargo bench -p runtime --bench gain`

#![allow(clippy::unwrap_used, clippy::panic, reason = "a benchmark's own mistake ends it")]

#[path = "../tests/group/mod.rs"]
mod group;
#[path = "gain/model.rs"]
mod model;

use std::time::Instant;

use group::{Deployment, Setup};
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use runtime::experts::rebalance::Settings;
use runtime::protocol::{Batch, SequenceWork, StepDone};
use serde_json::json;

/// Ranks, and threads that compute: as many as the machine has cores that need be.
const RANKS: usize = 2;
/// Turns of each side, and steps of each turn: the two alternate, so that whatever else the machine does meets both alike.
const TURNS: usize = 15;
const TURN_STEPS: usize = 6;
/// Tokens of prompts that each rank computes in a step.
const TOKENS: usize = 512;
const WINDOW_STEPS: u64 = 8;
/// Balance from which on experts are where the load is, and steps in which they must be.
const BALANCED: f64 = 0.97;
const STEPS_TO_BALANCE: u64 = 200;
/// What the figure is worth nothing without: the pairs of the busiest rank to the mean, and the experts' share of a balanced step.
const LEAST_SKEW: f64 = 1.4;
const LEAST_EXPERTS: f64 = 0.7;
/// Of what the load allows.
const LEAST_GAIN: f64 = 0.95;

fn main() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    model::write(folder.path())?;
    // The process ends with the benchmark.
    let model = Box::leak(folder.path().to_owned().into_boxed_path());
    let settings = |dynamic| Settings { dynamic, window_steps: WINDOW_STEPS, ..Setup::default().settings };
    let setup = |dynamic| Setup { model, ranks: RANKS, redundancy: 2, settings: settings(dynamic), ..Setup::default() };
    let [mut off, mut on] = [false, true].map(|dynamic| Deployment::start(setup(dynamic)));
    while on.ratios().last().is_none_or(|&ratio| ratio < BALANCED) {
        assert!(on.steps < STEPS_TO_BALANCE, "not balanced after {} steps: {:?}", on.steps, on.notices);
        run(&mut on, TURN_STEPS);
    }
    run(&mut off, TURN_STEPS);
    let mut turns: Vec<Turn> = (0..TURNS).map(|number| Turn::take(&mut off, &mut on, number % 2 == 0)).collect();
    let limits = [
        ("skew", LEAST_SKEW, median(&mut turns, |turn| turn.off.skew)),
        ("experts_share_of_balanced_step", LEAST_EXPERTS, median(&mut turns, |turn| turn.on.mean / turn.allowed())),
        ("gain_of_allowed", LEAST_GAIN, median(&mut turns, |turn| turn.gain() / turn.gain_allowed())),
    ];
    let met = limits.iter().all(|(_, least, figure)| figure >= least);
    let figures: serde_json::Map<_, _> = limits
        .iter()
        .map(|&(name, least, figure)| (name.to_owned(), json!({"figure": figure, "least": least})))
        .collect();
    let report = json!({
        "tokens_per_second_off": median(&mut turns, |turn| tokens_per_second(&turn.off)),
        "tokens_per_second_on": median(&mut turns, |turn| tokens_per_second(&turn.on)),
        "gain": median(&mut turns, Turn::gain), "gain_allowed": median(&mut turns, Turn::gain_allowed),
        "gain_if_all_worked_as_fast_as_one": median(&mut turns, Turn::gain_of_cores_of_their_own),
        "slower_with_all_at_work": median(&mut turns, |turn| turn.on.mean / turn.off.mean),
        "skew_on": median(&mut turns, |turn| turn.on.skew),
        "limits": figures, "met": met,
    });
    println!("{report:#}");
    assert!(met, "a limit is missed");
    Ok(())
}

/// Seconds of a step, on average.
struct Cost {
    step: f64,
    /// Of experts, on the rank that had most of them, and on average over ranks.
    busiest: f64,
    mean: f64,
    /// Pairs of tokens and experts that the rank with most of them computed, to the mean.
    skew: f64,
}

/// One turn of each side.
struct Turn {
    off: Cost,
    on: Cost,
}

impl Turn {
    fn take(off: &mut Deployment, on: &mut Deployment, off_first: bool) -> Self {
        if off_first {
            let off = run(off, TURN_STEPS);
            Self { off, on: run(on, TURN_STEPS) }
        } else {
            let on = run(on, TURN_STEPS);
            Self { off: run(off, TURN_STEPS), on }
        }
    }

    /// Seconds of a step if no rank had more of the experts' work than the others, at the speed of ranks that all have work: threads
    /// that share memory, and perhaps a core, are slower then than one beside another that waits.
    fn allowed(&self) -> f64 {
        self.on.step - (self.on.busiest - self.on.mean)
    }

    fn gain_allowed(&self) -> f64 {
        self.off.step / self.allowed() - 1.0
    }

    /// What the load with EPLB off alone would allow: that of a machine where a rank is as fast beside others at work as beside
    /// others that wait.
    fn gain_of_cores_of_their_own(&self) -> f64 {
        self.off.step / (self.off.step - (self.off.busiest - self.off.mean)) - 1.0
    }

    fn gain(&self) -> f64 {
        self.off.step / self.on.step - 1.0
    }
}

/// Some steps in which every rank has a prompt of its own.
fn run(deployment: &mut Deployment, steps: usize) -> Cost {
    let (started, mut experts, mut pairs) = (Instant::now(), [0.0; RANKS], [0.0; RANKS]);
    for _ in 0..steps {
        let number = deployment.steps;
        let batches = (0..RANKS).map(|rank| batch(number, rank)).collect();
        let answers: Vec<StepDone> = deployment.step(batches).expect("no rank is lost");
        for (rank, answer) in answers.iter().enumerate() {
            experts[rank] += f64::from(answer.timing.experts) / 1e6;
            pairs[rank] += answer.slot_pairs.sum() as f64;
        }
    }
    let (most, mean) = (
        |of: [f64; RANKS]| of.into_iter().fold(0.0, f64::max),
        |of: [f64; RANKS]| of.iter().sum::<f64>() / RANKS as f64,
    );
    let count = steps as f64;
    Cost {
        step: started.elapsed().as_secs_f64() / count,
        busiest: most(experts) / count,
        mean: mean(experts) / count,
        skew: most(pairs) / mean(pairs),
    }
}

/// A prompt of random tokens, with the token that follows.
fn batch(number: u64, rank: usize) -> Batch {
    let number = number * RANKS as u64 + rank as u64;
    let mut random = StdRng::seed_from_u64(number);
    let tokens = (0..TOKENS).map(|_| random.random_range(0..model::VOCABULARY)).collect();
    Batch { ended: Vec::new(), work: vec![SequenceWork { sample: true, ..group::prefill(number, tokens) }] }
}

fn tokens_per_second(cost: &Cost) -> f64 {
    (RANKS * TOKENS) as f64 / cost.step
}

fn median(turns: &mut [Turn], figure: impl Fn(&Turn) -> f64) -> f64 {
    turns.sort_by(|a, b| figure(a).total_cmp(&figure(b)));
    figure(&turns[turns.len() / 2])
}
