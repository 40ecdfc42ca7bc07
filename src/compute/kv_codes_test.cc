#include "compute/kv_codes.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstring>
#include <limits>
#include <vector>

#include "compute/test_values.h"

namespace penstock {
namespace {

constexpr float kSmallest = std::numeric_limits<float>::min();

std::vector<float> coded(const std::vector<float>& x) {
  const int64_t floats = kv_row_floats(KvForm::kCodes8, std::ssize(x));
  std::vector<float> row(static_cast<size_t>(floats), NAN);  // every byte is to be written
  encode_kv(x.data(), std::ssize(x), row.data());
  return row;
}

std::vector<float> back(const std::vector<float>& row, int64_t head_dim) {
  std::vector<float> x(static_cast<size_t>(head_dim));
  decode_kv(row.data(), head_dim, x.data());
  return x;
}

std::vector<float> there_and_back(const std::vector<float>& x) {
  return back(coded(x), std::ssize(x));
}

// Of the group of component i.
float largest_near(const std::vector<float>& x, size_t i) {
  const size_t begin = i / kKvGroup * kKvGroup;
  float largest = 0;
  for (size_t j = begin; j < std::min(begin + kKvGroup, x.size()); ++j) {
    largest = std::max(largest, std::fabs(x[j]));
  }
  return largest;
}

TEST(KvCodes, a_row_of_a_head_of_256_is_a_quarter_and_a_scale_for_each_64) {
  EXPECT_EQ(kv_row_floats(KvForm::kFloat32, 256), 256);
  EXPECT_EQ(kv_row_floats(KvForm::kCodes8, 256), 64 + 4);
  EXPECT_EQ(kv_row_floats(KvForm::kCodes8, 7), 1 + 2);
  EXPECT_EQ(kv_row_floats(KvForm::kCodes8, 65), 2 + 17);
}

TEST(KvCodes, each_component_comes_back_within_half_a_scale_of_its_group) {
  test::Values source(5);
  for (const int64_t head_dim : {1, 2, 7, 16, 63, 64, 65, 128, 200, 256}) {
    for (const float size : {1e-30f, 1e-3f, 1.0f, 40.0f, 1e30f}) {
      std::vector<float> x = source.normal(head_dim, 1);
      for (size_t i = 0; i < x.size(); ++i) {
        x[i] *= i / kKvGroup % 2 == 0 ? size : 1;  // groups that differ much in size
      }
      const std::vector<float> y = there_and_back(x);
      for (size_t i = 0; i < x.size(); ++i) {
        const float largest = largest_near(x, i);
        ASSERT_LE(std::fabs(y[i] - x[i]), largest / 254 * (1 + 0x1p-15f)) << head_dim << " " << i;
        if (std::fabs(x[i]) == largest) {
          ASSERT_NEAR(y[i] / x[i], 1, 0x1p-22f);
        }
      }
    }
  }
}

TEST(KvCodes, what_came_back_once_has_the_same_codes_again) {
  test::Values source(6);
  const std::vector<float> x = source.normal(200, 1);
  const std::vector<float> once = there_and_back(x);
  const std::vector<float> twice = there_and_back(once);
  for (size_t i = 0; i < x.size(); ++i) ASSERT_NEAR(twice[i], once[i], 0x1p-20f) << i;
}

TEST(KvCodes, ties_go_to_the_even_code) {
  std::vector<float> x(64, 0.0f);
  x[0] = 127;
  x[1] = 0.5f, x[2] = 1.5f, x[3] = 2.5f, x[4] = -0.5f, x[5] = -1.5f, x[6] = -127;
  const std::vector<float> y = there_and_back(x);
  const std::vector<float> first(y.begin(), y.begin() + 7);
  EXPECT_EQ(first, (std::vector<float>{127, 0, 2, 2, 0, -2, -127}));
}

TEST(KvCodes, zeros_come_back_as_zeros_beside_a_group_that_is_none) {
  std::vector<float> x(128, 0.0f);
  std::fill(x.begin() + 64, x.end(), 3.0f);
  x[5] = -0.0f;
  const std::vector<float> y = there_and_back(x);
  for (size_t i = 0; i < 64; ++i) ASSERT_EQ(y[i], 0) << i;
  for (size_t i = 64; i < 128; ++i) ASSERT_EQ(y[i], 3) << i;
}

TEST(KvCodes, no_group_with_a_value_that_is_no_number_comes_back_as_numbers) {
  test::Values source(7);
  for (const float bad : {NAN, -NAN, INFINITY, -INFINITY, std::bit_cast<float>(0x7f800001u)}) {
    for (const size_t place : {size_t{0}, size_t{63}, size_t{64}, size_t{99}}) {
      std::vector<float> x = source.normal(100, 1);
      x[place] = bad;
      const std::vector<float> y = there_and_back(x);
      for (size_t i = 0; i < x.size(); ++i) {
        ASSERT_EQ(std::isnan(y[i]), i / kKvGroup == place / kKvGroup) << bad << " at " << place;
      }
    }
  }
}

TEST(KvCodes, the_ends_of_the_range_come_back_as_numbers) {
  for (const float largest :
       {std::numeric_limits<float>::max(), std::numeric_limits<float>::denorm_min(), kSmallest,
        kSmallest * 126, kSmallest * 127, kSmallest * 128}) {
    std::vector<float> x = {largest, -largest, largest / 2, 0};
    const std::vector<float> y = there_and_back(x);
    // Below 127 of the smallest normal numbers a group is nothing.
    const bool is_nothing = largest < kSmallest * 127;
    for (size_t i = 0; i < x.size(); ++i) {
      ASSERT_TRUE(std::isfinite(y[i])) << largest;
      if (is_nothing) {
        ASSERT_EQ(y[i], 0) << largest;
      } else {
        ASSERT_LE(std::fabs(y[i] - x[i]), largest / 254 * (1 + 0x1p-15f)) << largest;
      }
    }
  }
}

TEST(KvCodes, the_bytes_behind_the_codes_are_zeros) {
  for (const int64_t head_dim : {1, 2, 3, 66}) {
    const std::vector<float> row = coded(test::Values(8).normal(head_dim, 1));
    std::vector<std::byte> bytes(row.size() * sizeof(float));
    std::memcpy(bytes.data(), row.data(), bytes.size());
    for (size_t i = static_cast<size_t>(kv_groups(head_dim) * 4 + head_dim); i < bytes.size();
         ++i) {
      ASSERT_EQ(bytes[i], std::byte{0}) << head_dim;
    }
  }
}

}  // namespace
}  // namespace penstock
