// Root mean square norms of rows, and rows in terms of bf16.
#include "rows.h"

extern "C" KERNEL(128) rms_norm(GRID_CONSTANT const NormParameters p) {
  SHARED(float, scratch, 32);
  const uint32_t rows = row_count(p.rows);
  for (uint32_t row = blockIdx.x; row < rows; row += gridDim.x) {
    const size_t at = static_cast<size_t>(row) * p.width;
    float sum = 0;
    for (uint32_t i = threadIdx.x * 4; i < p.width; i += blockDim.x * 4) {
      float x[4];
      load_floats(p.x + at + i, x);
      for (int j = 0; j < 4; ++j) sum = multiply_add(x[j], x[j], sum);
    }
    const float mean = block_sum(sum, scratch) / static_cast<float>(p.width), scale = inverse_root(mean + p.epsilon);
    for (uint32_t i = threadIdx.x * 4; i < p.width; i += blockDim.x * 4) {
      float x[4], weight[4];
      load_floats(p.x + at + i, x);
      load_floats(p.weight + i, weight);
      for (int j = 0; j < 4; ++j) x[j] = x[j] * scale * weight[j];
      store_floats(p.out + at + i, x);
      if (p.terms != nullptr) store_terms(terms_at(p.terms, row, p.width, i), p.width, x);
    }
  }
}

extern "C" KERNEL(256) split_rows(GRID_CONSTANT const SplitParameters p) {
  const size_t count = static_cast<size_t>(row_count(p.rows)) * p.width;
  for (size_t i = (static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x) * 4; i < count; i += static_cast<size_t>(gridDim.x) * blockDim.x * 4) {
    float x[4];
    load_floats(p.x + i, x);
    store_terms(terms_at(p.terms, i / p.width, p.width, static_cast<uint32_t>(i % p.width)), p.width, x);
  }
}
