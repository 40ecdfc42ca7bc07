#include "cli/typed_characters.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

namespace penstock {
namespace {

// Pieces that come one after the other, the rest of one at once.
class Pieces final : public TypedBytes {
 public:
  explicit Pieces(std::vector<std::string> pieces) : pieces_(std::move(pieces)) {}

 private:
  Arrived fill(std::span<char> room, Patience patience, size_t& got) override {
    got = 0;
    if (pieces_.empty()) return patience == Patience::kAMoment ? Arrived::kByte : Arrived::kEnd;
    std::string& piece = pieces_.front();
    got = std::min(room.size(), piece.size());
    std::copy_n(piece.data(), got, room.data());
    piece.erase(0, got);
    if (piece.empty()) pieces_.erase(pieces_.begin());
    return Arrived::kByte;
  }

  std::vector<std::string> pieces_;
};

std::wstring typed(std::vector<std::string> pieces) {
  Pieces bytes(std::move(pieces));
  TypedCharacters characters(bytes);
  std::wstring all;
  for (wchar_t c = 0; characters.next(c) == Arrived::kByte;) all += c;
  return all;
}

std::wstring with_marks(std::wstring text) {
  std::replace(text.begin(), text.end(), L'|', kPastedNewline);
  return text;
}

TEST(TypedCharacters, pasted_ends_of_lines_are_one_each_however_they_are_written) {
  for (const std::string end : {"\r", "\n", "\r\n"}) {
    const std::string text = "\x1b[200~a" + end + end + "b" + end + "\x1b[201~\r";
    EXPECT_EQ(typed({text}), with_marks(L"a||b|\r"));
    std::vector<std::string> bytes;
    for (const char c : text) bytes.emplace_back(1, c);
    EXPECT_EQ(typed(bytes), with_marks(L"a||b|\r"));
  }
}

TEST(TypedCharacters, an_end_of_line_of_two_characters_is_one) {
  EXPECT_EQ(typed({"a\r\nb\n\nc\r\r\n"}), L"a\rb\n\nc\r\r");
  EXPECT_EQ(typed({"a\r", "\nb"}), L"a\rb");
}

TEST(TypedCharacters, keys_have_one_spelling_each) {
  EXPECT_EQ(typed({"\x1b[H\x1b[1~\x1b[7~"}), L"\x1b[H\x1b[1~\x1b[7~");
  EXPECT_EQ(typed({"\x1b[1;5C\x1b[5C\x1b[1;3C\x1b[1;2C\x1b[C"}),
            L"\x1b[1;5C\x1b[1;5C\x1b[1;5C\x1b[C\x1b[C");
  EXPECT_EQ(typed({"\x1b[3;5~\x1b[3~"}), L"\x1b[3;5~\x1b[3~");
}

TEST(TypedCharacters, keys_that_mean_nothing_leave_nothing) {
  for (const char* key :
       {"\x1b[15~", "\x1b[I", "\x1b[<0;1;2M", "\x1b[[A", "\x1b[24;2~", "\x1b[~", "\x1b["}) {
    EXPECT_EQ(typed({key}), L"") << key;
  }
}

TEST(TypedCharacters, a_broken_character_swallows_nothing) {
  EXPECT_EQ(typed({"\xe2\r"}), L"\xfffd\r");
  EXPECT_EQ(typed({"\xe2\x82z"}), L"\xfffdz");
  EXPECT_EQ(typed({"\xe2", "\x82", "\xac"}), L"\x20ac");
}

TEST(TypedCharacters, a_paste_that_was_given_up_is_forgotten) {
  Pieces bytes({"\x1b[200~a", "\r"});
  TypedCharacters characters(bytes);
  wchar_t c = 0;
  ASSERT_EQ(characters.next(c), Arrived::kByte);
  ASSERT_TRUE(characters.is_pasting());
  characters.end_line();
  ASSERT_EQ(characters.next(c), Arrived::kByte);
  EXPECT_EQ(c, L'\r');
}

}  // namespace
}  // namespace penstock
