//! Tokens per second of one rank, without server or scheduler.
//!
//! `engine-bench MODEL_DIR PROMPTS CASES THREADS SECONDS` prints one JSON line for each case of a comma-separated list.
//! `ppN` is the prefill of N prompts of 512 tokens, with the next token of each; `tgN` is greedy decoding of N sequences, 128 steps
//! after prompts of 64 tokens. PROMPTS has one prompt a line, as token ids. Each case runs once to warm up and then for at
//! least SECONDS. Beside the wall clock it reports CPU time, which other processes on the machine disturb less.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use kernels::cpu::{Cpu, Page};
use plan::ids::RankId;
use plan::map::{ExpertMap, MapShape};
use runtime::experts::table::ExpertTable;
use runtime::fabric::Solo;
use runtime::model::checkpoint::Checkpoint;
use runtime::model::qwen3_moe::{CacheSize, Model, load_expert};
use runtime::protocol::{Sampling, SequenceId, SequenceStep};

const PREFILL_TOKENS: usize = 512;
const DECODE_PROMPT: usize = 64;
const DECODE_STEPS: usize = 128;
const BLOCK_TOKENS: usize = 16;
const BLOCKS_PER_SEQUENCE: usize = PREFILL_TOKENS / BLOCK_TOKENS;

struct Engine {
    model: Model<Cpu>,
    table: ExpertTable<Page>,
}

impl Engine {
    fn load(directory: &Path, threads: usize, sequences: usize) -> anyhow::Result<Self> {
        let checkpoint = Checkpoint::open(directory)?;
        let backend = Arc::new(Cpu::new(threads)?);
        let identity = checkpoint.identity("bench");
        let map = ExpertMap::contiguous(MapShape::with_redundancy(identity.layers, identity.experts, 1, 0)?)?;
        let slots = map.layers().flat_map(|layer| map.layer(layer).iter().map(move |expert| (layer, *expert)));
        let pages = slots
            .map(|(layer, expert)| Ok(Arc::new(load_expert(&*backend, &checkpoint, layer, expert)?)))
            .collect::<anyhow::Result<_>>()?;
        let table = ExpertTable::new(&map, RankId(0), 0, pages);
        let cache = CacheSize { blocks: sequences * BLOCKS_PER_SEQUENCE, block_tokens: BLOCK_TOKENS };
        Ok(Self { model: Model::load(backend, &checkpoint, cache)?, table })
    }

    /// Runs the tokens of each sequence from `position` on and gives the next token of each.
    fn step(&mut self, tokens: &[&[u32]], position: usize) -> anyhow::Result<Vec<u32>> {
        let greedy = Sampling { temperature: 0.0, top_p: 1.0, top_k: 0, seed: 0, logprob: false };
        let step = |(sequence, tokens): (usize, &&[u32])| {
            let blocks = (position + tokens.len()).div_ceil(BLOCK_TOKENS);
            let first = sequence * BLOCKS_PER_SEQUENCE;
            SequenceStep {
                sequence: SequenceId(sequence as u64),
                position: position as u32,
                tokens: tokens.to_vec(),
                blocks: (first..first + blocks).map(|block| block as u32).collect(),
                sample: Some(greedy),
                score: Vec::new(),
                top_logprobs: 0,
            }
        };
        let batch: Vec<SequenceStep> = tokens.iter().enumerate().map(step).collect();
        let (outputs, _) = self.model.step(&batch, &mut self.table, &mut Solo)?;
        outputs.into_iter().map(|output| Ok(output.token.context("a token was asked for")?.token)).collect()
    }

    /// One repetition of a case.
    fn once(&mut self, prompts: &[&[u32]], prefill: bool) -> anyhow::Result<Cost> {
        let start = Clocks::now();
        let mut next = self.step(prompts, 0)?;
        if prefill {
            return Ok(start.cost(prompts.len() * PREFILL_TOKENS));
        }
        let start = Clocks::now();
        for step in 0..DECODE_STEPS {
            let tokens: Vec<&[u32]> = next.iter().map(std::slice::from_ref).collect();
            next = self.step(&tokens, DECODE_PROMPT + step)?;
        }
        Ok(start.cost(prompts.len() * DECODE_STEPS))
    }
}

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [model, prompts, cases, threads, seconds] = &arguments[..] else {
        bail!("usage: engine-bench MODEL_DIR PROMPTS CASES THREADS SECONDS");
    };
    let prompts = std::fs::read_to_string(prompts).with_context(|| format!("failed to read {prompts}"))?;
    let prompts: Vec<Vec<u32>> = prompts
        .lines()
        .map(|line| line.split_whitespace().map(str::parse).collect::<Result<_, _>>())
        .collect::<Result<_, _>>()?;
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
    engine.once(prompts, prefill)?;
    let mut total = Cost::default();
    while total.wall < seconds {
        let cost = engine.once(prompts, prefill)?;
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
