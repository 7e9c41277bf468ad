// Where keys and values are.
#pragma once
#include "rows.h"

// The first element of the keys, or of the values, of the 16 or more positions of a block that `position` is in: of the position
// itself. A block that the cache has not is reported, and the first is taken for it.
template <class Element> DEVICE Element* cache_at(const CacheTable& cache, const uint32_t* blocks, uint32_t* error, uint32_t head, uint32_t of_values, uint32_t position) {
  uint32_t block = blocks[position / cache.block_tokens];
  if (block >= cache.blocks) {
    report(error, ERROR_BLOCK);
    block = 0;
  }
  const size_t list = (static_cast<size_t>(block) * cache.key_value + head) * 2 + of_values;
  return static_cast<Element*>(cache.values) + (list * cache.block_tokens + position % cache.block_tokens) * cache.dimension;
}
