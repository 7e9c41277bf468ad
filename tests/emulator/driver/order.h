// What is ordered before what. A timeline is a stream, or a branch of a graph; each operation is the next of its timeline and
// knows of every timeline how far it has come for sure: a vector clock.
#pragma once
#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include "races.h"

namespace model {

// Of blocks of a launch, by their numbers, how far each thread is known.
using KnownBlocks = std::map<uint32_t, std::vector<uint32_t>>;
bool has(const KnownBlocks& blocks, const Access& access);
void join(KnownBlocks& into, const KnownBlocks& other);

// What a release tells of an operation that goes on: what the thread that released knew of its own block and of others.
struct PartlyDone {
  uint32_t operation, timeline, sequence;
  KnownBlocks blocks;

  bool has(const Access& access) const;
};

// How far each timeline has come, by its number, and parts of operations that go on.
class Clock {
 public:
  void join(const Clock& other);
  void advance(uint32_t timeline, uint32_t to);
  uint32_t of(uint32_t timeline) const { return timeline < reached_.size() ? reached_[timeline] : 0; }
  // What one knows who was told this while the operation, which is the last of its timeline here, goes on.
  Clock within(PartlyDone operation) const;
  bool has_part_with(const Access& access) const;

 private:
  bool has_all(const PartlyDone& part) const { return of(part.timeline) >= part.sequence; }

  std::vector<uint32_t> reached_;
  std::vector<std::shared_ptr<const PartlyDone>> parts_;
};

uint32_t new_timeline();

// An operation that runs or ran: what later ones ask of it.
struct Performed {
  uint32_t timeline, sequence;
  const char* name;
};
// Enters the next operation of the timeline; its number is kept where memory notes who touched it.
uint32_t perform(const char* name, uint32_t timeline, uint32_t sequence);
const Performed& performed(uint32_t operation);
// Whether an access was made before what has this clock began.
bool is_before(const Access& access, const Clock& clock);

// What the host has waited for: everything it puts on a stream comes after that. Threads of the host are not told apart, since
// how they synchronise is not seen.
void host_waited(const Clock& clock);
Clock host_clock();

// Words by which kernels order themselves: a release lets those that acquire it know what the releaser knew.
void released(const void* at, const Clock& clock);
bool acquired(const void* at, Clock* clock);

}  // namespace model
