// The functions of NCCL: groups of ranks, sends and receives, and the collectives that are made of those.
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <thread>

#include "collective.h"
#include "group.h"

using nccl::Communicator;
using nccl::Result;
using nccl::UniqueId;

#define NCCL extern "C" MODEL_API

namespace {

// By type, as nccl.h numbers them.
constexpr size_t element_bytes[] = {1, 1, 4, 4, 8, 8, 2, 4, 8, 2, 1, 1};

std::mutex mutex;
std::map<void*, std::shared_ptr<Communicator>>& communicators() {
  static auto* live = new std::map<void*, std::shared_ptr<Communicator>>;
  return *live;
}

std::shared_ptr<Communicator> held(void* handle) {
  std::lock_guard lock(mutex);
  auto found = communicators().find(handle);
  return found == communicators().end() ? nullptr : found->second;
}

// What of ncclConfig_t is heeded: whether calls wait.
struct Config {
  size_t size;
  unsigned magic, version;
  int blocking;
};

Result initialise(void** handle, int ranks, const UniqueId& id, int rank, bool waits) {
  if (handle == nullptr || ranks < 1 || rank < 0 || rank >= ranks) return Result::invalid_argument;
  auto made = std::make_shared<Communicator>(ranks, id, rank);
  {
    std::lock_guard lock(mutex);
    communicators()[made.get()] = made;
  }
  *handle = made.get();
  if (nccl::in_group()) {
    nccl::add_joining(made);
    return Result::success;
  }
  if (waits) return made->join();
  std::thread([made] { made->join(); }).detach();
  return Result::in_progress;
}

Result move(bool sends, const void* at, size_t count, int type, int peer, void* handle, void* stream) {
  auto communicator = held(handle);
  if (communicator == nullptr || type < 0 || type >= static_cast<int>(sizeof element_bytes / sizeof *element_bytes))
    return Result::invalid_argument;
  return nccl::add({sends, const_cast<void*>(at), count * element_bytes[type], peer, communicator, stream});
}

// NCCL gives a communicator back only when no graph is left that was captured with it. Streams go on meanwhile.
void wait_until_unused(const std::shared_ptr<Communicator>& ended) {
  const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(model::collective_patience_seconds());
  while (ended.use_count() > 1) {
    if (std::chrono::steady_clock::now() > until)
      return model::collective_found("deadlock: a communicator is given back while there are graphs that were captured with it");
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
}

Result end(void* handle, bool aborts) {
  std::shared_ptr<Communicator> ended;
  {
    std::lock_guard lock(mutex);
    auto found = communicators().find(handle);
    if (found == communicators().end()) return Result::invalid_argument;
    ended = found->second;
    communicators().erase(found);
  }
  if (aborts) ended->abort();
  wait_until_unused(ended);
  return Result::success;
}

}  // namespace

NCCL Result ncclGetVersion(int* version) {
  const char* said = std::getenv("CUDA_MODEL_NCCL");
  *version = said != nullptr && *said != 0 ? std::atoi(said) : 22809;
  return Result::success;
}

NCCL const char* ncclGetErrorString(Result result) {
  switch (result) {
    case Result::success: return "no error";
    case Result::unhandled_cuda_error: return "unhandled cuda error (run with NCCL_DEBUG=INFO for details)";
    case Result::system_error: return "unhandled system error (run with NCCL_DEBUG=INFO for details)";
    case Result::internal_error: return "internal error - please report this issue to the NCCL developers";
    case Result::invalid_argument: return "invalid argument (run with NCCL_DEBUG=WARN for details)";
    case Result::invalid_usage: return "invalid usage (run with NCCL_DEBUG=WARN for details)";
    case Result::remote_error: return "remote process exited or there was a network error";
    case Result::in_progress: return "NCCL operation in progress";
  }
  return "unknown result code";
}

NCCL const char* ncclGetLastError(void*) { return ""; }

NCCL Result ncclGetUniqueId(UniqueId* id) {
  static std::atomic<unsigned> count{0};
  std::memset(id, 0, sizeof *id);
  std::snprintf(id->bytes, sizeof id->bytes, "%d-%u", getpid(), ++count);
  return Result::success;
}

NCCL Result ncclCommInitRank(void** handle, int ranks, UniqueId id, int rank) {
  return initialise(handle, ranks, id, rank, true);
}

NCCL Result ncclCommInitRankConfig(void** handle, int ranks, UniqueId id, int rank, const Config* config) {
  return initialise(handle, ranks, id, rank, config == nullptr || config->blocking != 0);
}

NCCL Result ncclCommFinalize(void* handle) { return held(handle) == nullptr ? Result::invalid_argument : Result::success; }
NCCL Result ncclCommDestroy(void* handle) { return end(handle, false); }
// From any thread: what waits on a stream for a peer goes on.
NCCL Result ncclCommAbort(void* handle) { return end(handle, true); }

NCCL Result ncclCommGetAsyncError(void* handle, Result* state) {
  auto communicator = held(handle);
  if (communicator == nullptr) return Result::invalid_argument;
  *state = communicator->state();
  return Result::success;
}

NCCL Result ncclCommCount(void* handle, int* count) {
  auto communicator = held(handle);
  if (communicator == nullptr) return Result::invalid_argument;
  *count = communicator->ranks();
  return Result::success;
}

NCCL Result ncclCommUserRank(void* handle, int* rank) {
  auto communicator = held(handle);
  if (communicator == nullptr) return Result::invalid_argument;
  *rank = communicator->rank();
  return Result::success;
}

NCCL Result ncclGroupStart() {
  nccl::start_group();
  return Result::success;
}
NCCL Result ncclGroupEnd() { return nccl::end_group(); }

NCCL Result ncclSend(const void* at, size_t count, int type, int peer, void* handle, void* stream) {
  return move(true, at, count, type, peer, handle, stream);
}
NCCL Result ncclRecv(void* at, size_t count, int type, int peer, void* handle, void* stream) {
  return move(false, at, count, type, peer, handle, stream);
}

namespace {

// To and from every rank, `from_step` and `to_step` elements apart.
Result exchange(const char* from, size_t from_step, char* to, size_t to_step, size_t count, int type, void* handle,
                void* stream) {
  auto communicator = held(handle);
  if (communicator == nullptr) return Result::invalid_argument;
  nccl::start_group();
  Result worst = Result::success;
  for (int peer = 0; peer < communicator->ranks(); ++peer) {
    const auto at = static_cast<size_t>(peer);
    const Result sent = move(true, from + at * from_step, count, type, peer, handle, stream);
    const Result received = move(false, to + at * to_step, count, type, peer, handle, stream);
    if (sent != Result::success) worst = sent;
    if (received != Result::success) worst = received;
  }
  const Result started = nccl::end_group();
  return worst != Result::success ? worst : started;
}

}  // namespace

NCCL Result ncclAlltoAll(const void* from, void* to, size_t count, int type, void* handle, void* stream) {
  if (type < 0 || type > 11) return Result::invalid_argument;
  const size_t step = count * element_bytes[type];
  return exchange(static_cast<const char*>(from), step, static_cast<char*>(to), step, count, type, handle, stream);
}

NCCL Result ncclAllGather(const void* from, void* to, size_t count, int type, void* handle, void* stream) {
  if (type < 0 || type > 11) return Result::invalid_argument;
  return exchange(static_cast<const char*>(from), 0, static_cast<char*>(to), count * element_bytes[type], count, type, handle,
                  stream);
}
