// Names of errors and sentences for them.
#include <utility>

#include "machine.h"

using model::Status;

namespace {

std::pair<const char*, const char*> text(Status status) {
  switch (status) {
    case Status::success: return {"CUDA_SUCCESS", "no error"};
    case Status::invalid_value: return {"CUDA_ERROR_INVALID_VALUE", "invalid argument"};
    case Status::out_of_memory: return {"CUDA_ERROR_OUT_OF_MEMORY", "out of memory"};
    case Status::not_initialized: return {"CUDA_ERROR_NOT_INITIALIZED", "initialization error"};
    case Status::device_unavailable:
      return {"CUDA_ERROR_DEVICE_UNAVAILABLE", "CUDA-capable device(s) is/are busy or unavailable"};
    case Status::no_device: return {"CUDA_ERROR_NO_DEVICE", "no CUDA-capable device is detected"};
    case Status::invalid_device: return {"CUDA_ERROR_INVALID_DEVICE", "invalid device ordinal"};
    case Status::invalid_image: return {"CUDA_ERROR_INVALID_IMAGE", "device kernel image is invalid"};
    case Status::invalid_context: return {"CUDA_ERROR_INVALID_CONTEXT", "invalid device context"};
    case Status::no_binary_for_gpu:
      return {"CUDA_ERROR_NO_BINARY_FOR_GPU", "no kernel image is available for execution on the device"};
    case Status::ecc_uncorrectable: return {"CUDA_ERROR_ECC_UNCORRECTABLE", "uncorrectable ECC error encountered"};
    case Status::peer_access_unsupported:
      return {"CUDA_ERROR_PEER_ACCESS_UNSUPPORTED", "peer access is not supported between these two devices"};
    case Status::invalid_ptx: return {"CUDA_ERROR_INVALID_PTX", "a PTX JIT compilation failed"};
    case Status::unsupported_ptx_version:
      return {"CUDA_ERROR_UNSUPPORTED_PTX_VERSION", "the provided PTX was compiled with an unsupported toolchain."};
    case Status::invalid_handle: return {"CUDA_ERROR_INVALID_HANDLE", "invalid resource handle"};
    case Status::illegal_state: return {"CUDA_ERROR_ILLEGAL_STATE", "the operation cannot be performed in the present state"};
    case Status::not_found: return {"CUDA_ERROR_NOT_FOUND", "named symbol not found"};
    case Status::not_ready: return {"CUDA_ERROR_NOT_READY", "device not ready"};
    case Status::illegal_address: return {"CUDA_ERROR_ILLEGAL_ADDRESS", "an illegal memory access was encountered"};
    case Status::launch_out_of_resources:
      return {"CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES", "too many resources requested for launch"};
    case Status::launch_timeout: return {"CUDA_ERROR_LAUNCH_TIMEOUT", "the launch timed out and was terminated"};
    case Status::peer_access_already_enabled: return {"CUDA_ERROR_PEER_ACCESS_ALREADY_ENABLED", "peer access is already enabled"};
    case Status::peer_access_not_enabled: return {"CUDA_ERROR_PEER_ACCESS_NOT_ENABLED", "peer access has not been enabled"};
    case Status::misaligned_address: return {"CUDA_ERROR_MISALIGNED_ADDRESS", "misaligned address"};
    case Status::launch_failed: return {"CUDA_ERROR_LAUNCH_FAILED", "unspecified launch failure"};
    case Status::not_permitted: return {"CUDA_ERROR_NOT_PERMITTED", "operation not permitted"};
    case Status::not_supported: return {"CUDA_ERROR_NOT_SUPPORTED", "operation not supported"};
    case Status::stream_capture_unsupported:
      return {"CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED", "operation not permitted when stream is capturing"};
    case Status::stream_capture_invalidated:
      return {"CUDA_ERROR_STREAM_CAPTURE_INVALIDATED", "operation failed due to a previous error during capture"};
    case Status::stream_capture_unmatched:
      return {"CUDA_ERROR_STREAM_CAPTURE_UNMATCHED", "capture was not initiated in this stream"};
    case Status::stream_capture_unjoined: return {"CUDA_ERROR_STREAM_CAPTURE_UNJOINED", "capturing stream has unjoined work"};
    case Status::unknown: return {"CUDA_ERROR_UNKNOWN", "unknown error"};
  }
  return {nullptr, nullptr};
}

}  // namespace

DRIVER cuGetErrorName(Status status, const char** name) {
  *name = text(status).first;
  return *name == nullptr ? Status::invalid_value : Status::success;
}

DRIVER cuGetErrorString(Status status, const char** sentence) {
  *sentence = text(status).second;
  return *sentence == nullptr ? Status::invalid_value : Status::success;
}
