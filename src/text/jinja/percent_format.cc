// "%s" % value: see python_format.h.
#include <fmt/format.h>

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

// What stands between % and the letter.
struct Conversion {
  bool is_left = false, has_plus = false, has_blank = false, has_zero = false, is_alternate = false;
  int64_t width = 0;
  std::optional<int64_t> precision;
  char type = 's';
};

class PercentFormatter {
 public:
  PercentFormatter(Arena& arena, const Text& format, const Value& values)
      : arena_(arena), format_(format.bytes), is_markup_(format.is_markup), values_(values) {
    const bool is_tuple = values.is(Kind::kList) && values.list().sort == List::Sort::kTuple;
    if (is_tuple) {
      queue_ = values.list().items;
    } else {
      queue_ = {values};
    }
    // Python calls these mappings, and nobody minds if such a value is not used.
    may_stay_unused_ = values.is(Kind::kDict) || values.is_undefined() ||
                       (values.is(Kind::kList) && values.list().sort == List::Sort::kList);
  }

  Result<std::string> run() {
    while (position_ < format_.size()) {
      const size_t percent = std::min(format_.find('%', position_), format_.size());
      PENSTOCK_TRY(append(format_.substr(position_, percent - position_)));
      position_ = percent + 1;
      if (percent < format_.size()) PENSTOCK_TRY(convert());
    }
    if (next_ < queue_.size() && !may_stay_unused_) {
      return template_error("not all values were used by the % format");
    }
    return std::move(out_);
  }

 private:
  Result<void> append(std::string_view text) {
    if (out_.size() + text.size() > kTextBytesMax) {
      return template_error("the formatted text would have more than 16 MiB");
    }
    out_ += text;
    return {};
  }

  char peek() const { return position_ < format_.size() ? format_[position_] : '\0'; }
  bool take(char c) {
    if (peek() != c) return false;
    ++position_;
    return true;
  }

  Result<Value> next_value() {
    if (next_ >= queue_.size()) return template_error("not enough values for the % format");
    PENSTOCK_TRY(arena_.spend(1));
    return queue_[next_++];
  }

  // %(name)s takes that item of the dict.
  Result<void> take_name() {
    const size_t begin = position_;
    for (int open = 1; open > 0; ++position_) {
      if (position_ >= format_.size()) return template_error("the % format has a ( without )");
      if (format_[position_] == '(') ++open;
      if (format_[position_] == ')') --open;
    }
    const std::string_view name = format_.substr(begin, position_ - 1 - begin);
    if (values_.is_undefined()) return undefined_error(values_);
    if (!values_.is(Kind::kDict)) return template_error("%(name) needs a mapping");
    const Value* found = values_.dict().find(name);
    if (found == nullptr) {
      return template_error(fmt::format("the mapping has no item '{}' for the % format", name));
    }
    queue_ = {*found};
    next_ = 0;
    may_stay_unused_ = true;
    return {};
  }

  // A number in the format, or * for one among the values.
  Result<int64_t> take_number() {
    if (take('*')) {
      const Value value = PENSTOCK_TRY(next_value());
      if (!value.is_integral()) return template_error("* in a % format wants an integer");
      return value.integer();
    }
    int64_t number = 0;
    for (; peek() >= '0' && peek() <= '9'; ++position_) {
      number = number * 10 + (peek() - '0');
      if (number > static_cast<int64_t>(kTextBytesMax)) {
        return template_error("a width in a % format is too large");
      }
    }
    return number;
  }

