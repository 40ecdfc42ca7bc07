#include "grammar/gbnf.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "grammar/text_cursor.h"
#include "text/utf8.h"

namespace penstock {
namespace {

constexpr uint64_t kCopiedStatesMax = 1000;
constexpr uint64_t kSizeMax = uint64_t{1} << 32;

bool is_name_char(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
         c == '_';
}

int hex_value(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

struct Part {
  ExpressionId id = kNoId;
  uint64_t size = 0;
};

class GbnfParser : TextCursor {
 public:
  explicit GbnfParser(std::string_view text) : TextCursor(text) {}

  Result<GrammarSource> run() {
    for (skip_blank(true); !at_end(); skip_blank(true)) PENSTOCK_TRY(parse_rule());
    const auto root = rules_.find("root");
    if (root == rules_.end()) return fail("there is no rule \"root\"");
    for (const auto& [name, known] : rules_) {
      if (!known.is_defined) {
        line_ = known.line;
        return fail(fmt::format("rule \"{}\" is used but not defined", name));
      }
    }
    source_.root = root->second.id;
    return std::move(source_);
  }

 private:
  struct Known {
    RuleId id = kNoId;
    bool is_defined = false;
    int line = 0;
  };

  Error fail(std::string_view what) const {
    return {ErrorCode::kInvalidArgument, fmt::format("grammar, line {}: {}", line_, what)};
  }
  void skip_blank(bool over_lines) {
    while (!at_end()) {
      const char c = peek();
      if (c == '#') {
        while (!at_end() && peek() != '\n') ++position_;
      } else if (c == ' ' || c == '\t' || c == '\r') {
        ++position_;
      } else if (c == '\n' && over_lines) {
        ++position_;
        ++line_;
      } else {
        return;
      }
    }
  }

  Result<std::string> parse_name() {
    const size_t begin = position_;
    while (is_name_char(peek())) ++position_;
    if (position_ == begin) {
      return fail(fmt::format("expected a rule's name, found \"{}\"",
                              replace_invalid_utf8(text_.substr(position_, 8))));
    }
    return std::string(text_.substr(begin, position_ - begin));
  }

  Known& known(const std::string& name) {
    const auto [at, is_new] = rules_.emplace(name, Known{.line = line_});
    if (is_new) at->second.id = source_.declare_rule(name);
    return at->second;
  }

  Result<void> parse_rule() {
    const std::string name = PENSTOCK_TRY(parse_name());
    skip_blank(false);
    if (!take("::=")) return fail(fmt::format("expected ::= after \"{}\"", name));
    skip_blank(true);
    const Part body = PENSTOCK_TRY(parse_choice(0));
    if (!at_end() && peek() != '\n') {
      return fail(
          fmt::format("unexpected \"{}\"", replace_invalid_utf8(text_.substr(position_, 8))));
    }
    Known& rule = known(name);
    if (rule.is_defined) return fail(fmt::format("rule \"{}\" is defined twice", name));
    rule.is_defined = true;
    Rule defined;
    defined.name = name;
    defined.expression = body.id;
    source_.define_rule(rule.id, std::move(defined));
    return {};
  }

  Result<Part> parse_choice(int nesting) {
    if (nesting > kGbnfNestingMax) {
      return fail(fmt::format("groups are nested deeper than {}", kGbnfNestingMax));
    }
    std::vector<ExpressionId> choices;
    Part whole{.size = 2};
    do {
      skip_blank(true);
      const Part part = PENSTOCK_TRY(parse_sequence(nesting));
      choices.push_back(part.id);
      whole.size = std::min(whole.size + part.size, kSizeMax);
      skip_blank(nesting > 0);
    } while (take("|"));
    whole.id = source_.choice(std::move(choices));
    return whole;
  }

  Result<Part> parse_sequence(int nesting) {
    std::vector<ExpressionId> parts;
    Part whole{.size = 2};
    while (true) {
      skip_blank(nesting > 0);
      const char c = peek();
      if (at_end() || c == '|' || c == ')' || c == '\n') break;
      Part part = PENSTOCK_TRY(parse_item(nesting));
      part = PENSTOCK_TRY(parse_repetitions(part));
      parts.push_back(part.id);
      whole.size = std::min(whole.size + part.size, kSizeMax);
    }
    whole.id = source_.sequence(std::move(parts));
    return whole;
  }

  Result<Part> parse_item(int nesting) {
    if (take("(")) {
      const Part part = PENSTOCK_TRY(parse_choice(nesting + 1));
      skip_blank(true);
      if (!take(")")) return fail("expected )");
      return part;
    }
    if (take("\"")) return parse_text();
    if (take("[")) return parse_class();
    if (take(".")) return Part{source_.chars(inverted({})), 8};
    if (peek() == '<' || peek() == '!') {
      return Error{ErrorCode::kUnsupported,
                   fmt::format("grammar, line {}: tokens (<...>) are not supported", line_)};
    }
    const std::string name = PENSTOCK_TRY(parse_name());
    return Part{source_.rule(known(name).id), 50};
  }

  Result<Part> parse_text() {
    std::string text;
    while (!take("\"")) {
      if (at_end() || peek() == '\n') return fail("a text does not end; expected \"");
      // \xHH is a byte of the text, as in a text that is not ASCII it would have to be.
      if (peek() == '\\' && peek(1) == 'x') {
        position_ += 2;
        text += static_cast<char>(PENSTOCK_TRY(parse_hex(2)));
      } else {
        append_utf8(PENSTOCK_TRY(parse_char()), text);
      }
    }
    const uint64_t size = text.size();
    return Part{source_.bytes(text), size};
  }

  Result<Part> parse_class() {
    const bool is_inverted = take("^");
    std::vector<CodePointRange> ranges;
    while (!take("]")) {
      if (at_end() || peek() == '\n') return fail("a class does not end; expected ]");
      const char32_t first = PENSTOCK_TRY(parse_char());
      char32_t last = first;
      if (peek() == '-' && peek(1) != ']') {
        ++position_;
        if (at_end()) return fail("a class does not end; expected ]");
        last = PENSTOCK_TRY(parse_char());
        if (last < first) return fail("a range in a class ends before it begins");
      }
      ranges.push_back({first, last});
    }
    if (is_inverted) ranges = inverted(std::move(ranges));
    const uint64_t size = 4 + 4 * ranges.size();
    return Part{source_.chars(std::move(ranges)), size};
  }

  Result<char32_t> parse_hex(int digits) {
    char32_t value = 0;
    for (int i = 0; i < digits; ++i) {
      const int digit = hex_value(peek());
      if (digit < 0) return fail(fmt::format("an escape needs {} hexadecimal digits", digits));
      value = value * 16 + static_cast<char32_t>(digit);
      ++position_;
    }
    if (value > 0x10FFFF || (value >= 0xD800 && value < 0xE000)) {
      return fail("an escape is no character");
    }
    return value;
  }

  Result<char32_t> parse_char() {
    if (peek() == '\\') {
      const char escaped = peek(1);
      position_ += 2;
      switch (escaped) {
        case 'n': return U'\n';
        case 'r': return U'\r';
        case 't': return U'\t';
        case 'x': return parse_hex(2);
        case 'u': return parse_hex(4);
        case 'U': return parse_hex(8);
        case '\\':
        case '"':
        case '[':
        case ']':
        case '-':
        case '^':
        case '/':
        case '.': return static_cast<char32_t>(escaped);
        default: return fail("an escape is not known");
      }
    }
    const Utf8Char character = decode_utf8(text_, position_);
    if (character.status != Utf8Status::kWhole) return fail("this is not UTF-8");
    position_ += character.bytes;
    return character.code_point;
  }

  Result<Part> parse_repetitions(Part part) {
    while (true) {
      skip_same_line();
      uint32_t min = 0;
      uint32_t max = kUnlimited;
      if (take("*")) {
      } else if (take("+")) {
        min = 1;
      } else if (take("?")) {
        max = 1;
      } else if (take("{")) {
        min = PENSTOCK_TRY(parse_number());
        max = min;
        if (take(",")) max = peek() == '}' ? kUnlimited : PENSTOCK_TRY(parse_number());
        if (!take("}")) return fail("expected } after a number of repetitions");
        if (max < min) return fail("a maximum of repetitions is below the minimum");
      } else {
        return part;
      }
      part.id = repeated(source_, part.id, min, max, part.size);
    }
  }
  void skip_same_line() {
    while (peek() == ' ' || peek() == '\t') ++position_;
  }

  Result<uint32_t> parse_number() {
    skip_same_line();
    uint64_t value = 0;
    const size_t begin = position_;
    while (peek() >= '0' && peek() <= '9') {
      value = std::min<uint64_t>(value * 10 + static_cast<uint64_t>(peek() - '0'), kSizeMax);
      ++position_;
    }
    if (position_ == begin) return fail("expected a number of repetitions");
    if (value > kRepetitionsMax) {
      return fail(fmt::format("more than {} repetitions", kRepetitionsMax));
    }
    skip_same_line();
    return static_cast<uint32_t>(value);
  }

  int line_ = 1;
  GrammarSource source_;
  std::map<std::string, Known> rules_;
};

}  // namespace

ExpressionId repeated(GrammarSource& source, ExpressionId child, uint32_t min, uint32_t max,
                      uint64_t& child_size) {
  const uint64_t copies = std::max(1u, max == kUnlimited ? min : max);
  const uint64_t size = std::min(copies * (child_size + 2), kSizeMax);
  if (size <= kCopiedStatesMax || copies == 1) {
    child_size = size;
    return source.repeat(child, min, max);
  }
  child_size = 50;
  Rule rule;
  rule.name = fmt::format("{{{},{}}}", min, max);
  rule.min = min;
  rule.max = max;
  if (source.expression(child).kind == Expression::Kind::kChars) {
    rule.kind = Rule::Kind::kLength;
    rule.expression = source.repeat(source.unit(child), 0, kUnlimited);
  } else {
    rule.kind = Rule::Kind::kCount;
    rule.rest = source.add_rule("repeated", child);
  }
  return source.rule(source.add_rule(std::move(rule)));
}

Result<GrammarSource> parse_gbnf(std::string_view text) {
  if (text.size() > kGbnfBytesMax) {
    return Error{ErrorCode::kUnsupported,
                 fmt::format("grammar: larger than {} KiB", kGbnfBytesMax / 1024)};
  }
  return GbnfParser(text).run();
}

}  // namespace penstock
