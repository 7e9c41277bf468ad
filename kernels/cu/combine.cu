// The results of a token's experts, added up at its own rank in the order in which the router chose.
#include "rows.h"

extern "C" KERNEL(128) combine(GRID_CONSTANT const CombineParameters p) {
  SHARED(const float*, from, MOST_CHOSEN);
  SHARED(float, weight, MOST_CHOSEN);
  const RoutingTables& routing = p.routing;
  const uint32_t rows = row_count(p.rows);
  for (uint32_t row = blockIdx.x; row < rows; row += gridDim.x) {
    block_barrier();
    if (threadIdx.x < routing.top_k) {
      const size_t pair = static_cast<size_t>(row) * routing.top_k + threadIdx.x;
      const PairDestination to = routing.destinations[pair];
      // A rank that is not there was reported where it was chosen.
      const bool is_here = to.rank == routing.rank || p.homes == nullptr;
      const uint32_t rank = minimum(to.rank, routing.ranks - 1);
      const uint32_t* begins = to.rank == routing.rank ? routing.places + to.ordinal : routing.bases + rank;
      const uint32_t behind = to.rank == routing.rank ? 0 : to.ordinal;
      const uint32_t home = p.home_each == 0 ? static_cast<uint32_t>(pair) : rank * p.home_each + to.ordinal;
      const size_t place = to.rank >= routing.ranks ? 0 : is_here ? *begins + behind : home;
      from[threadIdx.x] = (is_here ? p.results : p.homes) + place * p.width;
      weight[threadIdx.x] = routing.weights[pair];
    }
    block_barrier();
    float* out = p.out + static_cast<size_t>(row) * p.width;
    for (uint32_t i = threadIdx.x * 4; i < p.width; i += blockDim.x * 4) {
      float sum[4] = {}, there[4];
#pragma unroll 4
      for (uint32_t j = 0; j < routing.top_k; ++j) {
        float result[4];
        load_floats(from[j] + i, result);
        for (int c = 0; c < 4; ++c) sum[c] = multiply_add(weight[j], result[c], sum[c]);
      }
      load_floats(out + i, there);
      for (int c = 0; c < 4; ++c) there[c] += sum[c];
      store_floats(out + i, there);
    }
  }
}
