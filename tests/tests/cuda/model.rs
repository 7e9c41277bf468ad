//! The model on the GPU's backend: its logits against those of transformers, and itself to the bit on any number of ranks, in any
//! chunks, under maps that change while it runs.

use std::any::Any;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use kernels::cuda::Cuda;
use kernels::link::LinkShape;
use kernels::routing::{GroupShape, LayerRouting};
use kernels::{Arena, Backend, Page, Queue as _};
use plan::ids::{ExpertId, RankId};
use plan::map::{ExpertMap, MapShape};
use plan::topology::Topology;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use runtime::experts::routing::RankMap;
use runtime::fabric::Fabric as _;
use runtime::fabric::exchange::device::PATIENCE;
use runtime::fabric::exchange::form::Forming;
use runtime::fabric::exchange::means::Means;
use runtime::fabric::exchange::{Exchange, ExchangeCloser};
use runtime::fabric::in_process::{self, InProcess};
use runtime::fabric::neighbours::{Key, Neighbours};
use runtime::fabric::purpose::GroupId;
use runtime::model::checkpoint::Checkpoint;
use runtime::model::forward::{CacheSize, KvCache, Model, StepInput, Watch, Workspace, expert_shape, load_expert};
use runtime::protocol::{Sampling, SequenceId, SequenceOutput, SequenceStep, StepExtent};
use safetensors::SafeTensors;
use serde::Deserialize;
use tests::emulator::counters::Counters;
use tests::workspace;

const BLOCK_TOKENS: usize = 16;
/// Blocks of each sequence: as many tokens as any test has of one.
const BLOCKS_EACH: usize = 4;
/// Most tokens of a step.
const STEP_TOKENS: usize = 96;
/// Best tokens that are compared beside the chosen one.
const COMPARED: u32 = 8;

/// How far logits are from the reference's, of one or of the logit where that is more: an order of additions, and what is left of
/// activations that are kept in two terms of bfloat16.
const CLOSE: f32 = 1e-3;

/// Moves that must not change a bit, whatever rows are exchanged by.
pub const FORCED_MOVES: usize = 500;

/// A test by its name.
pub type Test = (&'static str, fn() -> Result<()>);

/// The tests of this file.
pub const CASES: &[Test] = &[
    ("small_models_of_every_kind_have_the_references_logits", small_models_of_every_kind_have_the_references_logits),
    ("the_trained_model_has_the_references_logits", the_trained_model_has_the_references_logits),
    ("ranks_chunks_and_moves_change_no_bit", ranks_chunks_and_moves_change_no_bit),
];

#[derive(Deserialize)]
struct Oracle {
    prompts: Vec<Prompt>,
}

/// A prompt and what the reference makes of it.
#[derive(Deserialize)]
pub struct Prompt {
    name: String,
    pub ids: Vec<u32>,
    /// Logits of its last positions, of all for some prompts.
    #[serde(skip)]
    logits: Vec<f32>,
}

pub fn prompts(folder: &Path) -> Result<Vec<Prompt>> {
    let mut oracle: Oracle = serde_json::from_slice(&std::fs::read(folder.join("oracle.json"))?)?;
    let bytes = std::fs::read(folder.join("oracle.safetensors"))?;
    let tensors = SafeTensors::deserialize(&bytes)?;
    for prompt in &mut oracle.prompts {
        let all = tensors.tensor(&format!("{}.logits", prompt.name));
        let tensor = all.or_else(|_| tensors.tensor(&format!("{}.last", prompt.name)))?;
        let (words, _) = tensor.data().as_chunks::<4>();
        prompt.logits = words.iter().map(|word| f32::from_le_bytes(*word)).collect();
    }
    Ok(oracle.prompts)
}

pub fn variant(name: &str) -> PathBuf {
    workspace::root().join("tests/models/variants").join(name)
}

/// One rank of a group, with a GPU.
pub struct Member {
    pub checkpoint: Checkpoint,
    pub model: Model<Cuda>,
    pub workspace: Workspace<Cuda>,
    pub arena: Arc<Arena<Cuda>>,
    /// What the slots point at.
    pub pages: Vec<Page<Cuda>>,
    pub exchange: Box<dyn Exchange<Cuda>>,
    /// Ends its waits for other ranks.
    pub closer: Option<ExchangeCloser>,
    pub rank: RankId,
}

/// Takes the logits of a step, `[tokens, vocabulary]`.
struct Logits<'a>(&'a mut Vec<f32>);

