#include "stream.h"

#include <algorithm>
#include <cstring>
#include <thread>

#include "counters.h"
#include "faults.h"
#include "memory.h"
#include "ran.h"
#include "report.h"
#include "settings.h"

namespace model {
namespace {

using Time = std::chrono::steady_clock;

// Of those that wait for a stream: a kernel that waits too long ends before them and says more.
std::chrono::seconds patience() { return 2 * std::chrono::seconds(settings().patience_seconds); }

unsigned next_number() {
  static std::atomic<unsigned> last{0};
  return ++last;
}

}  // namespace

void Context::fail(Status status) {
  Status none = Status::success;
  error.compare_exchange_strong(none, status);
}

void Mark::reach() {
  std::lock_guard lock(mutex_);
  reached_ = true;
  when_ = Time::now();
  changed_.notify_all();
}

bool Mark::reached() {
  std::lock_guard lock(mutex_);
  return reached_;
}

bool Mark::wait() {
  std::unique_lock lock(mutex_);
  return changed_.wait_for(lock, patience(), [&] { return reached_; });
}

Time::time_point Mark::when() {
  std::lock_guard lock(mutex_);
  return when_;
}

Stream::Stream(Context* context)
    : context_(context), number_(next_number()), timeline_(new_timeline()), random_(settings().seed * 0x10001 + number_) {}

std::shared_ptr<Stream> Stream::start(Context* context) {
  std::shared_ptr<Stream> stream(new Stream(context));
  {
    std::lock_guard lock(context->mutex);
    context->streams.push_back(stream);
  }
  std::thread([stream] { stream->run(); }).detach();
  return stream;
}

void Stream::run() {
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [&] { return closing_ || !waiting_.empty(); });
    if (waiting_.empty()) {
      ended_ = true;
      lock.unlock();
      // Until now who waits for all that the device does waited for this too.
      std::lock_guard all(context_->mutex);
      std::erase(context_->streams, shared_from_this());
      return;
    }
    Waiting next = std::move(waiting_.front());
    waiting_.pop_front();
    busy_ = true;
    doing_ = next.operation.name;
    lock.unlock();
    delay();
    clock_.join(next.host);
    next.operation.run(*this);
    // What the operation holds ends before anyone sees it done.
    next = {};
    lock.lock();
    busy_ = false;
    changed_.notify_all();
  }
}

void Stream::delay() {
  const int most = settings().delay_microseconds;
  if (most > 0) std::this_thread::sleep_for(std::chrono::microseconds(random_.below(static_cast<unsigned>(most))));
}

void Stream::put(Operation operation) {
  {
    std::lock_guard lock(mutex_);
    if (!ended_) {
      waiting_.push_back({std::move(operation), host_clock()});
      changed_.notify_all();
      return;
    }
  }
  // Who waits for all streams of a context may have this one from before it was closed: it has done everything.
  operation.run(*this);
}

void Stream::make_room() {
  std::lock_guard alone(context_->launching);
  std::unique_lock lock(mutex_);
  const auto has_room = [&] { return ended_ || waiting_.size() < static_cast<size_t>(settings().queued); };
  if (changed_.wait_for(lock, patience(), has_room)) return;
  found("deadlock: the host waits for longer than %d s for room on stream %u, which is at %s", static_cast<int>(patience().count()),
        number_, doing_);
  context_->fail(Status::launch_timeout);
}

void Stream::record(const std::shared_ptr<Mark>& mark) {
  put({"the record of an event", [mark](Stream& stream) {
         mark->clock = stream.clock();
         mark->reach();
       }});
}

void Stream::wait_for(const std::shared_ptr<Mark>& mark) {
  put({"the wait for an event", [mark](Stream& stream) {
         if (!mark->wait()) {
           if (stream.context().error != Status::success) return;
           found("deadlock: stream %u waits for an event for longer than %d s", stream.number(),
                 static_cast<int>(patience().count()));
           stream.context().fail(Status::launch_timeout);
           return;
         }
         stream.clock().join(mark->clock);
       }});
}

Status Stream::synchronize() {
  count(Counter::synchronisations);
  auto mark = std::make_shared<Mark>();
  record(mark);
  if (!mark->wait()) {
    found("deadlock: the host waits for longer than %d s for stream %u, which is at %s", static_cast<int>(patience().count()),
          number_, doing());
    context_->fail(Status::launch_timeout);
  } else {
    host_waited(mark->clock);
  }
  return context_->error;
}

bool Stream::idle() {
  std::lock_guard lock(mutex_);
  if (!waiting_.empty() || busy_) return false;
  host_waited(clock_);
  return true;
}

void Stream::close() {
  std::lock_guard lock(mutex_);
  closing_ = true;
  changed_.notify_all();
}

const char* Stream::doing() {
  std::lock_guard lock(mutex_);
  return busy_ ? doing_ : "nothing";
}

