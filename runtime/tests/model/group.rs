//! A group of ranks in this process that runs sequences through the model.

use std::path::Path;
use std::sync::Arc;

use kernels::cpu::{self, Cpu, CpuQueue, Instructions};
use kernels::{Arena, Page, Queue as _};
use plan::ids::ExpertId;
use plan::map::{ExpertMap, MapShape};
use plan::topology::Topology;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use runtime::experts::routing::RankMap;
use runtime::fabric::exchange::host::HostExchange;
use runtime::fabric::in_process::InProcess;
use runtime::fabric::{Fabric as _, in_process};
use runtime::model::checkpoint::Checkpoint;
use runtime::model::forward::{CacheSize, KvCache, Model, StepInput, Watch, Workspace, expert_shape, load_expert};
use runtime::protocol::{Sampling, SequenceId, SequenceOutput, SequenceStep};

const BLOCK_TOKENS: usize = 16;

/// How sequences are run.
#[derive(Clone)]
pub struct Run {
    pub map: ExpertMap,
    /// Most tokens of a sequence in one step.
    pub chunk: usize,
    /// All sequences of a rank in one batch, or one after the other.
    pub batched: bool,
    pub threads: usize,
    pub instructions: Instructions,
}

impl Run {
    /// Whole prompts, one sequence at a time, one rank, one thread.
    pub fn plain(checkpoint: &Path) -> Self {
        Self {
            map: ExpertMap::contiguous(shape(checkpoint, 1, 0)).unwrap(),
            chunk: usize::MAX,
            batched: false,
            threads: 1,
            instructions: Instructions::available()[0],
        }
    }
}

impl Run {
    /// Its ranks on two nodes, if they are that many: tokens stay on their node where they can.
    fn topology(&self) -> Topology {
        let shape = self.map.shape();
        let nodes = if shape.ranks.is_multiple_of(2) { 2 } else { 1 };
        Topology::even(nodes, shape.ranks, shape.slots_per_rank).unwrap()
    }
}

/// Shape of a map for a checkpoint.
pub fn shape(checkpoint: &Path, ranks: usize, redundancy: usize) -> MapShape {
    let checkpoint = Checkpoint::open(checkpoint).unwrap();
    let model = checkpoint.identity("test");
    MapShape::with_redundancy(model.layers, model.experts, ranks, redundancy).unwrap()
}

/// A random placement in which the redundant experts of each layer are random ones.
pub fn random_map(shape: MapShape, seed: u64) -> ExpertMap {
    let mut random = StdRng::seed_from_u64(seed);
    let mut slots = Vec::new();
    for _ in 0..shape.layers {
        loop {
            let mut layer: Vec<u32> = (0..shape.experts as u32).collect();
            let extra = (0..shape.redundancy()).map(|_| random.random_range(0..shape.experts as u32));
            layer.extend(extra.collect::<Vec<_>>());
            layer.shuffle(&mut random);
            let twice = layer.chunks(shape.slots_per_rank).any(|rank| {
                let mut rank = rank.to_vec();
                rank.sort_unstable();
                rank.windows(2).any(|pair| pair[0] == pair[1])
            });
            if !twice {
                slots.extend(layer.into_iter().map(ExpertId));
                break;
            }
        }
    }
    ExpertMap::new(shape, slots).unwrap()
}

/// A sequence to run.
#[derive(Clone, Debug)]
pub struct Sequence {
    pub prompt: Vec<u32>,
    /// Tokens to choose greedily after it.
    pub new: usize,
}

/// What became of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    pub tokens: Vec<u32>,
    /// Of every position that was computed, `[prompt + new - 1, vocabulary]`.
    pub logits: Vec<f32>,
}

