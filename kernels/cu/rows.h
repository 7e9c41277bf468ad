// Which rows there are, and what a kernel says that met something wrong.
#pragma once
#include "parameters.h"

DEVICE uint32_t row_count(const Rows& rows) {
  if (rows.count == nullptr) return rows.most;
  const uint32_t there = *rows.count;
  return there <= rows.first ? 0 : minimum(there - rows.first, rows.most);
}

// Keeps the first error of a step.
DEVICE void report(uint32_t* error, uint32_t what) { compare_exchange(error, 0, what); }

DEVICE void load_floats(const float* from, float (&to)[4]) {
  const uint4 bits = load16(from);
  to[0] = bits_float(bits.x);
  to[1] = bits_float(bits.y);
  to[2] = bits_float(bits.z);
  to[3] = bits_float(bits.w);
}
DEVICE void store_floats(float* to, const float (&from)[4]) {
  store16(to, uint4{float_bits(from[0]), float_bits(from[1]), float_bits(from[2]), float_bits(from[3])});
}
// Four values in bf16.
DEVICE void store_rounded(bf16* to, const float (&from)[4]) {
  uint32_t* words = reinterpret_cast<uint32_t*>(to);
  words[0] = pack_bf16(from[0], from[1]);
  words[1] = pack_bf16(from[2], from[3]);
}

// Rows in two terms of bf16, `[rows][2][width]`: what is nearest to each value, then what is nearest to the rest of it.
template <class Element> DEVICE Element* terms_at(Element* terms, size_t row, uint32_t width, uint32_t column) {
  return terms + row * 2 * width + column;
}
// Two and four values, whose first terms begin at `to`.
DEVICE void store_terms(bf16* to, uint32_t width, float first, float second) {
  const uint32_t nearest = pack_bf16(first, second);
  *reinterpret_cast<uint32_t*>(to) = nearest;
  *reinterpret_cast<uint32_t*>(to + width) = pack_bf16(first - low_float(nearest), second - high_float(nearest));
}
DEVICE void store_terms(bf16* to, uint32_t width, const float (&from)[4]) {
  store_terms(to, width, from[0], from[1]);
  store_terms(to + 2, width, from[2], from[3]);
}
