// What ran in this process: kernels, wrappers, waits by their place in the kernels' source, and waits of the host by who called them.
// A wait that CUDA_MODEL_WITHOUT names is left out, so that a test shows whether it would be missed.
#pragma once

namespace model {

void note_kernel(const char* name);

// Notes that the host waits for the device, marks a place that others wait for, or asks whether that was passed; false where a
// caller of that in the program is named to be left out.
bool host_waits(const char* function);

}  // namespace model
