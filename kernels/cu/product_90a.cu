// Products by bf16 weights on tensor cores for chips of compute capability 9.0, as product.cu's are for others. Some warps bring
// what others multiply: weights through a tensor map whose last coordinate is the page, rows of x by copies of 16 bytes, since a list
// says which they are. Whoever multiplies does so in groups of four warps, with operands in shared memory.
//
// An output is one chain of products of 64 x 128 x 16 in the order of k, from zero, the second terms of x behind the first at each
// step. It is the same instruction in a tile of any size, and no row of its operands reaches another's sums: rows that a tile does not have
// are whatever lay there.
#include "product.h"

#if defined(SWIFTBALANCER_MODEL) || defined(__CUDA_ARCH_FEAT_SM90_ALL)

namespace {

// A stage is BK deep, of both terms of x. A row of it is 128 bytes; the lower three bits of a chunk's place are exclusive-or with
// the row, as tensor maps and products have it.
constexpr int BK = 64, TERMS = 2;
// Rows of x and outputs of one product.
constexpr int ROWS = 64, OUTPUTS = 128;
// Threads that bring.
constexpr int BRINGING = 64;

// Tiles of GROUPS * 64 rows by PARTS * 128 outputs, of which STAGES are on their way or in use at a time.
template <int GROUPS, int PARTS, int STAGES> struct Pipeline {
  static constexpr int BM = GROUPS * ROWS, BN = PARTS * OUTPUTS, X = TERMS * BM * BK, WEIGHTS = BN * BK;
  // Stages whose rows of x are on their way, of those that a thread has asked for. Fewer than there are, since whoever multiplies
  // gives back none before it has all of it.
  static constexpr int LAG = STAGES / 2;
  static_assert(LAG >= 1 && LAG < STAGES, "a stage is handed over before it is needed again");
  bf16 *x, *weights;
  // Of each stage: whether it has come, and whether it is free again.
  Barrier *full, *empty;
};

// The stage that is next, and which of its two phases.
template <int STAGES> struct Turn {
  int stage = 0, parity = 0;
  DEVICE void go_on() {
    if (++stage < STAGES) return;
    stage = 0;
    parity ^= 1;
  }
};

template <int GROUPS, int PARTS, int STAGES>
DEVICE void bring(const MappedProductParameters& mapped, const Pipeline<GROUPS, PARTS, STAGES>& pipeline, const uint32_t* tiles) {
  using Of = Pipeline<GROUPS, PARTS, STAGES>;
  constexpr int LAG = Of::LAG, CHUNKS = BK / 8, STEP = BRINGING / CHUNKS, EACH = Of::BM / STEP;
  static_assert(STEP % 8 == 0 && Of::BM % STEP == 0 && EACH <= 32, "a thread's rows share one place");
  const ProductParameters& p = mapped.product;
  const uint32_t thread = threadIdx.x - GROUPS * 128, row = thread / CHUNKS, chunk = thread % CHUNKS;
  const uint32_t place = row * BK + (chunk ^ row % 8) * 8, steps = (p.k + BK - 1) / BK;
  Turn<STAGES> turn;
  // The stage whose rows have come when all but the last LAG copies have.
  int late = 0, asked = 0;
  const auto hand_over = [&] {
    copy_commit();
    if (asked < LAG) {
      ++asked;
      return;
    }
    copy_wait<LAG>();
    async_fence();
    barrier_arrive(pipeline.full + late);
    late = late + 1 == STAGES ? 0 : late + 1;
  };
  Item item;
  for (uint32_t work = blockIdx.x; find_item<Of::BM, Of::BN>(p, tiles, work, item); work += gridDim.x) {
    const int page = static_cast<int>(page_of(p, item));
    uint32_t there = 0;  // bit j: row j of this thread is there
    const bf16* rows[EACH];
#pragma unroll
    for (int j = 0; j < EACH; ++j) {
      const bool is_there = row + STEP * j < item.rows;
      there |= static_cast<uint32_t>(is_there) << j;
      rows[j] = terms_at(static_cast<const bf16*>(p.x), is_there ? row_of_x(p, item.row + row + STEP * j) : 0, p.k, chunk * 8);
    }
    for (uint32_t step = 0; step < steps; ++step) {
      const uint32_t depth = step * BK;
      Barrier* const full = pipeline.full + turn.stage;
      barrier_wait(pipeline.empty + turn.stage, turn.parity ^ 1);
      if (thread == 0) {
        barrier_expect(full, Of::WEIGHTS * 2);
#pragma unroll
        for (int part = 0; part < PARTS; ++part) {
          tile_3d(pipeline.weights + turn.stage * Of::WEIGHTS + part * OUTPUTS * BK, &mapped.weights, full, static_cast<int>(depth),
                  static_cast<int>(item.column) + part * OUTPUTS, page);
        }
      }
      bf16* const x = pipeline.x + turn.stage * Of::X + place;
      // Beyond the end of k the weights are zeros, and so must the rows be: what lies there may be no number.
      const bool is_deep = depth + chunk * 8 < p.k;
#pragma unroll
      for (int j = 0; j < EACH; ++j) {
        if ((there >> j & 1) == 0) continue;
        copy16_async(x + STEP * j * BK, rows[j] + depth, is_deep);
        copy16_async(x + (Of::BM + STEP * j) * BK, rows[j] + p.k + depth, is_deep);
      }
      hand_over();
      turn.go_on();
    }
  }
  // What was asked for last, without more behind it.
  for (int last = 0; last < LAG; ++last) hand_over();
}

template <bool GATED, int GROUPS, int PARTS, int STAGES>
DEVICE void multiply(const ProductParameters& p, const Pipeline<GROUPS, PARTS, STAGES>& pipeline, const uint32_t* tiles) {
  using Of = Pipeline<GROUPS, PARTS, STAGES>;
  // From one operand to the next, in 16 bytes.
  constexpr uint64_t NEXT_TERM = Of::BM * BK / 8, NEXT_PART = OUTPUTS * BK / 8, NEXT_DEPTH = 2;
  const uint32_t group = threadIdx.x / 128, steps = (p.k + BK - 1) / BK;
  Turn<STAGES> turn;
  Item item;
  for (uint32_t work = blockIdx.x; find_item<Of::BM, Of::BN>(p, tiles, work, item); work += gridDim.x) {
    float sums[PARTS][OUTPUTS / 2] = {};
    int before = 0;
    for (uint32_t step = 0; step < steps; ++step) {
      barrier_wait(pipeline.full + turn.stage, turn.parity);
#pragma unroll
      for (int part = 0; part < PARTS; ++part) group_hold(sums[part]);
      group_fence();
      const uint64_t x = group_operand(pipeline.x + turn.stage * Of::X + group * ROWS * BK);
      const uint64_t weights = group_operand(pipeline.weights + turn.stage * Of::WEIGHTS);
#pragma unroll
      for (int depth = 0; depth < BK / 16; ++depth)
#pragma unroll
        for (int part = 0; part < PARTS; ++part)
#pragma unroll
          for (int term = 0; term < TERMS; ++term) {
            group_multiply(sums[part], x + term * NEXT_TERM + depth * NEXT_DEPTH, weights + part * NEXT_PART + depth * NEXT_DEPTH);
          }
      group_commit();
      // The products before these have read their stage.
      group_wait<1>();
      if (step > 0 && lane() == 0) barrier_arrive(pipeline.empty + before);
      before = turn.stage;
      turn.go_on();
    }
    group_wait<0>(sums[0]);
#pragma unroll
    for (int part = 1; part < PARTS; ++part) group_hold(sums[part]);
    if (lane() == 0) barrier_arrive(pipeline.empty + before);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const uint32_t at = group * ROWS + warp() % 4 * 16 + lane() / 4 + 8 * half;
      if (at >= item.rows) continue;
#pragma unroll
      for (int part = 0; part < PARTS; ++part)
#pragma unroll
        for (int n = 0; n < OUTPUTS / 16; ++n) {
          const float* const first = sums[part] + 8 * n + 2 * half;
          put_outputs<GATED>(p, item.row + at, item.column + part * OUTPUTS + n * 16 + lane() % 4 * 2, first, first + 4);
        }
    }
  }
}

