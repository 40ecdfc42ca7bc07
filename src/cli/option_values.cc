// Values of options, as they were typed or stand in a file.

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "base/byte_text.h"
#include "cli/options.h"

namespace penstock {
namespace {

template <class Number>
bool parses(const std::string& text, Number& value) {
  const char* end = text.data() + text.size();
  const auto [stopped, failure] = std::from_chars(text.data(), end, value);
  return failure == std::errc{} && stopped == end && !text.empty();
}

Error expected(const std::string& text, const std::string& what) {
  return {ErrorCode::kInvalidArgument, fmt::format("\"{}\" is not {}", text, what)};
}

bool is_switch_word(std::string_view text) {
  constexpr std::string_view kWords[] = {"on", "off", "true", "false", "yes", "no", "1", "0"};
  return std::ranges::find(kWords, text) != std::end(kWords);
}

bool is_among(std::string_view choices, std::string_view text) {
  if (text.find('|') != std::string_view::npos) return false;
  const std::string framed = fmt::format("|{}|", choices);
  return !text.empty() && framed.find(fmt::format("|{}|", text)) != std::string::npos;
}

}  // namespace

Result<void> check_value(const Option& option, const std::string& text) {
  using enum OptionKind;
  switch (option.kind) {
    case kFlag:
    case kSwitch:
      if (is_switch_word(text)) return {};
      return expected(text, "on or off");
    case kChoice:
      if (is_among(option.choices, text)) return {};
      return expected(text, fmt::format("one of {}", option.choices));
    case kText: return {};
    case kInteger: {
      int64_t value = 0;
      const bool good = parses(text, value) && static_cast<double>(value) >= option.low &&
                        static_cast<double>(value) <= option.high;
      if (good) return {};
      return expected(text,
                      fmt::format("a whole number from {} to {}", static_cast<int64_t>(option.low),
                                  static_cast<int64_t>(option.high)));
    }
    case kNumber: {
      double value = 0;
      if (parses(text, value) && value >= option.low && value <= option.high) return {};
      return expected(text, fmt::format("a number from {} to {}", option.low, option.high));
    }
    case kBytes: {
      const Result<uint64_t> bytes = parse_bytes(text);
      if (!bytes) return bytes.error();
      if (*bytes > 0) return {};
      return expected(text, "a number of bytes above 0");
    }
  }
  return {};
}

bool is_on(std::string_view text) {
  return text == "on" || text == "true" || text == "yes" || text == "1";
}

}  // namespace penstock
