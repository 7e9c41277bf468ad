// Memory of one process in another: a handle names the file in which a process keeps its device memory.
#include <fcntl.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>

#include "machine.h"
#include "memory.h"

using model::Address;
using model::Status;

namespace {

struct Handle {
  char bytes[64];
};

struct Named {
  static constexpr uint64_t mark = 0x6c65646f6d637069;
  uint64_t marked;
  int process, file, device;
  uint64_t offset, bytes;
};
static_assert(sizeof(Named) <= sizeof(Handle));

}  // namespace

DRIVER cuIpcGetMemHandle(Handle* handle, Address at) {
  if (const Status status = model::ready(); status != Status::success) return status;
  model::Allocation found;
  if (!model::find(at, &found) || found.home != model::Home::device || found.begin != at) return Status::invalid_value;
  const Named named{Named::mark, getpid(), model::device_file(), found.device, model::file_offset(at), found.bytes};
  std::memset(handle, 0, sizeof *handle);
  std::memcpy(handle, &named, sizeof named);
  return Status::success;
}

DRIVER cuIpcOpenMemHandle_v2(Address* at, Handle handle, unsigned flags) {
  constexpr unsigned lazy_peer_access = 1;
  if (const Status status = model::ready(); status != Status::success) return status;
  Named named;
  std::memcpy(&named, &handle, sizeof named);
  // A process does not open its own.
  if (named.marked != Named::mark || flags != lazy_peer_access) return Status::invalid_value;
  if (named.process == getpid()) return Status::invalid_context;
  char path[64];
  std::snprintf(path, sizeof path, "/proc/%d/fd/%d", named.process, named.file);
  const int file = open(path, O_RDWR | O_CLOEXEC);
  if (file < 0) return Status::invalid_handle;
  *at = model::open_shared(file, named.offset, named.bytes, model::current()->device);
  close(file);
  return *at == 0 ? Status::out_of_memory : Status::success;
}

DRIVER cuIpcCloseMemHandle(Address at) {
  if (const Status status = model::ready(); status != Status::success) return status;
  return model::close_shared(at) ? Status::success : Status::invalid_value;
}
