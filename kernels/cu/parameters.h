// What every kernel is given: one struct by value. The mirror of it is kernels/src/cuda/parameters.rs; a test compares both,
// field by field. Addresses come first and the number of words is even, so that no struct has a hole.
//
// Rows are told by where their number is in device memory: the host never waits to know it, and a captured launch stays valid.
// All kernels but those said to be of one block are right, and give the same bits, with any number of blocks.
#pragma once
#include "device.cuh"

// Rows that an operation computes: those from `first` on of `*count`, at most `most`. Without an address they are `most`.
struct Rows {
  const uint32_t* count;
  uint32_t first;
  uint32_t most;
};

// How weights, or keys and values, are kept.
enum : uint32_t { KIND_BF16 = 0, KIND_F32 = 1 };

// ---- A step, as the host writes it and `begin` copies it: a header, then lists, where `StepLayout` says.
struct StepHeader {
  uint32_t tokens;
  uint32_t spans;
  uint32_t blocks;
  uint32_t asked;
  uint32_t changes;
  uint32_t unused_0;
  uint32_t unused_1;
  uint32_t unused_2;
};

// Where the lists are, in words of 4 bytes from the header on; all multiples of 4.
struct StepLayout {
  uint32_t ids;
  uint32_t positions;
  uint32_t sequences;
  uint32_t spans;
  uint32_t blocks;
  uint32_t asked;
  uint32_t changes;
  uint32_t words;
};

struct StepSpan {
  uint32_t tokens;
  uint32_t position;
  uint32_t first_block;
  uint32_t unused;
};

enum : uint32_t { ASKED_DRAW = 1, ASKED_SCORE = 2, ASKED_SUM = 4 };

struct StepAsked {
  double uniform;
  float temperature;
  float top_p;
  uint32_t top_k;
  uint32_t row;
  uint32_t flags;
  uint32_t score;
  uint32_t best;
  uint32_t unused;
};

// A changed layer is, in words: its number, then its starts, slots (rank and index of each), bounds and pages as `SlotTables` has them.

struct StepScored {
  uint32_t token;
  float logit;
};

// Best tokens that a row has places for.
enum : uint32_t { MOST_BEST = 20 };

struct StepSampled {
  double log_sum;
  float largest;
  float score;
  uint32_t drawn;
  float drawn_logit;
  uint32_t is_ordered;
  uint32_t unused;
};

// What an error word says: the first of these that any kernel met.
enum : uint32_t { ERROR_TOKEN = 1, ERROR_POSITION = 2, ERROR_BLOCK = 3, ERROR_EXPERT = 4, ERROR_SLOT = 5, ERROR_PAGE = 6, ERROR_STEP = 7, ERROR_PAIRS = 8, ERROR_RANK = 9 };

// ---- Routing.
struct TableSlot {
  uint32_t rank;
  uint32_t index;
};

enum : uint32_t { MOST_SLOTS = 1024 };
// Of all layers: `starts` [layers, experts + 1], `slots` and `bounds` [layers, physical], `pages` and `pairs` [layers, slots_here].
// At most MOST_SLOTS slots here.
struct SlotTables {
  uint32_t* starts;
  TableSlot* slots;
  uint32_t* bounds;
  uint32_t* pages;
  uint32_t* pairs;
  uint32_t layers;
  uint32_t experts;
  uint32_t physical;
  uint32_t slots_here;
};

struct PairDestination {
  uint32_t rank;
  uint32_t index;
  uint32_t ordinal;
};

struct SlotPair {
  uint32_t slot;
  uint32_t row;
};

// The most ranks, and experts of a token.
enum : uint32_t { MOST_RANKS = 256, MOST_CHOSEN = 64 };
// Words of `RoutingTables.counts`.
enum : uint32_t { COUNT_OWN = 0, COUNT_PAIRS = 1, ROUTING_COUNTS = 4 };

// Of one layer: `experts`, `weights` and `destinations` [tokens, top_k], `given` and `bases` [ranks], `pairs`, `places` and `rows`
// [pairs], `starts` [slots_here + 1].
struct RoutingTables {
  uint32_t* experts;
  float* weights;
  PairDestination* destinations;
  uint32_t* given;
  SlotPair* pairs;
  uint32_t* places;
  uint32_t* starts;
  uint32_t* rows;
  uint32_t* bases;
  uint32_t* counts;
  uint32_t most_pairs;
  uint32_t top_k;
  uint32_t ranks;
  uint32_t rank;
};

