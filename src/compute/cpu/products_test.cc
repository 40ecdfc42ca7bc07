// Matrix products of the CPU backend on every instruction set of this machine.
#include <gtest/gtest.h>

#include <limits>
#include <numeric>
#include <tuple>

#include "compute/cpu/cpu_backend.h"
#include "compute/exact_math.h"
#include "compute/reference.h"
#include "compute/test_values.h"

namespace penstock {
namespace {

using test::kPanelTypes;
using test::OwnedMatrix;
using test::OwnedRows;
using test::same_bits;
using test::Values;

constexpr BackendLimits kProductLimits = {
    .tokens = 37, .hidden_size = 320, .width = 320, .top_k = 3, .expert_width = 128};

// Every instruction set with every arithmetic.
class ProductTest : public testing::TestWithParam<std::tuple<std::string, Arithmetic>> {
 protected:
  static std::string target() { return std::get<0>(GetParam()); }
  static Arithmetic arithmetic() { return std::get<1>(GetParam()); }
  static std::unique_ptr<CpuBackend> backend(int threads) {
    return CpuBackend::create(threads, kProductLimits,
                              {.target = target(), .arithmetic = arithmetic()})
        .value();
  }
  static void product(const Matrix& matrix, std::span<const float> x, std::span<float> out) {
    panel_product(matrix, x, arithmetic(), out);
  }
};

struct Shape {
  int64_t rows, columns, tokens;
};

// Odd numbers of rows, columns and tokens; only plain types may have a block that is not whole.
std::vector<Shape> shapes_of(DType dtype) {
  std::vector<Shape> shapes;
  for (const int64_t tokens : {1, 2, 3, 4, 5, 7, 11, 12, 13, 37}) {
    shapes.push_back({49, 128, tokens});
  }
  shapes.insert(shapes.end(), {{1, 64, 1}, {16, 64, 3}, {17, 320, 2}, {130, 192, 1}});
  if (!is_quantised(dtype)) {
    shapes.insert(shapes.end(), {{3, 1, 1}, {20, 65, 4}, {33, 100, 13}, {16, 63, 2}});
  }
  return shapes;
}

// Also says that a row's result has nothing to do with the rows beside it: each must equal the
// product of that row alone.
TEST_P(ProductTest, has_the_bits_of_the_plain_order_of_operations_in_every_format_and_shape) {
  const auto ops = backend(2);
  for (const DType dtype : kPanelTypes) {
    for (const Shape& shape : shapes_of(dtype)) {
      Values source(static_cast<uint32_t>(shape.rows * shape.tokens));
      const OwnedMatrix weight(dtype, source, shape.rows, shape.columns);
      const OwnedRows x(source, shape.tokens, shape.columns);
      const OwnedRows out(shape.tokens, shape.rows);
      const Projection projections[] = {{weight.matrix, nullptr, out.rows}};
      ops->matmul(x.rows, projections);
      std::vector<float> expected(static_cast<size_t>(shape.rows));
      for (int64_t t = 0; t < shape.tokens; ++t) {
        product(weight.matrix, x.rows.row(t), expected);
        EXPECT_TRUE(same_bits(out.rows.row(t), expected))
            << name_of(dtype) << " [" << shape.rows << ", " << shape.columns << "], token " << t
            << " of " << shape.tokens;
      }
    }
  }
}

// What fixed point can add: each x of a block is off by half of its scale.
double fixed_error_bound(const Matrix& matrix, int64_t row, std::span<const float> x) {
  if (!is_quantised(matrix.dtype)) return 0;
  std::vector<float> weights(x.size());
  panel_row(matrix, row, weights);
  double bound = 0;
  for (size_t start = 0; start < x.size(); start += kGroupColumns) {
    double largest = 0, sizes = 0;
    for (size_t c = start; c < start + kGroupColumns; ++c) {
      largest = std::max(largest, std::fabs(double{x[c]}));
      sizes += std::fabs(double{weights[c]});
    }
    bound += sizes * largest * 0x1p-15 * 0.5001;
  }
  return bound;
}

TEST_P(ProductTest, is_as_near_to_the_sum_in_double_as_rounding_allows) {
  const auto ops = backend(1);
  ReferenceBackend reference;
  for (const DType dtype : kPanelTypes) {
    Values source(7);
    const OwnedMatrix weight(dtype, source, 50, 320);
    const OwnedRows x(source, 5, 320);
    const OwnedRows out(5, 50), expected(5, 50);
    const std::vector<float> bias = source.normal(50);
    const Projection projections[] = {{weight.matrix, bias.data(), out.rows}};
    const Projection plain[] = {{weight.matrix, bias.data(), expected.rows}};
    ops->matmul(x.rows, projections);
    reference.matmul(x.rows, plain);
    for (int64_t t = 0; t < 5; ++t) {
      for (size_t o = 0; o < 50; ++o) {
        const double bound =
            test::product_error_bound(weight.matrix, static_cast<int64_t>(o), x.rows.row(t)) +
            fixed_error_bound(weight.matrix, static_cast<int64_t>(o), x.rows.row(t)) +
            std::fabs(bias[o]) * 0x1p-22;
        EXPECT_NEAR(out.rows.row(t)[o], expected.rows.row(t)[o], bound) << name_of(dtype);
      }
    }
  }
}

TEST_P(ProductTest, tiny_and_large_inputs_keep_the_exactness_of_the_scaled_codes) {
  const auto ops = backend(1);
  for (const DType dtype : kPanelTypes) {
    for (const float size : {0x1p-100f, 0x1p80f}) {
      Values source(8);
      const OwnedMatrix weight(dtype, source, 16, 128);
      const OwnedRows x(source, 1, 128, size);
      const OwnedRows out(1, 16);
      const Projection projections[] = {{weight.matrix, nullptr, out.rows}};
      ops->matmul(x.rows, projections);
      std::vector<float> expected(16);
      product(weight.matrix, x.rows.row(0), expected);
      EXPECT_TRUE(same_bits(out.rows.row(0), expected)) << name_of(dtype) << " " << size;
    }
  }
}

TEST_P(ProductTest, inputs_that_are_not_finite_show_in_the_result) {
  const auto ops = backend(1);
  for (const DType dtype : kPanelTypes) {
    for (const float bad :
         {std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()}) {
      Values source(14);
      const OwnedMatrix weight(dtype, source, 16, 128);
      const OwnedRows x(source, 2, 128);
      x.rows.row(1)[70] = bad;
      const OwnedRows out(2, 16);
      const Projection projections[] = {{weight.matrix, nullptr, out.rows}};
      ops->matmul(x.rows, projections);
      for (size_t o = 0; o < 16; ++o) {
        EXPECT_TRUE(std::isfinite(out.rows.row(0)[o]));
        EXPECT_FALSE(std::isfinite(out.rows.row(1)[o])) << name_of(dtype) << " " << bad;
      }
    }
  }
}

// The largest sums that 32 bits have to hold: all codes and all inputs at their limits.
TEST_P(ProductTest, blocks_of_largest_codes_and_inputs_do_not_overflow) {
  const auto ops = backend(1);
  for (const DType dtype : kPanelTypes) {
    for (const float sign : {1.0f, -1.0f}) {
      std::vector<float> values(16 * 64, 1.0f);
      for (size_t row = 0; row < 16; ++row) values[row * 64] = -1.0f;  // one smallest code
      const OwnedMatrix weight(dtype, values, 16, 64);
      const OwnedRows x(1, 64), out(1, 16);
      std::fill(x.rows.row(0).begin(), x.rows.row(0).end(), sign);
      const Projection projections[] = {{weight.matrix, nullptr, out.rows}};
      ops->matmul(x.rows, projections);
      std::vector<float> expected(16);
      product(weight.matrix, x.rows.row(0), expected);
      EXPECT_TRUE(same_bits(out.rows.row(0), expected)) << name_of(dtype);
      EXPECT_NEAR(out.rows.row(0)[3], sign * 62, 0.5) << name_of(dtype);
    }
  }
}

TEST_P(ProductTest, projections_of_one_call_may_have_different_formats_and_sizes) {
  const auto ops = backend(3);
  Values source(9);
  const OwnedMatrix wide(DType::kQ4, source, 200, 128), narrow(DType::kQ8, source, 4, 128),
      plain(DType::kF32, source, 17, 128);
  const OwnedRows x(source, 6, 128);
  const OwnedRows wide_out(6, 200), narrow_out(6, 4), plain_out(6, 17);
  const Projection projections[] = {{wide.matrix, nullptr, wide_out.rows},
                                    {narrow.matrix, nullptr, narrow_out.rows},
                                    {plain.matrix, nullptr, plain_out.rows}};
  ops->matmul(x.rows, projections);
  for (const Projection& projection : projections) {
    std::vector<float> expected(static_cast<size_t>(projection.weight.rows));
    for (int64_t t = 0; t < 6; ++t) {
      product(projection.weight, x.rows.row(t), expected);
      EXPECT_TRUE(same_bits(projection.out.row(t), expected));
    }
  }
}

// silu(g) * u in double from the exact products, which the kernels round once each.
double gated(double gate, double up) {
  return gate / (1 + std::exp(-gate)) * up;
}

TEST_P(ProductTest, experts_read_and_write_the_rows_they_were_given) {
  const auto ops = backend(2);
  // Widths that end within a panel make the up rows begin within one.
  for (const int64_t width : {64, 40, 9}) {
    for (const DType dtype : {DType::kQ4, DType::kQ3, DType::kBF16}) {
      Values source(10);
      const OwnedMatrix first(dtype, source, 2 * width, 128), second(dtype, source, 2 * width, 128);
      const OwnedRows x(source, 9, 128);
      const OwnedRows hidden(9 * 3, width);
      const std::vector<int32_t> first_tokens = {8, 0, 3}, first_places = {24, 2, 10};
      const std::vector<int32_t> second_tokens = {5}, second_places = {16};
      const ExpertWork work[] = {work_of_gate_up(first.matrix, {}, first_tokens, first_places),
                                 work_of_gate_up(second.matrix, {}, second_tokens, second_places)};
      ops->expert_gate_up(x.rows, work, hidden.rows);
      std::vector<bool> written(27, false);
      for (const ExpertWork& expert : work) {
        std::vector<float> products(static_cast<size_t>(2 * width));
        for (size_t j = 0; j < expert.tokens.size(); ++j) {
          product(expert.gate, x.rows.row(expert.tokens[j]), products);
          const auto row = hidden.rows.row(expert.places[j]);
          written[static_cast<size_t>(expert.places[j])] = true;
          for (size_t i = 0; i < row.size(); ++i) {
            const double exact = gated(products[i], products[i + static_cast<size_t>(width)]);
            EXPECT_NEAR(row[i], exact, std::fabs(exact) * 1e-6 + 1e-9);
            const float up = products[i + static_cast<size_t>(width)];
            EXPECT_EQ(row[i], exact_product(exact_silu(products[i]), up));
          }
        }
      }
      for (int64_t place = 0; place < 27; ++place) {
        if (written[static_cast<size_t>(place)]) continue;
        const auto row = hidden.rows.row(place);
        EXPECT_TRUE(std::all_of(row.begin(), row.end(), [](float value) { return value == 0; }));
      }
    }
  }
}

TEST_P(ProductTest, gate_and_up_give_the_same_bits_as_one_matrix_or_two) {
  const auto ops = backend(2);
  for (const DType dtype : kPanelTypes) {
    for (const int64_t width : {64, 40}) {
      Values source(17);
      const std::vector<float> gate_values = source.normal(width * 192);
      const std::vector<float> up_values = source.normal(width * 192);
      std::vector<float> both_values = gate_values;
      both_values.insert(both_values.end(), up_values.begin(), up_values.end());
      const OwnedMatrix both(dtype, both_values, 2 * width, 192);
      const OwnedMatrix gate(dtype, gate_values, width, 192), up(dtype, up_values, width, 192);
      const OwnedRows x(source, 15, 192);
      std::vector<int32_t> rows(15);
      std::iota(rows.begin(), rows.end(), 0);
      const OwnedRows together(15, width), apart(15, width);
      const ExpertWork one[] = {work_of_gate_up(both.matrix, {}, rows, rows)};
      const ExpertWork two[] = {
          {.gate = gate.matrix, .up = up.matrix, .tokens = rows, .places = rows}};
      ops->expert_gate_up(x.rows, one, together.rows);
      ops->expert_gate_up(x.rows, two, apart.rows);
      EXPECT_TRUE(same_bits(apart.values, together.values)) << name_of(dtype) << " " << width;
    }
  }
}

TEST_P(ProductTest, gate_and_up_may_have_two_types) {
  const auto ops = backend(2);
  constexpr DType kTypes[] = {DType::kQ8, DType::kQ4, DType::kQ2, DType::kBF16, DType::kF32};
  for (const DType gate_type : kTypes) {
    for (const DType up_type : kTypes) {
      Values source(19);
      const OwnedMatrix gate(gate_type, source, 80, 128), up(up_type, source, 80, 128);
      const OwnedRows x(source, 13, 128);
      std::vector<int32_t> rows(13);
      std::iota(rows.begin(), rows.end(), 0);
      const ExpertWork work[] = {
          {.gate = gate.matrix, .up = up.matrix, .tokens = rows, .places = rows}};
      const OwnedRows hidden(13, 80);
      ops->expert_gate_up(x.rows, work, hidden.rows);
      std::vector<float> gates(80), ups(80);
      for (int64_t t = 0; t < 13; ++t) {
        product(gate.matrix, x.rows.row(t), gates);
        product(up.matrix, x.rows.row(t), ups);
        for (size_t i = 0; i < gates.size(); ++i) {
          const double exact = gated(gates[i], ups[i]);
          EXPECT_NEAR(hidden.rows.row(t)[i], exact, std::fabs(exact) * 1e-6 + 1e-9)
              << name_of(gate_type) << " " << name_of(up_type);
        }
      }
    }
  }
}

TEST_P(ProductTest, expert_down_is_the_product_of_the_places) {
  const auto ops = backend(2);
  Values source(11);
  const OwnedMatrix down(DType::kQ4, source, 100, 128);
  const OwnedRows hidden(source, 12, 128);
  const OwnedRows out(12, 100);
  const std::vector<int32_t> places = {11, 4, 0};
  const ExpertWork work[] = {{.down = down.matrix, .tokens = places, .places = places}};
  ops->expert_down(hidden.rows, work, out.rows);
  std::vector<float> expected(100);
  for (const int32_t place : places) {
    product(down.matrix, hidden.rows.row(place), expected);
    EXPECT_TRUE(same_bits(out.rows.row(place), expected));
  }
  EXPECT_EQ(out.rows.row(1)[0], 0);
}

TEST_P(ProductTest, an_expert_without_tokens_writes_nothing) {
  const auto ops = backend(1);
  Values source(12);
  const OwnedMatrix gate_up(DType::kQ4, source, 64, 128), down(DType::kQ4, source, 128, 64);
  const OwnedRows x(source, 4, 128);
  const OwnedRows hidden(4, 32);
  const ExpertWork work[] = {work_of_gate_up(gate_up.matrix, down.matrix, {}, {})};
  ops->expert_gate_up(x.rows, work, hidden.rows);
  EXPECT_EQ(std::accumulate(hidden.values.begin(), hidden.values.end(), 0.0f), 0.0f);
}

TEST_P(ProductTest, dense_ffn_mixes_formats_and_matches_the_reference) {
  const auto ops = backend(2);
  ReferenceBackend reference;
  Values source(13);
  const OwnedMatrix gate(DType::kQ8, source, 128, 192), up(DType::kQ4, source, 128, 192),
      down(DType::kQ3, source, 50, 128);
  const OwnedRows x(source, 14, 192);
  const OwnedRows out(14, 50), expected(14, 50);
  ops->dense_ffn(x.rows, gate.matrix, up.matrix, down.matrix, out.rows);
  reference.dense_ffn(x.rows, gate.matrix, up.matrix, down.matrix, expected.rows);
  // Values around 1; in fixed point each of three products is off by some 2^-15 of its inputs.
  const double bound = arithmetic() == Arithmetic::kFixed16 ? 2e-4 : 1e-5;
  for (int64_t t = 0; t < 14; ++t) {
    for (size_t o = 0; o < 50; ++o) {
      EXPECT_NEAR(out.rows.row(t)[o], expected.rows.row(t)[o], bound);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Targets, ProductTest,
                         testing::Combine(testing::ValuesIn(CpuBackend::targets()),
                                          testing::Values(Arithmetic::kFixed16,
                                                          Arithmetic::kFloat32)),
                         [](const auto& test) {
                           return std::get<0>(test.param) + "_" +
                                  std::string(name_of(std::get<1>(test.param)));
                         });

}  // namespace
}  // namespace penstock
