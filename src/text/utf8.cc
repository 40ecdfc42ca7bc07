#include "text/utf8.h"

#include <cstring>

namespace penstock {
namespace {

// How many bytes follow a first byte, and what the second may be: the limits that exclude overlong
// forms, surrogates and what lies above U+10FFFF. {0, ...}: not a first byte.
struct Lead {
  uint32_t followers;
  uint8_t second_min;
  uint8_t second_max;
};

Lead lead_of(uint8_t first) {
  if (first >= 0xC2 && first <= 0xDF) return {1, 0x80, 0xBF};
  if (first == 0xE0) return {2, 0xA0, 0xBF};
  if (first == 0xED) return {2, 0x80, 0x9F};
  if (first >= 0xE1 && first <= 0xEF) return {2, 0x80, 0xBF};
  if (first == 0xF0) return {3, 0x90, 0xBF};
  if (first >= 0xF1 && first <= 0xF3) return {3, 0x80, 0xBF};
  if (first == 0xF4) return {3, 0x80, 0x8F};
  return {0, 0, 0};
}

size_t ascii_run(std::string_view text, size_t position) {
  size_t end = position;
  while (end + 8 <= text.size()) {
    uint64_t word = 0;
    std::memcpy(&word, text.data() + end, 8);
    if ((word & 0x8080808080808080u) != 0) break;
    end += 8;
  }
  while (end < text.size() && static_cast<uint8_t>(text[end]) < 0x80) ++end;
  return end - position;
}

}  // namespace

Utf8Char decode_utf8(std::string_view text, size_t position) {
  const auto first = static_cast<uint8_t>(text[position]);
  if (first < 0x80) return {first, 1, Utf8Status::kWhole};
  const Lead lead = lead_of(first);
  if (lead.followers == 0) return {kReplacementCharacter, 1, Utf8Status::kInvalid};
  char32_t code_point = first & (0x3Fu >> lead.followers);
  for (uint32_t i = 1; i <= lead.followers; ++i) {
    if (position + i >= text.size()) return {kReplacementCharacter, i, Utf8Status::kTruncated};
    const auto next = static_cast<uint8_t>(text[position + i]);
    const uint8_t minimum = i == 1 ? lead.second_min : 0x80;
    const uint8_t maximum = i == 1 ? lead.second_max : 0xBF;
    if (next < minimum || next > maximum) return {kReplacementCharacter, i, Utf8Status::kInvalid};
    code_point = code_point << 6 | (next & 0x3F);
  }
  return {code_point, lead.followers + 1, Utf8Status::kWhole};
}

void append_utf8(char32_t code_point, std::string& out) {
  const auto put = [&](char32_t byte) { out += static_cast<char>(static_cast<uint8_t>(byte)); };
  if (code_point < 0x80) {
    put(code_point);
  } else if (code_point < 0x800) {
    put(0xC0 | code_point >> 6);
    put(0x80 | (code_point & 0x3F));
  } else if (code_point < 0x10000) {
    put(0xE0 | code_point >> 12);
    put(0x80 | (code_point >> 6 & 0x3F));
    put(0x80 | (code_point & 0x3F));
  } else {
    put(0xF0 | code_point >> 18);
    put(0x80 | (code_point >> 12 & 0x3F));
    put(0x80 | (code_point >> 6 & 0x3F));
    put(0x80 | (code_point & 0x3F));
  }
}

bool is_valid_utf8(std::string_view text) {
  for (size_t position = 0; position < text.size();) {
    position += ascii_run(text, position);
    if (position == text.size()) break;
    const Utf8Char next = decode_utf8(text, position);
    if (next.status != Utf8Status::kWhole) return false;
    position += next.bytes;
  }
  return true;
}

std::string replace_invalid_utf8(std::string_view text) {
  std::string out;
  out.reserve(text.size() + 8);
  for (size_t position = 0; position < text.size();) {
    const Utf8Char next = decode_utf8(text, position);
    if (next.status == Utf8Status::kWhole) {
      out += text.substr(position, next.bytes);
    } else {
      append_utf8(kReplacementCharacter, out);
    }
    position += next.bytes;
  }
  return out;
}

}  // namespace penstock