// ---- Attention.
// Keys of which attention makes one partial result. Its value decides bits.
enum : uint32_t { SPLIT_KEYS = 256 };
// Consecutive tokens of a sequence that one item has at most.
enum : uint32_t { ITEM_TOKENS = 16 };

// Some tokens of one sequence with some splits of its keys. With all of them the result is whole; otherwise it is partial, and
// that of split `s` is number `partial + s`.
struct AttentionItem {
  uint32_t row;
  uint32_t tokens;
  uint32_t position;
  uint32_t first_block;
  uint32_t first_split;
  uint32_t splits;
  uint32_t all_splits;
  uint32_t partial;
};

// `begin` (one block): copies the step, zeroes the counted pairs, changes layers, lists what attention has to do.
// `items` has room for tokens and partials together; tokens whose splits have no room in `most_partials` are computed whole.
// `item_count` are two words: how many items there are, and how many of them, which come first, are the first of their tokens.
struct BeginParameters {
  const uint32_t* area;
  uint32_t* batch;
  AttentionItem* items;
  uint32_t* item_count;
  uint32_t* error;
  SlotTables slots;
  StepLayout layout;
  uint32_t most_tokens;
  uint32_t most_blocks;
  uint32_t most_changes;
  uint32_t most_partials;
};

// `embed`: rows of a table of `kind`, `[vocabulary, width]`.
struct EmbedParameters {
  Rows rows;
  const void* table;
  const uint32_t* ids;
  float* out;
  uint32_t* error;
  uint32_t kind;
  uint32_t width;
  uint32_t vocabulary;
  uint32_t unused;
};

// `rms_norm`: `terms` is the same as the next product reads it, or null. A row in terms is twice as long: the bf16 nearest to each
// value, then the bf16 nearest to what that leaves, so that both together are the value to within a part of 2^17 of it.
struct NormParameters {
  Rows rows;
  const float* x;
  const float* weight;
  float* out;
  bf16* terms;
  uint32_t width;
  float epsilon;
};

// `split_rows`: rows in terms.
struct SplitParameters {
  Rows rows;
  const float* x;
  bf16* terms;
  uint32_t width;
  uint32_t unused;
};

// Products: rows of `k` to rows of `n`, by weights `[n, k]`. Groups of rows, each with a page: group g has rows starts[g] to
// starts[g + 1] of the output, which are rows list[..] of x (the same ones without a list), and the weights at
// arena + page_of[g] * page_bytes + offset. Without starts there is one group of `rows`; without page_of the page of group g is `page` + g.
// `product_*`: out is f32, `+ bias` if there is one, added to what was there if `add`. `gated_*`: the rows of the weights are gate
// and up, 8 by 8, and out is silu(gate) * up, `[rows, n / 2]`, for the next product.
// `*_bf16` take x in terms, of which they multiply the first or both: `*_bf16` and `*_bf16_tall` in tiles of 16 and 64 rows by 128
// outputs, `product_bf16_narrow` of 16 by 32, for products that would not keep every multiprocessor busy; all give the same bits,
// and `gated_*` gives terms. `*_f32` take and give f32.
struct ProductParameters {
  Rows rows;
  const unsigned char* arena;
  uint64_t page_bytes;
  uint64_t offset;
  const uint32_t* page_of;
  const uint32_t* starts;
  const uint32_t* list;
  const void* x;
  const float* bias;
  void* out;
  uint32_t* error;
  uint32_t groups;
  uint32_t page;
  uint32_t pages;
  uint32_t n;
  uint32_t k;
  uint32_t add;
  // Of x, 1 or 2.
  uint32_t terms;
  uint32_t unused;
};

// `*_90a`: the same for chips of compute capability 9.0, by x in both terms. The weights come through one map of those of all pages,
// `[pages, n, k]`, in boxes of 128 outputs by 64; arena, page_bytes and offset are not asked.
struct MappedProductParameters {
  TensorMap weights;
  ProductParameters product;
};

// `rotate`: norms the query and key heads of each row and rotates them, in place. angles [positions, dimension].
struct RotateParameters {
  Rows rows;
  float* projected;
  const uint32_t* row_positions;
  const float* query_norm;
  const float* key_norm;
  const float* angles;
  uint32_t* error;
  uint32_t query;
  uint32_t key_value;
  uint32_t dimension;
  uint32_t positions;
  float epsilon;
  uint32_t unused;
};

