#include "text/utf8.h"

#include <gtest/gtest.h>

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "text/test_data.h"
#include "text/utf8_stream.h"

namespace penstock {
namespace {

using namespace std::string_view_literals;

// Bytes and what bytes.decode("utf-8", "replace") of Python makes of them.
const std::vector<std::pair<std::string_view, std::string_view>> kDecoded = {
    {"plain"sv, "plain"sv},
    {"\xC3\xA9\xE4\xB8\x96\xF0\x9F\x91\x8D"sv, "é世👍"sv},
    {"a\xFFz"sv, "a\uFFFDz"sv},
    {"\x80\x80"sv, "\uFFFD\uFFFD"sv},
    {"\xC3("sv, "\uFFFD("sv},
    {"\xE4\xB8"sv, "\uFFFD"sv},
    {"\xE4\xB8x"sv, "\uFFFDx"sv},
    {"\xF0\x9F\x91"sv, "\uFFFD"sv},
    {"\xF0\x9F\x91\xC3\xA9"sv, "\uFFFDé"sv},
    {"\xC0\x80"sv, "\uFFFD\uFFFD"sv},                      // overlong
    {"\xE0\x80\x80"sv, "\uFFFD\uFFFD\uFFFD"sv},            // overlong
    {"\xF0\x80\x80z"sv, "\uFFFD\uFFFD\uFFFDz"sv},          // overlong
    {"\xED\xA0\x80"sv, "\uFFFD\uFFFD\uFFFD"sv},            // a surrogate
    {"\xF4\x90\x80\x80"sv, "\uFFFD\uFFFD\uFFFD\uFFFD"sv},  // above U+10FFFF
    {"\xF5\x80"sv, "\uFFFD\uFFFD"sv},
    {"\xE1\x80\xE2\xF0\x91\x92\xF1\xBF\x41"sv, "\uFFFD\uFFFD\uFFFD\uFFFDA"sv},
    {"\0\x7F"sv, "\0\x7F"sv},
};

TEST(Utf8, replaces_invalid_bytes_as_python_does) {
  for (const auto& [bytes, text] : kDecoded) {
    EXPECT_EQ(replace_invalid_utf8(bytes), text);
    EXPECT_EQ(is_valid_utf8(bytes), bytes == text);
  }
}

TEST(Utf8, encodes_and_decodes_every_code_point) {
  for (char32_t c = 0; c < 0x110000; ++c) {
    if (c >= 0xD800 && c < 0xE000) continue;
    std::string bytes;
    append_utf8(c, bytes);
    const Utf8Char decoded = decode_utf8(bytes, 0);
    ASSERT_EQ(decoded.status, Utf8Status::kWhole);
    ASSERT_EQ(decoded.code_point, c);
    ASSERT_EQ(decoded.bytes, bytes.size());
    ASSERT_EQ(decode_valid_utf8(bytes, 0).code_point, c);
  }
}

TEST(Utf8Stream, releases_only_whole_characters) {
  Utf8Stream stream;
  EXPECT_EQ(stream.push("a\xE4"), "a");
  EXPECT_EQ(stream.push("\xB8"), "");
  EXPECT_EQ(stream.push("\x96z"), "世z");
  EXPECT_EQ(stream.finish(), "");
}

TEST(Utf8Stream, replaces_an_unfinished_character_at_the_end) {
  Utf8Stream stream;
  EXPECT_EQ(stream.push("x\xF0\x9F\x91"), "x");
  EXPECT_EQ(stream.finish(), "\uFFFD");
  EXPECT_EQ(stream.push("again"), "again");
}

TEST(Utf8Stream, gives_the_same_text_wherever_the_bytes_are_split) {
  SplitMix64 random(7);
  std::vector<std::string> texts;
  for (const auto& [bytes, text] : kDecoded) texts.emplace_back(bytes);
  for (int i = 0; i < 300; ++i) {
    std::string bytes;
    constexpr std::string_view kNasty =
        "az\x80\xBF\xC3\xA9\xE4\xB8\x96\xF0\x9F\x91\xED\xA0\xF4\x90\xFF\xE0";
    const size_t length = random.below(24);
    for (size_t k = 0; k < length; ++k) bytes += kNasty[random.below(kNasty.size())];
    texts.push_back(bytes);
  }
  for (const std::string& bytes : texts) {
    const std::string whole = replace_invalid_utf8(bytes);
    for (size_t cut = 0; cut <= bytes.size(); ++cut) {
      Utf8Stream stream;
      std::string text = stream.push(std::string_view(bytes).substr(0, cut));
      EXPECT_TRUE(is_valid_utf8(text));
      text += stream.push(std::string_view(bytes).substr(cut));
      text += stream.finish();
      ASSERT_EQ(text, whole);
    }
    Utf8Stream stream;
    std::string text;
    for (const char byte : bytes) text += stream.push({&byte, 1});
    ASSERT_EQ(text + stream.finish(), whole);
  }
}

}  // namespace
}  // namespace penstock
