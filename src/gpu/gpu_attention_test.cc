// Attention on the software device: outputs with the bits of the CPU's, however the rows come and whatever the
// host does to its cache in between.
#include "gpu/gpu_attention.h"

#include <cmath>
#include <optional>

#include "compute/cpu/cpu_backend.h"
#include "compute/test_values.h"
#include "gpu/test_gpu.h"

namespace penstock {
namespace {

using test::GpuTest;
using test::OwnedRows;
using test::same_bits;
using test::Values;

constexpr int64_t kTestContext = 2100, kAttentionRowsMax = 300;

// Heads that share a kv head in twos, threes and all; components of less than a step, of several, of two halves;
// without a gate.
const AttentionShape kAttentionShapes[] = {{4, 2, 32, 8, 1e-6f},
                                           {6, 2, 20, 12, 1e-6f},
                                           {2, 2, 136, 64, 1e-5f},
                                           {3, 1, 64, 64, 1e-6f, false}};

// A sequence with its cache: the layer's part is in the middle of each page.
struct Cached {
  static constexpr int64_t kBefore = 48;
  AttentionShape shape;
  std::vector<std::vector<float>> pages;
  std::vector<float*> begins;

  explicit Cached(const AttentionShape& of) : shape(of) {
    for (int64_t begin = 0; begin < kTestContext; begin += kKvPagePositions) {
      pages.emplace_back(static_cast<size_t>(2 * kBefore + 2 * part()));
    }
    for (auto& page : pages) begins.push_back(page.data());
  }
  int64_t part() const { return shape.kv_width() * kKvPagePositions; }
  KvCache cache() { return {.pages = begins, .keys = kBefore, .values = kBefore + part()}; }
};

// Rows for every position, and what attention needs besides.
struct Inputs {
  AttentionShape shape;
  std::vector<float> q_norm, k_norm, cos, sin;
  OwnedRows q, k, v;

  explicit Inputs(const AttentionShape& of, int seed = 31) : Inputs(of, Values(seed)) {}
  Inputs(const AttentionShape& of, Values source)
      : shape(of),
        q_norm(source.normal(shape.head_dim)),
        k_norm(source.normal(shape.head_dim)),
        q(source, kTestContext, shape.query_width()),
        k(source, kTestContext, shape.kv_width()),
        v(source, kTestContext, shape.kv_width()) {
    for (int64_t i = 0; i < kTestContext * shape.rotary_dim / 2; ++i) {
      cos.push_back(static_cast<float>(std::cos(0.01 * static_cast<double>(i))));
      sin.push_back(static_cast<float>(std::sin(0.01 * static_cast<double>(i))));
    }
  }
  AttentionWeights weights{q_norm.data(), k_norm.data()};

  AttentionCall call(Cached& cached, const RopeTable& rope, int64_t first, Rows out) const {
    const int64_t rows = out.count;
    return {.shape = shape,
            .weights = weights,
            .rope = rope,
            .cache = cached.cache(),
            .first_position = first,
            .q = q.rows.slice(first, rows),
            .k = k.rows.slice(first, rows),
            .v = v.rows.slice(first, rows),
            .out = out};
  }
};

class GpuAttentionTest : public GpuTest {
 protected:
  // So few groups of threads that calls go in several waves, and parts in several dispatches.
  static GpuAttentionLimits limits(const AttentionShape& shape, int64_t segments,
                                   DeltaNetSums sums = DeltaNetSums::kWhole) {
    return {.shape = shape,
            .layers = 1,
            .rows = kAttentionRowsMax,
            .context = kTestContext,
            .segments = segments,
            .work_least = 0,
            .groups = 3,
            .sums = sums};
  }
  void begin(const AttentionShape& shape, int64_t segments = 3,
             DeltaNetSums sums = DeltaNetSums::kWhole) {
    gpu_.emplace(GpuAttention::create(*device_, limits(shape, segments, sums), HostRows()).value());
    ASSERT_TRUE(gpu_->pays());
    cpu_ = CpuBackend::create(2, {.tokens = kAttentionRowsMax,
                                  .hidden_size = 64,
                                  .width = 64,
                                  .top_k = 1,
                                  .expert_width = 64,
                                  .context = kTestContext,
                                  .attention = shape})
               .value();
  }

  void TearDown() override {
    gpu_.reset();
    GpuTest::TearDown();
  }

