// Devices and contexts.
#include <cstdio>
#include <cstring>

#include "faults.h"
#include "machine.h"
#include "memory.h"
#include "ran.h"
#include "settings.h"

using model::Status;

namespace {

bool is_device(int device) { return device >= 0 && static_cast<size_t>(device) < model::devices().size(); }

int attribute(int which, int device) {
  switch (which) {
    case 1: return 1024;  // threads of a block
    case 2:
    case 3: return 1024;
    case 4: return 64;
    case 5: return 2147483647;  // blocks of a grid
    case 6:
    case 7: return 65535;
    case 8: return 48 << 10;  // shared memory of a block
    case 10: return 32;       // lanes of a warp
    case 12:
    case 82: return 65536;    // registers of a block, of a multiprocessor
    case 13: return 1980000;  // kHz
    case 16: return model::settings().multiprocessors;
    case 19:
    case 31:
    case 41:
    case 78: return 1;           // mapped host memory, concurrent kernels, one address space, priorities
    case 32: return 1;           // ECC
    case 33: return device + 1;  // bus
    case 36: return 3201000;     // kHz of the memory
    case 37: return 6144;        // bits of its bus
    case 38: return 50 << 20;    // second-level cache
    case 39: return 2048;        // threads of a multiprocessor
    case 40: return 3;           // copy engines
    case 75: return model::settings().capability / 10;
    case 76: return model::settings().capability % 10;
    case 81: return 228 << 10;  // shared memory of a multiprocessor
    case 95:
    case 102:
    case 103:
    case 115: return 1;  // cooperative launch, virtual memory, its file descriptors, pools
    case 97: return static_cast<int>(model::Block::most_shared);
    case 106: return 32;                                  // blocks of a multiprocessor
    case 127: return model::settings().capability >= 90;  // tensor maps
    default: return 0;
  }
}

}  // namespace

DRIVER cuInit(unsigned) {
  if (model::devices().empty()) return Status::no_device;
  model::initialise();
  return Status::success;
}

DRIVER cuDriverGetVersion(int* version) {
  *version = model::settings().driver;
  return Status::success;
}

DRIVER cuDeviceGetCount(int* count) {
  if (!model::initialised()) return Status::not_initialized;
  *count = static_cast<int>(model::devices().size());
  return Status::success;
}

DRIVER cuDeviceGet(int* device, int ordinal) {
  if (!model::initialised()) return Status::not_initialized;
  if (!is_device(ordinal)) return Status::invalid_device;
  *device = ordinal;
  return Status::success;
}

DRIVER cuDeviceGetName(char* name, int length, int device) {
  if (!is_device(device)) return Status::invalid_device;
  std::snprintf(name, static_cast<size_t>(length), "%s", model::settings().product.c_str());
  return Status::success;
}

DRIVER cuDeviceGetUuid_v2(unsigned char* uuid, int device) {
  if (!is_device(device)) return Status::invalid_device;
  std::memset(uuid, 0x5b, 16);
  uuid[15] = static_cast<unsigned char>(device);
  return Status::success;
}

DRIVER cuDeviceGetUuid(unsigned char* uuid, int device) { return cuDeviceGetUuid_v2(uuid, device); }

DRIVER cuDeviceGetPCIBusId(char* text, int length, int device) {
  if (!is_device(device)) return Status::invalid_device;
  std::snprintf(text, static_cast<size_t>(length), "0000:%02X:00.0", static_cast<unsigned>(device + 1));
  return Status::success;
}

DRIVER cuDeviceTotalMem_v2(size_t* bytes, int device) {
  if (!is_device(device)) return Status::invalid_device;
  *bytes = model::settings().memory;
  return Status::success;
}

DRIVER cuDeviceGetAttribute(int* value, int which, int device) {
  if (!is_device(device)) return Status::invalid_device;
  *value = attribute(which, device);
  return Status::success;
}

DRIVER cuDevicePrimaryCtxRetain(void** context, int device) {
  if (!model::initialised()) return Status::not_initialized;
  if (!is_device(device)) return Status::invalid_device;
  if (model::fails(model::Fault::open)) return Status::device_unavailable;
  model::Context* retained = model::devices()[static_cast<size_t>(device)].get();
  ++retained->retained;
  *context = retained;
  return Status::success;
}

DRIVER cuDevicePrimaryCtxRelease_v2(int device) {
  if (!is_device(device)) return Status::invalid_device;
  model::Context* released = model::devices()[static_cast<size_t>(device)].get();
  if (released->retained == 0) return Status::invalid_context;
  --released->retained;
  return Status::success;
}

DRIVER cuCtxGetCurrent(void** context) {
  if (!model::initialised()) return Status::not_initialized;
  *context = model::current();
  return Status::success;
}

DRIVER cuCtxSetCurrent(void* context) {
  if (!model::initialised()) return Status::not_initialized;
  if (context != nullptr && !model::is_context(static_cast<model::Context*>(context))) return Status::invalid_context;
  model::make_current(static_cast<model::Context*>(context));
  return Status::success;
}

DRIVER cuCtxGetDevice(int* device) {
  if (model::current() == nullptr) return Status::invalid_context;
  *device = model::current()->device;
  return Status::success;
}

DRIVER cuCtxSynchronize() {
  if (const Status status = model::ready(); status != Status::success) return status;
  model::Context* context = model::current();
  if (!model::host_waits("cuCtxSynchronize")) return context->error;
  std::vector<std::shared_ptr<model::Stream>> streams;
  {
    std::lock_guard lock(context->mutex);
    streams = context->streams;
  }
  for (const auto& stream : streams)
    if (const Status status = stream->synchronize(); status != Status::success) return status;
  return context->error;
}

DRIVER cuCtxGetStreamPriorityRange(int* least, int* greatest) {
  *least = 0;
  *greatest = -5;
  return Status::success;
}

DRIVER cuDeviceCanAccessPeer(int* can, int device, int peer) {
  if (!is_device(device) || !is_device(peer)) return Status::invalid_device;
  *can = device != peer && model::settings().peers;
  return Status::success;
}

DRIVER cuCtxEnablePeerAccess(void* peer, unsigned flags) {
  if (const Status status = model::ready(); status != Status::success) return status;
  auto* other = static_cast<model::Context*>(peer);
  if (!model::is_context(other) || flags != 0) return Status::invalid_value;
  if (other == model::current()) return Status::invalid_device;
  if (!model::settings().peers) return Status::peer_access_unsupported;
  if (model::current()->peers[other->device].exchange(true)) return Status::peer_access_already_enabled;
  return Status::success;
}

DRIVER cuCtxDisablePeerAccess(void* peer) {
  if (const Status status = model::ready(); status != Status::success) return status;
  auto* other = static_cast<model::Context*>(peer);
  if (!model::is_context(other)) return Status::invalid_value;
  return model::current()->peers[other->device].exchange(false) ? Status::success : Status::peer_access_not_enabled;
}
