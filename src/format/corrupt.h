// The error of a file that is not what it should be.
#pragma once

#include <fmt/format.h>

#include <string>
#include <string_view>

#include "base/result.h"

namespace penstock {

// kCorrupt: `file: reason`.
inline Error corrupt(std::string_view file, std::string_view reason) {
  return {ErrorCode::kCorrupt, fmt::format("{}: {}", file, reason)};
}

}  // namespace penstock
