#include "access.h"

#include <string>

#include "block.h"
#include "image.h"
#include "memory.h"

namespace model {
namespace {

[[noreturn]] void refuse(Block& block, const char* what, const void* at, size_t bytes) {
  const auto address = reinterpret_cast<Address>(at);
  if (address % bytes != 0 && bytes <= 16 && (bytes & (bytes - 1)) == 0)
    block.fail(Status::misaligned_address, std::string(what) + " a misaligned address: " + describe(address, bytes));
  block.fail(Status::illegal_address, std::string(what) + ' ' +
                                          (block.in_shared_region(at) ? std::to_string(bytes) + " bytes of shared memory out of bounds"
                                                                      : describe(address, bytes)));
}

void check(const char* what, const void* at, size_t bytes, bool aligned) {
  Block* block = Block::running();
  if (block == nullptr || block->in_stacks(at)) return;
  const auto address = reinterpret_cast<Address>(at);
  if (aligned && address % bytes != 0) refuse(*block, what, at, bytes);
  if (block->in_shared_region(at)) {
    if (!block->shared_reachable(at, bytes)) refuse(*block, what, at, bytes);
    return;
  }
  if (reachable(address, bytes) || in_kernel_image(address)) return;
  refuse(*block, what, at, bytes);
}

}  // namespace

void access_read(const void* at, size_t bytes) { check("reads", at, bytes, true); }
void access_written(void* at, size_t bytes) { check("writes", at, bytes, true); }
void access_atomic(const void* at, size_t bytes) { check("synchronises on", at, bytes, true); }

}  // namespace model

// What the compiler calls before each access of instrumented code (-fsanitize=thread).
#define HOOK extern "C" __attribute__((visibility("default"))) void
#define HOOKS(BYTES)                                                                                                \
  HOOK __tsan_read##BYTES(void* at) { model::access_read(at, BYTES); }                                              \
  HOOK __tsan_write##BYTES(void* at) { model::access_written(at, BYTES); }                                          \
  HOOK __tsan_unaligned_read##BYTES(void* at) { model::access_read(at, BYTES); }                                    \
  HOOK __tsan_unaligned_write##BYTES(void* at) { model::access_written(at, BYTES); }
HOOKS(1)
HOOKS(2)
HOOKS(4)
HOOKS(8)
HOOKS(16)
HOOK __tsan_read_range(void* at, unsigned long bytes) { model::check("reads", at, bytes, false); }
HOOK __tsan_write_range(void* at, unsigned long bytes) { model::check("writes", at, bytes, false); }
HOOK __tsan_init() {}
HOOK __tsan_func_entry(void*) {}
HOOK __tsan_func_exit() {}
