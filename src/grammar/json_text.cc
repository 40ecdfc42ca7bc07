#include "grammar/json_text.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <utility>

#include "grammar/decimal.h"
#include "text/utf8.h"

namespace penstock {
namespace {

// Characters with an escape of two: what stands behind the backslash.
constexpr std::array<std::pair<char32_t, char>, 8> kShortEscapes = {{{U'"', '"'},
                                                                     {U'\\', '\\'},
                                                                     {U'/', '/'},
                                                                     {U'\b', 'b'},
                                                                     {U'\f', 'f'},
                                                                     {U'\n', 'n'},
                                                                     {U'\r', 'r'},
                                                                     {U'\t', 't'}}};

const std::vector<CodePointRange> kPlain = {{0x20, 0x21}, {0x23, 0x5B}, {0x5D, 0x10FFFF}};
const std::vector<CodePointRange> kBeyondAscii = {{0x80, 0x10FFFF}};
constexpr std::string_view kIntMin = "-9223372036854775808";
constexpr std::string_view kIntMax = "9223372036854775807";

bool contains(const std::vector<CodePointRange>& ranges, char32_t c) {
  return std::ranges::any_of(
      ranges, [c](const CodePointRange& range) { return c >= range.first && c <= range.last; });
}

bool contains_all(const std::vector<CodePointRange>& ranges,
                  const std::vector<CodePointRange>& others) {
  const auto both = common(ranges, others);
  const auto expected = normalised(others);
  return std::ranges::equal(both, expected, [](const CodePointRange& a, const CodePointRange& b) {
    return a.first == b.first && a.last == b.last;
  });
}

}  // namespace

RuleId JsonText::blanks() {
  if (blanks_ == kNoId) {
    Rule rule;
    rule.name = "blanks";
    rule.kind = Rule::Kind::kLength;
    rule.max = kBlanksMax;
    rule.expression = source_.repeat(
        source_.unit(source_.chars({{' ', ' '}, {'\t', '\t'}, {'\n', '\n'}, {'\r', '\r'}})), 0,
        kUnlimited);
    blanks_ = source_.add_rule(std::move(rule));
  }
  return blanks_;
}

// \uXXXX with either case of its digits; two of them beyond the first 65536.
ExpressionId JsonText::unicode_escape(char32_t code_point) {
  const auto four = [&](uint32_t unit) {
    std::vector<ExpressionId> parts = {source_.bytes("\\u")};
    for (const char digit : fmt::format("{:04x}", unit)) {
      const auto lower = static_cast<char32_t>(digit);
      if (lower < U'a') {
        parts.push_back(source_.bytes(std::string(1, digit)));
      } else {
        const char32_t upper = lower - U'a' + U'A';
        parts.push_back(source_.chars({{lower, lower}, {upper, upper}}));
      }
    }
    return source_.sequence(std::move(parts));
  };
  if (code_point < 0x10000) return four(code_point);
  const uint32_t offset = code_point - 0x10000;
  return source_.sequence({four(0xD800 + (offset >> 10)), four(0xDC00 + (offset & 0x3FF))});
}

// All of U+0080 to U+10FFFF as escapes.
ExpressionId JsonText::escapes_beyond_ascii() {
  const auto hex = [&](const char* digits) {
    std::vector<CodePointRange> ranges;
    for (const char* d = digits; *d != '\0'; ++d) {
      const auto c = static_cast<char32_t>(*d);
      ranges.push_back({c, c});
      if (c >= U'a') ranges.push_back({c - U'a' + U'A', c - U'a' + U'A'});
    }
    return source_.chars(std::move(ranges));
  };
  const ExpressionId any = hex("0123456789abcdef");
  const auto sequence = [&](std::vector<ExpressionId> digits) {
    digits.insert(digits.begin(), source_.bytes("\\u"));
    return source_.sequence(std::move(digits));
  };
  const ExpressionId zero = source_.bytes("0");
  return source_.choice({
      sequence({zero, zero, hex("89abcdef"), any}),
      sequence({zero, hex("123456789abcdef"), any, any}),
      sequence({hex("123456789abcef"), any, any, any}),
      sequence({hex("d"), hex("01234567"), any, any}),
      source_.sequence({sequence({hex("d"), hex("89ab"), any, any}),
                        sequence({hex("d"), hex("cdef"), any, any})}),
  });
}

ExpressionId JsonText::any_character() {
  if (any_character_ != kNoId) return any_character_;
  // U+0020 to U+007F as escapes; what lies below has them from character() already.
  const ExpressionId any = source_.chars({{'0', '9'}, {'a', 'f'}, {'A', 'F'}});
  const ExpressionId ascii =
      source_.sequence({source_.bytes("\\u00"), source_.chars({{'2', '7'}}), any});
  any_character_ = source_.unit(source_.choice({character({{0, 0x10FFFF}}), ascii}));
  return any_character_;
}

ExpressionId JsonText::character(std::vector<CodePointRange> ranges) {
  ranges = normalised(std::move(ranges));
  std::vector<ExpressionId> choices;
  const auto plain = common(ranges, kPlain);
  if (!plain.empty()) choices.push_back(source_.chars(plain));
  for (const auto& [code_point, letter] : kShortEscapes) {
    if (contains(ranges, code_point))
      choices.push_back(source_.bytes({"\\" + std::string(1, letter)}));
  }
  for (char32_t c = 0; c < 0x20; ++c) {
    if (contains(ranges, c)) choices.push_back(unicode_escape(c));
  }
  if (contains_all(ranges, kBeyondAscii)) choices.push_back(escapes_beyond_ascii());
  return source_.unit(source_.choice(std::move(choices)));
}

ExpressionId JsonText::inside_quotes(std::string_view text) {
  std::vector<ExpressionId> parts;
  std::string run;  // of characters with one spelling
  const auto flush = [&] {
    if (!run.empty()) parts.push_back(source_.bytes(run));
    run.clear();
  };
  for (size_t i = 0; i < text.size();) {
    const Utf8Char character = decode_utf8(text, i);
    const char32_t c = character.code_point;
    const auto short_escape =
        std::ranges::find(kShortEscapes, c, &std::pair<char32_t, char>::first);
    std::vector<ExpressionId> spellings;
    if (c >= 0x20 && c != U'"' && c != U'\\') {
      spellings.push_back(source_.bytes(text.substr(i, character.bytes)));
    }
    if (short_escape != kShortEscapes.end()) {
      spellings.push_back(source_.bytes("\\" + std::string(1, short_escape->second)));
    }
    if (c < 0x20 || c >= 0x80) spellings.push_back(unicode_escape(c));
    if (spellings.size() == 1 && c < 0x80) {
      run += source_.expression(spellings[0]).bytes;
    } else {
      flush();
      parts.push_back(source_.choice(std::move(spellings)));
    }
    i += character.bytes;
  }
  flush();
  return source_.sequence(std::move(parts));
}

RuleId JsonText::string() {
  if (string_ == kNoId) {
    Rule rule;
    rule.name = "string";
    rule.is_shared = true;
    rule.expression = source_.sequence(
        {source_.bytes("\""), source_.repeat(any_character(), 0, kUnlimited), source_.bytes("\"")});
    string_ = source_.add_rule(std::move(rule));
  }
  return string_;
}

// 40 digits and an exponent of at most 259 stay below the largest double.
RuleId JsonText::number() {
  if (number_ == kNoId) {
    const ExpressionId digit = source_.chars({{'0', '9'}});
    const ExpressionId whole = source_.choice(
        {source_.bytes("0"),
         source_.sequence({source_.chars({{'1', '9'}}), source_.repeat(digit, 0, 39)})});
    const ExpressionId fraction =
        source_.sequence({source_.bytes("."), source_.repeat(digit, 1, kUnlimited)});
    const ExpressionId up = source_.choice(
        {source_.repeat(digit, 1, 2), source_.sequence({source_.chars({{'0', '1'}}), digit, digit}),
         source_.sequence({source_.bytes("2"), source_.chars({{'0', '5'}}), digit})});
    const ExpressionId power =
        source_.choice({source_.sequence({source_.optional(source_.bytes("+")), up}),
                        source_.sequence({source_.bytes("-"), source_.repeat(digit, 1, 3)})});
    const ExpressionId exponent =
        source_.sequence({source_.chars({{'e', 'e'}, {'E', 'E'}}), power});
    Rule rule;
    rule.name = "number";
    rule.is_shared = true;
    rule.expression = source_.sequence({source_.optional(source_.bytes("-")), whole,
                                        source_.optional(fraction), source_.optional(exponent)});
    number_ = source_.add_rule(std::move(rule));
  }
  return number_;
}

RuleId JsonText::integer() {
  if (integer_ == kNoId) {
    Rule rule;
    rule.name = "integer";
    rule.is_shared = true;
    rule.expression = integers_between(source_, *Decimal::parse(kIntMin), *Decimal::parse(kIntMax));
    integer_ = source_.add_rule(std::move(rule));
  }
  return integer_;
}

Rule JsonText::object_frame(std::string name) {
  Rule rule;
  rule.name = std::move(name);
  rule.kind = Rule::Kind::kMembers;
  rule.open = source_.sequence({source_.bytes("{"), blank()});
  rule.tail = blank();
  rule.between = source_.sequence({source_.bytes(","), blank()});
  rule.close = source_.bytes("}");
  return rule;
}

Rule JsonText::array_frame(std::string name) {
  Rule rule;
  rule.name = std::move(name);
  rule.kind = Rule::Kind::kItems;
  rule.open = source_.sequence({source_.bytes("["), blank()});
  rule.between = source_.sequence({blank(), source_.bytes(","), blank()});
  rule.close = source_.sequence({blank(), source_.bytes("]")});
  return rule;
}

RuleId JsonText::object() {
  if (object_ == kNoId) {
    object_ = source_.declare_rule("object");
    Rule rule = object_frame("object");
    rule.others = Member{.head = other_name({}), .value = value()};
    source_.define_rule(object_, std::move(rule));
  }
  return object_;
}

RuleId JsonText::array() {
  if (array_ == kNoId) {
    array_ = source_.declare_rule("array");
    Rule rule = array_frame("array");
    rule.rest = value();
    source_.define_rule(array_, std::move(rule));
  }
  return array_;
}

RuleId JsonText::value() {
  if (value_ == kNoId) {
    value_ = source_.declare_rule("value");
    Rule rule;
    rule.name = "value";
    rule.is_shared = true;
    rule.expression =
        source_.choice({source_.rule(object()), source_.rule(array()), source_.rule(string()),
                        source_.rule(number()), source_.any_of({"true", "false", "null"})});
    source_.define_rule(value_, std::move(rule));
  }
  return value_;
}

ExpressionId JsonText::quoted_name(std::string_view name) {
  return source_.sequence({source_.bytes("\""), inside_quotes(name), source_.bytes("\""), blank(),
                           source_.bytes(":"), blank()});
}

ExpressionId JsonText::other_name(const std::vector<std::string>& names) {
  ExpressionId inside = kNoId;
  if (names.empty()) {
    inside = source_.sequence({source_.rule(string())});
    return source_.sequence({inside, blank(), source_.bytes(":"), blank()});
  }
  std::vector<ExpressionId> excluded;
  for (const std::string& name : names) excluded.push_back(inside_quotes(name));
  inside = source_.other_than(source_.repeat(character({{0, 0x10FFFF}}), 0, kUnlimited),
                              source_.choice(std::move(excluded)));
  return source_.sequence(
      {source_.bytes("\""), inside, source_.bytes("\""), blank(), source_.bytes(":"), blank()});
}

// Most lists are of many plain words, whose common beginnings are worth sharing.
ExpressionId JsonText::one_of(const std::vector<const Json*>& values) {
  std::vector<std::string> plain;
  std::vector<ExpressionId> choices;
  for (const Json* value : values) {
    const bool has_one_spelling =
        value->is_primitive() &&
        (!value->is_string() ||
         std::ranges::all_of(value->get_ref<const std::string&>(), [](char c) {
           return c >= 0x20 && c < 0x7F && c != '"' && c != '\\' && c != '/';
         }));
    if (has_one_spelling) {
      plain.push_back(to_text(*value));
    } else {
      choices.push_back(literal(*value));
    }
  }
  if (!plain.empty()) choices.push_back(source_.any_of(std::move(plain)));
  return source_.choice(std::move(choices));
}

ExpressionId JsonText::literal(const Json& value) {
  if (value.is_string()) {
    return source_.sequence({source_.bytes("\""),
                             inside_quotes(value.get_ref<const std::string&>()),
                             source_.bytes("\"")});
  }
  if (value.is_array()) {
    Rule rule = array_frame("constant array");
    for (const Json& item : value) {
      rule.items.push_back(source_.add_rule("constant item", literal(item)));
    }
    rule.min = rule.max = static_cast<uint32_t>(value.size());
    return source_.rule(source_.add_rule(std::move(rule)));
  }
  if (value.is_object()) {
    Rule rule = object_frame("constant object");
    for (const auto& [name, member] : value.items()) {
      rule.members.push_back({.head = quoted_name(name),
                              .value = source_.add_rule("constant member", literal(member)),
                              .required = true});
    }
    return source_.rule(source_.add_rule(std::move(rule)));
  }
  return source_.bytes(to_text(value));
}

}  // namespace penstock
