// Matrices in coded rows: every product gives the bits of the f32 matrix that their rows decode to.

#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <numeric>
#include <random>

#include "compute/cpu/cpu_backend.h"
#include "compute/reference.h"
#include "compute/test_coded.h"
#include "compute/test_values.h"

namespace penstock::test {
namespace {

constexpr int64_t kRowsHidden = 512, kWidth = 256, kRowsTokens = 30;

class CodedRowsTest : public testing::Test {
 protected:
  std::unique_ptr<CpuBackend> backend(int threads, const std::string& target,
                                      Arithmetic arithmetic) {
    const BackendLimits limits{.tokens = kRowsTokens,
                               .hidden_size = kRowsHidden,
                               .width = kRowsHidden,
                               .top_k = 2,
                               .expert_width = kWidth,
                               .context = 16,
                               .coded_columns = kRowsHidden};
    return CpuBackend::create(threads, limits, {.target = target, .arithmetic = arithmetic})
        .value();
  }
};

TEST_F(CodedRowsTest, every_coding_multiplies_as_the_f32_matrix_it_decodes_to) {
  Coded random(1);
  Values source(2);
  const OwnedRows x(source, kRowsTokens, kRowsHidden);
  for (const Coding& coding : all_codings()) {
    const CodedMatrix coded = random.matrix(coding, 71, kRowsHidden);
    std::vector<float> expected(static_cast<size_t>(kRowsTokens * 71));
    for (int64_t t = 0; t < kRowsTokens; ++t) {
      panel_product(coded.plain->matrix, x.rows.row(t), Arithmetic::kFloat32,
                    std::span(expected).subspan(static_cast<size_t>(t * 71), 71));
    }
    for (const std::string& target : CpuBackend::targets()) {
      for (const auto& [threads, tokens] :
           {std::pair<int, int64_t>{1, 1}, {3, 13}, {2, kRowsTokens}}) {
        const auto ops = backend(threads, target, Arithmetic::kFixed16);
        const OwnedRows out(tokens, 71, 0);
        const Projection projection[] = {{coded.matrix, nullptr, out.rows}};
        ops->matmul(x.rows.first(tokens), projection);
        EXPECT_TRUE(same_bits(out.values, std::span(expected).first(out.values.size())))
            << name_of(coding) << " " << target << " " << tokens;
      }
    }
  }
}

TEST_F(CodedRowsTest, columns_in_another_order_are_put_back) {
  Coded random(3);
  Values source(4);
  const OwnedRows x(source, 5, kRowsHidden);
  const ColumnOrder order{64, {0, 4, 1, 5, 2, 6, 3, 7}};
  const CodedMatrix coded = random.matrix({.block = BlockType::kQ4K}, 40, kRowsHidden, order);
  const auto ops = backend(2, "", Arithmetic::kFloat32);
  Matrix moved = coded.matrix;
  moved.coded.order = &coded.order;
  const OwnedRows out(5, 40), expected(5, 40), unmoved(5, 40);
  const Projection a[] = {{moved, nullptr, out.rows}};
  const Projection b[] = {{coded.plain->matrix, nullptr, expected.rows}};
  const Projection c[] = {{coded.matrix, nullptr, unmoved.rows}};
  ops->matmul(x.rows, a);
  ops->matmul(x.rows, b);
  ops->matmul(x.rows, c);
  EXPECT_TRUE(same_bits(out.values, expected.values));
  EXPECT_FALSE(same_bits(unmoved.values, expected.values));
}

TEST_F(CodedRowsTest, experts_of_mixed_codings_give_the_bits_of_their_f32_twins) {
  Coded random(5);
  Values source(6);
  const OwnedRows x(source, kRowsTokens, kRowsHidden);
  const CodedMatrix gate = random.matrix({.block = BlockType::kQ4K}, kWidth, kRowsHidden);
  const CodedMatrix up = random.matrix({.kind = Coding::Kind::kFp8}, kWidth, kRowsHidden);
  const CodedMatrix down = random.matrix({.block = BlockType::kQ6K}, kRowsHidden, kWidth);
  std::vector<int32_t> tokens(kRowsTokens), places(kRowsTokens);
  std::iota(tokens.begin(), tokens.end(), 0);
  for (int32_t i = 0; i < kRowsTokens; ++i) places[static_cast<size_t>(i)] = 2 * i;
  const auto run = [&](CpuBackend& ops, const Matrix& g, const Matrix& u, const Matrix& d,
                       size_t count) {
    OwnedRows hidden(2 * kRowsTokens, kWidth), out(2 * kRowsTokens, kRowsHidden);
    const ExpertWork work{.gate = g,
                          .up = u,
                          .down = d,
                          .tokens = std::span(tokens).first(count),
                          .places = std::span(places).first(count)};
    ops.expert_gate_up(x.rows, std::span(&work, 1), hidden.rows);
    ops.expert_down(hidden.rows, std::span(&work, 1), out.rows);
    return out.values;
  };
  for (const size_t count : {size_t{1}, size_t{kRowsTokens}}) {
    const auto ops = backend(3, "", Arithmetic::kFixed16);
    const auto expected =
        run(*ops, gate.plain->matrix, up.plain->matrix, down.plain->matrix, count);
    EXPECT_TRUE(same_bits(run(*ops, gate.matrix, up.matrix, down.matrix, count), expected));
    // Some coded, some in panels.
    EXPECT_TRUE(
        same_bits(run(*ops, gate.plain->matrix, up.matrix, down.plain->matrix, count), expected));
    EXPECT_TRUE(same_bits(run(*ops, gate.matrix, up.plain->matrix, down.matrix, count), expected));
    // Up below gate in one coded matrix, not at a multiple of a panel.
    const CodedMatrix both = random.matrix({.block = BlockType::kQ5_1}, 2 * 100, kRowsHidden);
    const ExpertWork coded = work_of_gate_up(
        both.matrix, down.matrix, std::span(tokens).first(count), std::span(places).first(count));
    const ExpertWork plain =
        work_of_gate_up(both.plain->matrix, down.matrix, std::span(tokens).first(count),
                        std::span(places).first(count));
    OwnedRows a(2 * kRowsTokens, 100), b(2 * kRowsTokens, 100);
    ops->expert_gate_up(x.rows, std::span(&coded, 1), a.rows);
    ops->expert_gate_up(x.rows, std::span(&plain, 1), b.rows);
    EXPECT_TRUE(same_bits(a.values, b.values));
  }
}

TEST_F(CodedRowsTest, an_embedding_gives_its_decoded_rows) {
  Coded random(7);
  const CodedMatrix table = random.matrix({.block = BlockType::kQ3K}, 50, kRowsHidden);
  const auto ops = backend(1, "", Arithmetic::kFixed16);
  const std::vector<int32_t> ids = {49, 0, 17};
  const OwnedRows a(3, kRowsHidden), b(3, kRowsHidden);
  ops->embed(table.matrix, ids, a.rows);
  ops->embed(table.plain->matrix, ids, b.rows);
  EXPECT_TRUE(same_bits(a.values, b.values));
}

}  // namespace
}  // namespace penstock::test
