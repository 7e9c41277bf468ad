// How partial results of attention are put together.
#pragma once
#include "cache.h"

// How what there is so far and a further split are weighted when they are put together.
struct Fold {
  float largest;
  float before;
  float more;
};
DEVICE Fold fold(float largest, float of_split) {
  const float both = maximum(largest, of_split);
  return Fold{both, exponential(largest - both), exponential(of_split - both)};
}
// What weighs nothing is left out, whatever it is: a row has the same bits where nobody looks at a split that it does not see.
DEVICE float folded(const Fold& fold, float before, float more) {
  return fold.more == 0.0f && fold.before == 1.0f ? before : multiply_add(more, fold.more, before * fold.before);
}

// An element of a token's output.
DEVICE void put_attended(const AttendParameters& p, uint32_t token, uint32_t column, float value) {
  const uint32_t width = p.cache.query * p.cache.dimension;
  p.out[static_cast<size_t>(token) * width + column] = value;
  if (p.terms == nullptr) return;
  bf16* const to = terms_at(p.terms, token, width, column);
  to[0] = to_bf16(value);
  to[width] = to_bf16(value - to_float(to[0]));
}
