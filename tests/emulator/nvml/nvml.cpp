// What is asked of the management library: the devices of the emulated machine, their names, memory and how busy they are.
// The memory in use is what CUDA_MODEL_NVML_USED_MB says and the busy share what CUDA_MODEL_NVML_BUSY says, in percent: a
// library in another process cannot know the driver's.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#define NVML extern "C" __attribute__((visibility("default"))) int

namespace {

constexpr int success = 0, invalid_argument = 2, insufficient_size = 7;

long long number(const char* name, long long otherwise) {
  const char* text = std::getenv(name);
  return text != nullptr && *text != 0 ? std::atoll(text) : otherwise;
}

int devices() { return static_cast<int>(number("CUDA_MODEL_DEVICES", 1)); }
uint64_t total() { return static_cast<uint64_t>(number("CUDA_MODEL_MEMORY_MB", 1024)) << 20; }
uint64_t used() { return static_cast<uint64_t>(number("CUDA_MODEL_NVML_USED_MB", 0)) << 20; }

// A handle is the number of the device, from 1.
int index_of(const void* device) { return static_cast<int>(reinterpret_cast<intptr_t>(device)) - 1; }
bool is_device(const void* device) { return index_of(device) >= 0 && index_of(device) < devices(); }

int text(char* to, unsigned length, const char* from) {
  if (std::strlen(from) >= length) return insufficient_size;
  std::strcpy(to, from);
  return success;
}

struct Memory {
  uint64_t total, free, used;
};
struct MemoryV2 {
  unsigned version;
  uint64_t total, reserved, free, used;
};
struct Utilization {
  unsigned gpu, memory;
};

}  // namespace

NVML nvmlInit_v2() { return success; }
NVML nvmlInitWithFlags(unsigned) { return success; }
NVML nvmlShutdown() { return success; }
NVML nvmlSystemGetDriverVersion(char* version, unsigned length) { return text(version, length, "580.65.06"); }
NVML nvmlSystemGetCudaDriverVersion_v2(int* version) {
  *version = 13000;
  return success;
}
NVML nvmlDeviceGetCount_v2(unsigned* count) {
  *count = static_cast<unsigned>(devices());
  return success;
}
NVML nvmlDeviceGetHandleByIndex_v2(unsigned index, void** device) {
  if (index >= static_cast<unsigned>(devices())) return invalid_argument;
  *device = reinterpret_cast<void*>(static_cast<intptr_t>(index) + 1);
  return success;
}
NVML nvmlDeviceGetHandleByPciBusId_v2(const char* bus, void** device) {
  unsigned number = 0;
  if (std::sscanf(bus, "%*x:%x", &number) != 1 || number == 0) return invalid_argument;
  return nvmlDeviceGetHandleByIndex_v2(number - 1, device);
}
NVML nvmlDeviceGetIndex(const void* device, unsigned* index) {
  if (!is_device(device)) return invalid_argument;
  *index = static_cast<unsigned>(index_of(device));
  return success;
}
NVML nvmlDeviceGetName(const void* device, char* name, unsigned length) {
  if (!is_device(device)) return invalid_argument;
  const char* product = std::getenv("CUDA_MODEL_PRODUCT");
  return text(name, length, product != nullptr ? product : "CUDA model");
}
NVML nvmlDeviceGetMemoryInfo(const void* device, Memory* memory) {
  if (!is_device(device)) return invalid_argument;
  *memory = {total(), total() - used(), used()};
  return success;
}
NVML nvmlDeviceGetMemoryInfo_v2(const void* device, MemoryV2* memory) {
  if (!is_device(device)) return invalid_argument;
  *memory = {memory->version, total(), 0, total() - used(), used()};
  return success;
}
NVML nvmlDeviceGetUtilizationRates(const void* device, Utilization* rates) {
  if (!is_device(device)) return invalid_argument;
  const auto busy = static_cast<unsigned>(number("CUDA_MODEL_NVML_BUSY", 0));
  *rates = {busy, busy / 2};
  return success;
}
NVML nvmlDeviceGetCudaComputeCapability(const void* device, int* major, int* minor) {
  if (!is_device(device)) return invalid_argument;
  const auto capability = static_cast<int>(number("CUDA_MODEL_CAPABILITY", 90));
  *major = capability / 10;
  *minor = capability % 10;
  return success;
}

extern "C" __attribute__((visibility("default"))) const char* nvmlErrorString(int result) {
  switch (result) {
    case success: return "The operation was successful";
    case invalid_argument: return "A supplied argument is invalid";
    case insufficient_size: return "An input argument is not large enough";
    default: return "An internal driver error occurred";
  }
}