void Stream::launch(const Launch& launch) {
  if (context_->error != Status::success) return;
  if (fails(Fault::stop)) stop();
  if (fails(Fault::launch)) return context_->fail(Status::launch_failed);
  if (fails(Fault::ecc)) return context_->fail(Status::ecc_uncorrectable);
  if (fails(Fault::illegal)) return context_->fail(Status::illegal_address);
  count(Counter::kernels);
  note_kernel(launch.kernel->name);
  if (block_ == nullptr) {
    block_ = std::make_unique<Block>();
    block_->set_context(context_);
  }
  const uint32_t operation = begin(launch.kernel->name);
  if (!block_->run(launch, settings().seed * 0x9e3779b97f4a7c15u + number_ * 0x100000001u + ++launches_, operation, &clock_))
    context_->fail(block_->failure());
}

uint32_t Stream::begin(const char* name) {
  const uint32_t sequence = clock_.of(timeline_) + 1;
  clock_.advance(timeline_, sequence);
  return perform(name, timeline_, sequence);
}

void Stream::become(uint32_t timeline, Clock clock) {
  timeline_ = timeline;
  clock_ = std::move(clock);
}

bool Stream::touch(const char* name, Address at, size_t bytes, bool writes) {
  if (bytes == 0) return true;
  if (!reachable(at, bytes)) {
    found("stream %u: %s %s %s", number_, name, writes ? "writes" : "reads", describe(at, bytes).c_str());
    context_->fail(Status::illegal_address);
    return false;
  }
  return note_range(begin(name), name, at, bytes, writes);
}

// False where something else touches the range in no order with this.
bool Stream::note_range(uint32_t operation, const char* name, Address at, size_t bytes, bool writes) {
  if (!settings().races || !in_arena(at)) return true;
  const Access access{operation, 0, 0, 0, writes, false};
  for (size_t done = 0; done < bytes;) {
    const Address next = at + done;
    const size_t part = std::min<size_t>(bytes - done, 64 - next % 64);
    CellLock lock(next);
    Access with{};
    if (race(cells_of(next), next % 16, part, access, random_.next(), &with,
             [&](const Access& before) { return before.operation == operation || is_before(before, clock_); })) {
      found("race: %s of stream %u %s %s, which %s %s; nothing orders them", name, number_, writes ? "writes" : "reads",
            describe(next, part).c_str(), performed(with.operation).name, with.writes ? "wrote" : "read");
      context_->fail(Status::launch_failed);
      return false;
    }
    done += part;
  }
  return true;
}

void Stream::stop() {
  std::mutex never;
  std::unique_lock lock(never);
  std::condition_variable().wait(lock, [] { return false; });
}

void Stream::copy(Address to, bool to_device, Address from, bool from_device, size_t bytes) {
  if (context_->error != Status::success || bytes == 0) return;
  if (fails(Fault::copy)) return context_->fail(Status::unknown);
  count(Counter::copies);
  count(Counter::copied_bytes, bytes);
  if ((to_device && !reachable(to, bytes)) || (from_device && !reachable(from, bytes))) {
    const bool wrong_to = to_device && !reachable(to, bytes);
    found("stream %u: a copy %s %s", number_, wrong_to ? "writes" : "reads", describe(wrong_to ? to : from, bytes).c_str());
    return context_->fail(Status::illegal_address);
  }
  const auto closed = [&](Address at, bool is_device) { return is_device && is_closed(at, context_->device); };
  if (closed(to, to_device) || closed(from, from_device)) {
    const bool closed_to = closed(to, to_device);
    found("stream %u: a copy of device %d %s %s, to which it was given no access", number_, context_->device,
          closed_to ? "writes" : "reads", describe(closed_to ? to : from, bytes).c_str());
    return context_->fail(Status::illegal_address);
  }
  const uint32_t operation = begin("a copy");
  if ((from_device && !note_range(operation, "a copy", from, bytes, false)) ||
      (to_device && !note_range(operation, "a copy", to, bytes, true)))
    return;
  std::memcpy(reinterpret_cast<void*>(to), reinterpret_cast<const void*>(from), bytes);
}

void Stream::fill(Address to, unsigned value, size_t width, size_t values) {
  if (context_->error != Status::success || values == 0) return;
  if (fails(Fault::copy)) return context_->fail(Status::unknown);
  count(Counter::copies);
  count(Counter::copied_bytes, width * values);
  if (!reachable(to, width * values)) {
    found("stream %u: a fill writes %s", number_, describe(to, width * values).c_str());
    return context_->fail(Status::illegal_address);
  }
  if (!note_range(begin("a fill"), "a fill", to, width * values, true)) return;
  for (size_t i = 0; i < values; ++i) std::memcpy(reinterpret_cast<char*>(to) + i * width, &value, width);
}

}  // namespace model
