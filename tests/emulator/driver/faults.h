// Failures on demand. CUDA_MODEL_FAULTS is a list such as "allocation@3,copy@5": the third allocation and the fifth copy of
// the process fail. Kinds: open: the n-th time that a device is opened it is another's; allocation, pinned, copy, launch fail with the error a driver has for it (launch and copy break the
// context, as a device error does); ecc, illegal: the n-th launch ends with an error of the memory, or an access to none, which breaks
// the context for good; refused: the n-th launch is not taken, for want of memory, and nothing is broken; stop: the stream of the n-th launch never goes on; capture: the n-th ends as if something had
// spoilt it.
#pragma once

namespace model {

enum class Fault { allocation, pinned, copy, launch, ecc, illegal, refused, stop, capture, open, last };

// Counts one more of the kind, and says whether it is the one that fails.
bool fails(Fault fault);

}  // namespace model
