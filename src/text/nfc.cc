#include "text/nfc.h"

#include <utf8proc.h>

#include <algorithm>
#include <vector>

#include "base/check.h"
#include "text/unicode_tables.h"
#include "text/utf8.h"

namespace penstock {
namespace {

using CodePoints = std::vector<utf8proc_int32_t>;

constexpr auto kOptions =
    static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE | UTF8PROC_DECOMPOSE);

int combining_class(utf8proc_int32_t code_point) {
  return utf8proc_get_property(code_point)->combining_class;
}

void append_decomposition(char32_t code_point, CodePoints& out) {
  utf8proc_int32_t parts[8];
  int last_boundclass = UTF8PROC_BOUNDCLASS_START;
  const utf8proc_ssize_t count =
      utf8proc_decompose_char(static_cast<utf8proc_int32_t>(code_point), parts, std::size(parts),
                              UTF8PROC_DECOMPOSE, &last_boundclass);
  PENSTOCK_CHECK(count >= 0 && count <= static_cast<utf8proc_ssize_t>(std::size(parts)));
  out.insert(out.end(), parts, parts + count);
}

// Canonical order: each run of code points of non-zero class sorted by class, stably.
void sort_marks(CodePoints& code_points) {
  const auto is_mark = [](utf8proc_int32_t c) { return combining_class(c) != 0; };
  const auto before = [](utf8proc_int32_t a, utf8proc_int32_t b) {
    return combining_class(a) < combining_class(b);
  };
  auto begin = code_points.begin();
  while (begin != code_points.end()) {
    begin = std::find_if(begin, code_points.end(), is_mark);
    const auto end = std::find_if_not(begin, code_points.end(), is_mark);
    std::stable_sort(begin, end, before);
    begin = end;
  }
}

// Normalises the code points of one segment and appends them.
void append_segment(CodePoints& segment, std::string& out) {
  sort_marks(segment);
  const utf8proc_ssize_t count = utf8proc_normalize_utf32(
      segment.data(), static_cast<utf8proc_ssize_t>(segment.size()), kOptions);
  PENSTOCK_CHECK(count >= 0);
  for (utf8proc_ssize_t i = 0; i < count; ++i) append_utf8(static_cast<char32_t>(segment[i]), out);
}

}  // namespace

size_t nfc_prefix_bytes(std::string_view text) {
  const UnicodeTables& tables = UnicodeTables::get();
  size_t previous = 0;  // where the last character that NFC may not change alone begins
  for (size_t position = 0; position < text.size();) {
    const auto first = static_cast<uint8_t>(text[position]);
    if (first < 0x80) {
      previous = position++;
      continue;
    }
    const Utf8Char next = decode_valid_utf8(text, position);
    // A follower may merge with the character before it, so that one is not safe either.
    if (tables.is_nfc_follower(next.code_point)) return previous;
    previous = position;
    position += next.bytes;
  }
  return text.size();
}

std::string to_nfc(std::string_view text) {
  const UnicodeTables& tables = UnicodeTables::get();
  std::string out;
  out.reserve(text.size());
  CodePoints segment;  // one character and its followers, decomposed
  size_t position = 0;
  while (position < text.size()) {
    const size_t unchanged = nfc_prefix_bytes(text.substr(position));
    out += text.substr(position, unchanged);
    position += unchanged;
    segment.clear();
    while (position < text.size()) {
      const Utf8Char next = decode_valid_utf8(text, position);
      const bool follows = tables.is_nfc_follower(next.code_point);
      if (!follows && !segment.empty()) break;
      if (!follows && combining_class(static_cast<utf8proc_int32_t>(next.code_point)) != 0) {
        // A mark that utf8proc knows and the reference does not: it stays where it is.
        append_utf8(next.code_point, out);
      } else {
        append_decomposition(next.code_point, segment);
      }
      position += next.bytes;
    }
    append_segment(segment, out);
  }
  return out;
}

}  // namespace penstock
