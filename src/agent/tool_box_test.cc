// Tools against real folders: what is read, what is refused, what a command may take.
#include "agent/tool_box.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <thread>

#include "agent/command.h"

namespace penstock {
namespace {

namespace fs = std::filesystem;
using namespace std::chrono_literals;

class ToolBoxTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = testing::TempDir() + "/penstock-tools-XXXXXX";
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    outside_ = fs::canonical(pattern);
    folder_ = outside_ / "work";
    fs::create_directories(folder_ / "deep");
    write(outside_ / "secret.txt", "secret");
    write(folder_ / "note.txt", "one\ntwo\nthree\n");
  }
  void TearDown() override { fs::remove_all(outside_); }

  static void write(const fs::path& path, const std::string& text) {
    std::ofstream(path, std::ios::binary) << text;
  }
  std::string act(const ToolAction& action) {
    const auto box = ToolBox::open(folder_, {"PATH=/usr/bin:/bin", "SHOWN=yes"});
    return box->act(action, stop_.get_token());
  }
  std::string read(const std::string& path, int64_t line = 1) {
    return act({.tool = Tool::kRead, .path = path, .first_line = line});
  }
  std::string list(const std::string& path) { return act({.tool = Tool::kList, .path = path}); }
  std::string run(const std::string& command) {
    return act({.tool = Tool::kRun, .command = command});
  }

  fs::path outside_, folder_;
  std::stop_source stop_;
};

TEST_F(ToolBoxTest, reads_files_from_a_line_on) {
  EXPECT_EQ(read("note.txt"), "one\ntwo\nthree\n");
  EXPECT_EQ(read("deep/../note.txt", 2), "two\nthree\n");
  EXPECT_EQ(read(folder_ / "note.txt", 3), "three\n");
  EXPECT_TRUE(read("note.txt", 9).starts_with("error: "));
  write(folder_ / "empty", "");
  EXPECT_EQ(read("empty"), "(the file is empty)");
}

TEST_F(ToolBoxTest, nothing_outside_of_the_folder_is_read_or_listed) {
  fs::create_symlink(outside_ / "secret.txt", folder_ / "link");
  fs::create_symlink(outside_, folder_ / "deep" / "up");
  fs::create_directories(outside_ / "work2");
  write(outside_ / "work2" / "x", "secret");
  for (const std::string path : {"../secret.txt", "link", "deep/up/secret.txt", "/etc/passwd",
                                 "../work2/x", "deep/../../secret.txt"}) {
    const std::string text = read(path);
    EXPECT_NE(text.find("outside"), std::string::npos) << path << ": " << text;
  }
  for (const std::string path : {"..", "/", "deep/up", "../work2"}) {
    EXPECT_NE(list(path).find("outside"), std::string::npos) << path;
  }
  // Within the folder links are followed.
  fs::create_symlink("note.txt", folder_ / "inner");
  EXPECT_EQ(read("inner"), "one\ntwo\nthree\n");
}

TEST_F(ToolBoxTest, what_is_no_text_file_is_refused_and_never_waited_for) {
  ASSERT_EQ(::mkfifo((folder_ / "pipe").c_str(), 0600), 0);
  write(folder_ / "binary", std::string("ab\0c", 4));
  EXPECT_NE(read("pipe").find("no file"), std::string::npos);
  EXPECT_NE(read("deep").find("is a folder"), std::string::npos);
  EXPECT_NE(read("binary").find("no text"), std::string::npos);
  EXPECT_TRUE(read("none").starts_with("error: "));
  EXPECT_TRUE(read(std::string("note.txt\0x", 10)).starts_with("error: "));
  EXPECT_NE(list("note.txt").find("no folder"), std::string::npos);
}

TEST_F(ToolBoxTest, long_files_come_in_parts_that_fit_together) {
  std::string whole;
  for (int i = 0; whole.size() < 3 * kResultBytesMax; ++i) {
    whole += "line " + std::to_string(i) + "\n";
  }
  write(folder_ / "long", whole);
  std::string together;
  int64_t line = 1;
  for (int parts = 0; parts < 10; ++parts) {
    const std::string part = read("long", line);
    EXPECT_LT(part.size(), kResultBytesMax + 200);
    const size_t note = part.find("[it goes on with first_line ");
    together += part.substr(0, note);
    if (note == std::string::npos) break;
    line = std::stoll(part.substr(note + 28));
  }
  EXPECT_EQ(together, whole);
  write(folder_ / "wide", std::string(2 * kResultBytesMax, 'x'));
  EXPECT_NE(read("wide").find("longer than"), std::string::npos);
}

