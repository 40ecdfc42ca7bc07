// Memory of this machine that the software device copies from where it lies.
#include "gpu/gpu_host_blocks.h"

#include <algorithm>
#include <optional>
#include <vector>

#include "base/memory.h"
#include "gpu/test_gpu.h"

namespace penstock {
namespace {

constexpr uint64_t kSlotBytes = 3 * 4096;
// Two of these are a block. Nothing but the bytes that a test writes of them becomes present.
constexpr uint64_t kLargeSlotBytes = uint64_t{128} << 20;

class GpuHostBlocksTest : public test::GpuTest {
 protected:
  void SetUp() override {
    test::GpuTest::SetUp();
    if (device_ == nullptr) return;
    const uint64_t alignment = device_->facts().import_alignment;
    ASSERT_GT(alignment, 0u) << "the software device reaches this machine's memory";
    ASSERT_EQ(4096 % alignment, 0u);
    blocks_.emplace(*device_);
  }
  void TearDown() override {
    blocks_.reset();
    memory_ = {};
    test::GpuTest::TearDown();
  }

  HostSlots slots(uint64_t slot_bytes, int64_t count, int64_t count_max) {
    memory_ =
        AlignedMemory::create(slot_bytes * static_cast<uint64_t>(count_max), "a test").value();
    return {.begin = memory_.bytes().data(),
            .slot_bytes = slot_bytes,
            .count = count,
            .count_max = count_max,
            .generation = ++num_made_};  // it may begin where the last one did
  }
  std::span<std::byte> bytes_at(uint64_t offset, size_t count) {
    return memory_.bytes().subspan(offset, count);
  }
  // Other bytes for each seed.
  std::span<std::byte> write(uint64_t offset, size_t count, uint32_t seed) {
    const std::span<std::byte> bytes = bytes_at(offset, count);
    for (size_t i = 0; i < count; ++i) {
      bytes[i] = static_cast<std::byte>((i + seed) * 2654435761u >> 13);
    }
    return bytes;
  }
  void follow(const HostSlots& memory) {
    blocks_->follow(memory);
    blocks_->wait();
  }
  bool finds(uint64_t offset, size_t count) const {
    return blocks_->find(memory_.bytes().subspan(offset, count)).has_value();
  }

  // As the device has them.
  std::vector<std::byte> copied(std::span<const std::byte> bytes) {
    std::vector<std::byte> back(bytes.size());
    const auto place = blocks_->find(bytes);
    EXPECT_TRUE(place.has_value());
    if (!place) return back;
    const GpuBuffer to = own(bytes.size());
    GpuCommands commands = device_->transfer().begin().value();
    commands.copy(*place->buffer, place->offset, to, 0, bytes.size());
    EXPECT_TRUE(device_->transfer().finish(commands).has_value());
    EXPECT_TRUE(device_->read(to, 0, back).has_value());
    return back;
  }
  bool reaches(std::span<const std::byte> bytes) {
    return std::ranges::equal(copied(bytes), bytes);
  }

