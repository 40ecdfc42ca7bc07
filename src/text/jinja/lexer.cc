#include "text/jinja/lexer.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "text/jinja/python_text.h"
#include "text/utf8.h"

namespace penstock::jinja {
namespace {

// Every line end becomes "\n"; one at the end of the source is dropped.
std::string normalise_lines(std::string_view source) {
  std::string out;
  out.reserve(source.size());
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] == '\r') {
      out += '\n';
      if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
    } else {
      out += source[i];
    }
  }
  if (out.ends_with('\n')) out.pop_back();
  return out;
}

bool is_ascii_digit(char c) {
  return c >= '0' && c <= '9';
}
bool begins_name(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' ||
         static_cast<uint8_t>(c) >= 0x80;
}

class Lexer {
 public:
  explicit Lexer(std::string source) : source_(std::move(source)) {}

  Result<std::vector<Token>> run() {
    while (position_ < source_.size()) {
      const size_t tag = find_tag();
      PENSTOCK_TRY(read_text(tag));
      if (tag == source_.size()) break;
      const char sort = source_[tag + 1];
      if (sort == '#') {
        PENSTOCK_TRY(skip_comment());
      } else if (sort == '%' && raw_tag_end(position_) > 0) {
        PENSTOCK_TRY(read_raw());
      } else {
        PENSTOCK_TRY(read_tag(sort == '%'));
      }
    }
    add(Token::Kind::kEnd, "");
    return std::move(tokens_);
  }

 private:
  Error error(const std::string& sentence) const {
    return {ErrorCode::kCorrupt, fmt::format("line {}: {}", line_, sentence)};
  }

  char at(size_t position) const { return position < source_.size() ? source_[position] : '\0'; }
  bool here(std::string_view text) const {
    return std::string_view(source_).substr(position_, text.size()) == text;
  }

  void advance(size_t position) {
    line_ +=
        static_cast<int>(std::count(source_.begin() + position_, source_.begin() + position, '\n'));
    position_ = position;
  }

  Token& add(Token::Kind kind, std::string text) {
    Token& token = tokens_.emplace_back();
    token.kind = kind;
    token.line = line_;
    token.text = std::move(text);
    return token;
  }

  size_t find_tag() const {
    for (size_t i = position_; i + 1 < source_.size(); ++i) {
      const char next = source_[i + 1];
      if (source_[i] == '{' && (next == '{' || next == '%' || next == '#')) return i;
    }
    return source_.size();
  }

  // Adds the text before the tag that begins at `tag`, less the white space that the tag takes, and
  // goes past the tag's two characters and its sign.
  Result<void> read_text(size_t tag) {
    std::string_view text = std::string_view(source_).substr(position_, tag - position_);
    const char sign = at(tag + 2);
    if (tag < source_.size() && sign == '-') {
      text = strip(text, Side::kRight);
    } else if (tag < source_.size() && sign != '+' && source_[tag + 1] != '{') {
      const bool begins_line = position_ == 0 || source_[position_ - 1] == '\n';
      const size_t line_begin = text.rfind('\n') + 1;  // npos + 1 is 0
      const bool is_blank = strip(text.substr(line_begin), Side::kBoth).empty();
      if (is_blank && (line_begin > 0 || begins_line)) text = text.substr(0, line_begin);
    }
    if (!text.empty()) add(Token::Kind::kText, std::string(text));
    if (tag == source_.size()) return {};
    advance(tag + 2);
    // In a comment that is only a sign ({#-#}) it may be that of the end.
    if (sign == '-' || sign == '+') advance(position_ + 1);
    return {};
  }

  void skip_space() { advance(skip_blanks(position_)); }

  // Past the end of a block or comment: its sign, two characters, and the white space it takes.
  void skip_end(char sign) {
    advance(position_ + (sign == '\0' ? 2 : 3));
    if (sign == '-') {
      skip_space();
    } else if (sign == '\0' && at(position_) == '\n') {
      advance(position_ + 1);
    }
  }

  Result<void> skip_comment() {
    const size_t end = source_.find("#}", position_);
    if (end == std::string::npos) return error("the comment has no end (#})");
    const char before = end > position_ ? source_[end - 1] : '\0';
    const char sign = before == '-' || before == '+' ? before : '\0';
    advance(sign == '\0' ? end : end - 1);
    skip_end(sign);
    return {};
  }

  size_t skip_blanks(size_t position) const {
    const std::string_view rest = std::string_view(source_).substr(position);
    return source_.size() - strip(rest, Side::kLeft).size();
  }

  // Where {% raw %} ends, its %} included, if `position` is behind its {% and sign; else 0.
  size_t raw_tag_end(size_t position) const {
    size_t end = skip_blanks(position);
    if (source_.compare(end, 3, "raw") != 0) return 0;
    end = skip_blanks(end + 3);
    if (source_.compare(end, 3, "-%}") == 0) return skip_blanks(end + 3);
    return source_.compare(end, 2, "%}") == 0 ? end + 2 : 0;
  }

