#include "phases.h"

#include <cstring>

#include "access.h"
#include "memory.h"
#include "tensor_map.h"

namespace model {
namespace {

Block& here() { return *Block::running(); }

PhaseBarrier& barrier_at(Block& block, void* at) {
  auto found = block.barriers().find(at);
  if (found == block.barriers().end()) block.fail(Status::launch_failed, "uses a barrier that is not initialised");
  return found->second;
}

void end_phase_if_complete(Block& block, PhaseBarrier& barrier) {
  if (barrier.pending != 0 || barrier.bytes != 0) return;
  barrier.phase ^= 1;
  barrier.pending = barrier.arrivals;
  block.wake(barrier.meeting);
}

}  // namespace

void barrier_init(void* at, int arrivals) {
  Block& block = here();
  access_written(at, 8);
  if (arrivals < 1) block.fail(Status::launch_failed, "makes a barrier for " + std::to_string(arrivals) + " arrivals");
  PhaseBarrier& barrier = block.barriers()[at] = {};
  barrier.arrivals = barrier.pending = arrivals;
  barrier.made_by = block.current();
}

void barrier_fence() {
  Block& block = here();
  for (auto& [at, barrier] : block.barriers())
    if (barrier.made_by == block.current()) barrier.fenced = true;
}

void barrier_arrive(void* at, int bytes) {
  Block& block = here();
  PhaseBarrier& barrier = barrier_at(block, at);
  if (--barrier.pending < 0) block.fail(Status::launch_failed, "arrives at a barrier more often than it was made for");
  BlockClock::join(barrier.known, block.clock().release(block.current()));
  barrier.bytes += bytes;
  end_phase_if_complete(block, barrier);
}

void barrier_wait(void* at, int parity) {
  Block& block = here();
  while (barrier_at(block, at).phase == parity)
    block.wait_in(barrier_at(block, at).meeting, "a barrier that counts arrivals and bytes");
  block.clock().acquire(block.current(), barrier_at(block, at).known);
}

void tile(void* to, const void* map_at, void* barrier, const int* at, unsigned rank) {
  Block& block = here();
  EncodedMap map;
  std::memcpy(&map, map_at, sizeof map);
  if (map.marked != EncodedMap::mark || map.rank != rank)
    block.fail(Status::illegal_address,
               "copies a tile of rank " + std::to_string(rank) + " through what is no tensor map of that rank");
  if (!barrier_at(block, barrier).fenced)
    block.fail(Status::launch_failed, "has a tile count down a barrier that was not fenced after it was made");
  Tile tile{to, {}, barrier, block.current(), 2, block.random().below(8)};
  for (unsigned i = 0; i < rank; ++i) tile.bytes *= map.box[i];
  if (reinterpret_cast<Address>(to) % (map.swizzle != 0 ? 1024 : 128) != 0)
    block.fail(Status::misaligned_address, "copies a tile to shared memory that is not aligned for it");
  if (!block.in_shared_region(to)) block.fail(Status::illegal_address, "copies a tile to other than shared memory");
  access_begun(to, tile.bytes, true);
  const size_t row_bytes = size_t{2} * map.box[0];
  const uint32_t rows = static_cast<uint32_t>(tile.bytes / row_bytes);
  for (uint32_t row = 0; row < rows; ++row) {
    const int y = rank > 1 ? at[1] + static_cast<int>(row % map.box[1]) : 0;
    const int z = rank > 2 ? at[2] + static_cast<int>(row / map.box[1]) : 0;
    const bool row_is_in =
        (rank < 2 || static_cast<uint32_t>(y) < map.sizes[1]) && (rank < 3 || static_cast<uint32_t>(z) < map.sizes[2]);
    if (rank > 2 && !row_is_in && static_cast<uint32_t>(z) >= map.sizes[2])
      block.fail(Status::illegal_address, "copies a tile of page " + std::to_string(z) + " of " + std::to_string(map.sizes[2]));
    for (size_t byte = 0; byte < row_bytes; byte += 16) {
      const int x = at[0] + static_cast<int>(byte / 2);
      const Address from =
          map.base + static_cast<Address>(static_cast<int64_t>(x) * 2 + y * static_cast<int64_t>(map.strides[0]) +
                                          z * static_cast<int64_t>(map.strides[1]));
      const bool is_in = row_is_in && static_cast<uint32_t>(x) < map.sizes[0];
      if (is_in) access_read(reinterpret_cast<const void*>(from), 16);
      const size_t straight = row * row_bytes + byte;
      tile.parts.push_back({map.swizzle != 0 ? straight ^ (straight >> 7 & 7) << 4 : straight,
                            is_in ? reinterpret_cast<const void*>(from) : nullptr});
    }
  }
  block.tiles().push_back(std::move(tile));
}

void bring_in(Block& block, const Tile& tile) {
  for (const Tile::Part& part : tile.parts) {
    char* to = static_cast<char*>(tile.to) + part.offset;
    if (part.from != nullptr)
      std::memcpy(to, part.from, 16);
    else
      std::memset(to, 0, 16);
  }
  PhaseBarrier& barrier = block.barriers().at(tile.barrier);
  access_finished(tile.to, tile.bytes, true, tile.thread);
  block.brought(tile.to, tile.bytes);
  BlockClock::join(barrier.known, block.clock().release(tile.thread));
  barrier.bytes -= static_cast<long>(tile.bytes);
  end_phase_if_complete(block, barrier);
}

}  // namespace model
