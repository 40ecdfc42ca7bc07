#include "text/jinja/filters.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>

#include "text/jinja/access.h"
#include "text/jinja/list_filters.h"
#include "text/jinja/operators.h"
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

template <std::string (*kMap)(std::string_view)>
Result<Value> mapped(Arena& arena, const Value& input, const Arguments&) {
  return arena.text(kMap(PENSTOCK_TRY(text_of(arena, input))));
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

Result<Value> as_text(Arena& arena, const Value& input, const Arguments&) {
  if (input.is_text()) return input;
  return arena.text(PENSTOCK_TRY(python_str(input)));
}

Result<Value> trimmed(Arena& arena, const Value& input, const Arguments& arguments) {
  const std::string text = PENSTOCK_TRY(text_of(arena, input));
  const Value* characters = arguments.find(0, "chars");
  std::optional<std::string_view> wanted;
  if (characters != nullptr && characters->is_text()) wanted = characters->text().bytes;
  return arena.text(std::string(strip(text, Side::kBoth, wanted)));
}

Result<Value> replaced(Arena& arena, const Value& input, const Arguments& arguments) {
  const std::string text = PENSTOCK_TRY(text_of(arena, input));
  const std::string old = PENSTOCK_TRY(text_of(arena, *arguments.find(0, "old")));
  const std::string with = PENSTOCK_TRY(text_of(arena, *arguments.find(1, "new")));
  const Value* count = arguments.find(2, "count");
  const bool limited = count != nullptr && count->is_integral();
  return arena.text(PENSTOCK_TRY(replace(text, old, with, limited ? count->integer() : -1)));
}

Result<Value> indented(Arena& arena, const Value& input, const Arguments& arguments) {
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
  return arena.text(std::move(out));
}

Result<Value> or_default(Arena& arena, const Value& input, const Arguments& arguments) {
  const Value* boolean = arguments.find(1, "boolean");
  const bool takes_false = boolean != nullptr && is_true(*boolean);
  if (!input.is_undefined() && (!takes_false || is_true(input))) return input;
  const Value* otherwise = arguments.find(0, "default_value");
  return otherwise == nullptr ? arena.text("") : Result<Value>(*otherwise);
}

// A number as Python's int() and float() read it: white space around it, underscores between
// digits.
std::optional<double> parse_float(std::string_view text) {
  std::string digits(strip(text, Side::kBoth));
  digits.erase(std::remove(digits.begin(), digits.end(), '_'), digits.end());
  std::string_view view = digits;
  if (view.starts_with('+')) view.remove_prefix(1);
  double value = 0;
  const auto [end, error] = std::from_chars(view.data(), view.data() + view.size(), value);
  if (error != std::errc() || end != view.data() + view.size()) return std::nullopt;
  return value;
}

std::optional<int64_t> parse_integer(std::string_view text, int base) {
  std::string digits(strip(text, Side::kBoth));
  digits.erase(std::remove(digits.begin(), digits.end(), '_'), digits.end());
  std::string_view view = digits;
  if (view.starts_with('+')) view.remove_prefix(1);
  const std::string lowered = lower(view.substr(0, 2));
  const bool prefixed = (base == 16 && lowered == "0x") || (base == 8 && lowered == "0o") ||
                        (base == 2 && lowered == "0b");
  if (prefixed) view.remove_prefix(2);
  int64_t value = 0;
  const auto [end, error] = std::from_chars(view.data(), view.data() + view.size(), value, base);
  if (error != std::errc() || end != view.data() + view.size()) return std::nullopt;
  return value;
}

std::optional<int64_t> truncate(double value) {
  if (!(std::abs(value) < 9.2e18)) return std::nullopt;
  return static_cast<int64_t>(value);
}

Result<Value> as_integer(Arena&, const Value& input, const Arguments& arguments) {
  if (input.is_undefined()) return undefined_error(input);
  const Value* base_value = arguments.find(1, "base");
  const int64_t base =
      base_value != nullptr && base_value->is_integral() ? base_value->integer() : 10;
  if (base < 2 || base > 36) return template_error("int: the base must be from 2 to 36");
  std::optional<int64_t> value;
  if (input.is_integral()) value = input.integer();
  if (input.is(Kind::kFloat)) value = truncate(input.real());
  if (input.is_text()) {
    value = parse_integer(input.text().bytes, static_cast<int>(base));
    if (!value) {
      const auto real = parse_float(input.text().bytes);
      if (real) value = truncate(*real);
    }
  }
  if (value) return Value(*value);
  const Value* otherwise = arguments.find(0, "default");
  return otherwise == nullptr ? Value(int64_t{0}) : *otherwise;
}

Result<Value> as_float(Arena&, const Value& input, const Arguments& arguments) {
  if (input.is_undefined()) return undefined_error(input);
  std::optional<double> value;
  if (input.is_number()) value = input.real();
  if (input.is_text()) value = parse_float(input.text().bytes);
  if (value) return Value(*value);
  const Value* otherwise = arguments.find(0, "default");
  return otherwise == nullptr ? Value(0.0) : *otherwise;
}

Result<Value> as_json(Arena& arena, const Value& input, const Arguments& arguments) {
  if (input.is_undefined()) return undefined_error(input);
  JsonFormat format;
  const Value* ensure_ascii = arguments.find(0, "ensure_ascii");
  const Value* indent = arguments.find(1, "indent");
  const Value* separators = arguments.find(2, "separators");
  const Value* sort_keys = arguments.find(3, "sort_keys");
  format.ensure_ascii = ensure_ascii != nullptr && is_true(*ensure_ascii);
  format.sort_keys = sort_keys != nullptr && is_true(*sort_keys);
  if (indent != nullptr && indent->is_text()) format.indent = indent->text().bytes;
  if (indent != nullptr && indent->is_integral()) {
    const int64_t width = std::clamp<int64_t>(indent->integer(), 0, 64);
    format.indent = std::string(static_cast<size_t>(width), ' ');
  }
  if (format.indent) format.item_separator = ",";  // a line end follows
  if (separators != nullptr && !separators->is_none()) {
    const std::vector<Value> pair = PENSTOCK_TRY(items_of(arena, *separators));
    if (pair.size() != 2 || !pair[0].is_text() || !pair[1].is_text()) {
      return template_error("tojson: separators must be two texts");
    }
    format.item_separator = pair[0].text().bytes;
    format.key_separator = pair[1].text().bytes;
  }
  return arena.text(PENSTOCK_TRY(python_json(input, format)));
}

struct NamedFilter {
  std::string_view name;
  std::vector<std::string_view> parameters;  // after the input
  size_t required;
  Filter call;
};

const std::vector<NamedFilter>& all_filters() {
  static const std::vector<NamedFilter> kFilters = {
      {"trim", {"chars"}, 0, trimmed},
      {"string", {}, 0, as_text},
      {"safe", {}, 0, as_text},  // nothing is escaped, so nothing is marked as safe
      {"tojson", {"ensure_ascii", "indent", "separators", "sort_keys"}, 0, as_json},
      {"lower", {}, 0, mapped<lower>},
      {"upper", {}, 0, mapped<upper>},
      {"capitalize", {}, 0, mapped<capitalize>},
      {"title", {}, 0, mapped<title_words>},
      {"replace", {"old", "new", "count"}, 2, replaced},
      {"indent", {"width", "first", "blank"}, 0, indented},
      {"default", {"default_value", "boolean"}, 0, or_default},
      {"d", {"default_value", "boolean"}, 0, or_default},
      {"int", {"default", "base"}, 0, as_integer},
      {"float", {"default"}, 0, as_float},
      {"length", {}, 0, filter_length},
      {"count", {}, 0, filter_length},
      {"list", {}, 0, filter_list},
      {"items", {}, 0, filter_items},
      {"first", {}, 0, filter_first},
      {"last", {}, 0, filter_last},
      {"join", {"d", "attribute"}, 0, filter_join},
      {"reverse", {}, 0, filter_reverse},
      {"sort", {"reverse", "case_sensitive", "attribute"}, 0, filter_sort},
      {"unique", {"case_sensitive", "attribute"}, 0, filter_unique},
      {"min", {"case_sensitive", "attribute"}, 0, filter_min},
      {"max", {"case_sensitive", "attribute"}, 0, filter_max},
      {"dictsort", {"case_sensitive", "by", "reverse"}, 0, filter_dictsort},
  };
  return kFilters;
}

}  // namespace

Result<Value> apply_filter(Arena& arena, std::string_view name, const Value& input,
                           const Arguments& arguments) {
  PENSTOCK_TRY(arena.spend(1));
  for (const NamedFilter& filter : all_filters()) {
    if (filter.name != name) continue;
    PENSTOCK_TRY(check_arguments(name, arguments, filter.parameters, filter.required));
    return filter.call(arena, input, arguments);
  }
  // These hand their arguments on to another filter or test.
  if (name == "map") return filter_map(arena, input, arguments);
  if (name == "select") return filter_select(arena, input, arguments, {false, true});
  if (name == "reject") return filter_select(arena, input, arguments, {false, false});
  if (name == "selectattr") return filter_select(arena, input, arguments, {true, true});
  if (name == "rejectattr") return filter_select(arena, input, arguments, {true, false});
  return Error{ErrorCode::kUnsupported, fmt::format("the filter '{}' is not known", name)};
}

}  // namespace penstock::jinja
