// Experts on the software device against the CPU's backend: the same bits.
#include "gpu/gpu_experts.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <optional>
#include <random>

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

constexpr int kTopK = 3;

// A shape's type of gate and up, and of down.
struct TestShape {
  DType gate_up, down;

  GpuExpertShape shape() const {
    return {.gate_up = gate_up, .down = down, .hidden_size = kHidden, .expert_width = kWidth};
  }
};
const GpuExpertShape kShapes[] = {
    TestShape{DType::kQ8, DType::kQ8}.shape(), TestShape{DType::kQ4, DType::kQ4}.shape(),
    TestShape{DType::kQ3, DType::kQ3}.shape(), TestShape{DType::kQ2, DType::kQ2}.shape(),
    TestShape{DType::kQ3, DType::kQ8}.shape()};

// Some experts of one shape, on both sides.
struct TestExperts {
  TestShape types;
  GpuExpertShape shape;
  bool is_one_matrix;  // gate above up
  std::vector<OwnedMatrix> gate, up, down;
  std::vector<GpuBuffer> blocks;  // gate, up and down, one behind the other

  TestExperts(GpuDevice& device, Values& source, const TestShape& what, bool one, int count)
      : types(what), shape(what.shape()), is_one_matrix(one) {
    for (int e = 0; e < count; ++e) {
      gate.emplace_back(types.gate_up, source, (one ? 2 : 1) * kWidth, kHidden);
      up.emplace_back(types.gate_up, source, kWidth, kHidden);
      down.emplace_back(types.down, source, kHidden, kWidth);
      const size_t bytes = size_of(gate.back()) + size_of(up.back()) + size_of(down.back());
      blocks.push_back(device.allocate(bytes, GpuMemoryKind::kDevice, "a test").value());
      uint64_t at = 0;
      for (OwnedMatrix* matrix : {&gate.back(), &up.back(), &down.back()}) {
        EXPECT_TRUE(device.write(blocks.back(), at, matrix->memory.bytes()).has_value());
        at += size_of(*matrix);
      }
    }
  }
  static size_t size_of(const OwnedMatrix& matrix) {
    const Matrix& m = matrix.matrix;
    return static_cast<size_t>(panel_bytes(m.dtype, m.rows, m.columns));
  }
  ExpertWork on_cpu(size_t e) const {
    ExpertWork work = {.gate = gate[e].matrix, .up = up[e].matrix, .down = down[e].matrix};
    if (is_one_matrix) {
      work.up = gate[e].matrix;
      work.up_first_row = kWidth;
    }
    return work;
  }
  GpuExpertWork on_gpu(size_t e) const {
    const uint64_t start = blocks[e].address();
    GpuExpertWork work = {.gate = {.codes = start}, .up = {.codes = start + size_of(gate[e])}};
    work.down.codes = work.up.codes + size_of(up[e]);
    if (is_one_matrix) {
      work.up = work.gate;
      work.up_first_row = kWidth;
    }
    return work;
  }
};

// Which rows go through which expert: each token through kTopK of them.
struct TestRouting {
  std::vector<std::vector<int32_t>> tokens, places;

  TestRouting(int experts, int64_t num_tokens, uint32_t seed)
      : tokens(static_cast<size_t>(experts)), places(tokens) {
    std::mt19937 engine(seed);
    std::vector<size_t> order(static_cast<size_t>(experts));
    std::iota(order.begin(), order.end(), 0);
    for (int64_t t = 0; t < num_tokens; ++t) {
      std::shuffle(order.begin(), order.end(), engine);
      for (int k = 0; k < kTopK; ++k) {
        tokens[order[static_cast<size_t>(k)]].push_back(static_cast<int32_t>(t));
        places[order[static_cast<size_t>(k)]].push_back(static_cast<int32_t>(t * kTopK + k));
      }
    }
  }
};

class GpuExpertsTest : public GpuTest {
 protected:
  static constexpr int64_t kTokensMax = 75;

  void SetUp() override {
    GpuTest::SetUp();
    if (HasFatalFailure()) return;
    gpu_.emplace(GpuExperts::create(*device_, limits(), kShapes).value());
    cpu_ = CpuBackend::create(2, {.tokens = kTokensMax,
                                  .hidden_size = kHidden,
                                  .width = 2 * kHidden,
                                  .top_k = kTopK,
                                  .expert_width = kWidth})
               .value();
  }
  void TearDown() override {
    gpu_.reset();
    GpuTest::TearDown();
  }
  static GpuExpertLimits limits() {
    return {.tokens = kTokensMax,
            .places = kTokensMax * kTopK,
            .hidden_size = kHidden,
            .expert_width = kWidth};
  }

