// What a right program gets from the driver.
#include <cmath>
#include <thread>

#include "driver.h"
#include "kernels.h"

CASE(kernels_fill_memory_that_copies_bring_back) {
  Device device;
  const Address out = device.allocate(1000 * 4);
  OK(device.launch("case_fill", 3, 256, FillParameters{out, 7, 1000}));
  const auto values = device.download<uint32_t>(out, 1000);
  for (uint32_t i = 0; i < 1000; ++i) EQUAL(values[i], 7 + i);
  EQUAL(counter(launches), 1);
  EQUAL(counter(findings), 0);
}

CASE(threads_sum_in_an_order_that_no_seed_changes) {
  Device device;
  std::vector<float> values(4 * 1000);
  for (size_t i = 0; i < values.size(); ++i) values[i] = std::sin(static_cast<float>(i)) * 3;
  const Address in = device.upload(values), out = device.allocate(8 * 4);
  OK(device.launch("case_sum", 4, 256, SumParameters{in, out, 1000}, nullptr, 4000));
  const auto sums = device.download<float>(out, 8);
  for (size_t row = 0; row < 4; ++row) {
    double sum = 0;
    for (size_t i = 0; i < 1000; ++i) sum += static_cast<double>(values[row * 1000 + i]);
    CHECK(std::fabs(sums[row * 2] - sum) < 1e-3);
    uint32_t bits;
    std::memcpy(&bits, &sums[row * 2], 4);
    std::printf("%08x\n", bits);
  }
}

CASE(numbers_are_as_near_as_the_header_says) {
  Device device;
  std::vector<float> values;
  for (int i = -2600; i < 2300; ++i) values.push_back(static_cast<float>(i) * 0.0371f);
  for (float special : {0.0f, 1e-30f, 3e38f, INFINITY, -INFINITY, 88.72f, -103.9f, 89.5f, -200.0f}) values.push_back(special);
  values.push_back(NAN);
  const Address in = device.upload(values), out = device.allocate(values.size() * 24);
  OK(device.launch("case_numbers", 1, 32, NumbersParameters{in, out, static_cast<uint32_t>(values.size())}));
  const auto got = device.download<float>(out, values.size() * 6);
  // In units of the last place, of which the smallest numbers have one of 2^-149.
  const auto apart = [](float value, double wanted) {
    if (std::isnan(wanted)) return std::isnan(value) ? 0.0 : INFINITY;
    if (std::isinf(static_cast<float>(wanted))) return value == static_cast<float>(wanted) ? 0.0 : INFINITY;
    const float near = static_cast<float>(wanted);
    return std::fabs(static_cast<double>(value) - wanted) /
           (static_cast<double>(std::nextafterf(std::fabs(near), INFINITY)) - std::fabs(static_cast<double>(near)));
  };
  double exponential = 0, logarithm = 0, root = 0;
  for (size_t i = 0; i < values.size(); ++i) {
    const double x = static_cast<double>(values[i]);
    exponential = std::max(exponential, apart(got[i * 6], std::exp(x)));
    if (!(x > 0 && x < 1.2e-38) && apart(got[i * 6 + 1], std::log(x)) > 4)
      std::printf("log(%g) = %g, not %g\n", x, static_cast<double>(got[i * 6 + 1]), std::log(x));
    if (!(x > 0 && x < 1.2e-38)) logarithm = std::max(logarithm, apart(got[i * 6 + 1], std::log(x)));
    if (x > 0) root = std::max(root, apart(got[i * 6 + 2], 1 / std::sqrt(x)));
    if (std::isfinite(x))
      CHECK(std::fabs(static_cast<double>(got[i * 6 + 3]) - x / (1 + std::exp(-x))) <= 1e-6 * std::fabs(x) + 1e-30);
    if (std::isfinite(x)) CHECK(std::fabs(static_cast<double>(got[i * 6 + 4]) - x) <= std::fabs(x) / 256);
    CHECK(got[i * 6 + 4] == got[i * 6 + 5] || std::isnan(x));
  }
  std::printf("units in the last place: exponential %.2f, logarithm %.2f, inverse root %.2f\n", exponential, logarithm, root);
  CHECK(exponential <= 2 && logarithm <= 4 && root <= 2);
}

