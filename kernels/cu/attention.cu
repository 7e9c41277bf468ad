// Causal attention over the paged cache. Keys are taken in splits at fixed positions, whatever else a step has. Of each split a row
// (a token and one of its query heads) has a partial result, and those are put together in order: by the block that has them all,
// or, where a single token's splits are spread over blocks, by `merge`. So a row is the same bits in any batch and any chunking, as
// long as values are finite: those of keys that it does not see are multiplied by zero where a later token of its item sees them.
#include "attention.h"

namespace {

// Rows that a block takes together.
constexpr uint32_t ROWS = 16;
// Elements of a head at most, and output columns of a thread that come of it.
constexpr uint32_t MOST_DIMENSION = 256, THREADS = 128, COLUMNS = MOST_DIMENSION / THREADS;

DEVICE void load_elements(const float* from, float (&to)[4]) { load_floats(from, to); }
DEVICE void load_elements(const bf16* from, float (&to)[4]) {
  const uint32_t* words = reinterpret_cast<const uint32_t*>(from);
  const uint32_t first = words[0], second = words[1];
  to[0] = low_float(first), to[1] = high_float(first), to[2] = low_float(second), to[3] = high_float(second);
}
DEVICE float load_element(const float* from) { return *from; }
DEVICE float load_element(const bf16* from) { return to_float(*from); }

template <class Element> DEVICE void attend(const AttendParameters& p) {
  SHARED(float, queries, ROWS * MOST_DIMENSION);
  SHARED(float, scores, ROWS * SPLIT_KEYS);
  // Of the split, and of all so far.
  SHARED(float, largest, ROWS);
  SHARED(float, sums, ROWS);
  SHARED(float, all_largest, ROWS);
  SHARED(float, all_sums, ROWS);
  SHARED(float, before, ROWS);
  SHARED(float, more, ROWS);
  const CacheTable& cache = p.cache;
  const uint32_t dimension = cache.dimension, group = cache.query / cache.key_value, thread = threadIdx.x;
  const size_t width = static_cast<size_t>(cache.query + 2 * cache.key_value) * dimension;
  const float scale = 1.0f / square_root(static_cast<float>(dimension));
  const uint32_t work_count = *p.item_count * cache.key_value;
  for (uint32_t work = blockIdx.x; work < work_count; work += gridDim.x) {
    const AttentionItem item = p.items[work / cache.key_value];
    const uint32_t head = work % cache.key_value, rows_of_item = item.tokens * group;
    const uint32_t* blocks = p.blocks + item.first_block;
    for (uint32_t first_row = 0; first_row < rows_of_item; first_row += ROWS) {
      const uint32_t rows = minimum(ROWS, rows_of_item - first_row);
      // Whoever read the queries of the rows before came to barriers since: there is a split at least.
      for (uint32_t i = thread * 4; i < rows * dimension; i += THREADS * 4) {
        const uint32_t row = first_row + i / dimension, query = head * group + row % group;
        store16(queries + i, load16(p.projected + (item.row + row / group) * width + static_cast<size_t>(query) * dimension + i % dimension));
      }
      float all[COLUMNS][ROWS];
      const uint32_t last_position = item.position + (first_row + rows - 1) / group;
      for (uint32_t split = item.first_split; split < item.first_split + item.splits && split * SPLIT_KEYS <= last_position; ++split) {
        const uint32_t first_key = split * SPLIT_KEYS, keys = minimum(static_cast<uint32_t>(SPLIT_KEYS), last_position + 1 - first_key);
        block_barrier();
        for (uint32_t key = thread; key < keys; key += THREADS) {
          const Element* k = cache_at<Element>(cache, blocks, p.error, head, 0, first_key + key);
          float score[ROWS] = {};
          for (uint32_t d = 0; d < dimension; d += 4) {
            float at[4];
            load_elements(k + d, at);
#pragma unroll
            for (uint32_t row = 0; row < ROWS; ++row) {
              if (row >= rows) break;
              float q[4];
              load_floats(queries + row * dimension + d, q);
              for (int j = 0; j < 4; ++j) score[row] = multiply_add(q[j], at[j], score[row]);
            }
          }
#pragma unroll
          for (uint32_t row = 0; row < ROWS; ++row) scores[row * SPLIT_KEYS + key] = score[row];
        }
        block_barrier();
        for (uint32_t row = warp(); row < rows; row += THREADS / 32) {
          // Keys of the split that this row looks at; a token that comes before the split has none.
          const uint32_t position = item.position + (first_row + row) / group;
          const uint32_t seen = position < first_key ? 0 : minimum(keys, position + 1 - first_key);
          float* of_row = scores + row * SPLIT_KEYS;
          float most = -infinity(), sum = 0;
          for (uint32_t key = lane(); key < seen; key += 32) most = maximum(most, of_row[key]);
          most = warp_max(most) * scale;
          for (uint32_t key = lane(); key < SPLIT_KEYS; key += 32) {
            const float weight = key < seen ? exponential(multiply_add(of_row[key], scale, -most)) : 0.0f;
            of_row[key] = weight;
            sum += weight;
          }
          sum = warp_sum(sum);
          if (lane() == 0) {
            largest[row] = most;
            sums[row] = sum;
            if (split == item.first_split) {
              all_largest[row] = most;
              all_sums[row] = sum;
            } else if (seen > 0) {
              const Fold both = fold(all_largest[row], most);
              all_largest[row] = both.largest;
              all_sums[row] = folded(both, all_sums[row], sum);
              before[row] = both.before;
              more[row] = both.more;
            } else {
              before[row] = 1.0f;
              more[row] = 0.0f;
            }
          }
        }
        block_barrier();
#pragma unroll
        for (uint32_t part = 0; part < COLUMNS; ++part) {
          const uint32_t column = part * THREADS + thread;
          if (column >= dimension) break;
          float here[ROWS] = {};
          for (uint32_t key = 0; key < keys; key += 4) {
            const Element* v = cache_at<Element>(cache, blocks, p.error, head, 1, first_key + key) + column;
            float at[4] = {};
            for (uint32_t j = 0; j < 4; ++j)
              if (key + j < keys) at[j] = load_element(v + static_cast<size_t>(j) * dimension);
#pragma unroll
            for (uint32_t row = 0; row < ROWS; ++row) {
              if (row >= rows) break;
              float weight[4];
              load_floats(scores + row * SPLIT_KEYS + key, weight);
              for (int j = 0; j < 4; ++j) here[row] = multiply_add(weight[j], at[j], here[row]);
            }
          }
#pragma unroll
          for (uint32_t row = 0; row < ROWS; ++row) {
            if (row >= rows) break;
            all[part][row] = split == item.first_split ? here[row] : folded(Fold{0, before[row], more[row]}, all[part][row], here[row]);
          }
        }
      }
#pragma unroll
      for (uint32_t part = 0; part < COLUMNS; ++part) {
        const uint32_t column = part * THREADS + thread;
        if (column >= dimension) break;
#pragma unroll
        for (uint32_t row = 0; row < ROWS; ++row) {
          if (row >= rows) break;
          const uint32_t query = head * group + (first_row + row) % group;
          if (item.splits < item.all_splits) {
            float* partial = p.partials + (static_cast<size_t>(item.partial + item.first_split) * cache.query + query) * (dimension + 2);
            partial[column] = all[part][row];
            if (column == 0) {
              partial[dimension] = all_largest[row];
              partial[dimension + 1] = all_sums[row];
            }
          } else {
            put_attended(p, item.row + (first_row + row) / group, query * dimension + column, all[part][row] * (1.0f / all_sums[row]));
          }
        }
      }
    }
  }
}

}  // namespace

