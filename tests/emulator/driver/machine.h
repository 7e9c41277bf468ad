// The emulated machine: its devices and what each thread of the program has chosen.
#pragma once
#include <memory>
#include <vector>

#include "stream.h"

#define DRIVER extern "C" __attribute__((visibility("default"))) model::Status

namespace model {

bool initialised();
void initialise();
const std::vector<std::unique_ptr<Context>>& devices();
// The context of the calling thread; null without.
Context* current();
void make_current(Context* context);
bool is_context(const Context* context);

// Live handles: what a program keeps of something destroyed is refused.
std::shared_ptr<Stream> stream_of(void* handle);
void* handle_of(const std::shared_ptr<Stream>& stream);
bool forget_stream(void* handle);
std::shared_ptr<Event> event_of(void* handle);
void* handle_of(const std::shared_ptr<Event>& event);
bool forget_event(void* handle);

// What a call answers before it looks at anything else.
Status ready();
// Puts an operation on the stream, or into the graph that is captured from it.
Status put(Stream& stream, Operation operation);

}  // namespace model
