#include "ran.h"

#include <fcntl.h>
#include <link.h>
#include <unistd.h>
#include <unwind.h>

#include <atomic>
#include <cstdio>
#include <cstring>
#include <mutex>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "interface.h"
#include "settings.h"

namespace model {
namespace {

std::atomic<const Wrapper*>& wrappers() {
  static std::atomic<const Wrapper*> first{nullptr};
  return first;
}

struct Noted {
  std::mutex mutex;
  std::set<std::string> kernels, waits;
  std::set<std::pair<std::string, std::vector<uintptr_t>>> calls;
};
Noted& noted() {
  static auto* made_once = new Noted;
  return *made_once;
}

const std::set<std::string>& left_out() {
  static const auto* read_once = [] {
    auto* names = new std::set<std::string>;
    std::istringstream all(settings().without);
    for (std::string name; std::getline(all, name, ',');) names->insert(name);
    return names;
  }();
  return *read_once;
}

// Waits of kernels by file and line, which are asked for at each of them: a table without locks, whose entries never change.
constexpr size_t most_places = 4096;
struct Known {
  std::atomic<uint64_t> key{0};
  std::atomic<int> kept{-1};
};
Known known[most_places];

bool look_up(const char* path, unsigned line) {
  const char* slash = std::strrchr(path, '/');
  const std::string place = std::string(slash == nullptr ? path : slash + 1) + ':' + std::to_string(line);
  std::lock_guard lock(noted().mutex);
  noted().waits.insert(place);
  return left_out().count(place) == 0;
}

// The program itself, where its own code lies.
struct Program {
  uintptr_t begin = 0, end = 0, base = 0;
};
const Program& program() {
  static const Program found = [] {
    Program first;
    dl_iterate_phdr(
        [](dl_phdr_info* info, size_t, void* into) {
          auto& program = *static_cast<Program*>(into);
          program.base = info->dlpi_addr;
          program.begin = ~uintptr_t{0};
          for (int i = 0; i < info->dlpi_phnum; ++i) {
            const auto& segment = info->dlpi_phdr[i];
            if (segment.p_type != PT_LOAD || (segment.p_flags & PF_X) == 0) continue;
            const uintptr_t begin = info->dlpi_addr + segment.p_vaddr, end = begin + segment.p_memsz;
            program.begin = begin < program.begin ? begin : program.begin;
            program.end = end > program.end ? end : program.end;
          }
          return 1;
        },
        &first);
    return first;
  }();
  return found;
}

_Unwind_Reason_Code note_frame(_Unwind_Context* context, void* into) {
  constexpr size_t most_frames = 64;
  auto& frames = *static_cast<std::vector<uintptr_t>*>(into);
  const uintptr_t at = _Unwind_GetIP(context);
  // The call is before where it returns to.
  if (at > program().begin && at <= program().end) frames.push_back(at - 1 - program().base);
  return frames.size() < most_frames ? _URC_NO_REASON : _URC_END_OF_STACK;
}

// Processes of one test append to one file: all at once, so that none comes between.
void append(const std::string& path, const std::string& text) {
  const int file = path.empty() ? -1 : open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  if (file < 0) return;
  [[maybe_unused]] const ssize_t written = write(file, text.data(), text.size());
  close(file);
}

void write_all() {
  std::ostringstream text, calls;
  std::lock_guard lock(noted().mutex);
  for (const auto& name : noted().kernels) text << "kernel " << name << '\n';
  for (const auto& place : noted().waits) text << "wait " << place << '\n';
  for (const Wrapper* wrapper = wrappers(); wrapper != nullptr; wrapper = wrapper->next)
    if (wrapper->ran != 0) text << "wrapper " << wrapper->name << '\n';
  append(settings().ran, text.str());
  for (const auto& [function, frames] : noted().calls) {
    calls << function << std::hex;
    for (const uintptr_t frame : frames) calls << ' ' << frame;
    calls << std::dec << '\n';
  }
  append(settings().calls, calls.str());
}

struct AtExit {
  ~AtExit() { write_all(); }
} at_exit;

}  // namespace

Wrapper::Wrapper(const char* called) : name(called), next(wrappers()) { wrappers() = this; }

bool is_kept(const std::source_location& place) {
  const uint64_t key = reinterpret_cast<uint64_t>(place.file_name()) << 16 | (place.line() & 0xffff);
  for (size_t i = key * 0x9e3779b97f4a7c15u >> 52;; i = (i + 1) % most_places) {
    uint64_t there = known[i].key;
    if (there == 0 && known[i].key.compare_exchange_strong(there, key)) there = key;
    if (there != key) continue;
    int kept = known[i].kept;
    if (kept < 0) known[i].kept = kept = look_up(place.file_name(), place.line()) ? 1 : 0;
    return kept != 0;
  }
}

void note_kernel(const char* name) {
  if (settings().ran.empty()) return;
  std::lock_guard lock(noted().mutex);
  noted().kernels.insert(name);
}

bool host_waits(const char* function) {
  if (settings().calls.empty() && left_out().empty()) return true;
  std::vector<uintptr_t> frames;
  _Unwind_Backtrace(note_frame, &frames);
  for (const uintptr_t frame : frames) {
    char name[32];
    std::snprintf(name, sizeof name, "+%llx", static_cast<unsigned long long>(frame));
    if (left_out().count(name) != 0) return false;
  }
  std::lock_guard lock(noted().mutex);
  noted().calls.emplace(function, std::move(frames));
  return true;
}

}  // namespace model
