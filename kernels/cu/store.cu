// Keys and values of a step's tokens, put into the cache.
#include "cache.h"

extern "C" KERNEL(128) store(GRID_CONSTANT const StoreParameters p) {
  const CacheTable& cache = p.cache;
  const uint32_t items = p.item_count[1], groups = cache.dimension / 4, each = cache.key_value * 2 * groups;
  const size_t width = static_cast<size_t>(cache.query + 2 * cache.key_value) * cache.dimension;
  for (uint32_t index = blockIdx.x; index < items; index += gridDim.x) {
    const AttentionItem item = p.items[index];
    for (uint32_t work = threadIdx.x; work < item.tokens * each; work += blockDim.x) {
      const uint32_t token = work / each, rest = work % each;
      // Heads of a row of projections: the keys', then the values'.
      const uint32_t which = rest / groups, at = rest % groups * 4;
      const uint32_t of_values = which >= cache.key_value, head = which - of_values * cache.key_value;
      float x[4];
      load_floats(p.projected + (item.row + token) * width + static_cast<size_t>(cache.query + which) * cache.dimension + at, x);
      const uint32_t* blocks = p.blocks + item.first_block;
      if (cache.kind == KIND_BF16) {
        store_rounded(cache_at<bf16>(cache, blocks, p.error, head, of_values, item.position + token) + at, x);
      } else {
        store_floats(cache_at<float>(cache, blocks, p.error, head, of_values, item.position + token) + at, x);
      }
    }
  }
}
