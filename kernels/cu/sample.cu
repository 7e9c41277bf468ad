// What is asked of rows of logits: a token drawn by its probability, log-probabilities, the best tokens. A row is looked at in
// parts of fixed size by as many blocks; then one block answers. Weights of tokens are added up as whole numbers, of which 1 is
// 2^44, so that a sum is the same in any order and a draw is that of the specification but for less than one in a billion.
#include "scan.h"

namespace {

constexpr uint32_t THREADS = 256, WARPS = THREADS / 32;
// Tokens that a draw keeps at hand at most.
constexpr uint32_t MOST_KEPT = 4096;

// Parts of a row.
DEVICE uint32_t part_count(const SampleParameters& p) { return (p.vocabulary + PART_TOKENS - 1) / PART_TOKENS; }

// How much of all a weight of at most 1 is.
DEVICE uint64_t amount(float weight) { return static_cast<uint64_t>(static_cast<double>(weight) * 17592186044416.0 + 0.5); }

// Whether a token is drawn by weight, and if so, whether only from among the heaviest.
DEVICE bool draws_by_weight(const StepAsked& asked) { return (asked.flags & ASKED_DRAW) != 0 && asked.temperature > 0.0f; }
DEVICE bool is_few(const SampleParameters& p, const StepAsked& asked) { return asked.top_k >= 1 && asked.top_k < p.vocabulary; }
DEVICE bool is_cut(const SampleParameters& p, const StepAsked& asked) { return is_few(p, asked) || asked.top_p < 1.0f; }

// Weights of a row, which begin at multiples of 16 bytes.
DEVICE float* weights_of(const SampleParameters& p, uint32_t row) { return p.weights + static_cast<size_t>(row) * ((p.vocabulary + 3) / 4 * 4); }

// The bin of a weight of at most 1: heavier tokens are in higher ones.
constexpr int BIN_SHIFT = 21;
DEVICE uint32_t bin_of(float weight) { return minimum(float_bits(weight) >> BIN_SHIFT, WEIGHT_BINS - 1); }

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

// Whoever uses a part of it comes to a barrier between what others did with it before and writing it, and between writing it and what
// they read: `sum_before` and the first lines of `place_of` have those.
struct Scratch {
  uint64_t* histogram;  // 256
  uint64_t* sums;       // of warps
  uint64_t* found;      // 4
  float* weights;       // MOST_KEPT
  uint32_t* tokens;     // MOST_KEPT
};

// Tokens with their weights, by number: all of them where it has no list.
struct Weighed {
  const float* weights;
  const uint32_t* tokens;
  uint32_t count;
};

// The first place at which the tokens so far come to `target` of at least 1, where each counts `count_of(weight)`; all tokens
// together come to as much. Digit by digit of the weights' bits, the highest first; then by number among equal weights.
template <class Count> DEVICE Place place_of(const Weighed& of, uint64_t target, const Scratch& scratch, Count count_of) {
  uint32_t prefix = 0;
  for (int shift = 24; shift >= 0; shift -= 8) {
    scratch.histogram[threadIdx.x] = 0;
    block_barrier();
    for (uint32_t i = threadIdx.x; i < of.count; i += THREADS) {
      const uint32_t bits = float_bits(of.weights[i]);
      const uint64_t more = count_of(of.weights[i]);
      if (more > 0 && (shift == 24 || bits >> (shift + 8) == prefix >> (shift + 8))) add_count(scratch.histogram + (bits >> shift & 255), more);
    }
    block_barrier();
    // Thread t has digit 255 - t, so that those before it are heavier.
    const uint64_t here = scratch.histogram[255 - threadIdx.x], before = sum_before(here, scratch.sums).here;
    if (before < target && target <= before + here) {
      scratch.found[0] = 255 - threadIdx.x;
      scratch.found[1] = before;
    }
    block_barrier();
    prefix |= static_cast<uint32_t>(scratch.found[0]) << shift;
    target -= scratch.found[1];
  }
  // Of the tokens with just this weight, the first ones that together come to what is left.
  const float weight = bits_float(prefix);
  const uint64_t each = count_of(weight), wanted = (target + each - 1) / each;
  const uint32_t share = (of.count + THREADS - 1) / THREADS, first = minimum(threadIdx.x * share, of.count), end = minimum(first + share, of.count);
  uint64_t equal = 0, heavier = 0;
  for (uint32_t i = first; i < end; ++i) {
    const uint32_t bits = float_bits(of.weights[i]);
    equal += bits == prefix;
    if (bits > prefix) heavier += amount(of.weights[i]);
  }
  const uint64_t before = sum_before(equal, scratch.sums).here;
  if (before < wanted && wanted <= before + equal) {
    uint64_t passed = before;
    for (uint32_t i = first; i < end; ++i)
      if (float_bits(of.weights[i]) == prefix && ++passed == wanted) scratch.found[0] = of.tokens == nullptr ? i : of.tokens[i];
  }
  const uint64_t all_heavier = sum_before(heavier, scratch.sums).all;
  const Place place{prefix, static_cast<uint32_t>(scratch.found[0]), all_heavier + wanted * amount(weight)};
  return place;
}

// The tokens that are in no lighter bin than the one in which those so far, the heaviest first, come to `target`: all of them where
// those are too many to keep. Places up to there are the same among them.
template <class Count> DEVICE Weighed heaviest(const SampleParameters& p, uint32_t row, uint64_t target, const Scratch& scratch, Count count_of) {
  static_assert(WEIGHT_BINS == 2 * THREADS, "a thread has two bins");
  const WeightBin* bins = p.bins + static_cast<size_t>(row) * WEIGHT_BINS;
  const uint32_t high = WEIGHT_BINS - 1 - 2 * threadIdx.x;
  const uint64_t first = count_of(bins[high]), both = first + count_of(bins[high - 1]), before = sum_before(both, scratch.sums).here;
  const uint64_t kept_both = sum_before(static_cast<uint64_t>(bins[high].count) + bins[high - 1].count, scratch.sums).here;
  if (before < target && target <= before + both) {
    const bool is_high = target <= before + first;
    scratch.found[0] = is_high ? high : high - 1;
    scratch.found[1] = kept_both + bins[high].count + (is_high ? 0 : bins[high - 1].count);
  }
  block_barrier();
  const uint32_t least = static_cast<uint32_t>(scratch.found[0]), count = static_cast<uint32_t>(scratch.found[1]);
  const float* weights = weights_of(p, row);
  if (count > MOST_KEPT) return Weighed{weights, nullptr, p.vocabulary};
  // Each warp has consecutive tokens, four to a lane. It counts what it keeps, then keeps it.
  constexpr uint32_t AT_ONCE = 128;
  const uint32_t each = (p.vocabulary + WARPS * AT_ONCE - 1) / (WARPS * AT_ONCE) * AT_ONCE;
  const uint32_t begin = minimum(warp() * each, p.vocabulary), end = minimum(begin + each, p.vocabulary);
  const auto kept_of = [&](uint32_t token, float (&four)[4]) {
    uint32_t mask = 0;
    if (token < end) {
      load_floats(weights + token, four);
      for (uint32_t j = 0; j < 4; ++j) mask |= static_cast<uint32_t>(token + j < end && bin_of(four[j]) >= least) << j;
    }
    return mask;
  };
  uint32_t mine = 0;
#pragma unroll 4
  for (uint32_t token = begin; token < end; token += AT_ONCE) {
    float four[4];
    mine += static_cast<uint32_t>(count_bits(kept_of(token + lane() * 4, four)));
  }
  mine = warp_sum(mine);
  uint32_t place = static_cast<uint32_t>(sum_before(static_cast<uint64_t>(lane() == 0 ? mine : 0), scratch.sums).here);
  place = shuffle(place, 0);
  for (uint32_t token = begin; token < end; token += AT_ONCE) {
    float four[4];
    const uint32_t mask = kept_of(token + lane() * 4, four), here = static_cast<uint32_t>(count_bits(mask));
    if (vote(mask != 0) == 0) continue;
    const uint32_t to_here = warp_sum_to(here);
    uint32_t at = place + to_here - here;
    for (uint32_t j = 0; j < 4; ++j) {
      if ((mask >> j & 1) == 0) continue;
      scratch.weights[at] = four[j];
      scratch.tokens[at++] = token + lane() * 4 + j;
    }
    place += shuffle(to_here, 31);
  }
  return Weighed{scratch.weights, scratch.tokens, count};
}

// The first token, by number, at which the tokens so far weigh more than `target`, of which all together weigh more.
DEVICE uint32_t token_at(const SampleParameters& p, uint32_t row, uint64_t target, const Scratch& scratch) {
  const SamplePart* parts = p.parts + static_cast<size_t>(row) * part_count(p);
  uint32_t part = 0;
  while (part + 1 < part_count(p) && target >= parts[part].weight) target -= parts[part++].weight;
  const float* weights = weights_of(p, row);
  const uint32_t begin = part * PART_TOKENS + threadIdx.x * (PART_TOKENS / THREADS);
  const uint32_t first = minimum(begin, p.vocabulary), end = minimum(begin + PART_TOKENS / THREADS, p.vocabulary);
  uint64_t here = 0;
  for (uint32_t token = first; token < end; ++token) here += amount(weights[token]);
  uint64_t passed = sum_before(here, scratch.sums).here;
  if (passed <= target && target < passed + here) {
    uint32_t token = first;
    while (passed + amount(weights[token]) <= target) passed += amount(weights[token++]);
    scratch.found[0] = token;
  }
  block_barrier();
  return static_cast<uint32_t>(scratch.found[0]);
}

// How much of `all` a part of it in [0, 1) passes.
DEVICE uint64_t part_of(double part, uint64_t all) {
  const uint64_t passed = static_cast<uint64_t>(part * static_cast<double>(all));
  return passed < all ? passed : all - 1;
}

// A token by its probability.
DEVICE uint32_t draw(const SampleParameters& p, uint32_t row, const StepAsked& asked, const Scratch& scratch) {
  const SamplePart* parts = p.parts + static_cast<size_t>(row) * part_count(p);
  uint64_t all = 0;
  for (uint32_t part = 0; part < part_count(p); ++part) all += parts[part].weight;
  if (!is_cut(p, asked)) return token_at(p, row, part_of(asked.uniform, all), scratch);
  // The fewest that weigh `top_p` of all; the first always.
  const auto wanted_of = [&](uint64_t amounts) {
    const double least = static_cast<double>(asked.top_p) * static_cast<double>(amounts);
    uint64_t wanted = static_cast<uint64_t>(least);
    if (static_cast<double>(wanted) < least) ++wanted;
    return maximum(static_cast<uint64_t>(1), minimum(wanted, amounts));
  };
  Weighed of;
  if (is_few(p, asked)) {
    of = heaviest(p, row, asked.top_k, scratch, [](const WeightBin& bin) { return static_cast<uint64_t>(bin.count); });
    all = place_of(of, asked.top_k, scratch, [](float) { return static_cast<uint64_t>(1); }).amount;
  } else {
    of = heaviest(p, row, wanted_of(all), scratch, [](const WeightBin& bin) { return bin.amount; });
  }
  if (asked.top_p < 1.0f) all = place_of(of, wanted_of(all), scratch, amount).amount;
  return place_of(of, part_of(asked.uniform, all) + 1, scratch, amount).token;
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

// Adds tokens to bins in shared memory, of each warp those of one bin together.
DEVICE void add_to_bins(bool is_there, float weight, uint64_t* amounts, uint32_t* counts) {
  const uint32_t bin = is_there ? bin_of(weight) : 0;
  const uint64_t more = is_there ? amount(weight) : 0;
  for (uint32_t left = vote(is_there); left != 0;) {
    const uint32_t first = static_cast<uint32_t>(count_bits((left & (~left + 1)) - 1)), of_first = shuffle(bin, static_cast<int>(first));
    const bool is_same = is_there && bin == of_first;
    const uint32_t same = vote(is_same);
    const uint64_t together = warp_sum(is_same ? more : 0);
    if (lane() == first) {
      add_count(amounts + bin, together);
      add_count(counts + bin, static_cast<uint32_t>(count_bits(same)));
    }
    left &= ~same;
  }
}

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
    if (first == 0)
      for (uint32_t i = threadIdx.x; i < WEIGHT_BINS; i += THREADS) p.bins[work / parts * WEIGHT_BINS + i] = WeightBin{};
  }
}

