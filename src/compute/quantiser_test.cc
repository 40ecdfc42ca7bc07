// The quantisers: what a search may never lose, and where it may not go.
#include "compute/quantiser.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "compute/test_values.h"

namespace penstock {
namespace {

using test::FlushSubnormals;
using test::group_of;
using test::Values;
bool are_same(const AffineGroup& a, const AffineGroup& b) {
  return a.scale == b.scale && a.bias == b.bias && std::ranges::equal(a.codes, b.codes);
}

// Groups that a search could stumble over, beside ordinary ones.
std::vector<std::vector<float>> hard_groups() {
  Values source(11);
  std::vector<std::vector<float>> groups;
  for (const float size : {1.0f, 0.02f, 1e-6f, 1e-12f, 1e-38f, 1e-44f, 3e18f, 1e37f}) {
    groups.push_back(source.normal(kGroupColumns, size));
  }
  for (const float value : {0.0f, 1.5f, -3e-9f, 1e-42f, 1e38f, -1e38f}) {
    groups.emplace_back(kGroupColumns, value);
  }
  const auto with = [&](std::initializer_list<float> firsts) {
    std::vector<float> values = source.normal(kGroupColumns, 0.02f);
    std::ranges::copy(firsts, values.begin());
    groups.push_back(values);
  };
  with({1e38f, -1e38f});
  with({1e30f});
  with({-1.0f});
  with({1.0f, -1.0f});
  with({1e-45f, -1e-45f});
  std::vector<float> two(kGroupColumns, 0.25f);
  two[5] = -0.75f;
  groups.push_back(two);
  std::vector<float> neighbours(kGroupColumns, 1.0f);  // apart by the last bit of a float
  neighbours[9] = std::nextafter(1.0f, 2.0f);
  groups.push_back(neighbours);
  std::vector<float> sparse(kGroupColumns, 0.0f);
  sparse[63] = 0.125f;
  groups.push_back(sparse);
  std::vector<float> far(kGroupColumns, 1000.0f);  // little range far from zero
  for (size_t c = 0; c < far.size(); ++c) far[c] += static_cast<float>(c) * 0.01f;
  groups.push_back(far);
  return groups;
}

TEST(Search, no_group_becomes_worse_than_by_rounding) {
  Values source(12);
  std::vector<std::vector<float>> groups = hard_groups();
  for (int i = 0; i < 300; ++i) groups.push_back(source.normal(kGroupColumns, 0.05f));
  for (const std::vector<float>& values : groups) {
    for (const int bits : {2, 3, 4, 8}) {
      const AffineGroup rounded = quantise_group(group_of(values), bits);
      const AffineGroup searched = search_group(group_of(values), bits);
      EXPECT_LE(group_error(group_of(values), searched), group_error(group_of(values), rounded))
          << bits << " bits, first value " << values[0];
      EXPECT_LT(*std::ranges::max_element(searched.codes), 1 << bits);
    }
  }
}

TEST(Search, counts_what_matters_and_is_never_worse_there) {
  Values source(13);
  std::vector<std::vector<float>> groups = hard_groups();
  for (int i = 0; i < 100; ++i) groups.push_back(source.normal(kGroupColumns));
  double weighted = 0, plain = 0;
  for (const std::vector<float>& values : groups) {
    std::vector<float> importance = source.normal(kGroupColumns);
    for (float& weight : importance) weight = std::pow(weight, 4.0f);
    importance[3] = 0;
    for (const int bits : {2, 3, 4}) {
      const auto group = group_of(values);
      const AffineGroup searched = search_group(group, bits, importance);
      const double error = group_error(group, searched, importance);
      EXPECT_LE(error, group_error(group, quantise_group(group, bits), importance));
      if (std::fabs(values[0]) > 5 || values[0] == 0) continue;
      weighted += error;
      plain += group_error(group, search_group(group, bits), importance);
    }
  }
  EXPECT_LT(weighted, 0.8 * plain);
}

// What it is for: a bound that rounding does not keep, and a search that stopped working would not.
TEST(Search, takes_a_good_part_of_the_error_away) {
  Values source(14);
  for (const auto& [bits, most] : {std::pair{2, 0.70}, {3, 0.78}, {4, 0.84}}) {
    double rounded = 0, searched = 0;
    for (int i = 0; i < 400; ++i) {
      const std::vector<float> values = source.normal(kGroupColumns, 0.03f);
      rounded += group_error(group_of(values), quantise_group(group_of(values), bits));
      searched += group_error(group_of(values), search_group(group_of(values), bits));
    }
    EXPECT_LT(searched, most * rounded) << bits;
  }
}

// Four levels, found exactly: nothing is lost that need not be.
TEST(Search, finds_levels_that_are_there) {
  std::vector<float> values(kGroupColumns);
  for (size_t c = 0; c < values.size(); ++c) {
    values[c] = -0.5f + 0.25f * static_cast<float>(c % 4);
  }
  EXPECT_EQ(group_error(group_of(values), search_group(group_of(values), 2)), 0);
}

TEST(Search, scales_and_biases_are_as_the_arithmetic_asks) {
  std::vector<std::vector<float>> groups = hard_groups();
  Values source(15);
  for (float size = 1e-11f; size < 1e-5f; size *= 1.7f) {
    groups.push_back(source.normal(kGroupColumns, size));
  }
  for (const std::vector<float>& values : groups) {
    for (const int bits : {2, 3, 4}) {
      const AffineGroup group = search_group(group_of(values), bits);
      for (const uint16_t stored : {group.scale, group.bias}) {
        const float size = std::fabs(bf16_to_f32(stored));
        EXPECT_TRUE(std::isfinite(size));
        EXPECT_TRUE(size == 0 || size >= 0x1p-28f) << size;
      }
    }
  }
}

TEST(Search, what_is_no_number_is_rounded) {
  for (const float bad : {NAN, INFINITY, -INFINITY, std::numeric_limits<float>::max()}) {
    std::vector<float> values(kGroupColumns, 0.5f);
    values[7] = bad;
    values[8] = -0.25f;
    EXPECT_TRUE(are_same(search_group(group_of(values), 3), quantise_group(group_of(values), 3)));
  }
}

TEST(Search, is_the_same_where_subnormals_are_flushed) {
  std::vector<std::vector<float>> groups = hard_groups();
  for (const std::vector<float>& values : groups) {
    for (const int bits : {2, 3, 4}) {
      if (std::ranges::any_of(values, [](float v) { return v != 0 && std::fabs(v) < 1e-37f; })) {
        continue;
      }
      const AffineGroup as_is = search_group(group_of(values), bits);
      const FlushSubnormals flush;
      EXPECT_TRUE(are_same(search_group(group_of(values), bits), as_is)) << values[0];
    }
  }
}

TEST(Search, panels_hold_the_groups_it_found) {
  Values source(16);
  for (const DType dtype : {DType::kQ2, DType::kQ3, DType::kQ4, DType::kQ8}) {
    const int64_t rows = 21, columns = 128;
    const std::vector<float> values = source.normal(rows * columns);
    AlignedMemory memory =
        *AlignedMemory::create(static_cast<uint64_t>(panel_bytes(dtype, rows, columns)), "a test");
    quantise_panels(dtype, Quantiser::kSearch, values, rows, columns, memory.bytes());
    const Matrix matrix = {dtype, rows, columns, memory.bytes().data()};
    for (const int64_t row : {int64_t{0}, int64_t{15}, int64_t{20}}) {
      const auto group =
          std::span(values).subspan(static_cast<size_t>(row * columns + 64)).first<64>();
      EXPECT_TRUE(are_same(panel_group(matrix, row, 1), search_group(group, bits_of(dtype))));
    }
    AlignedMemory rounded = *AlignedMemory::create(memory.bytes().size(), "a test");
    quantise_panels(dtype, Quantiser::kRound, values, rows, columns, rounded.bytes());
    AlignedMemory made = *AlignedMemory::create(memory.bytes().size(), "a test");
    make_panels(dtype, values, rows, columns, made.bytes());
    EXPECT_TRUE(std::ranges::equal(rounded.bytes(), made.bytes()));
    EXPECT_EQ(std::ranges::equal(memory.bytes(), made.bytes()), dtype == DType::kQ8);
  }
}

}  // namespace
}  // namespace penstock
