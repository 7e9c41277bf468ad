// The parameters of kernels.cu as a program has them: every pointer an address of the device.
#pragma once
#include <cstdint>

struct FillParameters {
  uint64_t out;
  uint32_t value, count;
};
struct SumParameters {
  uint64_t values, sums;
  uint32_t count;
};
struct NumbersParameters {
  uint64_t in, out;
  uint32_t count;
};
struct WarpParameters {
  uint64_t out;
};
struct CountParameters {
  uint64_t counts, wide;
};
struct TileParameters {
  uint64_t a, b, out;
};
struct FlagParameters {
  uint64_t flag, data;
  uint32_t send;
};
struct MistakeParameters {
  uint64_t memory;
  uint32_t count;
};
struct LastParameters {
  uint64_t values, parts, done, sum;
};
struct alignas(128) TensorMap {
  uint64_t words[16];
};
struct PipelineParameters {
  TensorMap x_map, arena_map;
  uint64_t x, arena, page_of, out;
  uint32_t k, groups;
};
