#include "grammar/regex.h"

#include <fmt/format.h>

#include <algorithm>
#include <string>
#include <utility>

#include "grammar/text_cursor.h"
#include "text/utf8.h"

namespace penstock {
namespace {

using Ranges = std::vector<CodePointRange>;

const Ranges kDigits = {{'0', '9'}};
const Ranges kWord = {{'0', '9'}, {'A', 'Z'}, {'_', '_'}, {'a', 'z'}};
const Ranges kSpace = {{0x9, 0xD},       {0x20, 0x20},     {0xA0, 0xA0},     {0x1680, 0x1680},
                       {0x2000, 0x200A}, {0x2028, 0x2029}, {0x202F, 0x202F}, {0x205F, 0x205F},
                       {0x3000, 0x3000}, {0xFEFF, 0xFEFF}};
const Ranges kLineEnds = {{'\n', '\n'}, {'\r', '\r'}, {0x2028, 0x2029}};
constexpr uint32_t kPatternRepetitionsMax = 2000;

class PatternParser : TextCursor {
 public:
  PatternParser(GrammarSource& source, std::string_view text, const CharacterWriter& character)
      : TextCursor(text), source_(source), character_(character) {}

  Result<ExpressionId> run() {
    const ExpressionId whole = PENSTOCK_TRY(parse_choice(0));
    if (!at_end()) return fail("has a ) too many");
    return whole;
  }

 private:
  Error fail(std::string_view what) const {
    return {ErrorCode::kInvalidArgument,
            fmt::format("pattern \"{}\" {}", replace_invalid_utf8(text_.substr(0, 80)), what)};
  }
  Error refuse(std::string_view what) const {
    Error error = fail(fmt::format("uses {}, which is not supported", what));
    error.code = ErrorCode::kUnsupported;
    return error;
  }
  ExpressionId anything() { return source_.repeat(character_({{0, 0x10FFFF}}), 0, kUnlimited); }

  // At the top an alternative without its anchor may stand anywhere.
  Result<ExpressionId> parse_choice(int nesting) {
    if (nesting > kPatternNestingMax) {
      return fail(fmt::format("is nested deeper than {}", kPatternNestingMax));
    }
    std::vector<ExpressionId> choices;
    do {
      std::vector<ExpressionId> parts;
      const bool begins = nesting == 0 && take("^");
      if (nesting == 0 && !begins) parts.push_back(anything());
      bool ends = false;
      while (!at_end() && peek() != '|' && peek() != ')') {
        if (peek() == '$' && nesting == 0 && (peek(1) == '|' || position_ + 1 == text_.size())) {
          ++position_;
          ends = true;
          break;
        }
        parts.push_back(PENSTOCK_TRY(parse_item(nesting)));
      }
      if (nesting == 0 && !ends) parts.push_back(anything());
      choices.push_back(source_.sequence(std::move(parts)));
    } while (take("|"));
    return source_.choice(std::move(choices));
  }

  Result<ExpressionId> parse_item(int nesting) {
    ExpressionId item = kNoId;
    if (take("(")) {
      item = PENSTOCK_TRY(parse_group(nesting));
    } else if (take("[")) {
      item = character_(PENSTOCK_TRY(parse_class()));
    } else if (take(".")) {
      item = character_(inverted(kLineEnds));
    } else if (peek() == '^' || peek() == '$') {
      return refuse("an anchor inside");
    } else if (peek() == '*' || peek() == '+' || peek() == '?') {
      return fail("repeats nothing");
    } else {
      item = character_(PENSTOCK_TRY(parse_atom(false)));
    }
    return parse_repetition(item);
  }

  Result<ExpressionId> parse_group(int nesting) {
    if (take("?")) {
      if (peek() == '<' && peek(1) != '=' && peek(1) != '!') {
        while (!at_end() && peek() != '>') ++position_;
        take(">");
      } else if (!take(":")) {
        return refuse("(?" + std::string(1, peek()) + ")");
      }
    }
    const ExpressionId group = PENSTOCK_TRY(parse_choice(nesting + 1));
    if (!take(")")) return fail("has a ( too many");
    return group;
  }

  Result<ExpressionId> parse_repetition(ExpressionId item) {
    uint32_t min = 0;
    uint32_t max = kUnlimited;
    if (take("*")) {
    } else if (take("+")) {
      min = 1;
    } else if (take("?")) {
      max = 1;
    } else if (peek() == '{' && peek(1) >= '0' && peek(1) <= '9') {
      ++position_;
      min = PENSTOCK_TRY(parse_number());
      max = min;
      if (take(",")) max = peek() == '}' ? kUnlimited : PENSTOCK_TRY(parse_number());
      if (!take("}")) return fail("has a { that does not end");
      if (max < min) return fail("has a maximum below its minimum");
    } else {
      return item;
    }
    take("?");
    const bool is_counted = peek() == '{' && peek(1) >= '0' && peek(1) <= '9';
    if (peek() == '*' || peek() == '+' || peek() == '?' || is_counted) {
      return fail("repeats a repetition");
    }
    return source_.repeat(item, min, max);
  }

