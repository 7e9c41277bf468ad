//! What a rank takes of its memory for as long as it serves, known from the configuration before any of it is taken.

use std::fmt::{self, Display, Formatter};

use kernels::routing::GroupShape;
use kernels::{Backend, DeviceError};

use super::{Limit, NotBeside, TooLarge, taken, total};
use crate::model::attention::cache_shape;
use crate::model::config::Config;
use crate::model::forward::{CacheSize, Workspace};
use crate::model::sizes::Sizes;

/// What of the memory that all else leaves to a rank its KV cache takes where nobody says how much; the rest is for messages between
/// ranks and for what every process has.
const CACHE_SHARE: f64 = 0.8;

/// The most blocks of a KV cache: the coordinator keeps a list of them.
pub const MOST_BLOCKS: u32 = 1 << 24;

/// What takes memory for as long as a rank serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemoryUser {
    /// The weights of the model.
    Weights,
    /// What NCCL takes for itself.
    Nccl,
    /// The KV cache, of so many blocks.
    KvBlocks(u64),
    /// Activations, logits and routing of steps of so many tokens on each rank.
    Steps(u64),
    /// The pages that moves are received into, so many.
    StagingPages(u64),
}

impl MemoryUser {
    /// What it is called among others.
    pub(super) const fn in_a_list(self) -> &'static str {
        match self {
            Self::Weights => "weights",
            Self::Nccl => "NCCL",
            Self::KvBlocks(_) => "KV cache",
            Self::Steps(_) => "activations",
            Self::StagingPages(_) => "staging pages",
        }
    }
}

impl Display for MemoryUser {
    fn fmt(&self, formatter: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Weights => formatter.write_str("the weights of the model"),
            Self::Nccl => formatter.write_str("NCCL"),
            Self::KvBlocks(blocks) => write!(formatter, "kv-blocks {blocks}"),
            Self::Steps(tokens) => write!(formatter, "max-step-tokens {tokens}"),
            Self::StagingPages(pages) => write!(formatter, "staging-pages {pages}"),
        }
    }
}

/// What of its memory a rank needs for something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Need {
    /// For what.
    pub user: MemoryUser,
    /// Bytes of it.
    pub bytes: u64,
}

/// The part that each rank of a group has in serving a model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RankPart {
    /// Ranks of the group.
    pub ranks: usize,
    /// Slots of each layer.
    pub slots: usize,
    /// Pages that moves are received into.
    pub staging_pages: u32,
    /// Tokens that it computes in a step at most.
    pub step_tokens: usize,
    /// Its compute threads.
    pub threads: usize,
    /// Whether it exchanges rows by NCCL.
    pub has_nccl: bool,
}

/// All that a rank needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Needs {
    /// Experts and all other weights, with the angles of its positions.
    pub weights: Need,
    /// NCCL, where rows are exchanged by it.
    pub nccl: Need,
    /// The KV cache, over all layers.
    pub cache: Need,
    /// What a step is computed in.
    pub steps: Need,
    /// Staging pages.
    pub staging: Need,
}

impl RankPart {
    /// The group in which a rank has it.
    fn group(self, config: &Config) -> GroupShape {
        let Self { ranks, slots, step_tokens, .. } = self;
        let (layers, top_k) = (config.sparse_layers(), config.router.top_k);
        GroupShape { ranks, rank: 0, layers, slots, top_k, tokens: step_tokens }
    }

    /// Whether such a device serves a model with this part for it, however much memory there is.
    ///
    /// # Errors
    /// If it never does.
    pub fn check<B: Backend>(self, sizes: &Sizes) -> Result<(), DeviceError> {
        Workspace::<B>::check(&sizes.config, self.group(&sizes.config), sizes.expert)
    }
}