CASE(lanes_of_a_warp_exchange_values) {
  Device device;
  const Address out = device.allocate(64 * 6 * 4);
  OK(device.launch("case_warp", 1, 64, WarpParameters{out}));
  const auto got = device.download<uint32_t>(out, 64 * 6);
  for (uint32_t i = 0; i < 64; ++i) {
    const uint32_t first = i / 32 * 32, lane = i % 32;
    EQUAL(got[i * 6], (first + 3) * 10);
    EQUAL(got[i * 6 + 1], (first + (lane ^ 5)) * 10);
    EQUAL(got[i * 6 + 2], (lane + 4 < 32 ? i + 4 : i) * 10);
    EQUAL(got[i * 6 + 3], (lane >= 4 ? i - 4 : i) * 10);
    EQUAL(got[i * 6 + 4], 0x49249249u);
    EQUAL(got[i * 6 + 5], (first + 7) * 10);
  }
}

CASE(counts_of_all_threads_add_up) {
  Device device;
  const Address counts = device.upload(std::vector<uint32_t>(4)), wide = device.upload(std::vector<uint64_t>(1));
  OK(device.launch("case_count", 5, 128, CountParameters{counts, wide}));
  const auto got = device.download<uint32_t>(counts, 4);
  EQUAL(got[0], 5 * 128);
  EQUAL(got[1], 4127);
  EQUAL(got[2], 0xffffffffu);
  EQUAL(got[3], 7);
  EQUAL(device.download<uint64_t>(wide, 1)[0], uint64_t{640} << 33);
}

CASE(tensor_cores_multiply_tiles) {
  Device device;
  const auto half = [](int value) {
    float f = static_cast<float>(value) / 8;
    uint32_t bits;
    std::memcpy(&bits, &f, 4);
    return static_cast<uint16_t>(bits >> 16);
  };
  std::vector<uint16_t> a, b;
  for (int i = 0; i < 256; ++i) a.push_back(half(i * 7 % 31 - 15));
  for (int i = 0; i < 128; ++i) b.push_back(half(i * 5 % 23 - 11));
  const Address left = device.upload(a), right = device.upload(b), out = device.allocate(128 * 4);
  OK(device.launch("case_tile", 1, 32, TileParameters{left, right, out}));
  const auto got = device.download<float>(out, 128);
  for (int row = 0; row < 16; ++row)
    for (int column = 0; column < 8; ++column) {
      float sum = 0;
      for (int k = 0; k < 16; ++k)
        sum += static_cast<float>((row * 16 + k) * 7 % 31 - 15) / 8 * static_cast<float>((column * 16 + k) * 5 % 23 - 11) / 8;
      CHECK(got[static_cast<size_t>(row * 8 + column)] == sum);
    }
}

CASE(a_kernel_waits_for_one_of_another_stream) {
  Device device;
  auto* flags = device.pinned<uint32_t>(4);
  std::memset(flags, 0, 16);
  Address at = 0;
  OK(cu("cuMemHostGetDevicePointer_v2", &at, static_cast<void*>(flags), 0u));
  const Handle other = device.new_stream();
  OK(device.launch("case_flag", 1, 32, FlagParameters{at, at + 4, 0}, other));
  OK(device.launch("case_flag", 1, 32, FlagParameters{at, at + 4, 1}));
  OK(device.synchronize(other));
  EQUAL(flags[2], 43);
  EQUAL(counter(findings), 0);
}

CASE(an_event_orders_streams_and_says_when_it_is_reached) {
  Device device;
  const Handle other = device.new_stream(), event = device.event();
  const Address out = device.allocate(4000);
  OK(device.launch("case_fill", 1, 256, FillParameters{out, 1, 1000}));
  OK(cu("cuEventRecord", event, device.stream));
  OK(cu("cuStreamWaitEvent", other, event, 0u));
  OK(device.launch("case_fill", 1, 256, FillParameters{out, 5, 1000}, other));
  OK(cu("cuEventRecord", event, other));
  OK(cu("cuEventSynchronize", event));
  OK(cu("cuEventQuery", event));
  EQUAL(device.download<uint32_t>(out, 1000)[999], 1004);
  OK(cu("cuEventDestroy_v2", event));
  EQUAL(counter(findings), 0);
}

