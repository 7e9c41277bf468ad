// Allocations, pinned memory and copies.
#include <algorithm>
#include <cstring>

#include "counters.h"
#include "faults.h"
#include "machine.h"
#include "memory.h"
#include "report.h"
#include "settings.h"

using model::Address;
using model::Counter;
using model::Fault;
using model::Home;
using model::Status;
using model::Stream;

namespace {

Address address(const void* at) { return reinterpret_cast<Address>(at); }

// The stream of a call: the default one is refused, since what it waits for differs between a context's streams.
Status find_stream(void* handle, std::shared_ptr<Stream>* stream) {
  if (const Status status = model::ready(); status != Status::success) return status;
  *stream = model::stream_of(handle);
  if (*stream != nullptr) return Status::success;
  if (address(handle) <= 2) {
    model::found("a default stream is used; it is not modelled, create one");
    return Status::not_supported;
  }
  model::found("a stream is used that is none, or is destroyed");
  return Status::invalid_handle;
}

// A copy that the host waits for, in no order with any stream.
template <class Do> Status at_once(Do&& work) {
  if (const Status status = model::ready(); status != Status::success) return status;
  auto stream = Stream::start(model::current());
  stream->put({"a copy of the host", std::forward<Do>(work)});
  const Status status = stream->synchronize();
  stream->close();
  return status;
}

Status allocate(Address* at, size_t bytes) {
  if (const Status status = model::ready(); status != Status::success) return status;
  if (at == nullptr || bytes == 0) return Status::invalid_value;
  model::count(Counter::allocations);
  if (model::fails(Fault::allocation)) return Status::out_of_memory;
  *at = model::allocate(Home::device, model::current()->device, bytes);
  return *at == 0 ? Status::out_of_memory : Status::success;
}

Status give_back(Home home, Address at) {
  model::count(Counter::frees);
  if (model::release(home, at)) return Status::success;
  model::found("memory is freed that is not allocated: %s", model::describe(at, 0).c_str());
  return Status::invalid_value;
}

}  // namespace

DRIVER cuMemGetInfo_v2(size_t* free, size_t* total) {
  if (const Status status = model::ready(); status != Status::success) return status;
  *total = model::settings().memory;
  const size_t used = model::used(model::current()->device) + model::settings().others;
  *free = *total - std::min(*total, used);
  return Status::success;
}

DRIVER cuMemAlloc_v2(Address* at, size_t bytes) { return allocate(at, bytes); }

DRIVER cuMemFree_v2(Address at) {
  if (const Status status = model::ready(); status != Status::success) return status;
  return at == 0 ? Status::success : give_back(Home::device, at);
}

DRIVER cuMemAllocAsync(Address* at, size_t bytes, void* handle) {
  std::shared_ptr<Stream> stream;
  if (const Status status = find_stream(handle, &stream); status != Status::success) return status;
  return allocate(at, bytes);
}

DRIVER cuMemFreeAsync(Address at, void* handle) {
  std::shared_ptr<Stream> stream;
  if (const Status status = find_stream(handle, &stream); status != Status::success) return status;
  return model::put(*stream, {"the release of memory", [at](Stream& on) {
                                if (give_back(Home::device, at) != Status::success) on.context().fail(Status::invalid_value);
                              }});
}

DRIVER cuMemHostAlloc(void** at, size_t bytes, unsigned) {
  if (const Status status = model::ready(); status != Status::success) return status;
  if (at == nullptr || bytes == 0) return Status::invalid_value;
  model::count(Counter::allocations);
  const Address begin = model::fails(Fault::pinned) ? 0 : model::allocate(Home::pinned, -1, bytes);
  *at = reinterpret_cast<void*>(begin);
  return begin == 0 ? Status::out_of_memory : Status::success;
}

DRIVER cuMemAllocHost_v2(void** at, size_t bytes) { return cuMemHostAlloc(at, bytes, 0); }

DRIVER cuMemFreeHost(void* at) {
  if (const Status status = model::ready(); status != Status::success) return status;
  return give_back(Home::pinned, address(at));
}

DRIVER cuMemHostGetDevicePointer_v2(Address* device, void* at, unsigned flags) {
  if (const Status status = model::ready(); status != Status::success) return status;
  if (flags != 0 || !model::is_pinned(address(at))) return Status::invalid_value;
  *device = address(at);
  return Status::success;
}

