// Kernels of the driver's own tests: some are right, the others have the mistake that their name says.
#include "device.cuh"

struct FillParameters {
  uint32_t* out;
  uint32_t value, count;
};
extern "C" KERNEL(256) case_fill(GRID_CONSTANT const FillParameters p) {
  for (unsigned i = blockIdx.x * blockDim.x + threadIdx.x; i < p.count; i += gridDim.x * blockDim.x) p.out[i] = p.value + i;
}

struct SumParameters {
  const float* values;
  float* sums;
  uint32_t count;
};
// The sum of each row, by every way in which threads tell each other something.
extern "C" KERNEL(256) case_sum(GRID_CONSTANT const SumParameters p) {
  SHARED(float, scratch, 32);
  DYNAMIC_SHARED(raw);
  float* staged = reinterpret_cast<float*>(raw);
  const float* row = p.values + blockIdx.x * p.count;
  for (unsigned i = threadIdx.x; i < p.count; i += blockDim.x) staged[i] = row[i];
  block_barrier();
  float sum = 0.0f;
  for (unsigned i = threadIdx.x; i < p.count; i += blockDim.x) sum += staged[p.count - 1 - i];
  const float all = block_sum(sum, scratch), most = block_max(sum, scratch);
  if (threadIdx.x == 0) {
    p.sums[blockIdx.x * 2] = all;
    p.sums[blockIdx.x * 2 + 1] = most;
  }
}

struct NumbersParameters {
  const float* in;
  float* out;
  uint32_t count;
};
// What device.cuh computes in plain arithmetic.
extern "C" KERNEL(32) case_numbers(GRID_CONSTANT const NumbersParameters p) {
  for (unsigned i = threadIdx.x; i < p.count; i += blockDim.x) {
    float* out = p.out + i * 6;
    const float x = p.in[i];
    out[0] = exponential(x);
    out[1] = logarithm(x);
    out[2] = inverse_root(x);
    out[3] = silu(x);
    out[4] = to_float(to_bf16(x));
    out[5] = high_float(pack_bf16(0.0f, x));
  }
}

struct WarpParameters {
  uint32_t* out;
};
extern "C" KERNEL(64) case_warp(GRID_CONSTANT const WarpParameters p) {
  const uint32_t mine = threadIdx.x * 10;
  uint32_t* out = p.out + threadIdx.x * 6;
  out[0] = shuffle(mine, 3);
  out[1] = shuffle_xor(mine, 5);
  out[2] = shuffle_down(mine, 4);
  out[3] = shuffle_up(mine, 4);
  out[4] = vote(lane() % 3 == 0);
  out[5] = static_cast<uint32_t>(shuffle(static_cast<uint64_t>(mine) << 32, 7) >> 32);
}

struct CountParameters {
  uint32_t* counts;
  uint64_t* wide;
};
extern "C" KERNEL(128) case_count(GRID_CONSTANT const CountParameters p) {
  SHARED(uint32_t, local, 1);
  if (threadIdx.x == 0) local[0] = 0;
  block_barrier();
  add_count(&local[0], 1u);
  block_barrier();
  if (threadIdx.x == 0) add_count(&p.counts[0], local[0]);
  max_count(&p.counts[1], blockIdx.x * 1000 + threadIdx.x);
  or_bits(&p.counts[2], 1u << threadIdx.x % 32);
  add_count(p.wide, static_cast<uint64_t>(1) << 33);
  compare_exchange(&p.counts[3], 0u, 7u);
}

