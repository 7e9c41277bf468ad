// What was asked of the driver, counted. The file named by CUDA_MODEL_COUNTERS holds them as little-endian u64 in this order,
// while the process runs and after it.
#pragma once
#include <cstdint>

namespace model {

enum class Counter {
  synchronisations,  // waits of the host: for a stream, an event or a context
  launches,          // kernels put on a stream, or one launch of a graph
  kernels,           // kernels that ran, those of graphs too
  allocations,       // of device and of pinned memory
  frees,
  copies,  // by copy engines, memset too
  copied_bytes,
  captures,  // graphs captured from a stream
  graph_launches,
  tensor_maps,  // encoded
  findings,
  host_bytes,  // of pinned memory that kernels read
  last,
};

void count(Counter counter, uint64_t more = 1);
uint64_t counted(Counter counter);

}  // namespace model
