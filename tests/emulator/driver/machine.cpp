#include "machine.h"

#include <algorithm>
#include <map>

#include "graph.h"
#include "settings.h"

namespace model {
namespace {

std::atomic<bool> is_initialised{false};
thread_local Context* chosen = nullptr;

template <class T> class Handles {
 public:
  void* add(const std::shared_ptr<T>& value) {
    std::lock_guard lock(mutex_);
    live_[value.get()] = value;
    return value.get();
  }
  std::shared_ptr<T> get(void* handle) {
    std::lock_guard lock(mutex_);
    auto found = live_.find(handle);
    return found == live_.end() ? nullptr : found->second;
  }
  bool remove(void* handle) {
    std::lock_guard lock(mutex_);
    return live_.erase(handle) == 1;
  }

 private:
  std::mutex mutex_;
  std::map<void*, std::shared_ptr<T>> live_;
};

Handles<Stream>& streams() {
  static auto* handles = new Handles<Stream>;
  return *handles;
}

Handles<Event>& events() {
  static auto* handles = new Handles<Event>;
  return *handles;
}

}  // namespace

bool initialised() { return is_initialised; }
void initialise() { is_initialised = true; }

const std::vector<std::unique_ptr<Context>>& devices() {
  static const auto* made_once = [] {
    auto* all = new std::vector<std::unique_ptr<Context>>;
    for (int i = 0; i < std::clamp(settings().devices, 0, 16); ++i) {
      all->push_back(std::make_unique<Context>());
      all->back()->device = i;
    }
    return all;
  }();
  return *made_once;
}

Context* current() { return chosen; }
void make_current(Context* context) { chosen = context; }

bool is_context(const Context* context) {
  return std::any_of(devices().begin(), devices().end(), [&](const auto& device) { return device.get() == context; });
}

std::shared_ptr<Stream> stream_of(void* handle) { return streams().get(handle); }
void* handle_of(const std::shared_ptr<Stream>& stream) { return streams().add(stream); }
bool forget_stream(void* handle) { return streams().remove(handle); }
std::shared_ptr<Event> event_of(void* handle) { return events().get(handle); }
void* handle_of(const std::shared_ptr<Event>& event) { return events().add(event); }
bool forget_event(void* handle) { return events().remove(handle); }

Status ready() {
  if (!is_initialised) return Status::not_initialized;
  if (chosen == nullptr) return Status::invalid_context;
  return chosen->error;
}

Status put(Stream& stream, Operation operation) {
  if (stream.capture == nullptr) {
    stream.put(std::move(operation));
    return Status::success;
  }
  return capture_operation(stream, std::move(operation));
}

}  // namespace model
