// Modules, functions and launches.
#include <algorithm>
#include <cstring>

#include "counters.h"
#include "faults.h"
#include "image.h"
#include "machine.h"
#include "ran.h"
#include "report.h"
#include "settings.h"

using model::Function;
using model::Module;
using model::Status;
using model::Stream;

DRIVER cuModuleLoadData(void** handle, const void* image) {
  if (const Status status = model::ready(); status != Status::success) return status;
  if (image == nullptr) return Status::invalid_value;
  if (!model::settings().loads) return Status::unsupported_ptx_version;
  Module* module = nullptr;
  const Status status = model::load_module(image, &module);
  *handle = module;
  return status;
}

DRIVER cuModuleLoadDataEx(void** handle, const void* image, unsigned, int*, void**) { return cuModuleLoadData(handle, image); }

DRIVER cuModuleUnload(void* handle) {
  if (!model::is_module(static_cast<Module*>(handle))) return Status::invalid_handle;
  model::unload_module(static_cast<Module*>(handle));
  return Status::success;
}

DRIVER cuModuleGetFunction(void** function, void* handle, const char* name) {
  if (const Status status = model::ready(); status != Status::success) return status;
  if (!model::is_module(static_cast<Module*>(handle))) return Status::invalid_handle;
  *function = model::module_function(static_cast<Module*>(handle), name);
  return *function == nullptr ? Status::not_found : Status::success;
}

DRIVER cuModuleGetFunctionCount(unsigned* count, void* handle) {
  if (!model::is_module(static_cast<Module*>(handle))) return Status::invalid_handle;
  *count = static_cast<unsigned>(model::module_functions(static_cast<Module*>(handle)).size());
  return Status::success;
}

DRIVER cuFuncGetName(const char** name, void* handle) {
  auto* function = static_cast<Function*>(handle);
  if (!model::is_function(function)) return Status::invalid_handle;
  *name = function->kernel->name;
  return Status::success;
}

DRIVER cuFuncGetParamInfo(void* handle, size_t index, size_t* offset, size_t* bytes) {
  auto* function = static_cast<Function*>(handle);
  if (!model::is_function(function)) return Status::invalid_handle;
  if (index > 0 || function->kernel->parameter_bytes == 0) return Status::invalid_value;
  *offset = 0;
  if (bytes != nullptr) *bytes = function->kernel->parameter_bytes;
  return Status::success;
}

DRIVER cuFuncGetAttribute(int* value, int which, void* handle) {
  auto* function = static_cast<Function*>(handle);
  if (!model::is_function(function)) return Status::invalid_handle;
  switch (which) {
    case 0: *value = static_cast<int>(function->kernel->most_threads); break;
    case 4: *value = 32; break;  // registers
    case 5:
    case 6: *value = model::settings().capability; break;
    case 8: *value = static_cast<int>(function->dynamic_limit); break;
    default: *value = 0;
  }
  return Status::success;
}

DRIVER cuFuncSetAttribute(void* handle, int which, int value) {
  constexpr int most_dynamic_shared = 8, preferred_carveout = 9;
  auto* function = static_cast<Function*>(handle);
  if (!model::is_function(function)) return Status::invalid_handle;
  if (which == preferred_carveout) return Status::success;
  if (which != most_dynamic_shared || value < 0 || static_cast<size_t>(value) > model::Block::most_shared)
    return Status::invalid_value;
  function->dynamic_limit = static_cast<size_t>(value);
  return Status::success;
}

DRIVER cuOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, void* handle, int threads, size_t dynamic_bytes) {
  auto* function = static_cast<Function*>(handle);
  if (!model::is_function(function) || threads <= 0) return Status::invalid_value;
  const size_t by_threads = 2048 / static_cast<size_t>(threads), by_memory = (228 << 10) / (dynamic_bytes + 1024);
  *blocks = static_cast<int>(std::min({by_threads, by_memory, static_cast<size_t>(std::max(model::settings().resident, 1))}));
  return Status::success;
}

