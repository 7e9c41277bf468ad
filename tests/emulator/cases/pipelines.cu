// Products of 64 x 64 x k through a page table, pipelined both ways: cp.async with mma.sync, and tiles with products of four
// warps. Each once right and with the mistakes that such pipelines have.
#include "device.cuh"

enum Mistake {
  none,
  wait_one_short,
  no_barrier,
  no_full,
  no_empty,
  no_product_wait,
  released_by_one_warp,
  released_by_two_warps,
  // The pipeline whose rows come by copies of a warp, once right.
  rows_by_copies,
  no_copy_wait,
  no_fence
};

struct PipelineParameters {
  TensorMap x_map, arena_map;
  const bf16* x;      // [64][k]
  const bf16* arena;  // [pages][64][k]
  const uint32_t* page_of;
  float* out;  // [groups][64][64]
  uint32_t k, groups;
};

template <Mistake MISTAKE> DEVICE void pipeline_copies(const PipelineParameters& p) {
  DYNAMIC_SHARED(shared);
  constexpr int STAGES = 3, TILE = 64 * 64;
  bf16 *a = reinterpret_cast<bf16*>(shared), *b = a + STAGES * TILE;
  const unsigned thread = threadIdx.x, steps = p.k / 64;
  for (unsigned group = blockIdx.x; group < p.groups; group += gridDim.x) {
    const bf16* weights = p.arena + static_cast<size_t>(p.page_of[group]) * 64 * p.k;
    const auto load = [&](unsigned step) {
      if (step < steps)
        for (unsigned i = thread; i < 64 * 8; i += 128) {
          const unsigned row = i / 8, chunk = i % 8, at = step % STAGES * TILE + row * 64 + (chunk ^ row % 8) * 8;
          copy16_async(a + at, p.x + row * p.k + step * 64 + chunk * 8, true);
          copy16_async(b + at, weights + row * p.k + step * 64 + chunk * 8, true);
        }
      copy_commit();
    };
    float sums[4][2][4] = {};
    for (unsigned step = 0; step < STAGES - 1; ++step) load(step);
    for (unsigned step = 0; step < steps; ++step) {
      copy_wait<MISTAKE == wait_one_short ? STAGES - 1 : STAGES - 2>();
      if (MISTAKE != no_barrier) block_barrier();
      load(step + STAGES - 1);
      const bf16 *at_a = a + step % STAGES * TILE, *at_b = b + step % STAGES * TILE + warp() * 16 * 64;
      for (unsigned part = 0; part < 4; ++part) {
        uint32_t right[4];
        const unsigned row_b = lane() / 16 * 8 + lane() % 8, chunk_b = part * 2 + lane() / 8 % 2;
        load_matrices(right, at_b + row_b * 64 + (chunk_b ^ row_b % 8) * 8);
        for (unsigned m = 0; m < 4; ++m) {
          uint32_t left[4];
          const unsigned row = m * 16 + lane() % 16, chunk = part * 2 + lane() / 16;
          load_matrices(left, at_a + row * 64 + (chunk ^ row % 8) * 8);
          multiply_tile(sums[m][0], left, right[0], right[1]);
          multiply_tile(sums[m][1], left, right[2], right[3]);
        }
      }
    }
    copy_wait<0>();
    block_barrier();
    for (unsigned m = 0; m < 4; ++m)
      for (unsigned n = 0; n < 2; ++n)
        for (unsigned i = 0; i < 4; ++i)
          p.out[(group * 64 + m * 16 + lane() / 4 + i / 2 * 8) * 64 + warp() * 16 + n * 8 + lane() % 4 * 2 + i % 2] =
              sums[m][n][i];
  }
}

