#include "text/added_tokens.h"

#include <utf8proc.h>

#include <algorithm>

#include "text/unicode_tables.h"
#include "text/utf8.h"

namespace penstock {
namespace {

// \w of the reference's regular expressions: Alphabetic, marks, decimal digits, connectors such as
// the underscore, and the two joiners.
bool is_word(char32_t c) {
  const CharClass c_class = UnicodeTables::get().char_class(c);
  if (c_class == CharClass::kLetter || c_class == CharClass::kMark) return true;
  if (c == 0x200C || c == 0x200D) return true;
  // Circled and squared letters are symbols, but alphabetic.
  if ((c >= 0x24B6 && c <= 0x24E9) || (c >= 0x1F130 && c <= 0x1F149) ||
      (c >= 0x1F150 && c <= 0x1F169) || (c >= 0x1F170 && c <= 0x1F189)) {
    return true;
  }
  const auto category = utf8proc_category(static_cast<utf8proc_int32_t>(c));
  return category == UTF8PROC_CATEGORY_ND || category == UTF8PROC_CATEGORY_NL ||
         category == UTF8PROC_CATEGORY_PC;
}

bool is_space(char32_t c) {
  return UnicodeTables::get().char_class(c) == CharClass::kSpace;
}

// Where the character before `end` begins.
size_t character_before(std::string_view text, size_t end) {
  size_t begin = end - 1;
  while (begin > 0 && (static_cast<uint8_t>(text[begin]) & 0xC0) == 0x80) --begin;
  return begin;
}

bool is_single_word(std::string_view text, size_t begin, size_t end) {
  if (begin > 0 && is_word(decode_valid_utf8(text, character_before(text, begin)).code_point)) {
    return false;
  }
  return end == text.size() || !is_word(decode_valid_utf8(text, end).code_point);
}

// Where the white space before `end` begins, but not before `from`.
size_t space_begin(std::string_view text, size_t from, size_t end) {
  while (end > from) {
    const size_t before = character_before(text, end);
    if (!is_space(decode_valid_utf8(text, before).code_point)) break;
    end = before;
  }
  return std::max(end, from);
}

size_t space_end(std::string_view text, size_t begin) {
  while (begin < text.size()) {
    const Utf8Char next = decode_valid_utf8(text, begin);
    if (!is_space(next.code_point)) break;
    begin += next.bytes;
  }
  return begin;
}

}  // namespace

AddedTokens::AddedTokens(std::vector<AddedToken> tokens) : tokens_(std::move(tokens)) {
  std::stable_sort(tokens_.begin(), tokens_.end(),
                   [](const AddedToken& a, const AddedToken& b) { return a.text < b.text; });
  const auto same_text = [](const AddedToken& a, const AddedToken& b) { return a.text == b.text; };
  tokens_.erase(std::unique(tokens_.begin(), tokens_.end(), same_text), tokens_.end());
  for (const AddedToken& token : tokens_) begins_[static_cast<uint8_t>(token.text[0])] = true;
}

const AddedToken* AddedTokens::longest_prefix_of(std::string_view text) const {
  const AddedToken* longest = nullptr;
  auto low = tokens_.begin();
  auto high = tokens_.end();
  for (size_t depth = 0; low != high; ++depth) {
    // All in [low, high) begin with text[0, depth); the shortest comes first.
    if (low->text.size() == depth) longest = &*low++;
    if (depth == text.size()) break;
    const auto byte_at = [depth](const AddedToken& t) {
      return static_cast<uint8_t>(t.text[depth]);
    };
    const auto wanted = static_cast<uint8_t>(text[depth]);
    low = std::partition_point(low, high, [&](const auto& t) { return byte_at(t) < wanted; });
    high = std::partition_point(low, high, [&](const auto& t) { return byte_at(t) == wanted; });
  }
  return longest;
}

std::optional<AddedTokens::Match> AddedTokens::find_in(std::string_view text, size_t from) const {
  for (size_t begin = from; begin < text.size(); ++begin) {
    if (!begins_[static_cast<uint8_t>(text[begin])]) continue;
    const AddedToken* token = longest_prefix_of(text.substr(begin));
    if (token != nullptr) return Match{begin, token};
  }
  return std::nullopt;
}

std::vector<AddedTokens::Part> AddedTokens::cut(std::string_view text) const {
  std::vector<Part> parts;
  size_t done = 0;     // the text before it is in parts
  size_t run_end = 0;  // of the white space that was looked at last
  size_t search = 0;
  for (auto match = find_in(text, search); match; match = find_in(text, search)) {
    const AddedToken& token = *match->token;
    size_t begin = match->begin;
    size_t end = begin + token.text.size();
    search = end;
    if (token.single_word && !is_single_word(text, begin, end)) continue;
    if (token.takes_left) begin = std::max(space_begin(text, std::min(done, begin), begin), done);
    if (token.takes_right) {
      // Tokens that are white space themselves would look at the same run again and again.
      if (end > run_end) run_end = space_end(text, end);
      end = std::max(run_end, end);
    }
    // All that it would take may be taken already.
    if (begin >= end) continue;
    if (done < begin) parts.push_back({done, begin, std::nullopt});
    parts.push_back({begin, end, token.id});
    done = end;
  }
  if (done < text.size()) parts.push_back({done, text.size(), std::nullopt});
  return parts;
}

const AddedToken* AddedTokens::find(std::string_view text) const {
  const auto found = std::lower_bound(
      tokens_.begin(), tokens_.end(), text,
      [](const AddedToken& token, std::string_view wanted) { return token.text < wanted; });
  return found != tokens_.end() && found->text == text ? &*found : nullptr;
}

int64_t AddedTokens::memory_bytes() const {
  size_t bytes = tokens_.capacity() * sizeof(AddedToken);
  for (const AddedToken& token : tokens_) bytes += token.text.capacity();
  return static_cast<int64_t>(bytes);
}

}  // namespace penstock
