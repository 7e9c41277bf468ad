// Rows between the devices of a group, with no host in it. What a rank has for another it stores where that one reads it, a word last
// that says that all of it is there; then it waits for the words of the others. See kernels/src/cuda/link.rs for why nothing is
// stored where somebody still reads.
#include "rows.h"

namespace {

// No rank, and none of those that are there.
constexpr uint32_t NOBODY = ~0u;

// By every thread of every block, once its part of what the others get is written. The last block tells each of them, with the number
// of pairs that it was given if it is told.
DEVICE void announce(const LinkTables& link, const RoutingTables& routing, bool gives) {
  SHARED(uint32_t, is_last, 1);
  block_barrier();
  if (threadIdx.x == 0) {
    fence_system();
    is_last[0] = add_count(link.done, 1u) + 1 == gridDim.x;
    fence_system();
  }
  block_barrier();
  if (is_last[0] == 0) return;
  const uint32_t now = *link.epoch + 1;
  for (uint32_t rank = threadIdx.x; rank < routing.ranks; rank += blockDim.x) {
    const LinkPeer& peer = link.peers[rank];
    if (gives) peer.pairs[0] = GivenPair{minimum(routing.given[rank], link.pairs_between), 0};
    uint32_t* flag = gives ? peer.given_flag : peer.home_flag;
    if (flag != nullptr && rank != routing.rank) store_release(flag, now);
  }
  if (threadIdx.x == 0) *link.done = 0;
}

// Who has given a rank up gives nobody anything more, and raises no flag: others may still read what it gave, and what it would give
// is worth nothing.
DEVICE bool has_given_up(const LinkTables& link) { return *link.lost != 0; }

// Pairs that a rank gave, where the number of them stands before the first.
DEVICE const GivenPair* pairs_from(const LinkTables& link, uint32_t rank) {
  return link.given + static_cast<size_t>(rank) * (link.pairs_between + 1);
}

// Of a rank that was given up nothing is believed, and none of the others'.
DEVICE uint32_t count_of(const LinkTables& link, const GivenPair* given) { return has_given_up(link) ? 0 : given[0].index; }

}  // namespace

extern "C" KERNEL(128) give_rows(GRID_CONSTANT const GiveRowsParameters p) {
  SHARED(uint32_t, targets, MOST_CHOSEN);
  const RoutingTables& routing = p.routing;
  if (has_given_up(p.link)) return;
  const uint32_t rows = row_count(p.rows), top_k = routing.top_k;
  for (uint32_t row = blockIdx.x; row < rows; row += gridDim.x) {
    block_barrier();
    if (threadIdx.x < top_k) {
      const uint32_t first = row * top_k, pair = first + threadIdx.x;
      const PairDestination to = routing.destinations[pair];
      // A rank that is not there was reported where it was chosen.
      const bool is_there = to.rank < routing.ranks;
      bool is_first = is_there;
      for (uint32_t before = first; before < pair; ++before) is_first = is_first && routing.destinations[before].rank != to.rank;
      targets[threadIdx.x] = is_first ? to.rank : NOBODY;
      if (is_there && to.ordinal < p.link.pairs_between) p.link.peers[to.rank].pairs[1 + to.ordinal] = GivenPair{to.index, pair};
    }
    block_barrier();
    const size_t at = static_cast<size_t>(row) * p.width;
    for (uint32_t i = threadIdx.x * 4; i < p.width; i += blockDim.x * 4) {
      float x[4];
      load_floats(p.x + at + i, x);
      for (uint32_t j = 0; j < top_k; ++j) {
        if (targets[j] == NOBODY) continue;
        void* to = p.link.peers[targets[j]].rows;
        if (p.kind == KIND_BF16)
          store_terms(terms_at(static_cast<bf16*>(to), row, p.width, i), p.width, x);
        else
          store_floats(static_cast<float*>(to) + at + i, x);
      }
    }
  }
  announce(p.link, routing, true);
}