CASE(a_graph_replays_what_was_captured_on_two_streams) {
  Device device;
  const Handle other = device.new_stream(), fork = device.event(), join = device.event();
  const Address a = device.allocate(400), b = device.allocate(400);
  OK(cu("cuStreamBeginCapture_v2", device.stream, 1));
  OK(device.launch("case_fill", 1, 64, FillParameters{a, 1, 100}));
  OK(cu("cuEventRecord", fork, device.stream));
  OK(cu("cuStreamWaitEvent", other, fork, 0u));
  OK(cu("cuMemcpyDtoDAsync_v2", b, a, size_t{400}, other));
  OK(cu("cuEventRecord", join, other));
  OK(cu("cuStreamWaitEvent", device.stream, join, 0u));
  OK(device.launch("case_fill", 1, 64, FillParameters{a, 9, 100}));
  Handle graph = nullptr, executable = nullptr;
  OK(cu("cuStreamEndCapture", device.stream, &graph));
  OK(cu("cuGraphInstantiateWithFlags", &executable, graph, uint64_t{0}));
  OK(cu("cuGraphDestroy", graph));
  EQUAL(counter(kernels), 0);
  for (int i = 0; i < 3; ++i) OK(cu("cuGraphLaunch", executable, device.stream));
  OK(device.synchronize());
  EQUAL(device.download<uint32_t>(a, 100)[99], 108);
  EQUAL(device.download<uint32_t>(b, 100)[99], 100);
  EQUAL(counter(kernels), 6);
  EQUAL(counter(launches), 3);
  EQUAL(counter(captures), 1);
  OK(cu("cuGraphExecDestroy", executable));
}

CASE(an_event_that_is_a_part_of_a_graph_tells_when_each_launch_of_it_was_there) {
  Device device;
  const Address a = device.allocate(400);
  Handle begin = nullptr, end = nullptr, graph = nullptr, executable = nullptr;
  OK(cu("cuEventCreate", &begin, 0u));
  OK(cu("cuEventCreate", &end, 0u));
  EQUAL(cu("cuEventRecordWithFlags", begin, device.stream, 1u), invalid_value);
  OK(cu("cuEventRecordWithFlags", begin, device.stream, 0u));
  OK(cu("cuStreamBeginCapture_v2", device.stream, 1));
  OK(cu("cuEventRecordWithFlags", begin, device.stream, 1u));
  OK(device.launch("case_fill", 1, 64, FillParameters{a, 1, 100}));
  OK(cu("cuEventRecordWithFlags", end, device.stream, 1u));
  OK(cu("cuStreamEndCapture", device.stream, &graph));
  OK(cu("cuGraphInstantiateWithFlags", &executable, graph, uint64_t{0}));
  float milliseconds = -1;
  EQUAL(cu("cuEventElapsedTime_v2", &milliseconds, begin, end), invalid_handle);
  for (int i = 0; i < 2; ++i) {
    OK(cu("cuGraphLaunch", executable, device.stream));
    OK(device.synchronize());
    milliseconds = -1;
    OK(cu("cuEventElapsedTime_v2", &milliseconds, begin, end));
    CHECK(milliseconds >= 0);
  }
  EQUAL(counter(findings), 0);
}

struct Location {
  int type, id;
};
struct Properties {
  int type, handle_types;
  Location location;
  void* windows;
  unsigned char flags[8];
};
struct Access {
  Location location;
  int flags;
};