struct TileParameters {
  const bf16* a;  // [16][16]
  const bf16* b;  // [8][16]
  float* out;     // [16][8]
};
extern "C" KERNEL(32) case_tile(GRID_CONSTANT const TileParameters p) {
  SHARED(bf16, a, 256);
  SHARED(bf16, b, 256);
  copy16_async(&a[lane() * 8], p.a + lane() * 8, true);
  copy_commit();
  copy16_async(&b[lane() * 8], p.b + (lane() < 16 ? lane() : 0) * 8, lane() < 16);
  copy_commit();
  copy_wait<0>();
  warp_barrier();
  uint32_t left[4], right[4];
  load_matrices(left, &a[lane() % 16 * 16 + lane() / 16 * 8]);
  load_matrices(right, &b[lane() % 8 * 16 + lane() / 8 % 2 * 8]);
  float d[4] = {};
  multiply_tile(d, left, right[0], right[1]);
  for (int i = 0; i < 4; ++i) p.out[(lane() / 4 + i / 2 * 8) * 8 + lane() % 4 * 2 + i % 2] = d[i];
}

struct FlagParameters {
  uint32_t* flag;
  uint32_t* data;
  uint32_t send;
};
// One device writes, the other waits for it.
extern "C" KERNEL(32) case_flag(GRID_CONSTANT const FlagParameters p) {
  if (threadIdx.x != 0) return;
  if (p.send) {
    p.data[0] = 42;
    store_release(p.flag, 1u);
  } else {
    while (load_acquire(p.flag) == 0) pause();
    p.data[1] = p.data[0] + 1;
  }
}

// The same by several warps: the one that says that all is there waits for the others. With `send` of 2 it says so before the
// last of it is written, with 3 it does not wait.
extern "C" KERNEL(128) case_hand_over(GRID_CONSTANT const FlagParameters p) {
  if (p.send == 0) {
    if (threadIdx.x == 0)
      while (load_acquire(p.flag) == 0) pause();
    block_barrier();
    p.data[128 + threadIdx.x] = p.data[threadIdx.x] + 1;
    return;
  }
  if (p.send != 2) p.data[threadIdx.x] = threadIdx.x;
  if (p.send == 1) block_barrier();
  if (threadIdx.x == 0) store_release(p.flag, 1u);
  if (p.send == 2) p.data[threadIdx.x] = threadIdx.x;
}

struct LastParameters {
  const uint32_t* values;
  uint32_t* parts;
  uint32_t* done;
  uint32_t* sum;
};
// The block that comes last adds up what the others wrote.
extern "C" KERNEL(64) case_last_block(GRID_CONSTANT const LastParameters p) {
  SHARED(uint32_t, last, 1);
  if (threadIdx.x == 0) {
    p.parts[blockIdx.x] = p.values[blockIdx.x];
    fence_device();
    last[0] = add_count(p.done, 1u) == gridDim.x - 1;
    fence_device();
  }
  block_barrier();
  if (last[0] == 0 || threadIdx.x != 0) return;
  uint32_t sum = 0;
  for (unsigned i = 0; i < gridDim.x; ++i) sum += p.parts[i];
  p.sum[0] = sum;
}
// Two warps hand values to two others, and no one else waits.
extern "C" KERNEL(192) case_group(GRID_CONSTANT const WarpParameters p) {
  SHARED(uint32_t, handed, 64);
  if (threadIdx.x >= 128) return;
  if (threadIdx.x < 64) handed[threadIdx.x] = threadIdx.x * 3;
  group_barrier(2, 128);
  if (threadIdx.x >= 64) p.out[threadIdx.x - 64] = handed[127 - threadIdx.x];
}

// ---- mistakes

