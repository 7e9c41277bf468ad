// What is asked of rows of logits: a token drawn by its probability, log-probabilities, the best tokens. A row is looked at in
// parts of fixed size by as many blocks; then one block answers. Weights of tokens are added up as whole numbers, of which 1 is
// 2^44, so that a sum is the same in any order and a draw is that of the specification but for less than one in a billion.
#include "rows.h"

namespace {

constexpr uint32_t THREADS = 256;

// Parts of a row.
DEVICE uint32_t part_count(const SampleParameters& p) { return (p.vocabulary + PART_TOKENS - 1) / PART_TOKENS; }

// How much of all a weight of at most 1 is.
DEVICE uint64_t amount(float weight) { return static_cast<uint64_t>(static_cast<double>(weight) * 17592186044416.0 + 0.5); }

// Larger for a larger value, as bits are ordered: minus zero before zero.
DEVICE uint32_t value_order(float value) {
  const uint32_t bits = float_bits(value);
  return (bits >> 31) != 0 ? ~bits : bits | 0x80000000u;
}

// The natural logarithm of a sum of exponentials: that of an f32, and what it is wrong by. It needs no more registers than there
// are for what a block answers beside it, which a logarithm of 64 bits does.
DEVICE double logarithm_of(double sum) {
  const double near = static_cast<double>(logarithm(static_cast<float>(sum))), wrong = sum * exponential_wide(-near) - 1.0;
  return near + (wrong - wrong * wrong * 0.5);
}

// What all parts of a row give together.
struct Row {
  float largest;
  uint32_t best;
  bool is_ordered;
};
DEVICE Row row_of(const SampleParameters& p, uint32_t row) {
  const SamplePart* parts = p.parts + static_cast<size_t>(row) * part_count(p);
  Row all{-infinity(), 0, true};
  for (uint32_t part = 0; part < part_count(p); ++part) {
    if (parts[part].is_unordered != 0) all.is_ordered = false;
    if (parts[part].largest > all.largest) {
      all.largest = parts[part].largest;
      all.best = parts[part].best;
    }
  }
  if (!(all.largest > -infinity()) || !(all.largest < infinity())) all.is_ordered = false;
  return all;
}

// A place in the order of tokens by weight, heaviest first and of equal ones by number: all tokens up to this one.
struct Place {
  uint32_t weight_bits;
  uint32_t token;
  // Of these tokens together.
  uint64_t amount;
};

// The sum of the values of the threads before this one; `scratch` is shared and holds a value for each warp.
DEVICE uint64_t sum_before(uint64_t value, uint64_t* scratch) {
  uint64_t sum = value;
  for (int distance = 1; distance < 32; distance *= 2) {
    const uint64_t more = shuffle_up(sum, distance);
    if (lane() >= static_cast<uint32_t>(distance)) sum += more;
  }
  if (lane() == 31) scratch[warp()] = sum;
  block_barrier();
  uint64_t before = sum - value;
  for (uint32_t w = 0; w < warp(); ++w) before += scratch[w];
  block_barrier();
  return before;
}

struct Scratch {
  uint64_t* histogram;  // 256
  uint64_t* sums;       // of warps
  uint64_t* found;      // 4
};

// The first place at which the tokens so far come to `target` of at least 1, where each counts `count_of(weight)`; all tokens
// together come to as much. Digit by digit of the weights' bits, the highest first; then by number among equal weights.
template <class Count> DEVICE Place place_of(const float* weights, uint32_t vocabulary, uint64_t target, const Scratch& scratch, Count count_of) {
  uint32_t prefix = 0;
  for (int shift = 24; shift >= 0; shift -= 8) {
    scratch.histogram[threadIdx.x] = 0;
    block_barrier();
    for (uint32_t token = threadIdx.x; token < vocabulary; token += THREADS) {
      const uint32_t bits = float_bits(weights[token]);
      if (shift == 24 || bits >> (shift + 8) == prefix >> (shift + 8)) add_count(scratch.histogram + (bits >> shift & 255), count_of(weights[token]));
    }
    block_barrier();
    // Thread t has digit 255 - t, so that those before it are heavier.
    const uint64_t here = scratch.histogram[255 - threadIdx.x], before = sum_before(here, scratch.sums);
    if (before < target && target <= before + here) {
      scratch.found[0] = 255 - threadIdx.x;
      scratch.found[1] = before;
    }
    block_barrier();
    prefix |= static_cast<uint32_t>(scratch.found[0]) << shift;
    target -= scratch.found[1];
    block_barrier();
  }
  // Of the tokens with just this weight, the first ones that together come to what is left.
  const float weight = bits_float(prefix);
  const uint64_t each = count_of(weight), wanted = (target + each - 1) / each;
  const uint32_t share = (vocabulary + THREADS - 1) / THREADS, first = minimum(threadIdx.x * share, vocabulary), end = minimum(first + share, vocabulary);
  uint64_t equal = 0, heavier = 0;
  for (uint32_t token = first; token < end; ++token) {
    const uint32_t bits = float_bits(weights[token]);
    equal += bits == prefix;
    if (bits > prefix) heavier += amount(weights[token]);
  }
  const uint64_t before = sum_before(equal, scratch.sums);
  if (before < wanted && wanted <= before + equal) {
    uint64_t passed = before;
    for (uint32_t token = first; token < end; ++token)
      if (float_bits(weights[token]) == prefix && ++passed == wanted) scratch.found[0] = token;
  }
  const uint64_t heavier_before = sum_before(heavier, scratch.sums);
  if (threadIdx.x == THREADS - 1) scratch.found[1] = heavier_before + heavier;
  block_barrier();
  const Place place{prefix, static_cast<uint32_t>(scratch.found[0]), scratch.found[1] + wanted * amount(weight)};
  block_barrier();
  return place;
}

// The first token, by number, at which the tokens so far weigh more than `target`, of which all together weigh more.
DEVICE uint32_t token_at(const SampleParameters& p, uint32_t row, uint64_t target, const Scratch& scratch) {
  const SamplePart* parts = p.parts + static_cast<size_t>(row) * part_count(p);
  uint32_t part = 0;
  while (part + 1 < part_count(p) && target >= parts[part].weight) target -= parts[part++].weight;
  const float* weights = p.weights + static_cast<size_t>(row) * p.vocabulary;
  const uint32_t begin = part * PART_TOKENS + threadIdx.x * (PART_TOKENS / THREADS);
  const uint32_t first = minimum(begin, p.vocabulary), end = minimum(begin + PART_TOKENS / THREADS, p.vocabulary);
  uint64_t here = 0;
  for (uint32_t token = first; token < end; ++token) here += amount(weights[token]);
  uint64_t passed = sum_before(here, scratch.sums);
  if (passed <= target && target < passed + here) {
    uint32_t token = first;
    while (passed + amount(weights[token]) <= target) passed += amount(weights[token++]);
    scratch.found[0] = token;
  }
  block_barrier();
  const uint32_t token = static_cast<uint32_t>(scratch.found[0]);
  block_barrier();
  return token;
}

// How much of `all` a part of it in [0, 1) passes.
DEVICE uint64_t part_of(double part, uint64_t all) {
  const uint64_t passed = static_cast<uint64_t>(part * static_cast<double>(all));
  return passed < all ? passed : all - 1;
}

// A token by its probability.
DEVICE uint32_t draw(const SampleParameters& p, uint32_t row, const StepAsked& asked, const Scratch& scratch) {
  const float* weights = p.weights + static_cast<size_t>(row) * p.vocabulary;
  const SamplePart* parts = p.parts + static_cast<size_t>(row) * part_count(p);
  uint64_t all = 0;
  for (uint32_t part = 0; part < part_count(p); ++part) all += parts[part].weight;
  const bool is_few = asked.top_k >= 1 && asked.top_k < p.vocabulary;
  if (!is_few && !(asked.top_p < 1.0f)) return token_at(p, row, part_of(asked.uniform, all), scratch);
  if (is_few) all = place_of(weights, p.vocabulary, asked.top_k, scratch, [](float) { return static_cast<uint64_t>(1); }).amount;
  if (asked.top_p < 1.0f) {
    // The fewest that weigh `top_p` of all; the first always.
    const double least = static_cast<double>(asked.top_p) * static_cast<double>(all);
    uint64_t wanted = static_cast<uint64_t>(least);
    if (static_cast<double>(wanted) < least) ++wanted;
    wanted = maximum(static_cast<uint64_t>(1), minimum(wanted, all));
    all = place_of(weights, p.vocabulary, wanted, scratch, amount).amount;
  }
  return place_of(weights, p.vocabulary, part_of(asked.uniform, all) + 1, scratch, amount).token;
}

// The `count` best tokens by logit, best first; equal ones by number.
DEVICE void list_best(const float* logits, uint32_t vocabulary, uint32_t count, StepScored* best, uint64_t* scratch) {
  uint64_t last = ~static_cast<uint64_t>(0);
  for (uint32_t place = 0; place < MOST_BEST; ++place) {
    if (place >= minimum(count, vocabulary)) {
      if (threadIdx.x == 0) best[place] = StepScored{0, 0.0f};
      continue;
    }
    uint64_t here = 0;
    for (uint32_t token = threadIdx.x; token < vocabulary; token += THREADS) {
      const uint64_t key = static_cast<uint64_t>(value_order(logits[token])) << 32 | static_cast<uint32_t>(~token);
      if (key < last) here = maximum(here, key);
    }
    last = block_max(here, scratch);
    const uint32_t token = ~static_cast<uint32_t>(last);
    if (threadIdx.x == 0) best[place] = StepScored{token, logits[token]};
  }
}

DEVICE bool draws_by_weight(const StepAsked& asked) { return (asked.flags & ASKED_DRAW) != 0 && asked.temperature > 0.0f; }

}  // namespace