  AlignedMemory memory_;
  uint64_t num_made_ = 0;
  std::optional<GpuHostBlocks> blocks_;
};

TEST_F(GpuHostBlocksTest, nothing_is_found_before_memory_is_followed) {
  slots(kSlotBytes, 4, 4);
  EXPECT_TRUE(blocks_->is_empty());
  EXPECT_FALSE(finds(0, 64));
  follow({});
  EXPECT_TRUE(blocks_->is_empty());
  EXPECT_FALSE(finds(0, 64));
}

TEST_F(GpuHostBlocksTest, bytes_are_found_and_copied_as_they_are_by_then) {
  const HostSlots memory = slots(kSlotBytes, 5, 5);
  write(0, memory_.bytes().size(), 1);
  follow(memory);
  EXPECT_FALSE(blocks_->is_empty());
  EXPECT_TRUE(reaches(memory_.bytes()));
  EXPECT_TRUE(reaches(bytes_at(0, 1)));
  EXPECT_TRUE(reaches(bytes_at(2 * kSlotBytes + 13, 777)));  // no slot's, and at odd addresses
  // What is written later as well: nothing was copied before.
  EXPECT_TRUE(reaches(write(kSlotBytes, kSlotBytes, 2)));
}

TEST_F(GpuHostBlocksTest, what_lies_across_an_end_or_elsewhere_is_not_found) {
  const HostSlots memory = slots(kLargeSlotBytes, 4, 4);
  follow(memory);
  const uint64_t block = 2 * kLargeSlotBytes, end = memory_.bytes().size();
  for (const uint64_t place : {block, end}) {
    EXPECT_TRUE(finds(place - 8, 8));
    const std::byte* across = memory_.bytes().data() + place - 8;
    EXPECT_FALSE(blocks_->find({across, 9}).has_value());
  }
  EXPECT_TRUE(finds(block, 8));
  const std::byte* first = memory_.bytes().data();
  EXPECT_FALSE(blocks_->find({first - 8, 8}).has_value());
  EXPECT_FALSE(blocks_->find({first - 8, 16}).has_value());
  EXPECT_FALSE(blocks_->find({first + end, 8}).has_value());
  const std::vector<std::byte> of_others(64);
  EXPECT_FALSE(blocks_->find(of_others).has_value());
}

// A block is made once all of it is there; the last one may be smaller than the others.
TEST_F(GpuHostBlocksTest, blocks_follow_as_memory_comes) {
  HostSlots memory = slots(kLargeSlotBytes, 0, 5);
  const uint64_t begins[] = {0, 2 * kLargeSlotBytes, 4 * kLargeSlotBytes};
  for (uint32_t i = 0; i < 3; ++i) write(begins[i] + 100, 1000, i);
  const int64_t blocks_there[] = {0, 0, 1, 1, 2, 3};
  for (memory.count = 0; memory.count <= memory.count_max; ++memory.count) {
    follow(memory);
    const int64_t there = blocks_there[memory.count];
    EXPECT_EQ(blocks_->is_empty(), there == 0);
    for (int64_t i = 0; i < 3; ++i) {
      EXPECT_EQ(finds(begins[i] + 100, 1000), i < there) << i << " of " << memory.count;
    }
    for (int64_t i = 0; i < there; ++i) EXPECT_TRUE(reaches(bytes_at(begins[i] + 100, 1000)));
  }
}

// Whoever follows while blocks are made waits for nothing, and the next one goes on.
TEST_F(GpuHostBlocksTest, memory_may_come_while_blocks_are_made) {
  HostSlots memory = slots(kLargeSlotBytes, 2, 5);
  write(4 * kLargeSlotBytes, 500, 3);
  for (memory.count = 2; memory.count < memory.count_max; ++memory.count) blocks_->follow(memory);
  blocks_->follow(memory);
  blocks_->wait();
  follow(memory);
  EXPECT_TRUE(reaches(bytes_at(4 * kLargeSlotBytes, 500)));
  EXPECT_TRUE(finds(2 * kLargeSlotBytes, 500));
}

TEST_F(GpuHostBlocksTest, once_some_was_given_back_all_begins_anew) {
  HostSlots memory = slots(kLargeSlotBytes, 5, 5);
  write(0, 300, 1);
  write(4 * kLargeSlotBytes, 300, 2);
  follow(memory);
  EXPECT_TRUE(finds(4 * kLargeSlotBytes, 300));
  ++memory.generation;
  memory.count = 1;
  memory_.give_back_after(kLargeSlotBytes);
  follow(memory);
  EXPECT_TRUE(blocks_->is_empty());
  EXPECT_FALSE(finds(0, 300));
  memory.count = 4;
  follow(memory);
  EXPECT_TRUE(reaches(bytes_at(0, 300)));
  EXPECT_FALSE(finds(4 * kLargeSlotBytes, 300));
  memory.count = 5;
  follow(memory);
  EXPECT_TRUE(reaches(write(4 * kLargeSlotBytes, 300, 5)));
  // All of it gives way for other memory, too.
  const AlignedMemory before = std::move(memory_);
  memory = slots(kSlotBytes, 2, 2);
  follow(memory);
  EXPECT_TRUE(reaches(write(kSlotBytes, 99, 6)));
  EXPECT_FALSE(blocks_->find(before.bytes().first(300)).has_value());
}

TEST_F(GpuHostBlocksTest, whoever_follows_nothing_any_more_may_end_at_any_time) {
  const HostSlots memory = slots(kLargeSlotBytes, 5, 5);
  for (int i = 0; i < 3; ++i) {
    blocks_->follow(memory);
    blocks_.emplace(*device_);
  }
  EXPECT_TRUE(blocks_->is_empty());
}

TEST_F(GpuHostBlocksTest,
       memory_that_begins_or_ends_where_the_device_does_not_want_it_is_not_found) {
  const auto expect_nothing = [&](const HostSlots& memory) {
    follow(memory);
    EXPECT_TRUE(blocks_->is_empty()) << memory.slot_bytes;
    EXPECT_FALSE(blocks_->find({memory.begin, 64}).has_value());
  };
  HostSlots memory = slots(kSlotBytes, 5, 5);
  memory.begin += 64;
  memory.count = memory.count_max = 4;
  expect_nothing(memory);
  expect_nothing(slots(1001, 10, 10));
  expect_nothing(slots(70'001, 3, 3));  // no number of them is a block
  follow(slots(1001, 4096, 4096));      // so many are whole pages
  EXPECT_TRUE(finds(1001, 1001));
}

}  // namespace
}  // namespace penstock
