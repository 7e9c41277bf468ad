//! A rank that holds a whole model with drawn weights, and some pages more, to which a commit may move experts.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, anyhow};
use kernels::cuda::Cuda;
use kernels::routing::LayerRouting;
use kernels::{Arena, Page, PageId};
use plan::ids::{ExpertId, LayerId, RankId};
use plan::map::{ExpertMap, MapShape};
use plan::topology::Topology;
use runtime::experts::routing::RankMap;
use runtime::fabric::exchange::host::HostExchange;
use runtime::fabric::in_process::{self, InProcess};
use runtime::model::checkpoint::{Checkpoint, WeightSeed};
use runtime::model::forward::{CacheSize, KvCache, Model, StepInput, Workspace, expert_shape, load_expert};
use runtime::protocol::{Sampling, SequenceId, SequenceOutput, SequenceStep};

const BLOCK_TOKENS: usize = 16;

/// See the module's documentation.
pub struct Rank {
    model: Model<Cuda>,
    workspace: Workspace<Cuda>,
    exchange: HostExchange<InProcess>,
    map: ExpertMap,
    topology: Topology,
    /// Of the experts, in order.
    pages: Vec<Page<Cuda>>,
    /// Of the same experts as the first pages.
    spare: Vec<Page<Cuda>>,
    vocabulary: usize,
    context: usize,
}

impl Rank {
    /// One for so many sequences of so many tokens at most.
    pub fn new(gpu: &Arc<Cuda>, folder: &Path, sequences: usize, context: usize) -> Result<Self> {
        let checkpoint = Checkpoint::drawn(folder, WeightSeed(1))?;
        let config = checkpoint.config();
        let shape = MapShape::with_redundancy(config.sparse_layers(), config.experts.count, 1, 0)?;
        let map = ExpertMap::contiguous(shape)?;
        let arena = Arena::new(Arc::clone(gpu), expert_shape(&checkpoint))?;
        let load = |layer: LayerId, expert: ExpertId| {
            let mut page = arena.take()?;
            load_expert(&checkpoint, layer, expert, &mut page)?;
            Ok(page)
        };
        let experts = || (0..shape.experts as u32).map(ExpertId);
        let of_all = map.layers().flat_map(|layer| experts().map(move |expert| (layer, expert)));
        let pages: Vec<Page<Cuda>> = of_all.map(|(layer, expert)| load(layer, expert)).collect::<Result<_>>()?;
        let spare = experts().map(|expert| load(LayerId(0), expert)).collect::<Result<_>>()?;
        let topology = Topology::even(1, 1, shape.slots_per_rank).map_err(|error| anyhow!("{error:?}"))?;
        let blocks = sequences * (context + 1).div_ceil(BLOCK_TOKENS);
        let cache = KvCache::new(&**gpu, config, CacheSize { blocks, block_tokens: BLOCK_TOKENS }, None)?;
        let numbers = pages.iter().map(Page::id).collect();
        let routing = RankMap::new(&map, &topology, RankId(0), 0, numbers);
        let group = routing.group(config.router.top_k, sequences.max(512));
        let workspace = Workspace::new(arena, config, cache, group, routing.layers())?;
        let fabric = in_process::connect(1).into_iter().next().context("one rank")?;
        let exchange = HostExchange::new(fabric, group, config.hidden);
        let vocabulary = config.vocabulary;
        let model = Model::load(Arc::clone(gpu), &checkpoint)?;
        Ok(Self { model, workspace, exchange, map, topology, pages, spare, vocabulary, context })
    }

    /// Reads so many tokens of each sequence, as many at a time as a step takes.
    pub fn prefill(&mut self, sequences: usize) -> Result<()> {
        for sequence in 0..sequences {
            for first in (0..self.context).step_by(256) {
                let tokens: Vec<u32> =
                    (first..self.context.min(first + 256)).map(|place| self.token(sequence, place)).collect();
                let part = self.part(sequence, first, tokens, false);
                self.step(&[part], Vec::new())?;
            }
        }
        Ok(())
    }

    /// The step in which each sequence has read its tokens and gets one more; the same every time.
    pub fn decode(&self, sequences: usize) -> Vec<SequenceStep> {
        let one = |sequence| self.part(sequence, self.context, vec![self.token(sequence, self.context)], true);
        (0..sequences).map(one).collect()
    }

    /// Any token, the same every time.
    const fn token(&self, sequence: usize, place: usize) -> u32 {
        ((sequence * 7919 + place * 104_729) % self.vocabulary) as u32
    }

    fn part(&self, sequence: usize, position: usize, tokens: Vec<u32>, is_last: bool) -> SequenceStep {
        let each = (self.context + 1).div_ceil(BLOCK_TOKENS);
        let blocks = (position + tokens.len()).div_ceil(BLOCK_TOKENS);
        SequenceStep {
            sequence: SequenceId(sequence as u64),
            position: position as u32,
            tokens,
            blocks: (0..blocks).map(|block| (sequence * each + block) as u32).collect(),
            sample: is_last.then_some(Sampling::GREEDY),
            score: Vec::new(),
            top_logprobs: 0,
        }
    }

    /// Runs a step, with the routing of layers where that changes.
    pub fn step(&mut self, batch: &[SequenceStep], changes: Vec<LayerRouting>) -> Result<Vec<SequenceOutput>> {
        let (outcome, _) =
            self.model.step(StepInput::alone(batch, changes), &mut self.workspace, &mut self.exchange, drop)?;
        Ok(outcome.outputs)
    }

    /// What moves so many slots of the first layer to other pages with the same experts, or back.
    pub fn commit(&self, slots: usize, away: bool) -> Vec<LayerRouting> {
        let mut numbers: Vec<PageId> = self.pages.iter().map(Page::id).collect();
        if away {
            for (number, page) in numbers.iter_mut().zip(&self.spare).take(slots) {
                *number = page.id();
            }
        }
        RankMap::new(&self.map, &self.topology, RankId(0), 0, numbers).layers().into_iter().take(1).collect()
    }

    /// Slots of the first layer.
    pub fn slots(&self) -> usize {
        self.spare.len()
    }
}
