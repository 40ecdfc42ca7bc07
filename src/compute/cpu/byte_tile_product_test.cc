// Products by tiles of bytes: the bits of every other kernel, in plain code on every instruction set
// and on the processor's unit where there is one.
#include <gtest/gtest.h>

#include <limits>

#include "compute/cpu/cpu_backend.h"
#include "compute/cpu/target.h"
#include "compute/reference.h"
#include "compute/test_values.h"

namespace penstock {
namespace {

using test::OwnedMatrix;
using test::OwnedRows;
using test::same_bits;
using test::Values;

constexpr BackendLimits kTileLimits = {
    .tokens = 110, .hidden_size = 1088, .width = 1088, .top_k = 3, .expert_width = 128};
constexpr DType kQuantised[] = {DType::kQ8, DType::kQ4, DType::kQ3, DType::kQ2};

struct Unit {
  std::string target;
  bool is_emulated;
};

// Plain code in place of the unit on every instruction set; the unit where there is one.
std::vector<Unit> units() {
  std::vector<Unit> units;
  for (const std::string& target : CpuBackend::targets()) {
    units.push_back({target, find_target(target).value().unit != IntegerUnit::kByteTiles});
  }
  return units;
}

class ByteTileTest : public testing::TestWithParam<Unit> {
 protected:
  std::unique_ptr<CpuBackend> ops =
      CpuBackend::create(
          2, kTileLimits,
          {.target = GetParam().target, .emulate_byte_tiles = GetParam().is_emulated})
          .value();
};

// 12, 13: one tile; 17, 32: two; 41: two and one; 107: two tasks and a rest of eleven; 36: a rest
// that the vectors take.
constexpr int64_t kTokens[] = {10, 12, 13, 16, 17, 31, 32, 36, 41, 64, 96, 107};

TEST_P(ByteTileTest, have_the_bits_of_the_plain_order_of_operations) {
  for (const DType dtype : kQuantised) {
    for (const int64_t tokens : kTokens) {
      for (const auto& [rows, columns] :
           {std::pair<int64_t, int64_t>{49, 128}, {33, 192}, {16, 1088}}) {
        Values source(static_cast<uint32_t>(rows * tokens));
        const OwnedMatrix weight(dtype, source, rows, columns);
        const OwnedRows x(source, tokens, columns);
        const OwnedRows out(tokens, rows);
        const Projection projections[] = {{weight.matrix, nullptr, out.rows}};
        ops->matmul(x.rows, projections);
        std::vector<float> expected(static_cast<size_t>(rows));
        for (int64_t t = 0; t < tokens; ++t) {
          panel_product(weight.matrix, x.rows.row(t), Arithmetic::kFixed16, expected);
          ASSERT_TRUE(same_bits(out.rows.row(t), expected))
              << name_of(dtype) << " [" << rows << ", " << columns << "], token " << t << " of "
              << tokens;
        }
      }
    }
  }
}

TEST_P(ByteTileTest, the_largest_codes_and_inputs_do_not_overflow) {
  for (const DType dtype : kQuantised) {
    Values source(3);
    std::vector<float> values(16 * 64);
    for (size_t i = 0; i < values.size(); ++i) values[i] = i % 64 == 0 ? -1.0f : 1.0f;
    const OwnedMatrix weight(dtype, values, 16, 64);
    const OwnedRows x(source, 12, 64);
    for (int64_t t = 0; t < 12; ++t) {
      std::ranges::fill(x.rows.row(t), t % 2 == 0 ? 3.0f : -3.0f);
    }
    x.rows.row(5)[7] = std::numeric_limits<float>::infinity();
    x.rows.row(6)[0] = std::numeric_limits<float>::quiet_NaN();
    x.rows.row(7)[1] = 1e-42f;
    const OwnedRows out(12, 16);
    const Projection projections[] = {{weight.matrix, nullptr, out.rows}};
    ops->matmul(x.rows, projections);
    std::vector<float> expected(16);
    for (int64_t t = 0; t < 12; ++t) {
      panel_product(weight.matrix, x.rows.row(t), Arithmetic::kFixed16, expected);
      if (t == 5 || t == 6) {
        for (const float y : out.rows.row(t)) EXPECT_NE(y, y) << t;
      } else {
        EXPECT_TRUE(same_bits(out.rows.row(t), expected)) << name_of(dtype) << " " << t;
      }
    }
  }
}

TEST_P(ByteTileTest, experts_and_dense_layers_are_those_of_vectors) {
  const auto plain =
      CpuBackend::create(2, kTileLimits, {.target = CpuBackend::targets().back()}).value();
  for (const DType dtype : kQuantised) {
    Values source(9);
    const OwnedMatrix gate(dtype, source, 128, 320), up(DType::kQ8, source, 128, 320);
    const OwnedMatrix down(dtype, source, 320, 128);
    for (const int64_t tokens : {11, 33, 101}) {
      const OwnedRows x(source, tokens, 320);
      const OwnedRows out(tokens, 320), expected(tokens, 320);
      ops->dense_ffn(x.rows, gate.matrix, up.matrix, down.matrix, out.rows);
      plain->dense_ffn(x.rows, gate.matrix, up.matrix, down.matrix, expected.rows);
      for (int64_t t = 0; t < tokens; ++t) {
        ASSERT_TRUE(same_bits(out.rows.row(t), expected.rows.row(t))) << name_of(dtype) << t;
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Units, ByteTileTest, testing::ValuesIn(units()),
                         [](const auto& one) { return one.param.target; });

}  // namespace
}  // namespace penstock
