#include "collective.h"

#include "machine.h"
#include "memory.h"
#include "report.h"
#include "settings.h"

namespace model {

int put_collective(void* stream_handle, const CollectiveOperation& operation) {
  const std::shared_ptr<void> data(operation.data, operation.drop);
  if (const Status status = ready(); status != Status::success) return static_cast<int>(status);
  auto stream = stream_of(stream_handle);
  if (stream == nullptr) return static_cast<int>(Status::invalid_handle);
  const auto run = operation.run;
  return static_cast<int>(put(*stream, {operation.name, [data, run](Stream& on) {
                                          if (on.context().error == Status::success) run(data.get(), &on);
                                        }}));
}

bool collective_touches(void* stream, const void* at, size_t bytes, bool writes) {
  return static_cast<Stream*>(stream)->touch("a collective", reinterpret_cast<Address>(at), bytes, writes);
}

bool collective_is_captured(void* stream_handle) {
  auto stream = stream_of(stream_handle);
  return stream != nullptr && stream->capture != nullptr;
}

bool collective_is_broken(void* stream) { return static_cast<Stream*>(stream)->context().error != Status::success; }

void collective_fails(void* stream, const char* finding) {
  found("%s", finding);
  static_cast<Stream*>(stream)->context().fail(Status::launch_timeout);
}

void collective_found(const char* finding) { found("%s", finding); }
int collective_patience_seconds() { return settings().patience_seconds; }

}  // namespace model