extern "C" KERNEL(256) sample_weigh(GRID_CONSTANT const SampleParameters p) {
  SHARED(double, exponentials, 32);
  SHARED(uint64_t, amounts, 32);
  SHARED(uint64_t, bin_amounts, WEIGHT_BINS);
  SHARED(uint32_t, bin_counts, WEIGHT_BINS);
  const uint32_t parts = part_count(p), work_count = row_count(p.rows) * parts;
  for (uint32_t work = blockIdx.x; work < work_count; work += gridDim.x) {
    const uint32_t row = work / parts;
    const StepAsked asked = p.asked[p.rows.first + row];
    const bool is_drawn = draws_by_weight(asked), is_summed = (asked.flags & ASKED_SUM) != 0;
    const Row all = row_of(p, row);
    if (!all.is_ordered || !(is_drawn || is_summed)) continue;
    const bool is_binned = is_drawn && is_cut(p, asked);
    const float* logits = p.logits + static_cast<size_t>(row) * p.vocabulary;
    float* weights = weights_of(p, row);
    const uint32_t first = work % parts * PART_TOKENS, end = minimum(first + PART_TOKENS, p.vocabulary);
    if (is_binned) {
      for (uint32_t i = threadIdx.x; i < WEIGHT_BINS; i += THREADS) bin_amounts[i] = bin_counts[i] = 0;
      block_barrier();
    }
    double sum = 0.0;
    uint64_t weighed = 0;
    for (uint32_t begin = first; begin < end; begin += THREADS) {
      const uint32_t token = begin + threadIdx.x;
      const bool is_there = token < end;
      const float below = is_there ? logits[token] - all.largest : 0.0f;
      if (is_summed && is_there) sum += exponential_wide(static_cast<double>(below));
      if (!is_drawn) continue;
      float weight = 0.0f;
      if (is_there) {
        weight = static_cast<float>(exponential_wide(static_cast<double>(below / asked.temperature)));
        weights[token] = weight;
        weighed += amount(weight);
      }
      if (is_binned) add_to_bins(is_there, weight, bin_amounts, bin_counts);
    }
    sum = block_sum(sum, exponentials);
    weighed = block_sum(weighed, amounts);
    if (threadIdx.x == 0) {
      p.parts[work].exponentials = sum;
      p.parts[work].weight = weighed;
    }
    // The sums above have waited for all threads, so the bins are whole; each is set back by the thread that has read it.
    if (is_binned) {
      for (uint32_t i = threadIdx.x; i < WEIGHT_BINS; i += THREADS) {
        if (bin_counts[i] == 0) continue;
        WeightBin* bin = p.bins + static_cast<size_t>(row) * WEIGHT_BINS + i;
        add_count(&bin->amount, bin_amounts[i]);
        add_count(&bin->count, bin_counts[i]);
      }
    }
  }
}

extern "C" KERNEL(256) sample_pick(GRID_CONSTANT const SampleParameters p) {
  SHARED(uint64_t, histogram, 256);
  SHARED(uint64_t, sums, 32);
  SHARED(uint64_t, found, 4);
  SHARED(float, kept_weights, MOST_KEPT);
  SHARED(uint32_t, kept_tokens, MOST_KEPT);
  const Scratch scratch{histogram, sums, found, kept_weights, kept_tokens};
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
