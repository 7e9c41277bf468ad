// What kernels/cu/device.cuh becomes on the emulated device: the bodies of its wrappers, and of some that only kernels of the driver's
// own tests use. Included by kernels alone.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstring>
#include <source_location>
#include <type_traits>

#include "interface.h"

namespace model {

template <class T> uint64_t widen(T value) {
  static_assert(std::is_trivially_copyable_v<T> && (sizeof(T) == 4 || sizeof(T) == 8), "lanes exchange 4 or 8 bytes");
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof value);
  return bits;
}
template <class T> T narrow(uint64_t bits) {
  T value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

// The name of a wrapper as a type, and whether that ran in this process.
template <size_t LENGTH> struct Name {
  char text[LENGTH];
  consteval Name(const char (&name)[LENGTH]) { std::copy_n(name, LENGTH, text); }
};
template <Name NAME> struct Ran {
  static inline Wrapper wrapper{NAME.text};
};

}  // namespace model

// Each wrapper says that it runs. Written without the compiler's knowledge, which would have it checked as an access of the kernel.
#define RUNS(NAME) asm volatile("movb $1, %0" : "=m"(model::Ran<#NAME>::wrapper.ran))
// Each wrapper that waits for others or lets others go on takes where it is used, for that place may be left out.
#define PLACE std::source_location place = std::source_location::current()

#define MODEL_KERNEL(NAME, THREADS)                             \
  extern "C" MODEL_API const model::Kernel model_kernel_##NAME; \
  const model::Kernel model_kernel_##NAME = {#NAME, model::Entry<NAME>::bytes, THREADS, model::Entry<NAME>::run};

#define KERNEL(...) void
#define GRID_CONSTANT
#define DEVICE inline
#define SHARED(type, name, count)                                        \
  type(&name)[count] = *static_cast<type(*)[count]>(model::shared_array( \
      [] {                                                               \
        static const char key = 0;                                       \
        return static_cast<const void*>(&key);                           \
      }(),                                                               \
      sizeof(type) * (count), alignof(type)))
#define DYNAMIC_SHARED(name) unsigned char* name = model::dynamic_shared()

#define threadIdx (model::place()->thread)
#define blockIdx (model::place()->block)
#define blockDim (model::place()->block_size)
#define gridDim (model::place()->grid)

struct alignas(16) uint4 {
  unsigned x, y, z, w;
};

inline unsigned lane() { RUNS(lane); return threadIdx.x % 32; }
inline unsigned warp() { RUNS(warp); return threadIdx.x / 32; }
inline void block_barrier(PLACE) {
  RUNS(block_barrier);
  if (model::is_kept(place)) model::block_meets();
}
inline void warp_barrier(PLACE) {
  RUNS(warp_barrier);
  if (model::is_kept(place)) model::warp_meets();
}
inline void group_barrier(int id, int threads, PLACE) {
  RUNS(group_barrier);
  if (model::is_kept(place)) model::group_meets(id, threads);
}
template <class T> T shuffle(T value, int from) {
  RUNS(shuffle);
  return model::narrow<T>(model::exchange(model::Exchange::from, model::widen(value), from));
}
template <class T> T shuffle_xor(T value, int mask) {
  RUNS(shuffle_xor);
  return model::narrow<T>(model::exchange(model::Exchange::exclusive_or, model::widen(value), mask));
}
template <class T> T shuffle_down(T value, int lanes) {
  RUNS(shuffle_down);
  return model::narrow<T>(model::exchange(model::Exchange::down, model::widen(value), lanes));
}
template <class T> T shuffle_up(T value, int lanes) {
  RUNS(shuffle_up);
  return model::narrow<T>(model::exchange(model::Exchange::up, model::widen(value), lanes));
}
inline uint32_t vote(bool predicate) { RUNS(vote); return model::vote(predicate); }

// One access of 16 aligned bytes, which the compiler does not split.
typedef unsigned Sixteen __attribute__((vector_size(16), may_alias));
inline uint4 load16(const void* from) {
  RUNS(load16);
  const Sixteen value = *static_cast<const Sixteen*>(from);
  return {value[0], value[1], value[2], value[3]};
}
inline void store16(void* to, uint4 value) {
  RUNS(store16);
  *static_cast<Sixteen*>(to) = Sixteen{value.x, value.y, value.z, value.w};
}
inline uint32_t load_acquire(const uint32_t* from, PLACE) {
  RUNS(load_acquire);
  return static_cast<uint32_t>(model::acquire(from, 4, model::is_kept(place)));
}
inline uint64_t load_acquire(const uint64_t* from, PLACE) {
  RUNS(load_acquire);
  return model::acquire(from, 8, model::is_kept(place));
}
inline void store_release(uint32_t* to, uint32_t value, PLACE) {
  RUNS(store_release);
  model::release(to, 4, value, model::is_kept(place));
}
inline void store_release(uint64_t* to, uint64_t value, PLACE) {
  RUNS(store_release);
  model::release(to, 8, value, model::is_kept(place));
}
inline uint32_t load_relaxed(const uint32_t* from) {
  RUNS(load_relaxed);
  return static_cast<uint32_t>(model::acquire(from, 4, false));
}
inline uint64_t load_relaxed(const uint64_t* from) {
  RUNS(load_relaxed);
  return model::acquire(from, 8, false);
}
inline void store_relaxed(uint32_t* to, uint32_t value) {
  RUNS(store_relaxed);
  model::release(to, 4, value, false);
}
inline void store_relaxed(uint64_t* to, uint64_t value) {
  RUNS(store_relaxed);
  model::release(to, 8, value, false);
}
inline void fence_system(PLACE) {
  RUNS(fence_system);
  if (model::is_kept(place)) model::fence();
}
inline void fence_device(PLACE) {
  RUNS(fence_device);
  if (model::is_kept(place)) model::fence();
}
inline uint32_t add_count(uint32_t* count, uint32_t more) {
  RUNS(add_count);
  return static_cast<uint32_t>(model::atomic(model::Atomic::add, count, 4, more, 0));
}
inline uint64_t add_count(uint64_t* count, uint64_t more) {
  RUNS(add_count);
  return model::atomic(model::Atomic::add, count, 8, more, 0);
}
inline uint32_t max_count(uint32_t* count, uint32_t value) {
  RUNS(max_count);
  return static_cast<uint32_t>(model::atomic(model::Atomic::most, count, 4, value, 0));
}
inline uint32_t or_bits(uint32_t* word, uint32_t bits) {
  RUNS(or_bits);
  return static_cast<uint32_t>(model::atomic(model::Atomic::bits_or, word, 4, bits, 0));
}
inline uint32_t compare_exchange(uint32_t* word, uint32_t expected, uint32_t desired) {
  RUNS(compare_exchange);
  return static_cast<uint32_t>(model::atomic(model::Atomic::exchange_if, word, 4, desired, expected));
}

