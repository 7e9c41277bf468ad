// What measurements run beside the kernels of a model.
#include "device.cuh"
#include "parameters.h"

// Reads memory as fast as it can be read: eight loads of a thread are under way at a time.
extern "C" KERNEL(256) read_all(GRID_CONSTANT const ReadParameters p) {
  constexpr uint32_t UNDER_WAY = 8;
  const uint64_t threads = static_cast<uint64_t>(gridDim.x) * blockDim.x, words = p.bytes / 16;
  const unsigned char* source = static_cast<const unsigned char*>(p.source);
  uint32_t sum = 0;
  uint64_t word = static_cast<uint64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  for (; word + (UNDER_WAY - 1) * threads < words; word += UNDER_WAY * threads) {
    uint4 loaded[UNDER_WAY];
#pragma unroll
    for (uint32_t i = 0; i < UNDER_WAY; ++i) loaded[i] = load16(source + (word + i * threads) * 16);
#pragma unroll
    for (uint32_t i = 0; i < UNDER_WAY; ++i) sum += loaded[i].x + loaded[i].y + loaded[i].z + loaded[i].w;
  }
  for (; word < words; word += threads) {
    const uint4 loaded = load16(source + word * 16);
    sum += loaded.x + loaded.y + loaded.z + loaded.w;
  }
  // What nobody used a compiler would not read.
  sum = warp_sum(sum);
  if (lane() == 0) add_count(p.sum, sum);
}
