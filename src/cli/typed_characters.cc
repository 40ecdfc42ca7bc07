#include "cli/typed_characters.h"

#include <algorithm>
#include <string>

#include "text/utf8.h"

namespace penstock {
namespace {

// What terminals send around pasted text when they are asked to.
constexpr std::string_view kPasteBegin = "\x1b[200~";
constexpr std::string_view kPasteEnd = "\x1b[201~";

constexpr std::string_view kKeyBegin = "\x1b[";

// What a key's sequence (behind ESC [) means here, as one that the editor has bound; empty for keys
// that mean nothing. A modifier of 2 is Shift, 3 Alt, 5 Ctrl.
std::string meaning_of(std::string_view key) {
  if (key.empty()) return {};
  const char last = key.back();
  const std::string_view parameters = key.substr(0, key.size() - 1);
  if (parameters.find_first_not_of("0123456789;") != std::string_view::npos) return {};
  const size_t semicolon = std::min(parameters.find(';'), parameters.size());
  const std::string_view first = parameters.substr(0, semicolon);
  const std::string_view modifier = parameters.substr(std::min(semicolon + 1, parameters.size()));
  const bool jumps = !modifier.empty() && modifier != "1" && modifier != "2";
  const auto plain = [&](char letter) { return std::string(kKeyBegin) + letter; };
  switch (last) {
    case 'A':
    case 'B':
    case 'H':
    case 'F': return plain(last);
    case 'C':
    case 'D':
      if (jumps || first == "5") return std::string(kKeyBegin) + "1;5" + last;
      return plain(last);
    case 'a':
    case 'b':
    case 'c':
    case 'd': return plain(static_cast<char>(last - 'a' + 'A'));
    case '~':
      if (first.size() != 1 || first < "1" || first > "8") return {};
      return std::string(kKeyBegin) + std::string(first) + (first == "3" && jumps ? ";5~" : "~");
    default: return {};
  }
}

}  // namespace

Arrived TypedCharacters::next(wchar_t& character) {
  for (;;) {
    if (!waiting_.empty()) {
      character = waiting_.front();
      waiting_.pop_front();
      return Arrived::kByte;
    }
    const Arrived arrived = bytes_.wait();
    if (arrived != Arrived::kByte) return arrived;
    if (bytes_.take(is_pasting_ ? kPasteEnd : kPasteBegin)) {
      is_pasting_ = !is_pasting_;
      last_ = 0;
      continue;
    }
    if (!is_pasting_ && bytes_.take(kKeyBegin)) {
      read_key();
      continue;
    }
    const Arrived whole = read_character(character);
    if (whole != Arrived::kByte) return whole;
    // One end of line, where a terminal that marks no paste hands over text with both.
    const bool is_rest_of_end = character == L'\n' && last_ == L'\r';
    last_ = character;
    if (is_rest_of_end) continue;
    if (!is_pasting_) return Arrived::kByte;
    paste(character);
  }
}

void TypedCharacters::end_line() {
  is_pasting_ = false;
  waiting_.clear();
}

// The rest of a key's sequence, whatever it is: none of it is text.
void TypedCharacters::read_key() {
  constexpr size_t kLongest = 32;
  std::string key;
  while (key.size() < kLongest) {
    const std::optional<char> byte = bytes_.next_at_once();
    if (!byte) return;
    key += *byte;
    const bool is_console_key = key == "[";  // F1 of the Linux console is ESC [ [ A
    if (*byte >= 0x40 && *byte <= 0x7e && !is_console_key) break;
  }
  for (const char c : meaning_of(key)) waiting_.push_back(static_cast<wchar_t>(c));
}

Arrived TypedCharacters::read_character(wchar_t& character) {
  std::string bytes;
  for (;;) {
    char byte = 0;
    const Arrived arrived = bytes_.next(byte);
    if (arrived != Arrived::kByte) return arrived;
    bytes += byte;
    const Utf8Char decoded = decode_utf8(bytes, 0);
    if (decoded.status == Utf8Status::kTruncated) continue;
    if (decoded.bytes < bytes.size()) bytes_.put_back();  // what ended a broken one is its own
    character = static_cast<wchar_t>(decoded.code_point);
    return Arrived::kByte;
  }
}

void TypedCharacters::paste(wchar_t character) {
  constexpr wchar_t kQuote = 0x16;  // Ctrl-V: the next one is inserted as it is
  if (character == L'\r' || character == L'\n') {
    waiting_.push_back(kPastedNewline);
  } else if (character == L'\t') {
    waiting_.push_back(kQuote);
    waiting_.push_back(character);
  } else if (character >= 0x20 && character != 0x7f) {
    waiting_.push_back(character);
  }
}

}  // namespace penstock
