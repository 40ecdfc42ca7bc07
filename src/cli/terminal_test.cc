#include "cli/terminal.h"

#include <gtest/gtest.h>

#include "cli/config_file.h"
#include "cli/help.h"
#include "cli/progress.h"

namespace penstock {
namespace {

TEST(Printable, keeps_text_and_takes_control_characters_out) {
  EXPECT_EQ(printable("a\tb\n\u00e9"), "a\tb\n\u00e9");
  EXPECT_EQ(printable("\x1b[2J"), "\uFFFD[2J");
  EXPECT_EQ(printable("a\rb\x7f"), "a\uFFFDb\uFFFD");
  EXPECT_EQ(printable("\u009b31m"), "\uFFFD31m");
}

TEST(MessageText, makes_harmless_what_files_say) {
  EXPECT_EQ(message_text("line 1: \x1b]0;pwned\x07\x1b[2J"),
            "line 1: \uFFFD]0;pwned\uFFFD\uFFFD[2J");
  EXPECT_EQ(message_text("a\u202e.exe\u2066b\u200f"), "a\uFFFD.exe\uFFFDb\uFFFD");
  EXPECT_EQ(message_text("one\u2028two\u0085three"), "one\uFFFDtwo\uFFFDthree");
  EXPECT_EQ(message_text("\xff\xfe"), "\uFFFD\uFFFD");
  EXPECT_EQ(message_text("\u05e9\u05dc\u05d5\u05dd 世"), "\u05e9\u05dc\u05d5\u05dd 世");
}

TEST(MessageText, lets_no_line_pass_for_one_of_ours) {
  EXPECT_EQ(message_text("bad\npenstock: all is well\n"), "bad\n  penstock: all is well");
  EXPECT_EQ(table_text("a 1\nb 2\n"), "a 1\nb 2\n");
}

TEST(MessageText, cuts_what_is_long) {
  const std::string line = message_text(std::string(100000, 'x'));
  EXPECT_LT(line.size(), kLineBytesMax + 100);
  EXPECT_NE(line.find("... (98000 bytes more)"), std::string::npos);
  std::string lines;
  for (int i = 0; i < 10000; ++i) lines += "a line\n";
  EXPECT_LT(message_text(lines).size(), 2 * kMessageBytesMax);
  EXPECT_EQ(table_text(lines), lines);
  std::string wide;
  for (int i = 0; i < 1000; ++i) wide += "世";
  EXPECT_EQ(table_text(wide).find("\uFFFD"), std::string::npos);  // cut between characters
}

TEST(ClockText, has_hours_when_there_are_some) {
  EXPECT_EQ(clock_text(7), "0:07");
  EXPECT_EQ(clock_text(67), "1:07");
  EXPECT_EQ(clock_text(3661), "1:01:01");
}

TEST(ConfigFile, reads_strings_numbers_and_switches) {
  const Result<ConfigFile> file = parse_config_file(
      "memory = '6G' # mine\r\ncontext = 4_096\nquiet = true\nsystem = \"a # b\"\n", "f");
  ASSERT_TRUE(file) << file.error().message;
  EXPECT_EQ(file->find("run", "memory")->value, "6G");
  EXPECT_EQ(file->find("run", "context")->value, "4096");
  EXPECT_EQ(file->find("run", "quiet")->value, "true");
  EXPECT_EQ(file->find("run", "system")->value, "a # b");
  EXPECT_EQ(file->find("run", "temp"), nullptr);
}

TEST(ConfigFile, refuses_text_that_is_not_utf8) {
  const Result<ConfigFile> file = parse_config_file("system = \"\xff\"\n", "f");
  ASSERT_FALSE(file);
  EXPECT_EQ(file.error().code, ErrorCode::kInvalidArgument);
}

TEST(Completions, are_made_for_three_shells) {
  for (const char* shell : {"bash", "zsh", "fish"}) EXPECT_TRUE(completion_script(shell)) << shell;
  EXPECT_FALSE(completion_script("tcsh"));
}

}  // namespace
}  // namespace penstock
