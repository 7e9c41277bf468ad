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
