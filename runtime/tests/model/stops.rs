//! What a step asks of its device beside arithmetic: one upload, one download, one wait, and no memory.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use kernels::routing::LayerRouting;
use kernels::{Arena, Page, PageId};
use plan::ids::{ExpertId, LayerId, RankId, SlotIndex};
use plan::map::ExpertMap;
use plan::moves::{SlotChange, Transaction};
use plan::topology::Topology;
use runtime::cancel::Cancel;
use runtime::experts::pages::{HeldPages, RankPages, Swap};
use runtime::experts::routing::RankMap;
use runtime::fabric::exchange::host::HostExchange;
use runtime::fabric::in_process::InProcess;
use runtime::fabric::{Fabric, FabricError, Frame, in_process};
use runtime::model::checkpoint::Checkpoint;
use runtime::model::forward::{
    CacheSize, ForwardError, KvCache, Model, StepInput, Workspace, expert_shape, load_expert,
};
use runtime::protocol::{Commit, Sampling, SequenceId, SequenceStep, TransactionId};

use crate::counting;
use crate::device::Watched;
use crate::fixtures::tiny_moe;
use crate::group::shape;

/// What the host asks the system for in a step of one sequence beside the operations of the device: the list of answers, that of the
/// likely tokens of its one, and the pairs of each slot.
const BY_HOST: u64 = 3;
/// And for a frame to another rank of the same process: its indices, its rows, and the list of who waits for it.
const FOR_FRAME: u64 = 3;

const STEPS: usize = 24;
const BLOCK_TOKENS: usize = 16;

/// What an exchange through the host carries between ranks, which no count of a device has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Carried {
    exchanges: u64,
    /// To other ranks, of both exchanges of a layer.
    frames: u64,
    /// Numbers that say what the rows are.
    indices: [u64; 2],
    /// Elements of rows: sent, and received.
    values: [u64; 2],
}

impl Carried {
    fn since(self, before: Self) -> Self {
        let less = |now: [u64; 2], before: [u64; 2]| [now[0] - before[0], now[1] - before[1]];
        Self {
            exchanges: self.exchanges - before.exchanges,
            frames: self.frames - before.frames,
            indices: less(self.indices, before.indices),
            values: less(self.values, before.values),
        }
    }
}

/// Connections that count what goes over them.
struct Counted {
    fabric: InProcess,
    carried: Arc<Mutex<Carried>>,
}

impl Fabric for Counted {
    fn rank(&self) -> RankId {
        self.fabric.rank()
    }

    fn ranks(&self) -> usize {
        self.fabric.ranks()
    }

    fn all_to_all(&mut self, outgoing: &[Frame], incoming: &mut [Frame]) -> Result<(), FabricError> {
        self.fabric.all_to_all(outgoing, incoming)?;
        let (mut carried, own) = (self.carried.lock().unwrap(), self.rank().index());
        carried.exchanges += 1;
        carried.frames += outgoing.len() as u64 - 1;
        for (way, frames) in [outgoing, incoming].into_iter().enumerate() {
            let others = || frames.iter().enumerate().filter(|(rank, _)| *rank != own).map(|(_, frame)| frame);
            carried.indices[way] += others().map(|frame| frame.indices.len() as u64).sum::<u64>();
            carried.values[way] += others().map(|frame| frame.values.len() as u64).sum::<u64>();
        }
        Ok(())
    }
}

/// A rank with one sequence.
struct Rank {
    backend: Arc<Watched>,
    checkpoint: Checkpoint,
    arena: Arc<Arena<Watched>>,
    model: Model<Watched>,
    workspace: Workspace<Watched>,
    exchange: HostExchange<Counted>,
    carried: Arc<Mutex<Carried>>,
    routing: RankMap,
    /// The page of each slot.
    pages: Vec<Page<Watched>>,
    tokens: Vec<u32>,
    /// Most times that a step after the first asked the system for memory.
    asked: u64,
}