template <Mistake MISTAKE> DEVICE void pipeline_tiles(const PipelineParameters& p) {
  DYNAMIC_SHARED(shared);
#if defined(SWIFTBALANCER_MODEL) || defined(__CUDA_ARCH_FEAT_SM90_ALL)
  constexpr int STAGES = 3, TILE = 64 * 64;
  constexpr bool COPIES = MISTAKE >= rows_by_copies;
  constexpr int RELEASED = MISTAKE == released_by_one_warp ? 1 : MISTAKE == released_by_two_warps ? 2 : 4;
  bf16 *a = reinterpret_cast<bf16*>(shared), *b = a + STAGES * TILE;
  Barrier *full = reinterpret_cast<Barrier*>(b + STAGES * TILE), *empty = full + STAGES;
  const unsigned thread = threadIdx.x, steps = p.k / 64;
  if (thread == 0) {
    for (int stage = 0; stage < STAGES; ++stage) {
      barrier_init(full + stage, COPIES ? 33 : 1);
      barrier_init(empty + stage, RELEASED);
    }
    barrier_fence();
  }
  block_barrier();
  unsigned turn = 0;
  if (thread >= 128) {
    if (thread == 128 || COPIES)
      for (unsigned group = blockIdx.x; group < p.groups; group += gridDim.x) {
        const int page = static_cast<int>(p.page_of[group]);
        for (unsigned step = 0; step < steps; ++step, ++turn) {
          const unsigned stage = turn % STAGES;
          if (MISTAKE != no_empty) barrier_wait(empty + stage, static_cast<int>(turn / STAGES % 2 ^ 1));
          if (thread == 128) {
            barrier_expect(full + stage, TILE * 2 * (COPIES ? 1 : 2));
            if (!COPIES) tile_2d(a + stage * TILE, &p.x_map, full + stage, static_cast<int>(step * 64), 0);
            tile_3d(b + stage * TILE, &p.arena_map, full + stage, static_cast<int>(step * 64), 0, page);
          }
          if (!COPIES) continue;
          for (unsigned i = lane(); i < 64 * 8; i += 32) {
            const unsigned row = i / 8, chunk = i % 8;
            copy16_async(a + stage * TILE + row * 64 + (chunk ^ row % 8) * 8, p.x + row * p.k + step * 64 + chunk * 8, true);
          }
          copy_commit();
          if (MISTAKE != no_copy_wait) copy_wait<0>();
          if (MISTAKE != no_fence) async_fence();
          barrier_arrive(full + stage);
        }
      }
    return;
  }
  for (unsigned group = blockIdx.x; group < p.groups; group += gridDim.x) {
    float sums[32] = {};
    for (unsigned step = 0; step < steps; ++step, ++turn) {
      const unsigned stage = turn % STAGES;
      if (MISTAKE != no_full) barrier_wait(full + stage, static_cast<int>(turn / STAGES % 2));
      group_hold(sums);
      group_fence();
      const uint64_t left = group_operand(a + stage * TILE), right = group_operand(b + stage * TILE);
      for (unsigned part = 0; part < 4; ++part) group_multiply(sums, left + part * 2, right + part * 2);
      group_commit();
      if (MISTAKE != no_product_wait) group_wait<0>(sums);
      if (thread % (128 / RELEASED) == 0) barrier_arrive(empty + stage);
    }
    group_wait<0>(sums);
    for (unsigned i = 0; i < 32; ++i)
      p.out[(group * 64 + thread / 32 * 16 + lane() / 4 + i / 2 % 2 * 8) * 64 + i / 4 * 8 + lane() % 4 * 2 + i % 2] = sums[i];
  }
#endif
}

extern "C" KERNEL(128) case_pipeline_of_copies(GRID_CONSTANT const PipelineParameters p) { pipeline_copies<none>(p); }
extern "C" KERNEL(128) mistake_copies_wait_one_short(GRID_CONSTANT const PipelineParameters p) {
  pipeline_copies<wait_one_short>(p);
}
extern "C" KERNEL(128) mistake_copies_no_barrier(GRID_CONSTANT const PipelineParameters p) { pipeline_copies<no_barrier>(p); }
extern "C" KERNEL(160) case_pipeline_of_tiles(GRID_CONSTANT const PipelineParameters p) { pipeline_tiles<none>(p); }
extern "C" KERNEL(160) mistake_tiles_no_full(GRID_CONSTANT const PipelineParameters p) { pipeline_tiles<no_full>(p); }
extern "C" KERNEL(160) mistake_tiles_no_empty(GRID_CONSTANT const PipelineParameters p) { pipeline_tiles<no_empty>(p); }
extern "C" KERNEL(160) mistake_tiles_no_product_wait(GRID_CONSTANT const PipelineParameters p) {
  pipeline_tiles<no_product_wait>(p);
}
extern "C" KERNEL(160) mistake_tiles_released_by_one_warp(GRID_CONSTANT const PipelineParameters p) {
  pipeline_tiles<released_by_one_warp>(p);
}
extern "C" KERNEL(160) mistake_tiles_released_by_two_warps(GRID_CONSTANT const PipelineParameters p) {
  pipeline_tiles<released_by_two_warps>(p);
}
extern "C" KERNEL(160) case_pipeline_of_tiles_and_copies(GRID_CONSTANT const PipelineParameters p) {
  pipeline_tiles<rows_by_copies>(p);
}
extern "C" KERNEL(160) mistake_tiles_no_copy_wait(GRID_CONSTANT const PipelineParameters p) { pipeline_tiles<no_copy_wait>(p); }
extern "C" KERNEL(160) mistake_tiles_no_fence(GRID_CONSTANT const PipelineParameters p) { pipeline_tiles<no_fence>(p); }
