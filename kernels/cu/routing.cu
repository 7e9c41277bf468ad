// Which slot computes each (token, expert) pair, and the pairs of this rank in the order of its slots. Integers only, the same as
// the specification's (kernels/src/routing.rs), however many blocks share the work: each of them counts all pairs before its own.
#include "scan.h"

namespace {

// Where a token is among all tokens of an expert, of a whole of 2^32, as kernels/src/routing.rs says.
DEVICE uint32_t point(uint32_t expert, uint32_t sequence, uint32_t position) {
  return sequence * 0xC13FA9A9u + position * 0x91E10DA5u + expert * 0x9E3779B9u;
}

constexpr uint32_t WARPS = 8;

// Consecutive entries of a list.
struct Part {
  uint32_t first;
  uint32_t end;
};
// The `index`-th of `parts` parts of `all`, each of whole steps of a warp.
DEVICE Part part_of(Part all, uint32_t index, uint32_t parts) {
  const uint32_t count = all.end - all.first, each = ((count + parts - 1) / parts + 31) / 32 * 32;
  return Part{minimum(all.first + index * each, all.end), minimum(all.first + (index + 1) * each, all.end)};
}

// The lanes that have the same key of less than `keys`, among those that have one at all.
DEVICE uint32_t same_key(bool is_there, uint32_t key, uint32_t keys) {
  uint32_t same = vote(is_there);
  for (uint32_t bit = 1; bit < keys; bit *= 2) {
    const bool set = (key & bit) != 0;
    const uint32_t with = vote(set);
    same &= set ? with : ~with;
  }
  return same;
}
DEVICE uint32_t lanes_before() { return (1u << lane()) - 1; }

// Adds the number of each key in `part` to `counts` in shared memory, all warps of the block together.
template <class Key> DEVICE void count_keys(Part part, uint32_t keys, uint32_t* counts, Key key_of) {
  for (uint32_t first = part.first + warp() * 32; first < part.end; first += WARPS * 32) {
    const bool is_there = first + lane() < part.end;
    const uint32_t key = is_there ? key_of(first + lane()) : 0, same = same_key(is_there, key, keys);
    if (is_there && (same & lanes_before()) == 0) add_count(counts + key, count_bits(same));
  }
}

// Gives each entry of `part` its place: `bases[key]`, and how many of the same key come before it in `part`. `table` has `keys`
// words for each warp. Ends with `bases` behind the places given. What was counted before is known behind its first barrier.
template <class Key, class Give> DEVICE void give_places(Part part, uint32_t keys, uint32_t* bases, uint32_t* table, Key key_of, Give give) {
  for (uint32_t i = threadIdx.x; i < WARPS * keys; i += blockDim.x) table[i] = 0;
  block_barrier();
  const Part mine = part_of(part, warp(), WARPS);
  uint32_t* next = table + warp() * keys;
  for (uint32_t first = mine.first; first < mine.end; first += 32) {
    const bool is_there = first + lane() < mine.end;
    const uint32_t key = is_there ? key_of(first + lane()) : 0, same = same_key(is_there, key, keys);
    if (is_there && (same & lanes_before()) == 0) next[key] += count_bits(same);
    warp_barrier();
  }
  block_barrier();
  for (uint32_t key = threadIdx.x; key < keys; key += blockDim.x) {
    uint32_t place = bases[key];
    for (uint32_t w = 0; w < WARPS; ++w) {
      const uint32_t count = table[w * keys + key];
      table[w * keys + key] = place;
      place += count;
    }
    bases[key] = place;
  }
  block_barrier();
  for (uint32_t first = mine.first; first < mine.end; first += 32) {
    const uint32_t entry = first + lane();
    const bool is_there = entry < mine.end;
    const uint32_t key = is_there ? key_of(entry) : 0, same = same_key(is_there, key, keys);
    const uint32_t place = is_there ? next[key] + count_bits(same & lanes_before()) : 0;
    warp_barrier();
    if (is_there && (same & lanes_before()) == 0) next[key] += count_bits(same);
    warp_barrier();
    if (is_there) give(entry, key, place);
  }
}

}  // namespace

extern "C" KERNEL(256) choose(GRID_CONSTANT const ChooseParameters p) {
  const SlotTables& slots = p.slots;
  const uint32_t top_k = p.routing.top_k, count = row_count(p.rows) * top_k;
  const uint32_t* starts = slots.starts + static_cast<size_t>(p.layer) * (slots.experts + 1);
  const size_t at = static_cast<size_t>(p.layer) * slots.physical;
  for (uint32_t pair = blockIdx.x * blockDim.x + threadIdx.x; pair < count; pair += gridDim.x * blockDim.x) {
    uint32_t expert = p.routing.experts[pair];
    if (expert >= slots.experts) {
      report(p.error, ERROR_EXPERT);
      expert = 0;
    }
    const uint32_t first = starts[expert], end = starts[expert + 1];
    uint32_t chosen = first;
    if (end - first > 1) {
      // Bounds rise, so as many further copies are passed as have bounds up to the point.
      const uint32_t here = point(expert, p.sequences[pair / top_k], p.positions[pair / top_k]);
      for (uint32_t copy = first + 1; copy < end; ++copy) chosen += slots.bounds[at + copy] <= here;
    }
    const TableSlot slot = slots.slots[at + chosen];
    if (slot.rank >= p.routing.ranks || (slot.rank == p.routing.rank && slot.index >= slots.slots_here)) report(p.error, ERROR_SLOT);
    p.routing.destinations[pair].rank = slot.rank;
    p.routing.destinations[pair].index = slot.index;
  }
}

