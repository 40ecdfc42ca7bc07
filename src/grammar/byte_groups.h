// The bytes that texts are made of, in 32 groups: a summary of a set of bytes in one word.
//
// "All text below this node of the vocabulary consists of letters and blanks" and "this state
// stays where it is on everything but a quote, a backslash and controls" are both such words, and
// whether one is inside the other is one operation. What grammars tell apart has groups of its own.
#pragma once

#include <array>
#include <bitset>
#include <cstddef>
#include <cstdint>

namespace penstock {

using ByteGroups = uint32_t;

inline constexpr ByteGroups kWholeCharacters = 1u << 30;   // valid UTF-8 beyond ASCII
inline constexpr ByteGroups kBrokenCharacters = 1u << 31;  // all other bytes from 0x80 on

constexpr uint32_t group_of_ascii(uint8_t byte) {
  constexpr const char* kSingles = "\"\\\n\r\t<>/-_.,:;{}[]()'";  // groups 9 to 29
  for (uint32_t i = 0; kSingles[i] != '\0'; ++i) {
    if (static_cast<uint8_t>(kSingles[i]) == byte) return 9 + i;
  }
  if (byte < 0x20) return 0;
  if (byte == ' ') return 1;
  if (byte >= '0' && byte <= '9') return 2;
  if (byte >= 'a' && byte <= 'f') return 3;
  if (byte >= 'g' && byte <= 'z') return 4;
  if (byte >= 'A' && byte <= 'F') return 5;
  if (byte >= 'G' && byte <= 'Z') return 6;
  if (byte == 0x7F) return 7;
  return 8;  // the rest of punctuation
}

inline constexpr std::array<ByteGroups, 128> kAsciiGroups = [] {
  std::array<ByteGroups, 128> groups{};
  for (uint8_t byte = 0; byte < 128; ++byte) groups[byte] = 1u << group_of_ascii(byte);
  return groups;
}();

// The groups that any of the bytes belongs to.
inline ByteGroups groups_of(const std::bitset<256>& bytes) {
  ByteGroups groups = 0;
  for (size_t byte = 0; byte < 256; ++byte) {
    if (bytes[byte])
      groups |= byte < 128 ? kAsciiGroups[byte] : kWholeCharacters | kBrokenCharacters;
  }
  return groups;
}

// Well-formed UTF-8, one byte at a time (Unicode standard, table 3-7): 0 is between characters.
// kUtf8Broken for a byte that cannot follow.
inline constexpr uint8_t kUtf8Broken = 255;

constexpr uint8_t next_utf8_state(uint8_t state, uint8_t byte) {
  const auto in = [byte](uint8_t first, uint8_t last) { return byte >= first && byte <= last; };
  switch (state) {
    case 0:
      if (byte < 0x80) return 0;
      if (in(0xC2, 0xDF)) return 1;
      if (byte == 0xE0) return 4;
      if (byte == 0xED) return 5;
      if (in(0xE1, 0xEF)) return 2;
      if (byte == 0xF0) return 6;
      if (in(0xF1, 0xF3)) return 3;
      return byte == 0xF4 ? 7 : kUtf8Broken;
    case 1: return in(0x80, 0xBF) ? 0 : kUtf8Broken;
    case 2: return in(0x80, 0xBF) ? 1 : kUtf8Broken;
    case 3: return in(0x80, 0xBF) ? 2 : kUtf8Broken;
    case 4: return in(0xA0, 0xBF) ? 1 : kUtf8Broken;
    case 5: return in(0x80, 0x9F) ? 1 : kUtf8Broken;
    case 6: return in(0x90, 0xBF) ? 2 : kUtf8Broken;
    default: return in(0x80, 0x8F) ? 2 : kUtf8Broken;
  }
}

}  // namespace penstock
