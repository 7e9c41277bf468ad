// Graphs: what was captured from streams, to be launched again and again as one operation.
#pragma once
#include "stream.h"

namespace model {

struct Node {
  Operation operation;
  std::vector<size_t> after;  // nodes that have to be done before it
  uint32_t timeline = 0;      // of its branch
};

struct Graph {
  std::vector<Node> nodes;

  // A node goes on with the timeline of one before it that no other node goes on with.
  void find_branches();
};

// A capture that is going on, shared by the streams that take part.
struct Capture {
  std::shared_ptr<Graph> graph = std::make_shared<Graph>();
  Stream* origin = nullptr;
  std::vector<std::shared_ptr<Stream>> joined;
  bool invalid = false;
};

Status capture_operation(Stream& stream, Operation operation);
// A stream waits for an event of the capture: it takes part from now on.
Status capture_wait(const std::shared_ptr<Stream>& stream, Event& event);
// Carries out the nodes on the stream's thread, in an order drawn from the seed that their dependencies allow.
void run_graph(Stream& stream, const Graph& graph, uint64_t seed);

}  // namespace model
