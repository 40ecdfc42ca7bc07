#include "base/memory.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <string>
#include <utility>

namespace penstock {
namespace {

uint64_t address_of(const AlignedMemory& memory) {
  return reinterpret_cast<uintptr_t>(memory.bytes().data());
}

TEST(AlignedMemory, is_zero_writable_and_aligned_by_size) {
  for (const uint64_t bytes : {uint64_t{1}, uint64_t{4097}, uint64_t{2} << 20, uint64_t{5000001},
                               (uint64_t{200} << 20) + 5}) {  // in pieces, by several threads
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

TEST(AlignedMemory, gives_its_end_back_and_takes_it_again) {
  constexpr uint64_t kMiB = 1 << 20;
  auto memory = *AlignedMemory::create(16 * kMiB, "a test", Prefault::kYes);
  std::ranges::fill(memory.bytes(), std::byte{7});
  memory.give_back_after(5 * kMiB + 4096);
  EXPECT_EQ(memory.bytes()[5 * kMiB + 4095], std::byte{7});
  EXPECT_EQ(memory.bytes()[6 * kMiB], std::byte{0});
  EXPECT_EQ(memory.bytes().back(), std::byte{0});
  memory.give_back_after(16 * kMiB);  // nothing more
  ASSERT_TRUE(memory.take_again(5 * kMiB + 4096, 16 * kMiB).has_value());
  EXPECT_EQ(memory.bytes()[5 * kMiB + 4095], std::byte{7});
  fail_allocation_after(0);
  const auto refused = memory.take_again(0, kMiB);
  fail_allocation_after(-1);
  ASSERT_FALSE(refused.has_value());
  EXPECT_NE(refused.error().message.find("a test"), std::string::npos);
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
