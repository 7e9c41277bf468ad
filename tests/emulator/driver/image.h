// The library of kernels that stands for every module, and what a module's own image says of them.
#pragma once
#include <string>
#include <vector>

#include "driver.h"
#include "interface.h"

namespace model {

struct Module;

struct Function {
  const Kernel* kernel;
  size_t dynamic_limit = 48 << 10;  // until the attribute raises it
};

// Checks that each kernel the image names is in the library with parameters of the same size.
Status load_module(const void* image, Module** module);
void unload_module(Module* module);
bool is_module(const Module* module);
// Null where the module has none of that name.
Function* module_function(Module* module, const std::string& name);
std::vector<Function*> module_functions(Module* module);
bool is_function(const Function* function);

// The kernel of that name in the library; null without.
const Kernel* library_kernel(const std::string& name);
// Whether the address is in a variable or constant of the library.
bool in_kernel_image(Address at);

}  // namespace model
