// What the 128 bytes of a tensor map hold on the emulated device.
#pragma once
#include <cstdint>

namespace model {

struct EncodedMap {
  static constexpr uint32_t mark = 0x70616d74;
  uint32_t marked, rank;
  uint64_t base;
  uint64_t strides[4];  // of each dimension but the first, in bytes
  uint32_t sizes[5], box[5];
  uint32_t swizzle;  // bytes; 0 or 128
};
static_assert(sizeof(EncodedMap) <= 128);

}  // namespace model
