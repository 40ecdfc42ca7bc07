#include "text/jinja/text_filters.h"

#include <fmt/format.h>

#include <algorithm>

#include "text/jinja/access.h"
#include "text/jinja/character_class.h"
#include "text/jinja/markup.h"
#include "text/jinja/operators.h"
#include "text/jinja/python_format.h"
#include "text/jinja/python_text.h"
#include "text/utf8.h"

namespace penstock::jinja {
namespace {

// str(input): what most filters of texts begin with. The result is charged by the caller's text().
Result<std::string> text_of(Arena& arena, const Value& input) {
  std::string text = PENSTOCK_TRY(python_str(input));
  PENSTOCK_TRY(arena.spend_bytes(text.size()));
  return text;
}

// The filter `title` sees words between spaces and opening brackets, unlike the method.
std::string title_words(std::string_view text) {
  std::string out;
  size_t begin = 0;
  while (begin < text.size()) {
    const auto separates = [](char c) {
      return std::string_view("-({[<").find(c) != std::string_view::npos;
    };
    size_t end = begin;
    bool is_separator = false;
    for (; end < text.size();) {
      const Utf8Char next = decode_valid_utf8(text, end);
      const bool here = is_python_space(next.code_point) || separates(text[end]);
      if (end == begin) is_separator = here;
      if (here != is_separator) break;
      end += next.bytes;
    }
    const std::string_view run = text.substr(begin, end - begin);
    out += is_separator ? std::string(run) : capitalize(run);
    begin = end;
  }
  return out;
}

using Map = std::string (*)(std::string_view);

Result<Value> mapped(Arena& arena, const Value& input, Map map) {
  return arena.text_like(input, map(PENSTOCK_TRY(text_of(arena, input))));
}

// Python's \w: letters, numbers and the underscore.
bool is_word_character(char32_t c) {
  return c == '_' || is_alpha(c) || is_numeric(c);
}

// What may stand in a URL as it is.
bool is_unreserved(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
         std::string_view("_.-~").find(c) != std::string_view::npos;
}

enum class UrlPart { kPath, kQuery };

std::string url_quoted(std::string_view text, UrlPart part) {
  std::string out;
  for (const char c : text) {
    if (is_unreserved(c) || (c == '/' && part == UrlPart::kPath)) {
      out += c;
    } else if (c == ' ' && part == UrlPart::kQuery) {
      out += '+';
    } else {
      out += fmt::format("%{:02X}", static_cast<uint8_t>(c));
    }
  }
  return out;
}

// A width that is given, or Jinja2's own.
Result<int64_t> integer_or(const Value* argument, int64_t otherwise, std::string_view filter) {
  if (argument == nullptr) return otherwise;
  if (argument->is_integral()) return argument->integer();
  return template_error(fmt::format("{} needs an integer, not {}", filter, type_name(*argument)));
}

}  // namespace

Result<Value> filter_string(Arena& arena, const Value& input, const Arguments&) {
  if (input.is_text()) return input;
  return arena.text(PENSTOCK_TRY(python_str(input)));
}

Result<Value> filter_trim(Arena& arena, const Value& input, const Arguments& arguments) {
  const std::string text = PENSTOCK_TRY(text_of(arena, input));
  const Value* characters = arguments.find(0, "chars");
  std::optional<std::string_view> wanted;
  if (characters != nullptr && characters->is_text()) wanted = characters->text().bytes;
  if (characters != nullptr && !characters->is_text() && !characters->is_none()) {
    return template_error(fmt::format("trim needs a text, not {}", type_name(*characters)));
  }
  return arena.text_like(input, std::string(strip(text, Side::kBoth, wanted)));
}

Result<Value> filter_replace(Arena& arena, const Value& input, const Arguments& arguments) {
  const std::string text = PENSTOCK_TRY(text_of(arena, input));
  const std::string old = PENSTOCK_TRY(text_of(arena, *arguments.find(0, "old")));
  const std::string with = PENSTOCK_TRY(text_of(arena, *arguments.find(1, "new")));
  const Value* count = arguments.find(2, "count");
  const bool limited = count != nullptr && count->is_integral();
  return arena.text(PENSTOCK_TRY(replace(text, old, with, limited ? count->integer() : -1)));
}

Result<Value> filter_indent(Arena& arena, const Value& input, const Arguments& arguments) {
  if (!input.is_text()) {
    return template_error(fmt::format("indent needs a text, not {}", type_name(input)));
  }
  std::string text = PENSTOCK_TRY(text_of(arena, input));
  text += '\n';
  const Value* width = arguments.find(0, "width");
  const Value* first = arguments.find(1, "first");
  const Value* blank = arguments.find(2, "blank");
  std::string indent(4, ' ');
  if (width != nullptr && width->is_text()) {
    indent = width->text().bytes;
  } else if (width != nullptr) {
    const bool fits = width->is_integral() && width->integer() <= 1000;
    if (!fits) return template_error("indent: the width must be a text or a number up to 1000");
    indent.assign(static_cast<size_t>(std::max<int64_t>(width->integer(), 0)), ' ');
  }
  const bool indents_blank = blank != nullptr && is_true(*blank);
  const std::vector<std::string_view> lines = split_lines(text);
  std::string out = first != nullptr && is_true(*first) ? indent : "";
  for (size_t i = 0; i < lines.size(); ++i) {
    if (i > 0) out += '\n';
    if (i > 0 && (indents_blank || !lines[i].empty())) out += indent;
    out += lines[i];
    if (out.size() > kTextBytesMax) return template_error("indent makes more than 16 MiB");
  }
  return arena.text_like(input, std::move(out));
}

Result<Value> filter_lower(Arena& arena, const Value& input, const Arguments&) {
  return mapped(arena, input, lower);
}

Result<Value> filter_upper(Arena& arena, const Value& input, const Arguments&) {
  return mapped(arena, input, upper);
}

Result<Value> filter_capitalize(Arena& arena, const Value& input, const Arguments&) {
  return mapped(arena, input, capitalize);
}

Result<Value> filter_title(Arena& arena, const Value& input, const Arguments&) {
  return arena.text(title_words(PENSTOCK_TRY(text_of(arena, input))));
}

Result<Value> filter_safe(Arena& arena, const Value& input, const Arguments&) {
  return arena.markup(PENSTOCK_TRY(python_str(input)));
}

Result<Value> filter_escape(Arena& arena, const Value& input, const Arguments&) {
  return escaped(arena, input);
}

Result<Value> filter_force_escape(Arena& arena, const Value& input, const Arguments&) {
  return arena.markup(escape_html(PENSTOCK_TRY(text_of(arena, input))));
}

Result<Value> filter_center(Arena& arena, const Value& input, const Arguments& arguments) {
  const Value text = PENSTOCK_TRY(filter_string(arena, input, {}));
  Arguments width;
  width.positional = {Value(PENSTOCK_TRY(integer_or(arguments.find(0, "width"), 80, "center")))};
  const auto method = PENSTOCK_TRY(bound_method(arena, text, "center"));
  return call_method(arena, method->callable(), width);
}

Result<Value> filter_truncate(Arena& arena, const Value& input, const Arguments& arguments) {
  const int64_t length = PENSTOCK_TRY(integer_or(arguments.find(0, "length"), 255, "truncate"));
  const Value* cuts_words = arguments.find(1, "killwords");
  const Value* given_end = arguments.find(2, "end");
  const Value* given_leeway = arguments.find(3, "leeway");
  if (given_leeway != nullptr && given_leeway->is_none()) given_leeway = nullptr;
  const int64_t leeway = PENSTOCK_TRY(integer_or(given_leeway, 5, "truncate"));
  const Value end = given_end != nullptr ? *given_end : PENSTOCK_TRY(arena.text("..."));
  if (!end.is_text()) return template_error("truncate: the end must be a text");
  const int64_t kept = length - end.text().length;
  if (kept < 0) return template_error("truncate: the length is less than that of the end");
  if (leeway < 0) return template_error("truncate: the leeway is negative");
  int64_t longest = 0;
  if (__builtin_add_overflow(length, leeway, &longest)) longest = INT64_MAX;
  if (PENSTOCK_TRY(length_of(arena, input)) <= longest) return input;
  if (!input.is_text()) {
    return template_error(fmt::format("truncate needs a text, not {}", type_name(input)));
  }
  const std::string_view text = input.text().bytes;
  PENSTOCK_TRY(arena.spend_bytes(text.size()));
  std::string_view cut = text.substr(0, byte_offset(text, kept));
  if (cuts_words == nullptr || !is_true(*cuts_words)) {
    cut = cut.substr(0, cut.rfind(' '));  // npos: all of it
  }
  const Value begin = PENSTOCK_TRY(arena.text_like(input, std::string(cut)));
  return operate(arena, Operator::kAdd, begin, end);
}

Result<Value> filter_word_count(Arena& arena, const Value& input, const Arguments&) {
  const std::string text = PENSTOCK_TRY(text_of(arena, input));
  int64_t words = 0;
  bool in_word = false;
  for (size_t position = 0; position < text.size();) {
    const Utf8Char next = decode_valid_utf8(text, position);
    const bool is_word = is_word_character(next.code_point);
    if (is_word && !in_word) ++words;
    in_word = is_word;
    position += next.bytes;
  }
  return Value(words);
}

Result<Value> filter_url_encode(Arena& arena, const Value& input, const Arguments&) {
  if (!input.is(Kind::kDict) && !input.is(Kind::kList)) {
    return arena.text(url_quoted(PENSTOCK_TRY(text_of(arena, input)), UrlPart::kPath));
  }
  std::vector<std::pair<Value, Value>> pairs;
  if (input.is(Kind::kDict)) pairs = input.dict().items;
  if (input.is(Kind::kList)) {
    const std::vector<Value> all = PENSTOCK_TRY(items_of(arena, input));
    for (const Value& entry : all) {
      const std::vector<Value> pair = PENSTOCK_TRY(items_of(arena, entry));
      if (pair.size() != 2) return template_error("urlencode needs pairs of name and value");
      pairs.emplace_back(pair[0], pair[1]);
    }
  }
  std::string out;
  for (const auto& [key, value] : pairs) {
    if (!out.empty()) out += '&';
    out += url_quoted(PENSTOCK_TRY(text_of(arena, key)), UrlPart::kQuery) + '=' +
           url_quoted(PENSTOCK_TRY(text_of(arena, value)), UrlPart::kQuery);
    if (out.size() > kTextBytesMax) return template_error("urlencode makes more than 16 MiB");
  }
  return arena.text(std::move(out));
}

Result<Value> filter_format(Arena& arena, const Value& input, const Arguments& arguments) {
  if (!arguments.positional.empty() && !arguments.keywords.empty()) {
    return template_error("format takes values by place or by name, not both");
  }
  const Value format = PENSTOCK_TRY(filter_string(arena, input, {}));
  Value values;
  if (arguments.keywords.empty()) {
    values = PENSTOCK_TRY(arena.list(arguments.positional, List::Sort::kTuple));
  } else {
    std::vector<std::pair<Value, Value>> items;
    for (const auto& [name, value] : arguments.keywords) {
      items.emplace_back(PENSTOCK_TRY(arena.text(std::string(name))), value);
    }
    values = PENSTOCK_TRY(arena.dict(std::move(items)));
  }
  return operate(arena, Operator::kModulo, format, values);
}

}  // namespace penstock::jinja
