//! What a rank was said to take of its memory is what it then makes.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use kernels::backend::CacheShape;
use kernels::batch::StepLimits;
use kernels::tensor::WeightKind;
use kernels::{Arena, Backend as _, Page};
use plan::ids::RankId;
use plan::map::{ExpertMap, MapShape};
use plan::topology::Topology;
use runtime::device::Device;
use runtime::experts::routing::RankMap;
use runtime::inspect::{EachRank, Spread};
use runtime::memory::{Needs, RankPart};
use runtime::model::checkpoint::Checkpoint;
use runtime::model::config::{Attention, Grouped};
use runtime::model::forward::{CacheSize, KvCache, Model, Workspace, expert_shape};

use crate::device::Watched;
use crate::fixtures::{VARIANTS, tiny_moe, variant};

const BLOCK_TOKENS: usize = 16;

/// Bytes that a rank of a group makes when it is loaded and its group forms.
fn made(checkpoint: &Checkpoint, part: RankPart, cache: CacheSize) -> u64 {
    let (backend, config) = (Arc::new(Watched::new()), checkpoint.config());
    let shape = MapShape {
        layers: config.sparse_layers(),
        experts: config.experts.count,
        ranks: part.ranks,
        slots_per_rank: part.slots,
    };
    let _model = Model::load(Arc::clone(&backend), checkpoint).unwrap();
    let arena = Arena::new(Arc::clone(&backend), expert_shape(checkpoint)).unwrap();
    let pages: Vec<_> =
        (0..shape.layers * part.slots + part.staging_pages as usize).map(|_| arena.take().unwrap()).collect();
    let numbers = pages[..shape.layers * part.slots].iter().map(Page::id).collect();
    let (map, topology) = (ExpertMap::contiguous(shape).unwrap(), Topology::single_node(part.ranks, part.slots));
    let routing = RankMap::new(&map, &topology, RankId(0), 0, numbers);
    let group = routing.group(config.router.top_k, part.step_tokens);
    let kept = KvCache::new(&*backend, config, cache, None).unwrap();
    let _workspace = Workspace::new(arena, config, kept, group, routing.layers()).unwrap();
    // That batches, slots and routing take as much as the device says is tested where they are.
    let limits = StepLimits { tokens: part.step_tokens, blocks: cache.blocks, ..StepLimits::default() };
    let of_step = Watched::step_bytes(limits, group, shape.experts, expert_shape(checkpoint));
    let vocabulary = config.vocabulary;
    let dense = checkpoint.sizes().dense;
    let pages: Vec<_> = dense.into_iter().chain([expert_shape(checkpoint)]).collect();
    let Attention::Grouped(Grouped { heads, .. }) = config.attention;
    let cache = CacheShape { heads, blocks: cache.blocks, block_tokens: cache.block_tokens, kind: WeightKind::F32 };
    let of_threads = part.threads as u64 * Watched::scratch_bytes(cache, &pages, vocabulary);
    backend.bytes.load(Ordering::Relaxed) + of_step + of_threads
}

#[test]
fn what_is_foreseen_is_what_is_made() {
    for folder in VARIANTS.map(variant).iter().chain([&tiny_moe()]) {
        let checkpoint = Checkpoint::open(folder).unwrap();
        let experts = checkpoint.config().experts.count;
        for (ranks, blocks, step_tokens) in [(1, 3, 8), (2, 40, 100), (2, 4000, 512)] {
            let part =
                RankPart { ranks, slots: experts / ranks, staging_pages: 3, step_tokens, threads: 1, has_nccl: false };
            let cache = CacheSize { blocks, block_tokens: BLOCK_TOKENS };
            let made = made(&checkpoint, part, cache);
            assert_eq!(Needs::of::<Watched>(&checkpoint.sizes(), part, cache).bytes(), made, "{folder:?} {part:?}");
            assert_eq!(told(&checkpoint, part, cache), made, "{folder:?} {part:?}");
        }
    }
}

/// What `inspect` says that each rank takes.
fn told(checkpoint: &Checkpoint, part: RankPart, cache: CacheSize) -> u64 {
    let spread = Spread {
        ranks: part.ranks,
        redundancy: 0,
        staging_pages: Some(part.staging_pages),
        kv_blocks: Some(cache.blocks),
        block_tokens: cache.block_tokens,
        step_tokens: part.step_tokens,
        memory: Some(u64::MAX),
        device: Device::Cpu,
    };
    EachRank::of(&checkpoint.sizes(), &spread).unwrap().total
}
