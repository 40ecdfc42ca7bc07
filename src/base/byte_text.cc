#include "base/byte_text.h"

#include <fmt/format.h>

#include <cctype>
#include <charconv>
#include <cmath>

namespace penstock {

Result<uint64_t> parse_bytes(const std::string& text) {
  double value = 0;
  const auto [end, failure] = std::from_chars(text.data(), text.data() + text.size(), value);
  std::string suffix(end, text.data() + text.size());
  for (char& c : suffix) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  if (suffix.ends_with("IB")) suffix.resize(suffix.size() - 2);
  else if (suffix.ends_with("B")) suffix.resize(suffix.size() - 1);
  const std::string_view letters = "KMGT";
  const size_t power = suffix.empty() ? 0 : letters.find(suffix) + 1;
  const bool known = suffix.empty() || (suffix.size() == 1 && power != 0);
  const double bytes = value * std::pow(1024.0, static_cast<double>(power));
  if (failure != std::errc{} || !known || !(bytes >= 0) || bytes >= 0x1p62) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("\"{}\" is not a number of bytes; write 6G, 512M or 1.5GiB", text)};
  }
  return static_cast<uint64_t>(bytes);
}

std::string format_bytes(uint64_t bytes) {
  const char* units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  double value = static_cast<double>(bytes);
  size_t unit = 0;
  while (value >= 1024 && unit < 4) {
    value /= 1024;
    ++unit;
  }
  return unit == 0 ? fmt::format("{} B", bytes) : fmt::format("{:.2f} {}", value, units[unit]);
}

}  // namespace penstock
