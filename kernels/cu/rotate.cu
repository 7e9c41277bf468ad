// The norm of query and key heads and their rotation by position, in place: a warp for each head of each row.
#include "rows.h"

extern "C" KERNEL(256) rotate(GRID_CONSTANT const RotateParameters p) {
  const uint32_t heads = p.query + p.key_value, half = p.dimension / 2, warps = blockDim.x / 32;
  const size_t width = static_cast<size_t>(heads + p.key_value) * p.dimension;
  const uint32_t count = row_count(p.rows) * heads;
  for (uint32_t work = blockIdx.x * warps + warp(); work < count; work += gridDim.x * warps) {
    const uint32_t row = work / heads, head = work % heads;
    const uint32_t position = p.row_positions[p.rows.first + row];
    if (position >= p.positions) {
      report(p.error, ERROR_POSITION);
      continue;
    }
    float* low = p.projected + row * width + static_cast<size_t>(head) * p.dimension;
    float* high = low + half;
    const float* weight = head < p.query ? p.query_norm : p.key_norm;
    const float* cosines = p.angles + static_cast<size_t>(position) * p.dimension;
    float sum = 0;
    for (uint32_t i = lane(); i < half; i += 32) {
      sum = multiply_add(low[i], low[i], sum);
      sum = multiply_add(high[i], high[i], sum);
    }
    const float scale = inverse_root(warp_sum(sum) / static_cast<float>(p.dimension) + p.epsilon);
    for (uint32_t i = lane(); i < half; i += 32) {
      const float a = low[i] * scale * weight[i], b = high[i] * scale * weight[half + i];
      const float cosine_here = cosines[i], sine_here = cosines[half + i];
      low[i] = a * cosine_here - b * sine_here;
      high[i] = b * cosine_here + a * sine_here;
    }
  }
}