impl Rank {
    fn new(fabric: InProcess, map: &ExpertMap) -> Self {
        let (checkpoint, rank) = (Checkpoint::open(&tiny_moe()).unwrap(), fabric.rank());
        let mut backend = Watched::new();
        backend.asked = counting::of_this_thread;
        let backend = Arc::new(backend);
        let arena = Arena::new(Arc::clone(&backend), expert_shape(&checkpoint)).unwrap();
        let slots = map.layers().flat_map(|layer| map.rank(layer, rank).iter().map(move |expert| (layer, *expert)));
        let load = |(layer, expert)| page(&arena, &checkpoint, layer, expert);
        let pages: Vec<Page<Watched>> = slots.map(load).collect();
        let numbers = pages.iter().map(Page::id).collect();
        let (config, size) = (checkpoint.config(), map.shape());
        let topology = Topology::single_node(size.ranks, size.slots_per_rank);
        let routing = RankMap::new(map, &topology, rank, 0, numbers);
        let group = routing.group(config.router.top_k, 64);
        let cache = CacheSize { blocks: 16, block_tokens: BLOCK_TOKENS };
        let cache = KvCache::new(&*backend, config, cache, None).unwrap();
        let workspace = Workspace::new(Arc::clone(&arena), config, cache, group, routing.layers()).unwrap();
        let carried = Arc::<Mutex<Carried>>::default();
        let fabric = Counted { fabric, carried: Arc::clone(&carried) };
        let exchange = HostExchange::new(fabric, group, config.hidden);
        let model = Model::load(Arc::clone(&backend), &checkpoint).unwrap();
        let tokens = (0..40).map(|at| (at * 31 + 7) % 256).collect();
        Self { backend, checkpoint, arena, model, workspace, exchange, carried, routing, pages, tokens, asked: 0 }
    }

    /// Two slots of a layer exchange their experts, on two ranks if there are as many.
    fn moved(&mut self, step: usize) -> LayerRouting {
        let (size, layer) = (self.routing.shape(), LayerId::from(step % self.routing.shape().layers));
        let (a, b) = (RankId(0), RankId::from(size.ranks - 1));
        let (first, last) = (SlotIndex(0), SlotIndex::from(size.slots_per_rank - 1));
        let map = self.routing.map();
        let (here, there) = (map.expert(layer, a, first), map.expert(layer, b, last));
        let changes = vec![
            SlotChange { rank: a, slot: first, from: here, to: there, source: b },
            SlotChange { rank: b, slot: last, from: there, to: here, source: a },
        ];
        let mine: Vec<(SlotIndex, ExpertId)> = changes
            .iter()
            .filter(|change| change.rank == self.routing.rank())
            .map(|change| (change.slot, change.to))
            .collect();
        let start = self.routing.slots(layer).start;
        let received: Vec<(SlotIndex, Page<Watched>)> =
            mine.into_iter().map(|(slot, to)| (slot, page(&self.arena, &self.checkpoint, layer, to))).collect();
        let numbers: Vec<(SlotIndex, PageId)> = received.iter().map(|(slot, page)| (*slot, page.id())).collect();
        for (slot, page) in received {
            self.pages[start + slot.index()] = page;
        }
        let (transaction, epoch) = (TransactionId(step as u64), self.routing.epoch() + 1);
        let work = Transaction { layer, changes, shares: Vec::new() };
        self.routing.commit(&Commit { transaction, epoch, work }, &numbers).unwrap()
    }

    fn batch(&self, done: usize) -> Vec<SequenceStep> {
        vec![SequenceStep {
            sequence: SequenceId(self.routing.rank().0.into()),
            position: done as u32,
            tokens: self.tokens[done..].to_vec(),
            blocks: (0..self.tokens.len().div_ceil(BLOCK_TOKENS) as u32).collect(),
            sample: Some(Sampling { temperature: 0.8, top_p: 0.9, seed: 3, ..Sampling::GREEDY }),
            score: Vec::new(),
            top_logprobs: 2,
        }]
    }

