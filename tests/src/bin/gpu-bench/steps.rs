//! Decode steps of a whole model, and what they take with commits at their heads and with copies beside them.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Result, ensure};
use kernels::cuda::Cuda;
use kernels::cuda::measure::{Bringer, Carried, Gauge, Load, Route, Traffic};
use kernels::routing::LayerRouting;
use runtime::protocol::{SequenceOutput, SequenceStep};
use serde_json::json;

use crate::ceilings::rate;
use crate::figures::{Figures, quantile, rounded};
use crate::least;
use crate::rank::Rank;

/// Sequences of the steps that others are compared with.
const SEQUENCES: usize = 32;

/// How copies are carried beside steps.
const ROUTES: [(&str, Route); 5] = [
    ("from the host", Route::FromHost),
    ("to the host", Route::ToHost),
    ("within, by the driver", Route::Within),
    ("within, by 4 blocks", Route::ByBlocks(4)),
    ("within, by 16 blocks", Route::ByBlocks(16)),
];

/// Bytes of each of those copies.
const PARTS: [usize; 3] = [1 << 20, 64 << 10, 4 << 20];

/// Per cent of what the device reads that they carry, or all that they can.
const RATES: [(&str, Option<f64>); 3] = [("1 %", Some(0.01)), ("5 %", Some(0.05)), ("all", None)];

/// What they write in turn, far more than a chip's caches hold.
const SPAN: usize = 256 << 20;

/// What steps are compared with.
struct Beside {
    batch: Vec<SequenceStep>,
    /// Steps of a measurement.
    steps: usize,
    small: bool,
    /// Bytes a second that a kernel reads.
    read: f64,
}

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
    let read = {
        let gauge = Gauge::new(&gpu)?;
        let region = gauge.region(if small { 1 << 18 } else { 2 << 30 })?;
        rate(region.bytes(), least(3, || Ok(gauge.read(&region, 2)?))?) * 1e9
    };
    let mut beside = Beside { batch: rank.decode(SEQUENCES.min(sequences)), steps, small, read };
    // What is asked for first: the usual budget in the usual parts, then commits, then all else.
    let parts = if small { &PARTS[1..2] } else { &PARTS[..] };
    // A hundredth of a p99 shows in more steps than the others need.
    beside.steps = if small { steps } else { 4 * steps };
    for route in ROUTES {
        copies((&gpu, &mut rank), &beside, (route, parts[0], RATES[0]), figures)?;
    }
    beside.steps = steps;
    commits(&mut rank, &beside, figures)?;
    small_copies(&gpu, small, figures)?;
    for (place, part) in parts.iter().enumerate() {
        for route in ROUTES {
            for rate in RATES.into_iter().skip(usize::from(place == 0)).filter(|rate| !small || rate.1.is_none()) {
                copies((&gpu, &mut rank), &beside, (route, *part, rate), figures)?;
            }
        }
    }
    Ok(())
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

/// Steps beside copies, and steps that have the device alone.
fn copies(
    (gpu, rank): (&Arc<Cuda>, &mut Rank),
    beside: &Beside,
    ((name, route), part, (limit, share)): ((&str, Route), usize, (&str, Option<f64>)),
    figures: &Figures,
) -> Result<()> {
    let &Beside { ref batch, steps, small, read } = beside;
    let still = timed(rank, batch, steps)?;
    let span = if small { 4 * part } else { SPAN };
    let traffic = Traffic::start(gpu, Load { route, part, span, rate: share.map(|share| share * read) })?;
    let beside = timed(rank, batch, steps);
    let Carried { bytes, seconds } = traffic.end()?;
    let beside = beside?;
    let ratio = |part| rounded(quantile(&beside, part) / quantile(&still, part));
    figures.tell(
        "beside copies",
        &[
            ("copies", json!(name)),
            ("KiB each", json!(part >> 10)),
            ("of reads", json!(limit)),
            ("GB/s", rounded(bytes as f64 / seconds / 1e9)),
            ("MiB in turn", rounded(span as f64 / f64::from(1 << 20))),
            ("p50 ratio", ratio(0.5)),
            ("p99 ratio", ratio(0.99)),
            ("p99 us", rounded(quantile(&beside, 0.99) * 1e6)),
        ],
    );
    Ok(())
}

/// How long a few bytes take from the host to the device, by a copy engine and by a kernel that reads them in place, as the batches of
/// steps are read: alone, and behind copies of a move.
fn small_copies(gpu: &Arc<Cuda>, small: bool, figures: &Figures) -> Result<()> {
    const BYTES: usize = 4096;
    let (gauge, times) = (Gauge::new(gpu)?, if small { 3 } else { 300 });
    let (mut pinned, mut region) = (gauge.pinned(BYTES)?, gauge.region(BYTES)?);
    let big: &[usize] = if small { &[64 << 10] } else { &[1 << 20, 64 << 20] };
    for part in std::iter::once(None).chain(big.iter().map(|part| Some(*part))) {
        for (name, by) in [("copy engine", Bringer::Engine), ("kernel", Bringer::Kernel)] {
            let of =
                |part| Load { route: Route::FromHost, part, span: if small { 4 * part } else { SPAN }, rate: None };
            let traffic = part.map(|part| Traffic::start(gpu, of(part))).transpose()?;
            let brought = (0..times).map(|_| gauge.bring((by, BYTES), &mut pinned, &mut region));
            let brought: Result<Vec<f64>, _> = brought.collect();
            let carried = traffic.map(Traffic::end).transpose()?;
            let mut seconds = brought?;
            seconds.sort_by(f64::total_cmp);
            let [median, last] = [0.5, 0.99].map(|part| rounded(quantile(&seconds, part) * 1e6));
            figures.tell(
                "4 KiB from the host",
                &[
                    ("by", json!(name)),
                    ("behind copies of KiB", json!(part.map(|part| part >> 10))),
                    ("GB/s", json!(carried.map(|carried| rounded(carried.bytes as f64 / carried.seconds / 1e9)))),
                    ("p50 us", median),
                    ("p99 us", last),
                ],
            );
        }
    }
    Ok(())
}

/// Steps that begin with a commit of so many slots of a layer, in turn with steps that begin with none. Every one gives the same tokens.
fn commits(rank: &mut Rank, beside: &Beside, figures: &Figures) -> Result<()> {
    let &Beside { ref batch, steps, .. } = beside;
    let expected = tokens(&rank.step(batch, Vec::new())?);
    for slots in [128, 16, 1].map(|slots: usize| slots.min(rank.slots())) {
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