  // The text up to {% endraw %}, whatever it holds.
  Result<void> read_raw() {
    const int line = line_;
    advance(raw_tag_end(position_));
    for (size_t tag = source_.find("{%", position_); tag != std::string::npos;
         tag = source_.find("{%", tag + 2)) {
      const size_t sign = at(tag + 2) == '-' || at(tag + 2) == '+' ? 1 : 0;
      const size_t word = skip_blanks(tag + 2 + sign);
      if (source_.compare(word, 6, "endraw") != 0) continue;
      const size_t end = skip_blanks(word + 6);
      const char end_sign = at(end) == '-' || at(end) == '+' ? at(end) : '\0';
      if (source_.compare(end + (end_sign == '\0' ? 0 : 1), 2, "%}") != 0) continue;
      PENSTOCK_TRY(read_text(tag));
      advance(end);
      skip_end(end_sign);
      return {};
    }
    line_ = line;
    return error("the raw block has no end ({% endraw %})");
  }

  Result<void> read_tag(bool is_block) {
    add(is_block ? Token::Kind::kBlockBegin : Token::Kind::kOutputBegin, "");
    for (;;) {
      skip_space();
      if (position_ >= source_.size()) return error("the tag has no end (%} or }})");
      if (tokens_.size() >= kTokensMax) {
        return Error{
            ErrorCode::kUnsupported,
            fmt::format("line {}: the template has more than {} words", line_, kTokensMax)};
      }
      // Inside brackets }} may be two ends of dicts.
      if (brackets_.empty() && read_end(is_block)) return {};
      PENSTOCK_TRY(read_word());
    }
  }

  bool read_end(bool is_block) {
    const std::string_view end = is_block ? "%}" : "}}";
    const auto end_follows = [&](size_t position) {
      return std::string_view(source_).substr(position, 2) == end;
    };
    const char sign = at(position_);
    const bool has_sign = (sign == '-' || (sign == '+' && is_block)) && end_follows(position_ + 1);
    if (!has_sign && !end_follows(position_)) return false;
    add(is_block ? Token::Kind::kBlockEnd : Token::Kind::kOutputEnd, "");
    if (is_block || has_sign) {
      skip_end(has_sign ? sign : '\0');
    } else {
      advance(position_ + 2);
    }
    return true;
  }

  Result<void> read_word() {
    const char c = at(position_);
    if (is_ascii_digit(c)) return read_number();
    if (c == '"' || c == '\'') return read_string(c);
    if (begins_name(c)) {
      size_t end = position_;
      while (begins_name(at(end)) || is_ascii_digit(at(end))) ++end;
      add(Token::Kind::kName, source_.substr(position_, end - position_));
      advance(end);
      return {};
    }
    return read_operator();
  }

  // 16, 8 or 2 for 0x1f, 0o17 and 0b101; else 10.
  int base_here() const {
    if (at(position_) != '0') return 10;
    const char mark = at(position_ + 1) | 0x20;
    const int base = mark == 'x' ? 16 : mark == 'o' ? 8 : mark == 'b' ? 2 : 10;
    const size_t first = position_ + (at(position_ + 2) == '_' ? 3 : 2);
    return base != 10 && is_digit_of(at(first), base) ? base : 10;
  }

  static bool is_digit_of(char c, int base) {
    const char letter = static_cast<char>(c | 0x20);
    if (base == 16 && letter >= 'a' && letter <= 'f') return true;
    return c >= '0' && c < '0' + std::min(base, 10);
  }

  Result<void> read_integer(int base) {
    std::string digits;
    size_t end = position_ + 2;
    for (;; ++end) {
      if (is_digit_of(at(end), base)) {
        digits += at(end);
      } else if (at(end) != '_' || !is_digit_of(at(end + 1), base)) {
        break;
      }
    }
    Token& token = add(Token::Kind::kInteger, "");
    const auto result =
        std::from_chars(digits.data(), digits.data() + digits.size(), token.integer, base);
    if (result.ec != std::errc()) return error(fmt::format("the number {} is too large", digits));
    advance(end);
    return {};
  }

  Result<void> read_number() {
    // After a dot a number is an index: a.0.1 is not 0.1.
    const bool is_index = !tokens_.empty() && tokens_.back().text == "." &&
                          tokens_.back().kind == Token::Kind::kOperator;
    if (const int base = base_here(); base != 10) return read_integer(base);
    size_t end = position_;
    const auto skip_digits = [&] {
      while (is_ascii_digit(at(end)) || (at(end) == '_' && is_ascii_digit(at(end + 1)))) ++end;
    };
    skip_digits();
    bool is_float = false;
    if (!is_index && at(end) == '.' && is_ascii_digit(at(end + 1))) {
      is_float = true;
      ++end;
      skip_digits();
    }
    if (!is_index && (at(end) == 'e' || at(end) == 'E')) {
      const size_t digits = at(end + 1) == '+' || at(end + 1) == '-' ? end + 2 : end + 1;
      if (is_ascii_digit(at(digits))) {
        is_float = true;
        end = digits;
        skip_digits();
      }
    }
    std::string digits = source_.substr(position_, end - position_);
    digits.erase(std::remove(digits.begin(), digits.end(), '_'), digits.end());
    if (!is_float && digits[0] == '0' && digits.find_first_not_of('0') != std::string::npos) {
      return error(fmt::format("the number {} begins with a zero", digits));
    }
    Token& token = add(is_float ? Token::Kind::kFloat : Token::Kind::kInteger, "");
    const char* last = digits.data() + digits.size();
    const auto result = is_float ? std::from_chars(digits.data(), last, token.real)
                                 : std::from_chars(digits.data(), last, token.integer);
    if (result.ec != std::errc()) return error(fmt::format("the number {} is too large", digits));
    advance(end);
    return {};
  }

