// Matrices in coded panels: every product gives the bits of the plain version, on every instruction
// set, for any number of threads and rows.

#include <gtest/gtest.h>

#include <limits>
#include <numeric>

#include "compute/cpu/cpu_backend.h"
#include "compute/reference.h"
#include "compute/test_coded.h"

namespace penstock::test {
namespace {

constexpr int64_t kHidden = 512, kRows = 71, kTokens = 30;

std::unique_ptr<CpuBackend> backend(int threads, const std::string& target, Arithmetic arithmetic) {
  const BackendLimits limits{.tokens = kTokens,
                             .hidden_size = kHidden,
                             .width = kHidden,
                             .top_k = 2,
                             .expert_width = kHidden,
                             .context = 16,
                             .coded_columns = kHidden};
  return CpuBackend::create(threads, limits, {.target = target, .arithmetic = arithmetic}).value();
}

std::vector<float> product(CpuBackend& ops, const Matrix& matrix, Rows x) {
  const OwnedRows out(x.count, matrix.rows, 0);
  const Projection projection[] = {{matrix, nullptr, out.rows}};
  ops.matmul(x, projection);
  return out.values;
}

std::vector<float> plain_product(const Matrix& matrix, Rows x, Arithmetic arithmetic) {
  std::vector<float> out(static_cast<size_t>(x.count * matrix.rows));
  for (int64_t t = 0; t < x.count; ++t) {
    panel_product(matrix, x.row(t), arithmetic,
                  std::span(out).subspan(static_cast<size_t>(t * matrix.rows),
                                         static_cast<size_t>(matrix.rows)));
  }
  return out;
}

std::vector<Coding> codings_in_panels() {
  std::vector<Coding> list = all_codings();
  list.push_back({.kind = Coding::Kind::kAffine, .affine = {8, 64, DType::kF32}});
  list.push_back({.kind = Coding::Kind::kAffine, .affine = {4, 256, DType::kBF16}});
  std::erase_if(list, [](const Coding& coding) { return !has_row_panels(coding, kHidden); });
  return list;
}

TEST(CodedPanels, most_codings_lie_in_panels) {
  // 19 of GGUF, 18 + 2 of MLX's groups, MXFP4, FP8 with two types of scales.
  EXPECT_EQ(codings_in_panels().size(), 42u);
}

TEST(CodedPanels, every_coding_multiplies_as_the_plain_version) {
  Coded random(11);
  Values source(12);
  const OwnedRows x(source, kTokens, kHidden);
  for (const Coding& coding : codings_in_panels()) {
    const CodedMatrix rows = random.matrix(coding, kRows, kHidden);
    const PanelMatrix panels = in_panels(rows);
    const auto expected = plain_product(panels.matrix, x.rows, Arithmetic::kFixed16);
    const auto as_floats = plain_product(rows.plain->matrix, x.rows, Arithmetic::kFixed16);
    EXPECT_EQ(same_bits(expected, as_floats),
              !multiplies_codes(panels.matrix, Arithmetic::kFixed16))
        << name_of(coding);
    for (const std::string& target : CpuBackend::targets()) {
      for (const auto& [threads, tokens] :
           {std::pair<int, int64_t>{1, 1}, {3, 2}, {2, 3}, {1, 4}, {3, 13}, {2, kTokens}}) {
        const auto ops = backend(threads, target, Arithmetic::kFixed16);
        const auto out = product(*ops, panels.matrix, x.rows.first(tokens));
        EXPECT_TRUE(same_bits(out, std::span(expected).first(out.size())))
            << name_of(coding) << " " << target << " " << tokens;
      }
    }
  }
}

// An input is off by half a step of its block's largest, and f32 rounds after that.
TEST(CodedPanels, whole_numbers_are_near_the_floats_that_they_stand_for) {
  Coded random(13);
  Values source(14);
  const OwnedRows x(source, 3, kHidden);
  for (const Coding& coding : codings_in_panels()) {
    const CodedMatrix rows = random.matrix(coding, kRows, kHidden);
    const auto got = plain_product(in_panels(rows).matrix, x.rows, Arithmetic::kFixed16);
    for (int64_t row = 0; row < kRows; ++row) {
      std::vector<float> weights(kHidden);
      panel_row(rows.plain->matrix, row, weights);
      for (int64_t t = 0; t < 3; ++t) {
        double exact = 0, largest = 0, sizes = 0, spread = 0;
        for (size_t c = 0; c < weights.size(); ++c) {
          exact += double{weights[c]} * double{x.rows.row(t)[c]};
          largest = std::max(largest, std::fabs(double{x.rows.row(t)[c]}));
          sizes += std::fabs(double{weights[c]});
          spread = std::max(spread, std::fabs(double{weights[c]}));
        }
        // Minima and codes are summed apart and may cancel: 512 columns of at most twice the spread.
        const double bound = largest * (sizes * 0.52 / 32639 + 2 * kHidden * spread * 0x1p-20);
        EXPECT_NEAR(got[static_cast<size_t>(t * kRows + row)], exact, bound) << name_of(coding);
      }
    }
  }
}

TEST(CodedPanels, in_float32_and_of_fp8_they_are_the_f32_matrix) {
  Coded random(15);
  Values source(16);
  const OwnedRows x(source, 5, kHidden);
  for (const Coding& coding : codings_in_panels()) {
    const CodedMatrix rows = random.matrix(coding, kRows, kHidden);
    const PanelMatrix panels = in_panels(rows);
    const auto ops = backend(2, "", Arithmetic::kFloat32);
    EXPECT_TRUE(
        same_bits(product(*ops, panels.matrix, x.rows), product(*ops, rows.plain->matrix, x.rows)))
        << name_of(coding);
    const std::vector<int32_t> ids = {70, 0, 17};
    const OwnedRows a(3, kHidden), b(3, kHidden);
    ops->embed(panels.matrix, ids, a.rows);
    ops->embed(rows.plain->matrix, ids, b.rows);
    EXPECT_TRUE(same_bits(a.values, b.values)) << name_of(coding);
  }
}

// The codes of a matrix of ours as MLX would write them.
CodedMatrix affine_of(const Matrix& matrix) {
  const int bits = bits_of(matrix.dtype);
  CodedMatrix made;
  const Coding coding = {.kind = Coding::Kind::kAffine, .affine = {.bits = bits}};
  const RowBytes row = row_bytes(coding, matrix.columns);
  made.codes.resize(row.codes * static_cast<uint64_t>(matrix.rows));
  for (int64_t r = 0; r < matrix.rows; ++r) {
    std::byte* codes = made.codes.data() + static_cast<uint64_t>(r) * row.codes;
    for (int64_t block = 0; block < matrix.num_blocks(); ++block) {
      const AffineGroup group = panel_group(matrix, r, block);
      for (size_t c = 0; c < kGroupColumns; ++c) {
        const size_t bit =
            (static_cast<size_t>(block) * kGroupColumns + c) * static_cast<size_t>(bits);
        for (int i = 0; i < bits; ++i) {
          const auto value = static_cast<std::byte>((group.codes[c] >> i & 1)
                                                    << ((bit + static_cast<size_t>(i)) % 8));
          codes[(bit + static_cast<size_t>(i)) / 8] |= value;
        }
      }
      for (const auto& [plane, number] :
           {std::pair{&made.scales, group.scale}, {&made.biases, group.bias}}) {
        plane->push_back(static_cast<std::byte>(number & 0xff));
        plane->push_back(static_cast<std::byte>(number >> 8));
      }
    }
  }
  made.matrix = {.rows = matrix.rows,
                 .columns = matrix.columns,
                 .coded = {.coding = coding,
                           .codes = made.codes.data(),
                           .scales = made.scales.data(),
                           .biases = made.biases.data()}};
  return made;
}

TEST(CodedPanels, affine_groups_of_64_give_the_bits_of_our_own_types) {
  Values source(17);
  const OwnedRows x(source, 14, kHidden);
  const auto ops = backend(2, "", Arithmetic::kFixed16);
  for (const DType dtype : {DType::kQ8, DType::kQ4, DType::kQ3, DType::kQ2}) {
    const OwnedMatrix ours(dtype, source, kRows, kHidden);
    const CodedMatrix rows = affine_of(ours.matrix);
    const PanelMatrix panels = in_panels(rows);
    for (const int64_t tokens : {1, 14}) {
      EXPECT_TRUE(same_bits(product(*ops, panels.matrix, x.rows.first(tokens)),
                            product(*ops, ours.matrix, x.rows.first(tokens))))
          << name_of(dtype) << " " << tokens;
    }
  }
}

TEST(CodedPanels, columns_in_another_order_meet_their_inputs) {
  Coded random(18);
  Values source(19);
  const OwnedRows x(source, 14, kHidden);
  const ColumnOrder order{64, {0, 4, 1, 5, 2, 6, 3, 7}};
  const CodedMatrix rows = random.matrix({.block = BlockType::kQ6K}, kRows, kHidden, order);
  PanelMatrix panels = in_panels(rows);
  const auto ops = backend(2, "", Arithmetic::kFixed16),
             exact = backend(2, "", Arithmetic::kFloat32);
  const auto unmoved = product(*ops, panels.matrix, x.rows);
  panels.matrix.coded.order = &rows.order;
  const auto moved = product(*ops, panels.matrix, x.rows);
  EXPECT_TRUE(same_bits(moved, plain_product(panels.matrix, x.rows, Arithmetic::kFixed16)));
  EXPECT_FALSE(same_bits(moved, unmoved));
  EXPECT_TRUE(same_bits(product(*exact, panels.matrix, x.rows),
                        product(*exact, rows.plain->matrix, x.rows)));
  // Both in one call, packed for the one and the other.
  const OwnedRows a(14, kRows, 0), b(14, kRows, 0);
  Matrix other = panels.matrix;
  other.coded.order = nullptr;
  const Projection both[] = {{panels.matrix, nullptr, a.rows}, {other, nullptr, b.rows}};
  ops->matmul(x.rows, both);
  EXPECT_TRUE(same_bits(a.values, moved));
  EXPECT_TRUE(same_bits(b.values, unmoved));
}

TEST(CodedPanels, experts_of_mixed_codings_and_up_below_gate) {
  Coded random(20);
  Values source(21);
  const OwnedRows x(source, kTokens, kHidden);
  std::vector<int32_t> tokens(kTokens), places(kTokens);
  std::iota(tokens.begin(), tokens.end(), 0);
  for (int32_t i = 0; i < kTokens; ++i) places[static_cast<size_t>(i)] = 2 * i;
  // Up begins inside a panel of the one matrix.
  const CodedMatrix both_rows = random.matrix({.block = BlockType::kQ5_1}, 200, kHidden);
  const PanelMatrix both = in_panels(both_rows);
  const CodedMatrix gate_rows = random.matrix({.block = BlockType::kQ4K}, 100, kHidden);
  const PanelMatrix gate = in_panels(gate_rows);
  const OwnedMatrix up(DType::kQ4, source, 100, kHidden);
  const auto run = [&](CpuBackend& ops, const ExpertWork& work) {
    OwnedRows hidden(2 * kTokens, 100);
    ops.expert_gate_up(x.rows, std::span(&work, 1), hidden.rows);
    return hidden.values;
  };
  for (const size_t count : {size_t{1}, size_t{kTokens}}) {
    ExpertWork work = work_of_gate_up(both.matrix, {}, std::span(tokens).first(count),
                                      std::span(places).first(count));
    const auto one = backend(1, CpuBackend::targets().back(), Arithmetic::kFixed16);
    const auto many = backend(3, "", Arithmetic::kFixed16);
    EXPECT_TRUE(same_bits(run(*many, work), run(*one, work)));
    work.gate = gate.matrix;
    work.up = up.matrix;
    work.up_first_row = 0;
    EXPECT_TRUE(same_bits(run(*many, work), run(*one, work)));
  }
}

TEST(CodedPanels, inputs_that_are_no_numbers_show) {
  Coded random(22);
  Values source(23);
  const OwnedRows x(source, 2, kHidden);
  x.rows.row(1)[100] = std::numeric_limits<float>::infinity();
  const auto ops = backend(1, "", Arithmetic::kFixed16);
  for (const Coding& coding : codings_in_panels()) {
    const CodedMatrix rows = random.matrix(coding, 16, kHidden);
    const auto out = product(*ops, in_panels(rows).matrix, x.rows);
    EXPECT_TRUE(std::isfinite(out[0])) << name_of(coding);
    EXPECT_FALSE(std::isfinite(out[16])) << name_of(coding);
  }
}

}  // namespace
}  // namespace penstock::test