    /// Computes what is not computed, and adds a token.
    fn step(&mut self, done: usize, changes: Vec<LayerRouting>) -> Result<(), ForwardError> {
        let (batch, mut mark) = (self.batch(done), None);
        let before = counting::of_this_thread();
        let enqueued = |place| mark = Some(place);
        let (outcome, _) =
            self.model.step(StepInput::alone(&batch, changes), &mut self.workspace, &mut self.exchange, enqueued)?;
        if done > 0 {
            self.asked = self.asked.max(counting::of_this_thread() - before);
        }
        assert_eq!(mark, Some(self.backend.counts.marks.load(Ordering::Relaxed)), "the one of this step");
        self.tokens.push(outcome.outputs[0].token.as_ref().unwrap().token);
        Ok(())
    }
}

fn page(arena: &Arc<Arena<Watched>>, checkpoint: &Checkpoint, layer: LayerId, expert: ExpertId) -> Page<Watched> {
    let mut page = arena.take().unwrap();
    load_expert(checkpoint, layer, expert, &mut page).unwrap();
    page
}

/// Runs every rank on a thread of its own.
fn on_ranks<T: Send>(ranks: usize, run: impl Fn(Rank) -> T + Sync) -> Vec<T> {
    let map = ExpertMap::contiguous(shape(&tiny_moe(), ranks, 0)).unwrap();
    let (run, map) = (&run, &map);
    std::thread::scope(|scope| {
        let start = |fabric| scope.spawn(move || run(Rank::new(fabric, map)));
        let threads: Vec<_> = in_process::connect(ranks).into_iter().map(start).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

/// The tokens of each rank's sequence, and what a step asks of the device and of the way to other ranks.
fn run(ranks: usize, moving: bool) -> Vec<Vec<u32>> {
    let (tokens, carried): (Vec<_>, Vec<_>) = on_ranks(ranks, |rank| count(rank, moving)).into_iter().unzip();
    let all = |of: fn(&Carried) -> u64| carried.iter().map(of).sum::<u64>();
    assert_eq!(all(|of| of.values[0]), all(|of| of.values[1]), "what is sent arrives, {ranks} ranks");
    assert_eq!(all(|of| of.indices[0]), all(|of| of.indices[1]), "what is sent arrives, {ranks} ranks");
    println!("{STEPS} steps, {ranks} ranks, moving: {moving}: the host carried {carried:?}");
    tokens
}

fn count(mut rank: Rank, moving: bool) -> (Vec<u32>, Carried) {
    rank.step(0, Vec::new()).unwrap();
    // Staging memory: what moves takes it and gives back what it replaces.
    drop((rank.arena.take().unwrap(), rank.arena.take().unwrap()));
    let (before, earlier) = (rank.backend.counts.all(), *rank.carried.lock().unwrap());
    for step in 0..STEPS {
        let changes = if moving { vec![rank.moved(step)] } else { Vec::new() };
        rank.step(rank.tokens.len() - 1, changes).unwrap();
    }
    let (after, carried) = (rank.backend.counts.all(), rank.carried.lock().unwrap().since(earlier));
    let [uploads, collects, reads, allocations, stops, marks, _] =
        std::array::from_fn(|count| after[count] - before[count]);
    let (all, ranks) = (STEPS as u64, rank.routing.shape().ranks as u64);
    assert_eq!((uploads, collects, reads, allocations, marks), (all, all, 0, 0, all), "{ranks} ranks");
    assert_eq!(after[6], 0, "no operation asks for memory, in the first step neither");
    // The exchange through the host, apart: each layer has one of rows and one of their results, and stops the device before each.
    let (layers, config) = (rank.routing.shape().layers as u64, rank.checkpoint.config());
    let exchanges = if ranks == 1 { 0 } else { 2 * layers * all };
    assert_eq!((stops, carried.exchanges), (exchanges, exchanges), "{ranks} ranks");
    assert_eq!(carried.frames, exchanges * (ranks - 1), "one to each other rank");
    // A token's row goes to a rank once, and as many come back as experts were asked there.
    let (top_k, rows) = (config.router.top_k as u64, carried.values.map(|values| values / config.hidden as u64));
    let most = layers * all * ((ranks - 1).min(top_k) + (ranks - 1) * top_k);
    assert!(rows[0] <= most, "{rows:?} rows of at most {most}, {ranks} ranks");
    let frames = 2 * layers * (ranks - 1);
    let allowed = BY_HOST + frames * FOR_FRAME;
    assert!((BY_HOST..=allowed).contains(&rank.asked), "{} of {allowed} with {ranks} ranks", rank.asked);
    (rank.tokens, carried)
}

#[test]
fn a_step_is_one_upload_one_download_and_one_wait_and_makes_no_memory_while_experts_move() {
    let still = run(4, false);
    for ranks in [1, 2, 4] {
        assert_eq!(run(ranks, true), still[..ranks], "{ranks} ranks");
    }
}

#[test]
fn what_the_device_reports_comes_when_the_step_is_collected_and_ends_that_step_alone() {
    on_ranks(1, |mut rank| {
        rank.backend.fault.after(0, true);
        let Err(ForwardError::Device(error)) = rank.step(0, Vec::new()) else { panic!("it was told to fail") };
        assert!(error.is_worth_a_retry());
        rank.step(0, Vec::new()).unwrap();
    });
}

#[test]
fn what_the_device_reports_is_told_with_its_step_where_that_has_lost_a_rank_too() {
    on_ranks(2, |mut rank| {
        if rank.routing.rank() != RankId(0) {
            return;
        }
        rank.backend.fault.after(0, false);
        let Err(ForwardError::Device(error)) = rank.step(0, Vec::new()) else { panic!("it was told to fail") };
        assert!(!error.is_worth_a_retry());
        let Err(ForwardError::Fabric(_)) = rank.step(0, Vec::new()) else { panic!("the other rank is gone") };
    });
}

#[test]
fn a_step_that_is_larger_than_its_memory_is_refused_before_anything_is_done() {
    on_ranks(1, |mut rank| {
        let before = rank.backend.counts.all();
        rank.tokens = vec![1; 65];
        let error = rank.step(0, Vec::new()).unwrap_err().to_string();
        assert_eq!(error, "sequence 0: number of tokens of the step 65 is out of range, the limit is 64");
        assert_eq!(rank.backend.counts.all(), before);
    });
}

#[test]
fn a_page_that_was_replaced_is_staging_memory_when_the_last_step_that_may_read_it_is_done() {
    let checkpoint = Checkpoint::open(&tiny_moe()).unwrap();
    let backend = Arc::new(Watched::new());
    let arena = Arena::new(Arc::clone(&backend), expert_shape(&checkpoint)).unwrap();
    let map = ExpertMap::contiguous(shape(&tiny_moe(), 2, 0)).unwrap();
    let layer = LayerId(0);
    let (from, to) = (map.expert(layer, RankId(0), SlotIndex(0)), map.expert(layer, RankId(1), SlotIndex(0)));
    let before = Arc::new(page(&arena, &checkpoint, layer, from));
    let held: HeldPages<Watched> = [((layer, from), Arc::clone(&before))].into();
    let pages = RankPages::new(arena, map, held, 1).unwrap();
    let mut reserved = pages.reserve(1, Instant::now(), &Cancel::default()).unwrap().remove(0);
    load_expert(&checkpoint, layer, to, reserved.page()).unwrap();
    let change =
        |rank, from, to| SlotChange { rank: RankId(rank), slot: SlotIndex(0), from, to, source: RankId(1 - rank) };
    let work = Transaction { layer, changes: vec![change(0, from, to), change(1, to, from)], shares: Vec::new() };
    backend.passed.store(4, Ordering::Relaxed);
    let number = before.id();
    drop(before);
    let swap = Swap { from, to, page: reserved.packed().commit() };
    pages.swapped(Commit { transaction: TransactionId(1), epoch: 1, work }, vec![swap], Some(5));
    assert_eq!(pages.free(), 0, "step 5 may read it");
    backend.passed.store(5, Ordering::Relaxed);
    assert_eq!(pages.free(), 1);
    let mut reserved = pages.reserve(1, Instant::now(), &Cancel::default()).unwrap();
    assert_eq!(reserved[0].page().id(), number);
}
