#include "order.h"

#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <mutex>

#include "block_clock.h"

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
  for (const auto& part : other.parts_)
    if (std::find(parts_.begin(), parts_.end(), part) == parts_.end()) parts_.push_back(part);
  std::erase_if(parts_, [&](const auto& part) { return has_all(*part); });
}

bool has(const KnownBlocks& blocks, const Access& access) {
  const auto found = blocks.find(access.who >> 10);
  const uint32_t thread = access.who & 1023;
  return access.time != unfinished && found != blocks.end() && thread < found->second.size() && access.time < found->second[thread];
}

void join(KnownBlocks& into, const KnownBlocks& other) {
  for (const auto& [block, known] : other) BlockClock::join(into[block], known);
}

bool PartlyDone::has(const Access& access) const { return access.operation == operation && model::has(blocks, access); }

Clock Clock::within(PartlyDone operation) const {
  Clock told = *this;
  told.reached_[operation.timeline] = operation.sequence - 1;
  told.parts_.push_back(std::make_shared<const PartlyDone>(std::move(operation)));
  return told;
}

bool Clock::has_part_with(const Access& access) const {
  return std::any_of(parts_.begin(), parts_.end(), [&](const auto& part) { return part->has(access); });
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

bool is_before(const Access& access, const Clock& clock) {
  const Performed& before = table()[access.operation];
  return clock.of(before.timeline) >= before.sequence || clock.has_part_with(access);
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
