// Streams: each a thread of the system that carries out operations in their order. Nothing else is ordered, and before each
// operation a stream may wait for a while drawn from the seed.
#pragma once
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <vector>

#include "block.h"
#include "driver.h"

namespace model {

class Stream;
struct Graph;
struct Capture;

// A device's context. The first error of a device stays: every later call of the context answers it.
struct Context {
  int device = 0;
  int retained = 0;
  std::atomic<Status> error{Status::success};
  std::mutex mutex;
  std::vector<std::shared_ptr<Stream>> streams;
  std::mutex launching;  // of who waits for room on a stream
  std::atomic<bool> peers[16] = {};  // whose memory this context may use

  void fail(Status status);
};

// A moment of a stream, for those who wait for it.
class Mark {
 public:
  void reach();
  bool reached();
  // False where it took longer than the patience of the model.
  bool wait();
  std::chrono::steady_clock::time_point when();
  // What is ordered before those that waited for it; set before it is reached.
  Clock clock;

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool reached_ = false;
  std::chrono::steady_clock::time_point when_;
};

struct Event {
  Context* context;
  bool timed;
  std::mutex mutex;
  std::shared_ptr<Mark> mark;        // of its last record: a later record never changes an earlier wait
  std::shared_ptr<Capture> capture;  // or the place in a graph that is captured
  std::vector<size_t> captured_after;
};

struct Operation {
  const char* name;
  std::function<void(Stream&)> run;
};

class Stream : public std::enable_shared_from_this<Stream> {
 public:
  static std::shared_ptr<Stream> start(Context* context);
  Context& context() const { return *context_; }
  unsigned number() const { return number_; }

  void put(Operation operation);
  // Waits while as much is on it as it takes. No other thread launches anything on the device meanwhile.
  void make_room();
  void record(const std::shared_ptr<Mark>& mark);
  void wait_for(const std::shared_ptr<Mark>& mark);
  // Waits until it has nothing left to do.
  Status synchronize();
  bool idle();
  // Ends the thread once all has been carried out.
  void close();
  // What it does now, for a finding.
  const char* doing();

  // Run on the stream's own thread.
  void launch(const Launch& launch);
  void copy(Address to, bool to_device, Address from, bool from_device, size_t bytes);
  void fill(Address to, unsigned value, size_t width, size_t count);
  // An operation of its own that reads or writes a range. False, and a broken context, where it may not.
  bool touch(const char* name, Address at, size_t bytes, bool writes);
  void stop();
  // Goes on as another timeline, with what that one knows, until the next call; a branch of a graph does.
  void become(uint32_t timeline, Clock clock);
  uint32_t timeline() const { return timeline_; }
  Clock& clock() { return clock_; }

  std::shared_ptr<Capture> capture;
  std::vector<size_t> captured_after;

 private:
  explicit Stream(Context* context);
  void run();
  void delay();
  // The next operation of this timeline.
  uint32_t begin(const char* name);
  bool note_range(uint32_t operation, const char* name, Address at, size_t bytes, bool writes);

  Context* context_;
  unsigned number_;
  std::mutex mutex_;
  std::condition_variable changed_;
  struct Waiting {
    Operation operation;
    Clock host;
  };
  std::deque<Waiting> waiting_;
  const char* doing_ = "nothing";
  uint32_t timeline_;
  Clock clock_;
  bool busy_ = false, closing_ = false, ended_ = false;
  Random random_;
  std::unique_ptr<Block> block_;
  uint64_t launches_ = 0;
};

}  // namespace model