CASE(memory_is_mapped_at_addresses_reserved_before_and_shared_by_its_file) {
  Device device;
  const Properties properties{1, 1, {1, 0}, nullptr, {}};
  size_t part = 0;
  OK(cu("cuMemGetAllocationGranularity", &part, &properties, 0));
  Address at = 0, twin = 0;
  OK(cu("cuMemAddressReserve", &at, 2 * part, size_t{0}, Address{0}, uint64_t{0}));
  uint64_t handles[2];
  const Access access{{1, 0}, 3};
  for (size_t i = 0; i < 2; ++i) {
    OK(cu("cuMemCreate", &handles[i], part, &properties, uint64_t{0}));
    OK(cu("cuMemMap", at + i * part, part, size_t{0}, handles[i], uint64_t{0}));
  }
  OK(cu("cuMemSetAccess", at, 2 * part, &access, size_t{1}));
  // One range over both parts, as an arena is.
  OK(device.launch("case_fill", 1, 256, FillParameters{at + part - 400, 3, 200}));
  OK(device.synchronize());
  int file = -1;
  uint64_t imported = 0;
  OK(cu("cuMemExportToShareableHandle", static_cast<void*>(&file), handles[1], 1, uint64_t{0}));
  OK(cu("cuMemImportFromShareableHandle", &imported, reinterpret_cast<void*>(static_cast<intptr_t>(file)), 1));
  OK(cu("cuMemAddressReserve", &twin, part, size_t{0}, Address{0}, uint64_t{0}));
  OK(cu("cuMemMap", twin, part, size_t{0}, imported, uint64_t{0}));
  OK(cu("cuMemSetAccess", twin, part, &access, size_t{1}));
  EQUAL(device.download<uint32_t>(twin, 1)[0], 103);
  for (uint64_t handle : {handles[0], handles[1], imported}) OK(cu("cuMemRelease", handle));
  OK(cu("cuMemUnmap", at, 2 * part));
  OK(cu("cuMemUnmap", twin, part));
  OK(cu("cuMemAddressFree", at, 2 * part));
  size_t free = 0, total = 0;
  OK(cu("cuMemGetInfo_v2", &free, &total));
  EQUAL(free, total);
}

CASE(the_runtime_compiler_names_the_kernels_it_knows) {
  Device device;
  const auto compile = [&](const char* source, std::string* ptx) {
    const auto call = [](const char* name, auto... arguments) {
      return reinterpret_cast<int (*)(decltype(arguments)...)>(symbol("libnvrtc.so", name))(arguments...);
    };
    Handle program = nullptr;
    OK(call("nvrtcCreateProgram", &program, source, "x.cu", 0, static_cast<const char**>(nullptr),
            static_cast<const char**>(nullptr)));
    const char* options[] = {"--gpu-architecture=compute_90"};
    const int result = call("nvrtcCompileProgram", program, 1, static_cast<const char**>(options));
    size_t bytes = 0;
    OK(call("nvrtcGetPTXSize", program, &bytes));
    ptx->resize(bytes);
    OK(call("nvrtcGetPTX", program, ptx->data()));
    return result;
  };
  std::string ptx;
  OK(compile("extern \"C\" KERNEL(256) case_fill(GRID_CONSTANT const FillParameters p) {}", &ptx));
  Handle module = nullptr, found = nullptr;
  OK(cu("cuModuleLoadData", &module, static_cast<const void*>(ptx.c_str())));
  OK(cu("cuModuleGetFunction", &found, module, "case_fill"));
  EQUAL(cu("cuModuleGetFunction", &found, module, "case_warp"), not_found);
  size_t offset = 9, bytes = 0;
  OK(cu("cuModuleGetFunction", &found, module, "case_fill"));
  OK(cu("cuFuncGetParamInfo", found, size_t{0}, &offset, &bytes));
  CHECK(offset == 0 && bytes == sizeof(FillParameters));
  EQUAL(compile("extern \"C\" __global__ void __launch_bounds__(64) no_such_kernel(int p) {}", &ptx), 6);
}

CASE(the_management_library_knows_the_devices) {
  const auto call = [](const char* name, auto... arguments) {
    return reinterpret_cast<int (*)(decltype(arguments)...)>(symbol("libnvidia-ml.so.1", name))(arguments...);
  };
  unsigned count = 0;
  Handle device = nullptr;
  uint64_t memory[3] = {};
  OK(call("nvmlInit_v2"));
  OK(call("nvmlDeviceGetCount_v2", &count));
  EQUAL(count, 1);
  OK(call("nvmlDeviceGetHandleByIndex_v2", 0u, &device));
  OK(call("nvmlDeviceGetMemoryInfo", device, static_cast<uint64_t*>(memory)));
  EQUAL(memory[0], uint64_t{1} << 30);
}
