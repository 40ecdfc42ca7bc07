#include "io/checksum.h"

#include <gtest/gtest.h>

#include <vector>

namespace penstock {
namespace {

std::vector<std::byte> ramp(size_t bytes) {
  std::vector<std::byte> result(bytes);
  for (size_t i = 0; i < bytes; ++i) result[i] = static_cast<std::byte>(i * 7 + 3);
  return result;
}

TEST(Checksum, is_the_published_function) {
  // XXH3-128 of no bytes with seed 0, from the algorithm's specification.
  EXPECT_EQ(checksum({}, 0), (Hash128{0x6001c324468d497fu, 0x99aa06d3014798d8u}));
}

TEST(Checksum, changes_with_every_single_bit) {
  std::vector<std::byte> bytes = ramp(700);
  const Hash128 before = checksum(bytes, 5);
  for (size_t bit = 0; bit < bytes.size() * 8; ++bit) {
    const auto mask = static_cast<std::byte>(1u << (bit % 8));
    bytes[bit / 8] ^= mask;
    EXPECT_NE(checksum(bytes, 5), before) << bit;
    bytes[bit / 8] ^= mask;
  }
  EXPECT_EQ(checksum(bytes, 5), before);
}

TEST(Checksum, of_a_part_knows_where_the_part_belongs) {
  const std::vector<std::byte> bytes = ramp(4096);
  const Hash128 home = part_checksum(1, 2, 3, 0, bytes);
  EXPECT_EQ(part_checksum(1, 2, 3, 0, bytes), home);
  EXPECT_NE(part_checksum(9, 2, 3, 0, bytes), home);
  EXPECT_NE(part_checksum(1, 3, 2, 0, bytes), home);
  EXPECT_NE(part_checksum(1, 2, 4, 0, bytes), home);
  EXPECT_NE(part_checksum(1, 2, 3, 1, bytes), home);
}

TEST(Checksum, of_a_block_knows_its_place) {
  const std::vector<std::byte> bytes = ramp(4096);
  EXPECT_EQ(block_checksum(1, 2, bytes), block_checksum(1, 2, bytes));
  EXPECT_NE(block_checksum(1, 2, bytes), block_checksum(1, 3, bytes));
  EXPECT_NE(block_checksum(1, 2, bytes), block_checksum(2, 2, bytes));
}

TEST(Checksum, in_pieces_equals_the_whole) {
  const std::vector<std::byte> bytes = ramp(5000);
  const std::span<const std::byte> all = bytes;
  for (const size_t cut : {size_t{0}, size_t{1}, size_t{255}, size_t{256}, size_t{4999}}) {
    RunningChecksum running;
    running.update(all.first(cut));
    running.update(all.subspan(cut));
    EXPECT_EQ(running.value(), checksum(all, 0)) << cut;
  }
}

}  // namespace
}  // namespace penstock
