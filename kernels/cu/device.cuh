// The only place where kernels meet the hardware. What the machine does is a wrapper here with two bodies: PTX for a GPU, and
// a model of it (tests/emulator/model.h) for the emulated device. What can be said in plain arithmetic is said once, below, so
// that both give the same bits. Nothing else is included, so a runtime compiler needs no path of headers.
#pragma once

#ifdef SWIFTBALANCER_MODEL
#include "model.h"
#else

#ifdef __CUDACC_RTC__
typedef signed char int8_t;
typedef short int16_t;
typedef int int32_t;
typedef long long int64_t;
typedef unsigned char uint8_t;
typedef unsigned short uint16_t;
typedef unsigned int uint32_t;
typedef unsigned long long uint64_t;
typedef unsigned long long uintptr_t;
#else
#include <cstdint>
#endif

// Threads of a block, and, where a kernel is to use the registers that so many leave, blocks of a multiprocessor.
#define KERNEL(...) __global__ void __launch_bounds__(__VA_ARGS__)
#define GRID_CONSTANT __grid_constant__
#define DEVICE __device__ __forceinline__
// An array in the memory that the threads of a block share, and the part of it whose size the launch gives.
#define SHARED(type, name, count) __shared__ type name[count]
#define DYNAMIC_SHARED(name) extern __shared__ __align__(1024) unsigned char name[]

// ---- threads

DEVICE unsigned lane() { return threadIdx.x % 32; }
DEVICE unsigned warp() { return threadIdx.x / 32; }
// Every thread of the block, every lane of the warp, or `threads` threads that name the same `id` of 1 to 15.
DEVICE void block_barrier() { __syncthreads(); }
DEVICE void warp_barrier() { __syncwarp(); }
template <class T> DEVICE T shuffle(T value, int from) { return __shfl_sync(0xffffffffu, value, from); }
template <class T> DEVICE T shuffle_xor(T value, int mask) { return __shfl_xor_sync(0xffffffffu, value, mask); }
template <class T> DEVICE T shuffle_up(T value, int lanes) { return __shfl_up_sync(0xffffffffu, value, lanes); }
DEVICE uint32_t vote(bool predicate) { return __ballot_sync(0xffffffffu, predicate); }

// ---- memory

DEVICE uint4 load16(const void* from) { return *static_cast<const uint4*>(from); }
DEVICE void store16(void* to, uint4 value) { *static_cast<uint4*>(to) = value; }
// Seen by the host and by other devices: what was written before a release is seen after the acquire that reads its value.
DEVICE uint32_t load_acquire(const uint32_t* from) {
  uint32_t value;
  asm volatile("ld.acquire.sys.global.u32 %0, [%1];" : "=r"(value) : "l"(from) : "memory");
  return value;
}
DEVICE uint64_t load_acquire(const uint64_t* from) {
  uint64_t value;
  asm volatile("ld.acquire.sys.global.u64 %0, [%1];" : "=l"(value) : "l"(from) : "memory");
  return value;
}
DEVICE void store_release(uint32_t* to, uint32_t value) {
  asm volatile("st.release.sys.global.u32 [%0], %1;" ::"l"(to), "r"(value) : "memory");
}
DEVICE void store_release(uint64_t* to, uint64_t value) {
  asm volatile("st.release.sys.global.u64 [%0], %1;" ::"l"(to), "l"(value) : "memory");
}
// The word alone, as it is by now: it says nothing of what else was written.
DEVICE uint32_t load_relaxed(const uint32_t* from) {
  uint32_t value;
  asm volatile("ld.relaxed.sys.global.u32 %0, [%1];" : "=r"(value) : "l"(from) : "memory");
  return value;
}
DEVICE uint64_t load_relaxed(const uint64_t* from) {
  uint64_t value;
  asm volatile("ld.relaxed.sys.global.u64 %0, [%1];" : "=l"(value) : "l"(from) : "memory");
  return value;
}
DEVICE void store_relaxed(uint32_t* to, uint32_t value) {
  asm volatile("st.relaxed.sys.global.u32 [%0], %1;" ::"l"(to), "r"(value) : "memory");
}
DEVICE void store_relaxed(uint64_t* to, uint64_t value) {
  asm volatile("st.relaxed.sys.global.u64 [%0], %1;" ::"l"(to), "l"(value) : "memory");
}
DEVICE void fence_system() { __threadfence_system(); }
// Counts, never values: the order in which threads come must not change a result.
DEVICE uint32_t add_count(uint32_t* count, uint32_t more) { return atomicAdd(count, more); }
DEVICE uint64_t add_count(uint64_t* count, uint64_t more) {
  return atomicAdd(reinterpret_cast<unsigned long long*>(count), static_cast<unsigned long long>(more));
}
DEVICE uint32_t or_bits(uint32_t* word, uint32_t bits) { return atomicOr(word, bits); }
DEVICE uint32_t compare_exchange(uint32_t* word, uint32_t expected, uint32_t desired) {
  return atomicCAS(word, expected, desired);
}

