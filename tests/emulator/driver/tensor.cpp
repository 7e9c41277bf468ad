// Copies into shared memory that go on beside their thread, and the tensor cores of sm_80.
#include <cstring>

#include "access.h"
#include "block.h"

namespace model {
namespace {

Block& here() { return *Block::running(); }

void carry_out(const Copy16& copy) {
  if (copy.there)
    std::memcpy(copy.to, copy.from, 16);
  else
    std::memset(copy.to, 0, 16);
}

float half_of(uint64_t word, int half) {
  const uint32_t bits = static_cast<uint32_t>(word >> (16 * half)) << 16;
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

}  // namespace

void copy16(void* to, const void* from, bool there) {
  if (there) access_read(from, 16);
  access_begun(to, 16, true);
  // At once, or not before it is waited for.
  Copy16 kept{to, from, there, here().random().coin()};
  if (kept.done) carry_out(kept);
  here().lane().copies.open.push_back(kept);
}

void copy_commit() {
  CopyGroups& copies = here().lane().copies;
  copies.closed.push_back(std::move(copies.open));
  copies.open.clear();
}

void copy_wait(int left) {
  CopyGroups& copies = here().lane().copies;
  while (copies.closed.size() > static_cast<size_t>(left)) {
    for (const Copy16& copy : copies.closed.front()) {
      if (!copy.done) carry_out(copy);
      access_finished(copy.to, 16, true, here().current());
      if (here().in_shared_region(copy.to)) here().wrote(copy.to, 16, here().current());
    }
    copies.closed.pop_front();
  }
}

void load_matrices(uint32_t (&r)[4], const void* row, bool transposed) {
  Block& block = here();
  Warp& warp = block.warp();
  const unsigned lane = block.current() % 32;
  access_read(row, 16);
  warp.rows[lane] = row;
  block.meet_warp("a load of matrices", [&] {
    for (unsigned to = 0; to < 32; ++to)
      for (unsigned matrix = 0; matrix < 4; ++matrix) {
        // A lane gets elements (to / 4, 2 (to % 4)) and the next; transposed, (2 (to % 4), to / 4) and the one below.
        uint32_t word = 0;
        for (unsigned half = 0; half < 2; ++half) {
          const unsigned row_of = transposed ? to % 4 * 2 + half : to / 4, column = transposed ? to / 4 : to % 4 * 2 + half;
          uint16_t element;
          std::memcpy(&element, static_cast<const char*>(warp.rows[8 * matrix + row_of]) + column * 2, 2);
          word |= static_cast<uint32_t>(element) << 16 * half;
        }
        warp.taken[to][matrix] = word;
      }
  });
  for (int i = 0; i < 4; ++i) r[i] = static_cast<uint32_t>(warp.taken[lane][i]);
}

void multiply_tile(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  Block& block = here();
  Warp& warp = block.warp();
  const unsigned lane = block.current() % 32;
  for (int i = 0; i < 4; ++i) warp.given[lane][i] = a[i];
  warp.given[lane][4] = b0;
  warp.given[lane][5] = b1;
  block.meet_warp("a product of tiles", [&] {
    float left[16][16], right[8][16];
    for (unsigned from = 0; from < 32; ++from)
      for (unsigned word = 0; word < 4; ++word)
        for (int half = 0; half < 2; ++half) {
          const unsigned k = word / 2 * 8 + from % 4 * 2 + static_cast<unsigned>(half);
          left[from / 4 + word % 2 * 8][k] = half_of(warp.given[from][word], half);
          if (word < 2)
            right[from / 4][word * 8 + from % 4 * 2 + static_cast<unsigned>(half)] = half_of(warp.given[from][4 + word], half);
        }
    for (unsigned to = 0; to < 32; ++to)
      for (unsigned i = 0; i < 4; ++i) {
        const unsigned row = to / 4 + i / 2 * 8, column = to % 4 * 2 + i % 2;
        float sum = 0;
        for (unsigned k = 0; k < 16; ++k) sum += left[row][k] * right[column][k];
        uint32_t bits;
        std::memcpy(&bits, &sum, sizeof bits);
        warp.taken[to][i] = bits;
      }
  });
  for (int i = 0; i < 4; ++i) {
    const auto bits = static_cast<uint32_t>(warp.taken[lane][i]);
    float sum;
    std::memcpy(&sum, &bits, sizeof sum);
    d[i] += sum;
  }
}

}  // namespace model
