// Which tile of which group a block multiplies. Items of work are (group, tile of outputs, tile of rows), the last running fastest;
// blocks walk them in steps of the grid, so nothing about a launch depends on how large the groups are, and no result does.
#pragma once
#include "rows.h"

// How many tiles of BM rows stand before each group: a scan in shared memory, which needs 2 * (groups + 1) words.
template <int BM> DEVICE const uint32_t* tiles_before(const ProductParameters& p, uint32_t* tiles) {
  uint32_t* other = tiles + p.groups + 1;
  for (uint32_t i = threadIdx.x; i <= p.groups; i += blockDim.x) {
    uint32_t rows = 0;
    if (i > 0) rows = p.starts == nullptr ? row_count(p.rows) : p.starts[i] - p.starts[i - 1];
    tiles[i] = (rows + BM - 1) / BM;
  }
  block_barrier();
  for (uint32_t distance = 1; distance <= p.groups; distance *= 2) {
    for (uint32_t i = threadIdx.x; i <= p.groups; i += blockDim.x) other[i] = tiles[i] + (i >= distance ? tiles[i - distance] : 0);
    block_barrier();
    uint32_t* swap = tiles;
    tiles = other;
    other = swap;
  }
  return tiles;
}

struct Item {
  uint32_t group;
  // Of the outputs.
  uint32_t column;
  // Of the rows of all groups, and how many there are from it on in this group.
  uint32_t row;
  uint32_t rows;
};

// Whether there is an item of this number.
template <int BM, int BN> DEVICE bool find_item(const ProductParameters& p, const uint32_t* tiles, uint32_t work, Item& item) {
  const uint32_t columns = (p.n + BN - 1) / BN;
  if (work >= tiles[p.groups] * columns) return false;
  uint32_t low = 0, high = p.groups;
  while (high - low > 1) {
    const uint32_t middle = (low + high) / 2;
    if (tiles[middle] * columns <= work) {
      low = middle;
    } else {
      high = middle;
    }
  }
  const uint32_t tiles_here = tiles[low + 1] - tiles[low], local = work - tiles[low] * columns, tile = local % tiles_here;
  const uint32_t first = p.starts == nullptr ? 0 : p.starts[low];
  const uint32_t rows = p.starts == nullptr ? row_count(p.rows) : p.starts[low + 1] - first;
  item = Item{low, local / tiles_here * BN, first + tile * BM, rows - tile * BM};
  return true;
}

// The page of an item's group.
DEVICE uint32_t page_of(const ProductParameters& p, const Item& item) {
  const uint32_t page = p.page_of == nullptr ? p.page + item.group : p.page_of[item.group];
  if (page < p.pages) return page;
  report(p.error, ERROR_PAGE);
  return 0;
}

// The weights of an item's group.
DEVICE const unsigned char* weights_of(const ProductParameters& p, const Item& item) {
  return p.arena + page_of(p, item) * p.page_bytes + p.offset;
}

// The row of x that an output row is of.
DEVICE size_t row_of_x(const ProductParameters& p, uint32_t row) { return p.list == nullptr ? row : p.list[row]; }

// An output of a product.
DEVICE void put_output(const ProductParameters& p, uint32_t row, uint32_t column, float value) {
  if (column >= p.n) return;
  float* out = static_cast<float*>(p.out) + static_cast<size_t>(row) * p.n + column;
  if (p.bias != nullptr) value += p.bias[column];
  *out = p.add != 0 ? *out + value : value;
}

// What tensor cores give a thread of a row: two outputs of each half of sixteen, `column` and the next, and eight further.
template <bool GATED> DEVICE void put_outputs(const ProductParameters& p, uint32_t row, uint32_t column, const float* first, const float* second) {
  if (GATED) {
    // The first eight outputs of sixteen are gates, the second the values that go through them.
    if (column >= p.n) return;
    const uint32_t width = p.n / 2, to = column / 16 * 8 + column % 16;
    store_terms(terms_at(static_cast<bf16*>(p.out), row, width, to), width, silu(first[0]) * second[0], silu(first[1]) * second[1]);
  } else {
    put_output(p, row, column, first[0]);
    put_output(p, row, column + 1, first[1]);
    put_output(p, row, column + 8, second[0]);
    put_output(p, row, column + 9, second[1]);
  }
}
