// Results of Vulkan as errors of ours.
//
// Errors   kOutOfMemory: device or host memory, or the number of allocations; kIo: all else, a lost
//          device among it
#pragma once

#include <string>

#include "base/result.h"
#include "gpu/vulkan_functions.h"

namespace penstock {

// `what` was tried: "NVIDIA H100: reading back logits".
Error gpu_error(VkResult result, const std::string& what);

inline Result<void> gpu_check(VkResult result, const std::string& what) {
  if (result >= VK_SUCCESS) return {};
  return gpu_error(result, what);
}

}  // namespace penstock
