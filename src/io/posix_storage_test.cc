#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <filesystem>
#include <string>
#include <thread>
#include <vector>

#include "base/memory.h"
#include "io/held_bytes.h"
#include "io/locks.h"
#include "io/storage.h"
#include "io/test_text.h"

namespace penstock {
namespace {

class PosixStorage : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = testing::TempDir() + "penstock_storage_" + std::to_string(getpid());
    disk_.remove_tree(folder_).value();
    disk_.make_directory(folder_).value();
  }
  void TearDown() override { disk_.remove_tree(folder_).value(); }

  std::string path(const std::string& name) const { return folder_ + "/" + name; }
  void write(const std::string& name, const std::string& text) {
    auto file = *disk_.open(path(name), OpenMode::kCreate);
    file->write(0, std::as_bytes(std::span(text))).value();
    file->sync().value();
  }

  Storage& disk_ = posix_storage();
  std::string folder_;
};

TEST_F(PosixStorage, what_was_written_is_read) {
  write("a", "hello, expert");
  EXPECT_EQ(*read_text(disk_, path("a"), 100), "hello, expert");
  EXPECT_EQ(disk_.stat(path("a"))->bytes, 13u);
  auto file = *disk_.open(path("a"), OpenMode::kWrite);
  file->write(7, bytes_of("EXPERTS")).value();
  EXPECT_EQ(*read_text(disk_, path("a"), 100), "hello, EXPERTS");
  EXPECT_EQ(*file->stat(), *disk_.stat(path("a")));
}

TEST_F(PosixStorage, a_missing_file_is_not_found_and_named) {
  const auto file = disk_.open(path("none"), OpenMode::kRead);
  ASSERT_FALSE(file.has_value());
  EXPECT_EQ(file.error().code, ErrorCode::kNotFound);
  EXPECT_NE(file.error().message.find(path("none")), std::string::npos);
  EXPECT_EQ(disk_.stat(path("none")).error().code, ErrorCode::kNotFound);
  EXPECT_EQ(disk_.open(path("none"), OpenMode::kReadDirect).error().code, ErrorCode::kNotFound);
}

TEST_F(PosixStorage, a_directory_or_a_pipe_is_not_a_file) {
  EXPECT_FALSE(disk_.open(folder_, OpenMode::kRead).has_value());
  ASSERT_EQ(mkfifo(path("pipe").c_str(), 0600), 0);
  EXPECT_FALSE(disk_.open(path("pipe"), OpenMode::kRead).has_value());  // and does not hang
}

TEST_F(PosixStorage, text_larger_than_expected_is_refused_before_it_is_read) {
  write("a", "0123456789");
  EXPECT_EQ(read_text(disk_, path("a"), 9).error().code, ErrorCode::kCorrupt);
}

TEST_F(PosixStorage, reading_past_the_end_is_corrupt_and_names_the_offset) {
  write("a", "0123456789");
  auto file = *disk_.open(path("a"), OpenMode::kRead);
  std::vector<std::byte> target(8);
  const auto read = read_exactly(*file, 4, target);
  EXPECT_EQ(read.error().code, ErrorCode::kCorrupt);
  EXPECT_NE(read.error().message.find("ends at byte 10"), std::string::npos);
}

// On file systems that refuse direct reads this shows the fallback instead.
TEST_F(PosixStorage, direct_reads_bring_the_same_bytes) {
  std::string text(3 * 4096, 'x');
  text[5000] = 'y';
  write("a", text);
  auto file = *disk_.open(path("a"), OpenMode::kReadDirect);
  ASSERT_LE(file->alignment(), kDirectAlignmentMax);
  auto memory = *AlignedMemory::create(text.size(), "a test");
  read_exactly(*file, 0, memory.bytes()).value();
  EXPECT_EQ(std::memcmp(memory.bytes().data(), text.data(), text.size()), 0);
  if (file->alignment() > 1) {
    // Really direct: a misaligned read is refused and not served from the page cache.
    EXPECT_FALSE(file->read_some(1, memory.bytes().subspan(1, 4096)).has_value());
  }
}