/// Runs sequences, dealt to the ranks in turn. Gives their outcomes in order and the pairs computed by each rank.
pub fn run(checkpoint: &Path, run: &Run, sequences: &[Sequence]) -> (Vec<Outcome>, Vec<u64>) {
    let ranks = run.map.shape().ranks;
    let steps = |sequence: &Sequence| sequence.prompt.len().div_ceil(run.chunk) + sequence.new - 1;
    let alone = sequences.iter().map(steps).sum();
    let total = if run.batched { sequences.iter().map(steps).max().unwrap_or(0) } else { alone };
    let results: Vec<(Vec<Outcome>, u64)> = std::thread::scope(|scope| {
        let threads: Vec<_> = in_process::connect(ranks)
            .into_iter()
            .map(|fabric| {
                scope.spawn(move || {
                    let rank = fabric.rank().index();
                    let own = sequences.iter().enumerate().filter(|(index, _)| index % ranks == rank);
                    let mut states: Vec<State> = own.map(|(id, sequence)| State::new(id, sequence)).collect();
                    let mut member = Member::new(checkpoint, run, fabric);
                    for _ in 0..total {
                        member.step(run, &mut states);
                    }
                    (states.into_iter().map(|state| state.outcome).collect(), member.pairs)
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let pairs = results.iter().map(|(_, pairs)| *pairs).collect();
    let mut by_rank: Vec<_> = results.into_iter().map(|(outcomes, _)| outcomes.into_iter()).collect();
    ((0..sequences.len()).map(|index| by_rank[index % ranks].next().unwrap()).collect(), pairs)
}

/// Takes the logits of a step, `[tokens, vocabulary]`.
struct Logits<'a>(&'a mut Vec<f32>);

impl Watch<Cpu> for Logits<'_> {
    const READS_LOGITS: bool = true;

    fn enqueued(&mut self, (): ()) {}

    fn logits(&mut self, queue: &CpuQueue, rows: &cpu::Buffer<f32>) {
        self.0.extend_from_slice(&queue.read(rows));
    }
}

struct Member {
    model: Model<Cpu>,
    workspace: Workspace<Cpu>,
    /// What the slots point at.
    _pages: Vec<Page<Cpu>>,
    exchange: HostExchange<InProcess>,
    pairs: u64,
}

impl Member {
    fn new(directory: &Path, run: &Run, fabric: InProcess) -> Self {
        let checkpoint = Checkpoint::open(directory).unwrap();
        let backend = Arc::new(Cpu::with_instructions(run.instructions, run.threads));
        let cache = CacheSize { blocks: 1024, block_tokens: BLOCK_TOKENS };
        let rank = fabric.rank();
        let own =
            run.map.layers().flat_map(|layer| run.map.rank(layer, rank).iter().map(move |expert| (layer, *expert)));
        let arena = Arena::new(Arc::clone(&backend), expert_shape(&checkpoint)).unwrap();
        let load = |(layer, expert)| {
            let mut page = arena.take().unwrap();
            load_expert(&checkpoint, layer, expert, &mut page).unwrap();
            page
        };
        let pages: Vec<Page<Cpu>> = own.map(load).collect();
        let numbers = pages.iter().map(Page::id).collect();
        let routing = RankMap::new(&run.map, &run.topology(), rank, 0, numbers);
        let config = checkpoint.config();
        let group = routing.group(config.router.top_k, 2048);
        let cache = KvCache::new(&*backend, config, cache, None).unwrap();
        let workspace = Workspace::new(arena, config, cache, group, routing.layers()).unwrap();
        let exchange = HostExchange::new(fabric, group, config.hidden);
        Self { model: Model::load(backend, &checkpoint).unwrap(), workspace, exchange, _pages: pages, pairs: 0 }
    }

    fn step(&mut self, run: &Run, states: &mut [State]) {
        let mut open: Vec<&mut State> = states.iter_mut().filter(|state| !state.done()).collect();
        if !run.batched {
            open.truncate(1);
        }
        let batch: Vec<SequenceStep> = open.iter().map(|state| state.next(run.chunk)).collect();
        let Self { model, workspace, exchange, pairs, .. } = self;
        let mut logits = Vec::new();
        let (outcome, _) =
            model.step(StepInput::alone(&batch, Vec::new()), workspace, exchange, Logits(&mut logits)).unwrap();
        *pairs += outcome.slot_pairs.sum();
        let mut rest = &logits[..];
        for ((state, step), output) in open.iter_mut().zip(&batch).zip(&outcome.outputs) {
            let (own, left) = rest.split_at(step.tokens.len() * self.model.config().vocabulary);
            state.take((step, output), own, self.model.config().vocabulary);
            rest = left;
        }
        assert!(rest.is_empty(), "a row for each token");
    }
}

/// A sequence under way.
struct State {
    id: usize,
    /// Prompt and chosen tokens.
    tokens: Vec<u32>,
    prompt: usize,
    new: usize,
    computed: usize,
    outcome: Outcome,
}

impl State {
    fn new(id: usize, sequence: &Sequence) -> Self {
        let outcome = Outcome { tokens: Vec::new(), logits: Vec::new() };
        let (prompt, new) = (sequence.prompt.len(), sequence.new);
        Self { id, tokens: sequence.prompt.clone(), prompt, new, computed: 0, outcome }
    }

    fn done(&self) -> bool {
        self.outcome.tokens.len() == self.new
    }

    fn next(&self, chunk: usize) -> SequenceStep {
        let end = self.tokens.len().min(self.computed.saturating_add(chunk));
        // Blocks of sequences lie between each other, in descending order.
        let blocks = (0..end.div_ceil(BLOCK_TOKENS)).map(|block| (1023 - 16 * block - self.id) as u32).collect();
        SequenceStep {
            sequence: SequenceId(self.id as u64),
            position: self.computed as u32,
            tokens: self.tokens[self.computed..end].to_vec(),
            blocks,
            sample: (end == self.tokens.len()).then_some(Sampling::GREEDY),
            // Its logits are asked for, of each token.
            score: vec![Some(0); end - self.computed],
            top_logprobs: 0,
        }
    }

    fn take(&mut self, (step, output): (&SequenceStep, &SequenceOutput), logits: &[f32], vocabulary: usize) {
        self.computed += step.tokens.len();
        self.outcome.logits.extend_from_slice(logits);
        if self.computed >= self.prompt {
            let last = &logits[logits.len() - vocabulary..];
            let best = last.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let token = last.iter().position(|logit| logit.total_cmp(&best).is_eq()).unwrap() as u32;
            assert_eq!(output.token.as_ref().map(|drawn| drawn.token), Some(token), "the best is drawn on the device");
            self.tokens.push(token);
            self.outcome.tokens.push(token);
        }
    }
}
