// One block of threads on a CPU. Threads are fibers that run until they wait; which warp runs next is drawn from the seed, and
// one warp at a time is starved. What a kernel may rely on is thus only what it synchronises.
#pragma once
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "asynchronous.h"
#include "block_clock.h"
#include "driver.h"
#include "fiber.h"
#include "interface.h"
#include "order.h"
#include "random.h"

namespace model {

struct Launch {
  const Kernel* kernel = nullptr;
  std::vector<unsigned char> parameters;
  Index grid{1, 1, 1}, block{1, 1, 1};
  size_t dynamic_bytes = 0;
};

struct Warp {
  uint32_t ready = 0, lanes = 0;
  Meeting meeting;
  uint64_t given[32][6], taken[32][4];  // what each lane brings to an operation of the warp, and gets
  const void* rows[32];
};

struct Lane {
  void* stack = nullptr;
  bool ended = false;
  bool fenced = false;
  // Words that it counted in since its last fence: the next one lets it know what others knew that had counted there.
  std::set<const void*> counted;
  const Meeting* at = nullptr;
  CopyGroups copies;
  GroupProducts products;
  std::vector<size_t> unfenced;  // what it wrote to shared memory since its last fence, in 16 bytes
};

struct Context;

class Block {
 public:
  static constexpr unsigned most_threads = 1024;
  static constexpr size_t most_shared = 227 << 10;

  // The block whose threads run on this thread of the system, if there is one.
  static Block* running();

  Block();
  ~Block();
  Block(const Block&) = delete;
  Block& operator=(const Block&) = delete;

  // Runs every block of a launch, one after the other. False where a finding ended it; `failure` then says what the driver
  // answers. `clock` is what the operation knows, and what it learns.
  bool run(const Launch& launch, uint64_t seed, uint32_t operation, Clock* clock);
  Status failure() const { return failure_; }
  // Whose memory besides the host's a kernel here may use.
  void set_context(const Context* context) { context_ = context; }
  const Context& context() const { return *context_; }

  // Called by the threads of the block.
  unsigned current() const { return current_; }
  Lane& lane() { return lanes_[current_]; }
  Warp& warp() { return warps_[current_ / 32]; }
  Random& random() { return random_; }
  const Launch& launch() const { return *launch_; }
  const Place& place() const { return *place_; }
  // Waits for `expected` threads; true for the one that came last, before the others go on.
  template <class Then> void meet(Meeting& meeting, size_t expected, const char* what, Then then) {
    if (arrive(meeting, expected, what)) {
      then();
      wake(meeting);
    }
  }
  // Of a warp. Lanes that meet to exchange registers say nothing of memory; those that meet at a barrier do.
  template <class Then> void meet_warp(const char* what, Then then) {
    meet(warp().meeting, static_cast<size_t>(__builtin_popcount(warp().lanes)), what, then);
  }
  void meet_warp_in_order(const char* what) {
    meet_warp(what, [&] { clock_.warp_met(current_ / 32); });
  }
  // Waits in the meeting until someone wakes it.
  void wait_in(Meeting& meeting, const char* what);
  void wake(Meeting& meeting);
  std::map<const void*, PhaseBarrier>& barriers() { return barriers_; }
  // What a thread writes to shared memory is seen by products of four warps once that thread has fenced it. Noted where a kernel has
  // barriers of phases, as all have whose products read shared memory.
  void wrote(const void* at, size_t bytes, unsigned thread);
  void fenced(unsigned thread);
  // Written beside the threads, which needs no fence.
  void brought(const void* at, size_t bytes);
  bool is_unfenced(const void* at) const;
  void forget_fences();
  std::vector<Tile>& tiles() { return tiles_; }
  Meeting& block_meeting() { return block_meeting_; }
  Meeting& group_meeting(int id) { return group_meetings_[static_cast<size_t>(id)]; }
  size_t threads() const { return lanes_.size(); }
  void yield();
  // Whether the launch has gone on for longer than the patience of the model.
  bool waited_too_long() const;
  // Ends the launch with a finding; does not come back.
  [[noreturn]] void fail(Status status, const std::string& finding);
  std::string whereabouts() const;

  // Order: of the threads of this block, of its launch among operations, and of its blocks among each other.
  BlockClock& clock() { return clock_; }
  Clock& operation_clock() { return *operation_clock_; }
  Access access(bool writes, uint32_t time) const;
  bool is_before(const Access& before) const;
  bool is_before_shared(const Access& before) const;
  Cell* shared_cells(const void* at) const { return cells_ + (static_cast<const unsigned char*>(at) - shared_region_) / 16; }
  uint32_t shared_run() const { return runs_; }
  // Blocks of this launch whose release this block has seen: how far it knows each of their threads.
  KnownBlocks& seen_blocks() { return seen_blocks_; }
  uint32_t operation() const { return operation_; }
  uint32_t number() const { return number_; }

  // Shared memory.
  unsigned char* dynamic_shared() const { return shared_; }
  void* shared_array(const void* key, size_t bytes, size_t alignment);
  bool in_shared_region(const void* at) const;
  bool shared_reachable(const void* at, size_t bytes) const;
  // Stacks, parameters and indices: what every thread may touch.
  bool in_stacks(const void* at) const { return stacks_.holds(at); }

 private:
  static void enter();
  bool run_block();
  void start_block();
  bool pick(unsigned* warp);
  void run_warp(unsigned warp);
  bool arrive(Meeting& meeting, size_t expected, const char* what);
  // Lets some tiles come in; all that are on their way if nothing else goes on.
  void move_tiles(bool all);
  void report_deadlock();

  Stacks stacks_;
  unsigned char* shared_region_;
  unsigned char* shared_;
  Place* place_;
  void* parameters_;
  const Launch* launch_ = nullptr;
  const Context* context_ = nullptr;
  Random random_{0};
  std::vector<Lane> lanes_;
  std::vector<Warp> warps_;
  Meeting block_meeting_, group_meetings_[16];
  struct SharedArray {
    const void* key;
    size_t offset, bytes;
  };
  std::vector<SharedArray> arrays_;
  std::map<const void*, PhaseBarrier> barriers_;
  std::vector<Tile> tiles_;
  std::vector<uint16_t> unfenced_;  // who wrote each 16 bytes of shared memory without a fence since, plus 1
  BlockClock clock_;
  Cell* cells_;
  uint32_t operation_ = 0, number_ = 0, runs_ = 0;
  Clock* operation_clock_ = nullptr;
  KnownBlocks seen_blocks_;
  void* scheduler_ = nullptr;
  unsigned current_ = 0, left_ = 0, starved_ = 0;
  std::chrono::steady_clock::time_point began_;
  bool failed_ = false;
  Status failure_ = Status::success;
};

}  // namespace model
