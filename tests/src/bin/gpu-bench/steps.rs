//! Decode steps of a whole model, and what they take with commits at their heads and with copies beside them.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Result, ensure};
use kernels::cuda::Cuda;
use kernels::cuda::measure::{Carried, Gauge, Route, Traffic};
use kernels::routing::LayerRouting;
use runtime::protocol::{SequenceOutput, SequenceStep};
use serde_json::json;

use crate::ceilings::rate;
use crate::figures::{Figures, quantile, rounded};
use crate::least;
use crate::rank::Rank;

/// Sequences of the steps that others are compared with.
const SEQUENCES: usize = 32;

/// Parts that are carried beside steps.
const PARTS: [usize; 3] = [1 << 20, 64 << 10, 4 << 20];

pub fn run(small: bool, model: &Path, figures: &Figures) -> Result<()> {
    let gpu = Arc::new(Cuda::new(0)?);
    let (sequences, context, steps) = if small { (3, 20, 4) } else { (128, 512, 100) };
    let started = Instant::now();
    let mut rank = Rank::new(&gpu, model, sequences, context)?;
    figures.tell("weights drawn", &[("s", rounded(started.elapsed().as_secs_f64()))]);
    let started = Instant::now();
    rank.prefill(sequences)?;
    let tokens = (sequences * context) as f64;
    figures.tell("prompts one by one", &[("tokens/s", rounded(tokens / started.elapsed().as_secs_f64()))]);
    for sequences in [1, 4, 16, 32, 64, 128].into_iter().filter(|&count| count <= sequences) {
        let batch = rank.decode(sequences);
        let times = timed(&mut rank, &batch, steps)?;
        let [median, last] = [0.5, 0.99].map(|part| quantile(&times, part));
        figures.tell(
            "decode",
            &[
                ("sequences", json!(sequences)),
                ("p50 us", rounded(median * 1e6)),
                ("p99 us", rounded(last * 1e6)),
                ("tokens/s", rounded(sequences as f64 / median)),
            ],
        );
    }
    let batch = rank.decode(SEQUENCES.min(sequences));
    copies((&gpu, &mut rank), &batch, (small, steps), figures)?;
    commits(&mut rank, &batch, steps, figures)
}

/// How long steps took, shortest first. All give the same tokens.
fn timed(rank: &mut Rank, batch: &[SequenceStep], steps: usize) -> Result<Vec<f64>> {
    let (mut times, expected) = (Vec::with_capacity(steps), tokens(&rank.step(batch, Vec::new())?));
    for _ in 0..steps {
        let started = Instant::now();
        let outputs = rank.step(batch, Vec::new())?;
        times.push(started.elapsed().as_secs_f64());
        ensure!(tokens(&outputs) == expected, "a step gave other tokens than the same step before");
    }
    times.sort_by(f64::total_cmp);
    Ok(times)
}

fn tokens(outputs: &[SequenceOutput]) -> Vec<Option<u32>> {
    outputs.iter().map(|output| output.token.as_ref().map(|token| token.token)).collect()
}

/// Steps beside copies of each kind, at rates of the device's reads, in parts of several sizes; each beside steps that have the device
/// alone.
fn copies(
    (gpu, rank): (&Arc<Cuda>, &mut Rank),
    batch: &[SequenceStep],
    (small, steps): (bool, usize),
    figures: &Figures,
) -> Result<()> {
    let gauge = Gauge::new(gpu)?;
    let region = gauge.region(if small { 1 << 18 } else { 1 << 30 })?;
    let read = rate(region.bytes(), least(3, || Ok(gauge.read(&region, 2)?))?) * 1e9;
    drop(region);
    let rates = [("1 %", Some(0.01 * read)), ("5 %", Some(0.05 * read)), ("all", None)];
    let routes = [
        ("from the host", Route::FromHost),
        ("to the host", Route::ToHost),
        ("within, by the driver", Route::Within),
        ("within, by 4 blocks", Route::ByBlocks(4)),
        ("within, by 16 blocks", Route::ByBlocks(16)),
    ];
    for part in if small { &PARTS[1..2] } else { &PARTS[..] } {
        for (route, way) in routes {
            for (limit, rate) in if small { &rates[2..] } else { &rates[..] } {
                let still = timed(rank, batch, steps)?;
                let traffic = Traffic::start(gpu, way, *part, *rate)?;
                let beside = timed(rank, batch, steps);
                let Carried { bytes, seconds } = traffic.end()?;
                let beside = beside?;
                let ratio = |part| rounded(quantile(&beside, part) / quantile(&still, part));
                figures.tell(
                    "beside copies",
                    &[
                        ("copies", json!(route)),
                        ("KiB each", json!(part >> 10)),
                        ("of reads", json!(limit)),
                        ("GB/s", rounded(bytes as f64 / seconds / 1e9)),
                        ("p50 ratio", ratio(0.5)),
                        ("p99 ratio", ratio(0.99)),
                        ("p99 us", rounded(quantile(&beside, 0.99) * 1e6)),
                    ],
                );
            }
        }
    }
    Ok(())
}

/// Steps that begin with a commit of so many slots of a layer, in turn with steps that begin with none. Every one gives the same tokens.
fn commits(rank: &mut Rank, batch: &[SequenceStep], steps: usize, figures: &Figures) -> Result<()> {
    let expected = tokens(&rank.step(batch, Vec::new())?);
    for slots in [1, 16, 128].map(|slots: usize| slots.min(rank.slots())) {
        let (mut without, mut with) = (Vec::new(), Vec::new());
        for round in 0..steps {
            let commit: Vec<LayerRouting> = rank.commit(slots, round % 2 == 0);
            for (changes, times) in [(Vec::new(), &mut without), (commit, &mut with)] {
                let started = Instant::now();
                // Without a sequence a step is its launches, so that microseconds show.
                rank.step(&[], changes)?;
                times.push(started.elapsed().as_secs_f64());
            }
            if round < 2 {
                ensure!(
                    tokens(&rank.step(batch, Vec::new())?) == expected,
                    "a commit of {slots} slots changed a token"
                );
            }
        }
        without.sort_by(f64::total_cmp);
        with.sort_by(f64::total_cmp);
        let [without, with] = [&without, &with].map(|times| quantile(times, 0.5));
        figures.tell(
            "commit",
            &[
                ("slots", json!(slots)),
                ("empty step us", rounded(without * 1e6)),
                ("with commit us", rounded(with * 1e6)),
                ("commit us", rounded((with - without) * 1e6)),
            ],
        );
    }
    Ok(())
}
