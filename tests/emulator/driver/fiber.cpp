#include "fiber.h"

#include <sys/mman.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>

asm(R"(
.text
.globl model_switch
.hidden model_switch
.type model_switch,@function
model_switch:
  push %rbp
  push %rbx
  push %r12
  push %r13
  push %r14
  push %r15
  mov %rsp,(%rdi)
  mov %rsi,%rsp
  pop %r15
  pop %r14
  pop %r13
  pop %r12
  pop %rbx
  pop %rbp
  ret
.size model_switch,.-model_switch
)");

namespace model {

Stacks::Stacks(size_t count) : count_(count) {
  void* at = mmap(nullptr, front_bytes + count * stack_bytes, PROT_READ | PROT_WRITE,
                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_STACK, -1, 0);
  if (at == MAP_FAILED) {
    std::fprintf(stderr, "cuda model: the system gives no memory for %zu stacks\n", count);
    std::abort();
  }
  memory_ = static_cast<char*>(at);
  // The lowest page of each is out of reach: a stack that overflows is seen.
  for (size_t i = 0; i < count; ++i) mprotect(memory_ + front_bytes + i * stack_bytes, 4096, PROT_NONE);
}

Stacks::~Stacks() { munmap(memory_, front_bytes + count_ * stack_bytes); }

bool Stacks::holds(const void* at) const {
  return static_cast<size_t>(static_cast<const char*>(at) - memory_) < front_bytes + count_ * stack_bytes;
}

void* Stacks::prepare(size_t index, void (*entry)()) const {
  constexpr int saved_registers = 6;
  auto** top = reinterpret_cast<void**>(memory_ + front_bytes + (index + 1) * stack_bytes);
  *--top = nullptr;  // where a return of `entry` would go; keeps the stack aligned as after a call
  *--top = reinterpret_cast<void*>(entry);
  for (int i = 0; i < saved_registers; ++i) *--top = nullptr;
  return top;
}

}  // namespace model