impl Watch<Cuda> for Logits<'_> {
    const READS_LOGITS: bool = true;

    fn enqueued(&mut self, _: <Cuda as Backend>::Mark) {}

    fn logits(&mut self, queue: &<Cuda as Backend>::Queue, rows: &<Cuda as Backend>::Buffer<f32>) {
        self.0.extend_from_slice(&queue.read(rows));
    }
}

/// How the ranks of a group exchange rows, and are asked for steps.
#[derive(Clone)]
pub struct Way {
    pub means: Means,
    /// The GPUs that ranks take in turn.
    pub gpus: usize,
    /// How long a GPU waits for another rank's.
    pub patience: Duration,
    pub neighbours: Neighbours,
    /// Whether steps that are alike are captured.
    pub has_graphs: bool,
}

impl Way {
    pub fn new(means: Means, gpus: usize) -> Self {
        Self { means, gpus, patience: PATIENCE, neighbours: Neighbours::default(), has_graphs: true }
    }
}

impl Member {
    pub fn new(folder: &Path, map: &ExpertMap, fabric: InProcess, way: &Way) -> Result<Self> {
        let rank = fabric.rank();
        let (checkpoint, device) = (Checkpoint::open(folder)?, Cuda::new(rank.index() % way.gpus)?);
        let backend = Arc::new(if way.has_graphs { device } else { device.without_graphs() });
        let arena = Arena::new(Arc::clone(&backend), expert_shape(&checkpoint))?;
        let (layers, pages) = held(&checkpoint, &arena, map, rank)?;
        let (workspace, group) = Self::workspace(&checkpoint, &arena, (map, rank), layers)?;
        let forming = Forming {
            device: &*backend,
            neighbours: &way.neighbours,
            group: GroupId { generation: 1, nonce: 7 },
            shape: LinkShape { group, page: expert_shape(&checkpoint) },
            possible: &[way.means],
            patience: way.patience,
        };
        let shared: Arc<dyn Any + Send + Sync> = Arc::clone(&backend) as _;
        way.neighbours.share(Key::Device(rank.to_string()), &shared);
        let formed = forming.form(fabric)?;
        for other in (0..group.ranks).filter(|_| formed.closer.is_some()).map(RankId::from) {
            let device = way.neighbours.find(&Key::Device(other.to_string())).context("a rank's device")?;
            let device = device.downcast::<Cuda>().map_err(|_| anyhow!("a GPU"))?;
            backend.linking().context("GPUs have links")?.reach(&device)?;
        }
        ensure!(formed.means == (group.ranks > 1).then_some(way.means), "{:?}", formed.means);
        let model = Model::load(backend, &checkpoint)?;
        let (exchange, closer) = (formed.exchange, formed.closer);
        Ok(Self { checkpoint, model, workspace, arena, pages, exchange, closer, rank })
    }

    /// The memory of its steps, with this routing of each layer.
    pub fn workspace(
        checkpoint: &Checkpoint,
        arena: &Arc<Arena<Cuda>>,
        (map, rank): (&ExpertMap, RankId),
        layers: Vec<LayerRouting>,
    ) -> Result<(Workspace<Cuda>, GroupShape)> {
        let (config, shape) = (checkpoint.config(), map.shape());
        let group = GroupShape {
            ranks: shape.ranks,
            rank: rank.index(),
            layers: shape.layers,
            slots: shape.slots_per_rank,
            top_k: config.router.top_k,
            tokens: STEP_TOKENS,
        };
        let size = CacheSize { blocks: 8 * BLOCKS_EACH, block_tokens: BLOCK_TOKENS };
        let cache = KvCache::new(&**arena.backend(), config, size, None)?;
        Ok((Workspace::new(Arc::clone(arena), config, cache, group, layers)?, group))
    }

