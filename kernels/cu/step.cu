// The ends of a step: what the host says at its begin, and what it is told at its end, both through mapped memory.
#include "scan.h"

namespace {

// By one block: `count` words, both addresses multiples of 16.
DEVICE void copy_words(const uint32_t* from, uint32_t* to, uint32_t count) {
  for (uint32_t i = threadIdx.x * 4; i < count; i += blockDim.x * 4) store16(to + i, load16(from + i));
}

// One layer's routing, as the step says it.
DEVICE void change_layer(const BeginParameters& p, const uint32_t* change) {
  const SlotTables& slots = p.slots;
  const uint32_t layer = change[0];
  if (layer >= slots.layers) {
    if (threadIdx.x == 0) report(p.error, ERROR_STEP);
    return;
  }
  const uint32_t* from = change + 1;
  const auto put = [&](uint32_t* table, uint32_t each) {
    uint32_t* to = table + static_cast<size_t>(layer) * each;
    for (uint32_t i = threadIdx.x; i < each; i += blockDim.x) to[i] = from[i];
    from += each;
  };
  put(slots.starts, slots.experts + 1);
  put(reinterpret_cast<uint32_t*>(slots.slots), 2 * slots.physical);
  put(slots.bounds, slots.physical);
  put(slots.pages, slots.slots_here);
}

// What attention has to do for one sequence, and the items that it makes beyond the first of each of its tokens.
struct Wanted {
  uint32_t splits;
  uint32_t firsts;
  uint32_t rests;
  // A single token whose splits are many may be spread over blocks.
  uint32_t partials;
};
DEVICE Wanted wanted_by(const StepSpan& span) {
  if (span.tokens == 0) return Wanted{};
  const uint32_t splits = (span.position + span.tokens - 1) / SPLIT_KEYS + 1;
  if (span.tokens > 1 || splits == 1) return Wanted{splits, (span.tokens + ITEM_TOKENS - 1) / ITEM_TOKENS, 0, 0};
  return Wanted{splits, 1, splits - 1, splits};
}

DEVICE void list_items(AttentionItem* first_item, AttentionItem* rest, const StepSpan& span, uint32_t row, const Wanted& wanted, uint32_t partial) {
  if (wanted.partials > 0) {
    for (uint32_t split = 0; split < wanted.splits; ++split)
      *(split == 0 ? first_item : rest + split - 1) = AttentionItem{row, 1, span.position, span.first_block, split, 1, wanted.splits, partial};
    return;
  }
  for (uint32_t first = 0; first < span.tokens; first += ITEM_TOKENS) {
    const uint32_t tokens = minimum(span.tokens - first, static_cast<uint32_t>(ITEM_TOKENS));
    const uint32_t own = (span.position + first + tokens - 1) / SPLIT_KEYS + 1;
    first_item[first / ITEM_TOKENS] = AttentionItem{row + first, tokens, span.position + first, span.first_block, 0, own, own, 0};
  }
}

// Lists the first items of all tokens, then the rest of those that are spread.
DEVICE void list_attention(const BeginParameters& p, const StepSpan* spans, uint32_t count, uint32_t* scratch) {
  uint32_t firsts = 0;
  for (uint32_t index = threadIdx.x; index < count; index += blockDim.x) firsts += wanted_by(spans[index]).firsts;
  const uint32_t all_firsts = sum_before(firsts, scratch).all;
  uint32_t row = 0, first = 0, rest = 0, partials = 0;
  for (uint32_t begin = 0; begin < count; begin += blockDim.x) {
    const StepSpan span = begin + threadIdx.x < count ? spans[begin + threadIdx.x] : StepSpan{};
    Wanted wanted = wanted_by(span);
    const Before<uint32_t> rows = sum_before(span.tokens, scratch), firsts_here = sum_before(wanted.firsts, scratch), wants = sum_before(wanted.partials, scratch);
    // Whose partial results have no room is computed whole.
    if (partials + wants.here + wanted.partials > p.most_partials) wanted.partials = wanted.rests = 0;
    const Before<uint32_t> rests = sum_before(wanted.rests, scratch);
    if (span.tokens > 0) list_items(p.items + first + firsts_here.here, p.items + all_firsts + rest + rests.here, span, row + rows.here, wanted, partials + wants.here);
    row += rows.all;
    first += firsts_here.all;
    rest += rests.all;
    partials += wants.all;
  }
  if (threadIdx.x == 0) {
    p.item_count[0] = all_firsts + rest;
    p.item_count[1] = all_firsts;
  }
}

}  // namespace

