// Which lines of a program ran: the first instruction of each is a breakpoint, which is gone once it was met. The program is the one that
// is tested, as it was built; nothing in it knows of this, and what was met once runs at its usual speed. Preloaded into every process
// of a test; $CUDA_MODEL_TRACE/PROGRAM.lines says where lines of a program begin, PROGRAM.met is told what came of each.
#include <fcntl.h>
#include <link.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <ucontext.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

namespace {

constexpr unsigned char breakpoint = 0xcc;
// What the second file says of a line.
enum Line : unsigned char { not_there, there, met };

// The program's own code.
struct Code {
  uintptr_t base = 0, begin = UINTPTR_MAX, end = 0;
};
Code code;
// Where lines begin, as offsets in the program, from the least; what came of each; and the instruction's first byte.
const uint64_t* lines = nullptr;
unsigned char *came = nullptr, *instructions = nullptr;
size_t count = 0;

int find_code(dl_phdr_info* info, size_t, void*) {
  code.base = info->dlpi_addr;
  for (int i = 0; i < info->dlpi_phnum; ++i) {
    const auto& segment = info->dlpi_phdr[i];
    if (segment.p_type != PT_LOAD || (segment.p_flags & PF_X) == 0) continue;
    code.begin = std::min<uintptr_t>(code.begin, segment.p_vaddr);
    code.end = std::max<uintptr_t>(code.end, segment.p_vaddr + segment.p_memsz);
  }
  return 1;  // the program comes first
}

unsigned char* at(size_t line) { return reinterpret_cast<unsigned char*>(code.base + lines[line]); }

void meet(int, siginfo_t*, void* context) {
  auto& next = static_cast<ucontext_t*>(context)->uc_mcontext.gregs[REG_RIP];
  const uint64_t offset = static_cast<uint64_t>(next) - 1 - code.base;
  const auto line = static_cast<size_t>(std::lower_bound(lines, lines + count, offset) - lines);
  if (line == count || lines[line] != offset) _exit(128 + SIGTRAP);
  // Another thread that meets it now does the same.
  __atomic_store_n(at(line), instructions[line], __ATOMIC_SEQ_CST);
  came[line] = met;
  --next;
}

template <class T> T* mapped(const std::string& path, bool writes, size_t* bytes) {
  const int file = open(path.c_str(), (writes ? O_RDWR : O_RDONLY) | O_CLOEXEC);
  struct stat state = {};
  if (file < 0 || fstat(file, &state) != 0 || state.st_size == 0) return nullptr;
  *bytes = static_cast<size_t>(state.st_size);
  void* found = mmap(nullptr, *bytes, writes ? PROT_READ | PROT_WRITE : PROT_READ, MAP_SHARED, file, 0);
  close(file);
  return found == MAP_FAILED ? nullptr : static_cast<T*>(found);
}

__attribute__((constructor)) void begin() {
  char path[4096] = {};
  const char* folder = std::getenv("CUDA_MODEL_TRACE");
  if (folder == nullptr || readlink("/proc/self/exe", path, sizeof path - 1) <= 0) return;
  const std::string files = folder + std::string(std::strrchr(path, '/'));
  size_t bytes = 0;
  lines = mapped<const uint64_t>(files + ".lines", false, &bytes);
  came = mapped<unsigned char>(files + ".met", true, &count);
  if (lines == nullptr || came == nullptr || bytes != count * sizeof *lines) return;
  dl_iterate_phdr(find_code, nullptr);
  // What the linker left out lies nowhere.
  const auto is_there = [](size_t line) { return lines[line] >= code.begin && lines[line] < code.end; };
  const auto page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE)), first = (code.base + code.begin) / page * page;
  if (mprotect(reinterpret_cast<void*>(first), code.base + code.end - first, PROT_READ | PROT_WRITE | PROT_EXEC) != 0) {
    std::perror("the system lets no breakpoints be put into the program");
    std::abort();
  }
  instructions = new unsigned char[count]();
  struct sigaction action = {};
  action.sa_sigaction = meet;
  action.sa_flags = SA_SIGINFO | SA_RESTART | SA_ONSTACK;
  sigaction(SIGTRAP, &action, nullptr);
  for (size_t line = 0; line < count; ++line) {
    if (!is_there(line) || came[line] == met) continue;
    came[line] = there;
    instructions[line] = *at(line);
    *at(line) = breakpoint;
  }
}

}  // namespace