    /// A step in which all ranks have as much, under another map from its begin on if there is one.
    pub fn step(&mut self, batch: &[SequenceStep], map: Option<&ExpertMap>) -> Result<Vec<SequenceOutput>> {
        self.step_within(batch, StepInput::alone(batch, Vec::new()).extent, map)
    }

    /// The same of ranks of which none has more than this.
    fn step_within(
        &mut self,
        batch: &[SequenceStep],
        extent: StepExtent,
        map: Option<&ExpertMap>,
    ) -> Result<Vec<SequenceOutput>> {
        let Self { checkpoint, model, workspace, arena, pages, exchange, closer: _, rank } = self;
        let next = map.map(|map| held(checkpoint, arena, map, *rank)).transpose()?;
        let (changes, now) = next.map_or((Vec::new(), None), |(routing, now)| (routing, Some(now)));
        let input = StepInput { batch, changes, extent };
        let (outcome, _) = model.step(input, workspace, &mut **exchange, drop)?;
        // What slots pointed at is used again only now that no step can read it.
        if let Some(now) = now {
            *pages = now;
        }
        Ok(outcome.outputs)
    }
}

/// The experts that a rank holds under a map, read into pages, and the routing that points at those.
pub fn held(
    checkpoint: &Checkpoint,
    arena: &Arc<Arena<Cuda>>,
    map: &ExpertMap,
    rank: RankId,
) -> Result<(Vec<LayerRouting>, Vec<Page<Cuda>>)> {
    let experts = map.layers().flat_map(|layer| map.rank(layer, rank).iter().map(move |expert| (layer, *expert)));
    let load = |(layer, expert)| {
        let mut page = arena.take()?;
        load_expert(checkpoint, layer, expert, &mut page)?;
        Ok(page)
    };
    let pages: Vec<Page<Cuda>> = experts.map(load).collect::<Result<_>>()?;
    let shape = map.shape();
    let topology = Topology::even(1, shape.ranks, shape.slots_per_rank).map_err(|error| anyhow!("{error:?}"))?;
    let numbers = pages.iter().map(Page::id).collect();
    Ok((RankMap::new(map, &topology, rank, 0, numbers).layers(), pages))
}

pub fn alone(folder: &Path, has_graphs: bool) -> Result<(ExpertMap, Member)> {
    let map = ExpertMap::contiguous(shape(folder, 1, 0)?)?;
    let fabric = in_process::connect(1).into_iter().next().context("one rank")?;
    let member = Member::new(folder, &map, fabric, &Way { has_graphs, ..Way::new(Means::Tcp, 1) })?;
    Ok((map, member))
}

pub fn shape(folder: &Path, ranks: usize, redundancy: usize) -> Result<MapShape> {
    let model = Checkpoint::open(folder)?.identity("test");
    Ok(MapShape::with_redundancy(model.layers, model.experts, ranks, redundancy)?)
}

/// The step of a sequence: some of its tokens, and the next token if they are the last.
pub fn part(sequence: usize, place: usize, tokens: &[u32], first: usize, is_last: bool) -> SequenceStep {
    let blocks = (first + tokens.len()).div_ceil(BLOCK_TOKENS);
    SequenceStep {
        sequence: SequenceId(sequence as u64),
        position: first as u32,
        tokens: tokens.to_vec(),
        blocks: (0..blocks).map(|block| (place * BLOCKS_EACH + block) as u32).collect(),
        sample: is_last.then_some(Sampling::GREEDY),
        score: Vec::new(),
        top_logprobs: if is_last { COMPARED } else { 0 },
    }
}

