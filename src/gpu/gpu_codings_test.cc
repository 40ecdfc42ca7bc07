// Weights in files' own codings on the software device: the bits of the CPU.
#include <algorithm>
#include <cstring>
#include <numeric>

#include "compute/cpu/cpu_backend.h"
#include "compute/test_coded.h"
#include "gpu/gpu_backend.h"
#include "gpu/test_gpu.h"

namespace penstock {
namespace {

using test::Coded;
using test::CodedMatrix;
using test::GpuTest;
using test::in_panels;
using test::OwnedRows;
using test::PanelMatrix;
using test::same_bits;
using test::Values;

// Widths of whole units that are no power of two; rows that are no whole panels.
constexpr int64_t kColumns = 768, kRows = 71, kTokens = 20;

bool is_computed(const Coding& coding) {
  return GpuCoding(coding).is_there() && has_row_panels(coding, kColumns);
}

std::vector<Coding> codings_of_gpus() {
  std::vector<Coding> list = test::all_codings();
  list.push_back({.kind = Coding::Kind::kAffine, .affine = {8, 64, DType::kF32}});
  list.push_back({.kind = Coding::Kind::kAffine, .affine = {4, 256, DType::kBF16}});
  std::erase_if(list, [](const Coding& coding) { return !is_computed(coding); });
  return list;
}

// One of each kind of kernel: compiling them takes most of the time here.
std::vector<Coding> some_codings() {
  std::vector<Coding> list = {{.kind = Coding::Kind::kAffine, .affine = {5, 32, DType::kF16}}};
  for (const GpuCoding& coding : common_gpu_codings()) {
    if (coding.kind != GpuCoding::Kind::kPanels) list.push_back(coding.of_file());
  }
  return list;
}

class GpuCodings : public GpuTest {
 protected:
  void SetUp() override {
    GpuTest::SetUp();
    cpu_ = CpuBackend::create(2, {.tokens = kTokens,
                                  .hidden_size = kColumns,
                                  .width = kColumns,
                                  .top_k = 1,
                                  .expert_width = kColumns,
                                  .coded_columns = kColumns})
               .value();
  }
  void TearDown() override {
    backend_.reset();
    GpuTest::TearDown();
  }
  void make(const std::vector<Matrix>& matrices, bool has_ffn = false) {
    backend_.reset();
    backend_ = GpuBackend::create(*device_, use_, *cpu_,
                                  {.matrices = matrices,
                                   .rows = 2 * kTokens,
                                   .columns = kColumns,
                                   .results = 2 * kTokens * 3 * kColumns,
                                   .hidden_size = has_ffn ? kColumns : 0,
                                   .ffn_width = kColumns})
                   .value();
    backend_->load();
  }
  static std::vector<float> product(Backend& ops, const Matrix& matrix, Rows x) {
    const OwnedRows out(x.count, matrix.rows);
    const Projection projection[] = {{matrix, nullptr, out.rows}};
    ops.matmul(x, projection);
    return out.values;
  }
  // Whether the device did it.
  bool computes(const Matrix& matrix, Rows x, const std::string& what) {
    const uint64_t before = backend_->report().products;
    const std::vector<float> found = product(*backend_, matrix, x);
    EXPECT_TRUE(same_bits(product(*cpu_, matrix, x), found)) << what;
    return backend_->report().products > before;
  }

