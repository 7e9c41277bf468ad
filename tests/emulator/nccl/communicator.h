// A rank's part of a group: a connection from and to each other rank, whether it is a thread of this process or another. A send
// completes only once the other side has posted the receive, so an order that would deadlock does.
#pragma once
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace nccl {

enum class Result : int {
  success = 0,
  unhandled_cuda_error = 1,
  system_error = 2,
  internal_error = 3,
  invalid_argument = 4,
  invalid_usage = 5,
  remote_error = 6,
  in_progress = 7,
};

struct UniqueId {
  char bytes[128];
};

class Communicator {
 public:
  Communicator(int ranks, const UniqueId& id, int rank) : ranks_(ranks), rank_(rank), id_(id) {}
  ~Communicator();
  Communicator(const Communicator&) = delete;
  Communicator& operator=(const Communicator&) = delete;

  // Meets all others; waits for them.
  Result join();
  int ranks() const { return ranks_; }
  int rank() const { return rank_; }
  Result state() const { return state_; }
  void set_state(Result state) { state_ = state; }
  bool aborted() const { return aborted_; }
  // Ends every wait, of this rank and, by the connections that close, of the others'.
  void abort();

  // The number of a group of operations that is captured.
  uint64_t next_capture() { return ++captures_; }

  // Tells the peer that a receive is posted, of this captured group or of none; waits for that of the peer, whose group is left
  // in `capture`; sends; takes what came. Each is false once the group is aborted; waiting also ends when the patience does, and
  // sets `timed_out`.
  bool post(int peer, uint64_t capture);
  bool wait_posted(int peer, uint64_t* capture, bool* timed_out);
  bool send(int peer, const void* data, size_t bytes);
  bool take(int peer, std::vector<char>* data, bool* timed_out);

 private:
  struct Peer {
    int out = -1;
    std::deque<uint64_t> posted;
    std::deque<std::vector<char>> arrived;
    std::mutex writing;
  };
  bool listen();
  bool connect_to(int peer);
  void accept_all();
  void read_all(int socket);
  bool write_frame(int peer, uint32_t kind, uint64_t capture, const void* data, uint64_t bytes);
  template <class Ready> bool wait(Ready ready, bool* timed_out);

  const int ranks_, rank_;
  const UniqueId id_;
  int listening_ = -1;
  std::vector<Peer> peers_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<int> incoming_;
  std::vector<std::thread> threads_;
  int met_ = 0;
  std::atomic<uint64_t> captures_{0};
  std::atomic<bool> aborted_{false};
  std::atomic<Result> state_{Result::in_progress};
};

}  // namespace nccl
