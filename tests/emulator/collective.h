// What the emulated collectives ask of the emulated driver: an operation on a stream, and the memory that it touches.
#pragma once
#include <cstddef>
#include <cstdint>

#include "interface.h"

namespace model {

struct CollectiveOperation {
  const char* name;
  // Runs on the stream's thread, once, or at every launch of the graph that it was captured into.
  void (*run)(void* data, void* stream);
  void (*drop)(void* data);
  void* data;
};

// The driver's status; takes the data over in any case.
MODEL_API int put_collective(void* stream_handle, const CollectiveOperation& operation);
// Within an operation: checks that the range is allocated and that nothing unordered touches it. False: the context is broken.
MODEL_API bool collective_touches(void* stream, const void* at, size_t bytes, bool writes);
// Whether what is put on the stream now becomes part of a graph.
MODEL_API bool collective_is_captured(void* stream_handle);
MODEL_API bool collective_is_broken(void* stream);
MODEL_API void collective_fails(void* stream, const char* finding);
MODEL_API void collective_found(const char* finding);
MODEL_API int collective_patience_seconds();

}  // namespace model
