// str(), repr() and json.dumps() of values: see python_text.h.
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <string>

#include "text/jinja/character_class.h"
#include "text/jinja/operators.h"
#include "text/jinja/python_text.h"
#include "text/utf8.h"

namespace penstock::jinja {
namespace {

Result<void> check_limits(const std::string& out, int depth) {
  if (out.size() > kTextBytesMax) {
    return template_error("a value prints as more than 16 MiB of text");
  }
  if (depth > kValueDepthMax) {
    return template_error(fmt::format("a value nests deeper than {}", kValueDepthMax));
  }
  return {};
}

void append_repr(std::string_view text, std::string& out) {
  const bool has_single = text.find('\'') != std::string_view::npos;
  const bool has_double = text.find('"') != std::string_view::npos;
  const char32_t quote = has_single && !has_double ? '"' : '\'';
  append_utf8(quote, out);
  for (size_t position = 0; position < text.size();) {
    const Utf8Char next = decode_valid_utf8(text, position);
    const char32_t c = next.code_point;
    position += next.bytes;
    const auto number = static_cast<uint32_t>(c);
    if (c == quote || c == '\\') {
      out += '\\';
      append_utf8(c, out);
    } else if (c == '\n') {
      out += "\\n";
    } else if (c == '\r') {
      out += "\\r";
    } else if (c == '\t') {
      out += "\\t";
    } else if (is_printable(c)) {
      append_utf8(c, out);
    } else if (c < 0x100) {
      out += fmt::format("\\x{:02x}", number);
    } else if (c < 0x10000) {
      out += fmt::format("\\u{:04x}", number);
    } else {
      out += fmt::format("\\U{:08x}", number);
    }
  }
  append_utf8(quote, out);
}

// repr(), also of what is inside a printed list.
Result<void> append_value(const Value& value, int depth, std::string& out) {
  PENSTOCK_TRY(check_limits(out, depth));
  switch (value.kind()) {
    case Kind::kUndefined: out += "Undefined"; break;
    case Kind::kNone: out += "None"; break;
    case Kind::kBool: out += value.boolean() ? "True" : "False"; break;
    case Kind::kInt: out += fmt::format("{}", value.integer()); break;
    case Kind::kFloat: out += python_str(value.real()); break;
    case Kind::kText:
      if (value.text().is_markup) out += "Markup(";
      append_repr(value.text().bytes, out);
      if (value.text().is_markup) out += ')';
      break;
    case Kind::kList: {
      const List& list = value.list();
      if (list.sort == List::Sort::kGenerator) {
        out += "<generator object>";
        break;
      }
      const bool is_tuple = list.sort == List::Sort::kTuple;
      out += is_tuple ? '(' : '[';
      for (size_t i = 0; i < list.items.size(); ++i) {
        if (i > 0) out += ", ";
        PENSTOCK_TRY(append_value(list.items[i], depth + 1, out));
      }
      if (is_tuple && list.items.size() == 1) out += ',';
      out += is_tuple ? ')' : ']';
      break;
    }
    case Kind::kDict: {
      out += '{';
      bool first = true;
      for (const auto& [key, item] : value.dict().items) {
        if (!first) out += ", ";
        first = false;
        PENSTOCK_TRY(append_value(key, depth + 1, out));
        out += ": ";
        PENSTOCK_TRY(append_value(item, depth + 1, out));
      }
      out += '}';
      break;
    }
    case Kind::kNamespace: {
      out += "<Namespace {";
      bool first = true;
      for (const auto& [key, item] : value.space().attributes) {
        if (!first) out += ", ";
        first = false;
        append_repr(key, out);
        out += ": ";
        PENSTOCK_TRY(append_value(item, depth + 1, out));
      }
      out += "}>";
      break;
    }
    case Kind::kLoop:
      out += fmt::format("<LoopContext {}/{}>", value.loop().index + 1, value.loop().items.size());
      break;
    case Kind::kCycler: out += "<Cycler>"; break;
    case Kind::kCallable: out += fmt::format("<function {}>", value.callable().name); break;
  }
  return {};
}

void append_json_text(std::string_view text, bool ensure_ascii, std::string& out) {
  out += '"';
  for (size_t position = 0; position < text.size();) {
    const Utf8Char next = decode_valid_utf8(text, position);
    const auto c = static_cast<uint32_t>(next.code_point);
    position += next.bytes;
    constexpr std::string_view kShortNames = "btnvfr";  // \b is 8, \r is 13; \v has none in JSON
    if (c == '"' || c == '\\') {
      out += '\\';
      out += static_cast<char>(c);
    } else if (c >= 8 && c <= 13 && c != 11) {
      out += '\\';
      out += kShortNames[c - 8];
    } else if (c < 0x20) {
      out += fmt::format("\\u{:04x}", c);
    } else if (!ensure_ascii || c < 0x7F) {
      append_utf8(next.code_point, out);
    } else if (c < 0x10000) {
      out += c == 0x7F ? "\x7F" : fmt::format("\\u{:04x}", c);
    } else {
      out += fmt::format("\\u{:04x}\\u{:04x}", 0xD800 + ((c - 0x10000) >> 10),
                         0xDC00 + ((c - 0x10000) & 0x3FF));
    }
  }
  out += '"';
}

class JsonPrinter {
 public:
  JsonPrinter(const JsonFormat& format, std::string& out) : format_(format), out_(out) {}

