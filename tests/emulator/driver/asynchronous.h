// Copies into shared memory that a thread starts and waits for later (cp.async). Each is carried out at a random moment
// between its start and the wait that covers it.
#pragma once
#include <deque>
#include <vector>

namespace model {

struct Copy16 {
  void* to;
  const void* from;
  bool there;
  bool done;  // already; what waits for it does not know
};

// Of one thread.
struct CopyGroups {
  std::vector<Copy16> open;
  std::deque<std::vector<Copy16>> closed;
};

}  // namespace model