TEST_F(ToolBoxTest, lists_what_is_there_a_line_each) {
  write(folder_ / "two\nlines", "x");
  fs::create_symlink("note.txt", folder_ / "inner");
  EXPECT_EQ(list("."), "deep/\ninner (a link)\nnote.txt (14 bytes)\ntwo?lines (1 bytes)\n");
  EXPECT_EQ(list("deep"), "(the folder is empty)");
  for (int i = 0; i < 600; ++i) write(folder_ / "deep" / std::to_string(i), "");
  EXPECT_NE(list("deep").find("[100 more]"), std::string::npos);
}

TEST_F(ToolBoxTest, a_command_says_what_it_wrote_and_how_it_ended) {
  EXPECT_EQ(run("cat note.txt; echo no >&2; exit 3"), "one\ntwo\nthree\nno\n[exit code 3]");
  EXPECT_EQ(run("kill -9 $$"), "[ended by signal 9]");
  EXPECT_EQ(run("echo \"$SHOWN $PENSTOCK_API_KEY$HOME\""), "yes \n[exit code 0]");
  EXPECT_EQ(run("cat"), "[exit code 0]");  // there is nothing to read
  EXPECT_EQ(run("pwd"), folder_.string() + "\n[exit code 0]");
  // No terminal to draw on.
  EXPECT_EQ(run("(echo x > /dev/tty) 2>/dev/null && echo drawn"), "[exit code 2]");
}

TEST_F(ToolBoxTest, what_a_command_says_is_bounded) {
  const std::string text = run("head -c 3000000 /dev/zero | tr '\\0' a; echo end");
  EXPECT_LT(text.size(), kResultBytesMax + 512);
  EXPECT_TRUE(text.starts_with("aaa"));
  EXPECT_NE(text.find("bytes left out"), std::string::npos);
  EXPECT_NE(text.find("aend\n[exit code 0]"), std::string::npos);
}

TEST_F(ToolBoxTest, what_a_command_leaves_running_is_ended_with_it) {
  const auto begin = std::chrono::steady_clock::now();
  EXPECT_EQ(run("(sleep 30; touch late) & echo done"), "done\n[exit code 0]");
  EXPECT_LT(std::chrono::steady_clock::now() - begin, 10s);
}

TEST_F(ToolBoxTest, a_command_that_takes_too_long_or_is_stopped_ends) {
  const CommandLimits limits{.time = 1500ms, .bytes_max = 100};
  const auto late =
      run_command(folder_, "trap '' TERM; echo a; sleep 30; echo b", {}, limits, stop_.get_token());
  ASSERT_TRUE(late);
  EXPECT_EQ(late->end, CommandOutcome::End::kTimeout);
  EXPECT_EQ(late->text, "a\n");
  std::jthread stopper([this] {
    std::this_thread::sleep_for(100ms);
    stop_.request_stop();
  });
  EXPECT_EQ(run("sleep 30"), "[stopped by the user]");
}

TEST(ToolSets, are_read_from_words) {
  EXPECT_EQ(text_of(*parse_tool_set("run,read")), "read,run");
  EXPECT_TRUE(parse_tool_set("none")->is_empty());
  EXPECT_FALSE(parse_tool_set("read,write"));
  EXPECT_FALSE(parse_tool_set("read,,run"));
}

TEST(ToolActions, are_read_from_calls_and_refused_where_they_say_nothing) {
  const ToolSet all = *parse_tool_set("read,list,run");
  const auto action = read_action(all, "read_file", Json{{"path", "x"}, {"first_line", 3}});
  ASSERT_TRUE(action);
  EXPECT_EQ(describe(*action), "read_file x, from line 3");
  EXPECT_EQ(describe(*read_action(all, "list_folder", Json::object())), "list_folder .");
  EXPECT_EQ(describe(*read_action(all, "run_command", Json{{"command", "ls"}})), "run_command: ls");
  EXPECT_FALSE(read_action(*parse_tool_set("read"), "run_command", Json{{"command", "ls"}}));
  EXPECT_FALSE(read_action(all, "other", Json::object()));
  for (const Json& arguments :
       {Json(5), Json::object(), Json{{"path", 5}}, Json{{"path", "x"}, {"first_line", 0}},
        Json{{"path", "x"}, {"first_line", "2"}}}) {
    EXPECT_FALSE(read_action(all, "read_file", arguments)) << to_text(arguments);
  }
  for (const std::string& command : {std::string(), std::string(" \n"), std::string("a\0b", 3),
                                     std::string(kCommandBytesMax + 1, 'x')}) {
    EXPECT_FALSE(read_action(all, "run_command", Json{{"command", command}}));
  }
}

TEST(ToolDefinitions, are_schemas_of_what_is_allowed) {
  const Json tools = tool_definitions(*parse_tool_set("read,run"));
  ASSERT_EQ(tools.size(), 2u);
  EXPECT_EQ(tools[0]["function"]["name"], "read_file");
  EXPECT_EQ(tools[1]["function"]["parameters"]["required"], Json::array({"command"}));
}

}  // namespace
}  // namespace penstock
