#include "text/pretokenizer.h"

#include "text/unicode_tables.h"
#include "text/utf8.h"

namespace penstock {
namespace {

constexpr std::string_view kLettersRegex =
    R"re((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|)re"
    R"re(\s*[\r\n]+|\s+(?!\S)|\s+)re";
constexpr std::string_view kLettersAndMarksRegex =
    R"re((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}|)re"
    R"re( ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)re";

// What the alternatives ask of a character.
enum class Kind : uint8_t { kEnd, kLetter, kNumber, kSpace, kOther };

class Scanner {
 public:
  Scanner(std::string_view text, SplitPattern pattern) : text_(text), pattern_(pattern) {}

  struct Char {
    Kind kind;
    size_t end;  // where the next character begins
  };

  Char at(size_t position) const {
    if (position >= text_.size()) return {Kind::kEnd, position};
    const auto first = static_cast<uint8_t>(text_[position]);
    if (first < 0x80) return {ascii_kind(first), position + 1};
    const Utf8Char next = decode_valid_utf8(text_, position);
    return {kind_of(tables_.char_class(next.code_point)), position + next.bytes};
  }

  bool is_newline(size_t position) const {
    return position < text_.size() && (text_[position] == '\n' || text_[position] == '\r');
  }

  // Past all characters of this kind.
  size_t skip(size_t position, Kind kind) const {
    for (Char next = at(position); next.kind == kind; next = at(position)) position = next.end;
    return position;
  }

  // The end of alternative 1, or `begin` if it does not fit.
  size_t contraction_end(size_t begin) const {
    if (text_[begin] != '\'') return begin;
    const char first = lower(begin + 1);
    if (first == 's' || first == 't' || first == 'm' || first == 'd') return begin + 2;
    const char second = lower(begin + 2);
    const bool fits = ((first == 'r' || first == 'v') && second == 'e') ||  // 're 've
                      (first == 'l' && second == 'l');
    if (fits) return begin + 3;
    constexpr std::string_view kLongS = "\xC5\xBF";  // U+017F folds to s
    return text_.substr(begin + 1, 2) == kLongS ? begin + 3 : begin;
  }

  // The end of alternatives 5 to 7. The character at `begin` is white space.
  size_t space_end(size_t begin) const {
    size_t position = begin;
    size_t last = begin;  // where the run's last character begins
    size_t after_newline = 0;
    while (at(position).kind == Kind::kSpace) {
      last = position;
      const bool newline = is_newline(position);
      position = at(position).end;
      if (newline) after_newline = position;
    }
    if (after_newline != 0) return after_newline;
    if (position == text_.size() || last == begin) return position;
    return last;
  }

 private:
  Kind kind_of(CharClass char_class) const {
    switch (char_class) {
      case CharClass::kLetter: return Kind::kLetter;
      case CharClass::kMark:
        return pattern_ == SplitPattern::kLettersAndMarks ? Kind::kLetter : Kind::kOther;
      case CharClass::kNumber: return Kind::kNumber;
      case CharClass::kSpace: return Kind::kSpace;
      case CharClass::kOther: break;
    }
    return Kind::kOther;
  }

  static Kind ascii_kind(uint8_t c) {
    if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z')) return Kind::kLetter;
    if (c >= '0' && c <= '9') return Kind::kNumber;
    if (c == ' ' || (c >= '\t' && c <= '\r')) return Kind::kSpace;
    return Kind::kOther;
  }

  char lower(size_t position) const {
    const char c = position < text_.size() ? text_[position] : '\0';
    return c >= 'A' && c <= 'Z' ? static_cast<char>(c + ('a' - 'A')) : c;
  }

  std::string_view text_;
  SplitPattern pattern_;
  const UnicodeTables& tables_ = UnicodeTables::get();
};

}  // namespace

std::optional<SplitPattern> find_split_pattern(std::string_view regex) {
  if (regex == kLettersRegex) return SplitPattern::kLetters;
  if (regex == kLettersAndMarksRegex) return SplitPattern::kLettersAndMarks;
  return std::nullopt;
}

std::string_view regex_of(SplitPattern pattern) {
  return pattern == SplitPattern::kLetters ? kLettersRegex : kLettersAndMarksRegex;
}

size_t piece_end(std::string_view text, size_t begin, SplitPattern pattern) {
  const Scanner scan(text, pattern);
  const size_t contraction = scan.contraction_end(begin);
  if (contraction != begin) return contraction;

  const Scanner::Char first = scan.at(begin);
  const Scanner::Char second = scan.at(first.end);
  const bool may_lead = first.kind != Kind::kNumber && !scan.is_newline(begin);
  if (first.kind == Kind::kLetter || (may_lead && second.kind == Kind::kLetter)) {
    return scan.skip(first.end, Kind::kLetter);
  }
  if (first.kind == Kind::kNumber) return first.end;

  const bool after_space = text[begin] == ' ' && second.kind == Kind::kOther;
  if (first.kind == Kind::kOther || after_space) {
    size_t end = scan.skip(first.end, Kind::kOther);
    while (scan.is_newline(end)) ++end;
    return end;
  }
  return scan.space_end(begin);
}

}  // namespace penstock
