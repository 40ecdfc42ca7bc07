#include "text/nfc.h"

#include <gtest/gtest.h>
#include <utf8proc.h>

#include <cstdlib>
#include <string>

#include "text/test_data.h"
#include "text/unicode_tables.h"
#include "text/utf8.h"

namespace penstock {
namespace {

std::string utf8proc_nfc(const std::string& text) {
  utf8proc_uint8_t* out = nullptr;
  const utf8proc_ssize_t bytes =
      utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(text.data()),
                   static_cast<utf8proc_ssize_t>(text.size()), &out,
                   static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE));
  EXPECT_GE(bytes, 0);
  std::string result(reinterpret_cast<const char*>(out), static_cast<size_t>(bytes));
  std::free(out);
  return result;
}

TEST(Nfc, composes_reorders_and_leaves_the_rest) {
  EXPECT_EQ(to_nfc("plain 世界 é"), "plain 世界 é");
  EXPECT_EQ(to_nfc("e\u0301"), "\u00E9");
  EXPECT_EQ(to_nfc("\u212B\u2126"), "\u00C5\u03A9");
  EXPECT_EQ(to_nfc("s\u0307\u0323"), "\u1E69");
  EXPECT_EQ(to_nfc("\u1100\u1161\u11A8"), "\uAC01");
  EXPECT_EQ(to_nfc("\u0958"), "\u0915\u093C");  // excluded from composition
  EXPECT_EQ(to_nfc(">\u0338"), "\u226F");
  EXPECT_EQ(to_nfc(""), "");
}

TEST(Nfc, finds_the_prefix_that_stays_as_it_is) {
  EXPECT_EQ(nfc_prefix_bytes("plain"), 5u);
  EXPECT_EQ(nfc_prefix_bytes("xye\u0301"), 2u);
  EXPECT_EQ(nfc_prefix_bytes("\u0301"), 0u);
}

TEST(Nfc, agrees_with_utf8proc_on_code_points_of_unicode_9_in_random_order) {
  // All that may change and some that may not; those that the reference does not know are left out.
  std::vector<char32_t> code_points = {'a',    'e',    's',    '>',   'q',  0xE9,
                                       0x1E69, 0x1100, 0xAC00, 0x9C7, 0xB47};
  for (char32_t c = 0x80; c < 0x30000; ++c) {
    if (UnicodeTables::get().is_nfc_follower(c)) code_points.push_back(c);
  }
  ASSERT_GT(code_points.size(), 1500u);
  SplitMix64 random(5);
  int changed = 0;
  for (int i = 0; i < 20000; ++i) {
    std::string text;
    const size_t length = 1 + random.below(9);
    for (size_t k = 0; k < length; ++k) {
      const size_t limit = random.below(2) == 0 ? 11 : code_points.size();
      append_utf8(code_points[random.below(limit)], text);
    }
    const std::string expected = utf8proc_nfc(text);
    changed += expected != text ? 1 : 0;
    ASSERT_EQ(to_nfc(text), expected);
  }
  EXPECT_GT(changed, 10000);
}

TEST(Nfc, leaves_marks_that_are_newer_than_the_reference) {
  // U+07FD (Unicode 11) would go behind U+0316's equal class or before U+0301; the reference does
  // not move what it does not know.
  EXPECT_EQ(to_nfc("\u0301\u07FD"), "\u0301\u07FD");
  EXPECT_EQ(to_nfc("a\u07FD\u0316\u0301"), "a\u07FD\u0316\u0301");
}

TEST(Nfc, sorts_a_megabyte_of_marks) {
  std::string text = "a";
  for (int i = 0; i < 150000; ++i) text += "\u0315\u0316";  // classes 232 and 220: all out of order
  const std::string normal = to_nfc(text);
  ASSERT_EQ(normal.size(), text.size());
  EXPECT_EQ(normal.substr(0, 5), "a\u0316\u0316");
  EXPECT_EQ(normal.substr(normal.size() - 4), "\u0315\u0315");
}

}  // namespace
}  // namespace penstock