  Result<Conversion> take_conversion() {
    Conversion conversion;
    if (take('(')) PENSTOCK_TRY(take_name());
    for (bool is_flag = true; is_flag;) {
      if (take('-')) {
        conversion.is_left = true;
      } else if (take('+')) {
        conversion.has_plus = true;
      } else if (take(' ')) {
        conversion.has_blank = true;
      } else if (take('#')) {
        conversion.is_alternate = true;
      } else if (take('0')) {
        conversion.has_zero = true;
      } else {
        is_flag = false;
      }
    }
    conversion.width = PENSTOCK_TRY(take_number());
    if (conversion.width < 0) {
      conversion.is_left = true;
      if (conversion.width < -static_cast<int64_t>(kTextBytesMax)) {
        return template_error("a width in a % format is too large");
      }
      conversion.width = -conversion.width;
    }
    if (take('.')) conversion.precision = std::max<int64_t>(PENSTOCK_TRY(take_number()), 0);
    if (peek() == 'h' || peek() == 'l' || peek() == 'L') ++position_;
    if (position_ >= format_.size()) return template_error("the % format ends too early");
    conversion.type = format_[position_++];
    return conversion;
  }

  Result<void> convert() {
    const Conversion conversion = PENSTOCK_TRY(take_conversion());
    if (conversion.type == '%') return append("%");
    if (std::string_view("diouxXeEfFgGcrsa").find(conversion.type) == std::string_view::npos) {
      return template_error("the % format has an unknown letter");
    }
    const Value value = PENSTOCK_TRY(next_value());
    std::string sign;
    std::string body;
    bool is_number = true;
    switch (conversion.type) {
      case 's':
      case 'r':
      case 'a':
      case 'c':
        is_number = false;
        body = PENSTOCK_TRY(as_text(value, conversion));
        break;
      case 'e':
      case 'E':
      case 'f':
      case 'F':
      case 'g':
      case 'G': PENSTOCK_TRY(as_real(value, conversion, sign, body)); break;
      default: PENSTOCK_TRY(as_integer(value, conversion, sign, body));
    }
    Padding padding;
    padding.width = conversion.width;
    padding.align = conversion.is_left ? '<' : '>';
    if (is_number && conversion.has_zero && !conversion.is_left) {
      padding.fill = "0";
      padding.align = '=';
    }
    return append(PENSTOCK_TRY(pad(sign, body, padding)));
  }

  Result<std::string> as_text(const Value& value, const Conversion& conversion) {
    if (conversion.type == 'c') return as_character(value);
    std::string text = conversion.type == 's'   ? PENSTOCK_TRY(python_str(value))
                       : conversion.type == 'r' ? PENSTOCK_TRY(python_repr(value))
                                                : PENSTOCK_TRY(python_ascii(value));
    PENSTOCK_TRY(arena_.spend_bytes(text.size()));
    const bool is_safe = conversion.type == 's' && is_markup(value);
    if (is_markup_ && !is_safe) text = escape_html(text);
    if (conversion.precision && *conversion.precision < code_point_count(text)) {
      text.resize(byte_offset(text, *conversion.precision));
    }
    return text;
  }

  static Result<std::string> as_character(const Value& value) {
    if (value.is_text() && value.text().length == 1) return value.text().bytes;
    const bool is_code_point = value.is_integral() && value.integer() >= 0 &&
                               value.integer() <= 0x10FFFF &&
                               (value.integer() < 0xD800 || value.integer() > 0xDFFF);
    if (!is_code_point) return template_error("%c wants a character or its number");
    std::string text;
    append_utf8(static_cast<char32_t>(value.integer()), text);
    return text;
  }

  static std::string sign_of(bool is_negative, const Conversion& conversion) {
    if (is_negative) return "-";
    if (conversion.has_plus) return "+";
    return conversion.has_blank ? " " : "";
  }

  static Result<void> check_precision(const Conversion& conversion) {
    if (conversion.precision.value_or(0) <= kPrecisionMax) return {};
    return template_error(fmt::format("a precision of more than {} digits", kPrecisionMax));
  }

  static Result<void> as_real(const Value& value, const Conversion& conversion, std::string& sign,
                              std::string& body) {
    PENSTOCK_TRY(check_precision(conversion));
    if (value.is_undefined()) return undefined_error(value);
    if (!value.is_number()) {
      return template_error(
          fmt::format("%{} wants a number, not {}", conversion.type, type_name(value)));
    }
    const double real = value.real();
    sign = sign_of(std::signbit(real) && !std::isnan(real), conversion);
    body = real_digits(std::abs(real),
                       {conversion.type, static_cast<int>(conversion.precision.value_or(6)),
                        conversion.is_alternate});
    return {};
  }