// ---- waiting

DEVICE void pause() { __nanosleep(64); }
DEVICE uint64_t nanoseconds() {
  uint64_t now;
  asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(now));
  return now;
}

// ---- numbers

DEVICE float multiply_add(float a, float b, float c) { return __fmaf_rn(a, b, c); }
DEVICE float square_root(float value) { return __fsqrt_rn(value); }
DEVICE double exponential_wide(double value) { return exp(value); }
DEVICE int count_bits(uint32_t word) { return __popc(word); }
DEVICE uint32_t float_bits(float value) { return __float_as_uint(value); }
DEVICE float bits_float(uint32_t bits) { return __uint_as_float(bits); }
// Two values rounded to the nearest bf16, ties to even: `low` in the lower half.
DEVICE uint32_t pack_bf16(float low, float high) {
  uint32_t packed;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(packed) : "f"(high), "f"(low));
  return packed;
}

// ---- tensor cores, sm_80 and later

DEVICE uint32_t shared_address(const void* at) { return static_cast<uint32_t>(__cvta_generic_to_shared(at)); }
// 16 bytes into shared memory while the thread goes on; zeros where `there` is false.
DEVICE void copy16_async(void* to, const void* from, bool there) {
  const int bytes = there ? 16 : 0;
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(to)), "l"(from), "r"(bytes) : "memory");
}
DEVICE void copy_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// Until all but the last `LEFT` groups of this thread's copies have ended; others see them after a barrier.
template <int LEFT> DEVICE void copy_wait() { asm volatile("cp.async.wait_group %0;" ::"n"(LEFT) : "memory"); }
// Four 8 x 8 matrices of bf16; lanes 8 i to 8 i + 7 give the addresses of the rows of matrix i.
DEVICE void load_matrices(uint32_t (&r)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(row))
               : "memory");
}
// The same, each matrix transposed.
DEVICE void load_matrices_transposed(uint32_t (&r)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(row))
               : "memory");
}
// d += a * b of 16 x 8 x 16, bf16 in and float32 out.
DEVICE void multiply_tile(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// ---- tiles and products beside the threads, sm_90a

// Made by the host (cuTensorMapEncodeTiled); a field of a kernel's parameters.
struct alignas(128) TensorMap {
  uint64_t words[16];
};
// In shared memory: threads that arrive and bytes that come in, counted down to the next phase.
struct Barrier {
  uint64_t word;
};
DEVICE void barrier_init(Barrier* barrier, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(barrier)), "r"(arrivals) : "memory");
}
// After the barriers are made, before anything beside the threads uses them.
DEVICE void barrier_fence() { asm volatile("fence.mbarrier_init.release.cluster;\nfence.proxy.async.shared::cta;" ::: "memory"); }
DEVICE void barrier_arrive(Barrier* barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(barrier)) : "memory");
}
// Arrives, and holds the phase until `bytes` more have come.
DEVICE void barrier_expect(Barrier* barrier, int bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(barrier)), "r"(bytes) : "memory");
}
// Until the phase of that parity has ended. One that never does ends the kernel with an error instead of a hang.
DEVICE void barrier_wait(Barrier* barrier, int parity) {
  for (unsigned tries = 0;; ++tries) {
    int done;
    asm volatile("{\n.reg .pred p;\nmbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\nselp.b32 %0, 1, 0, p;\n}"
                 : "=r"(done)
                 : "r"(shared_address(barrier)), "r"(parity)
                 : "memory");
    if (done != 0) return;
    if (tries == 1u << 23) __trap();
  }
}
// A box of the tensor to shared memory, aligned to 1024 bytes and swizzled by 128; its bytes count down the barrier.
DEVICE void tile_3d(void* to, const TensorMap* map, Barrier* barrier, int x, int y, int z) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, %5}], [%2];" ::"r"(
          shared_address(to)),
      "l"(map), "r"(shared_address(barrier)), "r"(x), "r"(y), "r"(z)
      : "memory");
}
// What threads wrote to shared memory is seen by tiles and products that start after a barrier that follows this.
DEVICE void async_fence() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

