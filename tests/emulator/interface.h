// What the bodies of the wrappers ask of the model: functions of libcuda.so.1, between kernels and the block that runs them.
#pragma once
#include <cstddef>
#include <cstdint>
#include <source_location>

#define MODEL_API __attribute__((visibility("default")))

namespace model {

struct Index {
  unsigned x, y, z;
};

// Where the thread that runs is. The address holds for a kernel's whole run, what lies there changes with the thread.
struct Place {
  Index thread, block, block_size, grid;
};
__attribute__((const)) MODEL_API const Place* place();

enum class Exchange { from, exclusive_or, down, up };
MODEL_API uint64_t exchange(Exchange kind, uint64_t bits, int with);
MODEL_API uint32_t vote(bool predicate);
MODEL_API void block_meets();
MODEL_API void warp_meets();
MODEL_API void group_meets(int id, int threads);
MODEL_API void* shared_array(const void* key, size_t bytes, size_t alignment);
MODEL_API unsigned char* dynamic_shared();

enum class Atomic { add, most, bits_or, exchange_if };
MODEL_API uint64_t atomic(Atomic kind, void* at, size_t bytes, uint64_t operand, uint64_t expected);
// Where they do not order, they are no more than a load and a store.
MODEL_API uint64_t acquire(const void* at, size_t bytes, bool orders);
MODEL_API void release(void* at, size_t bytes, uint64_t value, bool orders);
MODEL_API void fence();
MODEL_API void pause();
MODEL_API uint64_t nanoseconds();
MODEL_API void trap();

MODEL_API void copy16(void* to, const void* from, bool there);
MODEL_API void copy_commit();
MODEL_API void copy_wait(int left);
MODEL_API void load_matrices(uint32_t (&r)[4], const void* row, bool transposed);
MODEL_API void multiply_tile(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1);

MODEL_API void async_fence();
MODEL_API void barrier_init(void* barrier, int arrivals);
MODEL_API void barrier_fence();
MODEL_API void barrier_arrive(void* barrier, int bytes);
MODEL_API void barrier_wait(void* barrier, int parity);
MODEL_API void tile(void* to, const void* map, void* barrier, const int* at, unsigned rank);
MODEL_API uint64_t group_operand(const void* tile);
MODEL_API void group_multiply(float* d, int values, uint64_t a, uint64_t b);
MODEL_API void group_fence();
MODEL_API void group_commit();
MODEL_API void group_wait(int left);

// A wrapper that a library of kernels has, and whether it ran.
struct Wrapper {
  const char* name;
  unsigned char ran = 0;
  const Wrapper* next = nullptr;
  MODEL_API explicit Wrapper(const char* called);
};
// Notes that a wait at a place in the kernels' source runs; false where it is to be left out.
MODEL_API bool is_kept(const std::source_location& place);

// One for each kernel of the library, under the name "model_kernel_" and its own.
struct Kernel {
  const char* name;
  size_t parameter_bytes;
  unsigned most_threads;
  void (*run)(const void* parameters);
};

template <auto Function> struct Entry;
template <class Parameters, void (*Function)(Parameters)> struct Entry<Function> {
  static constexpr size_t bytes = sizeof(Parameters);
  static void run(const void* parameters) { Function(*static_cast<const Parameters*>(parameters)); }
};
template <void (*Function)()> struct Entry<Function> {
  static constexpr size_t bytes = 0;
  static void run(const void*) { Function(); }
};

}  // namespace model
