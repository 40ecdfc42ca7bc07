// Matrices in coded rows: every product gives the bits of the f32 matrix that their rows decode to.

#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <numeric>
#include <random>

#include "compute/cpu/cpu_backend.h"
#include "compute/reference.h"
#include "compute/test_values.h"
#include "quant/block_decode.h"

namespace penstock::test {
namespace {

// A coded matrix with planes of its own, and the f32 matrix of what it stands for.
struct CodedMatrix {
  std::vector<std::byte> codes, scales, biases;
  ColumnOrder order;
  Matrix matrix;
  std::unique_ptr<OwnedMatrix> plain;
};

std::vector<Coding> all_codings() {
  std::vector<Coding> list;
  for (int type = 0; type < kNumBlockTypes; ++type) {
    const auto block = static_cast<BlockType>(type);
    if (is_decodable(block)) list.push_back({.block = block});
  }
  for (const int bits : {2, 3, 4, 5, 6, 8}) {
    for (const int64_t group : {32, 64, 128}) {
      list.push_back({.kind = Coding::Kind::kAffine,
                      .affine = {bits, group, bits % 2 == 0 ? DType::kBF16 : DType::kF16}});
    }
  }
  list.push_back({.kind = Coding::Kind::kMlxMxfp4});
  list.push_back({.kind = Coding::Kind::kFp8, .scale = DType::kBF16});
  list.push_back({.kind = Coding::Kind::kFp8, .scale = DType::kF32});
  return list;
}

// Random bytes that are no weights a file could hold are drawn again: what is not a number has
// many patterns of bits.
bool is_sane(std::span<const float> values) {
  return std::ranges::all_of(values, [](float v) { return std::fabs(v) < 1e6f; });
}

class Coded {
 public:
  explicit Coded(uint64_t seed) : random_(seed) {}

  CodedMatrix matrix(const Coding& coding, int64_t rows, int64_t columns,
                     const ColumnOrder& order = {}) {
    CodedMatrix made;
    const RowBytes row = row_bytes(coding, columns);
    const RowBytes plane = plane_bytes(coding, rows, columns);
    // One byte in front: nothing may count on an address.
    made.codes.resize(plane.codes + 1);
    made.scales.resize(plane.scales + 1);
    made.biases.resize(plane.biases + 1);
    made.order = order;
    CodedRows coded{.coding = coding,
                    .codes = made.codes.data() + 1,
                    .scales = made.scales.data() + 1,
                    .biases = made.biases.data() + 1,
                    .scale_rows = rows_of_scales(coding),
                    .order = nullptr};
    std::vector<float> values(static_cast<size_t>(rows * columns));
    std::vector<float> stored(static_cast<size_t>(columns));
    for (int64_t r = 0; r < rows; ++r) {
      const auto target =
          std::span(values).subspan(static_cast<size_t>(r * columns), stored.size());
      for (int attempt = 0;; ++attempt) {
        fill(coding, made, r, row, r % coded.scale_rows == 0);
        decode_row(coded, r, target, stored);
        if (is_sane(target)) break;
        check_attempt(attempt);
      }
      if (!order.is_natural()) {
        stored.assign(target.begin(), target.end());
        put_in_order(order, stored, target);
      }
    }
    made.plain = std::make_unique<OwnedMatrix>(DType::kF32, values, rows, columns);
    made.matrix = {.rows = rows, .columns = columns, .coded = coded};
    return made;
  }

 private:
  static void check_attempt(int attempt) {
    if (attempt > 10000) throw std::runtime_error("no weights in random bytes");
  }

  std::byte small_exponent() { return static_cast<std::byte>(118 + random_() % 12); }
  std::byte random_byte() { return static_cast<std::byte>(random_() & 0xff); }

  void put_number(DType dtype, std::byte* place, float value) {
    if (dtype == DType::kF32) {
      std::memcpy(place, &value, 4);
      return;
    }
    const uint16_t half =
        dtype == DType::kBF16 ? f32_to_bf16(value) : static_cast<uint16_t>(0x2000 + random_() % 64);
    std::memcpy(place, &half, 2);
  }

  void fill_numbers(DType dtype, std::span<std::byte> row) {
    const auto bytes = static_cast<size_t>(bits_of(dtype)) / 8;
    std::normal_distribution<float> normal(0, 0.01f);
    for (size_t at = 0; at < row.size(); at += bytes) {
      put_number(dtype, row.data() + at, normal(random_));
    }
  }

  static DType float_type(BlockType block) {
    if (block == BlockType::kF32) return DType::kF32;
    return block == BlockType::kF16 ? DType::kF16 : DType::kBF16;
  }

  void fill(const Coding& coding, CodedMatrix& made, int64_t r, const RowBytes& row,
            bool with_scales) {
    const auto of = [&](std::vector<std::byte>& plane, int64_t index, uint64_t bytes) {
      return std::span(plane).subspan(1 + static_cast<uint64_t>(index) * bytes, bytes);
    };
    const auto codes = of(made.codes, r, row.codes);
    for (std::byte& byte : codes) byte = random_byte();
    if (is_float(coding)) fill_numbers(float_type(coding.block), codes);
    if (coding.kind == Coding::Kind::kBlocks && coding.block == BlockType::kMxfp4) {
      // A block begins with its exponent.
      const auto bytes = static_cast<size_t>(layout_of(coding.block).bytes);
      for (size_t at = 0; at < codes.size(); at += bytes) codes[at] = small_exponent();
    }
    if (!with_scales || row.scales == 0) return;
    const int64_t scale_row = r / rows_of_scales(coding);
    const auto scales = of(made.scales, scale_row, row.scales);
    if (coding.kind == Coding::Kind::kMlxMxfp4) {
      for (std::byte& byte : scales) byte = small_exponent();
      return;
    }
    const DType dtype = coding.kind == Coding::Kind::kFp8 ? coding.scale : coding.affine.scales;
    fill_numbers(dtype, scales);
    if (row.biases > 0) fill_numbers(dtype, of(made.biases, scale_row, row.biases));
  }

