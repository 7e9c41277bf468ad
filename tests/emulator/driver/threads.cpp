// The wrappers by which the threads of a block and a warp meet, and those of atomics and waiting.
#include <chrono>
#include <thread>

#include "access.h"
#include "block.h"
#include "settings.h"

namespace model {
namespace {

using Time = std::chrono::steady_clock;

Block& here() { return *Block::running(); }

}  // namespace

const Place* place() { return &here().place(); }

uint64_t exchange(Exchange kind, uint64_t bits, int with) {
  Block& block = here();
  Warp& warp = block.warp();
  const unsigned lane = block.current() % 32;
  unsigned from = lane;
  switch (kind) {
    case Exchange::from: from = static_cast<unsigned>(with) % 32; break;
    case Exchange::exclusive_or: from = (lane ^ static_cast<unsigned>(with)) % 32; break;
    case Exchange::down: from = lane + static_cast<unsigned>(with) < 32 ? lane + static_cast<unsigned>(with) : lane; break;
    case Exchange::up: from = lane >= static_cast<unsigned>(with) ? lane - static_cast<unsigned>(with) : lane; break;
  }
  if ((warp.lanes >> from & 1) == 0) block.fail(Status::launch_failed, "takes a value from a lane that its warp does not have");
  warp.given[lane][0] = bits;
  warp.given[lane][1] = from;
  block.meet_warp("a shuffle", [&] {
    for (unsigned i = 0; i < 32; ++i)
      if (warp.lanes >> i & 1) warp.taken[i][0] = warp.given[warp.given[i][1]][0];
  });
  return warp.taken[lane][0];
}

uint32_t vote(bool predicate) {
  Block& block = here();
  Warp& warp = block.warp();
  const unsigned lane = block.current() % 32;
  warp.given[lane][0] = predicate ? 1 : 0;
  block.meet_warp("a vote", [&] {
    uint64_t votes = 0;
    for (unsigned i = 0; i < 32; ++i)
      if (warp.lanes >> i & 1) votes |= warp.given[i][0] << i;
    for (unsigned i = 0; i < 32; ++i) warp.taken[i][0] = votes;
  });
  return static_cast<uint32_t>(warp.taken[lane][0]);
}

void warp_meets() {
  here().meet_warp_in_order("a barrier of its warp");
}

void block_meets() {
  Block& block = here();
  block.meet(block.block_meeting(), block.threads(), "a barrier of the block", [&] { block.clock().block_met(); });
}

void group_meets(int id, int threads) {
  Block& block = here();
  if (id < 1 || id > 15 || threads < 32 || threads % 32 != 0 || static_cast<size_t>(threads) > block.threads())
    block.fail(Status::launch_failed, "names barrier " + std::to_string(id) + " of " + std::to_string(threads) +
                                          " threads; there are 1 to 15, of whole warps");
  Meeting& meeting = block.group_meeting(id);
  block.meet(meeting, static_cast<size_t>(threads), "a barrier of some warps", [&] {
    std::vector<unsigned> all = meeting.waiting;
    all.push_back(block.current());
    block.clock().group_met(all);
  });
}

void* shared_array(const void* key, size_t bytes, size_t alignment) { return here().shared_array(key, bytes, alignment); }
unsigned char* dynamic_shared() { return here().dynamic_shared(); }

uint64_t atomic(Atomic kind, void* at, size_t bytes, uint64_t operand, uint64_t expected) {
  access_atomic(at, bytes, true);
  // Counts order what they count between fences: what was done before one that comes before the count is known to who counts after
  // it and then has one. So the last block of a launch may read what the others wrote.
  if (here().lane().fenced) synchronise_release(at);
  here().lane().counted.insert(at);
  const auto change = [&](auto* word) -> uint64_t {
    using Word = std::remove_pointer_t<decltype(word)>;
    switch (kind) {
      case Atomic::add: return __atomic_fetch_add(word, static_cast<Word>(operand), __ATOMIC_SEQ_CST);
      case Atomic::bits_or: return __atomic_fetch_or(word, static_cast<Word>(operand), __ATOMIC_SEQ_CST);
      case Atomic::most: {
        Word old = __atomic_load_n(word, __ATOMIC_SEQ_CST);
        while (old < operand &&
               !__atomic_compare_exchange_n(word, &old, static_cast<Word>(operand), false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) {}
        return old;
      }
      case Atomic::exchange_if: {
        auto old = static_cast<Word>(expected);
        __atomic_compare_exchange_n(word, &old, static_cast<Word>(operand), false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
        return old;
      }
    }
    return 0;
  };
  return bytes == 4 ? change(static_cast<uint32_t*>(at)) : change(static_cast<uint64_t*>(at));
}

uint64_t acquire(const void* at, size_t bytes, bool orders) {
  access_atomic(at, bytes, false);
  const uint64_t value = bytes == 4 ? __atomic_load_n(static_cast<const uint32_t*>(at), __ATOMIC_ACQUIRE)
                                    : __atomic_load_n(static_cast<const uint64_t*>(at), __ATOMIC_ACQUIRE);
  if (orders) synchronise_acquire(at);
  return value;
}

void release(void* at, size_t bytes, uint64_t value, bool orders) {
  access_atomic(at, bytes, true);
  if (orders) synchronise_release(at);
  if (bytes == 4)
    __atomic_store_n(static_cast<uint32_t*>(at), static_cast<uint32_t>(value), __ATOMIC_RELEASE);
  else
    __atomic_store_n(static_cast<uint64_t*>(at), value, __ATOMIC_RELEASE);
}

void fence() {
  Lane& lane = here().lane();
  lane.fenced = true;
  for (const void* at : lane.counted) synchronise_acquire(at);
  lane.counted.clear();
  __atomic_thread_fence(__ATOMIC_SEQ_CST);
}

uint64_t nanoseconds() {
  return static_cast<uint64_t>(std::chrono::duration_cast<std::chrono::nanoseconds>(Time::now().time_since_epoch()).count());
}

void pause() {
  Block& block = here();
  // Something outside of this block is waited for: other streams need the processor.
  std::this_thread::yield();
  if (block.waited_too_long())
    block.fail(Status::launch_timeout,
               "deadlock: waits for longer than " + std::to_string(settings().patience_seconds) + " s in a loop");
  block.yield();
}

void trap() { here().fail(Status::launch_failed, "trap"); }

}  // namespace model
