// Products by bf16 weights on tensor cores, for groups of rows of which each has a page. An output is one chain of tile products in
// the order of k, from zero, the same in a tile of 16 rows and of 64.
#include "product.h"

namespace {

// A tile of BM rows of x and BN of the weights, BK deep; STAGES of them are on their way or in use at a time.
template <int BM, int STAGES, bool GATED> DEVICE void multiply(const ProductParameters& p, unsigned char* shared) {
  constexpr int BN = 128, BK = 64;
  // A row of a tile is CHUNKS of 16 bytes; the lower three bits of a chunk's place are exclusive-or with the row, so that
  // neither writing nor reading meets one bank twice. A thread copies one chunk of each STEP-th row.
  constexpr int CHUNKS = BK / 8, STEP = 128 / CHUNKS, ROWS = BM / STEP, OUTPUTS = BN / STEP;
  static_assert(STEP % 8 == 0 && BM % STEP == 0 && BN % 64 == 0, "a thread's rows share one place");
  bf16* const x_tiles = reinterpret_cast<bf16*>(shared);
  bf16* const weight_tiles = x_tiles + STAGES * BM * BK;
  const uint32_t* const tiles = tiles_before<BM>(p, reinterpret_cast<uint32_t*>(weight_tiles + STAGES * BN * BK));
  const uint32_t thread = threadIdx.x, steps = (p.k + BK - 1) / BK;
  const uint32_t row = thread / CHUNKS, chunk = thread % CHUNKS, place = row * BK + (chunk ^ row % 8) * 8;

  // Copies run ahead of the products, across the borders of items.
  Item next;
  uint32_t ahead = blockIdx.x, step_ahead = 0, stage_ahead = 0;
  bool is_more;
  uint32_t rows_there, outputs_there;  // bit j: row j of this thread is there
  const bf16 *x_rows[ROWS], *weight_row;
  const auto seek = [&] {
    is_more = find_item<BM, BN>(p, tiles, ahead, next);
    if (!is_more) return;
    rows_there = outputs_there = 0;
#pragma unroll
    for (int j = 0; j < ROWS; ++j) {
      const bool is_there = row + STEP * j < next.rows;
      rows_there |= static_cast<uint32_t>(is_there) << j;
      x_rows[j] = static_cast<const bf16*>(p.x) + (is_there ? row_of_x(p, next.row + row + STEP * j) : 0) * p.k + chunk * 8;
    }
#pragma unroll
    for (int j = 0; j < OUTPUTS; ++j) outputs_there |= static_cast<uint32_t>(next.column + row + STEP * j < p.n) << j;
    weight_row = reinterpret_cast<const bf16*>(weights_of(p, next)) + static_cast<size_t>(next.column + row) * p.k + chunk * 8;
  };
  const auto load = [&] {
    if (is_more) {
      bf16 *x = x_tiles + stage_ahead * BM * BK + place, *weights = weight_tiles + stage_ahead * BN * BK + place;
      const uint32_t depth = step_ahead * BK;
      const bool is_there = depth + chunk * 8 < p.k;
#pragma unroll
      for (int j = 0; j < ROWS; ++j) copy16_async(x + STEP * j * BK, x_rows[j] + depth, is_there && (rows_there >> j & 1) != 0);
#pragma unroll
      for (int j = 0; j < OUTPUTS; ++j) copy16_async(weights + STEP * j * BK, weight_row + static_cast<size_t>(STEP * j) * p.k + depth, is_there && (outputs_there >> j & 1) != 0);
      stage_ahead = stage_ahead + 1 == STAGES ? 0 : stage_ahead + 1;
      if (++step_ahead == steps) {
        step_ahead = 0;
        ahead += gridDim.x;
        seek();
      }
    }
    copy_commit();
  };
  seek();
  for (int t = 0; t < STAGES - 1; ++t) load();
  Item item;
  uint32_t stage = 0;
  for (uint32_t work = blockIdx.x; find_item<BM, BN>(p, tiles, work, item); work += gridDim.x) {
    float sums[BM / 16][BN / 32][4] = {};
    for (uint32_t step = 0; step < steps; ++step) {
      copy_wait<STAGES - 2>();
      block_barrier();
      load();
      const bf16 *x = x_tiles + stage * BM * BK, *weights = weight_tiles + stage * BN * BK + warp() * (BN / 4) * BK;
      stage = stage + 1 == STAGES ? 0 : stage + 1;
#pragma unroll
      for (int depth = 0; depth < BK / 16; ++depth) {
        uint32_t a[BM / 16][4];
#pragma unroll
        for (int m = 0; m < BM / 16; ++m) {
          const int at = m * 16 + lane() % 16, from = depth * 2 + lane() / 16;
          load_matrices(a[m], x + at * BK + (from ^ at % 8) * 8);
        }
#pragma unroll
        for (int n = 0; n < BN / 64; ++n) {
          const int at = n * 16 + lane() / 16 * 8 + lane() % 8, from = depth * 2 + lane() / 8 % 2;
          uint32_t b[4];
          load_matrices(b, weights + at * BK + (from ^ at % 8) * 8);
#pragma unroll
          for (int m = 0; m < BM / 16; ++m) {
            multiply_tile(sums[m][2 * n], a[m], b[0], b[1]);
            multiply_tile(sums[m][2 * n + 1], a[m], b[2], b[3]);
          }
        }
      }
    }
    const uint32_t column = item.column + warp() * (BN / 4) + lane() % 4 * 2;
#pragma unroll
    for (int m = 0; m < BM / 16; ++m)
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const uint32_t at = m * 16 + lane() / 4 + 8 * half;
        if (at >= item.rows) continue;
#pragma unroll
        for (int n = 0; n < BN / 64; ++n) {
          const float *first = sums[m][2 * n] + 2 * half, *second = sums[m][2 * n + 1] + 2 * half;
          const uint32_t here = column + n * 16;
          if (GATED) {
            // The first eight outputs of sixteen are gates, the second the values that go through them.
            if (here >= p.n) continue;
            const uint32_t width = p.n / 2, to = (here - lane() % 4 * 2) / 2 + lane() % 4 * 2;
            bf16* out = static_cast<bf16*>(p.out) + static_cast<size_t>(item.row + at) * width + to;
            *reinterpret_cast<uint32_t*>(out) = pack_bf16(silu(first[0]) * second[0], silu(first[1]) * second[1]);
          } else {
            put_output(p, item.row + at, here, first[0]);
            put_output(p, item.row + at, here + 1, first[1]);
            put_output(p, item.row + at, here + 8, second[0]);
            put_output(p, item.row + at, here + 9, second[1]);
          }
        }
      }
  }
  copy_wait<0>();
}

}  // namespace

extern "C" KERNEL(128) product_bf16(GRID_CONSTANT const ProductParameters p) {
  DYNAMIC_SHARED(shared);
  multiply<16, 4, false>(p, shared);
}
extern "C" KERNEL(128) product_bf16_tall(GRID_CONSTANT const ProductParameters p) {
  DYNAMIC_SHARED(shared);
  multiply<64, 3, false>(p, shared);
}
extern "C" KERNEL(128) gated_bf16(GRID_CONSTANT const ProductParameters p) {
  DYNAMIC_SHARED(shared);
  multiply<16, 4, true>(p, shared);
}
extern "C" KERNEL(128) gated_bf16_tall(GRID_CONSTANT const ProductParameters p) {
  DYNAMIC_SHARED(shared);
  multiply<64, 3, true>(p, shared);
}
