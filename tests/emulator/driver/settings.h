// What the environment says of the emulated machine. Read once; every number of a run can be given again.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>

namespace model {

struct Settings {
  int devices;             // CUDA_MODEL_DEVICES, 1
  size_t memory;           // CUDA_MODEL_MEMORY_MB of each device, 1024
  int multiprocessors;     // CUDA_MODEL_MULTIPROCESSORS, 4
  int resident;            // CUDA_MODEL_RESIDENT, 32: blocks of a kernel that a multiprocessor runs at once, at most
  int capability;          // CUDA_MODEL_CAPABILITY, 90 for compute capability 9.0
  std::string product;     // CUDA_MODEL_PRODUCT, the device's name
  std::string kernels;     // CUDA_MODEL_KERNELS, the library of kernels
  uint64_t seed;           // CUDA_MODEL_SEED, 1: of every order that a GPU leaves open
  int delay_microseconds;  // CUDA_MODEL_DELAY_US, 0: most that a stream waits before an operation
  int queued;              // CUDA_MODEL_QUEUED, 1000: operations that a stream takes; who launches more waits, and others with it
  int patience_seconds;    // CUDA_MODEL_PATIENCE, 60: a kernel that waits longer is in a deadlock, the host after twice that
  bool races;              // CUDA_MODEL_RACES, 1: unordered accesses are looked for
  std::string faults;      // CUDA_MODEL_FAULTS, see faults.h
  int driver;              // CUDA_MODEL_DRIVER, 13000: the version that it says it has
  bool loads;              // CUDA_MODEL_LOADS, 1: 0 refuses every image as one of an unsupported compiler
  bool peers;              // CUDA_MODEL_PEERS, 1: 0 lets no device use the memory of another
  size_t others;           // CUDA_MODEL_OTHERS_MB, 0: what another process has taken of each device
  std::string report;      // CUDA_MODEL_REPORT, a file to which findings are appended
  std::string counters;    // CUDA_MODEL_COUNTERS, a file that holds the counters
  std::string ran;         // CUDA_MODEL_RAN, a file to which what ran is appended when the process ends, see ran.h
  std::string calls;       // CUDA_MODEL_CALLS, the same for who called what the host waits with
  std::string without;     // CUDA_MODEL_WITHOUT, waits that are left out, by comma: FILE:LINE of kernels, +ADDRESS of the program
};

const Settings& settings();

}  // namespace model
