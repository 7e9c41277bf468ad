// Sums of what comes before a thread, in an order that nothing changes.
#pragma once
#include "rows.h"

// The sum of the values of the lanes up to this one, itself included.
template <class T> DEVICE T warp_sum_to(T value) {
  for (int distance = 1; distance < 32; distance *= 2) {
    const T more = shuffle_up(value, distance);
    if (lane() >= static_cast<uint32_t>(distance)) value += more;
  }
  return value;
}

// The sum of the values of the threads before this one, and of all.
template <class T> struct Before {
  T here;
  T all;
};
// `scratch` is shared and holds a value for each warp; every thread of the block calls this.
template <class T> DEVICE Before<T> sum_before(T value, T* scratch) {
  const T sum = warp_sum_to(value);
  if (lane() == 31) scratch[warp()] = sum;
  block_barrier();
  Before<T> before{sum - value, 0};
  for (uint32_t w = 0; w < blockDim.x / 32; ++w) {
    if (w < warp()) before.here += scratch[w];
    before.all += scratch[w];
  }
  block_barrier();
  return before;
}