impl Needs {
    /// Of a rank with this part and a cache of this size.
    #[must_use]
    pub fn of<B: Backend>(sizes: &Sizes, part: RankPart, cache: CacheSize) -> Self {
        let RankPart { ranks: _, slots, staging_pages, step_tokens, threads, has_nccl } = part;
        let (config, tokens) = (&sizes.config, cache.blocks.saturating_mul(cache.block_tokens));
        let pages = page_bytes::<B>(sizes).saturating_mul(staging_pages.into());
        let weights = [of_shared::<B>(sizes), sizes.angles(tokens), of_experts::<B>(sizes, slots)];
        let weights = weights.into_iter().fold(0, u64::saturating_add);
        let steps = Workspace::<B>::bytes(config, cache, part.group(config), sizes.expert);
        let steps = steps.saturating_add(of_threads::<B>(sizes, cache, threads));
        Self {
            weights: Need { user: MemoryUser::Weights, bytes: weights },
            nccl: Need { user: MemoryUser::Nccl, bytes: if has_nccl { B::COLLECTIVE_BYTES } else { 0 } },
            cache: Need { user: MemoryUser::KvBlocks(cache.blocks as u64), bytes: of_cache::<B>(sizes, cache) },
            steps: Need { user: MemoryUser::Steps(step_tokens as u64), bytes: steps },
            staging: Need { user: MemoryUser::StagingPages(staging_pages.into()), bytes: pages },
        }
    }

    /// In the order in which something that does not fit is told.
    #[must_use]
    pub const fn all(&self) -> [Need; 5] {
        let Self { weights, nccl, cache, steps, staging } = *self;
        [weights, nccl, cache, steps, staging]
    }

    /// Bytes of all together.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        total(&self.all())
    }
}

/// What a KV cache is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheUse {
    /// Tokens of a block.
    pub block_tokens: usize,
    /// Tokens of all sequences that a rank may ever have; more are of no use.
    pub most: u64,
}

/// The blocks of a KV cache that takes its share of what all else leaves of `room` bytes, and no more tokens than are of use.
///
/// # Errors
/// If that is not even one block.
pub fn usual_blocks<B: Backend>(sizes: &Sizes, part: RankPart, room: u64, cache: CacheUse) -> Result<usize, TooLarge> {
    let CacheUse { block_tokens, most } = cache;
    let [without, with] = [0, 1].map(|blocks| Needs::of::<B>(sizes, part, CacheSize { blocks, block_tokens }));
    let one = of_each_block::<B>(sizes, part, block_tokens);
    let share = room.saturating_sub(without.bytes()) as f64 * CACHE_SHARE;
    let blocks = (share as u64 / one.max(1)).min(most.div_ceil(block_tokens as u64)).min(MOST_BLOCKS.into());
    if blocks == 0 {
        let limit = Limit { bytes: room, of: "it" };
        return Err(NotBeside { need: with.cache, beside: taken(&without.all()), ranks: 1, limit }.into());
    }
    Ok(blocks as usize)
}

/// What each block of a cache takes: its place, the angles of its positions, and what threads keep of the scores of its keys.
fn of_each_block<B: Backend>(sizes: &Sizes, part: RankPart, block_tokens: usize) -> u64 {
    let cache = |blocks| CacheSize { blocks, block_tokens };
    let [without, with] = [0, 1].map(|blocks| Needs::of::<B>(sizes, part, cache(blocks)).bytes());
    // The first of them find room in what networks need.
    let [one, two] = [1, 2].map(|blocks| B::scratch_bytes(cache_shape(&sizes.config, cache(blocks)), &[], 0));
    (with - without).saturating_add((two - one).saturating_mul(part.threads as u64))
}

/// What all weights but the experts take.
#[must_use]
pub fn of_shared<B: Backend>(sizes: &Sizes) -> u64 {
    sizes.dense.iter().map(|shape| B::page_bytes(*shape) as u64).fold(sizes.shared, u64::saturating_add)
}

/// What so many experts of each layer take.
#[must_use]
pub fn of_experts<B: Backend>(sizes: &Sizes, experts: usize) -> u64 {
    page_bytes::<B>(sizes).saturating_mul((sizes.config.sparse_layers() * experts) as u64)
}

/// What a KV cache takes, over all layers.
#[must_use]
pub fn of_cache<B: Backend>(sizes: &Sizes, cache: CacheSize) -> u64 {
    B::cache_bytes(cache_shape(&sizes.config, cache)).saturating_mul(sizes.config.layers.len() as u64)
}