  Result<void> print(const Value& value, int depth) {
    PENSTOCK_TRY(check_limits(out_, depth));
    switch (value.kind()) {
      case Kind::kNone: out_ += "null"; return {};
      case Kind::kBool: out_ += value.boolean() ? "true" : "false"; return {};
      case Kind::kInt: out_ += fmt::format("{}", value.integer()); return {};
      case Kind::kFloat: out_ += json_number(value.real()); return {};
      case Kind::kText: append_json_text(value.text().bytes, format_.ensure_ascii, out_); return {};
      case Kind::kList:
        if (value.list().sort != List::Sort::kGenerator) return print_list(value.list(), depth);
        break;
      case Kind::kDict: return print_dict(value.dict(), depth);
      default: break;
    }
    return template_error(
        fmt::format("tojson: an object of type {} is not JSON serializable", type_name(value)));
  }

 private:
  static std::string json_number(double value) {
    if (std::isnan(value)) return "NaN";
    if (std::isinf(value)) return value > 0 ? "Infinity" : "-Infinity";
    return python_str(value);
  }

  void new_line(int depth) {
    if (!format_.indent) return;
    out_ += '\n';
    for (int i = 0; i < depth; ++i) out_ += *format_.indent;
  }

  Result<void> print_list(const List& list, int depth) {
    out_ += '[';
    for (size_t i = 0; i < list.items.size(); ++i) {
      if (i > 0) out_ += format_.item_separator;
      new_line(depth + 1);
      PENSTOCK_TRY(print(list.items[i], depth + 1));
    }
    if (!list.items.empty()) new_line(depth);
    out_ += ']';
    return {};
  }

  Result<void> print_dict(const Dict& dict, int depth) {
    std::vector<const std::pair<Value, Value>*> order;
    for (const auto& item : dict.items) order.push_back(&item);
    if (format_.sort_keys) {
      for (const auto* item : order) {
        if (!item->first.is_text()) return template_error("tojson: only texts can be sorted keys");
      }
      std::stable_sort(order.begin(), order.end(), [](const auto* a, const auto* b) {
        return a->first.text().bytes < b->first.text().bytes;
      });
    }
    out_ += '{';
    for (size_t i = 0; i < order.size(); ++i) {
      if (i > 0) out_ += format_.item_separator;
      new_line(depth + 1);
      PENSTOCK_TRY(print_key(order[i]->first, depth + 1));
      out_ += format_.key_separator;
      PENSTOCK_TRY(print(order[i]->second, depth + 1));
    }
    if (!order.empty()) new_line(depth);
    out_ += '}';
    return {};
  }

  // Keys that are not texts are printed as JSON and put in quotes.
  Result<void> print_key(const Value& key, int depth) {
    if (key.is_text()) return print(key, depth);
    out_ += '"';
    PENSTOCK_TRY(print(key, depth));
    out_ += '"';
    return {};
  }

  const JsonFormat& format_;
  std::string& out_;
};

}  // namespace

// Python prints the shortest digits that read back as the same number, with an exponent below 1e-4
// and from 1e16 on: 0.0001, 1e-05, 1234567890123456.0, 1e+16.
std::string python_str(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value > 0 ? "inf" : "-inf";
  char buffer[64];
  const auto scientific =
      std::to_chars(buffer, std::end(buffer), value, std::chars_format::scientific);
  const std::string_view digits(buffer, static_cast<size_t>(scientific.ptr - buffer));
  int exponent = 0;
  const size_t e = digits.find('e');
  const bool plus = digits[e + 1] == '+';
  std::from_chars(digits.data() + e + 1 + (plus ? 1 : 0), digits.data() + digits.size(), exponent);
  if (value != 0 && (exponent < -4 || exponent >= 16)) return std::string(digits);
  const auto fixed = std::to_chars(buffer, std::end(buffer), value, std::chars_format::fixed);
  std::string text(buffer, fixed.ptr);
  if (text.find('.') == std::string::npos) text += ".0";
  return text;
}

Result<std::string> python_str(const Value& value) {
  if (value.is_text()) return value.text().bytes;
  std::string out;
  if (value.is_undefined()) return out;
  PENSTOCK_TRY(append_value(value, 0, out));
  return out;
}

Result<std::string> python_repr(const Value& value) {
  std::string out;
  PENSTOCK_TRY(append_value(value, 0, out));
  return out;
}

Result<std::string> python_json(const Value& value, const JsonFormat& format) {
  std::string out;
  PENSTOCK_TRY(JsonPrinter(format, out).print(value, 0));
  return out;
}

}  // namespace penstock::jinja
