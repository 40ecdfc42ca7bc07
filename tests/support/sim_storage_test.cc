#include "support/sim_storage.h"

#include <gtest/gtest.h>

#include <cerrno>
#include <cstring>
#include <string>
#include <thread>

#include "io/held_bytes.h"
#include "io/test_text.h"

namespace penstock {
namespace {

void write(SimStorage& disk, const std::string& path, const std::string& text) {
  auto file = *disk.open(path, OpenMode::kCreate);
  file->write(0, bytes_of(text)).value();
}

std::string text_of(SimStorage& disk, const std::string& path) {
  return *read_text(disk, path, 1 << 20);
}

TEST(SimStorage, behaves_as_a_disk_without_faults) {
  SimStorage disk;
  disk.make_directory("/a/b").value();
  write(disk, "/a/b/f", "one");
  EXPECT_EQ(text_of(disk, "/a/b/f"), "one");
  EXPECT_EQ(*disk.list("/a"), std::vector<std::string>{"b"});
  EXPECT_EQ(disk.open("/a/none", OpenMode::kRead).error().code, ErrorCode::kNotFound);
  EXPECT_FALSE(disk.open("/c/f", OpenMode::kCreate).has_value());
  disk.rename("/a/b", "/a/c").value();
  EXPECT_EQ(text_of(disk, "/a/c/f"), "one");
  EXPECT_FALSE(disk.remove("/a").has_value());
  disk.remove_tree("/a").value();
  EXPECT_FALSE(*disk.is_directory("/a"));
}

TEST(SimStorage, the_chosen_call_fails_and_only_it) {
  SimStorage disk;
  auto file = *disk.open("/f", OpenMode::kCreate);
  disk.inject({.call = SimCall::kWrite, .after = 1, .error = ENOSPC});
  EXPECT_TRUE(file->write(0, bytes_of("a")).has_value());
  const auto second = file->write(1, bytes_of("b"));
  ASSERT_FALSE(second.has_value());
  EXPECT_EQ(second.error().code, ErrorCode::kOutOfMemory);
  EXPECT_TRUE(file->write(1, bytes_of("c")).has_value());
  EXPECT_EQ(text_of(disk, "/f"), "ac");
  EXPECT_EQ(disk.faults_struck(), 1u);
  EXPECT_EQ(disk.calls(SimCall::kWrite), 3u);
}

TEST(SimStorage, unsynced_names_and_bytes_may_be_lost_synced_ones_not) {
  int lost_names = 0;
  int torn = 0;
  for (uint64_t seed = 0; seed < 40; ++seed) {
    SimStorage disk(seed);
    auto kept = *disk.open("/kept", OpenMode::kCreate);
    kept->write(0, bytes_of(std::string(2048, 'k'))).value();
    kept->sync().value();
    disk.sync_directory("/").value();
    kept->write(0, bytes_of(std::string(2048, 'n'))).value();  // not synced
    write(disk, "/unsynced", "u");
    disk.crash();
    EXPECT_FALSE(kept->write(0, bytes_of("x")).has_value());  // the file was open when it happened
    const std::string after = text_of(disk, "/kept");
    ASSERT_EQ(after.size(), 2048u);
    const auto new_sectors = std::count(after.begin(), after.end(), 'n') / 512;
    EXPECT_EQ(std::count(after.begin(), after.end(), 'n') % 512, 0);
    torn += new_sectors > 0 && new_sectors < 4;
    lost_names += !disk.stat("/unsynced").has_value();
  }
  EXPECT_GT(lost_names, 0);
  EXPECT_LT(lost_names, 40);
  EXPECT_GT(torn, 0);
}

TEST(SimStorage, room_is_taken_by_what_was_written_or_reserved_and_not_by_holes) {
  SimStorage disk(1, 1000);
  const auto free = [&] { return *disk.free_bytes("/"); };
  auto file = *disk.open("/f", OpenMode::kCreate);
  file->write(600, bytes_of(std::string(100, 'a'))).value();
  EXPECT_EQ(disk.stat("/f")->bytes, 700u);
  EXPECT_EQ(*held_bytes(disk, "/f"), 100u);
  EXPECT_EQ(free(), 900u);
  file->write(100, bytes_of(std::string(300, 'b'))).value();
  file->write(350, bytes_of(std::string(260, 'c')))
      .value();  // the hole between them, and some of both
  EXPECT_EQ(*held_bytes(disk, "/f"), 600u);
  EXPECT_EQ(text_of(disk, "/f"), std::string(100, '\0') + std::string(250, 'b') +
                                     std::string(260, 'c') + std::string(90, 'a'));
  EXPECT_EQ(file->write(650, bytes_of(std::string(451, 'd'))).error().code,
            ErrorCode::kOutOfMemory);
  EXPECT_EQ(*held_bytes(disk, "/f"), 600u) << "what does not fit takes nothing";
  file->reserve(800).value();  // what is missing before it, too
  EXPECT_EQ(*held_bytes(disk, "/f"), 800u);
  EXPECT_EQ(free(), 200u);
  disk.truncate("/f", 650);
  EXPECT_EQ(*held_bytes(disk, "/f"), 650u);
  disk.remove("/f").value();
  EXPECT_EQ(free(), 1000u);
  EXPECT_EQ(held_bytes(disk, "/f").error().code, ErrorCode::kNotFound);
}

TEST(SimStorage, a_rename_survives_as_a_whole_or_not_at_all) {
  for (uint64_t seed = 0; seed < 20; ++seed) {
    SimStorage disk(seed);
    for (const char* path : {"/new", "/name"}) {
      auto file = *disk.open(path, OpenMode::kCreate);
      file->write(0, bytes_of(path)).value();
      file->sync().value();
    }
    disk.sync_directory("/").value();
    disk.rename("/new", "/name").value();
    disk.crash();
    const std::string content = text_of(disk, "/name");
    EXPECT_EQ(content == "/name", disk.stat("/new").has_value());
    EXPECT_TRUE(content == "/new" || content == "/name");
  }
}

TEST(SimStorage, a_full_disk_refuses_with_the_numbers) {
  SimStorage disk(1, 1000);
  auto file = *disk.open("/f", OpenMode::kCreate);
  file->reserve(900).value();
  EXPECT_EQ(*disk.free_bytes("/"), 100u);
  EXPECT_TRUE(file->write(0, bytes_of(std::string(1000, 'x'))).has_value());
  const auto refused = file->write(1000, bytes_of("y"));
  EXPECT_EQ(refused.error().code, ErrorCode::kOutOfMemory);
  EXPECT_NE(refused.error().message.find("needs 1 more bytes, 0 are free"), std::string::npos);
}

TEST(SimStorage, reads_can_be_wrong_in_every_way) {
  SimStorage disk(3);
  std::string text(4096, '\0');
  for (size_t i = 0; i < text.size(); ++i) text[i] = static_cast<char>(i / 16);
  write(disk, "/f", text);
  auto file = *disk.open("/f", OpenMode::kRead);
  std::string target(1024, '\0');
  const auto read = [&] { return file->try_read(0, std::as_writable_bytes(std::span(target))); };
  disk.inject({.call = SimCall::kRead, .effect = SimEffect::kFlipBit});
  EXPECT_EQ(read(), 1024);
  int wrong = 0;
  for (size_t i = 0; i < target.size(); ++i) wrong += target[i] != text[i];
  EXPECT_EQ(wrong, 1);
  disk.inject({.call = SimCall::kRead, .effect = SimEffect::kMisdirect, .by = 512});
  EXPECT_EQ(read(), 1024);
  EXPECT_EQ(target, text.substr(512, 1024));
  disk.inject({.call = SimCall::kRead, .times = 20, .effect = SimEffect::kShort});
  int shortened = 0;
  for (int i = 0; i < 20; ++i) shortened += read() < 1024;
  EXPECT_GT(shortened, 10);
  disk.inject({.call = SimCall::kRead, .error = EINTR});
  EXPECT_EQ(read(), -EINTR);
  disk.inject({.call = SimCall::kRead, .error = EINTR});
  EXPECT_EQ(*file->read_some(0, std::as_writable_bytes(std::span(target))), 1024u);
  disk.flip_stored_bit("/f", 3);
  read();
  EXPECT_EQ(target[0], 8);
  disk.truncate("/f", 100);
  EXPECT_EQ(read(), 100);
}

TEST(SimStorage, a_stalled_read_waits_until_it_is_released) {
  SimStorage disk;
  write(disk, "/f", "text");
  disk.inject({.call = SimCall::kRead, .effect = SimEffect::kStall});
  auto file = *disk.open("/f", OpenMode::kRead);
  std::string target(4, '\0');
  std::jthread reader(
      [&] { EXPECT_EQ(file->try_read(0, std::as_writable_bytes(std::span(target))), 4); });
  while (disk.faults_struck() == 0) std::this_thread::yield();
  disk.release_stalled();
  reader.join();
  EXPECT_EQ(target, "text");
}

TEST(SimStorage, a_direct_file_insists_on_alignment) {
  SimStorage disk;
  write(disk, "/f", std::string(8192, 'x'));
  auto file = *disk.open("/f", OpenMode::kReadDirect);
  EXPECT_EQ(file->alignment(), 4096u);
  alignas(4096) static std::byte target[4096];
  EXPECT_EQ(file->try_read(0, target), 4096);
  EXPECT_EQ(file->try_read(512, target), -EINVAL);
  disk.set_direct_alignment(1);
  EXPECT_EQ((*disk.open("/f", OpenMode::kReadDirect))->alignment(), 1u);
}

TEST(SimStorage, a_lock_is_held_by_one_and_ends_with_the_power) {
  SimStorage disk;
  auto lock = *disk.lock("/lock");
  EXPECT_FALSE(disk.lock("/lock").has_value());
  lock.reset();
  EXPECT_TRUE(disk.lock("/lock").has_value());
}

}  // namespace
}  // namespace penstock