extern "C" KERNEL(256) sample_parts(GRID_CONSTANT const SampleParameters p) {
  SHARED(uint64_t, scratch, 32);
  SHARED(uint32_t, unordered, 1);
  const uint32_t parts = part_count(p), work_count = row_count(p.rows) * parts;
  for (uint32_t work = blockIdx.x; work < work_count; work += gridDim.x) {
    const float* logits = p.logits + static_cast<size_t>(work / parts) * p.vocabulary;
    const uint32_t first = work % parts * PART_TOKENS, end = minimum(first + PART_TOKENS, p.vocabulary);
    if (threadIdx.x == 0) *unordered = 0;
    block_barrier();
    uint64_t best = 0;
    bool is_unordered = false;
    for (uint32_t token = first + threadIdx.x; token < end; token += THREADS) {
      const float logit = logits[token];
      if (logit != logit) {
        is_unordered = true;
      } else {
        // Minus zero is zero: the lower of two tokens wins then.
        best = maximum(best, static_cast<uint64_t>(value_order(logit + 0.0f)) << 32 | static_cast<uint32_t>(~token));
      }
    }
    if (is_unordered) or_bits(unordered, 1);
    best = block_max(best, scratch);
    if (threadIdx.x == 0) {
      const uint32_t token = best == 0 ? first : ~static_cast<uint32_t>(best);
      p.parts[work] = SamplePart{0.0, 0, logits[token], token, *unordered, 0};
    }
    block_barrier();
  }
}

