// Which experts a token goes to: softmax over all, then the best, best first, equal ones by ascending number. A warp for each row.
#include "rows.h"

// Larger for a better expert: by logit, then by a lower number. What is not a number is worse than any.
DEVICE uint64_t expert_key(float logit, uint32_t expert) {
  const uint32_t bits = float_bits(logit + 0.0f);
  const uint32_t order = logit != logit ? 0 : (bits >> 31) != 0 ? ~bits : bits | 0x80000000u;
  return static_cast<uint64_t>(order) << 32 | static_cast<uint32_t>(~expert);
}

extern "C" KERNEL(128) route(GRID_CONSTANT const RouteParameters p) {
  const uint32_t rows = row_count(p.rows), top_k = p.routing.top_k, warps = blockDim.x / 32;
  for (uint32_t row = blockIdx.x * warps + warp(); row < rows; row += gridDim.x * warps) {
    const float* logits = p.logits + static_cast<size_t>(row) * p.experts;
    uint32_t* experts = p.routing.experts + static_cast<size_t>(row) * top_k;
    float* weights = p.routing.weights + static_cast<size_t>(row) * top_k;
    uint64_t last = ~static_cast<uint64_t>(0);
    float largest = 0, sum = 0, total = 0;
    for (uint32_t j = 0; j < top_k; ++j) {
      uint64_t best = 0;
      for (uint32_t expert = lane(); expert < p.experts; expert += 32) {
        const uint64_t key = expert_key(logits[expert], expert);
        if (key < last) best = maximum(best, key);
      }
      best = warp_max(best);
      last = best;
      const uint32_t expert = ~static_cast<uint32_t>(best);
      if (j == 0) {
        largest = logits[expert];
        for (uint32_t other = lane(); other < p.experts; other += 32) sum += exponential(logits[other] - largest);
        sum = warp_sum(sum);
      }
      const float weight = exponential(logits[expert] - largest) / sum;
      total += weight;
      if (lane() == j % 32) {
        experts[j] = expert;
        weights[j] = weight;
      }
    }
    if (p.normalise != 0)
      for (uint32_t j = lane(); j < top_k; j += 32) weights[j] /= total;
  }
}
