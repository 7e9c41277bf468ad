// The memory of the emulated machine: one range of addresses, of which every allocation has a part of its own, with
// unreachable pages around it. An address is never given twice, so use after free is always seen.
#pragma once
#include <cstddef>
#include <string>

#include "driver.h"

namespace model {

// Of a device, of the host, behind addresses reserved before, or of another process.
enum class Home { device, pinned, mapped, opened };

struct Allocation {
  Address begin = 0;
  size_t bytes = 0;
  Home home = Home::device;
  int device = 0;
  uint64_t number = 0;  // the n-th of the process
  bool alive = false;
  uint32_t allowed = 0;  // of mapped memory, a bit for each device
};

constexpr size_t page_bytes = 4096;
constexpr size_t arena_bytes = size_t{1} << 38;

// Where every allocation lies.
extern const Address arena_begin;
inline bool in_arena(Address at) { return at - arena_begin < arena_bytes; }

// Fresh memory that holds no sensible value; 0 where the device or the machine has none left.
Address allocate(Home home, int device, size_t bytes);
// False where no live allocation of that home begins there.
bool release(Home home, Address begin);
// Memory of the program that kernels and copy engines may use from now on.
bool register_host(Address begin, size_t bytes);
bool unregister_host(Address begin);

// A part of the range for `reserve` bytes, without memory; `map` puts the memory of a file there.
Address reserve(size_t bytes, size_t alignment);
bool map_file(Address at, size_t bytes, int file, int device);
bool unmap(Address at, size_t bytes);
void set_reachable(Address at, size_t bytes);

size_t used(int device);
bool charge(int device, size_t bytes);
void discharge(int device, size_t bytes);

// Device memory lies in a file of this process, so that others can open it: which file, and from where on.
int device_file();
size_t file_offset(Address at);
// Maps such a part of another process's file for a device; 0 where that cannot be.
Address open_shared(int file, size_t offset, size_t bytes, int device);
bool close_shared(Address at);

// Whether all of it lies in one live allocation, and on which device; -1 for memory of the host. Fast: kernels ask at every
// access.
bool reachable(Address at, size_t bytes, int* device = nullptr);
// Of mapped memory: the devices that access was given to.
void allow(Address at, size_t bytes, int device);
bool is_allowed(Address at, int device);
// Whether it is such memory and access was not given to this device.
bool is_closed(Address at, int device);
bool is_pinned(Address at);
// Fills memory with what reads as NaN, and as an index that no table has.
void poison(void* at, size_t bytes);
// What lies at an address, for a finding: "7 bytes past the end of allocation 3 (64 bytes)".
std::string describe(Address at, size_t bytes);
// The live allocation that holds the address.
bool find(Address at, Allocation* found);

}  // namespace model
