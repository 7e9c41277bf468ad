// Virtual memory: addresses reserved apart from the memory behind them, which a file descriptor carries to other processes.
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <map>

#include "counters.h"
#include "faults.h"
#include "machine.h"
#include "memory.h"
#include "report.h"

using model::Address;
using model::Status;

namespace {

// As cuda.h lays them out.
struct Location {
  int type, id;
};
struct Properties {
  int type, handle_types;
  Location location;
  void* windows;
  unsigned char flags[8];
};
struct Access {
  Location location;
  int flags;
};

constexpr size_t granularity = 2 << 20;
constexpr int file_descriptor = 1, on_device = 1, read_and_write = 3;

struct Physical {
  int file;
  size_t bytes;
  int device;
  bool released = false;
  unsigned mappings = 0;
  bool charged = false;  // imported memory is another's
};

struct Mapping {
  size_t bytes;
  uint64_t handle;
};

std::mutex mutex;
std::map<uint64_t, Physical> handles;
std::map<Address, Mapping> mappings;
std::map<Address, size_t> reserved;
uint64_t last_handle = 0;

void drop_if_unused(uint64_t handle) {
  auto found = handles.find(handle);
  if (!found->second.released || found->second.mappings > 0) return;
  close(found->second.file);
  if (found->second.charged) model::discharge(found->second.device, found->second.bytes);
  handles.erase(found);
}

bool is_device(int device) { return device >= 0 && static_cast<size_t>(device) < model::devices().size(); }

}  // namespace

DRIVER cuMemGetAllocationGranularity(size_t* bytes, const Properties* properties, int) {
  if (properties->location.type != on_device || !is_device(properties->location.id)) return Status::invalid_value;
  *bytes = granularity;
  return Status::success;
}

DRIVER cuMemAddressReserve(Address* at, size_t bytes, size_t alignment, Address, uint64_t) {
  if (bytes == 0 || bytes % granularity != 0) return Status::invalid_value;
  std::lock_guard lock(mutex);
  *at = model::reserve(bytes, alignment > granularity ? alignment : granularity);
  if (*at == 0) return Status::out_of_memory;
  reserved[*at] = bytes;
  return Status::success;
}

DRIVER cuMemAddressFree(Address at, size_t bytes) {
  std::lock_guard lock(mutex);
  auto found = reserved.find(at);
  if (found == reserved.end() || found->second != bytes) return Status::invalid_value;
  for (const auto& [begin, mapping] : mappings)
    if (begin >= at && begin < at + bytes) {
      model::found("a range of addresses is freed of which %zu bytes are still mapped", mapping.bytes);
      return Status::invalid_value;
    }
  reserved.erase(found);
  return Status::success;
}

DRIVER cuMemCreate(uint64_t* handle, size_t bytes, const Properties* properties, uint64_t flags) {
  if (bytes == 0 || bytes % granularity != 0 || flags != 0 || properties->location.type != on_device ||
      !is_device(properties->location.id))
    return Status::invalid_value;
  model::count(model::Counter::allocations);
  if (model::fails(model::Fault::allocation) || !model::charge(properties->location.id, bytes)) return Status::out_of_memory;
  const int file = memfd_create("cuda-model", MFD_CLOEXEC);
  void* at = file >= 0 && ftruncate(file, static_cast<off_t>(bytes)) == 0
                 ? mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0)
                 : MAP_FAILED;
  if (at == MAP_FAILED) {
    model::discharge(properties->location.id, bytes);
    return Status::out_of_memory;
  }
  model::poison(at, bytes);
  munmap(at, bytes);
  std::lock_guard lock(mutex);
  *handle = ++last_handle;
  handles[*handle] = {file, bytes, properties->location.id, false, 0, true};
  return Status::success;
}

DRIVER cuMemRelease(uint64_t handle) {
  std::lock_guard lock(mutex);
  auto found = handles.find(handle);
  if (found == handles.end() || found->second.released) return Status::invalid_value;
  model::count(model::Counter::frees);
  found->second.released = true;
  drop_if_unused(handle);
  return Status::success;
}

DRIVER cuMemMap(Address at, size_t bytes, size_t offset, uint64_t handle, uint64_t flags) {
  std::lock_guard lock(mutex);
  auto found = handles.find(handle);
  if (found == handles.end() || found->second.released || flags != 0 || offset != 0 || bytes != found->second.bytes ||
      at % granularity != 0)
    return Status::invalid_value;
  auto range = reserved.upper_bound(at);
  if (range == reserved.begin() || at + bytes > std::prev(range)->first + std::prev(range)->second) return Status::invalid_value;
  if (!model::map_file(at, bytes, found->second.file, found->second.device)) return Status::invalid_value;
  ++found->second.mappings;
  mappings[at] = {bytes, handle};
  return Status::success;
}

DRIVER cuMemSetAccess(Address at, size_t bytes, const Access* access, size_t count) {
  for (size_t i = 0; i < count; ++i)
    if (access[i].location.type != on_device || !is_device(access[i].location.id) || access[i].flags != read_and_write)
      return Status::invalid_value;
  std::lock_guard lock(mutex);
  // The whole range has to be mapped.
  for (Address next = at; next < at + bytes;) {
    auto found = mappings.find(next);
    if (found == mappings.end()) return Status::invalid_value;
    next += found->second.bytes;
  }
  model::set_reachable(at, bytes);
  for (size_t i = 0; i < count; ++i) model::allow(at, bytes, access[i].location.id);
  return Status::success;
}

DRIVER cuMemUnmap(Address at, size_t bytes) {
  std::lock_guard lock(mutex);
  for (Address next = at; next < at + bytes;) {
    auto found = mappings.find(next);
    if (found == mappings.end() || next + found->second.bytes > at + bytes) return Status::invalid_value;
    next += found->second.bytes;
  }
  while (bytes > 0) {
    auto found = mappings.find(at);
    const auto [part, handle] = found->second;
    mappings.erase(found);
    model::unmap(at, part);
    --handles[handle].mappings;
    drop_if_unused(handle);
    at += part;
    bytes -= part;
  }
  return Status::success;
}

DRIVER cuMemExportToShareableHandle(void* shared, uint64_t handle, int type, uint64_t) {
  std::lock_guard lock(mutex);
  auto found = handles.find(handle);
  if (found == handles.end() || type != file_descriptor) return Status::invalid_value;
  *static_cast<int*>(shared) = dup(found->second.file);
  return Status::success;
}

DRIVER cuMemImportFromShareableHandle(uint64_t* handle, void* shared, int type) {
  struct stat about;
  const int file = static_cast<int>(reinterpret_cast<intptr_t>(shared));
  if (type != file_descriptor || fstat(file, &about) != 0) return Status::invalid_value;
  std::lock_guard lock(mutex);
  *handle = ++last_handle;
  handles[*handle] = {dup(file), static_cast<size_t>(about.st_size), 0, false, 0, false};
  return Status::success;
}