extern "C" KERNEL(128) attend_f32(GRID_CONSTANT const AttendParameters p) { attend<float>(p); }
extern "C" KERNEL(128) attend_bf16_wide(GRID_CONSTANT const AttendParameters p) { attend<bf16>(p); }

// A block for each single token and query head whose splits were spread.
extern "C" KERNEL(128) merge(GRID_CONSTANT const AttendParameters p) {
  const uint32_t query = p.cache.query, dimension = p.cache.dimension, work_count = p.item_count[1] * query;
  const size_t each = static_cast<size_t>(query) * (dimension + 2);
  for (uint32_t work = blockIdx.x; work < work_count; work += gridDim.x) {
    const AttentionItem item = p.items[work / query];
    if (item.splits == item.all_splits) continue;
    const float* first = p.partials + item.partial * each + static_cast<size_t>(work % query) * (dimension + 2);
    for (uint32_t column = threadIdx.x; column < dimension; column += blockDim.x) {
      float value = first[column], largest = first[dimension], sum = first[dimension + 1];
      for (uint32_t split = 1; split < item.all_splits; ++split) {
        const float* next = first + split * each;
        const Fold both = fold(largest, next[dimension]);
        largest = both.largest;
        sum = folded(both, sum, next[dimension + 1]);
        value = folded(both, value, next[column]);
      }
      put_attended(p, item.row, work % query * dimension + column, value * (1.0f / sum));
    }
  }
}
