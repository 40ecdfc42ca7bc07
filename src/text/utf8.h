// UTF-8, one character at a time.
//
// Invalid bytes are cut as Python's errors="replace" (and the Unicode standard, section 3.9) cuts
// them: each maximal beginning of a character that cannot be completed is one U+FFFD.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace penstock {

inline constexpr char32_t kReplacementCharacter = 0xFFFD;

enum class Utf8Status : uint8_t {
  kWhole,      // a character
  kInvalid,    // `bytes` bytes that no continuation can make a character
  kTruncated,  // the text ends inside a character that more bytes could complete
};

struct Utf8Char {
  char32_t code_point;  // U+FFFD unless kWhole
  uint32_t bytes;
  Utf8Status status;
};

// The character that begins at text[position]. position < text.size().
Utf8Char decode_utf8(std::string_view text, size_t position);

// The same for text that is known to be valid; no checks.
inline Utf8Char decode_valid_utf8(std::string_view text, size_t position) {
  const auto byte = [&](size_t i) { return static_cast<uint8_t>(text[position + i]); };
  const uint8_t first = byte(0);
  if (first < 0x80) return {first, 1, Utf8Status::kWhole};
  const auto low = [&](size_t i) { return static_cast<char32_t>(byte(i) & 0x3F); };
  if (first < 0xE0) {
    return {static_cast<char32_t>(first & 0x1F) << 6 | low(1), 2, Utf8Status::kWhole};
  }
  if (first < 0xF0) {
    return {static_cast<char32_t>(first & 0x0F) << 12 | low(1) << 6 | low(2), 3,
            Utf8Status::kWhole};
  }
  return {static_cast<char32_t>(first & 0x07) << 18 | low(1) << 12 | low(2) << 6 | low(3), 4,
          Utf8Status::kWhole};
}

void append_utf8(char32_t code_point, std::string& out);

bool is_valid_utf8(std::string_view text);

// `text` with every invalid sequence, also an unfinished one at its end, replaced by U+FFFD.
std::string replace_invalid_utf8(std::string_view text);

}  // namespace penstock
