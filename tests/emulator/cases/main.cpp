// Runs the case that is named, or lists all of them.
#include "driver.h"

int main(int count, char** arguments) {
  for (const Case& each : cases()) {
    if (count < 2) {
      std::puts(each.name);
    } else if (std::strcmp(arguments[1], each.name) == 0) {
      each.run();
      if (found_lines() != expected_findings()) fail(each.name, 0, "found what was not expected: " + found_lines());
      std::fflush(stdout);
      _Exit(0);
    }
  }
  return count < 2 ? 0 : 2;
}
