// Python's ways with text that templates rely on: str(), repr(), json.dumps, white space,
// splitting.
//
// A chat template prints values, so True, None, 1.0 and ['a'] must look as Python prints them.
//
// Known to differ: integers above 64 bits; case mapping that changes the number of characters (the
// German sharp s); Unicode 14 for what repr() calls printable. See also text_methods.cc,
// character_class.h, python_format.h.
// Errors  kInvalidArgument when the text would be larger than kTextBytesMax or nests too deep.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "text/jinja/value.h"

namespace penstock::jinja {

inline constexpr size_t kTextBytesMax = size_t{16} << 20;
inline constexpr int kValueDepthMax =
    200;  // of nested lists and dicts when they are looked through

// str(value); undefined prints as nothing.
Result<std::string> python_str(const Value& value);
Result<std::string> python_repr(const Value& value);
std::string python_str(double value);

// json.dumps(value, ensure_ascii=..., indent=..., separators=..., sort_keys=...)
struct JsonFormat {
  bool ensure_ascii = false;
  std::optional<std::string> indent;  // what one level is indented by; unset: one line
  std::string item_separator = ", ";
  std::string key_separator = ": ";
  bool sort_keys = false;
};
Result<std::string> python_json(const Value& value, const JsonFormat& format);

// Texts below are valid UTF-8.

int64_t code_point_count(std::string_view text);

// Where the code point number `index` begins; text.size() if there are fewer.
size_t byte_offset(std::string_view text, int64_t index);

bool is_python_space(char32_t code_point);

enum class Side : uint8_t { kLeft, kRight, kBoth };

// str.strip and its kin: without white space, or without the code points in `characters`.
std::string_view strip(std::string_view text, Side side,
                       std::optional<std::string_view> characters = std::nullopt);

std::string upper(std::string_view text);
std::string lower(std::string_view text);
std::string capitalize(std::string_view text);
std::string title(std::string_view text);  // str.title(): after every non-letter a capital
std::string swap_case(std::string_view text);
std::string case_fold(std::string_view text);

// str.split() and str.split(separator); at most max_splits cuts unless negative.
std::vector<std::string_view> split_at_space(std::string_view text, int64_t max_splits);
std::vector<std::string_view> split(std::string_view text, std::string_view separator,
                                    int64_t max_splits);
// The cuts counted from the right.
std::vector<std::string_view> split_at_space_right(std::string_view text, int64_t max_splits);
std::vector<std::string_view> split_right(std::string_view text, std::string_view separator,
                                          int64_t max_splits);

enum class LineEnds : uint8_t { kDrop, kKeep };
std::vector<std::string_view> split_lines(std::string_view text, LineEnds ends = LineEnds::kDrop);

// Where `needle` begins at or after `from`, or npos. In linear time, whatever the texts are.
size_t find(std::string_view text, std::string_view needle, size_t from = 0);
// Where the last `needle` begins, or npos. In linear time, too.
size_t find_last(std::string_view text, std::string_view needle);

// str.replace(old, replacement, count); all if count is negative.
Result<std::string> replace(std::string_view text, std::string_view old,
                            std::string_view replacement, int64_t count);

}  // namespace penstock::jinja
