// Attention over a cache of bf16 on tensor cores, for heads of up to 128 elements. Queries and weights of keys are rounded to bf16,
// sums are f32. A score is one chain of tile products over the head from zero, an output of a split one over its keys from zero;
// so it is the same bits in a tile of any rows, and what `attention.cu` says of splits holds here too.
#include "attention.h"

namespace {

constexpr uint32_t THREADS = 128, WARPS = 4, PANEL = 16;
// Keys of a split that a warp scores.
constexpr uint32_t WARP_KEYS = SPLIT_KEYS / WARPS;
// Elements of a row of weights: some are left over, so that rows begin in different banks.
constexpr uint32_t WEIGHTS = SPLIT_KEYS + 8;

// Chunk `chunk` of 8 elements of row `row`: the lower three bits of a chunk's place are exclusive-or with the row.
template <uint32_t DIMENSION> DEVICE bf16* chunk_at(bf16* tile, uint32_t row, uint32_t chunk) {
  return tile + row * DIMENSION + (chunk ^ row % 8) * 8;
}

// Keys or values of a split, in panels of 16, on their way into shared memory. What is beyond the last key is zero: weights are
// zero there, and zero times whatever was left there need not be.
template <uint32_t DIMENSION> DEVICE void copy_split(const AttendParameters& p, const uint32_t* blocks, bf16* tile, uint32_t head, uint32_t of_values, uint32_t first_key, uint32_t keys) {
  constexpr uint32_t CHUNKS = DIMENSION / 8, STEP = THREADS / CHUNKS;
  const uint32_t chunk = threadIdx.x % CHUNKS;
  for (uint32_t panel = 0; panel < keys; panel += PANEL) {
    const bf16* from = cache_at<bf16>(p.cache, blocks, p.error, head, of_values, first_key + panel);
    for (uint32_t i = threadIdx.x / CHUNKS; i < PANEL; i += STEP) {
      const bool is_there = panel + i < keys && chunk * 8 < p.cache.dimension;
      copy16_async(chunk_at<DIMENSION>(tile, panel + i, chunk), is_there ? from + static_cast<size_t>(i) * p.cache.dimension + chunk * 8 : from, is_there);
    }
  }
  copy_commit();
}

// Shared memory of a block.
template <uint32_t DIMENSION> struct Tiles {
  bf16 *keys, *values, *weights, *queries;
  // Of each warp's keys, for each row.
  float *largest, *sums;
  DEVICE explicit Tiles(unsigned char* shared, uint32_t rows) {
    keys = reinterpret_cast<bf16*>(shared);
    values = keys + SPLIT_KEYS * DIMENSION;
    queries = values + SPLIT_KEYS * DIMENSION;
    weights = queries + rows * DIMENSION;
    largest = reinterpret_cast<float*>(weights + rows * WEIGHTS);
    sums = largest + WARPS * rows;
  }
};

// Rows of an item from `first_row` on, as many as TALL tiles of 16 have, with one key head.
template <uint32_t DIMENSION, int TALL> DEVICE void attend_rows(const AttendParameters& p, const AttentionItem& item, uint32_t head, uint32_t first_row, unsigned char* shared) {
  constexpr uint32_t ROWS = 16 * TALL, CHUNKS = DIMENSION / 8;
  // Tiles of 8 columns of the output that a warp computes.
  constexpr int COLUMNS = DIMENSION / WARPS / 8;
  static_assert(COLUMNS % 2 == 0, "two of them are read at once");
  const CacheTable& cache = p.cache;
  const uint32_t group = cache.query / cache.key_value, dimension = cache.dimension;
  const uint32_t rows = minimum(ROWS, item.tokens * group - first_row);
  const uint32_t* blocks = p.blocks + item.first_block;
  const float scale = 1.0f / square_root(static_cast<float>(dimension));
  const Tiles<DIMENSION> tiles(shared, ROWS);
  const auto position_of = [&](uint32_t row) { return item.position + (first_row + minimum(row, rows - 1)) / group; };
  const uint32_t last_position = position_of(rows - 1);
  const uint32_t end_split = minimum(item.first_split + item.splits, last_position / SPLIT_KEYS + 1);
  const auto keys_of = [&](uint32_t split) { return minimum(static_cast<uint32_t>(SPLIT_KEYS), last_position + 1 - split * SPLIT_KEYS); };

  // Whoever read what was there before came to the last barrier of its split since.
  copy_split<DIMENSION>(p, blocks, tiles.keys, head, 0, item.first_split * SPLIT_KEYS, keys_of(item.first_split));
  copy_split<DIMENSION>(p, blocks, tiles.values, head, 1, item.first_split * SPLIT_KEYS, keys_of(item.first_split));
  for (uint32_t i = threadIdx.x; i < ROWS * CHUNKS; i += THREADS) {
    const uint32_t row = i / CHUNKS, chunk = i % CHUNKS;
    float low[4] = {}, high[4] = {};
    if (row < rows && chunk * 8 < dimension) {
      const uint32_t token = item.row + (first_row + row) / group, query = head * group + (first_row + row) % group;
      const float* from = p.projected + (static_cast<size_t>(token) * (cache.query + 2 * cache.key_value) + query) * dimension + chunk * 8;
      load_floats(from, low);
      load_floats(from + 4, high);
    }
    store16(chunk_at<DIMENSION>(tiles.queries, row, chunk), uint4{pack_bf16(low[0], low[1]), pack_bf16(low[2], low[3]), pack_bf16(high[0], high[1]), pack_bf16(high[2], high[3])});
  }

  // Of the two rows of each tile that this thread has a part of.
  float all_largest[TALL][2], all_sums[TALL][2];
  float all[TALL][COLUMNS][4];
  for (uint32_t split = item.first_split; split < end_split; ++split) {
    const uint32_t first_key = split * SPLIT_KEYS, keys = keys_of(split), first_of_warp = warp() * WARP_KEYS;
    copy_wait<1>();
    block_barrier();
    float scores[TALL][WARP_KEYS / 8][4] = {};
#pragma unroll 1
    for (uint32_t depth = 0; depth * 16 < dimension; ++depth) {
      uint32_t q[TALL][4];
#pragma unroll
      for (int m = 0; m < TALL; ++m) load_matrices(q[m], chunk_at<DIMENSION>(tiles.queries, m * 16 + lane() % 16, depth * 2 + lane() / 16));
#pragma unroll
      for (uint32_t n = 0; n < WARP_KEYS / 16; ++n) {
        if (first_of_warp + n * 16 >= keys) break;
        uint32_t k[4];
        load_matrices(k, chunk_at<DIMENSION>(tiles.keys, first_of_warp + n * 16 + lane() / 16 * 8 + lane() % 8, depth * 2 + lane() / 8 % 2));
#pragma unroll
        for (int m = 0; m < TALL; ++m) {
          multiply_tile(scores[m][2 * n], q[m], k[0], k[1]);
          multiply_tile(scores[m][2 * n + 1], q[m], k[2], k[3]);
        }
      }
    }
    // Keys of the split that each row looks at; a token that comes before the split has none.
    uint32_t seen[TALL][2];
#pragma unroll
    for (int m = 0; m < TALL; ++m)
#pragma unroll
      for (uint32_t half = 0; half < 2; ++half) {
        const uint32_t row = m * 16 + lane() / 4 + 8 * half, position = position_of(row);
        seen[m][half] = position < first_key ? 0 : minimum(keys, position + 1 - first_key);
        float most = -infinity();
#pragma unroll
        for (uint32_t n = 0; n < WARP_KEYS / 8; ++n)
#pragma unroll
          for (uint32_t j = 0; j < 2; ++j)
            if (first_of_warp + n * 8 + lane() % 4 * 2 + j < seen[m][half]) most = maximum(most, scores[m][n][2 * half + j]);
        most = maximum(most, shuffle_xor(most, 1));
        most = maximum(most, shuffle_xor(most, 2));
        if (lane() % 4 == 0) tiles.largest[warp() * ROWS + row] = most;
      }
    block_barrier();
    if (split + 1 < end_split) {
      copy_split<DIMENSION>(p, blocks, tiles.keys, head, 0, first_key + SPLIT_KEYS, keys_of(split + 1));
    } else {
      // A group of none, behind that of the values.
      copy_commit();
    }
    float largest[TALL][2];
#pragma unroll
    for (int m = 0; m < TALL; ++m)
#pragma unroll
      for (uint32_t half = 0; half < 2; ++half) {
        const uint32_t row = m * 16 + lane() / 4 + 8 * half;
        float most = tiles.largest[row], sum = 0;
#pragma unroll
        for (uint32_t w = 1; w < WARPS; ++w) most = maximum(most, tiles.largest[w * ROWS + row]);
        most *= scale;
        largest[m][half] = most;
#pragma unroll
        for (uint32_t n = 0; n < WARP_KEYS / 8; ++n) {
          float weight[2];
#pragma unroll
          for (uint32_t j = 0; j < 2; ++j) {
            weight[j] = first_of_warp + n * 8 + lane() % 4 * 2 + j < seen[m][half] ? exponential(multiply_add(scores[m][n][2 * half + j], scale, -most)) : 0.0f;
            sum += weight[j];
          }
          *reinterpret_cast<uint32_t*>(tiles.weights + row * WEIGHTS + first_of_warp + n * 8 + lane() % 4 * 2) = pack_bf16(weight[0], weight[1]);
        }
        sum += shuffle_xor(sum, 1);
        sum += shuffle_xor(sum, 2);
        if (lane() % 4 == 0) tiles.sums[warp() * ROWS + row] = sum;
      }
    copy_wait<1>();
    block_barrier();
    float here[TALL][COLUMNS][4] = {};
#pragma unroll 2
    for (uint32_t depth = 0; depth * 16 < keys; ++depth) {
      uint32_t weights[TALL][4];
#pragma unroll
      for (int m = 0; m < TALL; ++m) load_matrices(weights[m], tiles.weights + (m * 16 + lane() % 16) * WEIGHTS + depth * 16 + lane() / 16 * 8);
#pragma unroll
      for (int n = 0; n < COLUMNS / 2; ++n) {
        uint32_t v[4];
        load_matrices_transposed(v, chunk_at<DIMENSION>(tiles.values, depth * 16 + lane() / 8 % 2 * 8 + lane() % 8, (warp() * COLUMNS + 2 * n) + lane() / 16));
#pragma unroll
        for (int m = 0; m < TALL; ++m) {
          multiply_tile(here[m][2 * n], weights[m], v[0], v[1]);
          multiply_tile(here[m][2 * n + 1], weights[m], v[2], v[3]);
        }
      }
    }
#pragma unroll
    for (int m = 0; m < TALL; ++m)
#pragma unroll
      for (uint32_t half = 0; half < 2; ++half) {
        const uint32_t row = m * 16 + lane() / 4 + 8 * half;
        float sum = tiles.sums[row];
#pragma unroll
        for (uint32_t w = 1; w < WARPS; ++w) sum += tiles.sums[w * ROWS + row];
        const bool is_first = split == item.first_split;
        const Fold both = is_first || seen[m][half] == 0 ? Fold{all_largest[m][half], 1.0f, 0.0f} : fold(all_largest[m][half], largest[m][half]);
        all_largest[m][half] = is_first ? largest[m][half] : both.largest;
        all_sums[m][half] = is_first ? sum : folded(both, all_sums[m][half], sum);
#pragma unroll
        for (int n = 0; n < COLUMNS; ++n)
#pragma unroll
          for (uint32_t j = 2 * half; j < 2 * half + 2; ++j) all[m][n][j] = is_first ? here[m][n][j] : folded(both, all[m][n][j], here[m][n][j]);
      }
    block_barrier();
    if (split + 1 < end_split) copy_split<DIMENSION>(p, blocks, tiles.values, head, 1, first_key + SPLIT_KEYS, keys_of(split + 1));
  }
#pragma unroll
  for (int m = 0; m < TALL; ++m)
#pragma unroll
    for (uint32_t half = 0; half < 2; ++half) {
      const uint32_t row = m * 16 + lane() / 4 + 8 * half;
      if (row >= rows) continue;
      const uint32_t query = head * group + (first_row + row) % group;
      const bool is_partial = item.splits < item.all_splits;
      float* partial = p.partials + (static_cast<size_t>(item.partial + item.first_split) * cache.query + query) * (dimension + 2);
      const uint32_t width = cache.query * dimension, token = item.row + (first_row + row) / group;
      const float inverse = 1.0f / all_sums[m][half];
#pragma unroll
      for (int n = 0; n < COLUMNS; ++n) {
        const uint32_t column = (warp() * COLUMNS + n) * 8 + lane() % 4 * 2;
        if (column >= dimension) break;
        const float first = all[m][n][2 * half], second = all[m][n][2 * half + 1];
        if (is_partial) {
          partial[column] = first;
          partial[column + 1] = second;
        } else {
          float* const out = p.out + static_cast<size_t>(token) * width + query * dimension + column;
          out[0] = first * inverse;
          out[1] = second * inverse;
          if (p.terms != nullptr) store_terms(terms_at(p.terms, token, width, query * dimension + column), width, out[0], out[1]);
        }
      }
      if (is_partial && threadIdx.x % 4 == 0 && warp() == 0) {
        partial[dimension] = all_largest[m][half];
        partial[dimension + 1] = all_sums[m][half];
      }
    }
}

template <uint32_t DIMENSION> DEVICE void attend(const AttendParameters& p, unsigned char* shared) {
  const CacheTable& cache = p.cache;
  const uint32_t work_count = *p.item_count * cache.key_value, group = cache.query / cache.key_value;
  for (uint32_t work = blockIdx.x; work < work_count; work += gridDim.x) {
    const AttentionItem item = p.items[work / cache.key_value];
    const uint32_t head = work % cache.key_value, rows = item.tokens * group;
    if (rows <= 16) {
      attend_rows<DIMENSION, 1>(p, item, head, 0, shared);
    } else {
      for (uint32_t first_row = 0; first_row < rows; first_row += 32) attend_rows<DIMENSION, 2>(p, item, head, first_row, shared);
    }
  }
}

}  // namespace

extern "C" KERNEL(128) attend_bf16(GRID_CONSTANT const AttendParameters p) {
  DYNAMIC_SHARED(shared);
  if (p.cache.dimension <= 64) {
    attend<64>(p, shared);
  } else {
    attend<128>(p, shared);
  }
}