extern "C" KERNEL(256) sample_weigh(GRID_CONSTANT const SampleParameters p) {
  SHARED(double, exponentials, 32);
  SHARED(uint64_t, amounts, 32);
  const uint32_t parts = part_count(p), work_count = row_count(p.rows) * parts;
  for (uint32_t work = blockIdx.x; work < work_count; work += gridDim.x) {
    const uint32_t row = work / parts;
    const StepAsked asked = p.asked[p.rows.first + row];
    const bool is_drawn = draws_by_weight(asked), is_summed = (asked.flags & ASKED_SUM) != 0;
    const Row all = row_of(p, row);
    if (!all.is_ordered || !(is_drawn || is_summed)) continue;
    const size_t at = static_cast<size_t>(row) * p.vocabulary;
    const uint32_t first = work % parts * PART_TOKENS, end = minimum(first + PART_TOKENS, p.vocabulary);
    double sum = 0.0;
    uint64_t weighed = 0;
    for (uint32_t token = first + threadIdx.x; token < end; token += THREADS) {
      const float below = p.logits[at + token] - all.largest;
      if (is_summed) sum += exponential_wide(static_cast<double>(below));
      if (is_drawn) {
        const float weight = static_cast<float>(exponential_wide(static_cast<double>(below / asked.temperature)));
        p.weights[at + token] = weight;
        weighed += amount(weight);
      }
    }
    sum = block_sum(sum, exponentials);
    weighed = block_sum(weighed, amounts);
    if (threadIdx.x == 0) {
      p.parts[work].exponentials = sum;
      p.parts[work].weight = weighed;
    }
  }
}

extern "C" KERNEL(256) sample_pick(GRID_CONSTANT const SampleParameters p) {
  SHARED(uint64_t, histogram, 256);
  SHARED(uint64_t, sums, 32);
  SHARED(uint64_t, found, 4);
  const Scratch scratch{histogram, sums, found};
  const uint32_t rows = row_count(p.rows);
  for (uint32_t row = blockIdx.x; row < rows; row += gridDim.x) {
    const uint32_t index = p.rows.first + row;
    const StepAsked asked = p.asked[index];
    const Row all = row_of(p, row);
    const float* logits = p.logits + static_cast<size_t>(row) * p.vocabulary;
    list_best(logits, p.vocabulary, all.is_ordered ? asked.best : 0, p.best + static_cast<size_t>(index) * MOST_BEST, sums);
    StepSampled answer{};
    if (all.is_ordered) {
      answer.is_ordered = 1;
      answer.largest = all.largest;
      if ((asked.flags & ASKED_SUM) != 0)
        for (uint32_t part = 0; part < part_count(p); ++part) answer.log_sum += p.parts[static_cast<size_t>(row) * part_count(p) + part].exponentials;
      if ((asked.flags & ASKED_SCORE) != 0) answer.score = logits[minimum(asked.score, p.vocabulary - 1)];
      if ((asked.flags & ASKED_DRAW) != 0) {
        answer.drawn = draws_by_weight(asked) ? draw(p, row, asked, scratch) : all.best;
        answer.drawn_logit = logits[answer.drawn];
      }
    }
    if (threadIdx.x != 0) continue;
    if (answer.log_sum > 0.0) answer.log_sum = logarithm_of(answer.log_sum);
    p.sampled[index] = answer;
  }
}
