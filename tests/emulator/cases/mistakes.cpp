// What a wrong program does is found, said in words, and answered with the driver's own error.
#include "driver.h"
#include "kernels.h"

namespace {

// The kernel is launched on 64 words, and breaks its context.
void breaks(const char* kernel, uint32_t count, int error, const char* said, unsigned threads = 64, Address offset = 0) {
  Device device;
  const Address memory = device.upload(std::vector<uint32_t>(64));
  OK(device.synchronize());
  OK(device.launch(kernel, 1, threads, MistakeParameters{memory + offset, count}));
  EQUAL(device.synchronize(), error);
  expect_finding(said);
  // Nothing works in a broken context.
  Address more = 0;
  EQUAL(cu("cuMemAlloc_v2", &more, size_t{16}), error);
}

}  // namespace

CASE(a_write_past_the_end_is_found) {
  breaks("mistake_past_the_end", 64, illegal_address,
         "writes 4 bytes at byte 256 of device allocation 1 (256 bytes, past its end)");
}
CASE(a_read_before_the_begin_is_found) { breaks("mistake_before_the_begin", 0, illegal_address, "reads 4 bytes at byte -4 of"); }
CASE(a_misaligned_access_is_found) { breaks("mistake_misaligned", 0, misaligned_address, "misaligned", 32); }
CASE(shared_memory_past_its_end_is_found) {
  breaks("mistake_shared_past_the_end", 1, illegal_address, "4 bytes of shared memory out of bounds");
}
CASE(a_barrier_that_some_threads_never_reach_is_found) {
  breaks("mistake_divergent_barrier", 40, launch_timeout,
         "deadlock: waits for ever at a barrier of the block; 40 threads wait and 24 have ended");
}
CASE(a_shuffle_that_some_lanes_never_reach_is_found) {
  breaks("mistake_divergent_shuffle", 20, launch_timeout, "deadlock: waits for ever at a shuffle");
}
CASE(lanes_that_meet_at_different_operations_are_found) {
  breaks("mistake_shuffle_meets_vote", 20, launch_failed, "where others of its warp or block came to");
}
CASE(a_trap_breaks_the_context) { breaks("mistake_trap", 0, launch_failed, "trap", 32); }

CASE(an_address_that_no_allocation_holds_is_found) {
  Device device;
  OK(device.launch("case_fill", 1, 32, FillParameters{64, 1, 8}));
  EQUAL(device.synchronize(), illegal_address);
  expect_finding("which no allocation holds");
}

CASE(memory_that_is_freed_while_a_kernel_may_use_it_is_found) {
  Device device;
  const Handle first = device.event(), other = device.new_stream();
  auto* flags = device.pinned<uint32_t>(4);
  std::memset(flags, 0, 16);
  const Address memory = device.allocate(256), at = reinterpret_cast<Address>(flags);
  // The kernel that uses the memory stands behind one that waits for the host.
  OK(device.launch("case_flag", 1, 32, FlagParameters{at, at + 4, 0}, other));
  OK(device.launch("case_fill", 1, 64, FillParameters{memory, 1, 64}, other));
  OK(cu("cuMemFree_v2", memory));
  __atomic_store_n(flags, 1u, __ATOMIC_RELEASE);
  EQUAL(device.synchronize(other), illegal_address);
  expect_finding("of device allocation 2 (256 bytes, freed)");
  OK(cu("cuEventDestroy_v2", first));
}

CASE(memory_that_is_freed_twice_is_found) {
  Device device;
  const Address memory = device.allocate(256);
  OK(cu("cuMemFree_v2", memory));
  EQUAL(cu("cuMemFree_v2", memory), invalid_value);
  expect_finding("memory is freed that is not allocated");
}

CASE(a_copy_out_of_range_is_found) {
  Device device;
  const Address memory = device.allocate(256);
  auto* host = device.pinned<uint32_t>(100);
  OK(cu("cuMemcpyHtoDAsync_v2", memory, static_cast<const void*>(host), size_t{257}, device.stream));
  EQUAL(device.synchronize(), illegal_address);
  expect_finding("a copy writes 257 bytes at byte 0 of device allocation 1 (256 bytes, past its end)");
}

CASE(a_copy_from_pinned_memory_that_is_too_short_is_found) {
  Device device;
  const Address memory = device.allocate(8192);
  auto* host = device.pinned<unsigned char>(4096);
  OK(cu("cuMemcpyHtoDAsync_v2", memory, static_cast<const void*>(host), size_t{8192}, device.stream));
  EQUAL(device.synchronize(), illegal_address);
  expect_finding("a copy reads");
}

CASE(a_fill_out_of_range_is_found) {
  Device device;
  const Address memory = device.allocate(256);
  OK(cu("cuMemsetD8Async", memory + 255, static_cast<unsigned char>(0), size_t{2}, device.stream));
  EQUAL(device.synchronize(), illegal_address);
  expect_finding("a fill writes 2 bytes at byte 255");
}

CASE(parameters_of_another_size_are_refused) {
  Device device;
  const Address memory = device.allocate(256);
  EQUAL(device.launch("case_fill", 1, 64, FillParameters{memory, 1, 64}, nullptr, 0, sizeof(FillParameters) - 8), invalid_value);
  expect_finding("kernel case_fill takes 16 bytes of parameters and is given 8");
}

CASE(launches_that_no_device_can_run_are_refused) {
  Device device;
  const Address memory = device.allocate(256);
  const FillParameters fill{memory, 1, 64};
  EQUAL(device.launch("case_fill", 0, 64, fill), invalid_value);
  EQUAL(device.launch("case_fill", 1, 1025, fill), invalid_value);
  EQUAL(device.launch("case_fill", 1, 512, fill), launch_out_of_resources);
  EQUAL(device.launch("case_fill", 1, 64, fill, nullptr, (48 << 10) + 1), invalid_value);
  expect_findings(4);
  OK(cu("cuFuncSetAttribute", device.function("case_fill"), 8, 64 << 10));
  OK(device.launch("case_fill", 1, 64, fill, nullptr, (48 << 10) + 1));
  OK(device.synchronize());
}