extern "C" KERNEL(256) number(GRID_CONSTANT const ChooseParameters p) {
  SHARED(uint32_t, given, MOST_RANKS);
  SHARED(uint32_t, table, WARPS * MOST_RANKS);
  const RoutingTables& routing = p.routing;
  const Part all{0, row_count(p.rows) * routing.top_k}, mine = part_of(all, blockIdx.x, gridDim.x);
  const bool is_last = mine.end == all.end && (mine.first < mine.end || (all.end == 0 && blockIdx.x == 0));
  if (mine.first == mine.end && !is_last) return;
  const auto rank_of = [&](uint32_t pair) { return minimum(routing.destinations[pair].rank, routing.ranks - 1); };
  for (uint32_t rank = threadIdx.x; rank < routing.ranks; rank += blockDim.x) given[rank] = 0;
  block_barrier();
  count_keys(Part{0, mine.first}, routing.ranks, given, rank_of);
  give_places(mine, routing.ranks, given, table, rank_of, [&](uint32_t pair, uint32_t rank, uint32_t ordinal) {
    routing.destinations[pair].ordinal = ordinal;
    if (rank == routing.rank) routing.pairs[ordinal] = SlotPair{routing.destinations[pair].index, pair / routing.top_k};
  });
  if (!is_last) return;
  for (uint32_t rank = threadIdx.x; rank < routing.ranks; rank += blockDim.x) routing.given[rank] = given[rank];
  if (threadIdx.x == 0) {
    routing.counts[COUNT_OWN] = given[routing.rank];
    routing.counts[COUNT_PAIRS] = given[routing.rank];
  }
}

extern "C" KERNEL(256) sort_pairs(GRID_CONSTANT const SortParameters p) {
  SHARED(uint32_t, bases, MOST_SLOTS);
  SHARED(uint32_t, totals, MOST_SLOTS);
  SHARED(uint32_t, table, WARPS * MOST_SLOTS);
  const RoutingTables& routing = p.routing;
  const uint32_t slots = p.slots.slots_here, count = routing.counts[COUNT_PAIRS];
  if (count > routing.most_pairs && threadIdx.x == 0) report(p.error, ERROR_PAIRS);
  const Part all{0, minimum(count, routing.most_pairs)}, mine = part_of(all, blockIdx.x, gridDim.x);
  if (mine.first == mine.end && blockIdx.x != 0) return;
  const auto slot_of = [&](uint32_t pair) { return minimum(routing.pairs[pair].slot, slots - 1); };
  for (uint32_t slot = threadIdx.x; slot < slots; slot += blockDim.x) bases[slot] = totals[slot] = 0;
  block_barrier();
  count_keys(all, slots, totals, slot_of);
  count_keys(Part{0, mine.first}, slots, bases, slot_of);
  block_barrier();
  // Pairs of the slots before each, by the first warp: 32 slots at a time.
  if (warp() == 0) {
    uint32_t before = 0;
    for (uint32_t first = 0; first < slots; first += 32) {
      const uint32_t slot = first + lane(), total = slot < slots ? totals[slot] : 0, sum = warp_sum_to(total);
      if (slot < slots) {
        bases[slot] += before + sum - total;
        if (blockIdx.x == 0) {
          routing.starts[slot] = before + sum - total;
          p.slots.pairs[static_cast<size_t>(p.layer) * slots + slot] += total;
        }
      }
      before += shuffle(sum, 31);
    }
    if (blockIdx.x == 0 && lane() == 0) routing.starts[slots] = before;
  }
  give_places(mine, slots, bases, table, slot_of, [&](uint32_t pair, uint32_t, uint32_t place) {
    routing.rows[place] = routing.pairs[pair].row;
    routing.places[pair] = place;
  });
}

extern "C" KERNEL(128) arrive(GRID_CONSTANT const ArriveParameters p) {
  const size_t values = static_cast<size_t>(p.row_count) * p.width, first = static_cast<size_t>(p.first_row) * p.width;
  const uint32_t thread = blockIdx.x * blockDim.x + threadIdx.x, threads = gridDim.x * blockDim.x;
  for (size_t i = static_cast<size_t>(thread) * 4; i < values; i += static_cast<size_t>(threads) * 4) {
    float x[4];
    load_floats(p.values + i, x);
    store_floats(p.x + first + i, x);
    if (p.terms != nullptr) store_terms(terms_at(p.terms, p.first_row + i / p.width, p.width, static_cast<uint32_t>(i % p.width)), p.width, x);
  }
  if (p.first_pair + p.pair_count > p.routing.most_pairs) {
    if (thread == 0) report(p.error, ERROR_PAIRS);
    return;
  }
  for (uint32_t i = thread; i < p.pair_count; i += threads) {
    SlotPair pair = p.pairs[i];
    if (pair.slot >= p.slots_here || pair.row >= p.row_count) {
      report(p.error, ERROR_SLOT);
      pair = SlotPair{0, 0};
    }
    p.routing.pairs[p.first_pair + i] = SlotPair{pair.slot, p.first_row + pair.row};
  }
  if (thread == 0) p.routing.counts[COUNT_PAIRS] = p.first_pair + p.pair_count;
}

extern "C" KERNEL(128) come_home(GRID_CONSTANT const ComeHomeParameters p) {
  const size_t values = static_cast<size_t>(p.row_count) * p.width, first = static_cast<size_t>(p.first_row) * p.width;
  const uint32_t thread = blockIdx.x * blockDim.x + threadIdx.x, threads = gridDim.x * blockDim.x;
  for (size_t i = static_cast<size_t>(thread) * 4; i < values; i += static_cast<size_t>(threads) * 4) store16(p.results + first + i, load16(p.values + i));
  if (thread == 0) p.routing.bases[p.from] = p.first_row;
}
