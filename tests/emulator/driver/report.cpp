#include "report.h"

#include <fcntl.h>
#include <unistd.h>

#include <atomic>
#include <cstdarg>
#include <cstdio>
#include <mutex>
#include <string>

#include "counters.h"
#include "settings.h"

namespace model {

namespace {

struct Lines {
  std::mutex mutex;
  std::string all;
};
Lines& lines() {
  static auto* made_once = new Lines;
  return *made_once;
}

}  // namespace

unsigned found(const char* format, ...) {
  // Enough to see what goes on; the thousandth line of one mistake says nothing new.
  constexpr unsigned most = 100;
  static std::atomic<unsigned> seen{0};
  const unsigned before = seen++;
  count(Counter::findings);
  if (before >= most) return before;
  char line[1024];
  int length = std::snprintf(line, sizeof line, "cuda model: ");
  va_list values;
  va_start(values, format);
  const int more = std::vsnprintf(line + length, sizeof line - static_cast<size_t>(length), format, values);
  va_end(values);
  length = length + more < static_cast<int>(sizeof line) - 40 ? length + more : static_cast<int>(sizeof line) - 40;
  length += std::snprintf(line + length, sizeof line - static_cast<size_t>(length), " (seed %llu)\n",
                          static_cast<unsigned long long>(settings().seed));
  {
    std::lock_guard lock(lines().mutex);
    lines().all += line;
  }
  [[maybe_unused]] ssize_t written = write(STDERR_FILENO, line, static_cast<size_t>(length));
  if (!settings().report.empty()) {
    const int file = open(settings().report.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    if (file >= 0) {
      written = write(file, line, static_cast<size_t>(length));
      close(file);
    }
  }
  return before;
}

}  // namespace model

// Every line so far, for programs that find it with dlsym.
extern "C" __attribute__((visibility("default"))) const char* cudaModelFindings() {
  static thread_local std::string copy;
  std::lock_guard lock(model::lines().mutex);
  copy = model::lines().all;
  return copy.c_str();
}
