#include "graph.h"

#include <algorithm>

namespace model {

Status capture_operation(Stream& stream, Operation operation) {
  Capture& capture = *stream.capture;
  if (capture.invalid) return Status::stream_capture_invalidated;
  capture.graph->nodes.push_back({std::move(operation), stream.captured_after});
  stream.captured_after = {capture.graph->nodes.size() - 1};
  return Status::success;
}

Status capture_wait(const std::shared_ptr<Stream>& stream, Event& event) {
  if (event.capture->invalid) return Status::stream_capture_invalidated;
  if (stream->capture == nullptr) {
    stream->capture = event.capture;
    stream->captured_after.clear();
    event.capture->joined.push_back(stream);
  } else if (stream->capture != event.capture) {
    return Status::stream_capture_invalidated;
  }
  for (size_t node : event.captured_after)
    if (std::find(stream->captured_after.begin(), stream->captured_after.end(), node) == stream->captured_after.end())
      stream->captured_after.push_back(node);
  return Status::success;
}

void Graph::find_branches() {
  std::vector<bool> taken(nodes.size());
  for (Node& node : nodes) {
    for (size_t before : node.after)
      if (node.timeline == 0 && !taken[before]) {
        taken[before] = true;
        node.timeline = nodes[before].timeline;
      }
    if (node.timeline == 0) node.timeline = new_timeline();
  }
}

void run_graph(Stream& stream, const Graph& graph, uint64_t seed) {
  Random random(seed);
  std::vector<size_t> left(graph.nodes.size()), ready;
  const uint32_t timeline = stream.timeline();
  const Clock before = stream.clock();
  Clock all = before;
  std::vector<Clock> done(graph.nodes.size());
  for (size_t i = 0; i < graph.nodes.size(); ++i) {
    left[i] = graph.nodes[i].after.size();
    if (left[i] == 0) ready.push_back(i);
  }
  while (!ready.empty()) {
    const size_t at = random.below(static_cast<unsigned>(ready.size())), node = ready[at];
    ready.erase(ready.begin() + static_cast<std::ptrdiff_t>(at));
    Clock known = before;
    for (size_t earlier : graph.nodes[node].after) known.join(done[earlier]);
    stream.become(graph.nodes[node].timeline, std::move(known));
    graph.nodes[node].operation.run(stream);
    done[node] = stream.clock();
    all.join(done[node]);
    for (size_t i = node + 1; i < graph.nodes.size(); ++i) {
      const std::vector<size_t>& after = graph.nodes[i].after;
      if (std::find(after.begin(), after.end(), node) != after.end() && --left[i] == 0) ready.push_back(i);
    }
  }
  stream.become(timeline, std::move(all));
}

}  // namespace model
