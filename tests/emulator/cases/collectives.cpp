// Collectives between ranks that are threads, and between ranks that are processes.
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <barrier>
#include <functional>
#include <thread>

#include "driver.h"
#include "kernels.h"

namespace {

struct Id {
  char bytes[128];
};
constexpr int u32 = 3;

template <class... Arguments> int nccl(const char* name, Arguments... arguments) {
  return reinterpret_cast<int (*)(Arguments...)>(symbol("libnccl.so.2", name))(arguments...);
}

struct Rank {
  Device device;
  Handle communicator = nullptr;
  int ranks, rank;
  // A device each, as a context that one rank breaks is no other's.
  Rank(const Id& id, int count, int number) : device(number), ranks(count), rank(number) {
    OK(nccl("ncclCommInitRank", &communicator, count, id, number));
  }
  Address numbers(uint32_t first, size_t count) {
    std::vector<uint32_t> values;
    for (uint32_t i = 0; i < count; ++i) values.push_back(first + i);
    return device.upload(values);
  }
};

void* at(Address address) { return reinterpret_cast<void*>(address); }

// Every rank sends to each of the others, the parts of which say where they come from.
void exchanges(const Id& id, int ranks, int number) {
  Rank rank(id, ranks, number);
  const auto n = static_cast<size_t>(ranks);
  const Address from = rank.numbers(static_cast<uint32_t>(number) * 1000, n * 8), to = rank.device.allocate(n * 32);
  for (int round = 0; round < 3; ++round)
    OK(nccl("ncclAlltoAll", static_cast<const void*>(at(from)), at(to), size_t{8}, u32, rank.communicator, rank.device.stream));
  auto got = rank.device.download<uint32_t>(to, n * 8);
  for (uint32_t peer = 0; peer < n; ++peer)
    for (uint32_t i = 0; i < 8; ++i) EQUAL(got[peer * 8 + i], peer * 1000 + static_cast<uint32_t>(number) * 8 + i);
  OK(nccl("ncclAllGather", static_cast<const void*>(at(from)), at(to), size_t{8}, u32, rank.communicator, rank.device.stream));
  got = rank.device.download<uint32_t>(to, n * 8);
  for (uint32_t peer = 0; peer < n; ++peer) EQUAL(got[peer * 8 + 7], peer * 1000 + 7);
  OK(nccl("ncclCommDestroy", rank.communicator));
}

Id make_id() {
  setenv("CUDA_MODEL_DEVICES", "4", 1);
  Id id{};
  OK(nccl("ncclGetUniqueId", &id));
  return id;
}

void in_threads(int ranks, const std::function<void(const Id&, int)>& body) {
  const Id id = make_id();
  std::vector<std::thread> threads;
  for (int rank = 0; rank < ranks; ++rank) threads.emplace_back([&, rank] { body(id, rank); });
  for (std::thread& thread : threads) thread.join();
}

}  // namespace

CASE(four_ranks_in_threads_exchange) {
  in_threads(4, [](const Id& id, int rank) { exchanges(id, 4, rank); });
}

CASE(three_ranks_in_processes_exchange) {
  const Id id = make_id();
  std::vector<pid_t> children;
  for (int rank = 0; rank < 3; ++rank) {
    const pid_t child = fork();
    if (child == 0) {
      exchanges(id, 3, rank);
      _exit(0);
    }
    children.push_back(child);
  }
  for (pid_t child : children) {
    int status = 0;
    CHECK(waitpid(child, &status, 0) == child);
    EQUAL(status, 0);
  }
}

CASE(a_captured_exchange_is_replayed) {
  in_threads(2, [](const Id& id, int number) {
    Rank rank(id, 2, number);
    const Address from = rank.numbers(static_cast<uint32_t>(number) * 100, 16), to = rank.device.allocate(64);
    Handle graph = nullptr, executable = nullptr;
    OK(cu("cuStreamBeginCapture_v2", rank.device.stream, 1));
    OK(nccl("ncclAlltoAll", static_cast<const void*>(at(from)), at(to), size_t{8}, u32, rank.communicator, rank.device.stream));
    OK(rank.device.launch("case_fill", 1, 32, FillParameters{from, 7, 16}));
    OK(cu("cuStreamEndCapture", rank.device.stream, &graph));
    OK(cu("cuGraphInstantiateWithFlags", &executable, graph, uint64_t{0}));
    for (int i = 0; i < 2; ++i) OK(cu("cuGraphLaunch", executable, rank.device.stream));
    const auto got = rank.device.download<uint32_t>(to, 16);
    for (uint32_t i = 0; i < 8; ++i) EQUAL(got[i], 7 + static_cast<uint32_t>(number) * 8 + i);
  });
}

CASE(an_exchange_that_one_side_captured_is_found) {
  in_threads(2, [](const Id& id, int number) {
    Rank rank(id, 2, number);
    const Address from = rank.numbers(0, 16), to = rank.device.allocate(64);
    Handle graph = nullptr, executable = nullptr;
    if (number == 0) OK(cu("cuStreamBeginCapture_v2", rank.device.stream, 1));
    OK(nccl("ncclAlltoAll", static_cast<const void*>(at(from)), at(to), size_t{8}, u32, rank.communicator, rank.device.stream));
    if (number == 0) {
      OK(cu("cuStreamEndCapture", rank.device.stream, &graph));
      OK(cu("cuGraphInstantiateWithFlags", &executable, graph, uint64_t{0}));
      OK(cu("cuGraphLaunch", executable, rank.device.stream));
    }
    rank.device.synchronize();
  });
  expect_finding("where rank ");
}

