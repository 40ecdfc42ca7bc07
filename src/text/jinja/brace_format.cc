// "{}".format(value): see python_format.h.
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>

#include "text/jinja/access.h"
#include "text/jinja/markup.h"
#include "text/jinja/number_format.h"
#include "text/jinja/operators.h"
#include "text/jinja/python_format.h"
#include "text/jinja/python_text.h"
#include "text/utf8.h"

namespace penstock::jinja {
namespace {

// [[fill]align][sign][z][#][0][width][grouping][.precision][type]
struct Spec {
  std::string fill;
  char align = '\0';
  char sign = '\0';
  bool is_alternate = false;
  int64_t width = 0;
  char grouping = '\0';
  std::optional<int64_t> precision;
  char type = '\0';
};

Error bad_spec(std::string_view spec) {
  return template_error(fmt::format("'{}' is no format that this value has", spec));
}

Result<int64_t> take_number(std::string_view& text) {
  int64_t number = 0;
  while (!text.empty() && text[0] >= '0' && text[0] <= '9') {
    number = number * 10 + (text[0] - '0');
    if (number > static_cast<int64_t>(kTextBytesMax)) {
      return template_error("a width in a format is too large");
    }
    text.remove_prefix(1);
  }
  return number;
}

bool is_align(std::string_view text, size_t at) {
  return at < text.size() && std::string_view("<>=^").find(text[at]) != std::string_view::npos;
}

Result<Spec> parse_spec(std::string_view text) {
  const std::string_view whole = text;
  Spec spec;
  const size_t first = text.empty() ? 0 : decode_valid_utf8(text, 0).bytes;
  if (first > 0 && is_align(text, first)) {
    spec.fill = text.substr(0, first);
    spec.align = text[first];
    text.remove_prefix(first + 1);
  } else if (is_align(text, 0)) {
    spec.align = text[0];
    text.remove_prefix(1);
  }
  const auto take = [&text](std::string_view any) {
    if (text.empty() || any.find(text[0]) == std::string_view::npos) return '\0';
    const char c = text[0];
    text.remove_prefix(1);
    return c;
  };
  spec.sign = take("+- ");
  spec.is_alternate = take("#") != '\0';
  if (take("0") != '\0') {
    if (spec.fill.empty()) spec.fill = "0";
    if (spec.align == '\0') spec.align = '0';  // as = for numbers, < for texts
  }
  spec.width = PENSTOCK_TRY(take_number(text));
  spec.grouping = take(",_");
  if (take(".") != '\0') {
    if (text.empty() || text[0] < '0' || text[0] > '9') return bad_spec(whole);
    spec.precision = PENSTOCK_TRY(take_number(text));
  }
  spec.type = take("bcdeEfFgGosxX%");
  if (!text.empty()) return bad_spec(whole);
  return spec;
}

// The digits before the point in groups; with zeros before them up to `width` characters, which
// are in groups as well.
std::string grouped(std::string_view digits, char separator, size_t group, int64_t width) {
  size_t count = digits.size();
  const auto length_of = [&](size_t n) { return n + (n - 1) / group; };
  while (static_cast<int64_t>(length_of(count)) < width) ++count;
  std::string out;
  out.reserve(length_of(count));
  for (size_t i = 0; i < count; ++i) {
    const size_t left = count - i;
    if (i > 0 && left % group == 0) out += separator;
    const size_t padding = count - digits.size();
    out += i < padding ? '0' : digits[i - padding];
  }
  return out;
}

// A number's parts to its field.
Result<std::string> lay_out(const Spec& spec, bool is_negative, std::string_view prefix,
                            std::string digits, size_t group) {
  std::string sign;
  if (is_negative) {
    sign = '-';
  } else if (spec.sign == '+' || spec.sign == ' ') {
    sign = spec.sign;
  }
  sign.append(prefix);
  Padding padding;
  padding.width = spec.width;
  padding.fill = spec.fill.empty() ? " " : spec.fill;
  padding.align = spec.align == '\0' ? '>' : spec.align == '0' ? '=' : spec.align;
  if (spec.grouping != '\0' && std::isalnum(static_cast<unsigned char>(digits[0])) != 0 &&
      digits != "inf" && digits != "nan") {
    const auto is_digit = [&](char c) {
      return (c >= '0' && c <= '9') ||
             (group == 4 && ((c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F')));
    };
    size_t whole = 0;
    while (whole < digits.size() && is_digit(digits[whole])) ++whole;
    const auto rest = static_cast<int64_t>(digits.size() - whole + sign.size());
    const bool zero_padded = padding.align == '=' && padding.fill == "0";
    const int64_t room = zero_padded ? spec.width - rest : 0;
    digits = grouped(digits.substr(0, whole), spec.grouping, group, room) + digits.substr(whole);
  }
  return pad(sign, digits, padding);
}

Result<std::string> format_text(std::string_view text, const Spec& spec, std::string_view whole) {
  const bool fits = (spec.type == '\0' || spec.type == 's') && spec.sign == '\0' &&
                    !spec.is_alternate && spec.grouping == '\0' && spec.align != '=';
  if (!fits) return bad_spec(whole);
  if (spec.precision && *spec.precision < code_point_count(text)) {
    text = text.substr(0, byte_offset(text, *spec.precision));
  }
  Padding padding;
  padding.width = spec.width;
  padding.fill = spec.fill.empty() ? " " : spec.fill;
  padding.align = spec.align == '\0' || spec.align == '0' ? '<' : spec.align;
  return pad("", text, padding);
}

Result<std::string> format_real(double value, const Spec& spec, std::string_view whole) {
  if (spec.precision.value_or(0) > kPrecisionMax) {
    return template_error(fmt::format("a precision of more than {} digits", kPrecisionMax));
  }
  if (spec.type != '\0' && std::string_view("eEfFgG%").find(spec.type) == std::string_view::npos) {
    return bad_spec(whole);
  }
  const double magnitude = std::abs(value);
  const bool is_negative = std::signbit(value) && !std::isnan(value);
  std::string digits;
  if (spec.type != '\0') {
    digits = real_digits(
        magnitude, {spec.type, static_cast<int>(spec.precision.value_or(6)), spec.is_alternate});
    if (spec.type == '%') digits += '%';
  } else if (!spec.precision) {
    digits = python_str(magnitude);
    if (spec.is_alternate && digits.find('.') == std::string::npos && std::isfinite(value)) {
      digits.insert(std::min(digits.find('e'), digits.size()), 1, '.');
    }
  } else {
    digits = real_digits(magnitude, {'r', static_cast<int>(*spec.precision), spec.is_alternate});
  }
  return lay_out(spec, is_negative, "", std::move(digits), 3);
}

Result<std::string> format_integer(int64_t value, const Spec& spec, std::string_view whole) {
  const bool as_real =
      spec.type != '\0' && std::string_view("eEfFgG%").find(spec.type) != std::string_view::npos;
  if (as_real) return format_real(static_cast<double>(value), spec, whole);
  if (spec.precision || spec.type == 's') return bad_spec(whole);
  if (spec.type == 'c') {
    const bool is_code_point =
        value >= 0 && value <= 0x10FFFF && (value < 0xD800 || value > 0xDFFF);
    if (!is_code_point || spec.sign != '\0' || spec.is_alternate) return bad_spec(whole);
    std::string text;
    append_utf8(static_cast<char32_t>(value), text);
    return lay_out(spec, false, "", std::move(text), 3);
  }
  const bool is_hex = spec.type == 'x' || spec.type == 'X';
  const int base = is_hex ? 16 : spec.type == 'o' ? 8 : spec.type == 'b' ? 2 : 10;
  if (base != 10 && spec.grouping == ',') return bad_spec(whole);
  std::string_view prefix;
  if (spec.is_alternate && base != 10) {
    prefix = spec.type == 'X' ? "0X" : is_hex ? "0x" : base == 8 ? "0o" : "0b";
  }
  std::string digits = integer_digits(magnitude_of(value), base);
  if (spec.type == 'X') digits = upper(digits);
  return lay_out(spec, value < 0, prefix, std::move(digits), base == 10 ? 3 : 4);
}

Result<std::string> format_value(const Value& value, std::string_view text) {
  if (text.empty()) return python_str(value);
  const bool is_plain = value.is_text() || value.is_number();
  if (!is_plain) {
    return template_error(fmt::format("a {} has no formats such as '{}'", type_name(value), text));
  }
  const Spec spec = PENSTOCK_TRY(parse_spec(text));
  if (value.is_text()) return format_text(value.text().bytes, spec, text);
  if (value.is(Kind::kFloat)) return format_real(value.real(), spec, text);
  return format_integer(value.integer(), spec, text);
}

class BraceFormatter {
 public:
  BraceFormatter(Arena& arena, const Text& format, const Arguments& arguments)
      : arena_(arena), is_markup_(format.is_markup), arguments_(arguments) {}

  // {{ and }} stand for themselves; a specification may hold fields, but those no others.
  Result<std::string> run(std::string_view format, int depth) {
    if (depth > 1) return template_error("format fields are nested too deep");
    std::string out;
    for (size_t i = 0; i < format.size();) {
      const char c = format[i];
      const bool is_doubled = i + 1 < format.size() && format[i + 1] == c;
      if (c == '}' && !is_doubled) return template_error("a single '}' in a format");
      if (c == '{' && !is_doubled) {
        const size_t end = PENSTOCK_TRY(field_end(format, i + 1));
        out += PENSTOCK_TRY(field(format.substr(i + 1, end - i - 1), depth));
        i = end + 1;
      } else {
        out += c;
        i += c == '{' || c == '}' ? 2 : 1;
      }
      if (out.size() > kTextBytesMax) {
        return template_error("the formatted text would have more than 16 MiB");
      }
    }
    return out;
  }

 private:
  static Result<size_t> field_end(std::string_view format, size_t begin) {
    int open = 1;
    bool in_brackets = false;
    for (size_t i = begin; i < format.size(); ++i) {
      if (format[i] == '[') in_brackets = true;
      if (format[i] == ']') in_brackets = false;
      if (in_brackets) continue;
      if (format[i] == '{') ++open;
      if (format[i] == '}' && --open == 0) return i;
    }
    return template_error("a format has a '{' without a '}'");
  }

  // name!conversion:specification
  Result<std::string> field(std::string_view text, int depth) {
    PENSTOCK_TRY(arena_.spend(1));
    size_t end = 0;
    bool in_brackets = false;
    for (; end < text.size(); ++end) {
      if (text[end] == '[') in_brackets = true;
      if (text[end] == ']') in_brackets = false;
      if (!in_brackets && (text[end] == '!' || text[end] == ':')) break;
      if (text[end] == '{' && !in_brackets) return template_error("'{' in the name of a field");
    }
    Value value = PENSTOCK_TRY(look_up(text.substr(0, end)));
    std::string_view rest = text.substr(end);
    if (rest.starts_with('!')) {
      if (rest.size() < 2 || (rest.size() > 2 && rest[2] != ':')) {
        return template_error("a format has a '!' without r, s or a");
      }
      value = PENSTOCK_TRY(converted(value, rest[1]));
      rest.remove_prefix(2);
    }
    std::string spec;
    if (rest.starts_with(':')) spec = PENSTOCK_TRY(run(rest.substr(1), depth + 1));
    if (is_markup_ && is_markup(value)) {
      if (!spec.empty()) return template_error("a marked text has no formats");
      return value.text().bytes;
    }
    std::string formatted = PENSTOCK_TRY(format_value(value, spec));
    PENSTOCK_TRY(arena_.spend_bytes(formatted.size()));
    return is_markup_ ? escape_html(formatted) : formatted;
  }

  Result<Value> converted(const Value& value, char conversion) {
    if (conversion == 's') return arena_.text(PENSTOCK_TRY(python_str(value)));
    if (conversion == 'r') return arena_.text(PENSTOCK_TRY(python_repr(value)));
    if (conversion == 'a') return arena_.text(PENSTOCK_TRY(python_ascii(value)));
    return template_error("a format has a '!' without r, s or a");
  }

  // a.b[c]: an argument and what is in it.
  Result<Value> look_up(std::string_view name) {
    const size_t first_end = std::min(name.find_first_of(".["), name.size());
    Value value = PENSTOCK_TRY(argument(name.substr(0, first_end)));
    name.remove_prefix(first_end);
    while (!name.empty()) {
      const bool is_attribute = name[0] == '.';
      name.remove_prefix(1);
      const size_t end =
          is_attribute ? std::min(name.find_first_of(".["), name.size()) : name.find(']');
      if (end == std::string_view::npos || end == 0) {
        return template_error("a field of a format has an empty name");
      }
      const std::string_view part = name.substr(0, end);
      name.remove_prefix(is_attribute ? end : end + 1);
      if (!is_attribute && !name.empty() && name[0] != '.' && name[0] != '[') {
        return template_error("only '.' or '[' may follow ']' in a field of a format");
      }
      if (is_attribute) {
        value = PENSTOCK_TRY(get_attribute(arena_, value, part));
      } else {
        const auto index = number_of(part);
        const Value key = index ? Value(*index) : PENSTOCK_TRY(arena_.text(std::string(part)));
        value = PENSTOCK_TRY(get_item(arena_, value, key));
      }
    }
    return value;
  }

  static std::optional<int64_t> number_of(std::string_view text) {
    int64_t number = 0;
    const bool is_digits = !text.empty() && std::all_of(text.begin(), text.end(), [](char c) {
      return c >= '0' && c <= '9';
    });
    if (!is_digits) return std::nullopt;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
    if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
    return number;
  }

  Result<Value> argument(std::string_view name) {
    std::optional<int64_t> index = number_of(name);
    const bool is_automatic = name.empty();
    if (is_automatic || index) {
      const Numbering wanted = is_automatic ? Numbering::kAutomatic : Numbering::kByHand;
      if (numbering_ != Numbering::kNone && numbering_ != wanted) {
        return template_error("a format mixes {} and {0}");
      }
      numbering_ = wanted;
    }
    if (is_automatic) index = next_++;
    if (index) {
      if (*index < std::ssize(arguments_.positional)) return arguments_.positional[*index];
      return template_error(fmt::format("the format has no value for field {}", *index));
    }
    for (const auto& [key, value] : arguments_.keywords) {
      if (key == name) return value;
    }
    return template_error(fmt::format("the format has no value for field '{}'", name));
  }

  enum class Numbering { kNone, kAutomatic, kByHand };

  Arena& arena_;
  const bool is_markup_;
  const Arguments& arguments_;
  Numbering numbering_ = Numbering::kNone;
  int64_t next_ = 0;
};

}  // namespace

Result<std::string> brace_format(Arena& arena, const Text& format, const Arguments& arguments) {
  PENSTOCK_TRY(arena.spend_bytes(format.bytes.size()));
  return BraceFormatter(arena, format, arguments).run(format.bytes, 0);
}

}  // namespace penstock::jinja
