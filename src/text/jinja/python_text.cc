#include "text/jinja/python_text.h"

#include <fmt/format.h>
#include <utf8proc.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdlib>
#include <cstring>

#include "base/check.h"
#include "text/jinja/character_class.h"
#include "text/unicode_tables.h"
#include "text/utf8.h"

namespace penstock::jinja {
namespace {

bool is_continuation(char byte) {
  return (static_cast<uint8_t>(byte) & 0xC0) == 0x80;
}

char32_t map_upper(char32_t c) {
  return static_cast<char32_t>(utf8proc_toupper(static_cast<utf8proc_int32_t>(c)));
}
char32_t map_lower(char32_t c) {
  return static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(c)));
}
char32_t map_title(char32_t c) {
  return static_cast<char32_t>(utf8proc_totitle(static_cast<utf8proc_int32_t>(c)));
}

template <class Map>
std::string map_code_points(std::string_view text, const Map& map) {
  std::string out;
  out.reserve(text.size());
  for (size_t position = 0; position < text.size();) {
    const Utf8Char next = decode_valid_utf8(text, position);
    append_utf8(map(next.code_point), out);
    position += next.bytes;
  }
  return out;
}

bool is_cased(char32_t c) {
  return map_upper(c) != c || map_lower(c) != c;
}

size_t line_break_bytes(std::string_view text, size_t position) {
  if (text.substr(position, 2) == "\r\n") return 2;
  const Utf8Char next = decode_valid_utf8(text, position);
  const char32_t c = next.code_point;
  const bool breaks = (c >= 0x0A && c <= 0x0D) || (c >= 0x1C && c <= 0x1E) || c == 0x85 ||
                      c == 0x2028 || c == 0x2029;
  return breaks ? next.bytes : 0;
}

}  // namespace

int64_t code_point_count(std::string_view text) {
  return static_cast<int64_t>(text.size()) -
         std::count_if(text.begin(), text.end(), is_continuation);
}

size_t byte_offset(std::string_view text, int64_t index) {
  size_t position = 0;
  for (; index > 0 && position < text.size(); --index) {
    position += decode_valid_utf8(text, position).bytes;
  }
  return position;
}

bool is_python_space(char32_t c) {
  // Python also counts the four separators of ASCII, which are not White_Space.
  return (c >= 0x1C && c <= 0x1F) || UnicodeTables::get().char_class(c) == CharClass::kSpace;
}

std::string_view strip(std::string_view text, Side side,
                       std::optional<std::string_view> characters) {
  std::vector<char32_t> wanted;
  if (characters) {
    for (size_t position = 0; position < characters->size();) {
      const Utf8Char next = decode_valid_utf8(*characters, position);
      wanted.push_back(next.code_point);
      position += next.bytes;
    }
    std::sort(wanted.begin(), wanted.end());
  }
  const auto goes = [&](char32_t c) {
    return characters ? std::binary_search(wanted.begin(), wanted.end(), c) : is_python_space(c);
  };
  if (side != Side::kRight) {
    while (!text.empty()) {
      const Utf8Char next = decode_valid_utf8(text, 0);
      if (!goes(next.code_point)) break;
      text.remove_prefix(next.bytes);
    }
  }
  if (side != Side::kLeft) {
    while (!text.empty()) {
      size_t last = text.size() - 1;
      while (last > 0 && is_continuation(text[last])) --last;
      if (!goes(decode_valid_utf8(text, last).code_point)) break;
      text = text.substr(0, last);
    }
  }
  return text;
}

std::string upper(std::string_view text) {
  return map_code_points(text, map_upper);
}
std::string lower(std::string_view text) {
  return map_code_points(text, map_lower);
}

std::string capitalize(std::string_view text) {
  const size_t first = byte_offset(text, 1);
  return map_code_points(text.substr(0, first), map_title) + lower(text.substr(first));
}

std::string title(std::string_view text) {
  bool after_cased = false;
  return map_code_points(text, [&](char32_t c) {
    const char32_t mapped = after_cased ? map_lower(c) : map_title(c);
    after_cased = is_cased(c);
    return mapped;
  });
}

std::string swap_case(std::string_view text) {
  return map_code_points(text, [](char32_t c) {
    if (is_lower(c)) return map_upper(c);
    return is_upper(c) ? map_lower(c) : c;
  });
}

std::string case_fold(std::string_view text) {
  utf8proc_uint8_t* folded = nullptr;
  const auto options = static_cast<utf8proc_option_t>(UTF8PROC_CASEFOLD);
  const utf8proc_ssize_t bytes =
      utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(text.data()),
                   static_cast<utf8proc_ssize_t>(text.size()), &folded, options);
  PENSTOCK_CHECK(bytes >= 0);  // valid UTF-8, and the memory is small
  std::string out(reinterpret_cast<const char*>(folded), static_cast<size_t>(bytes));
  std::free(folded);
  return out;
}

