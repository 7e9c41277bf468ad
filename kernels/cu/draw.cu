// Weights that are drawn instead of read (kernels/src/drawn.rs says how): a thread makes eight values of a row at a time.
#include "device.cuh"
#include "parameters.h"

namespace {

constexpr uint32_t PIECE = 8;
constexpr uint64_t STEP = 0x9e3779b97f4a7c15u;
constexpr int MIDDLE = 2 * 0xffff;

DEVICE float drawn(const DrawParameters& p, uint64_t place) {
  uint64_t bits = p.key + (place + 1) * STEP;
  bits = (bits ^ bits >> 30) * 0xbf58476d1ce4e5b9u;
  bits = (bits ^ bits >> 27) * 0x94d049bb133111ebu;
  bits ^= bits >> 31;
  const uint32_t sum = static_cast<uint32_t>((bits & 0xffff) + (bits >> 16 & 0xffff) + (bits >> 32 & 0xffff) + (bits >> 48));
  return p.middle + static_cast<float>(static_cast<int>(sum) - MIDDLE) * p.unit;
}

}  // namespace

extern "C" KERNEL(256) draw(GRID_CONSTANT const DrawParameters p) {
  const uint32_t each = p.columns / PIECE;
  const uint64_t pieces = static_cast<uint64_t>(p.rows) * each;
  for (uint64_t piece = static_cast<uint64_t>(blockIdx.x) * blockDim.x + threadIdx.x; piece < pieces;
       piece += static_cast<uint64_t>(gridDim.x) * blockDim.x) {
    const uint32_t row = static_cast<uint32_t>(piece / each), column = static_cast<uint32_t>(piece % each) * PIECE;
    float values[PIECE];
#pragma unroll
    for (uint32_t i = 0; i < PIECE; ++i) values[i] = drawn(p, p.first + piece * PIECE + i);
    const size_t to = static_cast<size_t>(row / PIECE * p.stride + row % PIECE) * p.columns + column;
    if (p.kind == KIND_BF16) {
      store16(static_cast<bf16*>(p.to) + to, uint4{pack_bf16(values[0], values[1]), pack_bf16(values[2], values[3]),
                                                   pack_bf16(values[4], values[5]), pack_bf16(values[6], values[7])});
    } else {
      float* out = static_cast<float*>(p.to) + to;
      store16(out, uint4{float_bits(values[0]), float_bits(values[1]), float_bits(values[2]), float_bits(values[3])});
      store16(out + 4, uint4{float_bits(values[4]), float_bits(values[5]), float_bits(values[6]), float_bits(values[7])});
    }
  }
}
