#include "text/pretokenizer.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "text/test_data.h"
#include "text/unicode_tables.h"
#include "text/utf8.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

namespace penstock {
namespace {

using Pieces = std::vector<std::string>;

Pieces cut(std::string_view text, SplitPattern pattern) {
  Pieces pieces;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = piece_end(text, begin, pattern);
    pieces.emplace_back(text.substr(begin, end - begin));
    begin = end;
  }
  return pieces;
}

// A regex engine that knows nothing of our matcher.
class Pcre {
 public:
  explicit Pcre(const char* regex) {
    int error = 0;
    PCRE2_SIZE offset = 0;
    code_ = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(regex), PCRE2_ZERO_TERMINATED,
                          PCRE2_UTF | PCRE2_UCP, &error, &offset, nullptr);
    EXPECT_NE(code_, nullptr) << error << " at " << offset;
    match_ = pcre2_match_data_create_from_pattern(code_, nullptr);
  }
  ~Pcre() {
    pcre2_match_data_free(match_);
    pcre2_code_free(code_);
  }
  Pcre(const Pcre&) = delete;
  Pcre& operator=(const Pcre&) = delete;

  bool matches(const std::string& text) const {
    const auto* subject = reinterpret_cast<PCRE2_SPTR>(text.data());
    return pcre2_match(code_, subject, text.size(), 0, 0, match_, nullptr) > 0;
  }

  Pieces cut(const std::string& text) const {
    Pieces pieces;
    const auto* subject = reinterpret_cast<PCRE2_SPTR>(text.data());
    for (size_t begin = 0; begin < text.size();) {
      const int found = pcre2_match(code_, subject, text.size(), begin, 0, match_, nullptr);
      EXPECT_GT(found, 0);
      const PCRE2_SIZE* bounds = pcre2_get_ovector_pointer(match_);
      EXPECT_EQ(bounds[0], begin);
      if (found <= 0 || bounds[1] <= begin) break;
      pieces.push_back(text.substr(begin, bounds[1] - begin));
      begin = bounds[1];
    }
    return pieces;
  }

 private:
  pcre2_code* code_ = nullptr;
  pcre2_match_data* match_ = nullptr;
};

TEST(Pretokenizer, knows_the_two_patterns_and_no_other) {
  EXPECT_EQ(find_split_pattern(kQwen2Regex), SplitPattern::kLetters);
  EXPECT_EQ(find_split_pattern(kQwen35Regex), SplitPattern::kLettersAndMarks);
  EXPECT_EQ(find_split_pattern(R"(\p{N}{1,3}|\s+)"), std::nullopt);
  EXPECT_EQ(find_split_pattern(""), std::nullopt);
}

TEST(Pretokenizer, cuts_words_numbers_and_spaces) {
  const auto marks = SplitPattern::kLettersAndMarks;
  EXPECT_EQ(cut("Hello, world!", marks), (Pieces{"Hello", ",", " world", "!"}));
  EXPECT_EQ(cut("12 3", marks), (Pieces{"1", "2", " ", "3"}));
  EXPECT_EQ(cut("a   b", marks), (Pieces{"a", "  ", " b"}));
  EXPECT_EQ(cut("a   ", marks), (Pieces{"a", "   "}));
  EXPECT_EQ(cut("x \n \n  y", marks), (Pieces{"x", " \n \n", " ", " y"}));
  EXPECT_EQ(cut("f();\n\n}", marks), (Pieces{"f", "();\n\n", "}"}));
  EXPECT_EQ(cut("\tif", marks), (Pieces{"\tif"}));
  EXPECT_EQ(cut("\nif", marks), (Pieces{"\n", "if"}));
}

TEST(Pretokenizer, cuts_contractions_in_any_case_and_with_the_long_s) {
  const auto marks = SplitPattern::kLettersAndMarks;
  EXPECT_EQ(cut("don't", marks), (Pieces{"don", "'t"}));
  EXPECT_EQ(cut("WE'LLx", marks), (Pieces{"WE", "'LL", "x"}));
  EXPECT_EQ(cut("'sa", marks), (Pieces{"'s", "a"}));
  EXPECT_EQ(cut("'la", marks), (Pieces{"'la"}));
  EXPECT_EQ(cut("it'\u017F", marks), (Pieces{"it", "'\u017F"}));
}