CASE(an_image_that_does_not_fit_the_kernels_is_refused) {
  Device device;
  Handle module = nullptr;
  const char* no_image = "something else";
  EQUAL(cu("cuModuleLoadData", &module, static_cast<const void*>(no_image)), invalid_image);
  const char* wrong_size = ".version 9.0\n.visible .entry case_fill(\n\t.param .align 8 .b8 case_fill_param_0[24]\n)\n{\n}\n";
  EQUAL(cu("cuModuleLoadData", &module, static_cast<const void*>(wrong_size)), invalid_image);
  expect_finding("the image's kernel case_fill takes 24 bytes of parameters, the library's 16");
  const char* unknown_kernel = ".version 9.0\n.visible .entry case_nothing(\n)\n{\n}\n";
  EQUAL(cu("cuModuleLoadData", &module, static_cast<const void*>(unknown_kernel)), invalid_image);
  expect_finding("the library has none of that name");
  Handle function = nullptr;
  EQUAL(cu("cuModuleGetFunction", &function, device.module, "case_nothing"), not_found);
}

CASE(handles_that_are_gone_are_refused) {
  Device device;
  const Handle stream = device.new_stream(), event = device.event();
  OK(cu("cuStreamDestroy_v2", stream));
  OK(cu("cuEventDestroy_v2", event));
  EQUAL(cu("cuStreamSynchronize", stream), invalid_handle);
  EQUAL(cu("cuEventRecord", event, device.stream), invalid_handle);
  EQUAL(cu("cuStreamDestroy_v2", stream), invalid_handle);
  EQUAL(cu("cuEventQuery", event), invalid_handle);
  expect_finding("an event is used that is none, or is destroyed");
}

CASE(a_default_stream_is_refused) {
  Device device;
  EQUAL(cu("cuMemsetD8Async", device.allocate(16), static_cast<unsigned char>(0), size_t{16}, static_cast<Handle>(nullptr)),
        not_supported);
  expect_finding("a default stream is used");
}

CASE(a_capture_that_is_synchronised_or_not_joined_is_refused) {
  Device device;
  const Address memory = device.allocate(256);
  Handle graph = nullptr;
  OK(cu("cuStreamBeginCapture_v2", device.stream, 1));
  OK(device.launch("case_fill", 1, 64, FillParameters{memory, 1, 64}));
  EQUAL(device.synchronize(), capture_unsupported);
  EQUAL(cu("cuStreamEndCapture", device.stream, &graph), capture_invalidated);
  const Handle other = device.new_stream(), fork = device.event();
  OK(cu("cuStreamBeginCapture_v2", device.stream, 1));
  OK(cu("cuEventRecord", fork, device.stream));
  OK(cu("cuStreamWaitEvent", other, fork, 0u));
  OK(device.launch("case_fill", 1, 64, FillParameters{memory, 1, 64}, other));
  EQUAL(cu("cuStreamEndCapture", device.stream, &graph), capture_unjoined);
  expect_finding("a capture ends before all of its streams were joined");
  EQUAL(counter(kernels), 0);
}

CASE(more_memory_than_the_device_has_is_refused) {
  Device device;
  size_t free = 0, total = 0;
  OK(cu("cuMemGetInfo_v2", &free, &total));
  Address memory = 0;
  EQUAL(cu("cuMemAlloc_v2", &memory, free + 1), out_of_memory);
  const Address most = device.allocate(free / 2);
  EQUAL(cu("cuMemAlloc_v2", &memory, free), out_of_memory);
  OK(cu("cuMemFree_v2", most));
}

CASE(a_kernel_that_waits_for_ever_is_ended) {
  setenv("CUDA_MODEL_PATIENCE", "1", 1);
  breaks("mistake_waits_for_ever", 0, launch_timeout, "deadlock: waits for longer than 1 s in a loop", 32);
}

CASE(a_host_that_waits_for_ever_is_told) {
  setenv("CUDA_MODEL_PATIENCE", "1", 1);
  setenv("CUDA_MODEL_FAULTS", "stop@1", 1);
  Device device;
  OK(device.launch("case_fill", 1, 64, FillParameters{device.allocate(256), 1, 64}));
  EQUAL(device.synchronize(), launch_timeout);
  expect_finding("which is at case_fill");
}

CASE(the_failures_that_are_asked_for_happen) {
  setenv("CUDA_MODEL_FAULTS", "allocation@2,pinned@1,copy@2", 1);
  Device device;
  const Address memory = device.allocate(256);
  Address none = 0;
  void* pinned = nullptr;
  EQUAL(cu("cuMemAlloc_v2", &none, size_t{16}), out_of_memory);
  EQUAL(cu("cuMemHostAlloc", &pinned, size_t{16}, 0u), out_of_memory);
  OK(cu("cuMemsetD8Async", memory, static_cast<unsigned char>(0), size_t{16}, device.stream));
  OK(device.synchronize());
  OK(cu("cuMemsetD8Async", memory, static_cast<unsigned char>(0), size_t{16}, device.stream));
  EQUAL(device.synchronize(), unknown);
}

CASE(a_launch_fails_when_it_is_asked_to) {
  setenv("CUDA_MODEL_FAULTS", "launch@1", 1);
  Device device;
  OK(device.launch("case_fill", 1, 64, FillParameters{device.allocate(256), 1, 64}));
  EQUAL(device.synchronize(), launch_failed);
}