inline void pause() { RUNS(pause); model::pause(); }
inline uint64_t nanoseconds() { RUNS(nanoseconds); return model::nanoseconds(); }
inline void trap() { RUNS(trap); model::trap(); }

inline float multiply_add(float a, float b, float c) { RUNS(multiply_add); return std::fma(a, b, c); }
inline float square_root(float value) { RUNS(square_root); return std::sqrt(value); }
inline double exponential_wide(double value) { RUNS(exponential_wide); return std::exp(value); }
inline int count_bits(uint32_t word) { RUNS(count_bits); return __builtin_popcount(word); }
inline uint32_t float_bits(float value) { RUNS(float_bits); return static_cast<uint32_t>(model::widen(value)); }
inline float bits_float(uint32_t bits) { RUNS(bits_float); return model::narrow<float>(bits); }
inline uint32_t round_bf16(float value) {
  const uint32_t bits = float_bits(value);
  return value != value ? 0x7fffu : (bits + 0x7fffu + (bits >> 16 & 1)) >> 16;
}
inline uint32_t pack_bf16(float low, float high) { RUNS(pack_bf16); return round_bf16(low) | round_bf16(high) << 16; }

inline void copy16_async(void* to, const void* from, bool there) { RUNS(copy16_async); model::copy16(to, from, there); }
inline void copy_commit(PLACE) {
  RUNS(copy_commit);
  if (model::is_kept(place)) model::copy_commit();
}
template <int LEFT> void copy_wait(PLACE) {
  RUNS(copy_wait);
  if (model::is_kept(place)) model::copy_wait(LEFT);
}
inline void load_matrices(uint32_t (&r)[4], const void* row) { RUNS(load_matrices); model::load_matrices(r, row, false); }
inline void load_matrices_transposed(uint32_t (&r)[4], const void* row) {
  RUNS(load_matrices_transposed);
  model::load_matrices(r, row, true);
}
inline void multiply_tile(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  RUNS(multiply_tile);
  model::multiply_tile(d, a, b0, b1);
}

struct alignas(128) TensorMap {
  uint64_t words[16];
};
struct Barrier {
  uint64_t word;
};
inline void barrier_init(Barrier* barrier, int arrivals) { RUNS(barrier_init); model::barrier_init(barrier, arrivals); }
inline void barrier_fence(PLACE) {
  RUNS(barrier_fence);
  if (model::is_kept(place)) model::barrier_fence();
}
inline void barrier_arrive(Barrier* barrier, PLACE) {
  RUNS(barrier_arrive);
  if (model::is_kept(place)) model::barrier_arrive(barrier, 0);
}
inline void barrier_expect(Barrier* barrier, int bytes, PLACE) {
  RUNS(barrier_expect);
  if (model::is_kept(place)) model::barrier_arrive(barrier, bytes);
}
inline void barrier_wait(Barrier* barrier, int parity, PLACE) {
  RUNS(barrier_wait);
  if (model::is_kept(place)) model::barrier_wait(barrier, parity);
}
inline void tile_2d(void* to, const TensorMap* map, Barrier* barrier, int x, int y) {
  RUNS(tile_2d);
  const int at[] = {x, y};
  model::tile(to, map, barrier, at, 2);
}
inline void tile_3d(void* to, const TensorMap* map, Barrier* barrier, int x, int y, int z) {
  RUNS(tile_3d);
  const int at[] = {x, y, z};
  model::tile(to, map, barrier, at, 3);
}
inline uint64_t group_operand(const void* tile) { RUNS(group_operand); return model::group_operand(tile); }
inline void group_fence(PLACE) {
  RUNS(group_fence);
  if (model::is_kept(place)) model::group_fence();
}
inline void group_commit(PLACE) {
  RUNS(group_commit);
  if (model::is_kept(place)) model::group_commit();
}
inline void async_fence(PLACE) {
  RUNS(async_fence);
  if (model::is_kept(place)) model::async_fence();
}
template <int VALUES> void group_hold(float (&)[VALUES]) { RUNS(group_hold); }
template <int LEFT> void group_wait(PLACE) {
  RUNS(group_wait);
  if (model::is_kept(place)) model::group_wait(LEFT);
}
template <int LEFT, int VALUES> void group_wait(float (&)[VALUES], PLACE) {
  RUNS(group_wait);
  if (model::is_kept(place)) model::group_wait(LEFT);
}
template <int VALUES> void group_multiply(float (&d)[VALUES], uint64_t a, uint64_t b) {
  RUNS(group_multiply);
  static_assert(VALUES == 32 || VALUES == 64 || VALUES == 128);
  model::group_multiply(d, VALUES, a, b);
}
