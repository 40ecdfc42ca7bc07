#include "gpu/gpu_error.h"

#include <fmt/format.h>

namespace penstock {

Error gpu_error(VkResult result, const std::string& what) {
  switch (result) {
    case VK_ERROR_OUT_OF_DEVICE_MEMORY:
      return {ErrorCode::kOutOfMemory, fmt::format("{}: the device has no memory left", what)};
    case VK_ERROR_OUT_OF_HOST_MEMORY:
      return {ErrorCode::kOutOfMemory,
              fmt::format("{}: the driver got no memory from the system", what)};
    case VK_ERROR_TOO_MANY_OBJECTS:
      return {ErrorCode::kOutOfMemory,
              fmt::format("{}: the driver allows no further allocation", what)};
    case VK_ERROR_DEVICE_LOST:
      return {ErrorCode::kIo, fmt::format("{}: the device was lost", what)};
    case VK_ERROR_INITIALIZATION_FAILED:
      return {ErrorCode::kIo, fmt::format("{}: the driver could not start", what)};
    case VK_TIMEOUT: return {ErrorCode::kIo, fmt::format("{}: the device does not answer", what)};
    default:
      return {ErrorCode::kIo,
              fmt::format("{}: the driver says {}", what, static_cast<int>(result))};
  }
}

}  // namespace penstock
