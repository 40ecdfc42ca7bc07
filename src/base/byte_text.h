// Numbers of bytes, as people write and read them.
//
// Errors  parse_bytes(): kInvalidArgument with the text and an example
#pragma once

#include <cstdint>
#include <string>

#include "base/result.h"

namespace penstock {

// "6G", "512M", "1.5GiB", "1000000": K, M, G, T are powers of 1024.
Result<uint64_t> parse_bytes(const std::string& text);

// 512 B, 1.50 MiB, 19.53 GiB.
std::string format_bytes(uint64_t bytes);

}  // namespace penstock
