// The system's loader of Vulkan, opened when somebody asks for a GPU.
//
// Linked as usual it would be needed by every process of penstock, also on machines without a GPU. It
// finds the drivers by itself. A program beside which a libvulkan.so.1 lies is told of it by
// LD_LIBRARY_PATH, as of any library.
//
// Threads  any; opened once and never closed, since drivers leave threads behind
// Errors   kNotFound: there is no loader; kUnsupported: this system's are not known
#pragma once

#include "base/result.h"

namespace penstock {

// vkGetInstanceProcAddr, from which all other functions come.
Result<void*> open_vulkan_library();

}  // namespace penstock
