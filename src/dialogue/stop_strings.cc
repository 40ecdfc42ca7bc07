#include "dialogue/stop_strings.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "text/utf8.h"

namespace penstock {

Result<void> StopStrings::check(const std::vector<std::string>& stops) {
  const auto bad = [](std::string_view what) {
    return Error{ErrorCode::kInvalidArgument, fmt::format("stop: {}", what)};
  };
  if (stops.size() > kStopStringsMax) return bad(fmt::format("more than {}", kStopStringsMax));
  for (const std::string& stop : stops) {
    if (stop.empty()) return bad("one is empty");
    if (stop.size() > kStopBytesMax) return bad(fmt::format("longer than {} bytes", kStopBytesMax));
    if (!is_valid_utf8(stop)) return bad("one is not UTF-8");
  }
  return {};
}

StopStrings::StopStrings(std::vector<std::string> stops) {
  for (std::string& stop : stops) {
    Pattern pattern;
    pattern.text = std::move(stop);
    pattern.borders.assign(pattern.text.size() + 1, 0);
    for (size_t i = 1; i < pattern.text.size(); ++i) {
      uint32_t border = pattern.borders[i];
      while (border > 0 && pattern.text[border] != pattern.text[i])
        border = pattern.borders[border];
      pattern.borders[i + 1] = pattern.text[border] == pattern.text[i] ? border + 1 : 0;
    }
    patterns_.push_back(std::move(pattern));
  }
}

std::string StopStrings::push(std::string_view text) {
  if (is_stopped()) return {};
  if (patterns_.empty()) return std::string(text);
  std::string certain;
  for (const char c : text) {
    held_ += c;
    uint32_t longest = 0;
    for (Pattern& pattern : patterns_) {
      while (pattern.length > 0 && pattern.text[pattern.length] != c) {
        pattern.length = pattern.borders[pattern.length];
      }
      if (pattern.text[pattern.length] == c) ++pattern.length;
      if (pattern.length == pattern.text.size()) {
        certain += held_.substr(0, held_.size() - pattern.text.size());
        held_.clear();
        matched_ = pattern.text;
        return certain;
      }
      longest = std::max(longest, pattern.length);
    }
    const size_t free = held_.size() - longest;
    certain += held_.substr(0, free);
    held_.erase(0, free);
  }
  return certain;
}

std::string StopStrings::flush() {
  for (Pattern& pattern : patterns_) pattern.length = 0;
  return std::exchange(held_, {});
}

}  // namespace penstock
