#include "order.h"

#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <mutex>

namespace model {
namespace {

constexpr size_t most_operations = size_t{1} << 24;

Performed* table() {
  static Performed* reserved = [] {
    void* at = mmap(nullptr, most_operations * sizeof(Performed), PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (at == MAP_FAILED) {
      std::fputs("cuda model: the system gives no memory for the table of operations\n", stderr);
      std::abort();
    }
    return static_cast<Performed*>(at);
  }();
  return reserved;
}

struct Known {
  std::mutex mutex;
  Clock host;
  std::map<const void*, Clock> words;
};

Known& known() {
  static auto* made_once = new Known;
  return *made_once;
}

}  // namespace

void Clock::join(const Clock& other) {
  if (reached_.size() < other.reached_.size()) reached_.resize(other.reached_.size());
  for (size_t i = 0; i < other.reached_.size(); ++i) reached_[i] = std::max(reached_[i], other.reached_[i]);
}

void Clock::advance(uint32_t timeline, uint32_t to) {
  if (reached_.size() <= timeline) reached_.resize(timeline + 1);
  reached_[timeline] = std::max(reached_[timeline], to);
}

uint32_t new_timeline() {
  static std::atomic<uint32_t> last{0};
  return ++last;
}

uint32_t perform(const char* name, uint32_t timeline, uint32_t sequence) {
  static std::atomic<uint32_t> last{0};
  // The table goes round: what was noted so long ago is not confused in practice.
  const uint32_t number = ++last % most_operations;
  table()[number] = {timeline, sequence, name};
  return number;
}

const Performed& performed(uint32_t operation) { return table()[operation]; }

bool is_before(uint32_t operation, const Clock& clock) {
  const Performed& before = table()[operation];
  return clock.of(before.timeline) >= before.sequence;
}

void host_waited(const Clock& clock) {
  std::lock_guard lock(known().mutex);
  known().host.join(clock);
}

Clock host_clock() {
  std::lock_guard lock(known().mutex);
  return known().host;
}

void released(const void* at, const Clock& clock) {
  std::lock_guard lock(known().mutex);
  known().words[at].join(clock);
}

bool acquired(const void* at, Clock* clock) {
  std::lock_guard lock(known().mutex);
  auto found = known().words.find(at);
  if (found == known().words.end()) return false;
  clock->join(found->second);
  return true;
}

}  // namespace model
