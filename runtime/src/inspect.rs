//! What a folder holds, or why it cannot be served: what a start checks of it, by the same code, and the weights beside
//! it, which only ranks read; and what of its memory each rank takes. Starts nothing.

use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use kernels::{Backend, DeviceError};
use plan::map::{MapError, MapShape};
use plan::moves::usual_staging_pages;
use plan::wire::ModelIdentity;
use serde::Serialize;
use thiserror::Error;

use crate::coordinator::settings::{SettingsError, folder_name, load_texts, open_checkpoint};
use crate::device::{Device, DeviceOptions, OnDevice};
use crate::memory::{CacheUse, Memory, Needs, RankPart, TooLarge, of_cache, of_experts, usual_blocks};
use crate::model::checkpoint::{UnknownWeights, WeightSeed};
use crate::model::forward::CacheSize;
use crate::model::sizes::Sizes;
use crate::quoted::Quoted;
use crate::server::ModelLimits;

/// What a folder holds.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// Which model it is.
    pub model: ModelIdentity,
    /// Tokens of prompt and answer together that it was made for.
    pub max_model_len: usize,
    /// Number of weights.
    pub parameters: u64,
    /// Bytes of all weights as they are on disk, or would be.
    pub bytes: u64,
    /// The files that hold them.
    pub weight_files: Vec<String>,
    /// How far they were checked.
    pub weights: WeightCheck,
    /// Tokens that exist.
    pub vocabulary: usize,
    /// Tokens that end an answer.
    pub end_tokens: Arc<[u32]>,
    /// How tokens are chosen where a request does not say.
    pub sampling: Sampling,
    /// Whether it can chat.
    pub chat: Chat,
    /// What each rank takes of its memory, if it was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub each_rank: Option<EachRank>,
}

/// What there is to know of a folder without weights: how it would be spread over ranks.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Foreseen {
    /// Tokens of prompt and answer together that it was made for.
    pub max_model_len: usize,
    /// Not at all.
    pub weights: WeightCheck,
    /// What each rank will take of its memory.
    pub each_rank: EachRank,
}

/// How a model is to be spread over ranks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spread {
    /// How many ranks share the experts.
    pub ranks: usize,
    /// Physical experts of each layer beyond one copy of each.
    pub redundancy: usize,
    /// Staging pages of each rank; the usual number if there is none.
    pub staging_pages: Option<u32>,
    /// Blocks of its KV cache; its share of the memory if there is none.
    pub kv_blocks: Option<usize>,
    /// Tokens of a block.
    pub block_tokens: usize,
    /// Tokens that each rank computes in a step at most.
    pub step_tokens: usize,
    /// Bytes that each rank may have; its part of this machine's if there is none.
    pub memory: Option<u64>,
    /// What the ranks are to compute on.
    pub device: Device,
}

/// What each rank takes of its memory, in bytes where nothing else is said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EachRank {
    /// Slots of each layer.
    pub slots_per_layer: usize,
    /// The experts in them.
    pub experts: u64,
    /// All weights but those, and the angles of all positions that are served.
    pub other_weights: u64,
    /// What NCCL takes at most; nothing on CPUs, of one rank, and where GPUs of one pod reach each other.
    pub nccl: u64,
    /// What the largest step is computed in.
    pub activations: u64,
    /// Pages that it can receive before they are in use.
    pub staging_pages: u32,
    /// What these take.
    pub staging: u64,
    /// Blocks of its KV cache.
    pub kv_blocks: usize,
    /// Tokens that they hold.
    pub kv_tokens: usize,
    /// What each of these tokens takes.
    pub kv_bytes_of_a_token: u64,
    /// What the blocks take, as they come into use.
    pub kv: u64,
    /// Tokens of prompt and answer together that are served: the model's or, where that is less, the cache's.
    pub context_tokens: usize,
    /// All of this together.
    pub total: u64,
    /// What it may have.
    pub memory: u64,
}