  static Result<void> as_integer(const Value& value, const Conversion& conversion,
                                 std::string& sign, std::string& body) {
    PENSTOCK_TRY(check_precision(conversion));
    if (value.is_undefined()) return undefined_error(value);
    const bool is_decimal =
        conversion.type == 'd' || conversion.type == 'i' || conversion.type == 'u';
    const bool is_real = is_decimal && value.is(Kind::kFloat) && std::isfinite(value.real());
    if (!value.is_integral() && !is_real) {
      return template_error(
          fmt::format("%{} wants an integer, not {}", conversion.type, type_name(value)));
    }
    const bool is_hex = conversion.type == 'x' || conversion.type == 'X';
    bool is_negative = false;
    if (is_real) {  // the digits before the point, which may be many
      const double whole = std::trunc(value.real());
      is_negative = whole < 0;
      body = real_digits(std::abs(whole), {'f', 0, false});
    } else {
      const int64_t integer = value.integer();
      is_negative = integer < 0;
      body = integer_digits(magnitude_of(integer), is_decimal ? 10 : is_hex ? 16 : 8);
    }
    const auto wanted = static_cast<size_t>(conversion.precision.value_or(0));
    if (body.size() < wanted) body.insert(0, wanted - body.size(), '0');
    sign = sign_of(is_negative, conversion);
    if (conversion.is_alternate && !is_decimal) sign += is_hex ? "0x" : "0o";
    if (conversion.type == 'X') {
      sign = upper(sign);
      body = upper(body);
    }
    return {};
  }

  Arena& arena_;
  const std::string_view format_;
  const bool is_markup_;
  const Value& values_;
  std::vector<Value> queue_;
  size_t next_ = 0;
  bool may_stay_unused_ = false;
  size_t position_ = 0;
  std::string out_;
};

}  // namespace

Result<std::string> percent_format(Arena& arena, const Text& format, const Value& values) {
  PENSTOCK_TRY(arena.spend_bytes(format.bytes.size()));
  return PercentFormatter(arena, format, values).run();
}

Result<std::string> pad(std::string_view sign, std::string_view body, const Padding& padding) {
  std::string out(sign);
  const int64_t length = code_point_count(sign) + code_point_count(body);
  const int64_t missing = padding.width - length;
  if (missing <= 0) return out.append(body);
  const auto fill_bytes = static_cast<int64_t>(padding.fill.size());
  if (missing > static_cast<int64_t>(kTextBytesMax) / fill_bytes) {
    return template_error("the formatted text would have more than 16 MiB");
  }
  int64_t before = 0;
  if (padding.align == '>' || padding.align == '=') before = missing;
  if (padding.align == '^') before = missing / 2;
  const auto fill = [&](int64_t count) {
    for (int64_t i = 0; i < count; ++i) out += padding.fill;
  };
  if (padding.align != '=') out.clear();
  fill(before);
  if (padding.align != '=') out += sign;
  out += body;
  fill(missing - before);
  return out;
}

Result<std::string> python_ascii(const Value& value) {
  const std::string repr = PENSTOCK_TRY(python_repr(value));
  std::string out;
  for (size_t position = 0; position < repr.size();) {
    const Utf8Char next = decode_valid_utf8(repr, position);
    const auto c = static_cast<uint32_t>(next.code_point);
    position += next.bytes;
    if (c < 0x80) {
      out += static_cast<char>(c);
    } else if (c < 0x100) {
      out += fmt::format("\\x{:02x}", c);
    } else if (c < 0x10000) {
      out += fmt::format("\\u{:04x}", c);
    } else {
      out += fmt::format("\\U{:08x}", c);
    }
    if (out.size() > kTextBytesMax) return template_error("a value prints as more than 16 MiB");
  }
  return out;
}

}  // namespace penstock::jinja
