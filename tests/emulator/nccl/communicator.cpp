#include "communicator.h"

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <chrono>
#include <cstddef>
#include <cstdio>
#include <cstring>

#include "collective.h"

namespace nccl {
namespace {

struct Frame {
  int32_t from;
  uint32_t kind;
  uint64_t capture;
  uint64_t bytes;
};
constexpr uint32_t hello = 1, posted = 2, data_follows = 3;

std::chrono::steady_clock::time_point deadline() {
  return std::chrono::steady_clock::now() + std::chrono::seconds(model::collective_patience_seconds());
}

// A name that no file has, and that is gone with its socket.
sockaddr_un address(const UniqueId& id, int rank, socklen_t* length) {
  sockaddr_un at{};
  at.sun_family = AF_UNIX;
  const int name = std::snprintf(at.sun_path + 1, sizeof at.sun_path - 1, "cuda-model-nccl-%.40s-%d", id.bytes, rank);
  *length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + static_cast<size_t>(name));
  return at;
}

bool read_whole(int socket, void* to, size_t bytes) {
  auto* next = static_cast<char*>(to);
  while (bytes > 0) {
    const ssize_t got = recv(socket, next, bytes, 0);
    if (got <= 0) return false;
    next += got;
    bytes -= static_cast<size_t>(got);
  }
  return true;
}

bool write_whole(int socket, const void* from, size_t bytes) {
  const auto* next = static_cast<const char*>(from);
  while (bytes > 0) {
    const ssize_t put = ::send(socket, next, bytes, MSG_NOSIGNAL);
    if (put <= 0) return false;
    next += put;
    bytes -= static_cast<size_t>(put);
  }
  return true;
}

}  // namespace

Communicator::~Communicator() {
  abort();
  for (std::thread& thread : threads_) thread.join();
  for (int socket : incoming_) close(socket);
  for (Peer& peer : peers_)
    if (peer.out >= 0) close(peer.out);
  if (listening_ >= 0) close(listening_);
}

void Communicator::abort() {
  std::lock_guard lock(mutex_);
  if (aborted_.exchange(true)) return;
  if (listening_ >= 0) shutdown(listening_, SHUT_RDWR);
  for (Peer& peer : peers_)
    if (peer.out >= 0) shutdown(peer.out, SHUT_RDWR);
  for (int socket : incoming_) shutdown(socket, SHUT_RDWR);
  changed_.notify_all();
}

bool Communicator::listen() {
  socklen_t length = 0;
  const sockaddr_un at = address(id_, rank_, &length);
  listening_ = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  return bind(listening_, reinterpret_cast<const sockaddr*>(&at), length) == 0 && ::listen(listening_, ranks_) == 0;
}

bool Communicator::connect_to(int peer) {
  const auto until = deadline();
  while (!aborted_ && std::chrono::steady_clock::now() < until) {
    socklen_t length = 0;
    const sockaddr_un at = address(id_, peer, &length);
    const int socket = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (connect(socket, reinterpret_cast<const sockaddr*>(&at), length) == 0) {
      std::lock_guard lock(mutex_);
      peers_[static_cast<size_t>(peer)].out = socket;
      return true;
    }
    close(socket);
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  return false;
}

Result Communicator::join() {
  peers_ = std::vector<Peer>(static_cast<size_t>(ranks_));
  if (!listen()) {
    model::collective_found("a rank of a group is taken by two");
    return state_ = Result::invalid_usage;
  }
  threads_.emplace_back([this] { accept_all(); });
  for (int peer = 0; peer < ranks_; ++peer)
    if (!connect_to(peer) || !write_frame(peer, hello, 0, nullptr, 0)) return state_ = Result::system_error;
  bool timed_out = false;
  if (!wait([&] { return met_ == ranks_; }, &timed_out)) return state_ = Result::system_error;
  return state_ = Result::success;
}

void Communicator::accept_all() {
  for (int accepted = 0; accepted < ranks_; ++accepted) {
    const int socket = accept4(listening_, nullptr, nullptr, SOCK_CLOEXEC);
    std::lock_guard lock(mutex_);
    if (socket < 0 || aborted_) {
      if (socket >= 0) close(socket);
      return;
    }
    incoming_.push_back(socket);
    threads_.emplace_back([this, socket] { read_all(socket); });
  }
}

void Communicator::read_all(int socket) {
  Frame frame{};
  while (read_whole(socket, &frame, sizeof frame)) {
    std::vector<char> data;
    if (frame.kind == data_follows) {
      data.resize(frame.bytes);
      if (!read_whole(socket, data.data(), data.size())) break;
    }
    std::lock_guard lock(mutex_);
    Peer& peer = peers_[static_cast<size_t>(frame.from)];
    if (frame.kind == hello)
      ++met_;
    else if (frame.kind == posted)
      peer.posted.push_back(frame.capture);
    else
      peer.arrived.push_back(std::move(data));
    changed_.notify_all();
  }
  // The peer is gone. What waits for it goes on waiting, as on a GPU: a watchdog has to see the state and abort.
  std::lock_guard lock(mutex_);
  if (!aborted_ && state_ == Result::success) state_ = Result::remote_error;
  changed_.notify_all();
}

bool Communicator::write_frame(int peer, uint32_t kind, uint64_t capture, const void* data, uint64_t bytes) {
  Peer& to = peers_[static_cast<size_t>(peer)];
  std::lock_guard lock(to.writing);
  const Frame frame{rank_, kind, capture, bytes};
  return write_whole(to.out, &frame, sizeof frame) && (bytes == 0 || write_whole(to.out, data, bytes));
}

template <class Ready> bool Communicator::wait(Ready ready, bool* timed_out) {
  std::unique_lock lock(mutex_);
  *timed_out = !changed_.wait_until(lock, deadline(), [&] { return aborted_ || ready(); });
  return !*timed_out && !aborted_;
}

bool Communicator::post(int peer, uint64_t capture) {
  if (write_frame(peer, posted, capture, nullptr, 0) || aborted_) return !aborted_;
  state_ = Result::remote_error;
  return true;
}

bool Communicator::wait_posted(int peer, uint64_t* capture, bool* timed_out) {
  Peer& from = peers_[static_cast<size_t>(peer)];
  if (!wait([&] { return !from.posted.empty(); }, timed_out)) return false;
  std::lock_guard lock(mutex_);
  *capture = from.posted.front();
  from.posted.pop_front();
  return true;
}

bool Communicator::send(int peer, const void* data, size_t bytes) {
  if (write_frame(peer, data_follows, 0, data, bytes) || aborted_) return !aborted_;
  state_ = Result::remote_error;
  return true;
}

bool Communicator::take(int peer, std::vector<char>* data, bool* timed_out) {
  Peer& from = peers_[static_cast<size_t>(peer)];
  if (!wait([&] { return !from.arrived.empty(); }, timed_out)) return false;
  std::lock_guard lock(mutex_);
  *data = std::move(from.arrived.front());
  from.arrived.pop_front();
  return true;
}

}  // namespace nccl
