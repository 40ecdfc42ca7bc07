// A device beside the CPU's backend, on the software device: the bits of the CPU's alone.
#include "gpu/gpu_backend.h"

#include <algorithm>
#include <numeric>

#include "compute/cpu/cpu_backend.h"
#include "compute/test_values.h"
#include "gpu/test_gpu.h"

namespace penstock {
namespace {

using test::GpuTest;
using test::kHidden;
using test::kWidth;
using test::OwnedMatrix;
using test::OwnedRows;
using test::same_bits;
using test::Values;

constexpr int64_t kRowsMax = 70;
constexpr DType kTypes[] = {DType::kQ8, DType::kQ4, DType::kQ3, DType::kQ2};

std::unique_ptr<CpuBackend> make_cpu() {
  return CpuBackend::create(2, {.tokens = kRowsMax,
                                .hidden_size = kHidden,
                                .width = 2 * kHidden,
                                .top_k = 1,
                                .expert_width = kWidth})
      .value();
}

// Room for few rows at a time, so that calls of more go in waves.
GpuTrunk trunk_of(std::vector<Matrix> matrices) {
  return {.matrices = std::move(matrices),
          .rows = 32,
          .columns = kHidden,
          .results = 48 * kHidden,
          .hidden_size = kHidden,
          .ffn_width = kWidth};
}

class GpuBackendTest : public GpuTest {
 protected:
  void SetUp() override {
    GpuTest::SetUp();
    cpu_ = make_cpu();
    inner_ = make_cpu();
  }
  void TearDown() override {
    backend_.reset();
    GpuTest::TearDown();
  }
  void make(const GpuTrunk& trunk) {
    backend_ = GpuBackend::create(*device_, use_, *inner_, trunk).value();
    backend_->load();
  }

