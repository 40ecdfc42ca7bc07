// What the kernel said, as an Error: the sentence names the call, the path and the reason.
#pragma once

#include <cerrno>
#include <string>
#include <string_view>
#include <system_error>

#include "base/result.h"

namespace penstock {

// "Input/output error". Unlike strerror, safe from several threads.
inline std::string reason_of(int error) {
  return std::generic_category().message(error);
}

inline Error system_error(std::string_view call, const std::string& path, int error) {
  ErrorCode code = ErrorCode::kIo;
  if (error == ENOENT || error == ENOTDIR) code = ErrorCode::kNotFound;
  if (error == ENOSPC || error == EDQUOT || error == ENOMEM) code = ErrorCode::kOutOfMemory;
  return {code, std::string(call) + " " + path + ": " + reason_of(error)};
}

}  // namespace penstock