CASE(a_communicator_is_given_back_when_its_graphs_are) {
  std::barrier captured(2);
  in_threads(2, [&](const Id& id, int number) {
    Rank rank(id, 2, number);
    const Address from = rank.numbers(0, 16), to = rank.device.allocate(64);
    Handle graph = nullptr, executable = nullptr;
    OK(cu("cuStreamBeginCapture_v2", rank.device.stream, 1));
    OK(nccl("ncclAlltoAll", static_cast<const void*>(at(from)), at(to), size_t{8}, u32, rank.communicator, rank.device.stream));
    OK(cu("cuStreamEndCapture", rank.device.stream, &graph));
    OK(cu("cuGraphInstantiateWithFlags", &executable, graph, uint64_t{0}));
    OK(cu("cuGraphDestroy", graph));
    captured.arrive_and_wait();
    std::atomic<bool> ended{false};
    std::thread aborts([&] {
      OK(nccl("ncclCommAbort", rank.communicator));
      ended = true;
    });
    // What is launched meanwhile waits for nobody.
    OK(cu("cuGraphLaunch", executable, rank.device.stream));
    OK(rank.device.synchronize());
    CHECK(!ended);
    OK(cu("cuGraphExecDestroy", executable));
    aborts.join();
  });
}

CASE(sizes_that_do_not_meet_are_found) {
  in_threads(2, [](const Id& id, int number) {
    Rank rank(id, 2, number);
    const Address memory = rank.numbers(0, 16);
    if (number == 0) {
      OK(nccl("ncclSend", static_cast<const void*>(at(memory)), size_t{8}, u32, 1, rank.communicator, rank.device.stream));
    } else {
      OK(nccl("ncclRecv", at(memory), size_t{4}, u32, 0, rank.communicator, rank.device.stream));
    }
    rank.device.synchronize();
  });
  expect_finding("rank 1 receives 16 bytes from rank 0, which sent 32");
}

CASE(ranks_that_wait_for_each_other_are_found) {
  setenv("CUDA_MODEL_PATIENCE", "1", 1);
  in_threads(2, [](const Id& id, int number) {
    Rank rank(id, 2, number);
    const Address memory = rank.numbers(0, 16);
    // Both send before they receive, each on its own.
    OK(nccl("ncclSend", static_cast<const void*>(at(memory)), size_t{8}, u32, 1 - number, rank.communicator, rank.device.stream));
    OK(nccl("ncclRecv", at(memory + 32), size_t{8}, u32, 1 - number, rank.communicator, rank.device.stream));
    EQUAL(rank.device.synchronize(), launch_timeout);
  });
  expect_finding("deadlock: rank ");
}

CASE(a_rank_that_is_lost_is_seen_and_an_abort_ends_the_wait) {
  const Id id = make_id();
  // The child ends when this is closed: not before it is waited for.
  int end[2];
  CHECK(pipe(end) == 0);
  const pid_t child = fork();
  if (child == 0) {
    close(end[1]);
    Rank rank(id, 2, 1);
    char none;
    _exit(read(end[0], &none, 1) == 0 ? 0 : 1);
  }
  close(end[0]);
  Rank rank(id, 2, 0);
  const Address memory = rank.numbers(0, 16);
  OK(nccl("ncclRecv", at(memory), size_t{8}, u32, 1, rank.communicator, rank.device.stream));
  close(end[1]);
  int state = success;
  while (state == success) OK(nccl("ncclCommGetAsyncError", rank.communicator, &state));
  EQUAL(state, 6);
  EQUAL(cu("cuStreamQuery", rank.device.stream), not_ready);
  OK(nccl("ncclCommAbort", rank.communicator));
  OK(rank.device.synchronize());
  int status = 0;
  CHECK(waitpid(child, &status, 0) == child && status == 0);
}

CASE(a_collective_on_memory_that_a_kernel_still_writes_is_found) {
  in_threads(2, [](const Id& id, int number) {
    Rank rank(id, 2, number);
    const Address memory = rank.device.allocate(64);
    const Handle other = rank.device.new_stream();
    OK(rank.device.launch("case_fill", 1, 32, FillParameters{memory, 1, 16}, other));
    OK(nccl("ncclGroupStart"));
    OK(nccl("ncclSend", static_cast<const void*>(at(memory)), size_t{8}, u32, number, rank.communicator, rank.device.stream));
    OK(nccl("ncclRecv", at(memory + 32), size_t{8}, u32, number, rank.communicator, rank.device.stream));
    OK(nccl("ncclGroupEnd"));
    const int first = rank.device.synchronize(), second = rank.device.synchronize(other);
    CHECK(first == launch_failed || second == launch_failed);
  });
  expect_finding("nothing orders them");
}
