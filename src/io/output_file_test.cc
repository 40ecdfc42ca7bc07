#include "io/output_file.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "io/locks.h"
#include "io/test_text.h"

namespace penstock {
namespace {

namespace fs = std::filesystem;

class OutputFileTest : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = testing::TempDir() + "penstock_output_" + std::to_string(getpid());
    fs::remove_all(folder_);
    fs::create_directories(folder_);
  }
  void TearDown() override { fs::remove_all(folder_); }

  std::string path(const std::string& name) const { return folder_ + "/" + name; }
  Result<void> write(const std::string& name, const std::string& text) {
    return write_output(posix_storage(), path(name), bytes_of(text));
  }
  std::string text_at(const std::string& name) const {
    std::ifstream file(path(name));
    std::ostringstream text;
    text << file.rdbuf();
    return text.str();
  }
  size_t num_entries() const {
    return static_cast<size_t>(std::distance(fs::directory_iterator(folder_), {}));
  }

  std::string folder_;
};

TEST_F(OutputFileTest, a_new_file_and_one_that_is_replaced_hold_what_was_written) {
  write("a", "first").value();
  write("a", "2nd").value();
  EXPECT_EQ(text_at("a"), "2nd");
  EXPECT_EQ(num_entries(), 1u);
}

// Two runs that end together keep what they learnt in the same files.
TEST_F(OutputFileTest, writers_of_one_file_take_turns_and_the_file_is_one_of_theirs) {
  std::vector<std::jthread> writers;
  for (const char c : {'a', 'b', 'c', 'd'}) {
    writers.emplace_back([this, c] {
      for (int i = 0; i < 10; ++i) {
        Result<void> done = {};  // a disk may be slow, and turns come by chance
        do done = write("a", std::string(10'000, c));
        while (!done && is_locked_error(done.error()));
        done.value();
      }
    });
  }
  writers.clear();
  const std::string text = text_at("a");
  EXPECT_EQ(text, std::string(10'000, text.at(0)));
  EXPECT_EQ(num_entries(), 1u);
}

TEST_F(OutputFileTest, what_is_not_finished_leaves_the_old_file_and_nothing_else) {
  write("a", "old").value();
  {
    OutputFile out = *OutputFile::create(posix_storage(), path("a"));
    out.append(bytes_of("half")).value();
    EXPECT_EQ(text_at("a"), "old");
    OutputFile moved = std::move(out);
    moved.append(bytes_of(" of it")).value();
  }
  EXPECT_EQ(text_at("a"), "old");
  EXPECT_EQ(num_entries(), 1u);
}

TEST_F(OutputFileTest, a_replaced_file_stays_as_private_as_it_was) {
  write("a", "secret").value();
  ASSERT_EQ(::chmod(path("a").c_str(), 0600), 0);
  write("a", "new").value();
  EXPECT_EQ(fs::status(path("a")).permissions(), fs::perms(0600));
}

TEST_F(OutputFileTest, a_link_stays_and_its_target_is_written) {
  write("target", "old").value();
  fs::create_directories(path("sub"));
  fs::create_symlink("../target", path("sub/link"));
  fs::create_symlink(path("sub/link"), path("link of link"));
  fs::create_symlink("new name", path("leads to nothing yet"));
  write("link of link", "new").value();
  EXPECT_EQ(text_at("target"), "new");
  EXPECT_TRUE(fs::is_symlink(path("link of link")));
  EXPECT_TRUE(fs::is_symlink(path("sub/link")));
  write("leads to nothing yet", "here").value();
  EXPECT_TRUE(fs::is_symlink(path("leads to nothing yet")));
  EXPECT_EQ(text_at("new name"), "here");
}

TEST_F(OutputFileTest, links_in_a_circle_are_an_error) {
  fs::create_symlink("b", path("a"));
  fs::create_symlink("a", path("b"));
  EXPECT_EQ(write("a", "x").error().code, ErrorCode::kIo);
}

TEST_F(OutputFileTest, a_pipe_is_written_to_and_stays_a_pipe) {
  ASSERT_EQ(::mkfifo(path("pipe").c_str(), 0600), 0);
  std::string long_text(1 << 20, 'x');  // more than a pipe holds
  std::string got;
  // Open before anybody writes; a pipe with a reader is one that can be written to.
  const int reading = ::open(path("pipe").c_str(), O_RDONLY | O_NONBLOCK);
  ASSERT_GE(reading, 0);
  ASSERT_EQ(::fcntl(reading, F_SETFL, 0), 0);
  std::jthread reader([&] {
    char buffer[4096];
    for (;;) {
      const ssize_t count = ::read(reading, buffer, sizeof buffer);
      if (count > 0) got.append(buffer, static_cast<size_t>(count));
      if (got.size() == long_text.size()) return;
    }
  });
  write("pipe", long_text).value();
  reader.join();
  ::close(reading);
  EXPECT_EQ(got, long_text);
  EXPECT_TRUE(fs::is_fifo(path("pipe")));
  EXPECT_EQ(num_entries(), 1u);
}

TEST_F(OutputFileTest, a_pipe_that_nobody_reads_is_an_error_and_no_wait) {
  ASSERT_EQ(::mkfifo(path("pipe").c_str(), 0600), 0);
  const Result<void> refused = write("pipe", "x");
  ASSERT_FALSE(refused.has_value());
  EXPECT_NE(refused.error().message.find("nobody reads"), std::string::npos);
  EXPECT_TRUE(fs::is_fifo(path("pipe")));
}

TEST_F(OutputFileTest, devices_are_written_to_and_stay_devices) {
  fs::create_symlink("/dev/null", path("link to a device"));
  EXPECT_TRUE(write("link to a device", "x").has_value());
  EXPECT_TRUE(fs::is_character_file("/dev/null"));
  EXPECT_TRUE(write_output(posix_storage(), "/dev/null", bytes_of("x")).has_value());
  EXPECT_TRUE(fs::is_character_file("/dev/null"));
  const Result<void> full = write_output(posix_storage(), "/dev/full", bytes_of("x"));
  ASSERT_FALSE(full.has_value());
  EXPECT_EQ(full.error().code, ErrorCode::kOutOfMemory);
  EXPECT_NE(full.error().message.find("/dev/full"), std::string::npos);
}

TEST_F(OutputFileTest, folders_and_sockets_are_refused_at_the_start) {
  EXPECT_EQ(write(".", "x").error().code, ErrorCode::kInvalidArgument);
  fs::create_directories(path("folder"));
  fs::create_symlink("folder", path("link"));
  EXPECT_EQ(write("link", "x").error().code, ErrorCode::kInvalidArgument);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  path("socket").copy(address.sun_path, sizeof address.sun_path - 1);
  const int socket = ::socket(AF_UNIX, SOCK_STREAM, 0);
  ASSERT_EQ(::bind(socket, reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
  EXPECT_EQ(write("socket", "x").error().code, ErrorCode::kInvalidArgument);
  ::close(socket);
  EXPECT_EQ(write_output(posix_storage(), "", bytes_of("x")).error().code,
            ErrorCode::kInvalidArgument);
  EXPECT_FALSE(write("no/such/folder", "x").has_value());
}

TEST_F(OutputFileTest, what_can_be_written_can_be_asked_and_nothing_is_left) {
  write("a", "old").value();
  ASSERT_EQ(::mkfifo(path("pipe").c_str(), 0600), 0);
  EXPECT_TRUE(check_output(posix_storage(), path("a")).has_value());
  EXPECT_TRUE(check_output(posix_storage(), path("new")).has_value());
  EXPECT_TRUE(check_output(posix_storage(), path("pipe")).has_value());
  EXPECT_FALSE(check_output(posix_storage(), path("none/new")).has_value());
  EXPECT_FALSE(check_output(posix_storage(), folder_).has_value());
  EXPECT_EQ(text_at("a"), "old");
  EXPECT_EQ(num_entries(), 2u);
}

TEST_F(OutputFileTest, two_writers_of_one_file_do_not_mix) {
  OutputFile first = *OutputFile::create(posix_storage(), path("a"));
  const auto second = OutputFile::create(posix_storage(), path("a"));
  ASSERT_FALSE(second.has_value());
  EXPECT_NE(second.error().message.find("locked"), std::string::npos);
  first.append(bytes_of("whole")).value();
  first.finish().value();
  EXPECT_EQ(text_at("a"), "whole");
}

TEST_F(OutputFileTest, a_link_in_the_place_of_the_partial_file_leads_nowhere) {
  write("victim", "mine").value();
  fs::create_symlink("victim", path("a.partial"));
  write("a", "x").value();
  EXPECT_EQ(text_at("victim"), "mine");
  EXPECT_EQ(text_at("a"), "x");
}

}  // namespace
}  // namespace penstock
