// Several devices: whose memory a kernel may use, and memory that processes share.
#include <sys/wait.h>
#include <unistd.h>

#include "driver.h"
#include "kernels.h"

namespace {

constexpr int peer_access_already_enabled = 704;

// As cuda.h lays them out.
struct Place {
  int type, id;
};
struct MappedProperties {
  int type, handles;
  Place place;
  void* windows;
  unsigned char flags[8];
};
struct GivenAccess {
  Place place;
  int flags;
};

size_t granularity() {
  const MappedProperties properties{1, 0, {1, 1}, nullptr, {}};
  size_t part = 0;
  OK(cu("cuMemGetAllocationGranularity", &part, &properties, 0));
  return part;
}

void give_access(Address at, int ordinal) {
  const GivenAccess access{{1, ordinal}, 3};
  OK(cu("cuMemSetAccess", at, granularity(), &access, size_t{1}));
}

// Mapped memory of device 1, which has filled it with 5, 6, 7 and so on.
Address mapped_on(const Device& device) {
  const MappedProperties properties{1, 0, {1, 1}, nullptr, {}};
  Address at = 0;
  uint64_t memory = 0;
  OK(cu("cuMemAddressReserve", &at, granularity(), size_t{0}, Address{0}, uint64_t{0}));
  OK(cu("cuMemCreate", &memory, granularity(), &properties, uint64_t{0}));
  OK(cu("cuMemMap", at, granularity(), size_t{0}, memory, uint64_t{0}));
  give_access(at, 1);
  OK(device.launch("case_fill", 1, 64, FillParameters{at, 5, 64}));
  OK(device.synchronize());
  return at;
}

}  // namespace

CASE(a_kernel_uses_the_memory_of_a_peer_after_access_is_enabled) {
  setenv("CUDA_MODEL_DEVICES", "2", 1);
  Device other(1);
  const Address memory = other.allocate(256);
  Device device(0);
  int can = 0;
  OK(cu("cuDeviceCanAccessPeer", &can, 0, 1));
  EQUAL(can, 1);
  OK(cu("cuCtxEnablePeerAccess", other.context, 0u));
  EQUAL(cu("cuCtxEnablePeerAccess", other.context, 0u), peer_access_already_enabled);
  OK(device.launch("case_fill", 1, 64, FillParameters{memory, 5, 64}));
  OK(device.synchronize());
  OK(cu("cuCtxSetCurrent", other.context));
  EQUAL(other.download<uint32_t>(memory, 64)[63], 68);
}

CASE(a_kernel_that_uses_the_memory_of_a_device_without_access_is_found) {
  setenv("CUDA_MODEL_DEVICES", "2", 1);
  Device other(1);
  const Address memory = other.allocate(256);
  Device device(0);
  OK(device.launch("case_fill", 1, 64, FillParameters{memory, 5, 64}));
  EQUAL(device.synchronize(), illegal_address);
  expect_finding("of device 1 on device 0, which was given no access to it");
}

CASE(a_page_is_copied_from_a_peer_by_the_copy_engine_alone) {
  setenv("CUDA_MODEL_DEVICES", "2", 1);
  Device other(1);
  const Address from = other.upload(std::vector<uint32_t>{1, 2, 3, 4});
  OK(other.synchronize());
  Device device(0);
  const Address to = device.allocate(16);
  OK(cu("cuMemcpyPeerAsync", to, device.context, from, other.context, size_t{16}, device.stream));
  EQUAL(device.download<uint32_t>(to, 4)[3], 4);
  EQUAL(counter(kernels), 0);
}

CASE(a_copy_reads_mapped_memory_of_another_device_that_access_was_given_to) {
  setenv("CUDA_MODEL_DEVICES", "2", 1);
  Device other(1);
  const Address from = mapped_on(other);
  Device device(0);
  give_access(from, 0);
  const Address to = device.allocate(16);
  OK(cu("cuMemcpyDtoDAsync_v2", to, from, size_t{16}, device.stream));
  EQUAL(device.download<uint32_t>(to, 4)[3], 8);
}

// What contexts let each other use is not memory that was mapped.
CASE(a_copy_out_of_mapped_memory_of_another_device_without_access_is_found) {
  setenv("CUDA_MODEL_DEVICES", "2", 1);
  Device other(1);
  const Address from = mapped_on(other);
  Device device(0);
  OK(cu("cuCtxEnablePeerAccess", other.context, 0u));
  const Address to = device.allocate(16);
  OK(cu("cuMemcpyDtoDAsync_v2", to, from, size_t{16}, device.stream));
  EQUAL(device.synchronize(), illegal_address);
  expect_finding("a copy of device 0 reads");
}

CASE(a_process_reads_what_another_wrote_to_memory_that_it_opened_by_handle) {
  struct IpcHandle {
    char bytes[64];
  };
  int pipes[2], back[2];
  CHECK(pipe(pipes) == 0 && pipe(back) == 0);
  const pid_t child = fork();
  IpcHandle handle{};
  if (child == 0) {
    Device device;
    const Address memory = device.allocate(1000);
    OK(device.launch("case_fill", 1, 64, FillParameters{memory, 9, 250}));
    OK(device.synchronize());
    OK(cu("cuIpcGetMemHandle", &handle, memory));
    CHECK(write(pipes[1], &handle, sizeof handle) == sizeof handle);
    char done;
    CHECK(read(back[0], &done, 1) == 1);
    _exit(0);
  }
  CHECK(read(pipes[0], &handle, sizeof handle) == sizeof handle);
  Device device;
  Address opened = 0;
  OK(cu("cuIpcOpenMemHandle_v2", &opened, handle, 1u));
  EQUAL(device.download<uint32_t>(opened, 250)[249], 258);
  OK(cu("cuIpcCloseMemHandle", opened));
  CHECK(write(back[1], "x", 1) == 1);
  int status = 0;
  CHECK(waitpid(child, &status, 0) == child);
  EQUAL(status, 0);
}