  Result<void> read_string(char quote) {
    size_t end = position_ + 1;
    while (end < source_.size() && source_[end] != quote) end += source_[end] == '\\' ? 2 : 1;
    if (end >= source_.size()) return error("the text has no closing quote");
    const std::string_view raw =
        std::string_view(source_).substr(position_ + 1, end - position_ - 1);
    add(Token::Kind::kString, PENSTOCK_TRY(unescape(raw)));
    advance(end + 1);
    return {};
  }

  // Python's escapes. An unknown one keeps its backslash.
  Result<std::string> unescape(std::string_view raw) const {
    std::string out;
    for (size_t i = 0; i < raw.size(); ++i) {
      if (raw[i] != '\\') {
        out += raw[i];
        continue;
      }
      const char c = raw[++i];
      constexpr std::string_view kNames = "abfnrtv\\'\"";
      constexpr std::string_view kMeanings = "\a\b\f\n\r\t\v\\'\"";
      const size_t known = kNames.find(c);
      const size_t hex_digits = c == 'x' ? 2 : c == 'u' ? 4 : c == 'U' ? 8 : 0;
      if (known != std::string_view::npos) {
        out += kMeanings[known];
      } else if (c == '\n') {
        // A line end behind a backslash is no part of the text.
      } else if (hex_digits > 0) {
        append_utf8(PENSTOCK_TRY(hex_code_point(raw.substr(i + 1, hex_digits), hex_digits)), out);
        i += hex_digits;
      } else if (c >= '0' && c <= '7') {
        char32_t value = 0;
        size_t digits = 0;
        for (; digits < 3 && i + digits < raw.size(); ++digits) {
          const char digit = raw[i + digits];
          if (digit < '0' || digit > '7') break;
          value = value * 8 + static_cast<char32_t>(digit - '0');
        }
        append_utf8(value, out);
        i += digits - 1;
      } else {
        out += '\\';
        out += c;
      }
    }
    return out;
  }

  Result<char32_t> hex_code_point(std::string_view digits, size_t wanted) const {
    uint32_t value = 0;
    const auto [end, failure] =
        std::from_chars(digits.data(), digits.data() + digits.size(), value, 16);
    const bool is_whole =
        digits.size() == wanted && failure == std::errc() && end == digits.data() + digits.size();
    if (!is_whole || value > 0x10FFFF || (value >= 0xD800 && value < 0xE000)) {
      return error("a \\x, \\u or \\U in a text does not name a character");
    }
    return static_cast<char32_t>(value);
  }

  Result<void> read_operator() {
    constexpr std::string_view kPairs[] = {"//", "**", "==", "!=", "<=", ">="};
    constexpr std::string_view kSingles = "+-*/%~()[]{}<>=.:|,";
    for (const std::string_view pair : kPairs) {
      if (!here(pair)) continue;
      add(Token::Kind::kOperator, std::string(pair));
      advance(position_ + 2);
      return {};
    }
    const char c = at(position_);
    if (kSingles.find(c) == std::string_view::npos) {
      const std::string_view rest = std::string_view(source_).substr(position_);
      return error(fmt::format("unexpected character '{}'",
                               rest.substr(0, decode_valid_utf8(rest, 0).bytes)));
    }
    PENSTOCK_TRY(track_brackets(c));
    add(Token::Kind::kOperator, std::string(1, c));
    advance(position_ + 1);
    return {};
  }

  Result<void> track_brackets(char c) {
    if (c == '(') brackets_ += ')';
    if (c == '[') brackets_ += ']';
    if (c == '{') brackets_ += '}';
    if (c != ')' && c != ']' && c != '}') return {};
    if (brackets_.empty() || brackets_.back() != c) {
      return error(fmt::format("'{}' closes nothing that was opened", c));
    }
    brackets_.pop_back();
    return {};
  }

  const std::string source_;
  size_t position_ = 0;
  int line_ = 1;
  std::string brackets_;  // the ends that are due
  std::vector<Token> tokens_;
};

}  // namespace

Result<std::vector<Token>> tokenize(std::string_view source) {
  if (!is_valid_utf8(source)) {
    return Error{ErrorCode::kCorrupt, "line 1: the template is not valid UTF-8"};
  }
  return Lexer(normalise_lines(source)).run();
}

}  // namespace penstock::jinja
