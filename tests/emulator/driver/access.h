// Every access of a kernel to memory is checked here: those that the compiler instruments, and those of wrappers.
#pragma once
#include <cstddef>

namespace model {

void access_read(const void* at, size_t bytes);
void access_written(void* at, size_t bytes);
// Of a word on which threads, blocks or devices synchronise: it is ordered with accesses that are not of this kind.
void access_atomic(const void* at, size_t bytes, bool writes);

// A thread lets those that read the word know what it knows, or learns that.
void synchronise_release(const void* at);
void synchronise_acquire(const void* at);

// Of an operation that goes on beside its thread: its accesses are ordered with nothing until they are finished.
void access_begun(const void* at, size_t bytes, bool writes);
void access_finished(const void* at, size_t bytes, bool writes, unsigned thread);

}  // namespace model
