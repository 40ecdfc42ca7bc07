// What tests write: text, as the bytes that a file takes.
#pragma once

#include <cstddef>
#include <span>
#include <string>

namespace penstock {

// A view: `text` outlives it.
inline std::span<const std::byte> bytes_of(const std::string& text) {
  return std::as_bytes(std::span(text));
}

}  // namespace penstock
