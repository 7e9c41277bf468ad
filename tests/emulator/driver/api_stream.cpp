// Streams and events.
#include "counters.h"
#include "graph.h"
#include "machine.h"
#include "ran.h"
#include "report.h"

using model::Event;
using model::Status;
using model::Stream;

namespace {

Status find_both(void* stream_handle, std::shared_ptr<Stream>* stream, void* event_handle, std::shared_ptr<Event>* event) {
  if (const Status status = model::ready(); status != Status::success) return status;
  *stream = model::stream_of(stream_handle);
  *event = model::event_of(event_handle);
  if (*stream != nullptr && *event != nullptr) return Status::success;
  model::found("%s is used that is none, or is destroyed", *stream == nullptr ? "a stream" : "an event");
  return Status::invalid_handle;
}

}  // namespace

DRIVER cuStreamCreateWithPriority(void** handle, unsigned flags, int) {
  if (const Status status = model::ready(); status != Status::success) return status;
  if (flags > 1) return Status::invalid_value;
  *handle = model::handle_of(Stream::start(model::current()));
  return Status::success;
}

DRIVER cuStreamCreate(void** handle, unsigned flags) { return cuStreamCreateWithPriority(handle, flags, 0); }

DRIVER cuStreamDestroy_v2(void* handle) {
  auto stream = model::stream_of(handle);
  if (stream == nullptr || !model::forget_stream(handle)) return Status::invalid_handle;
  stream->close();
  return Status::success;
}

DRIVER cuStreamSynchronize(void* handle) {
  if (const Status status = model::ready(); status != Status::success) return status;
  auto stream = model::stream_of(handle);
  if (stream == nullptr) return Status::invalid_handle;
  if (stream->capture != nullptr) {
    stream->capture->invalid = true;
    return Status::stream_capture_unsupported;
  }
  return model::host_waits("cuStreamSynchronize") ? stream->synchronize() : stream->context().error.load();
}

DRIVER cuStreamQuery(void* handle) {
  if (const Status status = model::ready(); status != Status::success) return status;
  auto stream = model::stream_of(handle);
  if (stream == nullptr) return Status::invalid_handle;
  return stream->idle() ? stream->context().error.load() : Status::not_ready;
}

DRIVER cuStreamWaitEvent(void* stream_handle, void* event_handle, unsigned) {
  std::shared_ptr<Stream> stream;
  std::shared_ptr<Event> event;
  if (const Status status = find_both(stream_handle, &stream, event_handle, &event); status != Status::success) return status;
  std::lock_guard lock(event->mutex);
  if (event->capture != nullptr) return model::capture_wait(stream, *event);
  if (stream->capture != nullptr) return Status::stream_capture_invalidated;
  if (event->mark != nullptr) stream->wait_for(event->mark);
  return Status::success;
}

DRIVER cuLaunchHostFunc(void* handle, void (*function)(void*), void* data) {
  if (const Status status = model::ready(); status != Status::success) return status;
  auto stream = model::stream_of(handle);
  if (stream == nullptr) return Status::invalid_handle;
  return model::put(*stream, {"a function of the host", [=](Stream& on) {
                                if (on.context().error == Status::success) function(data);
                              }});
}

DRIVER cuEventCreate(void** handle, unsigned flags) {
  if (const Status status = model::ready(); status != Status::success) return status;
  constexpr unsigned blocking = 1, untimed = 2;
  if ((flags & ~(blocking | untimed)) != 0) return Status::invalid_value;
  auto event = std::make_shared<Event>();
  event->context = model::current();
  event->timed = (flags & untimed) == 0;
  *handle = model::handle_of(event);
  return Status::success;
}

DRIVER cuEventDestroy_v2(void* handle) { return model::forget_event(handle) ? Status::success : Status::invalid_handle; }

DRIVER cuEventRecord(void* event_handle, void* stream_handle) {
  std::shared_ptr<Stream> stream;
  std::shared_ptr<Event> event;
  if (const Status status = find_both(stream_handle, &stream, event_handle, &event); status != Status::success) return status;
  if (event->context != &stream->context()) return Status::invalid_handle;
  std::lock_guard lock(event->mutex);
  event->capture = stream->capture;
  event->captured_after = stream->captured_after;
  if (stream->capture != nullptr) return Status::success;
  if (!model::host_waits("cuEventRecord")) return Status::success;
  event->mark = std::make_shared<model::Mark>();
  stream->record(event->mark);
  return Status::success;
}

// As the record of an event that is a part of a graph: each launch records it anew.
DRIVER cuEventRecordWithFlags(void* event_handle, void* stream_handle, unsigned flags) {
  constexpr unsigned external = 1;
  if (flags == 0) return cuEventRecord(event_handle, stream_handle);
  std::shared_ptr<Stream> stream;
  std::shared_ptr<Event> event;
  if (const Status status = find_both(stream_handle, &stream, event_handle, &event); status != Status::success) return status;
  if (flags != external || stream->capture == nullptr) return Status::invalid_value;
  if (event->context != &stream->context()) return Status::invalid_handle;
  return model::capture_operation(*stream, {"the record of an event", [event](Stream& on) {
                                    auto mark = std::make_shared<model::Mark>();
                                    mark->clock = on.clock();
                                    mark->reach();
                                    std::lock_guard lock(event->mutex);
                                    event->mark = std::move(mark);
                                    event->capture = nullptr;
                                  }});
}

DRIVER cuEventQuery(void* handle) {
  if (const Status status = model::ready(); status != Status::success) return status;
  auto event = model::event_of(handle);
  if (event == nullptr) return Status::invalid_handle;
  std::lock_guard lock(event->mutex);
  if (!model::host_waits("cuEventQuery") || event->mark == nullptr) return Status::success;
  if (!event->mark->reached()) return Status::not_ready;
  model::host_waited(event->mark->clock);
  return event->context->error;
}

DRIVER cuEventSynchronize(void* handle) {
  if (const Status status = model::ready(); status != Status::success) return status;
  auto event = model::event_of(handle);
  if (event == nullptr) return Status::invalid_handle;
  std::shared_ptr<model::Mark> mark;
  {
    std::lock_guard lock(event->mutex);
    if (event->capture != nullptr) return Status::stream_capture_unsupported;
    mark = event->mark;
  }
  model::count(model::Counter::synchronisations);
  if (!model::host_waits("cuEventSynchronize")) return event->context->error;
  if (mark != nullptr && !mark->wait()) {
    model::found("deadlock: the host waits too long for an event");
    event->context->fail(Status::launch_timeout);
  } else if (mark != nullptr) {
    model::host_waited(mark->clock);
  }
  return event->context->error;
}

DRIVER cuEventElapsedTime_v2(float* milliseconds, void* begin_handle, void* end_handle) {
  auto begin = model::event_of(begin_handle), end = model::event_of(end_handle);
  if (begin == nullptr || end == nullptr || !begin->timed || !end->timed || begin->mark == nullptr || end->mark == nullptr)
    return Status::invalid_handle;
  if (!begin->mark->reached() || !end->mark->reached()) return Status::not_ready;
  *milliseconds = std::chrono::duration<float, std::milli>(end->mark->when() - begin->mark->when()).count();
  return Status::success;
}

DRIVER cuEventElapsedTime(float* milliseconds, void* begin, void* end) { return cuEventElapsedTime_v2(milliseconds, begin, end); }