  GpuUse use_{[this](const std::string& line) { lines_.push_back(line); }};
  std::vector<std::string> lines_;
  std::unique_ptr<CpuBackend> cpu_, inner_;
  std::unique_ptr<GpuBackend> backend_;
};

TEST_F(GpuBackendTest, every_type_and_number_of_rows_has_the_bits_of_the_cpu) {
  Values source(31);
  std::vector<OwnedMatrix> weights;
  for (const DType dtype : kTypes) weights.emplace_back(dtype, source, 50, kHidden);
  const std::vector<float> bias = source.normal(50);
  std::vector<Matrix> matrices;
  for (const OwnedMatrix& weight : weights) matrices.push_back(weight.matrix);
  make(trunk_of(matrices));
  uint64_t products = 0;
  for (const OwnedMatrix& weight : weights) {
    for (const int64_t rows : {1, 2, 8, 9, 33, 70}) {
      const OwnedRows x(source, rows, kHidden), expected(rows, 50), found(rows, 50);
      for (const float* b : {static_cast<const float*>(nullptr), bias.data()}) {
        const Projection on_cpu[] = {{weight.matrix, b, expected.rows}};
        const Projection on_gpu[] = {{weight.matrix, b, found.rows}};
        cpu_->matmul(x.rows, on_cpu);
        backend_->matmul(x.rows, on_gpu);
        EXPECT_TRUE(same_bits(expected.values, found.values))
            << name_of(weight.matrix.dtype) << ", " << rows << " rows";
        EXPECT_EQ(backend_->report().products, ++products);
      }
    }
  }
  EXPECT_EQ(backend_->report().matrices, 4);
}

// Of types that are mixed, of which some are not there, cannot be there or do not fit beside others.
TEST_F(GpuBackendTest, projections_of_a_call_may_be_here_and_there) {
  Values source(32);
  std::vector<OwnedMatrix> weights;
  for (const DType dtype : kTypes) weights.emplace_back(dtype, source, 6 * kHidden, kHidden);
  weights.emplace_back(DType::kQ4, source, 31, kHidden);
  weights.emplace_back(DType::kQ4, source, 64, kHidden);
  weights.emplace_back(DType::kBF16, source, 17, kHidden);
  const size_t there[] = {0, 1, 2, 3, 4};  // all but two
  std::vector<Matrix> matrices;
  for (const size_t i : there) matrices.push_back(weights[i].matrix);
  make(trunk_of(matrices));
  for (const int64_t rows : {1, 3, 40}) {
    const OwnedRows x(source, rows, kHidden);
    std::vector<OwnedRows> expected, found;
    std::vector<Projection> on_cpu, on_gpu;
    for (const OwnedMatrix& weight : weights) {
      expected.emplace_back(rows, weight.matrix.rows);
      found.emplace_back(rows, weight.matrix.rows);
    }
    for (size_t i = 0; i < weights.size(); ++i) {
      on_cpu.push_back({weights[i].matrix, nullptr, expected[i].rows});
      on_gpu.push_back({weights[i].matrix, nullptr, found[i].rows});
    }
    const uint64_t before = backend_->report().products;
    cpu_->matmul(x.rows, on_cpu);
    backend_->matmul(x.rows, on_gpu);
    EXPECT_EQ(backend_->report().products - before, rows == 1 ? 5u : 4u) << rows;
    for (size_t i = 0; i < weights.size(); ++i) {
      EXPECT_TRUE(same_bits(expected[i].values, found[i].values)) << i << ", " << rows << " rows";
    }
  }
}

TEST_F(GpuBackendTest, a_matrix_may_be_cut_into_blocks) {
  Values source(33);
  const OwnedMatrix weight(DType::kQ3, source, 165, kHidden),
      other(DType::kQ8, source, 40, kHidden);
  const Matrix both[] = {weight.matrix, other.matrix};
  const auto panel = static_cast<uint64_t>(panel_bytes(DType::kQ3, kPanelRows, kHidden));
  GpuMatrices matrices = GpuMatrices::create(*device_, both, 4 * panel + 100).value();
  GpuMatmul matmul =
      GpuMatmul::create(*device_,
                        {.rows = 18, .columns = kHidden, .results = 20 * 205, .pieces = 6},
                        gpu_codings_of(both))
          .value();
  EXPECT_EQ(matmul.rows_at_once(8, 400), 8);
  EXPECT_EQ(matmul.rows_at_once(9, 400), 5);
  EXPECT_TRUE(matrices.find(weight.matrix).empty());
  ASSERT_TRUE(matrices.fill(matmul.staging()).has_value());
  ASSERT_EQ(matrices.find(weight.matrix).size(), 3u);
  EXPECT_EQ(matrices.find(weight.matrix)[2].rows, 37);
  for (const int64_t rows : {1, 9}) {
    const OwnedRows x(source, rows, kHidden);
    const OwnedRows expected(rows, 165), found(rows, 165), expected_other(rows, 40),
        found_other(rows, 40);
    const Projection on_cpu[] = {{weight.matrix, nullptr, expected.rows},
                                 {other.matrix, nullptr, expected_other.rows}};
    const GpuProduct on_gpu[] = {
        {{weight.matrix, nullptr, found.rows}, matrices.find(weight.matrix)},
        {{other.matrix, nullptr, found_other.rows}, matrices.find(other.matrix)}};
    cpu_->matmul(x.rows, on_cpu);
    ASSERT_TRUE(matmul.begin(x.rows, on_gpu).has_value());
    ASSERT_TRUE(matmul.finish(on_gpu).has_value());
    EXPECT_TRUE(same_bits(expected.values, found.values));
    EXPECT_TRUE(same_bits(expected_other.values, found_other.values));
  }
}

// Gate, up and down of a dense FFN, and an expert that is computed meanwhile.
struct Ffn {
  OwnedMatrix gate, up, down;
  Ffn(Values& source, DType dtype, DType of_down)
      : gate(dtype, source, kWidth, kHidden),
        up(dtype, source, kWidth, kHidden),
        down(of_down, source, kHidden, kWidth) {}
  std::vector<Matrix> matrices() const { return {gate.matrix, up.matrix, down.matrix}; }
};

// What a layer does: the shared expert, another one, and their sum.
std::vector<float> layer_of(Backend& ops, const Ffn& shared, const Ffn& expert,
                            const OwnedRows& x) {
  const int64_t rows = x.rows.count;
  const OwnedRows of_shared(rows, kHidden), hidden(rows, kWidth), of_expert(rows, kHidden),
      gate(rows, 1), sum(rows, kHidden);
  std::vector<int32_t> all(static_cast<size_t>(rows));
  std::iota(all.begin(), all.end(), 0);
  const Routing routing = {.num_tokens = rows,
                           .top_k = 1,
                           .experts = all,
                           .weights = std::vector<float>(static_cast<size_t>(rows), 0.75f)};
  const ExpertWork work[] = {{.gate = expert.gate.matrix,
                              .up = expert.up.matrix,
                              .down = expert.down.matrix,
                              .tokens = all,
                              .places = all}};
  ops.dense_ffn(x.rows, shared.gate.matrix, shared.up.matrix, shared.down.matrix, of_shared.rows);
  ops.expert_gate_up(x.rows, work, hidden.rows);
  ops.expert_down(hidden.rows, work, of_expert.rows);
  ops.combine(of_expert.rows, routing, of_shared.rows, gate.rows, sum.rows);
  return sum.values;
}

TEST_F(GpuBackendTest, a_dense_ffn_is_there_when_somebody_looks) {
  Values source(34);
  const Ffn shared(source, DType::kQ4, DType::kQ8), expert(source, DType::kQ2, DType::kQ2);
  make(trunk_of(shared.matrices()));
  for (const int64_t rows : {1, 7, 32, 33, 70}) {
    const OwnedRows x(source, rows, kHidden);
    const std::vector<float> expected = layer_of(*cpu_, shared, expert, x);
    EXPECT_TRUE(same_bits(layer_of(*backend_, shared, expert, x), expected)) << rows;
    // The next op reads or writes what it is about.
    const OwnedRows y(rows, kHidden), z(rows, kHidden);
    cpu_->dense_ffn(x.rows, shared.gate.matrix, shared.up.matrix, shared.down.matrix, y.rows);
    backend_->dense_ffn(x.rows, shared.gate.matrix, shared.up.matrix, shared.down.matrix, z.rows);
    backend_->add(z.rows, z.rows, z.rows);
    cpu_->add(y.rows, y.rows, y.rows);
    EXPECT_TRUE(same_bits(y.values, z.values)) << rows;
  }
  EXPECT_EQ(backend_->report().ffns, 10u);
}

// An expert whose rows are those of the FFN that is still to come waits for it.
TEST_F(GpuBackendTest, experts_wait_for_rows_that_they_read) {
  Values source(35);
  const Ffn first(source, DType::kQ4, DType::kQ4);
  make(trunk_of(first.matrices()));
  const OwnedRows x(source, 40, kHidden), y(40, kHidden), z(40, kHidden);
  const OwnedRows hidden(40, kWidth), hidden_there(40, kWidth);
  std::vector<int32_t> all(40);
  std::iota(all.begin(), all.end(), 0);
  const ExpertWork work[] = {
      {.gate = first.gate.matrix, .up = first.up.matrix, .tokens = all, .places = all}};
  cpu_->dense_ffn(x.rows, first.gate.matrix, first.up.matrix, first.down.matrix, y.rows);
  cpu_->expert_gate_up(y.rows, work, hidden.rows);
  backend_->dense_ffn(x.rows, first.gate.matrix, first.up.matrix, first.down.matrix, z.rows);
  backend_->expert_gate_up(z.rows, work, hidden_there.rows);
  EXPECT_TRUE(same_bits(hidden.values, hidden_there.values));
}

// Between ops somebody looks after the disk; each op that takes long tells him once.
TEST_F(GpuBackendTest, what_is_done_between_ops_is_done) {
  Values source(36);
  const Ffn ffn(source, DType::kQ4, DType::kQ4);
  make(trunk_of(ffn.matrices()));
  int calls = 0;
  backend_->set_between_ops([&] { ++calls; });
  const OwnedRows x(source, 1, kHidden), y(1, kHidden), out(1, kWidth);
  const Projection there[] = {{ffn.gate.matrix, nullptr, out.rows}};
  backend_->matmul(x.rows, there);
  EXPECT_EQ(calls, 1);
  backend_->dense_ffn(x.rows, ffn.gate.matrix, ffn.up.matrix, ffn.down.matrix, y.rows);
  EXPECT_EQ(calls, 2);
  const OwnedMatrix other(DType::kQ4, source, kWidth, kHidden);
  const Projection here[] = {{other.matrix, nullptr, out.rows}};
  backend_->matmul(x.rows, here);
  EXPECT_EQ(calls, 3);
}

TEST_F(GpuBackendTest, takes_the_memory_that_it_says_or_none) {
  Values source(37);
  const Ffn ffn(source, DType::kQ4, DType::kQ4);
  const GpuTrunk trunk = trunk_of(ffn.matrices());
  make(trunk);
  const GpuBackend::Bytes rows = GpuBackend::bytes_for_rows(trunk);
  const uint64_t all = rows.on_device + rows.on_host + GpuMatrices::bytes_for(trunk.matrices);
  EXPECT_EQ(backend_->report().bytes, all);
  EXPECT_LE(device_->allocated_bytes(), all);
  EXPECT_GT(device_->allocated_bytes() + 20 * kGpuRounding, all);
  constexpr int64_t kAllocations = 11;
  for (const int64_t n : {int64_t{0}, int64_t{3}, int64_t{6}, kAllocations - 1, kAllocations}) {
    const auto device = make_device({.allocations_before_failure = n});
    const auto made = GpuBackend::create(*device, use_, *inner_, trunk);
    ASSERT_EQ(made.has_value(), n == kAllocations);
    if (made) break;
    EXPECT_EQ(made.error().code, ErrorCode::kOutOfMemory);
    EXPECT_EQ(device->allocated_bytes(), 0u);
  }
  EXPECT_TRUE(lines_.empty());
}

// Wherever it is lost: in the copies, in a product, in a wave of it, in an FFN, before or behind it.
TEST_F(GpuBackendTest, a_device_that_is_lost_costs_a_line) {
  Values source(38);
  const Ffn shared(source, DType::kQ4, DType::kQ8), expert(source, DType::kQ2, DType::kQ2);
  const OwnedRows x(source, 60, kHidden), expected(60, kWidth);
  const std::vector<float> layer = layer_of(*cpu_, shared, expert, x);
  const Projection on_cpu[] = {{shared.gate.matrix, nullptr, expected.rows}};
  cpu_->matmul(x.rows, on_cpu);
  // Seven copies, two waves of the product, two of the FFN.
  std::vector<GpuFaults> faults;
  for (const int64_t n : {1, 8, 10, 12}) faults.push_back({.submits_before_loss = n});
  for (const int64_t n : {4, 16, 26}) faults.push_back({.waits_before_silence = n});
  int used = 0;
  for (const GpuFaults& fault : faults) {
    lines_.clear();
    GpuUse use([this](const std::string& line) { lines_.push_back(line); });
    const auto device = make_device(fault);
    auto backend = GpuBackend::create(*device, use, *inner_, trunk_of(shared.matrices())).value();
    backend->load();
    for (int round = 0; round < 3; ++round) {
      const OwnedRows found(60, kWidth);
      const Projection on_gpu[] = {{shared.gate.matrix, nullptr, found.rows}};
      backend->matmul(x.rows, on_gpu);
      EXPECT_TRUE(same_bits(found.values, expected.values));
      EXPECT_TRUE(same_bits(layer_of(*backend, shared, expert, x), layer));
    }
    EXPECT_TRUE(use.is_lost());
    EXPECT_EQ(lines_.size(), 1u);
    used += backend->report().products > 0;
  }
  EXPECT_GE(used, 3);
}

}  // namespace
}  // namespace penstock