/// What is looked at of a checkpoint's weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inspected {
    /// All of them.
    All,
    /// None: they are drawn.
    Drawn(WeightSeed),
}

impl FromStr for Inspected {
    type Err = UnknownWeights;

    fn from_str(text: &str) -> Result<Self, UnknownWeights> {
        if text == "all" { Ok(Self::All) } else { text.parse().map(Self::Drawn) }
    }
}

/// How far weights were checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum WeightCheck {
    /// Every tensor is there, of its shape and type; no weight was read.
    NamesAndShapes,
    /// Every weight was read, and is a finite number.
    EveryWeight,
    /// They are drawn from a seed.
    Drawn,
    /// There is none.
    Absent,
}

/// How tokens are chosen where a request does not say.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Sampling {
    /// 0 is greedy.
    pub temperature: f32,
    /// 1 is off.
    pub top_p: f32,
    /// 0 is off.
    pub top_k: u32,
}

/// Whether chats are served.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Chat {
    /// Whether there is a template that can be used.
    pub served: bool,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Why a folder cannot be looked into, or served as asked.
#[derive(Debug, Error)]
pub enum InspectError {
    /// What a start with it says.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// No map has such a shape.
    #[error(transparent)]
    Map(#[from] MapError),
    /// Its ranks have not the memory.
    #[error(transparent)]
    Memory(#[from] TooLarge),
    /// The device does not say what memory it has.
    #[error(transparent)]
    Device(#[from] DeviceError),
}

/// What was found in a folder.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum Found {
    /// A checkpoint.
    Checkpoint(Box<Report>),
    /// Its configuration alone.
    Configuration(Foreseen),
}

/// Checks all that a coordinator checks of a folder, and of the weights as asked, so all that its ranks find together; with `spread`
/// also what each rank takes, for which the configuration alone is enough.
///
/// # Errors
/// What a start with this folder says.
pub fn inspect(folder: &Path, weights: Option<Inspected>, spread: Option<&Spread>) -> Result<Found, InspectError> {
    match (report(folder, weights), spread) {
        (Ok((mut report, sizes)), spread) => {
            report.each_rank = spread.map(|spread| EachRank::of(&sizes, spread)).transpose()?;
            Ok(Found::Checkpoint(Box::new(report)))
        }
        (Err(SettingsError::Checkpoint { source, .. }), Some(spread)) if source.is_without_weights() => {
            let sizes = Sizes::of_folder(folder)
                .map_err(|source| SettingsError::Checkpoint { path: Quoted::path(folder), source })?;
            let each_rank = EachRank::of(&sizes, spread)?;
            let (max_model_len, weights) = (sizes.config.max_positions, WeightCheck::Absent);
            Ok(Found::Configuration(Foreseen { max_model_len, weights, each_rank }))
        }
        (Err(error), _) => Err(error.into()),
    }
}

impl EachRank {
    /// What each rank of a model takes.
    ///
    /// # Errors
    /// If it cannot be spread so, or the ranks have not the memory.
    pub fn of(sizes: &Sizes, spread: &Spread) -> Result<Self, InspectError> {
        spread.device.with(Foreseeing { sizes, spread })
    }
}

/// Foresees what each rank of a model takes.
struct Foreseeing<'a> {
    sizes: &'a Sizes,
    spread: &'a Spread,
}

impl OnDevice for Foreseeing<'_> {
    type Done = Result<EachRank, InspectError>;

    fn on<B: Backend>(self, open: impl Fn(DeviceOptions) -> Result<B, DeviceError> + Sync) -> Self::Done {
        let Self { sizes, spread } = self;
        if let Some(bytes) = spread.memory {
            return each_rank::<B>(sizes, spread, (Memory::of_bytes(bytes), 1));
        }
        let device = open(DeviceOptions::default())?;
        // A machine's memory is all ranks'. A device with its own is one rank's: whoever has fewer devices says how much each has.
        let sharing = if device.memory()?.is_some() { 1 } else { spread.ranks };
        each_rank::<B>(sizes, spread, (Memory::of_device(&device)?, sharing))
    }
}

