// Sends and receives that start together: those of one call, or of everything between the start and the end of a group.
#pragma once
#include <memory>

#include "communicator.h"

namespace nccl {

struct Part {
  bool sends;
  void* at;
  size_t bytes;
  int peer;
  std::shared_ptr<Communicator> communicator;
  void* stream;
  uint64_t capture = 0;  // which of the communicator's captured groups it is of; 0 of none
};

void start_group();
Result end_group();
bool in_group();
// Adds to the group, or starts at once.
Result add(Part part);
// Meets the other ranks at the end of the group.
void add_joining(std::shared_ptr<Communicator> communicator);

}  // namespace nccl