  // Rows of both, for the experts that have some.
  void compare(const TestExperts& experts, const TestRouting& routing, const OwnedRows& x,
               const std::string& what) {
    std::vector<ExpertWork> works;
    std::vector<GpuExpertWork> gpu_works;
    for (size_t e = 0; e < routing.tokens.size(); ++e) {
      if (routing.tokens[e].empty()) continue;
      works.push_back(experts.on_cpu(e));
      gpu_works.push_back(experts.on_gpu(e));
      works.back().tokens = gpu_works.back().tokens = routing.tokens[e];
      works.back().places = gpu_works.back().places = routing.places[e];
    }
    const int64_t places = x.rows.count * kTopK;
    const OwnedRows hidden(places, kWidth), expected(places, kHidden), actual(places, kHidden);
    cpu_->expert_gate_up(x.rows, works, hidden.rows);
    cpu_->expert_down(hidden.rows, works, expected.rows);
    begin(experts, x, gpu_works);
    ASSERT_TRUE(gpu_->finish(actual.rows).has_value());
    for (int64_t p = 0; p < places; ++p) {
      EXPECT_TRUE(same_bits(expected.rows.row(p), actual.rows.row(p))) << what << ", place " << p;
    }
  }

  void begin(const TestExperts& experts, const OwnedRows& x, std::span<const GpuExpertWork> works) {
    ASSERT_TRUE(gpu_->take(experts.shape, x.rows).has_value());
    ASSERT_TRUE(gpu_->begin(works).has_value());
  }

  std::optional<GpuExperts> gpu_;
  std::unique_ptr<CpuBackend> cpu_;
};

TEST_F(GpuExpertsTest, have_the_bits_of_the_cpu_in_every_type_for_any_number_of_rows) {
  for (const DType dtype : {DType::kQ8, DType::kQ4, DType::kQ3, DType::kQ2}) {
    Values source(static_cast<uint32_t>(dtype));
    const TestExperts experts(*device_, source, {.gate_up = dtype, .down = dtype}, true, 5);
    for (const int64_t tokens : {1, 2, 11, 37, 75}) {
      const OwnedRows x(source, tokens, kHidden);
      compare(experts, TestRouting(5, tokens, 3), x,
              std::string(name_of(dtype)) + ", tokens " + std::to_string(tokens));
    }
  }
}

TEST_F(GpuExpertsTest, gate_up_and_down_may_be_three_matrices_of_two_types) {
  Values source(17);
  const TestExperts experts(*device_, source, {.gate_up = DType::kQ3, .down = DType::kQ8}, false,
                            4);
  const OwnedRows x(source, 9, kHidden);
  compare(experts, TestRouting(4, 9, 5), x, "three matrices");
}

TEST_F(GpuExpertsTest, tiny_huge_and_absent_inputs_have_the_bits_of_the_cpu) {
  Values source(18);
  const TestExperts experts(*device_, source, {.gate_up = DType::kQ4, .down = DType::kQ4}, true, 3);
  const OwnedRows x(source, 5, kHidden);
  for (int64_t c = 0; c < kHidden; ++c) {
    x.rows.row(0)[static_cast<size_t>(c)] *= 0x1p-80f;
    x.rows.row(1)[static_cast<size_t>(c)] *= 0x1p30f;
    x.rows.row(2)[static_cast<size_t>(c)] = 0;
    x.rows.row(3)[static_cast<size_t>(c)] = c % 2 == 0 ? 1.0f : -0.0f;
  }
  compare(experts, TestRouting(3, 5, 6), x, "sizes");
}

TEST_F(GpuExpertsTest, what_is_not_finite_stays_so_and_leaves_other_rows_alone) {
  Values source(19);
  const TestExperts experts(*device_, source, {.gate_up = DType::kQ4, .down = DType::kQ4}, true, 3);
  const OwnedRows x(source, 2, kHidden);
  x.rows.row(1)[70] = std::numeric_limits<float>::infinity();
  const TestRouting routing(3, 2, 1);
  std::vector<GpuExpertWork> works;
  for (size_t e = 0; e < 3; ++e) {
    works.push_back(experts.on_gpu(e));
    works.back().tokens = routing.tokens[e];
    works.back().places = routing.places[e];
  }
  const OwnedRows out(2 * kTopK, kHidden);
  begin(experts, x, works);
  ASSERT_TRUE(gpu_->finish(out.rows).has_value());
  for (int64_t p = 0; p < 2 * kTopK; ++p) {
    for (const float value : out.rows.row(p)) EXPECT_EQ(std::isfinite(value), p < kTopK);
  }
}