  GpuUse use_;
  std::unique_ptr<CpuBackend> cpu_;
  std::unique_ptr<GpuBackend> backend_;
  Values source_{51};
  Coded random_{52};
};

TEST_F(GpuCodings, those_that_it_computes_are_told_from_others) {
  // Six of GGUF; of MLX six widths in groups of 32, 64 and 128 and two more kinds of groups, MXFP4.
  EXPECT_EQ(codings_of_gpus().size(), 6u + 18 + 2 + 1);
  EXPECT_FALSE(GpuCoding(Coding{.block = BlockType::kQ2K}).is_there());
  EXPECT_FALSE(GpuCoding(Coding{.kind = Coding::Kind::kFp8}).is_there());
  EXPECT_FALSE(GpuCoding(DType::kBF16).is_there());
  const CodedMatrix rows = random_.matrix({.block = BlockType::kQ4K}, kRows, kColumns);
  EXPECT_FALSE(has_gpu_product(rows.matrix));  // not side by side
  EXPECT_TRUE(has_gpu_product(in_panels(rows).matrix));
  for (const Coding& coding : codings_of_gpus()) {
    EXPECT_EQ(GpuCoding(coding).of_file(), coding) << name_of(coding);
    EXPECT_EQ(name_of(GpuCoding(coding)), name_of(coding));
  }
}

TEST_F(GpuCodings, every_one_has_the_bits_of_the_cpu_for_any_number_of_rows) {
  for (const Coding& coding : codings_of_gpus()) {
    const PanelMatrix weight = in_panels(random_.matrix(coding, kRows, kColumns));
    make({weight.matrix});
    for (const int64_t rows : {1, 2, 8, 9, 20}) {
      const OwnedRows x(source_, rows, kColumns);
      EXPECT_TRUE(computes(weight.matrix, x.rows, name_of(coding) + std::to_string(rows)));
    }
  }
}

// Fewer columns go through kernels of their own; inputs of any size.
TEST_F(GpuCodings, short_rows_and_inputs_of_any_size) {
  for (const Coding& coding : some_codings()) {
    const PanelMatrix weight = in_panels(random_.matrix(coding, 40, 256));
    make({weight.matrix});
    const OwnedRows x(source_, 4, 256);
    for (int64_t c = 0; c < 256; ++c) {
      const auto at = static_cast<size_t>(c);
      x.rows.row(0)[at] *= 0x1p-80f;
      x.rows.row(1)[at] *= 0x1p30f;
      x.rows.row(2)[at] = c % 2 == 0 ? 1.0f : -0.0f;
    }
    for (int64_t row = 0; row < 4; ++row) {
      EXPECT_TRUE(computes(weight.matrix, x.rows.slice(row, 1), name_of(coding)));
    }
  }
}

// Gate and up of one coding, down of another one, as mixed files have them.
TEST_F(GpuCodings, ffns_have_the_bits_of_the_cpu) {
  for (const Coding& coding : some_codings()) {
    const Coding of_down{.block = BlockType::kQ6K};
    const PanelMatrix gate = in_panels(random_.matrix(coding, 256, kColumns)),
                      up = in_panels(random_.matrix(coding, 256, kColumns)),
                      down = in_panels(random_.matrix(of_down, kColumns, 256));
    make({gate.matrix, up.matrix, down.matrix}, true);
    for (const int64_t rows : {1, 5, 20}) {
      const OwnedRows x(source_, rows, kColumns), expected(rows, kColumns), found(rows, kColumns),
          sum(rows, kColumns);
      cpu_->dense_ffn(x.rows, gate.matrix, up.matrix, down.matrix, expected.rows);
      backend_->dense_ffn(x.rows, gate.matrix, up.matrix, down.matrix, found.rows);
      backend_->copy(found.rows, sum.rows);  // waits
      for (int64_t r = 0; r < rows; ++r) {
        EXPECT_TRUE(same_bits(expected.rows.row(r), sum.rows.row(r))) << name_of(coding);
      }
    }
    EXPECT_EQ(backend_->report().ffns, 3u) << name_of(coding);
  }
}

// Several in one call, whose inputs are packed for each order of codes once.
TEST_F(GpuCodings, may_be_mixed_in_a_call) {
  std::vector<PanelMatrix> weights;
  std::vector<Matrix> matrices;
  for (const Coding& coding : some_codings()) {
    weights.push_back(in_panels(random_.matrix(coding, 48, kColumns)));
  }
  for (const PanelMatrix& weight : weights) matrices.push_back(weight.matrix);
  make(matrices);
  const OwnedRows x(source_, 3, kColumns);
  std::vector<OwnedRows> expected, found;
  std::vector<Projection> on_cpu, on_gpu;
  for (size_t i = 0; i < matrices.size(); ++i) {
    expected.emplace_back(3, 48);
    found.emplace_back(3, 48);
  }
  for (size_t i = 0; i < matrices.size(); ++i) {
    on_cpu.push_back({matrices[i], nullptr, expected[i].rows});
    on_gpu.push_back({matrices[i], nullptr, found[i].rows});
  }
  cpu_->matmul(x.rows, on_cpu);
  backend_->matmul(x.rows, on_gpu);
  EXPECT_EQ(backend_->report().products, matrices.size());
  for (size_t i = 0; i < matrices.size(); ++i) {
    EXPECT_TRUE(same_bits(expected[i].values, found[i].values)) << i;
  }
}

TEST_F(GpuCodings, columns_may_be_stored_in_another_order) {
  ColumnOrder order{.width = 128, .stored = {3, 0, 5, 1, 4, 2}};
  const Coding coding{.block = BlockType::kQ5K};
  const CodedMatrix rows = random_.matrix(coding, kRows, kColumns, order);
  PanelMatrix moved = in_panels(rows);
  moved.matrix.coded.order = &order;
  const PanelMatrix natural = in_panels(random_.matrix(coding, kRows, kColumns));
  make({moved.matrix, natural.matrix});
  for (const int64_t tokens : {1, 7}) {
    const OwnedRows x(source_, tokens, kColumns);
    EXPECT_TRUE(computes(moved.matrix, x.rows, "moved"));
    EXPECT_TRUE(computes(natural.matrix, x.rows, "natural"));
    // Both together: the second is for the processors.
    const OwnedRows first(tokens, kRows), second(tokens, kRows);
    const Projection both[] = {{moved.matrix, nullptr, first.rows},
                               {natural.matrix, nullptr, second.rows}};
    const uint64_t before = backend_->report().products;
    backend_->matmul(x.rows, both);
    EXPECT_EQ(backend_->report().products - before, 1u);
    EXPECT_TRUE(same_bits(first.values, product(*cpu_, moved.matrix, x.rows)));
    EXPECT_TRUE(same_bits(second.values, product(*cpu_, natural.matrix, x.rows)));
  }
}

TEST_F(GpuCodings, a_matrix_with_planes_may_be_cut_into_blocks) {
  const Coding coding{.kind = Coding::Kind::kAffine, .affine = {4, 32, DType::kBF16}};
  const PanelMatrix weight = in_panels(random_.matrix(coding, 165, kColumns));
  const RowBytes panel = gpu_panel_bytes(weight.matrix);
  const Matrix one[] = {weight.matrix};
  const uint64_t block = 4 * (panel.codes + panel.scales + panel.biases) + 600;
  GpuMatrices matrices = GpuMatrices::create(*device_, one, block).value();
  GpuMatmul matmul =
      GpuMatmul::create(*device_,
                        {.rows = 18, .columns = kColumns, .results = 20 * 165, .pieces = 6},
                        gpu_codings_of(one))
          .value();
  ASSERT_TRUE(matrices.fill(matmul.staging()).has_value());
  ASSERT_EQ(matrices.find(weight.matrix).size(), 3u);
  for (const int64_t rows : {1, 9}) {
    const OwnedRows x(source_, rows, kColumns), found(rows, 165);
    const GpuProduct products[] = {
        {{weight.matrix, nullptr, found.rows}, matrices.find(weight.matrix)}};
    ASSERT_TRUE(matmul.begin(x.rows, products).has_value());
    ASSERT_TRUE(matmul.finish(products).has_value());
    EXPECT_TRUE(same_bits(product(*cpu_, weight.matrix, x.rows), found.values));
  }
}

// A product with such a scale may be subnormal, which devices need not keep.
TEST_F(GpuCodings, scales_that_are_too_small_for_a_device_stay_here) {
  const OwnedRows x(source_, 1, kColumns);
  const auto bf16 = [](float value) { return f32_to_bf16(value); };
  for (const DType numbers : {DType::kBF16, DType::kF32}) {
    for (const bool is_bias : {false, true}) {
      const Coding coding{.kind = Coding::Kind::kAffine, .affine = {4, 64, numbers}};
      PanelMatrix weight = in_panels(random_.matrix(coding, kRows, kColumns));
      EXPECT_FALSE(has_tiny_scales(weight.matrix));
      std::byte* last = (is_bias ? weight.biases : weight.scales).data() + 70 * 4;
      const auto put = [&](float value) {
        const uint16_t half = bf16(value);
        if (numbers == DType::kF32) std::memcpy(last, &value, sizeof(value));
        else std::memcpy(last, &half, sizeof(half));
      };
      for (const float fine : {0.0f, -0.0f, 0x1p-28f, -0x1p-28f, 1.0f}) {
        put(fine);
        EXPECT_FALSE(has_tiny_scales(weight.matrix)) << fine;
      }
      for (const float tiny : {0x1.fep-29f, -0x1p-29f, 0x1p-120f}) {
        put(tiny);
        EXPECT_TRUE(has_tiny_scales(weight.matrix)) << tiny;
      }
      make({weight.matrix});
      EXPECT_FALSE(computes(weight.matrix, x.rows, "tiny"));
    }
  }
}

TEST_F(GpuCodings, small_powers_of_two_are_for_zeros_alone) {
  const OwnedRows x(source_, 1, kColumns);
  for (const bool is_mlx : {false, true}) {
    const Coding coding =
        is_mlx ? Coding{.kind = Coding::Kind::kMlxMxfp4} : Coding{.block = BlockType::kMxfp4};
    CodedMatrix rows = random_.matrix(coding, kRows, kColumns);
    EXPECT_FALSE(has_tiny_scales(in_panels(rows).matrix));
    // The group of columns 160 to 191 of row 37; one byte is in front of all.
    const RowBytes row = row_bytes(coding, kColumns);
    std::byte* codes = rows.codes.data() + 1 + 37 * row.codes + 5 * (is_mlx ? 16 : 17);
    std::byte* exponent = is_mlx ? rows.scales.data() + 1 + 37 * row.scales + 5 : codes++;
    *exponent = std::byte{99};
    EXPECT_TRUE(has_tiny_scales(in_panels(rows).matrix));
    *exponent = std::byte{100};
    EXPECT_FALSE(has_tiny_scales(in_panels(rows).matrix));
    std::fill_n(codes, 16, std::byte{0x80});
    for (const int tiny : {0, 1, 2, 50, 99}) {
      *exponent = static_cast<std::byte>(tiny);
      const PanelMatrix weight = in_panels(rows);
      EXPECT_FALSE(has_tiny_scales(weight.matrix));
      make({weight.matrix});
      EXPECT_TRUE(computes(weight.matrix, x.rows, "zeros"));
    }
    codes[15] = std::byte{0x08};
    EXPECT_FALSE(has_tiny_scales(in_panels(rows).matrix));
    codes[15] = std::byte{0x01};
    const PanelMatrix weight = in_panels(rows);
    EXPECT_TRUE(has_tiny_scales(weight.matrix));
    make({weight.matrix});
    EXPECT_FALSE(computes(weight.matrix, x.rows, "no zeros"));
  }
}

}  // namespace
}  // namespace penstock