extern "C" KERNEL(256) await_ranks(GRID_CONSTANT const AwaitParameters p) {
  const uint32_t now = *p.link.epoch + 1;
  const uint64_t start = nanoseconds();
  for (uint32_t rank = threadIdx.x; rank < p.ranks; rank += blockDim.x) {
    if (rank == p.rank) continue;
    for (uint32_t tries = 0; load_acquire(p.flags + rank) != now; ++tries) {
      // Where one was given up nobody is waited for in any later layer.
      if (load_relaxed(p.link.lost) != 0) break;
      if (tries % 64 == 63 && nanoseconds() - start >= load_relaxed(p.limit)) {
        if (compare_exchange(p.link.lost, 0, rank + 1) == 0) store_relaxed(p.told, rank + 1);
        report(p.error, ERROR_RANK);
        break;
      }
      pause();
    }
  }
  block_barrier();
  if (p.ends != 0 && threadIdx.x == 0) *p.link.epoch = now;
}

extern "C" KERNEL(256) take_pairs(GRID_CONSTANT const TakePairsParameters p) {
  const RoutingTables& routing = p.routing;
  const uint32_t thread = blockIdx.x * blockDim.x + threadIdx.x, threads = gridDim.x * blockDim.x;
  const uint32_t own = routing.counts[COUNT_OWN], first_own = routing.rank * p.tokens;
  for (uint32_t i = thread; i < own; i += threads) routing.pairs[i].row += first_own;
  uint32_t base = own;
  for (uint32_t rank = 0; rank < routing.ranks; ++rank) {
    if (rank == routing.rank) continue;
    const GivenPair* given = pairs_from(p.link, rank);
    uint32_t count = count_of(p.link, given);
    if (count > p.link.pairs_between || base + count > routing.most_pairs) {
      if (thread == 0) report(p.error, ERROR_PAIRS);
      count = 0;
    }
    for (uint32_t i = thread; i < count; i += threads) {
      GivenPair pair = given[1 + i];
      if (pair.index >= p.slots_here || pair.home >= p.tokens * routing.top_k) {
        report(p.error, ERROR_SLOT);
        pair = GivenPair{0, 0};
      }
      routing.pairs[base + i] = SlotPair{pair.index, rank * p.tokens + pair.home / routing.top_k};
    }
    if (thread == 0) routing.bases[rank] = base;
    base += count;
  }
  if (thread != 0) return;
  routing.counts[COUNT_PAIRS] = base;
  if (p.passed == nullptr) return;
  const uint32_t now = *p.link.epoch + 1;
  *p.link.epoch = now;
  store_relaxed(p.passed, now);
}

extern "C" KERNEL(128) give_results(GRID_CONSTANT const GiveResultsParameters p) {
  const RoutingTables& routing = p.routing;
  if (has_given_up(p.link)) return;
  // Words of other ranks may be others by now than those that were checked when the pairs were taken.
  const uint32_t places = p.link.in_order != 0 ? p.link.pairs_between : p.tokens * routing.top_k;
  for (uint32_t rank = 0; rank < routing.ranks; ++rank) {
    if (rank == routing.rank) continue;
    const GivenPair* given = pairs_from(p.link, rank);
    const uint32_t base = routing.bases[rank], taken = routing.counts[COUNT_PAIRS] - base;
    const uint32_t count = minimum(minimum(count_of(p.link, given), p.link.pairs_between), taken);
    for (uint32_t i = blockIdx.x; i < count; i += gridDim.x) {
      const uint32_t place = p.link.in_order != 0 ? i : given[1 + i].home;
      if (place >= places) continue;
      const float* from = p.results + static_cast<size_t>(routing.places[base + i]) * p.width;
      float* to = p.link.peers[rank].homes + static_cast<size_t>(place) * p.width;
      for (uint32_t c = threadIdx.x * 4; c < p.width; c += blockDim.x * 4) store16(to + c, load16(from + c));
    }
  }
  announce(p.link, routing, false);
}
