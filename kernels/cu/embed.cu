// Rows that are looked up: of the embedding by token, of the activations by what is asked.
#include "rows.h"

extern "C" KERNEL(128) embed(GRID_CONSTANT const EmbedParameters p) {
  const uint32_t rows = row_count(p.rows);
  for (uint32_t row = blockIdx.x; row < rows; row += gridDim.x) {
    uint32_t token = p.ids[p.rows.first + row];
    if (token >= p.vocabulary) {
      report(p.error, ERROR_TOKEN);
      token = 0;
    }
    const size_t from = static_cast<size_t>(token) * p.width;
    float* out = p.out + static_cast<size_t>(row) * p.width;
    for (uint32_t i = threadIdx.x * 8; i < p.width; i += blockDim.x * 8) {
      float low[4], high[4];
      if (p.kind == KIND_BF16) {
        const uint4 bits = load16(static_cast<const bf16*>(p.table) + from + i);
        low[0] = low_float(bits.x), low[1] = high_float(bits.x), low[2] = low_float(bits.y), low[3] = high_float(bits.y);
        high[0] = low_float(bits.z), high[1] = high_float(bits.z), high[2] = low_float(bits.w), high[3] = high_float(bits.w);
      } else {
        load_floats(static_cast<const float*>(p.table) + from + i, low);
        load_floats(static_cast<const float*>(p.table) + from + i + 4, high);
      }
      store_floats(out + i, low);
      store_floats(out + i + 4, high);
    }
  }
}

extern "C" KERNEL(128) gather(GRID_CONSTANT const GatherParameters p) {
  const uint32_t rows = row_count(p.rows);
  for (uint32_t row = blockIdx.x; row < rows; row += gridDim.x) {
    const float* x = p.x + static_cast<size_t>(p.asked[p.rows.first + row].row) * p.width;
    float* out = p.out + static_cast<size_t>(row) * p.width;
    for (uint32_t i = threadIdx.x * 4; i < p.width; i += blockDim.x * 4) store16(out + i, load16(x + i));
  }
}
