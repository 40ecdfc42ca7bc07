#include "gpu/vulkan_library.h"

namespace penstock {

Result<void*> open_vulkan_library() {
  return Error{ErrorCode::kUnsupported, "this build cannot use GPUs of macOS"};
}

}  // namespace penstock