/// Logits of each prompt's tokens, `[tokens, vocabulary]`, as the first of so many ranks computes them; the others have no tokens.
fn logits(folder: &Path, ranks: usize, prompts: &[&Prompt]) -> Result<Vec<Vec<f32>>> {
    let (map, way) = (ExpertMap::contiguous(shape(folder, ranks, 0)?)?, Way::new(Means::Tcp, 1));
    let of_rank = |fabric: InProcess| -> Result<Vec<Vec<f32>>> {
        let is_first = fabric.rank() == RankId(0);
        let Member { mut model, mut workspace, mut exchange, .. } = Member::new(folder, &map, fabric, &way)?;
        let of_prompt = |prompt: &&Prompt| {
            // The logits of each token are asked for.
            let batch = [SequenceStep { score: vec![Some(0); prompt.ids.len()], ..part(0, 0, &prompt.ids, 0, false) }];
            let StepInput { changes, extent, .. } = StepInput::alone(&batch, Vec::new());
            let input = StepInput { batch: if is_first { &batch } else { &[] }, changes, extent };
            let mut logits = Vec::new();
            model.step(input, &mut workspace, &mut *exchange, Logits(&mut logits))?;
            Ok(logits)
        };
        prompts.iter().map(of_prompt).collect()
    };
    std::thread::scope(|scope| {
        let fabrics = in_process::connect(ranks).into_iter();
        let threads: Vec<_> = fabrics.map(|fabric| scope.spawn(|| of_rank(fabric))).collect();
        let results = threads.into_iter().map(|thread| thread.join().map_err(|_| anyhow!("a rank panicked"))?);
        results.collect::<Result<Vec<_>>>()?.into_iter().next().context("a rank")
    })
}

/// Logits of so many ranks within `tolerance` of the reference's, of one or of the logit where that is more; and the best token its
/// best wherever that is ahead by 0.05.
fn check((folder, oracle): (&Path, &Path), names: &[&str], ranks: usize, tolerance: f32) -> Result<()> {
    let prompts = prompts(oracle)?;
    let wanted: Vec<&Prompt> = prompts.iter().filter(|prompt| names.contains(&prompt.name.as_str())).collect();
    let (mut compared, mut most) = (0, 0.0_f32);
    for (prompt, logits) in wanted.iter().zip(logits(folder, ranks, &wanted)?) {
        let vocabulary = logits.len() / prompt.ids.len();
        let found = &logits[logits.len() - prompt.logits.len()..];
        for (expected, found) in prompt.logits.chunks(vocabulary).zip(found.chunks(vocabulary)) {
            let difference = |(a, b): (&f32, &f32)| (a - b).abs() / a.abs().max(1.0);
            let worst = expected.iter().zip(found).map(difference).fold(0.0, f32::max);
            most = most.max(worst);
            ensure!(worst <= tolerance, "{}, {}: logits differ by {worst}", folder.display(), prompt.name);
            let best = |logits: &[f32]| (0..vocabulary).max_by(|&a, &b| logits[a].total_cmp(&logits[b]));
            let (first, ours) = (best(expected).context("a vocabulary")?, best(found).context("a vocabulary")?);
            let rest = expected.iter().enumerate().filter(|(token, _)| *token != first).map(|(_, logit)| *logit);
            let gap = expected[first] - rest.fold(f32::NEG_INFINITY, f32::max);
            ensure!(ours == first || gap <= 0.05, "{}, {}: {ours} instead of {first}", folder.display(), prompt.name);
            compared += 1;
        }
    }
    ensure!(compared > 0, "nothing was compared");
    let (name, ranks) = (folder.file_name().unwrap_or_default().display(), plan::words::counted(ranks, "rank"));
    println!("figure: {name}, {ranks}: {compared} rows of logits, the farthest {most:.1e} from the reference's");
    Ok(())
}