#ifdef __CUDA_ARCH_FEAT_SM90_ALL  // sm_90a alone

// A tile as an operand of a group of four warps: rows of 64 bf16, swizzled by 128 bytes. 2 more is 16 columns further.
DEVICE uint64_t group_operand(const void* tile) {
  constexpr uint64_t leading = uint64_t{1} << 16, stride = uint64_t{1024 >> 4} << 32, swizzle_128 = uint64_t{1} << 62;
  return static_cast<uint64_t>((shared_address(tile) & 0x3ffff) >> 4) | leading | stride | swizzle_128;
}
DEVICE void group_fence() { asm volatile("wgmma.fence.sync.aligned;" ::: "memory"); }
DEVICE void group_commit() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
// Keeps the compiler from moving sums across: to it they are plain registers, which products write beside the thread.
template <int VALUES> DEVICE void group_hold(float (&d)[VALUES]) {
#pragma unroll
  for (int i = 0; i < VALUES; ++i) asm volatile("" : "+f"(d[i])::"memory");
}
// Until all but the last `LEFT` committed groups of products have ended.
template <int LEFT> DEVICE void group_wait() { asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(LEFT) : "memory"); }
// The same; until then `d` belongs to them.
template <int LEFT, int VALUES> DEVICE void group_wait(float (&d)[VALUES]) {
  group_hold(d);
  group_wait<LEFT>();
  group_hold(d);
}
// d += a * b, 64 rows of a by 64, 128 or 256 rows of b, 16 deep.
DEVICE void group_multiply(float (&d)[32], uint64_t a, uint64_t b) {
  asm volatile(
      "wgmma.mma_async.sync.aligned.m64n64k16.f32.bf16.bf16 {"
      "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, "
      "%22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
      "}, %32, %33, 1, 1, 1, 0, 0;"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), "+f"(d[7]), "+f"(d[8]), "+f"(d[9]),
        "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]), "+f"(d[14]), "+f"(d[15]), "+f"(d[16]), "+f"(d[17]), "+f"(d[18]),
        "+f"(d[19]), "+f"(d[20]), "+f"(d[21]), "+f"(d[22]), "+f"(d[23]), "+f"(d[24]), "+f"(d[25]), "+f"(d[26]), "+f"(d[27]),
        "+f"(d[28]), "+f"(d[29]), "+f"(d[30]), "+f"(d[31])
      : "l"(a), "l"(b));
}
DEVICE void group_multiply(float (&d)[64], uint64_t a, uint64_t b) {
  asm volatile(
      "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 {"
      "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, "
      "%22, %23, %24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, "
      "%42, %43, %44, %45, %46, %47, %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, "
      "%62, %63"
      "}, %64, %65, 1, 1, 1, 0, 0;"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), "+f"(d[7]), "+f"(d[8]), "+f"(d[9]),
        "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]), "+f"(d[14]), "+f"(d[15]), "+f"(d[16]), "+f"(d[17]), "+f"(d[18]),
        "+f"(d[19]), "+f"(d[20]), "+f"(d[21]), "+f"(d[22]), "+f"(d[23]), "+f"(d[24]), "+f"(d[25]), "+f"(d[26]), "+f"(d[27]),
        "+f"(d[28]), "+f"(d[29]), "+f"(d[30]), "+f"(d[31]), "+f"(d[32]), "+f"(d[33]), "+f"(d[34]), "+f"(d[35]), "+f"(d[36]),
        "+f"(d[37]), "+f"(d[38]), "+f"(d[39]), "+f"(d[40]), "+f"(d[41]), "+f"(d[42]), "+f"(d[43]), "+f"(d[44]), "+f"(d[45]),
        "+f"(d[46]), "+f"(d[47]), "+f"(d[48]), "+f"(d[49]), "+f"(d[50]), "+f"(d[51]), "+f"(d[52]), "+f"(d[53]), "+f"(d[54]),
        "+f"(d[55]), "+f"(d[56]), "+f"(d[57]), "+f"(d[58]), "+f"(d[59]), "+f"(d[60]), "+f"(d[61]), "+f"(d[62]), "+f"(d[63])
      : "l"(a), "l"(b));
}
DEVICE void group_multiply(float (&d)[128], uint64_t a, uint64_t b) {
  asm volatile(
      "wgmma.mma_async.sync.aligned.m64n256k16.f32.bf16.bf16 {"
      "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, %16, %17, %18, %19, %20, %21, "
      "%22, %23, %24, %25, %26, %27, %28, %29, %30, %31, %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, "
      "%42, %43, %44, %45, %46, %47, %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, "
      "%62, %63, %64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, %80, %81, "
      "%82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, %96, %97, %98, %99, %100, "
      "%101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, %112, %113, %114, %115, %116, "
      "%117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127"
      "}, %128, %129, 1, 1, 1, 0, 0;"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3]), "+f"(d[4]), "+f"(d[5]), "+f"(d[6]), "+f"(d[7]), "+f"(d[8]), "+f"(d[9]),
        "+f"(d[10]), "+f"(d[11]), "+f"(d[12]), "+f"(d[13]), "+f"(d[14]), "+f"(d[15]), "+f"(d[16]), "+f"(d[17]), "+f"(d[18]),
        "+f"(d[19]), "+f"(d[20]), "+f"(d[21]), "+f"(d[22]), "+f"(d[23]), "+f"(d[24]), "+f"(d[25]), "+f"(d[26]), "+f"(d[27]),
        "+f"(d[28]), "+f"(d[29]), "+f"(d[30]), "+f"(d[31]), "+f"(d[32]), "+f"(d[33]), "+f"(d[34]), "+f"(d[35]), "+f"(d[36]),
        "+f"(d[37]), "+f"(d[38]), "+f"(d[39]), "+f"(d[40]), "+f"(d[41]), "+f"(d[42]), "+f"(d[43]), "+f"(d[44]), "+f"(d[45]),
        "+f"(d[46]), "+f"(d[47]), "+f"(d[48]), "+f"(d[49]), "+f"(d[50]), "+f"(d[51]), "+f"(d[52]), "+f"(d[53]), "+f"(d[54]),
        "+f"(d[55]), "+f"(d[56]), "+f"(d[57]), "+f"(d[58]), "+f"(d[59]), "+f"(d[60]), "+f"(d[61]), "+f"(d[62]), "+f"(d[63]),
        "+f"(d[64]), "+f"(d[65]), "+f"(d[66]), "+f"(d[67]), "+f"(d[68]), "+f"(d[69]), "+f"(d[70]), "+f"(d[71]), "+f"(d[72]),
        "+f"(d[73]), "+f"(d[74]), "+f"(d[75]), "+f"(d[76]), "+f"(d[77]), "+f"(d[78]), "+f"(d[79]), "+f"(d[80]), "+f"(d[81]),
        "+f"(d[82]), "+f"(d[83]), "+f"(d[84]), "+f"(d[85]), "+f"(d[86]), "+f"(d[87]), "+f"(d[88]), "+f"(d[89]), "+f"(d[90]),
        "+f"(d[91]), "+f"(d[92]), "+f"(d[93]), "+f"(d[94]), "+f"(d[95]), "+f"(d[96]), "+f"(d[97]), "+f"(d[98]), "+f"(d[99]),
        "+f"(d[100]), "+f"(d[101]), "+f"(d[102]), "+f"(d[103]), "+f"(d[104]), "+f"(d[105]), "+f"(d[106]), "+f"(d[107]),
        "+f"(d[108]), "+f"(d[109]), "+f"(d[110]), "+f"(d[111]), "+f"(d[112]), "+f"(d[113]), "+f"(d[114]), "+f"(d[115]),
        "+f"(d[116]), "+f"(d[117]), "+f"(d[118]), "+f"(d[119]), "+f"(d[120]), "+f"(d[121]), "+f"(d[122]), "+f"(d[123]),
        "+f"(d[124]), "+f"(d[125]), "+f"(d[126]), "+f"(d[127])
      : "l"(a), "l"(b));
}

