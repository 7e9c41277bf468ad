#include "access.h"

#include <map>
#include <mutex>
#include <string>

#include "block.h"
#include "counters.h"
#include "image.h"
#include "memory.h"
#include "settings.h"
#include "stream.h"

namespace model {
namespace {

[[noreturn]] void refuse(Block& block, const char* what, const void* at, size_t bytes) {
  const auto address = reinterpret_cast<Address>(at);
  const std::string place =
      block.in_shared_region(at) ? std::to_string(bytes) + " bytes of shared memory" : describe(address, bytes);
  if (bytes <= 16 && (bytes & (bytes - 1)) == 0 && address % bytes != 0)
    block.fail(Status::misaligned_address, std::string(what) + " a misaligned address: " + place);
  block.fail(Status::illegal_address, std::string(what) + ' ' + place + (block.in_shared_region(at) ? " out of bounds" : ""));
}

[[noreturn]] void report_race(Block& block, const void* at, size_t bytes, bool writes, const Access& with) {
  std::string said = std::string("race: ") + (writes ? "writes " : "reads ");
  const std::string thread = "thread " + std::to_string(with.who & 1023);
  if (block.in_shared_region(at)) {
    said += std::to_string(bytes) + " bytes of shared memory that " + thread;
  } else {
    said += describe(reinterpret_cast<Address>(at), bytes) + ", which ";
    if (with.operation != block.operation())
      said += performed(with.operation).name;
    else
      said += "block " + std::to_string(with.who >> 10) + ' ' + thread;
  }
  block.fail(Status::launch_failed, said + (with.writes ? " wrote" : " read") +
                                        (with.time == unfinished ? " and had not finished" : "") + "; nothing orders them");
}

void note(Block& block, const void* at, size_t bytes, bool writes, uint32_t time, bool atomic = false) {
  Access access = block.access(writes, time), with{};
  access.atomic = atomic;
  const auto address = reinterpret_cast<Address>(at);
  const uint64_t chance = block.random().next();
  bool raced = false;
  if (block.in_shared_region(at)) {
    access.operation = block.shared_run();
    raced = race(block.shared_cells(at), address % 16, bytes, access, chance, &with,
                 [&](const Access& before) { return block.is_before_shared(before); });
  } else {
    CellLock lock(address);
    raced = race(cells_of(address), address % 16, bytes, access, chance, &with,
                 [&](const Access& before) { return block.is_before(before); });
  }
  if (raced) report_race(block, at, bytes, writes, with);
}

// Another device's memory: after the context was let use all of it, or where access to this was given.
bool may_use(const Block& block, Address at, int device) {
  return block.context().peers[device] || is_allowed(at, block.context().device);
}

[[noreturn]] void refuse_device(Block& block, const char* what, const void* at, size_t bytes, int device) {
  block.fail(Status::illegal_address, std::string(what) + ' ' + describe(reinterpret_cast<Address>(at), bytes) + " of device " +
                                          std::to_string(device) + " on device " + std::to_string(block.context().device) +
                                          ", which was given no access to it");
}

void check(const char* what, const void* at, size_t bytes, bool aligned, bool writes, uint32_t time) {
  Block* block = Block::running();
  if (block == nullptr || block->in_stacks(at)) return;
  const auto address = reinterpret_cast<Address>(at);
  if (aligned && address % bytes != 0) refuse(*block, what, at, bytes);
  int device = -1;
  if (block->in_shared_region(at)) {
    if (!block->shared_reachable(at, bytes)) refuse(*block, what, at, bytes);
  } else if (!reachable(address, bytes, &device)) {
    if (in_kernel_image(address)) return;
    refuse(*block, what, at, bytes);
  } else {
    if (device < 0 && !writes) count(Counter::host_bytes, bytes);
    if (device >= 0 && device != block->context().device && !may_use(*block, address, device))
      refuse_device(*block, what, at, bytes, device);
    if (!in_arena(address)) return;
  }
  if (settings().races) note(*block, at, bytes, writes, time);
}

uint32_t now() { return Block::running() == nullptr ? 0 : Block::running()->clock().now(); }

// Who released a word within a launch, by its address.
struct Words {
  std::mutex mutex;
  std::map<const void*, std::map<uint32_t, KnownBlocks>> blocks;  // by operation
};
Words& words() {
  static auto* made_once = new Words;
  return *made_once;
}

}  // namespace

void access_read(const void* at, size_t bytes) { check("reads", at, bytes, true, false, now()); }
void access_written(void* at, size_t bytes) {
  check("writes", at, bytes, true, true, now());
  Block* block = Block::running();
  if (block != nullptr && block->in_shared_region(at)) block->wrote(at, bytes, block->current());
}

void access_atomic(const void* at, size_t bytes, bool writes) {
  Block& block = *Block::running();
  const auto address = reinterpret_cast<Address>(at);
  if (address % bytes != 0 || (block.in_shared_region(at) ? !block.shared_reachable(at, bytes) : !reachable(address, bytes)))
    refuse(block, "synchronises on", at, bytes);
  if (settings().races && (block.in_shared_region(at) || in_arena(address))) note(block, at, bytes, writes, now(), true);
}

void synchronise_release(const void* at) {
  Block& block = *Block::running();
  // Another operation learns what was done up to here, and nothing of what this one does after it.
  const Performed& going_on = performed(block.operation());
  KnownBlocks told = block.seen_blocks();
  BlockClock::join(told[block.number()], block.clock().release(block.current()));
  {
    std::lock_guard lock(words().mutex);
    join(words().blocks[at][block.operation()], told);
  }
  released(at, block.operation_clock().within({block.operation(), going_on.timeline, going_on.sequence, std::move(told)}));
}

void synchronise_acquire(const void* at) {
  Block& block = *Block::running();
  if (!acquired(at, &block.operation_clock())) return;
  std::lock_guard lock(words().mutex);
  auto& of_word = words().blocks[at];
  const auto found = of_word.find(block.operation());
  if (found == of_word.end()) return;
  join(block.seen_blocks(), found->second);
  const auto own = found->second.find(block.number());
  if (own != found->second.end()) block.clock().acquire(block.current(), own->second);
}

void access_begun(const void* at, size_t bytes, bool writes) {
  check(writes ? "writes" : "reads", at, bytes, false, writes, unfinished);
}

void access_finished(const void* at, size_t bytes, bool writes, unsigned thread) {
  Block& block = *Block::running();
  if (!settings().races || !block.in_shared_region(at)) return;
  const uint32_t who = block.number() << 10 | thread, time = block.clock().now();
  Cell* cell = block.shared_cells(at);
  for (Cell* end = cell + (reinterpret_cast<Address>(at) % 16 + bytes + 15) / 16; cell < end; ++cell)
    for (Access& access : cell->accesses)
      if (access.operation == block.shared_run() && access.who == who && access.writes == writes && access.time == unfinished)
        access.time = time;
}

}  // namespace model

// What the compiler calls before each access of instrumented code (-fsanitize=thread).
#define HOOK extern "C" __attribute__((visibility("default"))) void
#define HOOKS(BYTES)                                                             \
  HOOK __tsan_read##BYTES(void* at) { model::access_read(at, BYTES); }           \
  HOOK __tsan_write##BYTES(void* at) { model::access_written(at, BYTES); }       \
  HOOK __tsan_unaligned_read##BYTES(void* at) { model::access_read(at, BYTES); } \
  HOOK __tsan_unaligned_write##BYTES(void* at) { model::access_written(at, BYTES); }
HOOKS(1)
HOOKS(2)
HOOKS(4)
HOOKS(8)
HOOKS(16)
HOOK __tsan_read_range(void* at, unsigned long bytes) { model::check("reads", at, bytes, false, false, model::now()); }
HOOK __tsan_write_range(void* at, unsigned long bytes) { model::check("writes", at, bytes, false, true, model::now()); }
HOOK __tsan_init() {}
HOOK __tsan_func_entry(void*) {}
HOOK __tsan_func_exit() {}