/// What each rank takes, of memory that so many ranks share.
fn each_rank<B: Backend>(
    sizes: &Sizes,
    spread: &Spread,
    (memory, sharing): (Memory, usize),
) -> Result<EachRank, InspectError> {
    let &Spread { ranks, redundancy, block_tokens, step_tokens, .. } = spread;
    let config = &sizes.config;
    let shape = MapShape::with_redundancy(config.sparse_layers(), config.experts.count, ranks, redundancy)?;
    let slots = shape.slots_per_rank;
    let staging_pages = spread.staging_pages.unwrap_or_else(|| usual_staging_pages(shape.pages_per_rank()));
    let part = RankPart { ranks, slots, staging_pages, step_tokens, threads: 1, has_nccl: ranks > 1 };
    let needs = |blocks| Needs::of::<B>(sizes, part, CacheSize { blocks, block_tokens });
    let room = memory.of_each(sharing, sharing);
    let kv_blocks = if let Some(blocks) = spread.kv_blocks {
        blocks
    } else {
        memory.check(&needs(0).all(), sharing)?;
        usual_blocks::<B>(sizes, part, room, CacheUse { block_tokens, most: u64::MAX })?
    };
    let all = needs(kv_blocks);
    memory.check(&all.all(), sharing)?;
    let (experts, kv_tokens) = (of_experts::<B>(sizes, slots), kv_blocks.saturating_mul(block_tokens));
    let block = of_cache::<B>(sizes, CacheSize { blocks: 1, block_tokens });
    Ok(EachRank {
        slots_per_layer: slots,
        experts,
        other_weights: all.weights.bytes - experts,
        nccl: all.nccl.bytes,
        activations: all.steps.bytes,
        staging_pages,
        staging: all.staging.bytes,
        kv_blocks,
        kv_tokens,
        kv_bytes_of_a_token: block / block_tokens as u64,
        kv: all.cache.bytes,
        context_tokens: kv_tokens.min(config.max_positions),
        total: all.bytes(),
        memory: room,
    })
}

fn report(folder: &Path, inspected: Option<Inspected>) -> Result<(Report, Sizes), SettingsError> {
    let seed = match inspected {
        Some(Inspected::Drawn(seed)) => Some(seed),
        Some(Inspected::All) | None => None,
    };
    let checkpoint = open_checkpoint(folder, seed)?;
    let (name, config) = (folder_name(folder), checkpoint.config());
    let (max_model_len, vocab_size) = (config.max_positions, config.vocabulary);
    let limits = ModelLimits { max_model_len, vocab_size, has_texts: seed.is_none() };
    let served = load_texts(folder, name.clone(), &limits, 0)?;
    let weights = match inspected {
        None => WeightCheck::NamesAndShapes,
        Some(Inspected::Drawn(_)) => WeightCheck::Drawn,
        Some(Inspected::All) => {
            let refused = |source| SettingsError::Checkpoint { path: Quoted::path(folder), source };
            checkpoint.check_weights().map_err(refused)?;
            WeightCheck::EveryWeight
        }
    };
    let sampling = served.defaults;
    let report = Report {
        model: checkpoint.identity(&name),
        max_model_len: served.max_model_len,
        parameters: checkpoint.parameters(),
        bytes: checkpoint.bytes(),
        weight_files: checkpoint.weight_files().map(str::to_owned).collect(),
        weights,
        vocabulary: served.vocab_size,
        end_tokens: served.end_tokens,
        sampling: Sampling { temperature: sampling.temperature, top_p: sampling.top_p, top_k: sampling.top_k },
        chat: Chat {
            served: served.chat.is_ok(),
            reason: served.chat.err().map(|error| Quoted::<200>::new(error).to_string()),
        },
        each_rank: None,
    };
    Ok((report, checkpoint.sizes()))
}