#endif

#endif

// ==== what both devices compute alike

struct bf16 {
  uint16_t bits;
};

DEVICE float low_float(uint32_t packed) { return bits_float(packed << 16); }
DEVICE float high_float(uint32_t packed) { return bits_float(packed & 0xffff0000u); }
DEVICE float to_float(bf16 value) { return bits_float(static_cast<uint32_t>(value.bits) << 16); }
DEVICE bf16 to_bf16(float value) { return bf16{static_cast<uint16_t>(pack_bf16(value, 0.0f))}; }
DEVICE float infinity() { return bits_float(0x7f800000u); }
DEVICE float inverse_root(float value) { return 1.0f / square_root(value); }
template <class T> DEVICE T minimum(T a, T b) { return b < a ? b : a; }
template <class T> DEVICE T maximum(T a, T b) { return a < b ? b : a; }

// e to the power of `value`, within 2 units in the last place; 0 below -104, infinite above 89.
DEVICE float exponential(float value) {
  if (!(value > -104.0f)) return value != value ? value : 0.0f;
  if (value > 89.0f) return infinity();
  const float shifted = multiply_add(value, 1.44269504f, 12582912.0f), whole = shifted - 12582912.0f;
  const float rest = multiply_add(whole, -1.42860677e-6f, multiply_add(whole, -0.693145752f, value));
  float sum = 1.98412698e-4f;
  sum = multiply_add(sum, rest, 1.38888889e-3f);
  sum = multiply_add(sum, rest, 8.33333333e-3f);
  sum = multiply_add(sum, rest, 4.16666667e-2f);
  sum = multiply_add(sum, rest, 0.166666667f);
  sum = multiply_add(sum, rest, 0.5f);
  sum = multiply_add(sum, rest, 1.0f);
  sum = multiply_add(sum, rest, 1.0f);
  // Twice half the power of two: the whole one may be out of range where the result is not.
  const int power_of_two = static_cast<int>(whole), half = power_of_two / 2;
  return sum * bits_float(static_cast<uint32_t>(half + 127) << 23) *
         bits_float(static_cast<uint32_t>(power_of_two - half + 127) << 23);
}