// Keys and values of one layer: `[blocks][key-value heads][keys, values][block_tokens][dimension]` of `kind`.
struct CacheTable {
  void* values;
  uint32_t kind;
  uint32_t blocks;
  uint32_t block_tokens;
  uint32_t query;
  uint32_t key_value;
  uint32_t dimension;
};

// `store`: by the first items of the step, of which each token is in one.
struct StoreParameters {
  CacheTable cache;
  const float* projected;
  const AttentionItem* items;
  const uint32_t* item_count;
  const uint32_t* blocks;
  uint32_t* error;
};

// `attend_f32` and `attend_bf16` by the kind of the cache, `attend_bf16_wide` for heads of more than 128, then `merge`: partials are `[partials][query heads][dimension + 2]`.
// `out` `[tokens, query heads * dimension]`, `terms` as in NormParameters.
struct AttendParameters {
  CacheTable cache;
  const float* projected;
  const AttentionItem* items;
  const uint32_t* item_count;
  const uint32_t* blocks;
  float* partials;
  float* out;
  bf16* terms;
  uint32_t* error;
};

// `route`.
struct RouteParameters {
  Rows rows;
  const float* logits;
  RoutingTables routing;
  uint32_t experts;
  uint32_t normalise;
};

// `choose`: rank and index of each destination. Then `number`: their ordinals, given, the own pairs and how many those are.
struct ChooseParameters {
  Rows rows;
  const uint32_t* sequences;
  const uint32_t* positions;
  SlotTables slots;
  RoutingTables routing;
  uint32_t* error;
  uint32_t layer;
  uint32_t unused;
};

// `group`: starts, rows, places; counts the pairs.
struct SortParameters {
  SlotTables slots;
  RoutingTables routing;
  uint32_t* error;
  uint32_t layer;
  uint32_t unused;
};

// `combine`: adds to rows of `out` the results of their experts, in the order of the router. Those that other ranks computed are in
// `results`, from `bases` on, or, if there are `homes`, there: `[ranks][home_each]` in the order in which each rank was given its
// pairs, or `[tokens][top_k]` if `home_each` is 0.
struct CombineParameters {
  Rows rows;
  const float* results;
  const float* homes;
  float* out;
  RoutingTables routing;
  uint32_t width;
  uint32_t home_each;
};

// `gather`: rows of x that are asked for; `rows` are of what is asked.
struct GatherParameters {
  Rows rows;
  const float* x;
  const StepAsked* asked;
  float* out;
  uint32_t width;
  uint32_t unused;
};

// Consecutive tokens of a row of logits that one block looks at before the row is put together.
enum : uint32_t { PART_TOKENS = 4096 };

// Tokens of a row whose weights have the same highest bits, and their weights added up as whole numbers.
enum : uint32_t { WEIGHT_BINS = 512 };
struct WeightBin {
  uint64_t amount;
  uint32_t count;
  uint32_t unused;
};

struct SamplePart {
  double exponentials;
  uint64_t weight;
  float largest;
  uint32_t best;
  uint32_t is_unordered;
  uint32_t unused;
};

// `sample_parts`, `sample_weigh` (both over rows and parts), `sample_pick` (over rows): answers what is asked of rows of logits.
// `parts` [most rows, parts of the vocabulary], `weights` [most rows, the vocabulary rounded up to 4], `bins` [most rows, WEIGHT_BINS], `sampled` and `best` of all that is asked.
struct SampleParameters {
  Rows rows;
  const float* logits;
  const StepAsked* asked;
  SamplePart* parts;
  float* weights;
  WeightBin* bins;
  StepSampled* sampled;
  StepScored* best;
  uint32_t vocabulary;
  uint32_t unused;
};

// `finish`: to mapped memory, what the host collects: `sampled` and `best` of what is asked, all counted pairs, the error word.
struct FinishParameters {
  const uint32_t* asked;
  const StepSampled* sampled;
  const StepScored* best;
  const uint32_t* pairs;
  uint32_t* error;
  StepSampled* sampled_out;
  StepScored* best_out;
  uint32_t* pairs_out;
  uint32_t* error_out;
  uint32_t pair_count;
  uint32_t unused;
};

