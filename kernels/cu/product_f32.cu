// Products by f32 weights, for groups of rows of which each has a page. An output is one chain of fused multiply-adds in the order
// of k, from zero: the bits of the CPU.
#include "product.h"

namespace {

constexpr int BM = 32, BN = 64, BK = 16;
// Outputs of a thread beside each other, eight apart in pairs: of a network's first half two gates and the two values that go
// through them. Rows of a thread are eight apart.
constexpr int ROWS = 4, COLUMNS = 4;
DEVICE int column_of(uint32_t thread, int i) { return thread % 16 / 4 * 16 + thread % 4 * 2 + i % 2 + i / 2 * 8; }
DEVICE int row_of(uint32_t thread, int i) { return thread / 16 + 8 * i; }

template <bool GATED> DEVICE void multiply(const ProductParameters& p, unsigned char* shared) {
  // Transposed, with room that keeps the columns in different banks.
  SHARED(float, x_tile, BK * (BM + 4));
  SHARED(float, weight_tile, BK * (BN + 4));
  const uint32_t* const tiles = tiles_before<BM>(p, reinterpret_cast<uint32_t*>(shared));
  const uint32_t thread = threadIdx.x;
  Item item;
  for (uint32_t work = blockIdx.x; find_item<BM, BN>(p, tiles, work, item); work += gridDim.x) {
    const float* weights = reinterpret_cast<const float*>(weights_of(p, item));
    float sums[ROWS][COLUMNS] = {};
    for (uint32_t depth = 0; depth < p.k; depth += BK) {
      block_barrier();
      for (uint32_t i = thread; i < (BM + BN) * (BK / 4); i += blockDim.x) {
        const uint32_t row = i / (BK / 4), at = i % (BK / 4) * 4;
        const bool is_x = row < BM;
        const uint32_t column = item.column + row - BM;
        const bool is_there = depth + at < p.k && (is_x ? row < item.rows : column < p.n);
        float values[4] = {};
        if (is_there) load_floats((is_x ? static_cast<const float*>(p.x) + row_of_x(p, item.row + row) * p.k : weights + static_cast<size_t>(column) * p.k) + depth + at, values);
        float* to = is_x ? x_tile + at * (BM + 4) + row : weight_tile + at * (BN + 4) + row - BM;
        for (int j = 0; j < 4; ++j) to[j * (is_x ? BM + 4 : BN + 4)] = values[j];
      }
      block_barrier();
      const uint32_t deep = minimum(static_cast<uint32_t>(BK), p.k - depth);
      for (uint32_t k = 0; k < deep; ++k) {
        float x[ROWS], weight[COLUMNS];
#pragma unroll
        for (int i = 0; i < ROWS; ++i) x[i] = x_tile[k * (BM + 4) + row_of(thread, i)];
#pragma unroll
        for (int i = 0; i < COLUMNS; ++i) weight[i] = weight_tile[k * (BN + 4) + column_of(thread, i)];
#pragma unroll
        for (int i = 0; i < ROWS; ++i)
#pragma unroll
          for (int j = 0; j < COLUMNS; ++j) sums[i][j] = multiply_add(x[i], weight[j], sums[i][j]);
      }
    }
#pragma unroll
    for (int i = 0; i < ROWS; ++i) {
      const uint32_t at = row_of(thread, i), row = item.row + at;
      if (at >= item.rows) continue;
      if (GATED) {
        const uint32_t column = item.column + column_of(thread, 0);
        if (column >= p.n) continue;
        float* out = static_cast<float*>(p.out) + static_cast<size_t>(row) * (p.n / 2) + column / 16 * 8 + column % 16;
        out[0] = silu(sums[i][0]) * sums[i][2];
        out[1] = silu(sums[i][1]) * sums[i][3];
      } else {
#pragma unroll
        for (int j = 0; j < COLUMNS; ++j) put_output(p, row, item.column + column_of(thread, j), sums[i][j]);
      }
    }
  }
}

}  // namespace

extern "C" KERNEL(128) product_f32(GRID_CONSTANT const ProductParameters p) {
  DYNAMIC_SHARED(shared);
  multiply<false>(p, shared);
}
extern "C" KERNEL(128) gated_f32(GRID_CONSTANT const ProductParameters p) {
  DYNAMIC_SHARED(shared);
  multiply<true>(p, shared);
}
