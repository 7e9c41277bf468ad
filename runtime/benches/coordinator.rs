//! What a step costs the coordinator: processor time of the driver's thread with ranks that answer at once over real sockets,
//! and how long ranks wait for their next step. Prints one JSON object and fails if a limit is missed.
//!
//! `cargo bench -p runtime --bench coordinator`

#![allow(clippy::unwrap_used, clippy::panic, reason = "a benchmark's own mistake ends it")]

mod scripted;

use std::time::{Duration, Instant};

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use runtime::coordinator::handle::Update;
use runtime::protocol::Sampling;
use runtime::scheduler::{Length, NewSequence};
use scripted::{Deployment, Totals};
use serde_json::{Value, json};

const RANKS: [usize; 4] = [1, 4, 16, 32];
const SEQUENCES: usize = 64;
const STEPS: u64 = 600;
/// Rounds of each number of ranks; the least is told, since whatever disturbs only adds.
const ROUNDS: usize = 10;

/// How long ranks take for a step where they do not answer at once: a decode of a small model.
const COMPUTES: Duration = Duration::from_millis(4);
const IDLE_RANKS: usize = 4;
const IDLE_SEQUENCES: usize = 32;
const IDLE_STEPS: u64 = 400;

/// Ranks that answer at once, of whose driver the most is asked.
const MOST_RANKS: usize = RANKS[RANKS.len() - 1];
/// Microseconds of the driver's thread for each of those and step: 2.6 ms a step of 256 ranks.
const MOST_A_RANK_AND_STEP: f64 = 10.0;
/// Of a step, that ranks wait for the coordinator.
const MOST_IDLE: f64 = 0.05;

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    let cases = RANKS.into_iter().flat_map(|ranks| [Duration::ZERO, COMPUTES].map(|computes| (ranks, computes)));
    let driver: Vec<Cost> = cases.map(|(ranks, computes)| runtime.block_on(cost(ranks, computes))).collect();
    let idle = runtime.block_on(idle());
    let most = driver.iter().find(|cost| (cost.ranks, cost.computes) == (MOST_RANKS, Duration::ZERO));
    let a_rank_and_step = most.unwrap().a_rank_and_step();
    let limits = [
        ("microseconds_a_rank_and_step", MOST_A_RANK_AND_STEP, a_rank_and_step),
        ("idle_share_of_a_step", MOST_IDLE, idle.share),
    ];
    let met = limits.iter().all(|(_, most, figure)| figure <= most);
    let figures: serde_json::Map<_, _> =
        limits.iter().map(|&(name, most, figure)| (name.to_owned(), json!({"figure": figure, "most": most}))).collect();
    let driver: Vec<Value> = driver.iter().map(Cost::told).collect();
    let report = json!({
        "sequences": SEQUENCES, "steps": STEPS, "driver": driver, "idle": idle.told(), "limits": figures, "met": met,
    });
    println!("{report:#}");
    assert!(met, "a limit is missed");
}

/// What steps cost a driver with so many ranks that compute for so long; microseconds a step.
struct Cost {
    ranks: usize,
    computes: Duration,
    driver: f64,
    wall: f64,
}

impl Cost {
    fn a_rank_and_step(&self) -> f64 {
        round(self.driver / self.ranks as f64)
    }

    fn told(&self) -> Value {
        json!({
            "ranks": self.ranks, "computes_microseconds": self.computes.as_micros() as u64,
            "microseconds_a_step": round(self.driver), "microseconds_a_rank_and_step": self.a_rank_and_step(),
            "wall_microseconds_a_step": round(self.wall),
        })
    }
}

async fn cost(ranks: usize, computes: Duration) -> Cost {
    let deployment = Deployment::start(ranks, computes);
    serve(&deployment, SEQUENCES, 200).await;
    let (mut least, mut wall) = (f64::MAX, f64::MAX);
    for _ in 0..ROUNDS {
        let (before, started) = (deployment.totals(), Instant::now());
        let driver = thread_seconds("driver");
        serve(&deployment, SEQUENCES, STEPS).await;
        let (driver, seconds) = (thread_seconds("driver") - driver, started.elapsed().as_secs_f64());
        let Totals { steps, .. } = deployment.totals() - before;
        least = least.min(driver * 1e6 / steps as f64);
        wall = wall.min(seconds * 1e6 / steps as f64);
    }
    Cost { ranks, computes, driver: least, wall }
}

/// How long ranks wait for their next step.
struct Idle {
    steps: u64,
    share: f64,
}

impl Idle {
    fn told(&self) -> Value {
        json!({
            "ranks": IDLE_RANKS, "sequences": IDLE_SEQUENCES, "computes_microseconds": COMPUTES.as_micros() as u64,
            "steps": self.steps, "idle_share_of_a_step": self.share,
        })
    }
}

async fn idle() -> Idle {
    let deployment = Deployment::start(IDLE_RANKS, COMPUTES);
    serve(&deployment, IDLE_SEQUENCES, 50).await;
    let before = deployment.totals();
    serve(&deployment, IDLE_SEQUENCES, IDLE_STEPS).await;
    let Totals { steps, waited, whole } = deployment.totals() - before;
    Idle { steps, share: (waited.as_secs_f64() / whole.as_secs_f64() * 1e4).round() / 1e4 }
}

/// Reads so many sequences of so many tokens to their ends.
async fn serve(deployment: &Deployment, sequences: usize, tokens: u64) {
    let request = |number: usize| NewSequence {
        prompt: vec![number as u32; 4].into(),
        length: Length::Asked(tokens as u32),
        stop_tokens: std::sync::Arc::from([]),
        sampling: Sampling { temperature: 0.0, top_p: 1.0, top_k: 0, seed: number as u64, logprob: false },
        score_prompt: false,
        top_logprobs: 0,
    };
    let mut reading = FuturesUnordered::new();
    for number in 0..sequences {
        let mut updates = deployment.handle.submit(vec![request(number)]).await.unwrap().remove(0);
        reading.push(async move {
            let mut last = None;
            while let Some(update) = updates.next().await {
                last = Some(update);
            }
            assert!(matches!(last, Some(Update::Output { finish: Some(_), .. })), "{last:?}");
        });
    }
    while reading.next().await.is_some() {}
}

/// Processor time of this process' thread of a name, seconds.
fn thread_seconds(name: &str) -> f64 {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap().map(|task| task.unwrap().path());
    let named = tasks.filter(|task| std::fs::read_to_string(task.join("comm")).is_ok_and(|comm| comm.trim() == name));
    let nanoseconds = named.map(|task| {
        let text = std::fs::read_to_string(task.join("schedstat")).unwrap();
        text.split_whitespace().next().unwrap().parse::<u64>().unwrap()
    });
    nanoseconds.sum::<u64>() as f64 / 1e9
}

fn round(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}
