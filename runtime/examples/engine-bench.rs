//! Tokens per second of one rank, without server or scheduler.
//!
//! `engine-bench MODEL_DIR PROMPTS CASES THREADS SECONDS` prints one JSON line for each case of a comma-separated list.
//! `ppN` is the prefill of N prompts of 512 tokens, with the next token of each; `tgN` is greedy decoding of N sequences, 128 steps
//! after prompts of 64 tokens. PROMPTS has one prompt a line, as token ids. Each case runs once to warm up and then for at
//! least SECONDS. Beside the wall clock it reports CPU time, which other processes on the machine disturb less.

#[path = "../benches/one_rank/mod.rs"]
mod one_rank;

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use one_rank::{Engine, MOST_TOKENS as PREFILL_TOKENS, read_prompts};

const DECODE_PROMPT: usize = 64;
const DECODE_STEPS: usize = 128;

/// One repetition of a case.
fn once(engine: &mut Engine, prompts: &[&[u32]], prefill: bool) -> anyhow::Result<Cost> {
    let start = Clocks::now();
    let mut next = engine.step(0, prompts, 0)?;
    if prefill {
        return Ok(start.cost(prompts.len() * PREFILL_TOKENS));
    }
    let start = Clocks::now();
    for step in 0..DECODE_STEPS {
        let tokens: Vec<&[u32]> = next.iter().map(std::slice::from_ref).collect();
        next = engine.step(0, &tokens, DECODE_PROMPT + step)?;
    }
    Ok(start.cost(prompts.len() * DECODE_STEPS))
}

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, prompts, cases, threads, seconds] = &arguments[..] else {
        bail!("usage: engine-bench MODEL_DIR PROMPTS CASES THREADS SECONDS");
    };
    let prompts = read_prompts(Path::new(prompts))?;
    let seconds = Duration::from_secs_f64(seconds.parse()?);
    for case in cases.split(',') {
        let (prefill, sequences) = match (case.strip_prefix("pp"), case.strip_prefix("tg")) {
            (Some(count), _) => (true, count.parse::<usize>()?),
            (_, Some(count)) => (false, count.parse()?),
            _ => bail!("{case} is neither ppN nor tgN"),
        };
        let length = if prefill { PREFILL_TOKENS } else { DECODE_PROMPT };
        let prompts: Vec<&[u32]> = prompts.iter().take(sequences).filter_map(|prompt| prompt.get(..length)).collect();
        ensure!(prompts.len() == sequences, "there are no {sequences} prompts of {length} tokens");
        let threads = threads.parse()?;
        // A case has threads of its own: the backend belongs to the thread that made it.
        let cost = std::thread::scope(|scope| {
            scope.spawn(|| measure(Path::new(model), threads, &prompts, prefill, seconds)).join()
        })
        .map_err(|_| anyhow::anyhow!("{case} panicked"))??;
        let result = serde_json::json!({
            "case": case,
            "tokens_per_second": (cost.tokens as f64 / cost.wall.as_secs_f64() * 10.0).round() / 10.0,
            "cpu_microseconds_per_token": (cost.cpu.as_secs_f64() * 1e8 / cost.tokens as f64).round() / 100.0,
        });
        println!("{result}");
    }
    Ok(())
}

fn measure(model: &Path, threads: usize, prompts: &[&[u32]], prefill: bool, seconds: Duration) -> anyhow::Result<Cost> {
    let mut engine = Engine::load(model, threads, prompts.len())?;
    once(&mut engine, prompts, prefill)?;
    let mut total = Cost::default();
    while total.wall < seconds {
        let cost = once(&mut engine, prompts, prefill)?;
        total.tokens += cost.tokens;
        total.wall += cost.wall;
        total.cpu += cost.cpu;
    }
    Ok(total)
}

/// Tokens and what they cost.
#[derive(Default)]
struct Cost {
    tokens: usize,
    wall: Duration,
    cpu: Duration,
}

/// The wall clock and the processor time of this process.
struct Clocks {
    wall: Instant,
    cpu: Duration,
}

impl Clocks {
    fn now() -> Self {
        Self { wall: Instant::now(), cpu: cpu_time() }
    }

    /// Of some tokens since then.
    fn cost(&self, tokens: usize) -> Cost {
        Cost { tokens, wall: self.wall.elapsed(), cpu: cpu_time().saturating_sub(self.cpu) }
    }
}

fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
