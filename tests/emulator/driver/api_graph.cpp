// Graphs: capture from a stream, instantiation, launch.
#include <algorithm>
#include <map>
#include <mutex>
#include <set>

#include "counters.h"
#include "faults.h"
#include "graph.h"
#include "machine.h"
#include "report.h"
#include "settings.h"

using model::Capture;
using model::Graph;
using model::Status;
using model::Stream;

namespace {

// Handles own what they name; a graph that is launched lives until it has run.
std::mutex mutex;
std::map<void*, std::shared_ptr<Graph>> graphs, executables;

std::shared_ptr<Graph> held(std::map<void*, std::shared_ptr<Graph>>& all, void* handle) {
  std::lock_guard lock(mutex);
  auto found = all.find(handle);
  return found == all.end() ? nullptr : found->second;
}

void* keep(std::map<void*, std::shared_ptr<Graph>>& all, std::shared_ptr<Graph> graph) {
  std::lock_guard lock(mutex);
  void* handle = graph.get();
  all[handle] = std::move(graph);
  return handle;
}

// Whether every node leads to one of those the origin has come to.
bool all_joined(const Graph& graph, const std::vector<size_t>& ends) {
  std::set<size_t> reached(ends.begin(), ends.end());
  for (size_t i = graph.nodes.size(); i-- > 0;)
    if (reached.count(i) != 0) reached.insert(graph.nodes[i].after.begin(), graph.nodes[i].after.end());
  return reached.size() == graph.nodes.size();
}

}  // namespace

DRIVER cuStreamBeginCapture_v2(void* handle, int) {
  if (const Status status = model::ready(); status != Status::success) return status;
  auto stream = model::stream_of(handle);
  if (stream == nullptr) return Status::invalid_handle;
  if (stream->capture != nullptr) return Status::illegal_state;
  stream->capture = std::make_shared<Capture>();
  stream->capture->origin = stream.get();
  stream->captured_after.clear();
  return Status::success;
}

DRIVER cuStreamEndCapture(void* handle, void** graph) {
  if (const Status status = model::ready(); status != Status::success) return status;
  auto stream = model::stream_of(handle);
  if (stream == nullptr) return Status::invalid_handle;
  auto capture = stream->capture;
  if (capture == nullptr) return Status::illegal_state;
  if (capture->origin != stream.get()) return Status::stream_capture_unmatched;
  *graph = nullptr;
  const bool joined = all_joined(*capture->graph, stream->captured_after);
  for (const auto& other : capture->joined) {
    other->capture = nullptr;
    other->captured_after.clear();
  }
  stream->capture = nullptr;
  stream->captured_after.clear();
  if (capture->invalid || model::fails(model::Fault::capture)) return Status::stream_capture_invalidated;
  if (!joined) {
    model::found("a capture ends before all of its streams were joined to the first one");
    return Status::stream_capture_unjoined;
  }
  model::count(model::Counter::captures);
  *graph = keep(graphs, capture->graph);
  return Status::success;
}

DRIVER cuStreamIsCapturing(void* handle, int* capturing) {
  auto stream = model::stream_of(handle);
  if (stream == nullptr) return Status::invalid_handle;
  *capturing = stream->capture == nullptr ? 0 : stream->capture->invalid ? 2 : 1;
  return Status::success;
}

DRIVER cuGraphInstantiateWithFlags(void** executable, void* handle, uint64_t) {
  if (const Status status = model::ready(); status != Status::success) return status;
  auto graph = held(graphs, handle);
  if (graph == nullptr) return Status::invalid_value;
  auto instance = std::make_shared<Graph>(*graph);
  instance->find_branches();
  *executable = keep(executables, std::move(instance));
  return Status::success;
}

DRIVER cuGraphLaunch(void* executable, void* handle) {
  if (const Status status = model::ready(); status != Status::success) return status;
  auto graph = held(executables, executable);
  auto stream = model::stream_of(handle);
  if (graph == nullptr || stream == nullptr) return graph == nullptr ? Status::invalid_value : Status::invalid_handle;
  if (stream->capture != nullptr) return Status::stream_capture_unsupported;
  model::count(model::Counter::launches);
  model::count(model::Counter::graph_launches);
  stream->make_room();
  static std::atomic<uint64_t> launches{0};
  const uint64_t seed = model::settings().seed + ++launches * 0x10001;
  return model::put(*stream, {"a graph", [graph, seed](Stream& on) { model::run_graph(on, *graph, seed); }});
}

DRIVER cuGraphUpload(void* executable, void*) {
  return held(executables, executable) == nullptr ? Status::invalid_value : Status::success;
}

DRIVER cuGraphExecDestroy(void* executable) {
  std::lock_guard lock(mutex);
  return executables.erase(executable) == 1 ? Status::success : Status::invalid_value;
}

DRIVER cuGraphDestroy(void* graph) {
  std::lock_guard lock(mutex);
  return graphs.erase(graph) == 1 ? Status::success : Status::invalid_value;
}

DRIVER cuGraphGetNodes(void* handle, void** nodes, size_t* count) {
  auto graph = held(graphs, handle);
  if (graph == nullptr || nodes != nullptr) return Status::invalid_value;
  *count = graph->nodes.size();
  return Status::success;
}
