// What the threads of a block know of each other: a time that every synchronisation raises, up to which accesses are ordered.
#pragma once
#include <cstdint>
#include <vector>

#include "races.h"

namespace model {

class BlockClock {
 public:
  // Up to which time each thread's accesses are known; empty: no more than barriers say.
  using Known = std::vector<uint32_t>;

  void start(size_t threads) {
    now_ = 1;
    barrier_ = 0;
    warps_.assign((threads + 31) / 32, 0);
    known_.assign(threads, {});
    any_known_ = false;
  }
  uint32_t now() const { return now_; }

  // All threads, or all of a warp, or some have met: each knows what any of them did or knew.
  void block_met() { barrier_ = ++now_; }
  void warp_met(unsigned warp) {
    if (any_known_) met_each(warp * 32, warp * 32 + 32);
    warps_[warp] = ++now_;
  }
  void group_met(const std::vector<unsigned>& threads) {
    Known joined(known_.size());
    for (unsigned thread : threads) join(joined, release(thread));
    for (unsigned thread : threads) acquire(thread, joined);
  }

  // What a thread lets others know, and what it learns.
  Known release(unsigned thread) {
    Known out(known_.size(), barrier_);
    const unsigned first = thread / 32 * 32;
    for (unsigned lane = first; lane < first + 32 && lane < out.size(); ++lane)
      if (warps_[thread / 32] > out[lane]) out[lane] = warps_[thread / 32];
    join(out, known_[thread]);
    out[thread] = ++now_;
    return out;
  }
  void acquire(unsigned thread, const Known& other) {
    if (known_[thread].empty()) known_[thread].resize(known_.size());
    join(known_[thread], other);
    any_known_ = true;
  }

  bool is_before(unsigned thread, uint32_t time, unsigned current) const {
    if (time == unfinished) return false;
    if (thread == current || time < barrier_) return true;
    if (thread / 32 == current / 32 && time < warps_[current / 32]) return true;
    return !known_[current].empty() && time < known_[current][thread];
  }

  static void join(Known& into, const Known& other) {
    if (into.size() < other.size()) into.resize(other.size());
    for (size_t i = 0; i < other.size(); ++i)
      if (other[i] > into[i]) into[i] = other[i];
  }

 private:
  void met_each(size_t begin, size_t end) {
    Known joined;
    if (end > known_.size()) end = known_.size();
    for (size_t thread = begin; thread < end; ++thread) join(joined, known_[thread]);
    if (!joined.empty())
      for (size_t thread = begin; thread < end; ++thread) known_[thread] = joined;
  }

  uint32_t now_ = 1, barrier_ = 0;
  std::vector<uint32_t> warps_;
  std::vector<Known> known_;
  bool any_known_ = false;
};

}  // namespace model