fn small_models_of_every_kind_have_the_references_logits() -> Result<()> {
    for (name, tolerance) in [
        ("base", CLOSE),
        ("attention_bias", CLOSE),
        ("dense_layers", CLOSE),
        ("sharded_v5", CLOSE),
        ("norm_topk_false_f16", 1e-4),
        ("tied_f32", 1e-4),
    ] {
        let names = ["trace", "scripture", "chat_capital", "chat_sum"];
        check((&variant(name), &variant(name)), &names, 1, tolerance)?;
    }
    Ok(())
}

fn the_trained_model_has_the_references_logits() -> Result<()> {
    let root = workspace::root();
    let (model, oracle) = (root.join("examples/models/tiny-moe"), root.join("tests/models/tiny-moe-oracle"));
    let names = ["trace", "scripture", "one_token"];
    [(1, &names[..]), (2, &names[2..]), (4, &names[2..])]
        .into_iter()
        .try_for_each(|(ranks, names)| check((&model, &oracle), names, ranks, CLOSE))
}

/// A random placement.
pub fn random_map(shape: MapShape, random: &mut StdRng) -> Result<ExpertMap> {
    let mut slots = Vec::new();
    while slots.len() < shape.layers * shape.ranks * shape.slots_per_rank {
        let mut layer: Vec<u32> = (0..shape.experts as u32).collect();
        layer.extend((0..shape.redundancy()).map(|_| random.random_range(0..shape.experts as u32)).collect::<Vec<_>>());
        layer.shuffle(random);
        let twice = layer.chunks(shape.slots_per_rank).any(|rank| {
            let mut rank = rank.to_vec();
            rank.sort_unstable();
            rank.windows(2).any(|pair| pair[0] == pair[1])
        });
        if !twice {
            slots.extend(layer.into_iter().map(ExpertId));
        }
    }
    Ok(ExpertMap::new(shape, slots)?)
}

/// How sequences are run.
pub struct Run<'a> {
    pub folder: &'a Path,
    /// One after the other, every few steps.
    pub maps: &'a [ExpertMap],
    /// Most tokens of a sequence in one step.
    pub chunk: usize,
    /// Tokens that are chosen of each.
    pub new: usize,
    pub way: Way,
}

/// How much a step is on the rank where it is most.
fn extent(run: &Run<'_>, prompts: &[Vec<u32>], step: usize) -> StepExtent {
    let ranks = run.maps[0].shape().ranks;
    let tokens = |prompt: &Vec<u32>| match prompt.len().saturating_sub(step * run.chunk) {
        0 => usize::from(step < prompt.len().div_ceil(run.chunk) + run.new - 1),
        left => left.min(run.chunk),
    };
    let of_rank = |rank| StepExtent::of_rank(prompts.iter().skip(rank).step_by(ranks).map(tokens));
    (0..ranks).map(of_rank).fold(StepExtent::default(), StepExtent::or)
}

