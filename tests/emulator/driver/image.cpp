#include "image.h"

#include <dlfcn.h>
#include <link.h>

#include <atomic>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <regex>
#include <set>

#include "report.h"
#include "settings.h"

namespace model {

struct Module {
  std::map<std::string, std::unique_ptr<Function>> functions;
  bool named = false;  // the image says which kernels it has
};

namespace {

std::mutex mutex;
std::set<const Module*> modules;
std::set<const Function*> functions;
std::atomic<Address> image_begin{0}, image_end{0};

int note_range(dl_phdr_info* info, size_t, void* name) {
  if (std::strcmp(info->dlpi_name, static_cast<const char*>(name)) != 0) return 0;
  Address begin = ~Address{0}, end = 0;
  for (int i = 0; i < info->dlpi_phnum; ++i) {
    const auto& segment = info->dlpi_phdr[i];
    if (segment.p_type != PT_LOAD) continue;
    begin = std::min<Address>(begin, info->dlpi_addr + segment.p_vaddr);
    end = std::max<Address>(end, info->dlpi_addr + segment.p_vaddr + segment.p_memsz);
  }
  image_begin = begin;
  image_end = end;
  return 1;
}

void* library() {
  static void* opened = [] {
    const std::string& path = settings().kernels;
    void* handle = path.empty() ? nullptr : dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (handle == nullptr) {
      found("no kernels: %s", path.empty() ? "CUDA_MODEL_KERNELS is not set" : dlerror());
      return handle;
    }
    link_map* map = nullptr;
    if (dlinfo(handle, RTLD_DI_LINKMAP, &map) == 0) dl_iterate_phdr(note_range, map->l_name);
    return handle;
  }();
  return opened;
}

// A text of PTX; a cubin or a fat binary begins with its own magic number.
bool is_text(const void* image) {
  constexpr uint32_t elf = 0x464c457f, fat = 0xba55ed50;
  uint32_t magic = 0;
  std::memcpy(&magic, image, sizeof magic);
  return magic != elf && magic != fat;
}

}  // namespace

const Kernel* library_kernel(const std::string& name) {
  void* handle = library();
  return handle == nullptr ? nullptr : static_cast<const Kernel*>(dlsym(handle, ("model_kernel_" + name).c_str()));
}

bool in_kernel_image(Address at) { return at >= image_begin && at < image_end; }

Status load_module(const void* image, Module** module) {
  if (library() == nullptr) return Status::invalid_image;
  auto loaded = std::make_unique<Module>();
  if (is_text(image)) {
    const std::string text = static_cast<const char*>(image);
    if (text.find(".version") == std::string::npos) return Status::invalid_image;
    loaded->named = true;
    static const std::regex entry(R"(\.entry\s+(\w+)\s*\(([^)]*)\))"), size(R"(\[(\d+)\])");
    for (std::sregex_iterator found_entry(text.begin(), text.end(), entry), end; found_entry != end; ++found_entry) {
      const std::string name = (*found_entry)[1], parameters = (*found_entry)[2];
      const Kernel* kernel = library_kernel(name);
      std::smatch bytes;
      const size_t said = std::regex_search(parameters, bytes, size) ? std::stoul(bytes[1]) : 0;
      if (kernel == nullptr || said != kernel->parameter_bytes) {
        found("the image's kernel %s takes %zu bytes of parameters, %s", name.c_str(), said,
              kernel == nullptr ? "and the library has none of that name"
                                : ("the library's " + std::to_string(kernel->parameter_bytes)).c_str());
        return Status::invalid_image;
      }
      loaded->functions[name] = std::make_unique<Function>(Function{kernel});
    }
  }
  std::lock_guard lock(mutex);
  for (const auto& [name, function] : loaded->functions) functions.insert(function.get());
  modules.insert(loaded.get());
  *module = loaded.release();
  return Status::success;
}

void unload_module(Module* module) {
  std::lock_guard lock(mutex);
  for (const auto& [name, function] : module->functions) functions.erase(function.get());
  modules.erase(module);
  delete module;
}

bool is_module(const Module* module) {
  std::lock_guard lock(mutex);
  return modules.count(module) != 0;
}

Function* module_function(Module* module, const std::string& name) {
  std::lock_guard lock(mutex);
  auto known = module->functions.find(name);
  if (known != module->functions.end()) return known->second.get();
  const Kernel* kernel = module->named ? nullptr : library_kernel(name);
  if (kernel == nullptr) return nullptr;
  auto& made = module->functions[name] = std::make_unique<Function>(Function{kernel});
  functions.insert(made.get());
  return made.get();
}

std::vector<Function*> module_functions(Module* module) {
  std::lock_guard lock(mutex);
  std::vector<Function*> all;
  for (const auto& [name, function] : module->functions) all.push_back(function.get());
  return all;
}

bool is_function(const Function* function) {
  std::lock_guard lock(mutex);
  return functions.count(function) != 0;
}

}  // namespace model
