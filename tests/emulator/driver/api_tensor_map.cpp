// Tensor maps, with the driver's own rules for them.
#include <cstring>

#include "counters.h"
#include "machine.h"
#include "report.h"
#include "tensor_map.h"

using model::Status;

DRIVER cuTensorMapEncodeTiled(void* map, int type, uint32_t rank, void* base, const uint64_t* sizes, const uint64_t* strides,
                              const uint32_t* box, const uint32_t* steps, int interleave, int swizzle, int, int fill) {
  constexpr int bf16 = 9, swizzle_none = 0, swizzle_128 = 3;
  constexpr uint64_t element = 2;
  const auto refuse = [](const char* why) {
    model::found("a tensor map is refused: %s", why);
    return Status::invalid_value;
  };
  if (type != bf16 || interleave != 0 || fill != 0 || (swizzle != swizzle_none && swizzle != swizzle_128)) {
    model::found(
        "a tensor map is not of bf16, or is interleaved, filled with NaN or swizzled by other than 128 bytes: not modelled");
    return Status::not_supported;
  }
  const auto address = reinterpret_cast<uint64_t>(base);
  if (reinterpret_cast<uint64_t>(map) % 64 != 0) return refuse("it does not lie at a multiple of 64");
  if (rank < 1 || rank > 5) return refuse("it has no rank of 1 to 5");
  if (address == 0 || address % 16 != 0) return refuse("the tensor does not begin at a multiple of 16");
  model::EncodedMap encoded{};
  encoded.marked = model::EncodedMap::mark;
  encoded.rank = rank;
  encoded.base = address;
  encoded.swizzle = swizzle == swizzle_128 ? 128 : 0;
  for (uint32_t i = 0; i < rank; ++i) {
    if (sizes[i] == 0 || sizes[i] > uint64_t{1} << 32) return refuse("a size is 0 or above 2^32");
    if (box[i] == 0 || box[i] > 256) return refuse("a side of the box is 0 or above 256");
    if (steps[i] != 1) return refuse("a step between elements is not 1");
    encoded.sizes[i] = static_cast<uint32_t>(sizes[i]);
    encoded.box[i] = box[i];
    if (i == 0) continue;
    if (strides[i - 1] % 16 != 0 || strides[i - 1] >= uint64_t{1} << 40)
      return refuse("a stride is no multiple of 16 below 2^40");
    const uint64_t inner = i == 1 ? sizes[0] * element : strides[i - 2];
    if (strides[i - 1] < inner) return refuse("a stride is smaller than what it strides over");
    if (i > 1 && strides[i - 1] % inner != 0) return refuse("a stride is no whole number of those that it strides over");
    encoded.strides[i - 1] = strides[i - 1];
  }
  if (box[0] * element % 16 != 0) return refuse("a row of the box is no multiple of 16 bytes");
  if (encoded.swizzle != 0 && box[0] * element > 128) return refuse("a row of a box that is swizzled by 128 bytes is longer");
  model::count(model::Counter::tensor_maps);
  std::memset(map, 0, 128);
  std::memcpy(map, &encoded, sizeof encoded);
  return Status::success;
}