// A row does not depend on the rows beside it, nor on which experts share a call.
TEST_F(GpuExpertsTest, rows_do_not_depend_on_their_company) {
  Values source(20);
  const TestExperts experts(*device_, source, {.gate_up = DType::kQ4, .down = DType::kQ4}, true, 4);
  const OwnedRows x(source, 23, kHidden);
  const TestRouting routing(4, 23, 9);
  const OwnedRows together(23 * kTopK, kHidden), alone(23 * kTopK, kHidden);
  std::vector<GpuExpertWork> works;
  for (size_t e = 0; e < 4; ++e) {
    works.push_back(experts.on_gpu(e));
    works.back().tokens = routing.tokens[e];
    works.back().places = routing.places[e];
  }
  begin(experts, x, works);
  ASSERT_TRUE(gpu_->finish(together.rows).has_value());
  for (const GpuExpertWork& work : works) {
    for (size_t j = 0; j < work.places.size(); ++j) {
      GpuExpertWork one = work;
      one.tokens = work.tokens.subspan(j, 1);
      one.places = work.places.subspan(j, 1);
      begin(experts, x, {&one, 1});
      ASSERT_TRUE(gpu_->finish(alone.rows).has_value());
    }
  }
  EXPECT_TRUE(same_bits(together.values, alone.values));
}

// Two calls with rows of the same x may be under way; what a third one would overwrite is taken in first.
TEST_F(GpuExpertsTest, calls_may_be_under_way_while_another_begins) {
  Values source(22);
  const TestExperts experts(*device_, source, {.gate_up = DType::kQ4, .down = DType::kQ4}, true, 4);
  const OwnedRows x(source, kTokensMax, kHidden);
  const TestRouting routing(4, kTokensMax, 11);
  const OwnedRows expected(kTokensMax * kTopK, kHidden), found(kTokensMax * kTopK, kHidden);
  std::vector<GpuExpertWork> works;
  for (size_t e = 0; e < 4; ++e) {
    works.push_back(experts.on_gpu(e));
    works.back().tokens = routing.tokens[e];
    works.back().places = routing.places[e];
    ASSERT_LE(std::ssize(works.back().places), gpu_->rows_at_once(kTokensMax * kTopK));
  }
  begin(experts, x, works);
  ASSERT_TRUE(gpu_->finish(expected.rows).has_value());
  ASSERT_TRUE(gpu_->take(experts.shape, x.rows).has_value());
  for (const GpuExpertWork& work : works) {
    if (gpu_->under_way() == GpuExperts::kCalls) {
      ASSERT_TRUE(gpu_->finish(found.rows).has_value());
    }
    ASSERT_TRUE(gpu_->begin({&work, 1}).has_value());
  }
  EXPECT_EQ(gpu_->under_way(), GpuExperts::kCalls);
  while (gpu_->under_way() > 0) ASSERT_TRUE(gpu_->finish(found.rows).has_value());
  EXPECT_TRUE(same_bits(expected.values, found.values));
}

TEST_F(GpuExpertsTest, takes_the_memory_that_it_says) {
  const uint64_t before = device_->allocated_bytes();
  const GpuExperts more = GpuExperts::create(*device_, limits(), kShapes).value();
  const GpuExperts::Bytes bytes = GpuExperts::bytes_for(limits());
  EXPECT_EQ(device_->allocated_bytes() - before, bytes.on_device + bytes.on_host);
}

// Memory that is refused at any allocation, and loss at any submit, are errors and leave nothing.
TEST_F(GpuExpertsTest, refused_memory_and_loss_are_errors) {
  Values source(21);
  const OwnedRows x(source, 1, kHidden), out(kTopK, kHidden);
  for (int64_t allocations = 0; allocations < static_cast<int64_t>(GpuExperts::kAllocations);
       ++allocations) {
    const auto device = make_device({.allocations_before_failure = allocations});
    const Result<GpuExperts> refused = GpuExperts::create(*device, limits(), {&kShapes[1], 1});
    ASSERT_FALSE(refused.has_value()) << allocations;
    EXPECT_EQ(refused.error().code, ErrorCode::kOutOfMemory);
    EXPECT_EQ(device->allocated_bytes(), 0u);
  }
  const auto device = make_device({.submits_before_loss = 1});
  GpuExperts experts = GpuExperts::create(*device, limits(), {&kShapes[1], 1}).value();
  const TestExperts weights(*device_, source, {.gate_up = DType::kQ4, .down = DType::kQ4}, true, 1);
  ASSERT_TRUE(experts.take(weights.shape, x.rows).has_value());
  ASSERT_TRUE(experts.begin({}).has_value());
  ASSERT_TRUE(experts.finish(out.rows).has_value());
  const Result<void> lost = experts.begin({});
  ASSERT_FALSE(lost.has_value());
  EXPECT_EQ(lost.error().code, ErrorCode::kIo);
}

}  // namespace
}  // namespace penstock