extern "C" KERNEL(256) begin(GRID_CONSTANT const BeginParameters p) {
  SHARED(uint32_t, scratch, 8);
  const StepLayout& layout = p.layout;
  // One thread says so, and all that is reported here.
  if (threadIdx.x == 0) *p.error = 0;
  StepHeader header = *reinterpret_cast<const StepHeader*>(p.area);
  if (header.tokens > p.most_tokens || header.spans > header.tokens || header.blocks > p.most_blocks || header.asked > p.most_tokens || header.changes > p.most_changes) {
    if (threadIdx.x == 0) report(p.error, ERROR_STEP);
    header = StepHeader{};
  }
  if (threadIdx.x == 0) *reinterpret_cast<StepHeader*>(p.batch) = header;
  copy_words(p.area + layout.ids, p.batch + layout.ids, header.tokens);
  copy_words(p.area + layout.positions, p.batch + layout.positions, header.tokens);
  copy_words(p.area + layout.sequences, p.batch + layout.sequences, header.tokens);
  copy_words(p.area + layout.spans, p.batch + layout.spans, header.spans * (sizeof(StepSpan) / 4));
  copy_words(p.area + layout.blocks, p.batch + layout.blocks, header.blocks);
  copy_words(p.area + layout.asked, p.batch + layout.asked, header.asked * (sizeof(StepAsked) / 4));
  for (uint32_t i = threadIdx.x; i < p.slots.layers * p.slots.slots_here; i += blockDim.x) p.slots.pairs[i] = 0;
  const uint32_t change_words = 1 + p.slots.experts + 1 + 3 * p.slots.physical + p.slots.slots_here;
  // Two of them may be of one layer, and the later one holds: a thread writes the same words of each.
  for (uint32_t change = 0; change < header.changes; ++change) change_layer(p, p.area + layout.changes + static_cast<size_t>(change) * change_words);
  // A thread looks at the spans that it has copied.
  static_assert(sizeof(StepSpan) == 16, "one access of 16 bytes each");
  const StepSpan* spans = reinterpret_cast<const StepSpan*>(p.batch + layout.spans);
  list_attention(p, spans, header.spans, scratch);
}

extern "C" KERNEL(256) finish(GRID_CONSTANT const FinishParameters p) {
  const uint32_t thread = blockIdx.x * blockDim.x + threadIdx.x, threads = gridDim.x * blockDim.x, asked = *p.asked;
  const auto put = [&](const void* from, void* to, uint32_t words) {
    for (uint32_t i = thread; i < words; i += threads) static_cast<uint32_t*>(to)[i] = static_cast<const uint32_t*>(from)[i];
  };
  put(p.sampled, p.sampled_out, asked * (sizeof(StepSampled) / 4));
  put(p.best, p.best_out, asked * MOST_BEST * (sizeof(StepScored) / 4));
  put(p.pairs, p.pairs_out, p.pair_count);
  put(p.error, p.error_out, 1);
}

extern "C" KERNEL(256) copy(GRID_CONSTANT const CopyParameters p) {
  const uint64_t thread = static_cast<uint64_t>(blockIdx.x) * blockDim.x + threadIdx.x, threads = static_cast<uint64_t>(gridDim.x) * blockDim.x;
  const unsigned char* source = static_cast<const unsigned char*>(p.source);
  unsigned char* target = static_cast<unsigned char*>(p.target);
  const bool is_aligned = (reinterpret_cast<uint64_t>(source) | reinterpret_cast<uint64_t>(target)) % 16 == 0;
  const uint64_t wide = is_aligned ? p.bytes / 16 * 16 : 0;
  for (uint64_t i = thread * 16; i < wide; i += threads * 16) store16(target + i, load16(source + i));
  for (uint64_t i = wide + thread * 4; i < p.bytes; i += threads * 4) *reinterpret_cast<uint32_t*>(target + i) = *reinterpret_cast<const uint32_t*>(source + i);
}
