#include "settings.h"

#include <cstdlib>

namespace model {
namespace {

long long number(const char* name, long long otherwise) {
  const char* text = std::getenv(name);
  return text != nullptr && *text != 0 ? std::atoll(text) : otherwise;
}

std::string text(const char* name, const char* otherwise) {
  const char* found = std::getenv(name);
  return found != nullptr ? found : otherwise;
}

Settings read() {
  Settings read{};
  read.devices = static_cast<int>(number("CUDA_MODEL_DEVICES", 1));
  read.memory = static_cast<size_t>(number("CUDA_MODEL_MEMORY_MB", 1024)) << 20;
  read.multiprocessors = static_cast<int>(number("CUDA_MODEL_MULTIPROCESSORS", 4));
  read.resident = static_cast<int>(number("CUDA_MODEL_RESIDENT", 32));
  read.capability = static_cast<int>(number("CUDA_MODEL_CAPABILITY", 90));
  read.product = text("CUDA_MODEL_PRODUCT", "CUDA model");
  read.kernels = text("CUDA_MODEL_KERNELS", "");
  read.seed = static_cast<uint64_t>(number("CUDA_MODEL_SEED", 1));
  read.delay_microseconds = static_cast<int>(number("CUDA_MODEL_DELAY_US", 0));
  read.queued = static_cast<int>(number("CUDA_MODEL_QUEUED", 1000));
  read.patience_seconds = static_cast<int>(number("CUDA_MODEL_PATIENCE", 60));
  read.races = number("CUDA_MODEL_RACES", 1) != 0;
  read.faults = text("CUDA_MODEL_FAULTS", "");
  read.driver = static_cast<int>(number("CUDA_MODEL_DRIVER", 13000));
  read.loads = number("CUDA_MODEL_LOADS", 1) != 0;
  read.peers = number("CUDA_MODEL_PEERS", 1) != 0;
  read.others = static_cast<size_t>(number("CUDA_MODEL_OTHERS_MB", 0)) << 20;
  read.report = text("CUDA_MODEL_REPORT", "");
  read.counters = text("CUDA_MODEL_COUNTERS", "");
  read.ran = text("CUDA_MODEL_RAN", "");
  read.calls = text("CUDA_MODEL_CALLS", "");
  read.without = text("CUDA_MODEL_WITHOUT", "");
  return read;
}

}  // namespace

const Settings& settings() {
  static const Settings* read_once = new Settings(read());
  return *read_once;
}

}  // namespace model
