#include "group.h"

#include <cstdio>
#include <cstring>
#include <map>
#include <thread>

#include "collective.h"

namespace nccl {
namespace {

struct Pending {
  int depth = 0;
  std::vector<Part> parts;
  std::vector<std::shared_ptr<Communicator>> joining;
};
thread_local Pending pending;

void give_up(void* stream, const Communicator& communicator, bool sends, int peer) {
  char text[200];
  std::snprintf(text, sizeof text, "deadlock: rank %d of %d waits for rank %d to %s for longer than %d s", communicator.rank(),
                communicator.ranks(), peer, sends ? "receive" : "send", model::collective_patience_seconds());
  model::collective_fails(stream, text);
}

// Whether an exchange is captured is to be so on both sides, which then replay what both captured together.
bool is_of_one_capture(void* stream, const Part& part, uint64_t other) {
  if (part.capture == other) return true;
  char text[200];
  std::snprintf(text, sizeof text, "rank %d is at captured group %llu where rank %d is at %llu; 0 is none",
                part.communicator->rank(), static_cast<unsigned long long>(part.capture), part.peer,
                static_cast<unsigned long long>(other));
  model::collective_fails(stream, text);
  part.communicator->set_state(Result::invalid_usage);
  return false;
}

// On the stream's thread. All receives are posted before any send waits for its own.
void run(void* data, void* stream) {
  auto& parts = *static_cast<std::vector<Part>*>(data);
  bool timed_out = false;
  for (const Part& part : parts)
    if (!model::collective_touches(stream, part.at, part.bytes, !part.sends)) return;
  for (const Part& part : parts)
    if (!part.sends && !part.communicator->post(part.peer, part.capture)) return;
  for (const Part& part : parts) {
    if (!part.sends) continue;
    uint64_t capture = 0;
    if (!part.communicator->wait_posted(part.peer, &capture, &timed_out)) {
      if (timed_out) give_up(stream, *part.communicator, true, part.peer);
      return;
    }
    if (!is_of_one_capture(stream, part, capture)) return;
    if (!part.communicator->send(part.peer, part.at, part.bytes)) return;
  }
  for (const Part& part : parts) {
    if (part.sends) continue;
    std::vector<char> arrived;
    if (!part.communicator->take(part.peer, &arrived, &timed_out)) {
      if (timed_out) give_up(stream, *part.communicator, false, part.peer);
      return;
    }
    if (arrived.size() != part.bytes) {
      char text[200];
      std::snprintf(text, sizeof text, "rank %d receives %zu bytes from rank %d, which sent %zu", part.communicator->rank(),
                    part.bytes, part.peer, arrived.size());
      model::collective_fails(stream, text);
      part.communicator->set_state(Result::invalid_usage);
      return;
    }
    std::memcpy(part.at, arrived.data(), arrived.size());
  }
}

void drop(void* data) { delete static_cast<std::vector<Part>*>(data); }

Result start_all(std::vector<Part> parts) {
  std::map<void*, std::vector<Part>> by_stream;
  for (Part& part : parts) by_stream[part.stream].push_back(std::move(part));
  for (auto& [stream, of_stream] : by_stream) {
    if (model::collective_is_captured(stream)) {
      std::map<Communicator*, uint64_t> captures;
      for (Part& part : of_stream) {
        uint64_t& capture = captures[part.communicator.get()];
        if (capture == 0) capture = part.communicator->next_capture();
        part.capture = capture;
      }
    }
    auto* data = new std::vector<Part>(std::move(of_stream));
    if (model::put_collective(stream, {"a collective", run, drop, data}) != 0) return Result::unhandled_cuda_error;
  }
  return Result::success;
}

}  // namespace

void start_group() { ++pending.depth; }
bool in_group() { return pending.depth > 0; }

Result end_group() {
  if (pending.depth == 0) return Result::invalid_usage;
  if (--pending.depth > 0) return Result::success;
  std::vector<std::thread> threads;
  const auto joining = std::move(pending.joining);
  pending.joining.clear();
  for (const auto& communicator : joining) threads.emplace_back([communicator] { communicator->join(); });
  for (std::thread& thread : threads) thread.join();
  for (const auto& communicator : joining)
    if (communicator->state() != Result::success) return communicator->state();
  std::vector<Part> parts = std::move(pending.parts);
  pending.parts.clear();
  return start_all(std::move(parts));
}

Result add(Part part) {
  if (part.peer < 0 || part.peer >= part.communicator->ranks()) return Result::invalid_argument;
  if (const Result state = part.communicator->state(); state != Result::success) return state;
  pending.parts.push_back(std::move(part));
  if (in_group()) return Result::success;
  std::vector<Part> parts = std::move(pending.parts);
  pending.parts.clear();
  return start_all(std::move(parts));
}

void add_joining(std::shared_ptr<Communicator> communicator) { pending.joining.push_back(std::move(communicator)); }

}  // namespace nccl
