#include "faults.h"

#include <array>
#include <atomic>
#include <cstdlib>
#include <string>

#include "settings.h"

namespace model {
namespace {

constexpr const char* names[] = {"allocation", "pinned", "copy", "launch", "ecc", "illegal", "refused", "stop", "capture", "open"};

using Planned = std::array<long, static_cast<int>(Fault::last)>;

Planned planned() {
  Planned at{};
  const std::string text = settings().faults + ",";
  for (size_t begin = 0, end; (end = text.find(',', begin)) != std::string::npos; begin = end + 1) {
    const std::string fault = text.substr(begin, end - begin);
    const size_t mark = fault.find('@');
    if (mark == std::string::npos) continue;
    for (size_t i = 0; i < at.size(); ++i)
      if (fault.compare(0, mark, names[i]) == 0) at[i] = std::atol(fault.c_str() + mark + 1);
  }
  return at;
}

}  // namespace

bool fails(Fault fault) {
  static const Planned at = planned();
  static std::array<std::atomic<long>, static_cast<int>(Fault::last)> seen{};
  const int kind = static_cast<int>(fault);
  return ++seen[static_cast<size_t>(kind)] == at[static_cast<size_t>(kind)];
}

}  // namespace model
