#include "races.h"

#include <sys/mman.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>

#include "memory.h"

namespace model {
namespace {

constexpr unsigned lock_count = 4096;
std::atomic_flag locks[lock_count];

Cell* reserve_cells() {
  void* at =
      mmap(nullptr, arena_bytes / 16 * sizeof(Cell), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (at == MAP_FAILED) {
    std::fputs("cuda model: the system gives no addresses to remember accesses; CUDA_MODEL_RACES=0 does without\n", stderr);
    std::abort();
  }
  return static_cast<Cell*>(at);
}

}  // namespace

Cell* cells_of(Address at) {
  static Cell* cells = reserve_cells();
  return cells + (at - arena_begin) / 16;
}

CellLock::CellLock(Address at) : which_(static_cast<unsigned>(at / 64 % lock_count)) {
  while (locks[which_].test_and_set(std::memory_order_acquire)) {}
}

CellLock::~CellLock() { locks[which_].clear(std::memory_order_release); }

}  // namespace model