template <bool GATED, int GROUPS, int PARTS, int STAGES> DEVICE void run(const MappedProductParameters& mapped, unsigned char* shared) {
  using Of = Pipeline<GROUPS, PARTS, STAGES>;
  Of pipeline;
  pipeline.x = reinterpret_cast<bf16*>(shared);
  pipeline.weights = pipeline.x + STAGES * Of::X;
  pipeline.full = reinterpret_cast<Barrier*>(pipeline.weights + STAGES * Of::WEIGHTS);
  pipeline.empty = pipeline.full + STAGES;
  if (threadIdx.x == 0) {
    for (int stage = 0; stage < STAGES; ++stage) {
      // Whoever brings, and the bytes of the weights; then a lane of each warp that multiplies.
      barrier_init(pipeline.full + stage, BRINGING + 1);
      barrier_init(pipeline.empty + stage, GROUPS * 4);
    }
    barrier_fence();
  }
  // Which waits for all threads.
  const uint32_t* const tiles = tiles_before<Of::BM>(mapped.product, reinterpret_cast<uint32_t*>(pipeline.empty + STAGES));
  if (threadIdx.x >= GROUPS * 128) {
    bring(mapped, pipeline, tiles);
  } else {
    multiply<GATED>(mapped.product, pipeline, tiles);
  }
}

}  // namespace

#define RUN(...) run<__VA_ARGS__>(p, shared)
#else
// The file is compiled for every chip, so that each has every kernel; these are launched on no other.
#define RUN(...) static_cast<void>(shared)
#endif

extern "C" KERNEL(192, 1) product_bf16_90a(GRID_CONSTANT const MappedProductParameters p) {
  DYNAMIC_SHARED(shared);
  RUN(false, 1, 1, 6);
}
extern "C" KERNEL(320, 1) product_bf16_90a_tall(GRID_CONSTANT const MappedProductParameters p) {
  DYNAMIC_SHARED(shared);
  RUN(false, 2, 2, 3);
}
extern "C" KERNEL(192, 1) gated_bf16_90a(GRID_CONSTANT const MappedProductParameters p) {
  DYNAMIC_SHARED(shared);
  RUN(true, 1, 1, 6);
}
extern "C" KERNEL(320, 1) gated_bf16_90a_tall(GRID_CONSTANT const MappedProductParameters p) {
  DYNAMIC_SHARED(shared);
  RUN(true, 2, 2, 3);
}
