// The driver as a program of cudarc's kind meets it: opened by name, each function looked up at its first call.
#pragma once
#include <dlfcn.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <string>
#include <utility>
#include <vector>

using Address = uint64_t;
using Handle = void*;

enum : int {
  success = 0,
  invalid_value = 1,
  out_of_memory = 2,
  invalid_image = 200,
  invalid_handle = 400,
  not_found = 500,
  not_ready = 600,
  illegal_address = 700,
  launch_out_of_resources = 701,
  launch_timeout = 702,
  misaligned_address = 716,
  launch_failed = 719,
  not_supported = 801,
  capture_unsupported = 900,
  capture_invalidated = 901,
  capture_unjoined = 904,
  unknown = 999,
};

[[noreturn]] inline void fail(const char* file, int line, const std::string& what) {
  std::fprintf(stderr, "%s:%d: %s\n", file, line, what.c_str());
  std::fflush(nullptr);
  _Exit(1);
}
template <class T, class U> std::pair<T, T> alike(T got, U wanted) { return {got, static_cast<T>(wanted)}; }
#define CHECK(condition) \
  if (!(condition)) fail(__FILE__, __LINE__, #condition)
#define EQUAL(got, wanted)                                                                      \
  if (const auto [value_got, value_wanted] = alike((got), (wanted)); value_got != value_wanted) \
  fail(__FILE__, __LINE__, std::string(#got " is ") + std::to_string(value_got) + ", not " + std::to_string(value_wanted))
#define OK(call) EQUAL(call, success)

inline void* symbol(const char* library, const char* name) {
  void* handle = dlopen(library, RTLD_NOW | RTLD_LOCAL);
  void* found = handle == nullptr ? nullptr : dlsym(handle, name);
  if (found == nullptr) fail(library, 0, std::string("no function ") + name);
  return found;
}

template <class... Arguments> int cu(const char* name, Arguments... arguments) {
  return reinterpret_cast<int (*)(Arguments...)>(symbol("libcuda.so.1", name))(arguments...);
}

// The order of tests/emulator/driver/counters.h.
enum CounterOf {
  synchronisations,
  launches,
  kernels,
  allocations,
  frees,
  copies,
  copied_bytes,
  captures,
  graph_launches,
  tensor_maps,
  findings
};
inline uint64_t counter(CounterOf which) {
  return reinterpret_cast<uint64_t (*)(int)>(symbol("libcuda.so.1", "cudaModelCounter"))(which);
}

// The lines that were found so far; what is found and not expected fails the case at its end.
inline std::string& expected_findings() {
  static std::string all;
  return all;
}
inline std::string found_lines() { return reinterpret_cast<const char* (*)()>(symbol("libcuda.so.1", "cudaModelFindings"))(); }
inline void expect_finding(const char* part) {
  const std::string found = found_lines();
  if (found.find(part) == std::string::npos) fail("", 0, std::string("not found: ") + part + "; but: " + found);
  if (found.find("(seed ") == std::string::npos) fail("", 0, "no seed is said");
  expected_findings() = found;
}
inline void expect_findings(uint64_t count) {
  EQUAL(counter(findings), count);
  expected_findings() = found_lines();
}

// A device with its context current, the kernels loaded and one stream.
struct Device {
  Handle context = nullptr, module = nullptr, stream = nullptr;
  explicit Device(int ordinal = 0) {
    OK(cu("cuInit", 0u));
    OK(cu("cuDevicePrimaryCtxRetain", &context, ordinal));
    OK(cu("cuCtxSetCurrent", context));
    const char* image =
        "\x7f"
        "ELF";
    OK(cu("cuModuleLoadData", &module, static_cast<const void*>(image)));
    stream = new_stream();
  }
  Handle new_stream() const {
    Handle made = nullptr;
    OK(cu("cuStreamCreate", &made, 1u));
    return made;
  }
  Address allocate(size_t bytes) const {
    Address at = 0;
    OK(cu("cuMemAlloc_v2", &at, bytes));
    return at;
  }
  template <class T> T* pinned(size_t count) const {
    void* at = nullptr;
    OK(cu("cuMemHostAlloc", &at, count * sizeof(T), 3u));
    return static_cast<T*>(at);
  }
  Handle event() const {
    Handle made = nullptr;
    OK(cu("cuEventCreate", &made, 2u));
    return made;
  }
  template <class T> Address upload(const std::vector<T>& values) const {
    const Address at = allocate(values.size() * sizeof(T));
    OK(cu("cuMemcpyHtoDAsync_v2", at, static_cast<const void*>(values.data()), values.size() * sizeof(T), stream));
    return at;
  }
  template <class T> std::vector<T> download(Address at, size_t count) const {
    std::vector<T> values(count);
    OK(cu("cuMemcpyDtoHAsync_v2", static_cast<void*>(values.data()), at, count * sizeof(T), stream));
    return values;
  }
  Handle function(const char* name) const {
    Handle found = nullptr;
    OK(cu("cuModuleGetFunction", &found, module, name));
    return found;
  }
  template <class Parameters> int launch(const char* name, unsigned blocks, unsigned threads, const Parameters& parameters,
                                         Handle on = nullptr, unsigned shared = 0, size_t bytes = sizeof(Parameters)) const {
    void* extra[] = {reinterpret_cast<void*>(1), const_cast<Parameters*>(&parameters), reinterpret_cast<void*>(2), &bytes,
                     nullptr};
    return cu("cuLaunchKernel", function(name), blocks, 1u, 1u, threads, 1u, 1u, shared, on == nullptr ? stream : on,
              static_cast<void**>(nullptr), static_cast<void**>(extra));
  }
  int synchronize(Handle on = nullptr) const { return cu("cuStreamSynchronize", on == nullptr ? stream : on); }
};

struct Case {
  const char* name;
  void (*run)();
};
inline std::vector<Case>& cases() {
  static std::vector<Case> all;
  return all;
}
struct Registered {
  Registered(const char* name, void (*run)()) { cases().push_back({name, run}); }
};
#define CASE(name)                                        \
  static void name();                                     \
  static const Registered registered_##name(#name, name); \
  static void name()
