// Products of cuBLAS, which are done when their stream is: of 3 rows by 2, 40 deep, in columns that are further apart than they are long.
#include "driver.h"

namespace {

template <class... Arguments> int blas(const char* name, Arguments... arguments) {
  return reinterpret_cast<int (*)(Arguments...)>(symbol("libcublas.so", name))(arguments...);
}

uint16_t bf16(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return static_cast<uint16_t>(bits >> 16);
}

}  // namespace

CASE(a_product_of_cublas_is_the_product) {
  constexpr int bf16_type = 14, sums_in_f32 = 68, rows = 3, columns = 2, depth = 40, a_each = 48, b_each = 41, c_each = 5;
  std::vector<uint16_t> a(rows * a_each), b(columns * b_each);
  for (int row = 0; row < rows; ++row)
    for (int k = 0; k < depth; ++k) a[static_cast<size_t>(row * a_each + k)] = bf16(static_cast<float>(row + 1));
  for (int column = 0; column < columns; ++column)
    for (int k = 0; k < depth; ++k) b[static_cast<size_t>(column * b_each + k)] = bf16(static_cast<float>(k % 2 * (column + 1)));
  Device device;
  const Address left = device.upload(a), right = device.upload(b), out = device.upload(std::vector<uint16_t>(columns * c_each, 7));
  const auto at = [](Address address) { return reinterpret_cast<void*>(address); };
  Handle handle = nullptr;
  OK(blas("cublasCreate_v2", &handle));
  OK(blas("cublasSetStream_v2", handle, device.stream));
  const float one = 1, nothing = 0;
  const auto product = [&](int transposes) {
    return blas("cublasGemmEx", handle, transposes, 0, rows, columns, depth, static_cast<const void*>(&one), static_cast<const void*>(at(left)),
                bf16_type, a_each, static_cast<const void*>(at(right)), bf16_type, b_each, static_cast<const void*>(&nothing), at(out),
                bf16_type, c_each, sums_in_f32, -1);
  };
  OK(product(1));
  const auto got = device.download<uint16_t>(out, columns * c_each);
  for (int column = 0; column < columns; ++column)
    for (int row = 0; row < c_each; ++row) {
      const float sum = static_cast<float>(depth / 2 * (row + 1) * (column + 1));
      EQUAL(got[static_cast<size_t>(column * c_each + row)], row < rows ? bf16(sum) : 7);
    }
  EQUAL(product(0), 15);
  OK(blas("cublasDestroy_v2", handle));
}
