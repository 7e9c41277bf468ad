// What threads wrote to shared memory and did not fence yet: products of four warps read it by another way, and may not see it.
#include "access.h"
#include "block.h"

namespace model {

void Block::wrote(const void* at, size_t bytes, unsigned thread) {
  if (barriers_.empty()) return;
  const auto begin = static_cast<size_t>(static_cast<const unsigned char*>(at) - shared_region_);
  for (size_t chunk = begin / 16; chunk <= (begin + bytes - 1) / 16; ++chunk) {
    if (unfenced_.size() <= chunk) unfenced_.resize(chunk + 1);
    unfenced_[chunk] = static_cast<uint16_t>(thread + 1);
    lanes_[thread].unfenced.push_back(chunk);
  }
}

void Block::fenced(unsigned thread) {
  for (const size_t chunk : lanes_[thread].unfenced)
    if (unfenced_[chunk] == thread + 1) unfenced_[chunk] = 0;
  lanes_[thread].unfenced.clear();
}

void Block::brought(const void* at, size_t bytes) {
  const auto begin = static_cast<size_t>(static_cast<const unsigned char*>(at) - shared_region_);
  for (size_t chunk = begin / 16; chunk < (begin + bytes) / 16 && chunk < unfenced_.size(); ++chunk) unfenced_[chunk] = 0;
}

bool Block::is_unfenced(const void* at) const {
  const auto chunk = static_cast<size_t>(static_cast<const unsigned char*>(at) - shared_region_) / 16;
  return chunk < unfenced_.size() && unfenced_[chunk] != 0;
}

void Block::forget_fences() {
  for (unsigned thread = 0; thread < lanes_.size(); ++thread) fenced(thread);
}

void async_fence() { Block::running()->fenced(Block::running()->current()); }

}  // namespace model
