// Fingerprints of a page's chunks: XXH3 of 128 bits under a seed, the same as the host's. Eight threads make that of a chunk, each
// with one of its eight sums.
#include "device.cuh"
#include "parameters.h"

namespace {

constexpr uint64_t PRIME32_1 = 0x9E3779B1u, PRIME32_2 = 0x85EBCA77u, PRIME32_3 = 0xC2B2AE3Du;
constexpr uint64_t PRIME64_1 = 0x9E3779B185EBCA87u, PRIME64_2 = 0xC2B2AE3D27D4EB4Fu, PRIME64_3 = 0x165667B19E3779F9u;
constexpr uint64_t PRIME64_4 = 0x85EBCA77C2B2AE63u, PRIME64_5 = 0x27D4EB2F165667C5u;
constexpr uint32_t LANES = 8, STRIPE_BYTES = 64, BLOCK_STRIPES = 16, BLOCK_BYTES = STRIPE_BYTES * BLOCK_STRIPES;
// A chunk this short is not summed in stripes.
constexpr uint64_t SHORT_BYTES = 128;
// Where in the secret its parts for the last steps are.
constexpr uint32_t SECRET_SCRAMBLE = 128, SECRET_LAST_STRIPE = 121, SECRET_LOW = 11, SECRET_HIGH = 117;

DEVICE uint64_t word_at(const unsigned char* bytes) { return *reinterpret_cast<const uint64_t*>(bytes); }

// Eight bytes of the secret from any place on.
DEVICE uint64_t secret_at(const uint64_t* secret, uint32_t at) {
  const uint32_t word = at / 8, shift = at % 8 * 8;
  return shift == 0 ? secret[word] : secret[word] >> shift | secret[word + 1] << (64 - shift);
}

// The product of 128 bits, its halves exclusive-or.
DEVICE uint64_t folded_product(uint64_t a, uint64_t b) {
  const uint64_t a_low = a & 0xffffffffu, a_high = a >> 32, b_low = b & 0xffffffffu, b_high = b >> 32;
  const uint64_t low = a_low * b_low, first = a_high * b_low, second = a_low * b_high;
  const uint64_t middle = (low >> 32) + (first & 0xffffffffu) + second;
  const uint64_t high = a_high * b_high + (first >> 32) + (middle >> 32);
  return (a * b) ^ high;
}

DEVICE uint64_t avalanche(uint64_t hash) {
  hash = (hash ^ hash >> 37) * 0x165667919E3779F9u;
  return hash ^ hash >> 32;
}

DEVICE uint64_t merged(const uint64_t* sums, const uint64_t* secret, uint32_t at, uint64_t hash) {
  for (uint32_t i = 0; i < LANES; i += 2) hash += folded_product(sums[i] ^ secret_at(secret, at + 8 * i), sums[i + 1] ^ secret_at(secret, at + 8 * i + 8));
  return avalanche(hash);
}

DEVICE uint64_t mixed(const unsigned char* bytes, const uint64_t* secret) { return folded_product(word_at(bytes) ^ secret[0], word_at(bytes + 8) ^ secret[1]); }

DEVICE ChunkFingerprint short_fingerprint(const unsigned char* bytes, const FingerprintParameters& p) {
  uint64_t low = SHORT_BYTES * PRIME64_1, high = 0;
  for (int pair = 3; pair >= 0; --pair) {
    const unsigned char *first = bytes + 16 * pair, *second = bytes + SHORT_BYTES - 16 * (pair + 1);
    low = (low + mixed(first, p.secret + 4 * pair)) ^ (word_at(second) + word_at(second + 8));
    high = (high + mixed(second, p.secret + 4 * pair + 2)) ^ (word_at(first) + word_at(first + 8));
  }
  return ChunkFingerprint{avalanche(low + high), 0 - avalanche(low * PRIME64_1 + high * PRIME64_4 + (SHORT_BYTES - p.seed) * PRIME64_2)};
}

DEVICE uint64_t first_sum(uint32_t index) {
  switch (index) {
    case 0: return PRIME32_3;
    case 1: return PRIME64_1;
    case 2: return PRIME64_2;
    case 3: return PRIME64_3;
    case 4: return PRIME64_4;
    case 5: return PRIME32_2;
    case 6: return PRIME64_5;
    default: return PRIME32_1;
  }
}

// A stripe's part in sum `index`: its own word by the secret, and its neighbour's word.
DEVICE uint64_t add_stripe(uint64_t sum, const unsigned char* stripe, uint32_t index, uint64_t secret) {
  const uint64_t key = word_at(stripe + 8 * index) ^ secret;
  return sum + word_at(stripe + 8 * (index ^ 1)) + (key & 0xffffffffu) * (key >> 32);
}

}  // namespace

extern "C" KERNEL(128) fingerprint(GRID_CONSTANT const FingerprintParameters p) {
  SHARED(uint64_t, sums, 128);
  const uint64_t chunks = (p.length + CHUNK_BYTES - 1) / CHUNK_BYTES;
  const uint32_t index = threadIdx.x % LANES, each = blockDim.x / LANES;
  uint64_t secret[BLOCK_STRIPES];
#pragma unroll
  for (uint32_t i = 0; i < BLOCK_STRIPES; ++i) secret[i] = p.secret[i + index];
  for (uint64_t first = static_cast<uint64_t>(blockIdx.x) * each; first < chunks; first += static_cast<uint64_t>(gridDim.x) * each) {
    const uint64_t chunk = first + threadIdx.x / LANES;
    const bool is_there = chunk < chunks;
    const unsigned char* bytes = p.bytes + (is_there ? chunk : 0) * CHUNK_BYTES;
    const uint64_t length = is_there ? minimum(static_cast<uint64_t>(CHUNK_BYTES), p.length - chunk * CHUNK_BYTES) : 0;
    uint64_t sum = first_sum(index);
    if (length > SHORT_BYTES) {
      uint64_t at = 0;
      for (; at + BLOCK_BYTES < length; at += BLOCK_BYTES) {
#pragma unroll
        for (uint32_t i = 0; i < BLOCK_STRIPES; ++i) sum = add_stripe(sum, bytes + at + i * STRIPE_BYTES, index, secret[i]);
        sum = (sum ^ sum >> 47 ^ p.secret[SECRET_SCRAMBLE / 8 + index]) * PRIME32_1;
      }
      for (uint32_t i = 0; i < (length - 1 - at) / STRIPE_BYTES; ++i) sum = add_stripe(sum, bytes + at + i * STRIPE_BYTES, index, p.secret[i + index]);
      sum = add_stripe(sum, bytes + length - STRIPE_BYTES, index, secret_at(p.secret, SECRET_LAST_STRIPE + 8 * index));
    }
    sums[threadIdx.x] = sum;
    block_barrier();
    if (index == 0 && is_there) {
      const uint64_t* of_chunk = sums + threadIdx.x;
      p.chunks[chunk] = length > SHORT_BYTES ? ChunkFingerprint{merged(of_chunk, p.secret, SECRET_LOW, length * PRIME64_1), merged(of_chunk, p.secret, SECRET_HIGH, ~(length * PRIME64_2))}
                                             : short_fingerprint(bytes, p);
    }
    block_barrier();
  }
}