std::vector<std::string_view> split_at_space(std::string_view text, int64_t max_splits) {
  std::vector<std::string_view> parts;
  for (text = strip(text, Side::kLeft); !text.empty(); text = strip(text, Side::kLeft)) {
    if (max_splits >= 0 && static_cast<int64_t>(parts.size()) == max_splits) {
      parts.push_back(text);
      break;
    }
    size_t end = 0;
    while (end < text.size()) {
      const Utf8Char next = decode_valid_utf8(text, end);
      if (is_python_space(next.code_point)) break;
      end += next.bytes;
    }
    parts.push_back(text.substr(0, end));
    text.remove_prefix(end);
  }
  return parts;
}

std::vector<std::string_view> split(std::string_view text, std::string_view separator,
                                    int64_t max_splits) {
  std::vector<std::string_view> parts;
  size_t begin = 0;
  while (max_splits < 0 || static_cast<int64_t>(parts.size()) < max_splits) {
    const size_t end = find(text, separator, begin);
    if (end == std::string_view::npos) break;
    parts.push_back(text.substr(begin, end - begin));
    begin = end + separator.size();
  }
  parts.push_back(text.substr(begin));
  return parts;
}

std::vector<std::string_view> split_at_space_right(std::string_view text, int64_t max_splits) {
  std::vector<std::string_view> parts;
  for (text = strip(text, Side::kRight); !text.empty(); text = strip(text, Side::kRight)) {
    if (max_splits >= 0 && static_cast<int64_t>(parts.size()) == max_splits) {
      parts.push_back(text);
      break;
    }
    size_t begin = text.size();
    while (begin > 0) {
      size_t last = begin - 1;
      while (last > 0 && is_continuation(text[last])) --last;
      if (is_python_space(decode_valid_utf8(text, last).code_point)) break;
      begin = last;
    }
    parts.push_back(text.substr(begin));
    text = text.substr(0, begin);
  }
  std::reverse(parts.begin(), parts.end());
  return parts;
}

std::vector<std::string_view> split_right(std::string_view text, std::string_view separator,
                                          int64_t max_splits) {
  // Backwards everything is the same but the direction, and find() is linear.
  const std::string backwards(text.rbegin(), text.rend());
  const std::string wanted(separator.rbegin(), separator.rend());
  std::vector<std::string_view> parts = split(backwards, wanted, max_splits);
  std::reverse(parts.begin(), parts.end());
  for (std::string_view& part : parts) {
    const auto begin = static_cast<size_t>(part.data() - backwards.data());
    part = text.substr(text.size() - begin - part.size(), part.size());
  }
  return parts;
}

std::vector<std::string_view> split_lines(std::string_view text, LineEnds ends) {
  std::vector<std::string_view> lines;
  size_t begin = 0;
  for (size_t position = 0; position < text.size();) {
    const size_t bytes = line_break_bytes(text, position);
    if (bytes > 0) {
      const size_t kept = ends == LineEnds::kKeep ? bytes : 0;
      lines.push_back(text.substr(begin, position + kept - begin));
      begin = position + bytes;
    }
    position += bytes > 0 ? bytes : decode_valid_utf8(text, position).bytes;
  }
  if (begin < text.size()) lines.push_back(text.substr(begin));
  return lines;
}

size_t find(std::string_view text, std::string_view needle, size_t from) {
  if (from > text.size()) return std::string_view::npos;
  if (needle.empty()) return from;
  if (from == text.size()) return std::string_view::npos;
  // memmem is the two-way search in glibc; std::string::find is quadratic for hostile texts.
  const void* found = memmem(text.data() + from, text.size() - from, needle.data(), needle.size());
  if (found == nullptr) return std::string_view::npos;
  return static_cast<size_t>(static_cast<const char*>(found) - text.data());
}

size_t find_last(std::string_view text, std::string_view needle) {
  if (needle.empty()) return text.size();
  const std::string backwards(text.rbegin(), text.rend());
  const std::string wanted(needle.rbegin(), needle.rend());
  const size_t found = find(backwards, wanted);
  return found == std::string_view::npos ? found : text.size() - found - needle.size();
}

Result<std::string> replace(std::string_view text, std::string_view old,
                            std::string_view replacement, int64_t count) {
  std::string out;
  size_t position = 0;  // what lies before is in `out`
  size_t search = 0;
  while (count != 0) {
    const size_t begin = find(text, old, search);
    if (begin == std::string_view::npos) break;
    out += text.substr(position, begin - position);
    out += replacement;
    position = begin + old.size();
    // An empty `old` is found before each character and at the end.
    search = position;
    if (old.empty()) search += position < text.size() ? decode_valid_utf8(text, position).bytes : 1;
    if (out.size() > kTextBytesMax) {
      return template_error("replace() makes a text of more than 16 MiB");
    }
    --count;
  }
  if (position < text.size()) out += text.substr(position);
  return out;
}

}  // namespace penstock::jinja
