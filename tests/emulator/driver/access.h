// Every access of a kernel to memory is checked here: those that the compiler instruments, and those of wrappers.
#pragma once
#include <cstddef>

namespace model {

void access_read(const void* at, size_t bytes);
void access_written(void* at, size_t bytes);
// Of a word on which threads, blocks or devices synchronise: its place is checked, not its order.
void access_atomic(const void* at, size_t bytes);

}  // namespace model
