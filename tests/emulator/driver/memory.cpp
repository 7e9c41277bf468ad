#include "memory.h"

#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>

#include "settings.h"

namespace model {
namespace {

Address reserve_arena() {
  void* at = mmap(nullptr, arena_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (at == MAP_FAILED) {
    std::fputs("cuda model: the system gives no range of addresses of 256 GiB\n", stderr);
    std::abort();
  }
  return reinterpret_cast<Address>(at);
}

struct State {
  std::mutex mutex;
  std::map<Address, Allocation> allocations;  // live and dead, by where they begin
  std::map<Address, size_t> registered;
  Address next = arena_begin + page_bytes;
  uint64_t numbers = 0;
  std::map<int, size_t> used;
};

State& state() {
  static State* made_once = new State;
  return *made_once;
}

// Raised whenever memory becomes unreachable: what threads remember of it ends.
std::atomic<uint64_t> generation{1};

size_t pages(size_t bytes) { return (bytes + page_bytes - 1) / page_bytes * page_bytes; }

Allocation* holder(State& all, Address at) {
  auto next = all.allocations.upper_bound(at);
  if (next == all.allocations.begin()) return nullptr;
  return &std::prev(next)->second;
}

bool in_registered(State& all, Address at, size_t bytes) {
  auto next = all.registered.upper_bound(at);
  return next != all.registered.begin() && at + bytes <= std::prev(next)->first + std::prev(next)->second;
}

bool charge_locked(State& all, int device, size_t bytes) {
  if (all.used[device] + settings().others + bytes > settings().memory) return false;
  all.used[device] += bytes;
  return true;
}

Allocation& enter(State& all, Home home, int device, Address begin, size_t bytes) {
  return all.allocations[begin] = Allocation{begin, bytes, home, device, ++all.numbers, true, 0};
}

}  // namespace

const Address arena_begin = reserve_arena();

void poison(void* at, size_t bytes) {
  auto* byte = static_cast<unsigned char*>(at);
  for (size_t i = 0; i < bytes; ++i) byte[i] = i % 2 == 0 ? 0xCB : 0x7F;
}

Address allocate(Home home, int device, size_t bytes) {
  State& all = state();
  std::lock_guard lock(all.mutex);
  if (home == Home::device && !charge_locked(all, device, bytes)) return 0;
  // Device memory is aligned to 256 bytes and no better; pinned memory lies in whole pages.
  const size_t before = home == Home::device ? 256 : 0, whole = pages(before + (bytes == 0 ? 1 : bytes));
  const Address page = all.next, begin = page + before;
  if (page + whole + page_bytes > arena_begin + arena_bytes) return 0;
  void* place = reinterpret_cast<void*>(page);
  if (home == Home::device) {
    const int file = device_file();
    if (file < 0 || mmap(place, whole, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, file,
                         static_cast<off_t>(page - arena_begin)) == MAP_FAILED)
      return 0;
  } else if (mprotect(place, whole, PROT_READ | PROT_WRITE) != 0) {
    return 0;
  }
  all.next = page + whole + page_bytes;
  poison(reinterpret_cast<void*>(begin), bytes);
  enter(all, home, device, begin, bytes);
  return begin;
}

bool release(Home home, Address begin) {
  State& all = state();
  std::lock_guard lock(all.mutex);
  auto found = all.allocations.find(begin);
  if (found == all.allocations.end() || !found->second.alive || found->second.home != home) return false;
  found->second.alive = false;
  ++generation;
  if (home == Home::device) all.used[found->second.device] -= found->second.bytes;
  const Address page = begin / page_bytes * page_bytes;
  const size_t whole = pages(begin - page + (found->second.bytes == 0 ? 1 : found->second.bytes));
  madvise(reinterpret_cast<void*>(page), whole, home == Home::device ? MADV_REMOVE : MADV_DONTNEED);
  mprotect(reinterpret_cast<void*>(page), whole, PROT_NONE);
  return true;
}

int device_file() {
  static const int opened = [] {
    const int file = memfd_create("cuda-model-device", MFD_CLOEXEC);
    return file >= 0 && ftruncate(file, static_cast<off_t>(arena_bytes)) == 0 ? file : -1;
  }();
  return opened;
}

size_t file_offset(Address at) { return at - arena_begin; }

Address open_shared(int file, size_t offset, size_t bytes, int device) {
  State& all = state();
  std::lock_guard lock(all.mutex);
  const size_t before = offset % page_bytes, whole = pages(before + bytes);
  const Address page = all.next;
  if (page + whole + page_bytes > arena_begin + arena_bytes) return 0;
  if (mmap(reinterpret_cast<void*>(page), whole, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, file,
           static_cast<off_t>(offset - before)) == MAP_FAILED)
    return 0;
  all.next = page + whole + page_bytes;
  enter(all, Home::opened, device, page + before, bytes);
  return page + before;
}

bool close_shared(Address at) {
  State& all = state();
  std::lock_guard lock(all.mutex);
  auto found = all.allocations.find(at);
  if (found == all.allocations.end() || !found->second.alive || found->second.home != Home::opened) return false;
  found->second.alive = false;
  ++generation;
  const Address page = at / page_bytes * page_bytes;
  return mmap(reinterpret_cast<void*>(page), pages(at - page + found->second.bytes), PROT_NONE,
              MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0) != MAP_FAILED;
}

bool register_host(Address begin, size_t bytes) {
  State& all = state();
  std::lock_guard lock(all.mutex);
  return all.registered.emplace(begin, bytes).second;
}

bool unregister_host(Address begin) {
  State& all = state();
  std::lock_guard lock(all.mutex);
  ++generation;
  return all.registered.erase(begin) == 1;
}

Address reserve(size_t bytes, size_t alignment) {
  State& all = state();
  std::lock_guard lock(all.mutex);
  const Address begin = (all.next + alignment - 1) / alignment * alignment;
  if (begin + bytes + page_bytes > arena_begin + arena_bytes) return 0;
  all.next = begin + pages(bytes) + page_bytes;
  return begin;
}

bool map_file(Address at, size_t bytes, int file, int device) {
  State& all = state();
  std::lock_guard lock(all.mutex);
  const Allocation* before = holder(all, at + bytes - 1);
  if (before != nullptr && before->alive && before->begin + before->bytes > at) return false;
  if (mmap(reinterpret_cast<void*>(at), bytes, PROT_NONE, MAP_SHARED | MAP_FIXED, file, 0) == MAP_FAILED) return false;
  enter(all, Home::mapped, device, at, bytes);
  // Not before access is given.
  all.allocations[at].alive = false;
  return true;
}

void set_reachable(Address at, size_t bytes) {
  State& all = state();
  std::lock_guard lock(all.mutex);
  mprotect(reinterpret_cast<void*>(at), bytes, PROT_READ | PROT_WRITE);
  for (auto part = all.allocations.lower_bound(at); part != all.allocations.end() && part->first < at + bytes; ++part)
    part->second.alive = true;
}

bool unmap(Address at, size_t bytes) {
  State& all = state();
  std::lock_guard lock(all.mutex);
  bool any = false;
  for (auto part = all.allocations.lower_bound(at); part != all.allocations.end() && part->first < at + bytes; ++part) {
    part->second.alive = false;
    any = true;
  }
  ++generation;
  return any && mmap(reinterpret_cast<void*>(at), bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1,
                     0) != MAP_FAILED;
}

size_t used(int device) {
  State& all = state();
  std::lock_guard lock(all.mutex);
  return all.used[device];
}

bool charge(int device, size_t bytes) {
  State& all = state();
  std::lock_guard lock(all.mutex);
  return charge_locked(all, device, bytes);
}

void discharge(int device, size_t bytes) {
  State& all = state();
  std::lock_guard lock(all.mutex);
  all.used[device] -= bytes;
}

void allow(Address at, size_t bytes, int device) {
  State& all = state();
  std::lock_guard lock(all.mutex);
  for (auto part = all.allocations.lower_bound(at); part != all.allocations.end() && part->first < at + bytes; ++part)
    part->second.allowed |= 1u << device;
}

bool is_allowed(Address at, int device) {
  State& all = state();
  std::lock_guard lock(all.mutex);
  const Allocation* held = holder(all, at);
  return held != nullptr && held->home == Home::mapped && (held->allowed >> device & 1) != 0;
}

bool is_closed(Address at, int device) {
  State& all = state();
  std::lock_guard lock(all.mutex);
  const Allocation* held = holder(all, at);
  return held != nullptr && held->home == Home::mapped && (held->allowed >> device & 1) == 0;
}

bool reachable(Address at, size_t bytes, int* device) {
  // What this thread found last in each of a few places.
  struct Remembered {
    uint64_t generation;
    Address begin, end;
    int device;
  };
  constexpr size_t places = 64;
  static thread_local Remembered remembered[places];
  Remembered& place = remembered[at / page_bytes % places];
  const uint64_t now = generation.load(std::memory_order_acquire);
  if (place.generation == now && at >= place.begin && at + bytes <= place.end) {
    if (device != nullptr) *device = place.device;
    return true;
  }
  State& all = state();
  std::lock_guard lock(all.mutex);
  if (device != nullptr) *device = -1;
  if (!in_arena(at)) return in_registered(all, at, bytes);
  const Allocation* held = holder(all, at);
  if (held == nullptr || !held->alive) return false;
  if (device != nullptr) *device = held->device;
  Address begin = held->begin, end = held->begin + held->bytes;
  // Mapped parts that touch are one range.
  if (held->home == Home::mapped)
    for (auto next = all.allocations.find(end);
         next != all.allocations.end() && next->second.alive && next->second.home == Home::mapped;
         next = all.allocations.find(end))
      end += next->second.bytes;
  place = {now, begin, end, held->device};
  return at + bytes <= end;
}

bool is_pinned(Address at) {
  State& all = state();
  std::lock_guard lock(all.mutex);
  if (!in_arena(at)) return in_registered(all, at, 1);
  const Allocation* held = holder(all, at);
  return held != nullptr && held->alive && held->home == Home::pinned && at < held->begin + held->bytes;
}

bool find(Address at, Allocation* found) {
  State& all = state();
  std::lock_guard lock(all.mutex);
  const Allocation* held = in_arena(at) ? holder(all, at) : nullptr;
  if (held == nullptr || !held->alive || at >= held->begin + held->bytes) return false;
  *found = *held;
  return true;
}

std::string describe(Address at, size_t bytes) {
  char text[200];
  State& all = state();
  std::unique_lock lock(all.mutex, std::try_to_lock);
  const Allocation* held = lock.owns_lock() && in_arena(at) ? holder(all, at) : nullptr;
  // Shortly before one, rather than far behind another.
  if (lock.owns_lock() && (held == nullptr || at >= held->begin + pages(held->bytes))) {
    auto next = all.allocations.upper_bound(at);
    if (next != all.allocations.end() && next->first - at < page_bytes) held = &next->second;
  }
  if (held == nullptr) {
    std::snprintf(text, sizeof text, "%zu bytes at 0x%llx, which no allocation holds", bytes,
                  static_cast<unsigned long long>(at));
  } else {
    const char* kind = held->home == Home::device   ? "device"
                       : held->home == Home::pinned ? "pinned"
                       : held->home == Home::mapped ? "mapped"
                                                    : "opened";
    const Address end = held->begin + held->bytes;
    std::snprintf(text, sizeof text, "%zu bytes at byte %lld of %s allocation %llu (%zu bytes%s)", bytes,
                  static_cast<long long>(at - held->begin), kind, static_cast<unsigned long long>(held->number), held->bytes,
                  !held->alive       ? ", freed"
                  : at + bytes > end ? ", past its end"
                                     : "");
  }
  return text;
}

}  // namespace model