  Result<uint32_t> parse_number() {
    uint32_t value = 0;
    if (peek() < '0' || peek() > '9') return fail("needs a number in { }");
    while (peek() >= '0' && peek() <= '9') {
      value = value * 10 + static_cast<uint32_t>(peek() - '0');
      if (value > kPatternRepetitionsMax) {
        return refuse(fmt::format("more than {} repetitions", kPatternRepetitionsMax));
      }
      ++position_;
    }
    return value;
  }

  Result<Ranges> parse_class() {
    const bool is_inverted = take("^");
    Ranges ranges;
    while (!take("]")) {
      if (at_end()) return fail("has a [ that does not end");
      Ranges part = PENSTOCK_TRY(parse_atom(true));
      const bool is_single = part.size() == 1 && part[0].first == part[0].last;
      if (is_single && peek() == '-' && peek(1) != ']' && position_ + 1 < text_.size()) {
        ++position_;
        const Ranges last = PENSTOCK_TRY(parse_atom(true));
        if (last.size() != 1 || last[0].first != last[0].last)
          return fail("has a range of classes");
        if (last[0].first < part[0].first) return fail("has a range that ends before it begins");
        part[0].last = last[0].first;
      }
      ranges.insert(ranges.end(), part.begin(), part.end());
    }
    return is_inverted ? inverted(std::move(ranges)) : normalised(std::move(ranges));
  }

  Result<Ranges> parse_atom(bool in_class) {
    if (!take("\\")) {
      const Utf8Char character = decode_utf8(text_, position_);
      if (character.status != Utf8Status::kWhole) return fail("is not UTF-8");
      position_ += character.bytes;
      return Ranges{{character.code_point, character.code_point}};
    }
    if (at_end()) return fail("ends in a backslash");
    const char escaped = text_[position_++];
    const auto one = [](char32_t c) { return Ranges{{c, c}}; };
    switch (escaped) {
      case 'd': return kDigits;
      case 'D': return inverted(kDigits);
      case 'w': return kWord;
      case 'W': return inverted(kWord);
      case 's': return kSpace;
      case 'S': return inverted(kSpace);
      case 'n': return one('\n');
      case 'r': return one('\r');
      case 't': return one('\t');
      case 'f': return one('\f');
      case 'v': return one('\v');
      case '0': return one(0);
      case 'x': return parse_hex(2);
      case 'u': return parse_unicode();
      case 'b':
        if (in_class) return one('\b');
        return refuse("\\b");
      default: break;
    }
    const bool is_letter = (escaped >= 'a' && escaped <= 'z') || (escaped >= 'A' && escaped <= 'Z');
    if (is_letter || (escaped >= '1' && escaped <= '9')) {
      return refuse("\\" + std::string(1, escaped));
    }
    if (static_cast<uint8_t>(escaped) >= 0x80) return fail("has a backslash before no ASCII");
    return one(static_cast<char32_t>(escaped));
  }

  Result<Ranges> parse_hex(int digits) {
    char32_t value = 0;
    for (int i = 0; i < digits; ++i, ++position_) {
      const char c = peek();
      const char lower = static_cast<char>(c | 0x20);
      if (c >= '0' && c <= '9') {
        value = value * 16 + static_cast<char32_t>(c - '0');
      } else if (lower >= 'a' && lower <= 'f') {
        value = value * 16 + static_cast<char32_t>(lower - 'a' + 10);
      } else {
        return fail("has an escape without its digits");
      }
    }
    return Ranges{{value, value}};
  }

  Result<Ranges> parse_unicode() {
    if (!take("{")) return parse_hex(4);
    const size_t end = text_.find('}', position_);
    if (end == std::string_view::npos || end == position_ || end - position_ > 6) {
      return fail("has an escape without its digits");
    }
    Ranges ranges = PENSTOCK_TRY(parse_hex(static_cast<int>(end - position_)));
    ++position_;
    return ranges;
  }

  GrammarSource& source_;
  const CharacterWriter& character_;
};

}  // namespace

Result<ExpressionId> parse_pattern(GrammarSource& source, std::string_view pattern,
                                   const CharacterWriter& character) {
  if (pattern.size() > kPatternBytesMax) {
    return Error{ErrorCode::kUnsupported,
                 fmt::format("a pattern is longer than {} bytes", kPatternBytesMax)};
  }
  return PatternParser(source, pattern, character).run();
}

}  // namespace penstock
