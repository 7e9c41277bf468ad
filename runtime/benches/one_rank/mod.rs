//! One rank that is called directly: no server, no scheduler, no other process.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use kernels::cpu::Cpu;
use kernels::{Arena, Page};
use plan::ids::RankId;
use plan::map::{ExpertMap, MapShape};
use plan::topology::Topology;
use runtime::experts::routing::RankMap;
use runtime::fabric::Solo;
use runtime::fabric::exchange::host::HostExchange;
use runtime::model::checkpoint::Checkpoint;
use runtime::model::forward::{CacheSize, KvCache, Model, StepInput, Workspace, expert_shape, load_expert};
use runtime::protocol::{Sampling, SequenceId, SequenceStep};

/// Tokens of the longest sequence.
pub const MOST_TOKENS: usize = 512;
const BLOCK_TOKENS: usize = 16;
const BLOCKS_PER_SEQUENCE: usize = MOST_TOKENS / BLOCK_TOKENS;

/// The model with all its experts.
pub struct Engine {
    model: Model<Cpu>,
    workspace: Workspace<Cpu>,
    exchange: HostExchange<Solo>,
    /// What the slots point at.
    _pages: Vec<Page<Cpu>>,
}

impl Engine {
    /// With room for this many sequences.
    pub fn load(directory: &Path, threads: usize, sequences: usize) -> anyhow::Result<Self> {
        let checkpoint = Checkpoint::open(directory)?;
        let backend = Arc::new(Cpu::new(threads));
        let arena = Arena::new(Arc::clone(&backend), expert_shape(&checkpoint))?;
        let identity = checkpoint.identity("bench");
        let map = ExpertMap::contiguous(MapShape::with_redundancy(identity.layers, identity.experts, 1, 0)?)?;
        let slots = map.layers().flat_map(|layer| map.layer(layer).iter().map(move |expert| (layer, *expert)));
        let pages = slots
            .map(|(layer, expert)| {
                let mut page = arena.take()?;
                load_expert(&checkpoint, layer, expert, &mut page)?;
                Ok(page)
            })
            .collect::<anyhow::Result<Vec<_>>>()?;
        let numbers = pages.iter().map(|page: &Page<Cpu>| page.id()).collect();
        let topology = Topology::single_node(1, map.shape().slots_per_rank);
        let routing = RankMap::new(&map, &topology, RankId(0), 0, numbers);
        let cache = CacheSize { blocks: sequences * BLOCKS_PER_SEQUENCE, block_tokens: BLOCK_TOKENS };
        let config = checkpoint.config();
        let group = routing.group(config.router.top_k, sequences * MOST_TOKENS);
        let workspace =
            Workspace::new(arena, config, KvCache::new(&*backend, config, cache, None)?, group, routing.layers())?;
        let exchange = HostExchange::new(Solo, group, config.hidden);
        Ok(Self { model: Model::load(backend, &checkpoint)?, workspace, exchange, _pages: pages })
    }

    /// Runs the tokens of the sequences from number `first` on, each from `position` on, and gives the next token of each.
    pub fn step(&mut self, first: usize, tokens: &[&[u32]], position: usize) -> anyhow::Result<Vec<u32>> {
        let greedy = Sampling { temperature: 0.0, top_p: 1.0, top_k: 0, seed: 0, logprob: false };
        let step = |(index, tokens): (usize, &&[u32])| {
            let blocks = (position + tokens.len()).div_ceil(BLOCK_TOKENS);
            let sequence = first + index;
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
        let (outcome, _) =
            self.model.step(StepInput::alone(&batch, Vec::new()), &mut self.workspace, &mut self.exchange, drop)?;
        outcome.outputs.into_iter().map(|output| Ok(output.token.context("a token was asked for")?.token)).collect()
    }
}

/// Prompts, one a line, as token ids.
pub fn read_prompts(path: &Path) -> anyhow::Result<Vec<Vec<u32>>> {
    let text = std::fs::read_to_string(path).with_context(|| format!("failed to read {}", path.display()))?;
    let line = |line: &str| line.split_whitespace().map(str::parse).collect::<Result<_, _>>();
    Ok(text.lines().map(line).collect::<Result<_, _>>()?)
}
