#include "format/text.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

namespace penstock {

std::string escaped(std::string_view name) {
  constexpr size_t kBytesMax = 120;
  std::string out = "\"";
  for (const char c : name.substr(0, kBytesMax)) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte < 0x20 || byte > 0x7e || c == '"' || c == '\\') {
      out += fmt::format("\\x{:02x}", byte);
    } else {
      out += c;
    }
  }
  out += '"';
  if (name.size() > kBytesMax) out += fmt::format("... ({} bytes)", name.size());
  return out;
}

bool has_control_characters(std::string_view name) {
  return std::any_of(name.begin(), name.end(),
                     [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; });
}

bool is_plain_file_name(std::string_view name) {
  if (name.empty() || name.size() > 255 || name.front() == '.') return false;
  return std::all_of(name.begin(), name.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
           c == '_' || c == '-';
  });
}

std::string hex_text(uint64_t value) {
  return fmt::format("{:016x}", value);
}

std::string hex_text(const Hash128& value) {
  return hex_text(value.high) + hex_text(value.low);
}

std::string hex_text(std::span<const unsigned char> bytes) {
  return fmt::format("{:02x}", fmt::join(bytes, ""));
}

std::optional<uint64_t> parse_hex64(std::string_view text) {
  if (text.size() != 16) return std::nullopt;
  uint64_t value = 0;
  for (const char c : text) {
    uint64_t digit = 0;
    if (c >= '0' && c <= '9') {
      digit = static_cast<uint64_t>(c - '0');
    } else if (c >= 'a' && c <= 'f') {
      digit = static_cast<uint64_t>(c - 'a') + 10;
    } else {
      return std::nullopt;
    }
    value = value << 4 | digit;
  }
  return value;
}

std::optional<Hash128> parse_hex128(std::string_view text) {
  if (text.size() != 32) return std::nullopt;
  const std::optional<uint64_t> high = parse_hex64(text.substr(0, 16));
  const std::optional<uint64_t> low = parse_hex64(text.substr(16));
  if (!high || !low) return std::nullopt;
  return Hash128{*low, *high};
}

std::string looks_like(std::string_view first_bytes) {
  if (first_bytes.empty()) return "an empty file";
  std::string lower(first_bytes.substr(0, 64));
  std::transform(lower.begin(), lower.end(), lower.begin(), [](char c) {
    return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
  });
  const auto starts = [&](std::string_view prefix) {
    return lower.compare(0, prefix.size(), prefix) == 0;
  };
  if (starts("version https://git-lfs")) {
    return "a Git LFS pointer, not the file itself; fetch it with 'git lfs pull'";
  }
  if (starts("<!doctype html") || starts("<html")) return "an HTML page";
  if (starts("<?xml")) return "an XML text";
  if (starts("gguf")) return "a GGUF model";
  if (starts("pk\x03\x04")) return "a zip archive, perhaps a PyTorch file";
  if (starts("\x80\x02") || starts("\x80\x04")) return "a Python pickle";
  if (starts("\x93numpy")) return "a NumPy array";
  if (starts("{")) return "a JSON text";
  if (std::all_of(lower.begin(), lower.end(), [](char c) { return c == '\0'; })) return "zeros";
  return "";
}

}  // namespace penstock
