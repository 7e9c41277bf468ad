// Pipelined products: right for any order, and each of nine mistakes found.
#include <cmath>

#include "driver.h"
#include "kernels.h"

namespace {

constexpr uint32_t k = 320, groups = 3, pages = 4;

float value(uint32_t i) { return static_cast<float>(static_cast<int>(i * 2654435761u >> 24) - 128) / 64; }
std::vector<uint16_t> halves(size_t count, uint32_t from) {
  std::vector<uint16_t> all;
  for (uint32_t i = 0; i < count; ++i) {
    const float f = value(from + i);
    uint32_t bits;
    std::memcpy(&bits, &f, 4);
    all.push_back(static_cast<uint16_t>(bits >> 16));
  }
  return all;
}

TensorMap encode(Address at, uint32_t rank, std::vector<uint64_t> sizes, std::vector<uint64_t> strides, int expected = success) {
  TensorMap map{};
  const std::vector<uint32_t> box{64, 64, 1}, steps{1, 1, 1};
  EQUAL(cu("cuTensorMapEncodeTiled", static_cast<void*>(&map), 9, rank, reinterpret_cast<void*>(at),
           static_cast<const uint64_t*>(sizes.data()), static_cast<const uint64_t*>(strides.data()), box.data(), steps.data(), 0,
           3, 2, 0),
        expected);
  return map;
}

struct Problem {
  Device device;
  PipelineParameters parameters{};
  int run(const char* kernel) {
    const Address x = device.upload(halves(64 * k, 0)), arena = device.upload(halves(pages * 64 * k, 99999));
    const Address table = device.upload(std::vector<uint32_t>{2, 0, 3}), out = device.allocate(groups * 64 * 64 * 4);
    parameters = {
        encode(x, 2, {k, 64}, {k * 2}), encode(arena, 3, {k, 64, pages}, {k * 2, 64 * k * 2}), x, arena, table, out, k, groups};
    const bool tiles = std::strstr(kernel, "tiles") != nullptr;
    OK(cu("cuFuncSetAttribute", device.function(kernel), 8, 64 << 10));
    OK(device.launch(kernel, 2, tiles ? 160 : 128, parameters, nullptr, 3 * 2 * 8192 + 64));
    return device.synchronize();
  }
};

void is_right(const char* kernel) {
  Problem problem;
  OK(problem.run(kernel));
  const auto out = problem.device.download<float>(problem.parameters.out, groups * 64 * 64);
  const uint32_t table[] = {2, 0, 3};
  for (uint32_t group = 0; group < groups; ++group)
    for (uint32_t row = 0; row < 64; ++row)
      for (uint32_t column = 0; column < 64; ++column) {
        double sum = 0;
        for (uint32_t i = 0; i < k; ++i)
          sum +=
              static_cast<double>(value(row * k + i)) * static_cast<double>(value(99999 + (table[group] * 64 + column) * k + i));
        CHECK(std::fabs(static_cast<double>(out[(group * 64 + row) * 64 + column]) - sum) < 1e-3);
      }
}

void is_found(const char* kernel) {
  Problem problem;
  const int status = problem.run(kernel);
  CHECK(status == launch_failed || status == launch_timeout);
  expect_finding(kernel);
}

}  // namespace

CASE(a_pipeline_of_copies_is_right) { is_right("case_pipeline_of_copies"); }
CASE(a_pipeline_of_tiles_is_right) { is_right("case_pipeline_of_tiles"); }
CASE(a_pipeline_that_waits_for_one_copy_too_few_is_found) { is_found("mistake_copies_wait_one_short"); }
CASE(a_pipeline_of_copies_without_a_barrier_is_found) { is_found("mistake_copies_no_barrier"); }
CASE(a_pipeline_that_does_not_wait_for_tiles_is_found) { is_found("mistake_tiles_no_full"); }
CASE(a_pipeline_that_does_not_wait_for_room_is_found) { is_found("mistake_tiles_no_empty"); }
CASE(a_pipeline_that_does_not_wait_for_products_is_found) { is_found("mistake_tiles_no_product_wait"); }
CASE(a_stage_released_by_one_warp_of_four_is_found) { is_found("mistake_tiles_released_by_one_warp"); }
CASE(a_stage_released_by_two_warps_of_four_is_found) { is_found("mistake_tiles_released_by_two_warps"); }

CASE(a_pipeline_of_tiles_and_copies_is_right) { is_right("case_pipeline_of_tiles_and_copies"); }
CASE(a_pipeline_of_tiles_that_does_not_wait_for_copies_is_found) { is_found("mistake_tiles_no_copy_wait"); }
CASE(a_pipeline_of_tiles_that_does_not_fence_its_copies_is_found) { is_found("mistake_tiles_no_fence"); }

CASE(a_page_that_the_arena_does_not_have_is_found) {
  Problem problem;
  Device& device = problem.device;
  OK(problem.run("case_pipeline_of_tiles"));
  problem.parameters.page_of = device.upload(std::vector<uint32_t>{2, 4, 3});
  OK(device.launch("case_pipeline_of_tiles", 2, 160, problem.parameters, nullptr, 3 * 2 * 8192 + 64));
  EQUAL(device.synchronize(), illegal_address);
  expect_finding("copies a tile of page 4 of 4");
}

CASE(tensor_maps_that_no_driver_makes_are_refused) {
  Device device;
  const Address at = device.allocate(1 << 16);
  encode(at, 2, {64, 64}, {128});
  encode(at + 8, 2, {64, 64}, {128}, invalid_value);
  encode(at, 2, {64, 64}, {136}, invalid_value);
  encode(at, 2, {64, 64}, {112}, invalid_value);
  encode(at, 2, {64, 0}, {128}, invalid_value);
  encode(at, 3, {64, 64, 2}, {128, 64}, invalid_value);
  encode(at, 3, {64, 2, 2}, {128, 320}, invalid_value);
  encode(at, 3, {64, 2, 2}, {128, 384});
  EQUAL(counter(tensor_maps), 2);
  expect_findings(6);
}
