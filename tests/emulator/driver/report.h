// Findings: what a program did that a GPU would not forgive, each one line that says the seed it was seen with.
#pragma once

namespace model {

// Writes the line to standard error and to the report. Returns how many there were before.
__attribute__((format(printf, 1, 2))) unsigned found(const char* format, ...);

}  // namespace model
