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