// `arrive`: rows of other ranks' tokens behind those that are here, and their pairs behind those.
struct ArriveParameters {
  const float* values;
  const SlotPair* pairs;
  float* x;
  bf16* terms;
  RoutingTables routing;
  uint32_t* error;
  uint32_t width;
  uint32_t row_count;
  uint32_t first_row;
  uint32_t pair_count;
  uint32_t first_pair;
  uint32_t slots_here;
};

// `come_home`: results from rank `from` behind those that are here, from row `first_row` on.
struct ComeHomeParameters {
  const float* values;
  float* results;
  RoutingTables routing;
  uint32_t width;
  uint32_t row_count;
  uint32_t first_row;
  uint32_t from;
};

// ---- Rows between the devices of a group.
// A pair that a rank gives another: the slot there, and which of the giver's pairs it is. The first of a list says in `index` how many
// follow.
struct GivenPair {
  uint32_t index;
  uint32_t home;
};

// Where a rank stores what is for another one: rows by the token, pairs by their ordinal, results by the place of their pair; and
// the words that say that all of it is there, if that one waits for them.
struct LinkPeer {
  void* rows;
  GivenPair* pairs;
  float* homes;
  uint32_t* given_flag;
  uint32_t* home_flag;
};

// `peers` [ranks]; `given` [ranks][1 + pairs_between], by other ranks; `epoch`, how many layers were exchanged; `done`, blocks of a
// kernel; `lost`, the rank that was given up, counted from 1. `in_order`: results go home in the order in which pairs came, not to the place of
// their pair.
struct LinkTables {
  const LinkPeer* peers;
  const GivenPair* given;
  uint32_t* epoch;
  uint32_t* done;
  uint32_t* lost;
  uint32_t pairs_between;
  uint32_t in_order;
};

// `give_rows`: to every rank that computes something for them, this one too, rows and their pairs, then the flag. Rows are f32, or in
// terms where `kind` is bf16.
struct GiveRowsParameters {
  Rows rows;
  const float* x;
  RoutingTables routing;
  LinkTables link;
  uint32_t width;
  uint32_t kind;
};

// `await_ranks` (one block, so that ranks of one device never keep each other out): until each of the others has set its flag to the
// epoch. One that does not within `limit` nanoseconds, which the host may lower, is `told` to the host, counted from 1. `ends`: the
// epoch has ended.
struct AwaitParameters {
  const uint32_t* flags;
  const uint64_t* limit;
  uint32_t* told;
  uint32_t* error;
  LinkTables link;
  uint32_t ranks;
  uint32_t rank;
  uint32_t ends;
  uint32_t unused;
};

// `take_pairs`: those that were given behind the own ones, by rows `[ranks][tokens]`, and where those of each rank begin. Who watches
// from the host is told that another layer has passed, if there is where to.
struct TakePairsParameters {
  RoutingTables routing;
  LinkTables link;
  uint32_t* error;
  uint32_t* passed;
  uint32_t tokens;
  uint32_t slots_here;
};

// `give_results`: of the pairs that were taken, to their homes, then the flag.
struct GiveResultsParameters {
  const float* results;
  RoutingTables routing;
  LinkTables link;
  uint32_t width;
  uint32_t tokens;
};

// `copy`: bytes, both addresses and the number multiples of 4.
struct CopyParameters {
  const void* source;
  void* target;
  uint64_t bytes;
};

// Bytes that have a fingerprint of their own.
enum : uint32_t { CHUNK_BYTES = 65536 };

struct ChunkFingerprint {
  uint64_t low;
  uint64_t high;
};

// `fingerprint`: XXH3 of 128 bits of each chunk of `bytes`, whose `length` is a multiple of 128. `secret`: the default one under `seed`.
struct FingerprintParameters {
  const unsigned char* bytes;
  ChunkFingerprint* chunks;
  uint64_t length;
  uint64_t seed;
  uint64_t secret[24];
};

// `draw`: `rows` rows of `columns` values, a multiple of 8, those of a tensor from `first` on. Eight rows are one below the other, and
// the next eight begin `stride` rows after these.
struct DrawParameters {
  void* to;
  uint64_t key;
  uint64_t first;
  float middle;
  float unit;
  uint32_t kind;
  uint32_t rows;
  uint32_t columns;
  uint32_t stride;
};

// `read_all`: adds the sum of the words of `source`, 32 bits each, to `sum`. `bytes` is a multiple of 16.
struct ReadParameters {
  const void* source;
  uint32_t* sum;
  uint64_t bytes;
};