TEST_F(PosixStorage, tmpfs_is_read_direct_or_buffered_but_read) {
  if (!*disk_.is_directory("/dev/shm")) GTEST_SKIP() << "no /dev/shm here";
  const std::string place = "/dev/shm/penstock_test_" + std::to_string(getpid());
  auto written = *disk_.open(place, OpenMode::kCreate);
  written->write(0, bytes_of(std::string(8192, 'z'))).value();
  auto file = *disk_.open(place, OpenMode::kReadDirect);
  auto memory = *AlignedMemory::create(8192, "a test");
  EXPECT_TRUE(read_exactly(*file, 0, memory.bytes()).has_value());
  EXPECT_EQ(memory.bytes()[8191], std::byte{'z'});
  disk_.remove(place).value();
}

TEST_F(PosixStorage, reserving_keeps_the_length_and_refuses_more_than_the_disk_has) {
  auto file = *disk_.open(path("a"), OpenMode::kCreate);
  EXPECT_TRUE(file->reserve(1 << 20).has_value());
  EXPECT_EQ(file->stat()->bytes, 0u);
  EXPECT_GE(*held_bytes(disk_, path("a")), uint64_t{1} << 20);
  EXPECT_FALSE(held_bytes(disk_, path("b")).has_value());
  const auto refused = file->reserve(uint64_t{1} << 55);
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code, ErrorCode::kOutOfMemory);
  EXPECT_NE(refused.error().message.find("free"), std::string::npos);
}

TEST_F(PosixStorage, folders_are_made_listed_renamed_and_removed) {
  disk_.make_directory(path("x/y/z")).value();
  disk_.make_directory(path("x/y/z")).value();
  write("x/b", "1");
  write("x/a", "2");
  EXPECT_EQ(*disk_.list(path("x")), (std::vector<std::string>{"a", "b", "y"}));
  disk_.rename(path("x/a"), path("x/b")).value();
  EXPECT_EQ(*read_text(disk_, path("x/b"), 9), "2");
  disk_.sync_directory(path("x")).value();
  EXPECT_FALSE(disk_.rename(path("x/a"), path("x/c")).has_value());
  EXPECT_TRUE(*disk_.is_directory(path("x")));
  disk_.remove(path("x/b")).value();
  EXPECT_FALSE(disk_.remove(path("x/b")).has_value());
  disk_.remove_tree(path("x")).value();
  EXPECT_FALSE(*disk_.is_directory(path("x")));
  EXPECT_FALSE(disk_.list(path("x")).has_value());
  EXPECT_GT(*disk_.free_bytes(folder_), 0u);
}

TEST_F(PosixStorage, a_lock_is_held_by_one) {
  {
    const auto first = *disk_.lock(path("lock"));
    const auto second = disk_.lock(path("lock"));
    ASSERT_FALSE(second.has_value());
    EXPECT_EQ(second.error().code, ErrorCode::kIo);
  }
  EXPECT_TRUE(disk_.lock(path("lock")).has_value());
}

// A file that is locked while it is written and renamed when it is whole: who opened it before the
// rename has locked what now has another name.
TEST_F(PosixStorage, a_lock_is_on_the_file_that_has_the_name) {
  std::atomic<int> holders = 0;
  std::atomic<int> most = 0;
  const auto write_often = [&] {
    for (int written = 0; written < 300;) {
      const auto lock = disk_.lock(path("a.partial"));
      if (!lock) continue;
      most = std::max(most.load(), ++holders);
      std::this_thread::yield();
      --holders;  // from the rename on the name is free for others
      disk_.rename(path("a.partial"), path("a")).value();
      ++written;
    }
  };
  std::vector<std::jthread> writers;
  for (int i = 0; i < 3; ++i) writers.emplace_back(write_often);
  writers.clear();
  EXPECT_EQ(most, 1);
}

TEST_F(PosixStorage, a_lock_that_is_held_on_is_waited_for_and_told) {
  const auto first = *disk_.lock(path("lock"));
  const auto begun = std::chrono::steady_clock::now();
  const auto second = lock_in_turn(disk_, path("lock"), std::chrono::milliseconds(60));
  ASSERT_FALSE(second.has_value());
  EXPECT_TRUE(is_locked_error(second.error()));
  EXPECT_GE(std::chrono::steady_clock::now() - begun, std::chrono::milliseconds(60));
}

}  // namespace
}  // namespace penstock
