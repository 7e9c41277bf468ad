//! What every kernel is given, the mirror of `kernels/cu/parameters.h`, where the meaning of each field stands; and how kernels are
//! launched. Knows no driver.

use bytemuck::{Pod, Zeroable};
use xxhash_rust::const_xxh3::const_custom_default_secret;

/// An address of device memory, or of mapped host memory as the device sees it; 0 is none.
pub type Address = u64;

/// How a kernel is launched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kernel {
    /// Its name in the module.
    pub name: &'static str,
    /// Size of the one struct that it is given.
    pub parameters: usize,
    /// Threads of a block.
    pub threads: u32,
    /// How many blocks.
    pub blocks: Blocks,
}

/// How many blocks a kernel has. No result depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blocks {
    /// A single one, since its threads hand over to each other.
    One,
    /// As many as the device runs at once; more than there is work is a waste.
    Any,
}

/// What a kernel is given.
pub trait Parameters: Pod {
    /// The name of the struct in `parameters.h`, its fields with their sizes, in order.
    const FIELDS: (&'static str, &'static [(&'static str, usize)]);
}

macro_rules! mirror {
    ($($(#[$doc:meta])* $name:ident { $($field:ident: $type:ty,)* })*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Zeroable, Pod)]
        #[repr(C)]
        #[allow(missing_docs, reason = "parameters.h says what the fields are")]
        pub struct $name {
            $(pub $field: $type,)*
        }

        impl Parameters for $name {
            const FIELDS: (&'static str, &'static [(&'static str, usize)]) =
                (stringify!($name), &[$((stringify!($field), size_of::<$type>()),)*]);
        }
    )*
    #[cfg(test)]
    const MIRRORED: &[(&str, &[(&str, usize)])] = &[$($name::FIELDS,)*];
    };
}

mirror! {
    /// Rows that an operation computes.
    Rows { count: Address, first: u32, most: u32, }

    /// Head of a step's area.
    StepHeader {
        tokens: u32, spans: u32, blocks: u32, asked: u32, changes: u32, unused_0: u32, unused_1: u32, unused_2: u32,
    }
    /// Where the lists of a step's area are, in words.
    StepLayout {
        ids: u32, positions: u32, sequences: u32, spans: u32, blocks: u32, asked: u32, changes: u32, words: u32,
    }
    /// Consecutive tokens of a sequence.
    StepSpan { tokens: u32, position: u32, first_block: u32, unused: u32, }
    /// What is asked of a row of logits.
    StepAsked {
        uniform: f64, temperature: f32, top_p: f32, top_k: u32, row: u32, flags: u32, score: u32, best: u32, unused: u32,
    }
    /// A token and its logit.
    StepScored { token: u32, logit: f32, }
    /// What a row of logits gave.
    StepSampled {
        log_sum: f64, largest: f32, score: f32, drawn: u32, drawn_logit: f32, is_ordered: u32, unused: u32,
    }

    /// A slot of the group.
    TableSlot { rank: u32, index: u32, }
    /// Where the copies of all layers' experts are.
    SlotTables {
        starts: Address, slots: Address, bounds: Address, pages: Address, pairs: Address,
        layers: u32, experts: u32, physical: u32, slots_here: u32,
    }
    /// Where a (token, expert) pair is computed.
    PairDestination { rank: u32, index: u32, ordinal: u32, }
    /// A row that goes through a slot of this rank.
    SlotPair { slot: u32, row: u32, }
    /// What goes where in one layer.
    RoutingTables {
        experts: Address, weights: Address, destinations: Address, given: Address, pairs: Address, places: Address,
        starts: Address, rows: Address, bases: Address, counts: Address,
        most_pairs: u32, top_k: u32, ranks: u32, rank: u32,
    }
    /// Some tokens of one sequence with some of its keys.
    AttentionItem {
        row: u32, tokens: u32, position: u32, first_block: u32, first_split: u32, splits: u32, all_splits: u32, partial: u32,
    }
    /// Keys and values of one layer.
    CacheTable {
        values: Address, kind: u32, blocks: u32, block_tokens: u32, query: u32, key_value: u32, dimension: u32,
    }
    /// Tokens of a row whose weights are about equal.
    WeightBin { amount: u64, count: u32, unused: u32, }
    /// Of a part of a row of logits.
    SamplePart { exponentials: f64, weight: u64, largest: f32, best: u32, is_unordered: u32, unused: u32, }
    /// A fingerprint, as two halves.
    ChunkFingerprint { low: u64, high: u64, }

    /// Of [`BEGIN`].
    BeginParameters {
        area: Address, batch: Address, items: Address, item_count: Address, error: Address,
        slots: SlotTables, layout: StepLayout,
        most_tokens: u32, most_blocks: u32, most_changes: u32, most_partials: u32,
    }
    /// Of [`EMBED`].
    EmbedParameters {
        rows: Rows, table: Address, ids: Address, out: Address, error: Address,
        kind: u32, width: u32, vocabulary: u32, unused: u32,
    }
    /// Of [`RMS_NORM`].
    NormParameters {
        rows: Rows, x: Address, weight: Address, out: Address, terms: Address, width: u32, epsilon: f32,
    }
    /// Of [`SPLIT_ROWS`].
    SplitParameters { rows: Rows, x: Address, terms: Address, width: u32, unused: u32, }
    /// Of all products.
    ProductParameters {
        rows: Rows, arena: Address, page_bytes: u64, offset: u64, page_of: Address, starts: Address, list: Address,
        x: Address, bias: Address, out: Address, error: Address,
        groups: u32, page: u32, pages: u32, n: u32, k: u32, add: u32, terms: u32, unused: u32,
    }
    /// Of those of compute capability 9.0.
    MappedProductParameters { weights: [u64; 16], product: ProductParameters, }
    /// Of [`ROTATE`].
    RotateParameters {
        rows: Rows, projected: Address, row_positions: Address, query_norm: Address, key_norm: Address, angles: Address,
        error: Address, query: u32, key_value: u32, dimension: u32, positions: u32, epsilon: f32, unused: u32,
    }
    /// Of [`STORE`].
    StoreParameters {
        cache: CacheTable, projected: Address, items: Address, item_count: Address, blocks: Address, error: Address,
    }
    /// Of [`ATTEND_F32`], [`ATTEND_BF16`], [`ATTEND_BF16_WIDE`] and [`MERGE`].
    AttendParameters {
        cache: CacheTable, projected: Address, items: Address, item_count: Address, blocks: Address, partials: Address,
        out: Address, terms: Address, error: Address,
    }
    /// Of [`ROUTE`].
    RouteParameters { rows: Rows, logits: Address, routing: RoutingTables, experts: u32, normalise: u32, }
    /// Of [`CHOOSE`] and [`NUMBER`].
    ChooseParameters {
        rows: Rows, sequences: Address, positions: Address, slots: SlotTables, routing: RoutingTables, error: Address,
        layer: u32, unused: u32,
    }
    /// Of [`SORT`].
    SortParameters { slots: SlotTables, routing: RoutingTables, error: Address, layer: u32, unused: u32, }
    /// Of [`COMBINE`].
    CombineParameters {
        rows: Rows, results: Address, homes: Address, out: Address, routing: RoutingTables, width: u32, home_each: u32,
    }
    /// Of [`GATHER`].
    GatherParameters { rows: Rows, x: Address, asked: Address, out: Address, width: u32, unused: u32, }
    /// Of [`SAMPLE_PARTS`], [`SAMPLE_WEIGH`] and [`SAMPLE_PICK`].
    SampleParameters {
        rows: Rows, logits: Address, asked: Address, parts: Address, weights: Address, bins: Address, sampled: Address, best: Address,
        vocabulary: u32, unused: u32,
    }
    /// Of [`FINISH`].
    FinishParameters {
        asked: Address, sampled: Address, best: Address, pairs: Address, error: Address,
        sampled_out: Address, best_out: Address, pairs_out: Address, error_out: Address, pair_count: u32, unused: u32,
    }
    /// Of [`ARRIVE`].
    ArriveParameters {
        values: Address, pairs: Address, x: Address, terms: Address, routing: RoutingTables, error: Address,
        width: u32, row_count: u32, first_row: u32, pair_count: u32, first_pair: u32, slots_here: u32,
    }
    /// Of [`COME_HOME`].
    ComeHomeParameters {
        values: Address, results: Address, routing: RoutingTables, width: u32, row_count: u32, first_row: u32, from: u32,
    }
    /// A pair that a rank gives another.
    GivenPair { index: u32, home: u32, }
    /// Where a rank stores what is for another one.
    LinkPeer { rows: Address, pairs: Address, homes: Address, given_flag: Address, home_flag: Address, }
    /// A rank's end of a link.
    LinkTables {
        peers: Address, given: Address, epoch: Address, done: Address, lost: Address, pairs_between: u32, in_order: u32,
    }
    /// Of [`GIVE_ROWS`].
    GiveRowsParameters {
        rows: Rows, x: Address, routing: RoutingTables, link: LinkTables, width: u32, kind: u32,
    }
    /// Of [`AWAIT_RANKS`].
    AwaitParameters {
        flags: Address, limit: Address, told: Address, error: Address, link: LinkTables, ranks: u32, rank: u32,
        ends: u32, unused: u32,
    }
    /// Of [`TAKE_PAIRS`].
    TakePairsParameters { routing: RoutingTables, link: LinkTables, error: Address, passed: Address, tokens: u32, slots_here: u32, }
    /// Of [`GIVE_RESULTS`].
    GiveResultsParameters { results: Address, routing: RoutingTables, link: LinkTables, width: u32, tokens: u32, }
    /// Of [`COPY`].
    CopyParameters { source: Address, target: Address, bytes: u64, }
    /// Of [`FINGERPRINT`].
    FingerprintParameters {
        bytes: Address, chunks: Address, length: u64, seed: u64,
        secret: [u64; SECRET_BYTES / 8],
    }
    /// Of [`DRAW`].
    DrawParameters {
        to: Address, key: u64, first: u64, middle: f32, unit: f32, kind: u32, rows: u32, columns: u32, stride: u32,
    }
    /// Of [`READ_ALL`].
    ReadParameters { source: Address, sum: Address, bytes: u64, }
}

macro_rules! kernels {
    ($($(#[$doc:meta])* $constant:ident = $name:literal($parameters:ident), $threads:literal, $blocks:ident;)*) => {
        $(
            $(#[$doc])*
            pub const $constant: Kernel = Kernel {
                name: $name,
                parameters: size_of::<$parameters>(),
                threads: $threads,
                blocks: Blocks::$blocks,
            };
        )*
        /// All kernels of the module.
        pub const KERNELS: &[Kernel] = &[$($constant,)*];
        #[cfg(test)]
        const PARAMETERS: &[&str] = &[$(stringify!($parameters),)*];
    };
}

kernels! {
    /// Copies a step to the device and changes layers.
    BEGIN = "begin"(BeginParameters), 256, One;
    /// Looks rows up.
    EMBED = "embed"(EmbedParameters), 128, Any;
    /// Root mean square norm.
    RMS_NORM = "rms_norm"(NormParameters), 128, Any;
    /// Splits rows into terms of bf16.
    SPLIT_ROWS = "split_rows"(SplitParameters), 256, Any;
    /// Product by bf16 weights, tiles of 16 rows.
    PRODUCT_BF16 = "product_bf16"(ProductParameters), 128, Any;
    /// Product by bf16 weights, tiles of 16 rows by few outputs.
    PRODUCT_BF16_NARROW = "product_bf16_narrow"(ProductParameters), 128, Any;
    /// Product by bf16 weights, tiles of 64 rows.
    PRODUCT_BF16_TALL = "product_bf16_tall"(ProductParameters), 128, Any;
    /// Product by f32 weights.
    PRODUCT_F32 = "product_f32"(ProductParameters), 128, Any;
    /// First half of a feed-forward network of bf16 weights, tiles of 16 rows.
    GATED_BF16 = "gated_bf16"(ProductParameters), 128, Any;
    /// First half of a feed-forward network of bf16 weights, tiles of 64 rows.
    GATED_BF16_TALL = "gated_bf16_tall"(ProductParameters), 128, Any;
    /// First half of a feed-forward network of f32 weights.
    GATED_F32 = "gated_f32"(ProductParameters), 128, Any;
    /// Product by mapped bf16 weights, tiles of 64 rows.
    PRODUCT_BF16_90A = "product_bf16_90a"(MappedProductParameters), 192, Any;
    /// Product by mapped bf16 weights, tiles of 128 rows.
    PRODUCT_BF16_90A_TALL = "product_bf16_90a_tall"(MappedProductParameters), 320, Any;
    /// First half of a feed-forward network of mapped bf16 weights, tiles of 64 rows.
    GATED_BF16_90A = "gated_bf16_90a"(MappedProductParameters), 192, Any;
    /// First half of a feed-forward network of mapped bf16 weights, tiles of 128 rows.
    GATED_BF16_90A_TALL = "gated_bf16_90a_tall"(MappedProductParameters), 320, Any;
    /// Norms and rotates heads.
    ROTATE = "rotate"(RotateParameters), 256, Any;
    /// Puts keys and values into the cache.
    STORE = "store"(StoreParameters), 128, Any;
    /// Attention over a cache of f32.
    ATTEND_F32 = "attend_f32"(AttendParameters), 128, Any;
    /// Attention over a cache of bf16, heads of at most 128 elements. Its dynamic shared memory is [`attend_shared`].
    ATTEND_BF16 = "attend_bf16"(AttendParameters), 128, Any;
    /// Attention over a cache of bf16, heads of at most 256 elements.
    ATTEND_BF16_WIDE = "attend_bf16_wide"(AttendParameters), 128, Any;
    /// Puts partial results of attention together.
    MERGE = "merge"(AttendParameters), 128, Any;
    /// Softmax and the best experts.
    ROUTE = "route"(RouteParameters), 128, Any;
    /// The slot of each pair.
    CHOOSE = "choose"(ChooseParameters), 256, Any;
    /// Which of the pairs given to its rank each is.
    NUMBER = "number"(ChooseParameters), 256, Any;
    /// Sorts pairs by slot.
    SORT = "sort_pairs"(SortParameters), 256, Any;
    /// Adds up results of experts.
    COMBINE = "combine"(CombineParameters), 128, Any;
    /// Rows that are asked for.
    GATHER = "gather"(GatherParameters), 128, Any;
    /// Largest logits of parts of rows.
    SAMPLE_PARTS = "sample_parts"(SampleParameters), 256, Any;
    /// Weights of tokens, and their sums over parts of rows.
    SAMPLE_WEIGH = "sample_weigh"(SampleParameters), 256, Any;
    /// Answers what is asked of rows.
    SAMPLE_PICK = "sample_pick"(SampleParameters), 256, Any;
    /// Brings results to the host.
    FINISH = "finish"(FinishParameters), 256, Any;
    /// Takes rows from other ranks.
    ARRIVE = "arrive"(ArriveParameters), 128, Any;
    /// Takes results from other ranks.
    COME_HOME = "come_home"(ComeHomeParameters), 128, Any;
    /// Gives other ranks rows.
    GIVE_ROWS = "give_rows"(GiveRowsParameters), 128, Any;
    /// Waits for other ranks.
    AWAIT_RANKS = "await_ranks"(AwaitParameters), 256, One;
    /// Takes pairs that other ranks gave.
    TAKE_PAIRS = "take_pairs"(TakePairsParameters), 256, Any;
    /// Gives other ranks the results of their pairs.
    GIVE_RESULTS = "give_results"(GiveResultsParameters), 128, Any;
    /// Copies bytes.
    COPY = "copy"(CopyParameters), 256, Any;
    /// Fingerprints of chunks.
    FINGERPRINT = "fingerprint"(FingerprintParameters), 128, Any;
    /// Draws weights.
    DRAW = "draw"(DrawParameters), 256, Any;
    /// Reads memory, to measure how fast.
    READ_ALL = "read_all"(ReadParameters), 256, Any;
}

/// Values of the fields called `kind`.
pub const KIND_BF16: u32 = 0;
/// See [`KIND_BF16`].
pub const KIND_F32: u32 = 1;

/// Flags of [`StepAsked`]: draw a token.
pub const ASKED_DRAW: u32 = 1;
/// The logit of a token.
pub const ASKED_SCORE: u32 = 2;
/// The sum of the exponentials.
pub const ASKED_SUM: u32 = 4;

/// Words of [`RoutingTables::counts`]: pairs of this rank's tokens that are computed here, and all that are.
pub const ROUTING_COUNTS: usize = 4;
/// Which of them says how many pairs are computed here.
pub const COUNT_PAIRS: usize = 1;
/// The most slots of a layer that a rank has.
pub const MOST_SLOTS: usize = 1024;
/// The most ranks of a group.
pub const MOST_RANKS: usize = 256;
/// The most experts of a token.
pub const MOST_CHOSEN: usize = 64;

/// Keys of which attention makes one partial result.
pub const SPLIT_KEYS: usize = 256;
/// Bins of the weights of a row.
pub const WEIGHT_BINS: usize = 512;
/// Tokens of a row of logits that make a part.
pub const PART_TOKENS: usize = 4096;
/// Of the secret that the seed of fingerprints makes.
pub const SECRET_BYTES: usize = 192;

/// What an error word says.
#[must_use]
pub const fn error_text(word: u32) -> &'static str {
    match word {
        1 => "a token is not in the vocabulary",
        2 => "a position is beyond the last one that the model has angles for",
        3 => "a block is not one of the cache",
        4 => "an expert is not one of the router's",
        5 => "a slot is not one of this rank's",
        6 => "a slot points at a page that is not there",
        7 => "a step is larger than its memory",
        8 => "more pairs arrived than a step has",
        9 => "another rank gave no rows in time",
        _ => "a kernel met something that it does not know",
    }
}

impl StepLayout {
    /// The layout of the steps of a group: at most so many tokens, cache blocks and changed layers of so many words.
    #[must_use]
    pub const fn new(tokens: usize, blocks: usize, changes: usize, change_words: usize) -> Self {
        const fn words<T>(count: usize) -> u32 {
            (count * size_of::<T>() / size_of::<u32>()).next_multiple_of(4) as u32
        }
        let ids = words::<StepHeader>(1);
        let positions = ids + words::<u32>(tokens);
        let sequences = positions + words::<u32>(tokens);
        let spans = sequences + words::<u32>(tokens);
        let list = spans + words::<StepSpan>(tokens);
        let asked = list + words::<u32>(blocks);
        let routing = asked + words::<StepAsked>(tokens);
        let all = routing + words::<u32>(changes * change_words);
        Self { ids, positions, sequences, spans, blocks: list, asked, changes: routing, words: all }
    }
}

impl SlotTables {
    /// Words that a changed layer has in the area of a step: its number, starts, slots, bounds and pages.
    #[must_use]
    pub const fn change_words(experts: usize, physical: usize, slots_here: usize) -> usize {
        1 + (experts + 1) + 3 * physical + slots_here
    }
}

impl FingerprintParameters {
    /// What XXH3 makes of a seed.
    #[must_use]
    pub fn secret(seed: u64) -> [u64; SECRET_BYTES / 8] {
        bytemuck::pod_read_unaligned(&const_custom_default_secret(seed))
    }
}

/// Terms of bfloat16 in which rows are kept at most.
pub const MOST_TERMS: usize = 2;
/// Elements of a head that [`ATTEND_BF16`] takes at most.
pub const MOST_PADDED: usize = 128;

/// Bytes of dynamic shared memory of a product of so many groups, by rows of so many terms.
#[must_use]
pub const fn product_shared(kernel: &Kernel, groups: usize, terms: usize) -> usize {
    // Tiles of x and of the weights, rows of which are 128 bytes, and barriers of each stage; then how many tiles of rows stand before
    // each group, twice.
    let (stages, rows, outputs, barriers) = match kernel.name.as_bytes() {
        b"product_bf16" | b"gated_bf16" => (3, 16, 128, 0),
        b"product_bf16_narrow" => (8, 16, 32, 0),
        b"product_bf16_tall" | b"gated_bf16_tall" => (3, 64, 128, 0),
        b"product_bf16_90a" | b"gated_bf16_90a" => (6, 64, 128, 2),
        b"product_bf16_90a_tall" | b"gated_bf16_90a_tall" => (3, 128, 256, 2),
        _ => (0, 0, 0, 0),
    };
    stages * ((terms * rows + outputs) * 128 + barriers * size_of::<u64>()) + 2 * (groups + 1) * size_of::<u32>()
}

/// The most dynamic shared memory that a kernel is ever launched with.
#[must_use]
pub fn most_shared(kernel: &Kernel) -> usize {
    if *kernel == ATTEND_BF16 { attend_shared(MOST_PADDED) } else { product_shared(kernel, MOST_SLOTS, MOST_TERMS) }
}

/// What it is usually launched with: by that it is said how many blocks run at once.
#[must_use]
pub fn usual_shared(kernel: &Kernel) -> usize {
    if *kernel == ATTEND_BF16 { attend_shared(MOST_PADDED) } else { product_shared(kernel, 1, MOST_TERMS) }
}

/// Bytes of dynamic shared memory of [`ATTEND_BF16`]: keys and values of a split, 32 rows of queries and of weights of keys,
/// and what four warps tell each other of each row.
#[must_use]
pub const fn attend_shared(dimension: usize) -> usize {
    let padded = if dimension <= 64 { 64 } else { MOST_PADDED };
    2 * (2 * SPLIT_KEYS * padded + 32 * padded + 32 * (SPLIT_KEYS + 8)) + 2 * 4 * 32 * size_of::<f32>()
}

#[cfg(test)]
mod tests;
