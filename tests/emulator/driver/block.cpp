#include "block.h"

#include <sys/mman.h>

#include <algorithm>
#include <bit>
#include <cstdio>
#include <cstring>

#include "memory.h"
#include "phases.h"
#include "report.h"
#include "settings.h"

namespace model {
namespace {

thread_local Block* block_of_thread = nullptr;

constexpr size_t dynamic_limit = 512 << 10, region_bytes = 1 << 20, between_arrays = 256;

}  // namespace

Block* Block::running() { return block_of_thread; }

Block::Block() : stacks_(most_threads) {
  void* region = mmap(nullptr, region_bytes + 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (region == MAP_FAILED) {
    std::fputs("cuda model: the system gives no memory for a block\n", stderr);
    std::abort();
  }
  shared_region_ = static_cast<unsigned char*>(region);
  shared_ = shared_region_;
  void* cells =
      mmap(nullptr, region_bytes / 16 * sizeof(Cell), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (cells == MAP_FAILED) std::abort();
  cells_ = static_cast<Cell*>(cells);
  place_ = static_cast<Place*>(stacks_.front());
  parameters_ = static_cast<char*>(stacks_.front()) + 4096;
}

Block::~Block() {
  munmap(shared_region_, region_bytes + 4096);
  munmap(cells_, region_bytes / 16 * sizeof(Cell));
}

bool Block::in_shared_region(const void* at) const {
  return static_cast<size_t>(static_cast<const unsigned char*>(at) - shared_region_) < region_bytes;
}

bool Block::shared_reachable(const void* at, size_t bytes) const {
  const size_t offset = static_cast<size_t>(static_cast<const unsigned char*>(at) - shared_region_);
  if (offset + bytes <= launch_->dynamic_bytes) return true;
  return std::any_of(arrays_.begin(), arrays_.end(), [&](const SharedArray& array) {
    return offset >= array.offset && offset + bytes <= array.offset + array.bytes;
  });
}

void* Block::shared_array(const void* key, size_t bytes, size_t alignment) {
  for (const SharedArray& array : arrays_)
    if (array.key == key) return shared_region_ + array.offset;
  size_t offset = arrays_.empty() ? dynamic_limit : arrays_.back().offset + arrays_.back().bytes + between_arrays;
  offset = (offset + alignment - 1) / alignment * alignment;
  size_t sum = bytes + launch_->dynamic_bytes;
  for (const SharedArray& array : arrays_) sum += array.bytes;
  if (sum > most_shared || sum - launch_->dynamic_bytes > (48 << 10))
    fail(Status::invalid_value, "takes " + std::to_string(sum) + " bytes of shared memory, more than a block has");
  arrays_.push_back({key, offset, bytes});
  poison(shared_region_ + offset, bytes);
  return shared_region_ + offset;
}

bool Block::run(const Launch& launch, uint64_t seed, uint32_t operation, Clock* clock) {
  operation_ = operation;
  operation_clock_ = clock;
  launch_ = &launch;
  began_ = std::chrono::steady_clock::now();
  random_ = Random(seed);
  failed_ = false;
  failure_ = Status::success;
  std::memcpy(parameters_, launch.parameters.data(), launch.parameters.size());
  place_->grid = launch.grid;
  place_->block_size = launch.block;
  const unsigned blocks = launch.grid.x * launch.grid.y * launch.grid.z;
  // Any order is as good: a random start and a step that meets all.
  std::vector<unsigned> order(blocks);
  for (unsigned i = 0; i < blocks; ++i) order[i] = i;
  for (unsigned i = blocks; i > 1; --i) std::swap(order[i - 1], order[random_.below(i)]);
  Block* before = block_of_thread;
  block_of_thread = this;
  for (unsigned number : order) {
    number_ = number;
    place_->block = {number % launch.grid.x, number / launch.grid.x % launch.grid.y, number / launch.grid.x / launch.grid.y};
    if (!run_block()) break;
  }
  block_of_thread = before;
  return !failed_;
}

void Block::start_block() {
  const Index size = launch_->block;
  const unsigned threads = size.x * size.y * size.z;
  arrays_.clear();
  poison(shared_, launch_->dynamic_bytes);
  forget_fences();
  lanes_.clear();
  lanes_.resize(threads);
  warps_.assign((threads + 31) / 32, {});
  block_meeting_ = {};
  for (Meeting& meeting : group_meetings_) meeting = {};
  for (unsigned i = 0; i < threads; ++i) {
    lanes_[i].stack = stacks_.prepare(i, &Block::enter);
    warps_[i / 32].ready |= 1u << i % 32;
    warps_[i / 32].lanes |= 1u << i % 32;
  }
  left_ = threads;
  starved_ = random_.below(static_cast<unsigned>(warps_.size()));
  barriers_.clear();
  tiles_.clear();
  clock_.start(threads);
  ++runs_;
  seen_blocks_.clear();
}

Access Block::access(bool writes, uint32_t time) const { return {operation_, number_ << 10 | current_, time, 0, writes, false}; }

bool Block::is_before(const Access& before) const {
  if (before.operation != operation_) return model::is_before(before, *operation_clock_);
  if (before.who >> 10 != number_) return has(seen_blocks_, before);
  return clock_.is_before(before.who & 1023, before.time, current_);
}

// What an earlier block left there is nothing to this one.
bool Block::is_before_shared(const Access& before) const {
  return before.operation != runs_ || clock_.is_before(before.who & 1023, before.time, current_);
}

void Block::enter() {
  Block& block = *block_of_thread;
  block.launch_->kernel->run(block.parameters_);
  Lane& lane = block.lane();
  lane.ended = true;
  --block.left_;
  model_switch(&lane.stack, block.scheduler_);
  __builtin_unreachable();
}

// A warp that has threads to run: the starved one only if it is drawn again, or if there is no other.
bool Block::pick(unsigned* warp) {
  const auto count = static_cast<unsigned>(warps_.size());
  if (random_.below(64) == 0) starved_ = random_.below(count);
  const unsigned first = random_.below(count);
  for (unsigned i = 0; i < count; ++i) {
    const unsigned at = (first + i) % count;
    if (warps_[at].ready == 0 || (at == starved_ && random_.below(16) != 0)) continue;
    *warp = at;
    return true;
  }
  *warp = starved_;
  return warps_[starved_].ready != 0;
}

void Block::run_warp(unsigned warp) {
  uint32_t run = warps_[warp].ready;
  const unsigned turn = random_.below(32);
  while (run != 0 && !failed_) {
    // The lanes in turn, from a random one on.
    const unsigned rotated = static_cast<unsigned>(std::countr_zero(std::rotr(run, static_cast<int>(turn))));
    const unsigned lane = (rotated + turn) % 32;
    run &= ~(1u << lane);
    current_ = warp * 32 + lane;
    const Index size = launch_->block;
    place_->thread = {current_ % size.x, current_ / size.x % size.y, current_ / size.x / size.y};
    warps_[warp].ready &= ~(1u << lane);
    model_switch(&scheduler_, lanes_[current_].stack);
  }
}

bool Block::run_block() {
  start_block();
  while (left_ > 0 && !failed_) {
    unsigned warp = 0;
    const bool any = pick(&warp);
    if (any)
      run_warp(warp);
    else if (tiles_.empty())
      report_deadlock();
    if (!failed_) move_tiles(!any);
  }
  return !failed_;
}

void Block::yield() {
  warp().ready |= 1u << current_ % 32;
  model_switch(&lane().stack, scheduler_);
}

bool Block::waited_too_long() const {
  return std::chrono::steady_clock::now() - began_ > std::chrono::seconds(settings().patience_seconds);
}

bool Block::arrive(Meeting& meeting, size_t expected, const char* what) {
  if (!meeting.waiting.empty() && std::strcmp(meeting.what, what) != 0)
    fail(Status::launch_failed, std::string("comes to ") + what + " where others of its warp or block came to " + meeting.what);
  meeting.what = what;
  if (meeting.waiting.size() + 1 == expected) return true;
  wait_in(meeting, what);
  return false;
}

void Block::wait_in(Meeting& meeting, const char* what) {
  meeting.what = what;
  meeting.waiting.push_back(current_);
  lane().at = &meeting;
  model_switch(&lane().stack, scheduler_);
}

void Block::move_tiles(bool all) {
  for (size_t i = 0; i < tiles_.size() && !failed_;) {
    if (!all && tiles_[i].delay-- > 0) {
      ++i;
      continue;
    }
    const Tile tile = std::move(tiles_[i]);
    tiles_.erase(tiles_.begin() + static_cast<std::ptrdiff_t>(i));
    bring_in(*this, tile);
  }
}

void Block::wake(Meeting& meeting) {
  for (unsigned thread : meeting.waiting) {
    lanes_[thread].at = nullptr;
    warps_[thread / 32].ready |= 1u << thread % 32;
  }
  meeting.waiting.clear();
}

std::string Block::whereabouts() const {
  char text[160];
  std::snprintf(text, sizeof text, "kernel %s, block (%u, %u, %u), thread %u: ", launch_->kernel->name, place_->block.x,
                place_->block.y, place_->block.z, current_);
  return text;
}

void Block::report_deadlock() {
  const auto ended =
      static_cast<size_t>(std::count_if(lanes_.begin(), lanes_.end(), [](const Lane& lane) { return lane.ended; }));
  const auto waits = std::find_if(lanes_.begin(), lanes_.end(), [](const Lane& lane) { return lane.at != nullptr; });
  const char* what = waits == lanes_.end() ? "something" : waits->at->what;
  current_ = static_cast<unsigned>(waits == lanes_.end() ? 0 : waits - lanes_.begin());
  found("%sdeadlock: waits for ever at %s; %u threads wait and %zu have ended", whereabouts().c_str(), what, left_, ended);
  failed_ = true;
  failure_ = Status::launch_timeout;
}

void Block::fail(Status status, const std::string& finding) {
  found("%s%s", whereabouts().c_str(), finding.c_str());
  failed_ = true;
  failure_ = status;
  model_switch(&lane().stack, scheduler_);
  __builtin_unreachable();
}

}  // namespace model