namespace {

// What the driver reads of the parameters: a buffer that says its size, or the address of each parameter.
Status read_parameters(const model::Kernel& kernel, void** addresses, void** extra, std::vector<unsigned char>* parameters) {
  const void *const end = nullptr, *const buffer_follows = reinterpret_cast<void*>(1),
                    *const size_follows = reinterpret_cast<void*>(2);
  const void* buffer = nullptr;
  size_t bytes = kernel.parameter_bytes;
  if (extra != nullptr) {
    if (addresses != nullptr) return Status::invalid_value;
    for (; *extra != end; extra += 2) {
      if (*extra == buffer_follows)
        buffer = extra[1];
      else if (*extra == size_follows)
        bytes = *static_cast<size_t*>(extra[1]);
      else
        return Status::invalid_value;
    }
  } else if (addresses != nullptr) {
    buffer = addresses[0];
  }
  if (bytes != kernel.parameter_bytes || (bytes > 0 && buffer == nullptr)) {
    model::found("kernel %s takes %zu bytes of parameters and is given %zu", kernel.name, kernel.parameter_bytes,
                 buffer == nullptr ? 0 : bytes);
    return Status::invalid_value;
  }
  const auto* begin = static_cast<const unsigned char*>(buffer);
  if (bytes > 0) parameters->assign(begin, begin + bytes);
  return Status::success;
}

}  // namespace

DRIVER cuLaunchKernel(void* handle, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x, unsigned block_y,
                      unsigned block_z, unsigned dynamic_bytes, void* stream_handle, void** addresses, void** extra) {
  if (const Status status = model::ready(); status != Status::success) return status;
  auto* function = static_cast<Function*>(handle);
  auto stream = model::stream_of(stream_handle);
  if (!model::is_function(function) || stream == nullptr) {
    model::found("a launch names a %s that is none, or is gone", stream == nullptr ? "stream" : "function");
    return Status::invalid_handle;
  }
  const model::Kernel& kernel = *function->kernel;
  const uint64_t threads = uint64_t{block_x} * block_y * block_z, blocks = uint64_t{grid_x} * grid_y * grid_z;
  if (threads == 0 || blocks == 0 || blocks > 2147483647 || grid_y > 65535 || grid_z > 65535 || block_z > 64 || threads > 1024) {
    model::found("kernel %s is launched with a grid of (%u, %u, %u) and blocks of (%u, %u, %u)", kernel.name, grid_x, grid_y,
                 grid_z, block_x, block_y, block_z);
    return Status::invalid_value;
  }
  if (threads > kernel.most_threads || dynamic_bytes > function->dynamic_limit) {
    model::found("kernel %s is made for %u threads and %zu bytes of shared memory and is launched with %llu and %u", kernel.name,
                 kernel.most_threads, function->dynamic_limit, static_cast<unsigned long long>(threads), dynamic_bytes);
    return threads > kernel.most_threads ? Status::launch_out_of_resources : Status::invalid_value;
  }
  if (model::fails(model::Fault::refused)) return Status::out_of_memory;
  // What a kernel waits with may be the whole of it.
  if (!model::host_waits("cuLaunchKernel")) return Status::success;
  auto launch = std::make_shared<model::Launch>();
  launch->kernel = function->kernel;
  launch->grid = {grid_x, grid_y, grid_z};
  launch->block = {block_x, block_y, block_z};
  launch->dynamic_bytes = dynamic_bytes;
  if (const Status status = read_parameters(kernel, addresses, extra, &launch->parameters); status != Status::success)
    return status;
  if (stream->capture == nullptr) {
    model::count(model::Counter::launches);
    stream->make_room();
  }
  return model::put(*stream, {kernel.name, [launch, function](Stream& on) {
                                if (model::is_function(function)) return on.launch(*launch);
                                model::found("kernel %s runs after its module was unloaded", launch->kernel->name);
                                on.context().fail(Status::launch_failed);
                              }});
}
