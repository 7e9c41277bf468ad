// Products by bf16 weights on tensor cores, for groups of rows of which each has a page. An output is one chain of tile products in
// the order of k, from zero, those of the second terms of x behind those of the first at each step; the same in a tile of any size.
#include "product.h"

namespace {

// A tile of BM rows of x and BN of the weights, BK deep; STAGES of them are on their way or in use at a time. Each of the four
// warps has a quarter of the outputs.
template <int BM, int BN, int STAGES, bool GATED> DEVICE void multiply(const ProductParameters& p, unsigned char* shared) {
  constexpr int BK = 64;
  // A row of a tile is CHUNKS of 16 bytes; the lower three bits of a chunk's place are exclusive-or with the row, so that
  // neither writing nor reading meets one bank twice. A thread copies one chunk of each STEP-th row.
  constexpr int CHUNKS = BK / 8, STEP = 128 / CHUNKS, ROWS = BM / STEP, OUTPUTS = BN / STEP;
  // Loads of a warp's weights: of 16 outputs that are 16 deep, or of 8 that are 32 deep.
  constexpr int LOADS = BN == 32 ? 1 : BN / 64;
  static_assert(STEP % 8 == 0 && BM % STEP == 0 && BN % STEP == 0, "a thread's rows share one place");
  static_assert(BN % 64 == 0 || (BN == 32 && !GATED), "a warp has pairs of eight outputs, or eight");
  const int x_stage = static_cast<int>(p.terms) * BM * BK;
  bf16* const x_tiles = reinterpret_cast<bf16*>(shared);
  bf16* const weight_tiles = x_tiles + STAGES * x_stage;
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
      x_rows[j] = terms_at(static_cast<const bf16*>(p.x), is_there ? row_of_x(p, next.row + row + STEP * j) : 0, p.k, chunk * 8);
    }
#pragma unroll
    for (int j = 0; j < OUTPUTS; ++j) outputs_there |= static_cast<uint32_t>(next.column + row + STEP * j < p.n) << j;
    weight_row = reinterpret_cast<const bf16*>(weights_of(p, next)) + static_cast<size_t>(next.column + row) * p.k + chunk * 8;
  };
  const auto load = [&] {
    if (is_more) {
      bf16 *x = x_tiles + stage_ahead * x_stage + place, *weights = weight_tiles + stage_ahead * BN * BK + place;
      const uint32_t depth = step_ahead * BK;
      const bool is_there = depth + chunk * 8 < p.k;
#pragma unroll
      for (int j = 0; j < ROWS; ++j) {
        const bool has_row = is_there && (rows_there >> j & 1) != 0;
        copy16_async(x + STEP * j * BK, x_rows[j] + depth, has_row);
        if (p.terms > 1) copy16_async(x + (BM + STEP * j) * BK, x_rows[j] + p.k + depth, has_row);
      }
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
      const bf16 *x = x_tiles + stage * x_stage, *weights = weight_tiles + stage * BN * BK + warp() * (BN / 4) * BK;
      stage = stage + 1 == STAGES ? 0 : stage + 1;
      uint32_t b[LOADS][4];
#pragma unroll
      for (int depth = 0; depth < BK / 16; ++depth) {
        if constexpr (BN == 32) {
          // What the next step needs comes with this one's.
          if (depth % 2 == 0) load_matrices(b[0], weights + lane() % 8 * BK + ((depth * 2 + lane() / 8) ^ lane() % 8) * 8);
        } else {
#pragma unroll
          for (int n = 0; n < LOADS; ++n) {
            const int at = n * 16 + lane() / 16 * 8 + lane() % 8, from = depth * 2 + lane() / 8 % 2;
            load_matrices(b[n], weights + at * BK + (from ^ at % 8) * 8);
          }
        }
#pragma unroll
        for (int term = 0; term < 2; ++term) {
          if (term > 0 && x_stage == BM * BK) break;  // one term
#pragma unroll
          for (int m = 0; m < BM / 16; ++m) {
            const int at = m * 16 + lane() % 16, from = depth * 2 + lane() / 16;
            uint32_t a[4];
            load_matrices(a, x + (term * BM + at) * BK + (from ^ at % 8) * 8);
            if constexpr (BN == 32) {
              multiply_tile(sums[m][0], a, b[0][depth % 2 * 2], b[0][depth % 2 * 2 + 1]);
            } else {
#pragma unroll
              for (int n = 0; n < LOADS; ++n) {
                multiply_tile(sums[m][2 * n], a, b[n][0], b[n][1]);
                multiply_tile(sums[m][2 * n + 1], a, b[n][2], b[n][3]);
              }
            }
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
        if constexpr (BN == 32) {
          put_output(p, item.row + at, column, sums[m][0][2 * half]);
          put_output(p, item.row + at, column + 1, sums[m][0][2 * half + 1]);
        }
#pragma unroll
        for (int n = 0; n < BN / 64; ++n) {
          put_outputs<GATED>(p, item.row + at, column + n * 16, sums[m][2 * n] + 2 * half, sums[m][2 * n + 1] + 2 * half);
        }
      }
  }
  // Every copy was waited for by the last step that there is.
}

}  // namespace

extern "C" KERNEL(128, 3) product_bf16(GRID_CONSTANT const ProductParameters p) {
  DYNAMIC_SHARED(shared);
  multiply<16, 128, 3, false>(p, shared);
}
extern "C" KERNEL(128, 3) product_bf16_narrow(GRID_CONSTANT const ProductParameters p) {
  DYNAMIC_SHARED(shared);
  multiply<16, 32, 8, false>(p, shared);
}
extern "C" KERNEL(128, 2) product_bf16_tall(GRID_CONSTANT const ProductParameters p) {
  DYNAMIC_SHARED(shared);
  multiply<64, 128, 3, false>(p, shared);
}
extern "C" KERNEL(128, 3) gated_bf16(GRID_CONSTANT const ProductParameters p) {
  DYNAMIC_SHARED(shared);
  multiply<16, 128, 3, true>(p, shared);
}
extern "C" KERNEL(128, 2) gated_bf16_tall(GRID_CONSTANT const ProductParameters p) {
  DYNAMIC_SHARED(shared);
  multiply<64, 128, 3, true>(p, shared);
}
