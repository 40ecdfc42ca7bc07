#include "base/memory.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <utility>

namespace penstock {
namespace {

uint64_t address_of(const AlignedMemory& memory) {
  return reinterpret_cast<uintptr_t>(memory.bytes().data());
}

TEST(AlignedMemory, is_zero_writable_and_aligned_by_size) {
  for (const uint64_t bytes : {uint64_t{1}, uint64_t{4097}, uint64_t{2} << 20, uint64_t{5000001}}) {
    auto memory = *AlignedMemory::create(bytes, "a test", Prefault::kYes);
    ASSERT_EQ(memory.bytes().size(), bytes);
    EXPECT_EQ(address_of(memory) % (bytes >= (2u << 20) ? 2u << 20 : 4096u), 0u);
    EXPECT_EQ(memory.bytes().front(), std::byte{0});
    EXPECT_EQ(memory.bytes().back(), std::byte{0});
    memory.bytes().back() = std::byte{1};
  }
}

TEST(AlignedMemory, moving_hands_the_bytes_over) {
  auto memory = *AlignedMemory::create(8192, "a test");
  const uint64_t address = address_of(memory);
  memory.bytes()[100] = std::byte{42};
  AlignedMemory other = std::move(memory);
  EXPECT_EQ(address_of(other), address);
  other = *AlignedMemory::create(4096, "a test");
  EXPECT_EQ(other.bytes().size(), 4096u);
}

TEST(AlignedMemory, of_zero_bytes_is_empty) {
  EXPECT_TRUE(AlignedMemory::create(0, "nothing")->bytes().empty());
}

TEST(AlignedMemory, refuses_what_no_machine_has_with_the_numbers) {
  for (const uint64_t bytes : {uint64_t{1} << 50, UINT64_MAX, UINT64_MAX / 2}) {
    const auto memory = AlignedMemory::create(bytes, "expert slots");
    ASSERT_FALSE(memory.has_value());
    EXPECT_EQ(memory.error().code, ErrorCode::kOutOfMemory);
    EXPECT_NE(memory.error().message.find("expert slots"), std::string::npos);
    EXPECT_NE(memory.error().message.find(std::to_string(bytes)), std::string::npos);
  }
}

TEST(AlignedMemory, the_seam_fails_exactly_one_allocation) {
  fail_allocation_after(1);
  EXPECT_TRUE(AlignedMemory::create(4096, "first").has_value());
  EXPECT_FALSE(AlignedMemory::create(4096, "second").has_value());
  EXPECT_TRUE(AlignedMemory::create(4096, "third").has_value());
  fail_allocation_after(-1);
  EXPECT_TRUE(AlignedMemory::create(4096, "fourth").has_value());
}

}  // namespace
}  // namespace penstock
