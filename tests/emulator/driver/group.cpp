// Products of four warps that go on beside them (wgmma). While they do, their accumulators hold NaN and their operands are
// being read.
#include <cmath>
#include <cstring>

#include "access.h"
#include "block.h"

namespace model {
namespace {

Block& here() { return *Block::running(); }

// Sixteen elements of a row, two chunks of eight: the swizzle moves chunks, and acts on addresses, as on the chip.
void load_row(const unsigned char* shared, uint64_t operand, unsigned row, float (&to)[16]) {
  for (unsigned chunk = 0; chunk < 2; ++chunk) {
    uint64_t at = operand * 16 + row / 8 * 1024 + row % 8 * 128 + chunk * 16;
    at ^= (at >> 7 & 7) << 4;
    uint16_t bits[8];
    std::memcpy(bits, shared + at, sizeof bits);
    for (unsigned i = 0; i < 8; ++i) {
      const uint32_t wide = static_cast<uint32_t>(bits[i]) << 16;
      std::memcpy(&to[chunk * 8 + i], &wide, sizeof wide);
    }
  }
}

std::vector<float>& accumulator(GroupProducts& products, float* d, int values) {
  for (auto& lent : products.lent)
    if (lent.d == d) return lent.values;
  products.lent.push_back({d, {d, d + values}});
  // Whoever reads it before the products have ended reads this.
  std::fill(d, d + values, std::nanf(""));
  return products.lent.back().values;
}

void carry_out(Block& block, GroupProduct& product) {
  if (product.done) return;
  product.done = true;
  const unsigned lane = block.current() % 128;
  std::vector<float>& sums = accumulator(block.lane().products, product.d, product.values);
  const unsigned char* shared = block.dynamic_shared();
  float left[2][16];
  for (unsigned half = 0; half < 2; ++half) load_row(shared, product.a, lane / 32 * 16 + lane % 32 / 4 + half * 8, left[half]);
  // Columns beside each other, which a compiler computes at once; each is summed in the order of k.
  constexpr unsigned columns = 16;
  for (unsigned begin = 0; begin < static_cast<unsigned>(product.values); begin += 2 * columns) {
    float right[16][columns], first[columns] = {}, second[columns] = {};
    for (unsigned c = 0; c < columns; ++c) {
      float row[16];
      load_row(shared, product.b, (begin + 2 * c) / 4 * 8 + lane % 4 * 2 + c % 2, row);
      for (unsigned k = 0; k < 16; ++k) right[k][c] = row[k];
    }
    for (unsigned k = 0; k < 16; ++k)
      for (unsigned c = 0; c < columns; ++c) {
        first[c] += left[0][k] * right[k][c];
        second[c] += left[1][k] * right[k][c];
      }
    for (unsigned c = 0; c < columns; ++c) {
      sums[begin + c / 2 * 4 + c % 2] += first[c];
      sums[begin + c / 2 * 4 + 2 + c % 2] += second[c];
    }
  }
}

// The first lane of each warp stands for it: its rows of a, and all of b.
template <class Note> void for_operands(Block& block, const GroupProduct& product, Note note) {
  if (block.current() % 32 != 0) return;
  const unsigned warp = block.current() % 128 / 32, rows_of_b = static_cast<unsigned>(product.values) * 2;
  const auto rows = [&](uint64_t operand, unsigned begin, unsigned end) {
    for (unsigned row = begin; row < end; ++row)
      for (unsigned byte = 0; byte < 32; byte += 16) {
        uint64_t at = operand * 16 + row / 8 * 1024 + row % 8 * 128 + byte;
        at ^= (at >> 7 & 7) << 4;
        note(block.dynamic_shared() + at);
      }
  };
  rows(product.a, warp * 16, warp * 16 + 16);
  rows(product.b, 0, rows_of_b);
}

}  // namespace

uint64_t group_operand(const void* tile) {
  Block& block = here();
  const auto offset = static_cast<const unsigned char*>(tile) - block.dynamic_shared();
  if (!block.in_shared_region(tile) || offset % 16 != 0)
    block.fail(Status::misaligned_address, "multiplies what is no tile in shared memory");
  return static_cast<uint64_t>(offset) / 16;
}

void group_multiply(float* d, int values, uint64_t a, uint64_t b) {
  Block& block = here();
  GroupProducts& products = block.lane().products;
  if (!products.fenced) block.fail(Status::launch_failed, "multiplies before a fence says that its registers are as they should be");
  const GroupProduct product{d, values, a, b, false};
  accumulator(products, d, values);
  for_operands(block, product, [&](const void* at) {
    if (block.is_unfenced(at)) block.fail(Status::launch_failed, "multiplies what a thread wrote and did not fence");
    access_begun(at, 16, false);
  });
  products.open.push_back(product);
}

void group_fence() { here().lane().products.fenced = true; }

void group_commit() {
  Block& block = here();
  GroupProducts& products = block.lane().products;
  products.closed.push_back(std::move(products.open));
  products.open.clear();
  // Those before it end before it does.
  if (block.random().coin())
    for (auto& group : products.closed)
      for (GroupProduct& product : group) carry_out(block, product);
}

void group_wait(int left) {
  Block& block = here();
  GroupProducts& products = block.lane().products;
  block.meet_warp("a wait for products", [] {});
  while (products.closed.size() > static_cast<size_t>(left)) {
    for (GroupProduct& product : products.closed.front()) {
      carry_out(block, product);
      for_operands(block, product, [&](const void* at) { access_finished(at, 16, false, block.current()); });
    }
    products.closed.pop_front();
  }
  // The first lane finished reading for its warp: an arrival by any other lane speaks for it too.
  block.meet_warp_in_order("a wait for products");
  if (!products.closed.empty() || !products.open.empty()) return;
  for (const auto& lent : products.lent) std::copy(lent.values.begin(), lent.values.end(), lent.d);
  products.lent.clear();
  products.fenced = false;
}

}  // namespace model