/// What so many compute threads keep between the parts of operations.
fn of_threads<B: Backend>(sizes: &Sizes, cache: CacheSize, threads: usize) -> u64 {
    let pages: Vec<_> = sizes.dense.iter().copied().chain([sizes.expert]).collect();
    B::scratch_bytes(cache_shape(&sizes.config, cache), &pages, sizes.config.vocabulary).saturating_mul(threads as u64)
}

fn page_bytes<B: Backend>(sizes: &Sizes) -> u64 {
    B::page_bytes(sizes.expert) as u64
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use kernels::cpu::Cpu;

    use super::*;
    use crate::model::checkpoint::Checkpoint;

    const PART: RankPart =
        RankPart { ranks: 4, slots: 8, staging_pages: 2, step_tokens: 64, threads: 1, has_nccl: false };

    fn checkpoint() -> Checkpoint {
        Checkpoint::open(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/models/tiny-moe"))).unwrap()
    }

    #[test]
    fn what_a_rank_takes_grows_with_its_part() {
        let (checkpoint, cache) = (checkpoint(), CacheSize { blocks: 3, block_tokens: 16 });
        let sizes = checkpoint.sizes();
        let of = |part| Needs::of::<Cpu>(&sizes, part, cache);
        let page = Cpu::page_bytes(sizes.expert) as u64;
        let layers = checkpoint.config().sparse_layers() as u64;
        assert_eq!(of(RankPart { slots: 9, ..PART }).weights.bytes - of(PART).weights.bytes, page * layers);
        assert_eq!(of(RankPart { staging_pages: 5, ..PART }).staging.bytes - of(PART).staging.bytes, 3 * page);
        let steps = |part| of(part).steps.bytes;
        assert!(steps(RankPart { step_tokens: 128, ..PART }) > steps(PART));
        assert!(steps(RankPart { ranks: 5, ..PART }) > steps(PART));
        // Each thread has a place for every token of the vocabulary, where it looks for the best.
        let (one, three) = (steps(PART), steps(RankPart { threads: 3, ..PART }));
        assert!(three - one > 2 * (checkpoint.config().vocabulary * 2 * size_of::<u32>()) as u64);
        // Four ranks may send this one all of their tokens.
        let received = 4 * 64 * checkpoint.config().router.top_k * checkpoint.config().hidden * size_of::<f32>();
        assert!(steps(PART) > received as u64);
        assert_eq!(of(PART).bytes(), of(PART).all().iter().map(|need| need.bytes).sum::<u64>());
    }

    #[test]
    fn a_cache_takes_its_share_of_what_the_rest_leaves_and_no_more_than_it_can_use() {
        let (sizes, block_tokens) = (checkpoint().sizes(), 16);
        let taken = Needs::of::<Cpu>(&sizes, PART, CacheSize { blocks: 0, block_tokens }).bytes();
        let one = of_each_block::<Cpu>(&sizes, PART, block_tokens);
        assert!(one >= of_cache::<Cpu>(&sizes, CacheSize { blocks: 1, block_tokens }));
        let blocks = |room, most| usual_blocks::<Cpu>(&sizes, PART, room, CacheUse { block_tokens, most });
        assert_eq!(blocks(taken + 100 * one, u64::MAX), Ok(80));
        assert_eq!(blocks(taken + 100 * one, 17), Ok(2));
        assert_eq!(blocks(u64::MAX, u64::MAX), Ok(MOST_BLOCKS as usize));
        // However much is taken with the blocks, all of it fits.
        let part = RankPart { threads: 64, ..PART };
        for room in [taken + 10_000 * one, taken + 1_000_000 * one] {
            let blocks = usual_blocks::<Cpu>(&sizes, part, room, CacheUse { block_tokens, most: u64::MAX }).unwrap();
            assert!(Needs::of::<Cpu>(&sizes, part, CacheSize { blocks, block_tokens }).bytes() <= room);
        }
        for room in [0, taken, taken + one] {
            let said = blocks(room, u64::MAX).unwrap_err().to_string();
            let beside = " of weights, activations and staging pages, and it has ";
            assert!(said.starts_with("kv-blocks 1 takes ") && said.contains(beside), "{said}");
            assert!(said.ends_with("; serve a smaller model, or give it more memory"), "{said}");
        }
    }
}