  std::mt19937_64 random_;
};

constexpr int64_t kHidden = 512, kWidth = 256, kTokens = 30;

class CodedRowsTest : public testing::Test {
 protected:
  std::unique_ptr<CpuBackend> backend(int threads, const std::string& target,
                                      Arithmetic arithmetic) {
    const BackendLimits limits{.tokens = kTokens,
                               .hidden_size = kHidden,
                               .width = kHidden,
                               .top_k = 2,
                               .expert_width = kWidth,
                               .context = 16,
                               .coded_columns = kHidden};
    return CpuBackend::create(threads, limits, {.target = target, .arithmetic = arithmetic})
        .value();
  }
};

TEST_F(CodedRowsTest, every_coding_multiplies_as_the_f32_matrix_it_decodes_to) {
  Coded random(1);
  Values source(2);
  const OwnedRows x(source, kTokens, kHidden);
  for (const Coding& coding : all_codings()) {
    const CodedMatrix coded = random.matrix(coding, 71, kHidden);
    std::vector<float> expected(static_cast<size_t>(kTokens * 71));
    for (int64_t t = 0; t < kTokens; ++t) {
      panel_product(coded.plain->matrix, x.rows.row(t), Arithmetic::kFloat32,
                    std::span(expected).subspan(static_cast<size_t>(t * 71), 71));
    }
    for (const std::string& target : CpuBackend::targets()) {
      for (const auto& [threads, tokens] : {std::pair<int, int64_t>{1, 1}, {3, 13}, {2, kTokens}}) {
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
  const OwnedRows x(source, 5, kHidden);
  const ColumnOrder order{64, {0, 4, 1, 5, 2, 6, 3, 7}};
  const CodedMatrix coded = random.matrix({.block = BlockType::kQ4K}, 40, kHidden, order);
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
  const OwnedRows x(source, kTokens, kHidden);
  const CodedMatrix gate = random.matrix({.block = BlockType::kQ4K}, kWidth, kHidden);
  const CodedMatrix up = random.matrix({.kind = Coding::Kind::kFp8}, kWidth, kHidden);
  const CodedMatrix down = random.matrix({.block = BlockType::kQ6K}, kHidden, kWidth);
  std::vector<int32_t> tokens(kTokens), places(kTokens);
  std::iota(tokens.begin(), tokens.end(), 0);
  for (int32_t i = 0; i < kTokens; ++i) places[static_cast<size_t>(i)] = 2 * i;
  const auto run = [&](CpuBackend& ops, const Matrix& g, const Matrix& u, const Matrix& d,
                       size_t count) {
    OwnedRows hidden(2 * kTokens, kWidth), out(2 * kTokens, kHidden);
    const ExpertWork work{.gate = g,
                          .up = u,
                          .down = d,
                          .tokens = std::span(tokens).first(count),
                          .places = std::span(places).first(count)};
    ops.expert_gate_up(x.rows, std::span(&work, 1), hidden.rows);
    ops.expert_down(hidden.rows, std::span(&work, 1), out.rows);
    return out.values;
  };
  for (const size_t count : {size_t{1}, size_t{kTokens}}) {
    const auto ops = backend(3, "", Arithmetic::kFixed16);
    const auto expected =
        run(*ops, gate.plain->matrix, up.plain->matrix, down.plain->matrix, count);
    EXPECT_TRUE(same_bits(run(*ops, gate.matrix, up.matrix, down.matrix, count), expected));
    // Some coded, some in panels.
    EXPECT_TRUE(
        same_bits(run(*ops, gate.plain->matrix, up.matrix, down.plain->matrix, count), expected));
    EXPECT_TRUE(same_bits(run(*ops, gate.matrix, up.plain->matrix, down.matrix, count), expected));
    // Up below gate in one coded matrix, not at a multiple of a panel.
    const CodedMatrix both = random.matrix({.block = BlockType::kQ5_1}, 2 * 100, kHidden);
    const ExpertWork coded = work_of_gate_up(
        both.matrix, down.matrix, std::span(tokens).first(count), std::span(places).first(count));
    const ExpertWork plain =
        work_of_gate_up(both.plain->matrix, down.matrix, std::span(tokens).first(count),
                        std::span(places).first(count));
    OwnedRows a(2 * kTokens, 100), b(2 * kTokens, 100);
    ops->expert_gate_up(x.rows, std::span(&coded, 1), a.rows);
    ops->expert_gate_up(x.rows, std::span(&plain, 1), b.rows);
    EXPECT_TRUE(same_bits(a.values, b.values));
  }
}

TEST_F(CodedRowsTest, an_embedding_gives_its_decoded_rows) {
  Coded random(7);
  const CodedMatrix table = random.matrix({.block = BlockType::kQ3K}, 50, kHidden);
  const auto ops = backend(1, "", Arithmetic::kFixed16);
  const std::vector<int32_t> ids = {49, 0, 17};
  const OwnedRows a(3, kHidden), b(3, kHidden);
  ops->embed(table.matrix, ids, a.rows);
  ops->embed(table.plain->matrix, ids, b.rows);
  EXPECT_TRUE(same_bits(a.values, b.values));
}

}  // namespace
}  // namespace penstock::test
