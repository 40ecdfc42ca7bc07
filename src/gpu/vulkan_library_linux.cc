#include <dlfcn.h>
#include <fmt/format.h>

#include "gpu/vulkan_library.h"

namespace penstock {
namespace {

constexpr const char* kFile = "libvulkan.so.1";

Result<void*> open_it() {
  void* library = ::dlopen(kFile, RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    return Error{
        ErrorCode::kNotFound,
        fmt::format("no GPU can be used without {} (package libvulkan1): {}", kFile, ::dlerror())};
  }
  void* function = ::dlsym(library, "vkGetInstanceProcAddr");
  if (function == nullptr) {
    return Error{ErrorCode::kNotFound, fmt::format("{} is not a loader of Vulkan", kFile)};
  }
  return function;
}

}  // namespace

Result<void*> open_vulkan_library() {
  static const Result<void*> opened = open_it();
  return opened;
}

}  // namespace penstock