DRIVER cuMemHostRegister_v2(void* at, size_t bytes, unsigned) {
  if (const Status status = model::ready(); status != Status::success) return status;
  return model::register_host(address(at), bytes) ? Status::success : Status::invalid_value;
}

DRIVER cuMemHostUnregister(void* at) {
  if (const Status status = model::ready(); status != Status::success) return status;
  return model::unregister_host(address(at)) ? Status::success : Status::invalid_value;
}

DRIVER cuMemcpyHtoDAsync_v2(Address to, const void* from, size_t bytes, void* handle) {
  std::shared_ptr<Stream> stream;
  if (const Status status = find_stream(handle, &stream); status != Status::success) return status;
  const char* name = "a copy to the device";
  const bool pinned = model::is_pinned(address(from));
  if (pinned || stream->capture != nullptr)
    return model::put(*stream, {name, [=](Stream& on) { on.copy(to, true, address(from), pinned, bytes); }});
  // Memory that is not pinned is staged during the call.
  const auto* begin = static_cast<const unsigned char*>(from);
  auto staged = std::make_shared<std::vector<unsigned char>>(begin, begin + bytes);
  return model::put(*stream, {name, [=](Stream& on) { on.copy(to, true, address(staged->data()), false, bytes); }});
}

DRIVER cuMemcpyDtoHAsync_v2(void* to, Address from, size_t bytes, void* handle) {
  std::shared_ptr<Stream> stream;
  if (const Status status = find_stream(handle, &stream); status != Status::success) return status;
  const bool pinned = model::is_pinned(address(to));
  const Status status =
      model::put(*stream, {"a copy to the host", [=](Stream& on) { on.copy(address(to), pinned, from, true, bytes); }});
  return pinned || status != Status::success || stream->capture != nullptr ? status : stream->synchronize();
}

DRIVER cuMemcpyDtoDAsync_v2(Address to, Address from, size_t bytes, void* handle) {
  std::shared_ptr<Stream> stream;
  if (const Status status = find_stream(handle, &stream); status != Status::success) return status;
  return model::put(*stream, {"a copy on the device", [=](Stream& on) { on.copy(to, true, from, true, bytes); }});
}

DRIVER cuMemcpyPeerAsync(Address to, void* to_context, Address from, void* from_context, size_t bytes, void* handle) {
  if (!model::is_context(static_cast<model::Context*>(to_context)) ||
      !model::is_context(static_cast<model::Context*>(from_context)))
    return Status::invalid_context;
  return cuMemcpyDtoDAsync_v2(to, from, bytes, handle);
}

DRIVER cuMemcpyHtoD_v2(Address to, const void* from, size_t bytes) {
  return at_once([=](Stream& on) { on.copy(to, true, address(from), false, bytes); });
}

DRIVER cuMemcpyDtoH_v2(void* to, Address from, size_t bytes) {
  return at_once([=](Stream& on) { on.copy(address(to), false, from, true, bytes); });
}

DRIVER cuMemcpyDtoD_v2(Address to, Address from, size_t bytes) {
  return at_once([=](Stream& on) { on.copy(to, true, from, true, bytes); });
}

namespace {

Status fill(Address to, unsigned value, size_t width, size_t values, void* handle) {
  std::shared_ptr<Stream> stream;
  if (const Status status = find_stream(handle, &stream); status != Status::success) return status;
  if (to % width != 0) return Status::invalid_value;
  return model::put(*stream, {"a fill", [=](Stream& on) { on.fill(to, value, width, values); }});
}

}  // namespace

DRIVER cuMemsetD8Async(Address to, unsigned char value, size_t values, void* handle) {
  return fill(to, value, 1, values, handle);
}
DRIVER cuMemsetD16Async(Address to, unsigned short value, size_t values, void* handle) {
  return fill(to, value, 2, values, handle);
}
DRIVER cuMemsetD32Async(Address to, unsigned value, size_t values, void* handle) { return fill(to, value, 4, values, handle); }
DRIVER cuMemsetD8_v2(Address to, unsigned char value, size_t values) {
  return at_once([=](Stream& on) { on.fill(to, value, 1, values); });
}