TEST(Pretokenizer, differs_between_the_patterns_only_in_marks) {
  const std::string text = "e\u0301x \u0301\u0301a \u0301";
  EXPECT_EQ(cut(text, SplitPattern::kLettersAndMarks),
            (Pieces{"e\u0301x", " \u0301\u0301a", " \u0301"}));
  EXPECT_EQ(cut(text, SplitPattern::kLetters),
            (Pieces{"e", "\u0301x", " \u0301\u0301", "a", " \u0301"}));
}

// Code points whose class is the same in PCRE2's Unicode 14 and in our 16: the assigned ones.
std::vector<char32_t> nasty_code_points() {
  std::vector<char32_t> code_points;
  const char32_t often[] = {' ',    ' ',    '\n',   '\r',  '\t',  '\'',   's',     't',    'r',
                            'e',    'v',    'l',    'm',   'd',   'S',    'L',     'E',    '0',
                            '9',    '.',    '!',    0x17F, 0x301, 0x300,  0xA0,    0x85,   0x2028,
                            0x3000, 0x4E00, 0xAC00, 0x663, 0xBD,  0x2167, 0x1F44D, 0x200D, 0xFE0F,
                            0x903,  0x20DD, 0x0B,   0x0C,  0x1C,  0x1F,   0xFF41,  0x2160, 0x16EE};
  for (int i = 0; i < 40; ++i)
    code_points.insert(code_points.end(), std::begin(often), std::end(often));
  for (char32_t c = 0; c < 0x800; ++c) {
    if (UnicodeTables::get().char_class(c) != CharClass::kOther || c < 0x250)
      code_points.push_back(c);
  }
  return code_points;
}

TEST(Pretokenizer, agrees_with_pcre2_on_random_nasty_strings) {
  const std::vector<char32_t> code_points = nasty_code_points();
  const Pcre letters(kQwen2Regex);
  const Pcre marks(kQwen35Regex);
  SplitMix64 random(3);
  for (int i = 0; i < 20000; ++i) {
    std::string text;
    const size_t length = 1 + random.below(16);
    for (size_t k = 0; k < length; ++k)
      append_utf8(code_points[random.below(code_points.size())], text);
    ASSERT_EQ(cut(text, SplitPattern::kLetters), letters.cut(text)) << text;
    ASSERT_EQ(cut(text, SplitPattern::kLettersAndMarks), marks.cut(text)) << text;
  }
}

TEST(Pretokenizer, classes_agree_with_pcre2_up_to_what_unicode_16_added) {
  struct Class {
    CharClass ours;
    const char* regex;
    int added;  // code points of this class that are new in Unicode 15, 15.1 and 16
    int lost;   // PCRE2 counts U+180E as white space, which it has not been since Unicode 6.3
  };
  // Counted with the Unicode character database: differences of general categories, 14.0 to 16.0.
  const Class classes[] = {{CharClass::kLetter, R"(\p{L})", 9272, 0},
                           {CharClass::kMark, R"(\p{M})", 93, 0},
                           {CharClass::kNumber, R"(\p{N})", 120, 0},
                           {CharClass::kSpace, R"(\s)", 0, 1}};
  for (const Class& one : classes) {
    const Pcre pcre(one.regex);
    int added = 0;
    int lost = 0;
    for (char32_t c = 0; c < 0x110000; ++c) {
      if (c >= 0xD800 && c < 0xE000) continue;
      std::string text;
      append_utf8(c, text);
      const bool theirs = pcre.matches(text);
      const bool ours = UnicodeTables::get().char_class(c) == one.ours;
      added += ours && !theirs ? 1 : 0;
      lost += theirs && !ours ? 1 : 0;
    }
    EXPECT_EQ(added, one.added) << one.regex;
    EXPECT_EQ(lost, one.lost) << one.regex;
  }
}

}  // namespace
}  // namespace penstock
