// Who touched what last: for every 16 bytes of device, pinned and shared memory some accesses are remembered, and two of which
// one writes and that nothing orders are a race, whether or not a wrong value came of it this time.
#pragma once
#include <cstddef>
#include <cstdint>

#include "driver.h"

namespace model {

// One remembered access to some bytes of the 16.
struct Access {
  uint32_t operation;  // its number, or of a block's shared memory the number of the block's run; 0: none
  uint32_t who;        // block and thread: block << 10 | thread
  uint32_t time;       // by the block's own clock; `unfinished` for what goes on beside its thread
  uint16_t bytes;      // a bit for each
  bool writes;
  bool atomic;  // of a word on which threads synchronise: two such accesses need no order
};

constexpr uint32_t unfinished = ~uint32_t{0};

struct Cell {
  static constexpr unsigned remembered = 4;
  Access accesses[remembered];
};

// Remembers an access of `count` bytes at `at` and finds one that it is not ordered with. `is_ordered` says whether a remembered
// access is before the new one for sure; `chance` draws which is forgotten if there are too many.
template <class IsOrdered> bool race(Cell* cells, size_t first_byte, size_t count, const Access& access, uint64_t chance,
                                     Access* with, IsOrdered is_ordered);

// The cells of an address in the arena.
Cell* cells_of(Address at);
// Locks for cells that several streams use.
class CellLock {
 public:
  explicit CellLock(Address at);
  ~CellLock();
  CellLock(const CellLock&) = delete;
  CellLock& operator=(const CellLock&) = delete;

 private:
  unsigned which_;
};

// ---- the template

inline bool note_access(Cell& cell, Access access, uint64_t chance, Access* with, auto is_ordered) {
  Access* place = nullptr;
  for (Access& before : cell.accesses) {
    if (before.operation == 0) {
      if (place == nullptr) place = &before;
      continue;
    }
    if (before.operation == access.operation && before.who == access.who && before.writes == access.writes &&
        before.atomic == access.atomic && before.time != unfinished && access.time != unfinished) {
      // Its own earlier access: the later one stands for both only where it covers it.
      if ((before.bytes & ~access.bytes) == 0 || before.time == access.time) {
        access.bytes |= before.bytes;
        place = &before;
      }
      continue;
    }
    if ((before.bytes & access.bytes) == 0) continue;
    if ((!before.writes && !access.writes) || (before.atomic && access.atomic)) continue;
    if (!is_ordered(before)) {
      *with = before;
      return true;
    }
    if ((before.bytes & ~access.bytes) == 0 && (access.writes || !before.writes)) place = &before;
  }
  // Too many: a read is forgotten, for a write is what every later access has to be ordered with.
  for (unsigned i = 0; place == nullptr && i < Cell::remembered; ++i) {
    Access& candidate = cell.accesses[(chance + i) % Cell::remembered];
    if (!candidate.writes || i + 1 == Cell::remembered) place = &candidate;
  }
  *place = access;
  return false;
}

template <class IsOrdered> bool race(Cell* cells, size_t first_byte, size_t count, const Access& access, uint64_t chance,
                                     Access* with, IsOrdered is_ordered) {
  for (size_t left = count; left > 0;) {
    const size_t here = left < 16 - first_byte ? left : 16 - first_byte;
    Access part = access;
    part.bytes = static_cast<uint16_t>(((1u << here) - 1) << first_byte);
    if (note_access(*cells, part, chance++, with, is_ordered)) return true;
    left -= here;
    first_byte = 0;
    ++cells;
  }
  return false;
}

}  // namespace model