  // The rows of some positions on both sides: whether the device gave any, and then the same ones.
  bool run(const Inputs& inputs, Cached& cached, int64_t first, int64_t rows) {
    const RopeTable rope = {inputs.cos.data(), inputs.sin.data()};
    const int64_t width = int64_t{inputs.shape.heads} * inputs.shape.head_dim;
    OwnedRows expected(rows, width), found(rows, width);
    const AttentionCall call = inputs.call(cached, rope, first, found.rows);
    gpu_->note_written(call);
    EXPECT_TRUE(gpu_->takes(call));
    cpu_->attention(inputs.call(cached, rope, first, expected.rows));
    const Result<bool> is_right = gpu_->run(call, *cpu_, {});
    EXPECT_TRUE(is_right.has_value());
    if (!is_right || !*is_right) return false;
    for (int64_t t = 0; t < rows; ++t) {
      EXPECT_TRUE(same_bits(found.rows.row(t), expected.rows.row(t))) << first << " + " << t;
    }
    return true;
  }

  std::optional<GpuAttention> gpu_;
  std::unique_ptr<CpuBackend> cpu_;
};

TEST_F(GpuAttentionTest, has_the_bits_of_the_processors) {
  for (const AttentionShape& shape : kAttentionShapes) {
    begin(shape);
    const Inputs inputs(shape);
    Cached cached(shape);
    int64_t first = 0;
    // One segment and less than a block; rows alone; into the second one, also by few rows, which are cut by segments.
    for (const int64_t rows : {3, 70, 300, 128, 9, 1}) {
      EXPECT_TRUE(run(inputs, cached, first, rows)) << shape.head_dim << " at " << first;
      first += rows;
    }
    EXPECT_GT(first, kKvPagePositions + 5);
    if (shape.head_dim != kAttentionShapes[0].head_dim) continue;
    for (const int64_t rows : {300, 200, 8, 1}) {
      EXPECT_TRUE(run(inputs, cached, first, rows)) << shape.head_dim << " at " << first;
      first += rows;
    }
    EXPECT_GT(first, 2 * kKvPagePositions);
  }
}

TEST_F(GpuAttentionTest, brings_over_what_it_lacks_and_nothing_else) {
  begin(kAttentionShapes[0]);
  const Inputs inputs(kAttentionShapes[0]);
  Cached cached(kAttentionShapes[0]);
  EXPECT_TRUE(run(inputs, cached, 0, 300));
  EXPECT_EQ(gpu_->brought(), 300);
  EXPECT_TRUE(run(inputs, cached, 300, 2));
  EXPECT_EQ(gpu_->brought(), 2);
  // What the processors have computed alone comes with the next call.
  const RopeTable rope = {inputs.cos.data(), inputs.sin.data()};
  OwnedRows out(250, int64_t{inputs.shape.heads} * inputs.shape.head_dim);
  const AttentionCall call = inputs.call(cached, rope, 302, out.rows);
  gpu_->note_written(call);
  cpu_->attention(call);
  EXPECT_TRUE(run(inputs, cached, 552, 4));
  EXPECT_EQ(gpu_->brought(), 254);
}

// More segments than there is staging memory for.
TEST_F(GpuAttentionTest, brings_over_a_long_context_at_once) {
  begin(kAttentionShapes[3], 5);
  const Inputs inputs(kAttentionShapes[3]);
  Cached cached(kAttentionShapes[3]);
  const RopeTable rope = {inputs.cos.data(), inputs.sin.data()};
  OwnedRows out(kAttentionRowsMax, int64_t{inputs.shape.heads} * inputs.shape.head_dim);
  for (int64_t first = 0; first + kAttentionRowsMax <= 2099; first += kAttentionRowsMax) {
    cpu_->attention(inputs.call(cached, rope, first, out.rows));
  }
  EXPECT_TRUE(run(inputs, cached, 1800, 290));
  EXPECT_EQ(gpu_->brought(), 2090);
  EXPECT_TRUE(run(inputs, cached, 2090, 1));
}

TEST_F(GpuAttentionTest, follows_what_the_host_writes_again) {
  begin(kAttentionShapes[1]);
  const Inputs inputs(kAttentionShapes[1]), others(kAttentionShapes[1], 7);
  Cached cached(kAttentionShapes[1]);
  EXPECT_TRUE(run(inputs, cached, 0, 300));
  EXPECT_TRUE(run(inputs, cached, 300, 300));
  EXPECT_TRUE(run(others, cached, 490, 30));  // tokens that were taken back
  EXPECT_EQ(gpu_->brought(), 30);
  EXPECT_TRUE(run(inputs, cached, 520, 3));
  // By other ways than attention: a page is copied, say.
  for (std::vector<float>& page : cached.pages) {
    for (float& value : page) value *= 1.5f;
    gpu_->forget(page.data() + Cached::kBefore + 5, 1);
  }
  EXPECT_TRUE(run(inputs, cached, 523, 2));
  EXPECT_EQ(gpu_->brought(), 525);
}

TEST_F(GpuAttentionTest, sequences_take_turns_where_there_is_little_room) {
  begin(kAttentionShapes[3], 2);
  const Inputs inputs(kAttentionShapes[3]);
  Cached one(kAttentionShapes[3]), other(kAttentionShapes[3]);
  EXPECT_TRUE(run(inputs, one, 0, 300));
  EXPECT_TRUE(run(inputs, other, 0, 20));
  EXPECT_TRUE(run(inputs, one, 300, 210));  // a second segment: the other's goes
  EXPECT_EQ(gpu_->brought(), 210);
  EXPECT_TRUE(run(inputs, other, 20, 2));
  EXPECT_EQ(gpu_->brought(), 22);
  EXPECT_TRUE(run(inputs, one, 510, 1));
  // More than there is room for is not taken.
  OwnedRows out(100, int64_t{inputs.shape.heads} * inputs.shape.head_dim);
  const RopeTable rope = {inputs.cos.data(), inputs.sin.data()};
  EXPECT_FALSE(gpu_->takes(inputs.call(one, rope, 950, out.rows)));
}

// The device's own sums may lose them, so the processors are to do such a call.
TEST_F(GpuAttentionTest, tells_of_numbers_that_may_be_lost) {
  begin(kAttentionShapes[0]);
  for (const float bad : {1e-13f, 1e-39f, INFINITY, NAN}) {
    Inputs inputs(kAttentionShapes[0]);
    Cached cached(kAttentionShapes[0]);
    EXPECT_TRUE(run(inputs, cached, 0, 40));
    inputs.v.rows.row(110)[3] = bad;
    EXPECT_TRUE(run(inputs, cached, 40, 20));
    EXPECT_FALSE(run(inputs, cached, 60, 60)) << bad;  // in its second wave
    EXPECT_FALSE(run(inputs, cached, 120, 1)) << bad;
  }
  // Norms make queries large again, as far as they are not nearly all of the norm's constant.
  for (const float size : {1e-9f, 1e-20f}) {
    Inputs inputs(kAttentionShapes[0]);
    for (float& value : inputs.q.rows.row(2)) value *= size;
    Cached cached(kAttentionShapes[0]);
    EXPECT_EQ(run(inputs, cached, 0, 5), size == 1e-9f) << size;
  }
}

// On a device that loses subnormal numbers: as small as they may be, and weights around the smallest that counts.
TEST_F(GpuAttentionTest, small_numbers_that_are_not_told_of_are_right) {
  begin(kAttentionShapes[1], 3, DeltaNetSums::kPretended);
  int right = 0;
  for (int seed = 1; seed <= 6; ++seed) {
    Inputs inputs(kAttentionShapes[1], seed);
    for (int64_t t = 0; t < 60; ++t) {
      for (float& value : inputs.v.rows.row(t)) {
        value = std::ldexp(std::copysign(1.0f + std::fabs(value) * 0x1p-20f, value),
                           -40 + static_cast<int>(t % 5));
      }
      for (float& value : inputs.k.rows.row(t)) value = std::ldexp(value, t % 7 == 0 ? -30 : 0);
    }
    for (float& value : inputs.q_norm) value *= static_cast<float>(4 * seed);
    Cached cached(kAttentionShapes[1]);
    right += run(inputs, cached, 0, 50);
    right += run(inputs, cached, 50, 1);
  }
  EXPECT_GE(right, 6);
}

TEST_F(GpuAttentionTest, zeros_are_no_such_numbers) {
  begin(kAttentionShapes[0]);
  Inputs inputs(kAttentionShapes[0]);
  Cached cached(kAttentionShapes[0]);
  for (const int64_t t : {0, 1, 7}) {
    for (float& value : inputs.v.rows.row(t)) value = t == 1 ? -0.0f : 0.0f;
    for (float& value : inputs.k.rows.row(t)) value = 0;
  }
  EXPECT_TRUE(run(inputs, cached, 0, 40));
}

TEST_F(GpuAttentionTest, a_device_that_is_lost_says_so) {
  begin(kAttentionShapes[0]);
  const Inputs inputs(kAttentionShapes[0]);
  const RopeTable rope = {inputs.cos.data(), inputs.sin.data()};
  // One list brings keys and values over, three are waves.
  for (int64_t submits = 0; submits < 5; ++submits) {
    const auto device = make_device({.submits_before_loss = submits});
    auto gpu = GpuAttention::create(*device, limits(kAttentionShapes[0], 3), HostRows());
    ASSERT_TRUE(gpu.has_value());
    Cached cached(kAttentionShapes[0]);
    OwnedRows out(120, int64_t{inputs.shape.heads} * inputs.shape.head_dim);
    const AttentionCall call = inputs.call(cached, rope, 0, out.rows);
    AttentionCall append = call;
    append.out.count = 0;
    cpu_->attention(append);
    EXPECT_EQ(gpu->run(call, *cpu_, {}).has_value(), submits == 4) << submits;
  }
}

}  // namespace
}  // namespace penstock
