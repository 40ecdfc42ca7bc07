// The methods of Python's str that change nothing else: method_table.h.
//
// Not there: encode, isidentifier, maketrans, translate.
#include <fmt/format.h>

#include <algorithm>

#include "text/jinja/access.h"
#include "text/jinja/character_class.h"
#include "text/jinja/markup.h"
#include "text/jinja/method_table.h"
#include "text/jinja/python_format.h"
#include "text/jinja/python_text.h"
#include "text/utf8.h"

namespace penstock::jinja {
namespace {

Result<Value> texts_of(Arena& arena, const std::vector<std::string_view>& parts,
                       List::Sort sort = List::Sort::kList) {
  std::vector<Value> items;
  for (const std::string_view part : parts) {
    items.push_back(PENSTOCK_TRY(arena.text(std::string(part))));
  }
  return arena.list(std::move(items), sort);
}

template <std::string (*kMap)(std::string_view)>
Result<Value> mapped(Arena& arena, const Value& self, const Arguments&) {
  return arena.text(kMap(self.text().bytes));
}

template <Side kSide>
Result<Value> stripped(Arena& arena, const Value& self, const Arguments& arguments) {
  const auto characters = PENSTOCK_TRY(optional_text(arguments.find(0, "")));
  return arena.text(std::string(strip(self.text().bytes, kSide, characters)));
}

template <Side kFrom>
Result<Value> split_text(Arena& arena, const Value& self, const Arguments& arguments) {
  constexpr bool kFromRight = kFrom == Side::kRight;
  const std::string_view text = self.text().bytes;
  const auto separator = PENSTOCK_TRY(optional_text(arguments.find(0, "sep")));
  const int64_t count = PENSTOCK_TRY(integer_argument(arguments.find(1, "maxsplit"), -1));
  if (!separator) {
    return texts_of(arena,
                    kFromRight ? split_at_space_right(text, count) : split_at_space(text, count));
  }
  if (separator->empty()) return template_error("split() with an empty separator");
  return texts_of(
      arena, kFromRight ? split_right(text, *separator, count) : split(text, *separator, count));
}

Result<Value> split_into_lines(Arena& arena, const Value& self, const Arguments& arguments) {
  const Value* keep = arguments.find(0, "keepends");
  if (keep != nullptr && !keep->is_integral()) {
    return template_error("splitlines() needs true or false");
  }
  const bool keeps = keep != nullptr && keep->integer() != 0;
  return texts_of(arena, split_lines(self.text().bytes, keeps ? LineEnds::kKeep : LineEnds::kDrop));
}

// The part of a text that find() and its kin look at: text[start:end].
struct Window {
  std::string_view bytes;
  int64_t begin = 0;      // code points before it
  bool is_valid = false;  // false if start lies behind end, where not even "" is found
};

// From the arguments after the one that is looked for.
Result<Window> window_of(const Value& self, const Arguments& arguments) {
  const Text& text = self.text();
  const auto bound = [&](size_t index, int64_t otherwise) -> Result<int64_t> {
    const Value* given = arguments.find(index, "");
    if (given == nullptr || given->is_none()) return otherwise;
    const int64_t place = PENSTOCK_TRY(integer_argument(given, otherwise));
    return place < 0 ? std::max<int64_t>(place + text.length, 0) : place;
  };
  const int64_t start = PENSTOCK_TRY(bound(1, 0));
  const int64_t end = std::min(PENSTOCK_TRY(bound(2, text.length)), text.length);
  if (start > end) return Window{};
  if (start == 0 && end == text.length) return Window{text.bytes, 0, true};
  const std::string_view rest = std::string_view(text.bytes).substr(byte_offset(text.bytes, start));
  return Window{rest.substr(0, byte_offset(rest, end - start)), start, true};
}

template <bool kAtEnd>
Result<Value> has_affix(Arena& arena, const Value& self, const Arguments& arguments) {
  const Window window = PENSTOCK_TRY(window_of(self, arguments));
  const auto fits = [&](const Value& affix) {
    const std::string& bytes = affix.text().bytes;
    if (!window.is_valid) return false;
    return kAtEnd ? window.bytes.ends_with(bytes) : window.bytes.starts_with(bytes);
  };
  const Value& wanted = arguments.positional[0];
  if (wanted.is_text()) return Value(fits(wanted));
  if (!wanted.is(Kind::kList) || wanted.list().sort != List::Sort::kTuple) {
    return template_error(fmt::format("{} needs a text or a tuple of texts, not {}",
                                      kAtEnd ? "endswith()" : "startswith()", type_name(wanted)));
  }
  PENSTOCK_TRY(arena.spend(std::ssize(wanted.list().items)));
  for (const Value& affix : wanted.list().items) {
    if (!affix.is_text()) return template_error("a tuple of prefixes or suffixes must be texts");
    if (fits(affix)) return Value(true);
  }
  return Value(false);
}

template <bool kAtEnd>
Result<Value> without_affix(Arena& arena, const Value& self, const Arguments& arguments) {
  std::string_view text = self.text().bytes;
  const std::string_view affix = PENSTOCK_TRY(text_argument(arguments, 0));
  if (kAtEnd && text.ends_with(affix)) text.remove_suffix(affix.size());
  if (!kAtEnd && text.starts_with(affix)) text.remove_prefix(affix.size());
  return arena.text(std::string(text));
}

Result<Value> replaced(Arena& arena, const Value& self, const Arguments& arguments) {
  const std::string_view old = PENSTOCK_TRY(text_argument(arguments, 0));
  const std::string_view replacement = PENSTOCK_TRY(text_argument(arguments, 1));
  const int64_t count = PENSTOCK_TRY(integer_argument(arguments.find(2, "count"), -1));
  return arena.text(PENSTOCK_TRY(replace(self.text().bytes, old, replacement, count)));
}

// Where the wanted text is, counted in code points; -1 if nowhere.
Result<int64_t> position_in(Arena& arena, const Value& self, const Arguments& arguments,
                            Side from) {
  const Window window = PENSTOCK_TRY(window_of(self, arguments));
  const std::string_view wanted = PENSTOCK_TRY(text_argument(arguments, 0));
  if (!window.is_valid) return int64_t{-1};
  PENSTOCK_TRY(arena.spend_bytes(window.bytes.size() + wanted.size()));
  const size_t position =
      from == Side::kLeft ? find(window.bytes, wanted) : find_last(window.bytes, wanted);
  if (position == std::string_view::npos) return int64_t{-1};
  return window.begin + code_point_count(window.bytes.substr(0, position));
}

template <Side kFrom>
Result<Value> found_at(Arena& arena, const Value& self, const Arguments& arguments) {
  return Value(PENSTOCK_TRY(position_in(arena, self, arguments, kFrom)));
}

template <Side kFrom>
Result<Value> index_of(Arena& arena, const Value& self, const Arguments& arguments) {
  const int64_t position = PENSTOCK_TRY(position_in(arena, self, arguments, kFrom));
  if (position >= 0) return Value(position);
  return template_error("index(): the text does not have this part");
}

Result<Value> counted(Arena& arena, const Value& self, const Arguments& arguments) {
  const Window window = PENSTOCK_TRY(window_of(self, arguments));
  const std::string_view wanted = PENSTOCK_TRY(text_argument(arguments, 0));
  if (!window.is_valid) return Value(int64_t{0});
  if (wanted.empty()) return Value(code_point_count(window.bytes) + 1);
  int64_t count = 0;
  for (size_t at = find(window.bytes, wanted); at != std::string_view::npos; ++count) {
    at = find(window.bytes, wanted, at + wanted.size());
  }
  PENSTOCK_TRY(arena.spend(count));
  return Value(count);
}

Result<Value> joined(Arena& arena, const Value& self, const Arguments& arguments) {
  const std::vector<Value> items = PENSTOCK_TRY(items_of(arena, arguments.positional[0]));
  std::string text;
  for (size_t i = 0; i < items.size(); ++i) {
    if (!items[i].is_text()) {
      return template_error(
          fmt::format("join() needs texts, item {} is a {}", i, type_name(items[i])));
    }
    const bool escapes = self.text().is_markup && !items[i].text().is_markup;
    if (i > 0) text += self.text().bytes;
    text += escapes ? escape_html(items[i].text().bytes) : items[i].text().bytes;
    if (text.size() > kTextBytesMax) return template_error("join() makes more than 16 MiB");
  }
  return arena.text(std::move(text));
}

template <Side kFrom>
Result<Value> partitioned(Arena& arena, const Value& self, const Arguments& arguments) {
  const std::string_view text = self.text().bytes;
  const std::string_view separator = PENSTOCK_TRY(text_argument(arguments, 0));
  if (separator.empty()) return template_error("partition() with an empty separator");
  const size_t at = kFrom == Side::kLeft ? find(text, separator) : find_last(text, separator);
  if (at != std::string_view::npos) {
    return texts_of(arena, {text.substr(0, at), separator, text.substr(at + separator.size())},
                    List::Sort::kTuple);
  }
  if (kFrom == Side::kLeft) return texts_of(arena, {text, "", ""}, List::Sort::kTuple);
  return texts_of(arena, {"", "", text}, List::Sort::kTuple);
}

std::string repeated(std::string_view text, int64_t count) {
  std::string out;
  out.reserve(text.size() * static_cast<size_t>(count));
  for (int64_t i = 0; i < count; ++i) out += text;
  return out;
}

// str.ljust, str.rjust and str.center, by where the text is put.
template <Side kText>
Result<Value> padded(Arena& arena, const Value& self, const Arguments& arguments) {
  const Text& text = self.text();
  const int64_t width = PENSTOCK_TRY(integer_argument(arguments.find(0, ""), 0));
  const auto fill = PENSTOCK_TRY(optional_text(arguments.find(1, ""))).value_or(" ");
  if (code_point_count(fill) != 1) return template_error("the fill must be one character");
  if (width <= text.length) return arena.text(text.bytes);
  const int64_t missing = width - text.length;
  if (missing > static_cast<int64_t>(kTextBytesMax / fill.size())) {
    return template_error("the padded text would have more than 16 MiB");
  }
  int64_t before = 0;
  if (kText == Side::kRight) before = missing;
  // Of an odd number the larger half goes to the left, if the width is odd, too.
  if (kText == Side::kBoth) before = missing / 2 + (missing & width & 1);
  return arena.text(repeated(fill, before) + text.bytes + repeated(fill, missing - before));
}

Result<Value> zero_filled(Arena& arena, const Value& self, const Arguments& arguments) {
  const Text& text = self.text();
  const int64_t width = PENSTOCK_TRY(integer_argument(arguments.find(0, ""), 0));
  if (width <= text.length) return arena.text(text.bytes);
  if (width > static_cast<int64_t>(kTextBytesMax)) {
    return template_error("the padded text would have more than 16 MiB");
  }
  std::string_view digits = text.bytes;
  const bool has_sign = digits.starts_with('+') || digits.starts_with('-');
  if (has_sign) digits.remove_prefix(1);
  return arena.text(text.bytes.substr(0, has_sign ? 1 : 0) + repeated("0", width - text.length) +
                    std::string(digits));
}

Result<Value> tabs_expanded(Arena& arena, const Value& self, const Arguments& arguments) {
  const int64_t stop = PENSTOCK_TRY(integer_argument(arguments.find(0, "tabsize"), 8));
  const std::string_view text = self.text().bytes;
  std::string out;
  int64_t column = 0;
  for (size_t position = 0; position < text.size();) {
    const uint32_t bytes = decode_valid_utf8(text, position).bytes;
    if (text[position] == '\t') {
      const int64_t blanks = stop > 0 ? stop - column % stop : 0;
      if (blanks > static_cast<int64_t>(kTextBytesMax - std::min(out.size(), kTextBytesMax))) {
        return template_error("expandtabs() makes more than 16 MiB");
      }
      out.append(static_cast<size_t>(blanks), ' ');
      column += blanks;
    } else {
      out += text.substr(position, bytes);
      column = text[position] == '\n' || text[position] == '\r' ? 0 : column + 1;
    }
    position += bytes;
  }
  return arena.text(std::move(out));
}

bool is_alphanumeric(char32_t c) {
  return is_alpha(c) || is_numeric(c);
}
bool is_ascii(char32_t c) {
  return c < 0x80;
}

// Whether all characters are like that; of an empty text what kEmpty says.
template <bool (*kIs)(char32_t), bool kEmpty>
Result<Value> all_are(Arena&, const Value& self, const Arguments&) {
  const std::string_view text = self.text().bytes;
  if (text.empty()) return Value(kEmpty);
  for (size_t position = 0; position < text.size();) {
    const Utf8Char next = decode_valid_utf8(text, position);
    if (!kIs(next.code_point)) return Value(false);
    position += next.bytes;
  }
  return Value(true);
}

template <bool (*kIs)(std::string_view)>
Result<Value> text_is(Arena&, const Value& self, const Arguments&) {
  return Value(kIs(self.text().bytes));
}

Result<Value> formatted(Arena& arena, const Value& self, const Arguments& arguments) {
  return arena.text(PENSTOCK_TRY(brace_format(arena, self.text(), arguments)));
}

Result<Value> formatted_map(Arena& arena, const Value& self, const Arguments& arguments) {
  const Value& mapping = arguments.positional[0];
  if (!mapping.is(Kind::kDict)) {
    return template_error(fmt::format("format_map() needs a mapping, not {}", type_name(mapping)));
  }
  Arguments named;
  for (const auto& [key, value] : mapping.dict().items) {
    if (key.is_text()) named.keywords.emplace_back(key.text().bytes, value);
  }
  return arena.text(PENSTOCK_TRY(brace_format(arena, self.text(), named)));
}

}  // namespace

const std::vector<NamedMethod>& text_methods() {
  constexpr auto kEscapes = NamedMethod::Markup::kEscapes;
  constexpr auto kMarks = NamedMethod::Markup::kMarks;
  static const std::vector<NamedMethod> kMethods = {
      {"strip", {""}, 0, stripped<Side::kBoth>, kEscapes},
      {"lstrip", {""}, 0, stripped<Side::kLeft>, kEscapes},
      {"rstrip", {""}, 0, stripped<Side::kRight>, kEscapes},
      {"split", {"sep", "maxsplit"}, 0, split_text<Side::kLeft>, kEscapes},
      {"rsplit", {"sep", "maxsplit"}, 0, split_text<Side::kRight>, kEscapes},
      {"splitlines", {"keepends"}, 0, split_into_lines, kEscapes},
      {"startswith", {"", "", ""}, 1, has_affix<false>},
      {"endswith", {"", "", ""}, 1, has_affix<true>},
      {"removeprefix", {""}, 1, without_affix<false>, kEscapes},
      {"removesuffix", {""}, 1, without_affix<true>, kEscapes},
      {"replace", {"", "", "count"}, 2, replaced, kEscapes},
      {"upper", {}, 0, mapped<upper>, kEscapes},
      {"lower", {}, 0, mapped<lower>, kEscapes},
      {"title", {}, 0, mapped<title>, kEscapes},
      {"capitalize", {}, 0, mapped<capitalize>, kEscapes},
      {"swapcase", {}, 0, mapped<swap_case>, kEscapes},
      {"casefold", {}, 0, mapped<case_fold>, kEscapes},
      {"find", {"", "", ""}, 1, found_at<Side::kLeft>},
      {"rfind", {"", "", ""}, 1, found_at<Side::kRight>},
      {"index", {"", "", ""}, 1, index_of<Side::kLeft>},
      {"rindex", {"", "", ""}, 1, index_of<Side::kRight>},
      {"count", {"", "", ""}, 1, counted},
      {"join", {""}, 1, joined, kMarks},
      {"partition", {""}, 1, partitioned<Side::kLeft>, kEscapes},
      {"rpartition", {""}, 1, partitioned<Side::kRight>, kEscapes},
      {"ljust", {"", ""}, 1, padded<Side::kLeft>, kEscapes},
      {"rjust", {"", ""}, 1, padded<Side::kRight>, kEscapes},
      {"center", {"", ""}, 1, padded<Side::kBoth>, kEscapes},
      {"zfill", {""}, 1, zero_filled, kEscapes},
      {"expandtabs", {"tabsize"}, 0, tabs_expanded, kEscapes},
      {"isalpha", {}, 0, all_are<is_alpha, false>},
      {"isdecimal", {}, 0, all_are<is_decimal, false>},
      {"isdigit", {}, 0, all_are<is_digit, false>},
      {"isnumeric", {}, 0, all_are<is_numeric, false>},
      {"isalnum", {}, 0, all_are<is_alphanumeric, false>},
      {"isspace", {}, 0, all_are<is_python_space, false>},
      {"isprintable", {}, 0, all_are<is_printable, true>},
      {"isascii", {}, 0, all_are<is_ascii, true>},
      {"islower", {}, 0, text_is<is_lower_text>},
      {"isupper", {}, 0, text_is<is_upper_text>},
      {"istitle", {}, 0, text_is<is_title_text>},
      {"format", {}, 0, formatted, kMarks, true},
      {"format_map", {""}, 1, formatted_map, kMarks},
  };
  return kMethods;
}

}  // namespace penstock::jinja
