// What the measurements ask of cuBLAS: a product of bfloat16 with sums in f32. It is computed by the host, in the order of its depth, as one
// operation of the stream; what else the function can do is refused.
#include <cstdint>
#include <cstring>
#include <memory>

#include "collective.h"

#define CUBLAS extern "C" MODEL_API

namespace {

enum class Result : int { success = 0, not_initialized = 1, invalid_value = 7, execution_failed = 13, not_supported = 15 };

struct Handle {
  void* stream = nullptr;
};

// Columns of results `c_each` apart; of each of them, and of each row of `a` and of `b`, elements lie beside each other.
struct Product {
  size_t rows, columns, depth;
  const uint16_t *a, *b;
  uint16_t* c;
  size_t a_each, b_each, c_each;
};

float wide(uint16_t bits) {
  const uint32_t word = static_cast<uint32_t>(bits) << 16;
  float value;
  std::memcpy(&value, &word, sizeof value);
  return value;
}

uint16_t nearest(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return value != value ? 0x7fff : static_cast<uint16_t>((bits + 0x7fffu + (bits >> 16 & 1)) >> 16);
}

void multiply(void* data, void* stream) {
  const auto& p = *static_cast<const Product*>(data);
  const auto bytes = [](size_t lines, size_t each, size_t last) { return ((lines - 1) * each + last) * sizeof(uint16_t); };
  if (!model::collective_touches(stream, p.a, bytes(p.rows, p.a_each, p.depth), false) ||
      !model::collective_touches(stream, p.b, bytes(p.columns, p.b_each, p.depth), false) ||
      !model::collective_touches(stream, p.c, bytes(p.columns, p.c_each, p.rows), true))
    return;
  for (size_t column = 0; column < p.columns; ++column)
    for (size_t row = 0; row < p.rows; ++row) {
      float sum = 0;
      for (size_t k = 0; k < p.depth; ++k) sum += wide(p.a[row * p.a_each + k]) * wide(p.b[column * p.b_each + k]);
      p.c[column * p.c_each + row] = nearest(sum);
    }
}

}  // namespace

CUBLAS Result cublasCreate_v2(void** handle) {
  *handle = new Handle;
  return Result::success;
}

CUBLAS Result cublasDestroy_v2(void* handle) {
  if (handle == nullptr) return Result::not_initialized;
  delete static_cast<Handle*>(handle);
  return Result::success;
}

CUBLAS Result cublasSetStream_v2(void* handle, void* stream) {
  if (handle == nullptr) return Result::not_initialized;
  static_cast<Handle*>(handle)->stream = stream;
  return Result::success;
}

CUBLAS Result cublasGemmEx(void* handle, int transposes_a, int transposes_b, int m, int n, int k, const void* alpha, const void* a,
                           int a_type, int a_each, const void* b, int b_type, int b_each, const void* beta, void* c, int c_type,
                           int c_each, int compute, int) {
  constexpr int bf16 = 14, sums_in_f32 = 68;
  if (handle == nullptr) return Result::not_initialized;
  if (m < 1 || n < 1 || k < 1 || a_each < k || b_each < k || c_each < m) return Result::invalid_value;
  if (transposes_a != 1 || transposes_b != 0 || a_type != bf16 || b_type != bf16 || c_type != bf16 || compute != sums_in_f32 ||
      *static_cast<const float*>(alpha) != 1.0f || *static_cast<const float*>(beta) != 0.0f)
    return Result::not_supported;
  const auto size = [](int number) { return static_cast<size_t>(number); };
  auto* product = new Product{size(m),      size(n),      size(k),
                              static_cast<const uint16_t*>(a), static_cast<const uint16_t*>(b), static_cast<uint16_t*>(c),
                              size(a_each), size(b_each), size(c_each)};
  const int status = model::put_collective(static_cast<Handle*>(handle)->stream,
                                           {"a product of cuBLAS", multiply, [](void* data) { delete static_cast<Product*>(data); }, product});
  return status == 0 ? Result::success : Result::execution_failed;
}
