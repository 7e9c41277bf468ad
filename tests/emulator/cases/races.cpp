// Accesses that nothing orders are found whatever came of them; those that something orders are not.
#include "driver.h"
#include "kernels.h"

namespace {

void races(const char* kernel, unsigned blocks, unsigned threads, const char* said) {
  Device device;
  const Address out = device.allocate(4096);
  OK(device.launch(kernel, blocks, threads, WarpParameters{out}));
  EQUAL(device.synchronize(), launch_failed);
  expect_finding(said);
}

void copies_race(const char* kernel, const char* said) {
  Device device;
  const Address values = device.upload(std::vector<uint16_t>(256)), out = device.allocate(4096);
  OK(device.launch(kernel, 1, 32, TileParameters{values, values, out}));
  EQUAL(device.synchronize(), launch_failed);
  expect_finding(said);
}

// A stream waits for what another hands over within its kernel, and the kernel after it reads it again.
void hands_over(uint32_t send) {
  Device device;
  const Handle other = device.new_stream();
  const Address memory = device.upload(std::vector<uint32_t>(512));
  OK(device.synchronize());
  OK(device.launch("case_hand_over", 1, 128, FlagParameters{memory, memory + 64, 0}, other));
  OK(device.launch("case_hand_over", 1, 128, FlagParameters{memory, memory + 64, 0}, other));
  OK(device.launch("case_hand_over", 1, 128, FlagParameters{memory, memory + 64, send}));
  const int first = device.synchronize(), second = device.synchronize(other);
  if (send == 1) {
    EQUAL(first, success);
    EQUAL(second, success);
    EQUAL(counter(findings), 0);
    return;
  }
  CHECK(first == launch_failed || second == launch_failed);
  expect_finding("nothing orders them");
}

}  // namespace

CASE(what_a_kernel_hands_over_while_it_runs_is_right) { hands_over(1); }
CASE(a_flag_that_is_set_before_what_it_tells_of_is_found) { hands_over(2); }
CASE(a_flag_that_does_not_wait_for_other_warps_is_found) { hands_over(3); }

CASE(threads_that_read_what_no_barrier_handed_over_are_found) {
  races("mistake_no_barrier", 1, 64, "of shared memory that thread");
}
CASE(lanes_that_read_what_no_barrier_handed_over_are_found) {
  races("mistake_no_warp_barrier", 1, 32, "of shared memory that thread");
}
CASE(lanes_that_only_exchanged_registers_since_are_found) {
  races("mistake_shuffle_for_a_barrier", 1, 32, "of shared memory that thread");
}
CASE(threads_that_write_what_others_still_read_are_found) {
  races("mistake_no_barrier_after", 1, 64, "of shared memory that thread");
}
CASE(blocks_that_write_the_same_are_found) { races("mistake_blocks_meet", 3, 32, "which block"); }
CASE(a_wait_for_one_copy_too_few_is_found) { copies_race("mistake_copy_wait_one_short", "wrote and had not finished"); }
CASE(a_copy_that_only_its_own_thread_waited_for_is_found) {
  copies_race("mistake_no_barrier_after_copies", "of shared memory that thread");
}

CASE(a_last_block_without_a_fence_is_found) {
  Device device;
  const Address values = device.upload(std::vector<uint32_t>{1, 2, 3}), parts = device.allocate(16),
                words = device.upload(std::vector<uint32_t>(2));
  OK(device.launch("mistake_no_fence", 3, 64, LastParameters{values, parts, words, words + 4}));
  EQUAL(device.synchronize(), launch_failed);
  expect_finding("which block");
}

CASE(a_last_block_with_its_fences_is_right) {
  Device device;
  const Address values = device.upload(std::vector<uint32_t>{1, 2, 3, 4, 5}), parts = device.allocate(20),
                words = device.upload(std::vector<uint32_t>(2));
  OK(device.launch("case_last_block", 5, 64, LastParameters{values, parts, words, words + 4}));
  EQUAL(device.download<uint32_t>(words, 2)[1], 15);
}

CASE(warps_that_meet_at_a_barrier_of_their_own_are_right) {
  Device device;
  const Address out = device.allocate(256);
  OK(device.launch("case_group", 2 - 1, 192, WarpParameters{out}));
  const auto got = device.download<uint32_t>(out, 64);
  for (uint32_t i = 0; i < 64; ++i) EQUAL(got[i], (63 - i) * 3);
}

CASE(streams_that_no_event_orders_are_found) {
  Device device;
  const Handle other = device.new_stream();
  const Address memory = device.allocate(4000);
  OK(device.launch("case_fill", 1, 64, FillParameters{memory, 1, 1000}));
  OK(device.launch("case_fill", 1, 64, FillParameters{memory + 3996, 1, 1}, other));
  const int first = device.synchronize(), second = device.synchronize(other);
  CHECK(first == launch_failed || second == launch_failed);
  expect_finding("race: writes 4 bytes at byte 3996 of device allocation 1 (4000 bytes), which case_fill wrote");
}

CASE(a_copy_that_nothing_orders_with_a_kernel_is_found) {
  Device device;
  const Handle other = device.new_stream();
  const Address memory = device.allocate(4000);
  OK(device.launch("case_fill", 1, 64, FillParameters{memory, 1, 1000}));
  auto* host = device.pinned<uint32_t>(4);
  OK(cu("cuMemcpyDtoHAsync_v2", static_cast<void*>(host), memory + 800, size_t{16}, other));
  const int first = device.synchronize(), second = device.synchronize(other);
  CHECK(first == launch_failed || second == launch_failed);
  expect_finding("nothing orders them");
}

CASE(a_host_that_waits_orders_streams) {
  Device device;
  const Handle other = device.new_stream();
  const Address memory = device.allocate(4000);
  for (int i = 0; i < 3; ++i) {
    OK(device.launch("case_fill", 1, 64, FillParameters{memory, 1, 1000}));
    OK(device.synchronize());
    OK(device.launch("case_fill", 1, 64, FillParameters{memory, 2, 1000}, other));
    OK(device.synchronize(other));
  }
}

CASE(branches_of_a_graph_that_nothing_orders_are_found) {
  Device device;
  const Handle other = device.new_stream(), fork = device.event(), join = device.event();
  const Address memory = device.allocate(400);
  Handle graph = nullptr, executable = nullptr;
  OK(cu("cuStreamBeginCapture_v2", device.stream, 1));
  OK(cu("cuMemsetD8Async", memory, static_cast<unsigned char>(0), size_t{400}, device.stream));
  OK(cu("cuEventRecord", fork, device.stream));
  OK(cu("cuStreamWaitEvent", other, fork, 0u));
  OK(device.launch("case_fill", 1, 64, FillParameters{memory, 1, 100}, other));
  OK(device.launch("case_fill", 1, 64, FillParameters{memory, 1, 100}));
  OK(cu("cuEventRecord", join, other));
  OK(cu("cuStreamWaitEvent", device.stream, join, 0u));
  OK(cu("cuStreamEndCapture", device.stream, &graph));
  OK(cu("cuGraphInstantiateWithFlags", &executable, graph, uint64_t{0}));
  OK(cu("cuGraphLaunch", executable, device.stream));
  EQUAL(device.synchronize(), launch_failed);
  expect_finding("which case_fill wrote; nothing orders them");
}
