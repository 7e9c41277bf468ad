// What a thread starts and waits for later: copies into shared memory (cp.async), tiles (TMA) that a barrier counts, and
// products of four warps (wgmma). Each is carried out at a random moment between its start and the wait that covers it.
#pragma once
#include <deque>
#include <vector>

#include "block_clock.h"

namespace model {

struct Copy16 {
  void* to;
  const void* from;
  bool there;
  bool done;  // already; what waits for it does not know
};

// Of one thread.
struct CopyGroups {
  std::vector<Copy16> open;
  std::deque<std::vector<Copy16>> closed;
};

struct GroupProduct {
  float* d;
  int values;
  uint64_t a, b;  // where the operands begin in shared memory, in 16 bytes
  bool done;
};

// Of one thread: its part of the products, and what its accumulators hold while they belong to them.
struct GroupProducts {
  std::vector<GroupProduct> open;
  std::deque<std::vector<GroupProduct>> closed;
  struct Accumulator {
    float* d;
    std::vector<float> values;
  };
  std::vector<Accumulator> lent;
  bool fenced = false;  // since the thread had its registers back
};

// Threads that wait for each other.
struct Meeting {
  std::vector<unsigned> waiting;
  const char* what = nullptr;
};

// A barrier in shared memory that counts threads and bytes.
struct PhaseBarrier {
  int arrivals, pending;
  long bytes = 0;
  int phase = 0;
  bool fenced = false;  // tiles may count it down
  unsigned made_by;
  BlockClock::Known known;  // what those who arrived let others know
  Meeting meeting;
};

// A tile on its way.
struct Tile {
  void* to;
  struct Part {
    size_t offset;     // in the tile, of 16 bytes
    const void* from;  // null outside of the tensor
  };
  std::vector<Part> parts;
  void* barrier;
  unsigned thread;
  size_t bytes;
  unsigned delay;
};

}  // namespace model