// The natural logarithm of a positive, normal `value`, within 4 units in the last place.
DEVICE float logarithm(float value) {
  if (!(value > 0.0f)) return value == 0.0f ? -infinity() : bits_float(0x7fc00000u);
  if (value == infinity()) return value;
  const uint32_t bits = float_bits(value), shift = bits - 0x3f3504f3u;
  const int power_of_two = static_cast<int>(shift) >> 23;
  const float mantissa = bits_float(bits - (static_cast<uint32_t>(power_of_two) << 23)) - 1.0f;
  const float ratio = mantissa / (2.0f + mantissa), square = ratio * ratio;
  float sum = 0.222221984f;
  sum = multiply_add(sum, square, 0.285713917f);
  sum = multiply_add(sum, square, 0.400000006f);
  sum = multiply_add(sum, square, 0.666666687f);
  const float scale = static_cast<float>(power_of_two);
  return multiply_add(scale, 0.693147182f, multiply_add(ratio * square, sum, 2.0f * ratio));
}

DEVICE float silu(float value) { return value / (1.0f + exponential(-value)); }

// Sums and maxima in an order that nothing changes; every lane or thread gets the same bits.
template <class T> DEVICE T warp_sum(T value) {
  for (int mask = 16; mask > 0; mask /= 2) value += shuffle_xor(value, mask);
  return value;
}
template <class T> DEVICE T warp_max(T value) {
  for (int mask = 16; mask > 0; mask /= 2) value = maximum(value, shuffle_xor(value, mask));
  return value;
}
// `scratch` is shared and holds 32 values; the block is whole warps, and every thread of it calls this.
template <class T> DEVICE T block_sum(T value, T* scratch) {
  const T sum = warp_sum(value);
  if (lane() == 0) scratch[warp()] = sum;
  block_barrier();
  T all = scratch[0];
  for (unsigned i = 1; i < blockDim.x / 32; ++i) all += scratch[i];
  block_barrier();
  return all;
}
template <class T> DEVICE T block_max(T value, T* scratch) {
  const T most = warp_max(value);
  if (lane() == 0) scratch[warp()] = most;
  block_barrier();
  T all = scratch[0];
  for (unsigned i = 1; i < blockDim.x / 32; ++i) all = maximum(all, scratch[i]);
  block_barrier();
  return all;
}