/// What each sequence gave at each token that was chosen, and how many slots were changed.
pub fn run(run: &Run<'_>, prompts: &[Vec<u32>]) -> Result<(Vec<Vec<SequenceOutput>>, usize)> {
    let ranks = run.maps[0].shape().ranks;
    let steps = prompts.iter().map(|prompt| prompt.len().div_ceil(run.chunk) + run.new - 1).max().unwrap_or(0);
    let of_rank = |fabric: InProcess| -> Result<(Vec<Vec<SequenceOutput>>, usize)> {
        let rank = fabric.rank().index();
        let mut member = Member::new(run.folder, &run.maps[0], fabric, &run.way)?;
        let own: Vec<usize> = (0..prompts.len()).filter(|index| index % ranks == rank).collect();
        let mut tokens: Vec<Vec<u32>> = own.iter().map(|&index| prompts[index].clone()).collect();
        let (mut done, mut outputs) = (vec![0; own.len()], vec![Vec::new(); own.len()]);
        let (mut index, mut moved) = (0, 0);
        for step in 0..steps {
            let mut batch = Vec::new();
            for place in (0..own.len()).filter(|&place| outputs[place].len() < run.new) {
                let (first, all) = (done[place], &tokens[place]);
                let end = all.len().min(first + run.chunk);
                batch.push(part(own[place], place, &all[first..end], first, end == all.len()));
            }
            let next = (step > 0).then(|| (index + 1) % run.maps.len()).filter(|next| *next != index);
            let map = next.map(|next| &run.maps[next]);
            moved += map.map_or(0, |map| map.shape().layers * map.shape().slots_per_rank);
            index = next.unwrap_or(index);
            let given = member.step_within(&batch, extent(run, prompts, step), map)?;
            for (part, output) in batch.iter().zip(given) {
                let place = own.iter().position(|&index| index as u64 == part.sequence.0).context("a sequence")?;
                done[place] += part.tokens.len();
                if let Some(token) = &output.token {
                    tokens[place].push(token.token);
                    outputs[place].push(output);
                }
            }
        }
        Ok((outputs, moved))
    };
    let results: Vec<(Vec<Vec<SequenceOutput>>, usize)> = std::thread::scope(|scope| {
        let threads: Vec<_> =
            in_process::connect(ranks).into_iter().map(|fabric| scope.spawn(|| of_rank(fabric))).collect();
        threads.into_iter().map(|thread| thread.join().map_err(|_| anyhow!("a rank panicked"))?).collect::<Result<_>>()
    })?;
    let moved = results.iter().map(|(_, moved)| moved).sum();
    let mut by_rank: Vec<_> = results.into_iter().map(|(outputs, _)| outputs.into_iter()).collect();
    let in_order = (0..prompts.len()).map(|index| by_rank[index % ranks].next().context("a sequence"));
    Ok((in_order.collect::<Result<_>>()?, moved))
}

fn ranks_chunks_and_moves_change_no_bit() -> Result<()> {
    let (mut random, way) = (StdRng::seed_from_u64(1), Way::new(Means::Tcp, 1));
    let mut total = 0;
    for name in ["base", "tied_f32", "dense_layers"] {
        let folder = variant(name);
        let prompts: Vec<Vec<u32>> = prompts(&folder)?.into_iter().take(5).map(|prompt| prompt.ids).collect();
        let plain = ExpertMap::contiguous(shape(&folder, 1, 0)?)?;
        let (expected, _) =
            run(&Run { folder: &folder, maps: &[plain], chunk: 64, new: 6, way: way.clone() }, &prompts)?;
        for (ranks, redundancy, chunk) in [(1, 0, 5), (2, 2, 64), (4, 4, 7)] {
            let shape = shape(&folder, ranks, redundancy)?;
            let maps: Vec<ExpertMap> = (0..3).map(|_| random_map(shape, &mut random)).collect::<Result<_>>()?;
            let (found, moved) = run(&Run { folder: &folder, maps: &maps, chunk, new: 6, way: way.clone() }, &prompts)?;
            for (sequence, (expected, found)) in expected.iter().zip(&found).enumerate() {
                ensure!(
                    expected == found,
                    "{name}, {ranks} ranks, sequence {sequence}: {found:?} instead of {expected:?}"
                );
            }
            total += moved;
        }
    }
    ensure!(total >= FORCED_MOVES, "{total} forced moves");
    println!("figure: 1, 2 and 4 ranks through the hosts: 0 bits differ over {total} forced moves");
    Ok(())
}

/// What was asked of the driver by this process.
pub fn counted() -> Result<Counters> {
    Counters::read(&counters()?)
}

/// How much of the host's memory this process's kernels have read.
pub fn counted_host_bytes() -> Result<u64> {
    Counters::host_bytes(&counters()?)
}

fn counters() -> Result<PathBuf> {
    std::env::var_os("CUDA_MODEL_COUNTERS").map(PathBuf::from).context("a process with a file of counters")
}

/// The same where the driver counts, which a machine's own does not.
pub fn counted_if_emulated() -> Result<Option<Counters>> {
    std::env::var_os("CUDA_MODEL_COUNTERS").map(|file| Counters::read(Path::new(&file))).transpose()
}
