// Threads of a block: stacks that change places without the system, x86-64 only.
#pragma once
#include <cstddef>

namespace model {

// Saves what a function call must keep on the stack, and goes on where `to` was saved.
extern "C" void model_switch(void** from, void* to);

// Some stacks of one piece of memory, with room before them that kernels may read and write as well.
class Stacks {
 public:
  static constexpr size_t stack_bytes = 64 << 10, front_bytes = 64 << 10;
  explicit Stacks(size_t count);
  ~Stacks();
  Stacks(const Stacks&) = delete;
  Stacks& operator=(const Stacks&) = delete;
  size_t count() const { return count_; }
  void* front() const { return memory_; }
  bool holds(const void* at) const;
  // A stack that begins to run `entry` at the first switch to it.
  void* prepare(size_t index, void (*entry)()) const;

 private:
  size_t count_;
  char* memory_;
};

}  // namespace model