extern "C" KERNEL(64) mistake_no_barrier(GRID_CONSTANT const WarpParameters p) {
  SHARED(uint32_t, handed, 64);
  handed[threadIdx.x] = threadIdx.x;
  p.out[threadIdx.x] = handed[threadIdx.x ^ 32];
}
extern "C" KERNEL(32) mistake_no_warp_barrier(GRID_CONSTANT const WarpParameters p) {
  SHARED(uint32_t, handed, 32);
  handed[lane()] = lane();
  p.out[lane()] = handed[lane() ^ 1];
}
// To exchange registers orders nothing of memory.
extern "C" KERNEL(32) mistake_shuffle_for_a_barrier(GRID_CONSTANT const WarpParameters p) {
  SHARED(uint32_t, handed, 32);
  handed[lane()] = lane();
  const uint32_t all = shuffle(vote(true), 3);
  p.out[lane()] = handed[lane() ^ 1] + all;
}
// The barrier after the reads is missing: the next round's writes meet them.
extern "C" KERNEL(64) mistake_no_barrier_after(GRID_CONSTANT const WarpParameters p) {
  SHARED(uint32_t, handed, 64);
  for (unsigned i = 0; i < 2; ++i) {
    handed[threadIdx.x] = threadIdx.x + i;
    block_barrier();
    p.out[threadIdx.x] = handed[threadIdx.x ^ 32];
  }
}
extern "C" KERNEL(32) mistake_blocks_meet(GRID_CONSTANT const WarpParameters p) { p.out[lane()] = blockIdx.x; }
extern "C" KERNEL(64) mistake_no_fence(GRID_CONSTANT const LastParameters p) {
  if (threadIdx.x != 0) return;
  p.parts[blockIdx.x] = p.values[blockIdx.x];
  if (add_count(p.done, 1u) != gridDim.x - 1) return;
  for (unsigned i = 0; i < gridDim.x; ++i) p.sum[0] += p.parts[i];
}
extern "C" KERNEL(32) mistake_copy_wait_one_short(GRID_CONSTANT const TileParameters p) {
  SHARED(bf16, a, 256);
  for (int i = 0; i < 2; ++i) {
    if (lane() < 16) copy16_async(&a[i * 128 + lane() * 8], p.a + lane() * 8, true);
    copy_commit();
  }
  copy_wait<1>();
  warp_barrier();
  p.out[lane()] = to_float(a[128 + lane()]);
}
extern "C" KERNEL(32) mistake_no_barrier_after_copies(GRID_CONSTANT const TileParameters p) {
  SHARED(bf16, a, 256);
  copy16_async(&a[lane() * 8], p.a + lane() * 8, true);
  copy_commit();
  copy_wait<0>();
  p.out[lane()] = to_float(a[(lane() * 8 + 8) % 256]);
}

struct MistakeParameters {
  uint32_t* memory;
  uint32_t count;
};
extern "C" KERNEL(64) mistake_past_the_end(GRID_CONSTANT const MistakeParameters p) { p.memory[threadIdx.x + p.count - 63] = 1; }
extern "C" KERNEL(64) mistake_before_the_begin(GRID_CONSTANT const MistakeParameters p) {
  if (threadIdx.x == 0) p.memory[0] = p.memory[static_cast<long>(threadIdx.x) - 1];
}
extern "C" KERNEL(32) mistake_misaligned(GRID_CONSTANT const MistakeParameters p) {
  store16(reinterpret_cast<char*>(p.memory) + 8, load16(p.memory));
}
extern "C" KERNEL(64) mistake_shared_past_the_end(GRID_CONSTANT const MistakeParameters p) {
  SHARED(uint32_t, local, 64);
  local[threadIdx.x + 1] = p.count;
  block_barrier();
  p.memory[threadIdx.x] = local[threadIdx.x];
}
extern "C" KERNEL(64) mistake_divergent_barrier(GRID_CONSTANT const MistakeParameters p) {
  if (threadIdx.x < p.count) block_barrier();
}
extern "C" KERNEL(64) mistake_divergent_shuffle(GRID_CONSTANT const MistakeParameters p) {
  if (lane() < p.count) p.memory[threadIdx.x] = shuffle(threadIdx.x, 0);
}
extern "C" KERNEL(64) mistake_shuffle_meets_vote(GRID_CONSTANT const MistakeParameters p) {
  p.memory[threadIdx.x] = lane() < p.count ? shuffle(threadIdx.x, 0) : vote(true);
}
extern "C" KERNEL(32) mistake_waits_for_ever(GRID_CONSTANT const MistakeParameters p) {
  while (load_acquire(p.memory) != 12345) pause();
}
extern "C" KERNEL(32) mistake_trap(GRID_CONSTANT const MistakeParameters) { trap(); }
