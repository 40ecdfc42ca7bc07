// Codes with feedback: never worse than rounding, far better where inputs hang together, and the same
// whoever computes them.
#include "pack/feedback.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "base/memory.h"
#include "compute/panel.h"
#include "compute/quantiser.h"
#include "compute/test_values.h"

namespace penstock {
namespace {

using test::Values;

constexpr int64_t kRows = 37, kColumns = 192;

// H of inputs that lie near a few directions, as activations do.
std::vector<float> moments_of(Values& source, int64_t inputs, int64_t directions) {
  const std::vector<float> basis = source.normal(directions * kColumns);
  std::vector<float> moments(kColumns * kColumns, 0.0f);
  std::vector<float> x(kColumns);
  for (int64_t i = 0; i < inputs; ++i) {
    const std::vector<float> mix = source.normal(directions);
    const std::vector<float> noise = source.normal(kColumns, 0.3f);
    for (int64_t c = 0; c < kColumns; ++c) {
      x[c] = noise[c];
      for (int64_t d = 0; d < directions; ++d) x[c] += mix[d] * basis[d * kColumns + c];
    }
    for (int64_t a = 0; a < kColumns; ++a) {
      for (int64_t b = 0; b < kColumns; ++b) moments[a * kColumns + b] += x[a] * x[b];
    }
  }
  return moments;
}

struct Made {
  AlignedMemory panels;
  FeedbackLoss loss;
};

Made make(DType dtype, const std::vector<float>& weights, const std::vector<float>& moments,
          int threads = 1) {
  const BackendLimits limits = {
      .tokens = 256, .hidden_size = kColumns, .width = 256, .top_k = 1, .expert_width = 64};
  const std::unique_ptr<CpuBackend> backend = *CpuBackend::create(threads, limits);
  const InputMoments inputs = *InputMoments::create(moments, kColumns, backend->team());
  Made made{
      *AlignedMemory::create(static_cast<uint64_t>(panel_bytes(dtype, kRows, kColumns)), "a test"),
      {}};
  made.loss = quantise_with_feedback(dtype, weights, kRows, inputs, *backend, made.panels.bytes());
  return made;
}

// The loss of a row as it is stored, from the panels alone and in double, as feedback.h defines it.
double loss_of(const Matrix& matrix, int64_t row, std::span<const float> weights,
               const std::vector<float>& moments) {
  std::vector<float> stored(kColumns);
  panel_row(matrix, row, stored);
  double diagonal = 0;
  for (int64_t c = 0; c < kColumns; ++c) diagonal += moments[c * kColumns + c];
  const double damping = 0.3 * diagonal / kColumns;
  double loss = 0, common = 0, square = 0;
  for (int64_t a = 0; a < kColumns; ++a) {
    for (int64_t b = 0; b < kColumns; ++b) {
      const double moment = moments[a * kColumns + b] + (a == b ? damping : 0);
      const double miss = double{stored[a]} - weights[a];
      loss += miss * moment * (double{stored[b]} - weights[b]);
      common += miss * moment * weights[b];
      square += weights[a] * moment * weights[b];
    }
  }
  return loss + kCommon * common * common / square;
}

TEST(Feedback, no_row_loses_more_than_by_rounding_and_most_lose_far_less) {
  Values source(31);
  for (const DType dtype : {DType::kQ2, DType::kQ3, DType::kQ4}) {
    for (const int64_t directions : {0, 3, 40}) {
      const std::vector<float> weights = source.normal(kRows * kColumns, 0.05f);
      const std::vector<float> moments = moments_of(source, 400, directions);
      const Made made = make(dtype, weights, moments);
      AlignedMemory rounded = *AlignedMemory::create(made.panels.bytes().size(), "a test");
      make_panels(dtype, weights, kRows, kColumns, rounded.bytes());
      double before = 0, after = 0;
      for (int64_t row = 0; row < kRows; ++row) {
        const auto values = std::span(weights).subspan(row * kColumns, kColumns);
        const double old =
            loss_of({dtype, kRows, kColumns, rounded.bytes().data()}, row, values, moments);
        const double now =
            loss_of({dtype, kRows, kColumns, made.panels.bytes().data()}, row, values, moments);
        EXPECT_LE(now, old * 1.0001);
        before += old;
        after += now;
      }
      EXPECT_LT(after, (directions > 0 ? 0.45 : 0.85) * before)
          << name_of(dtype) << " " << directions;
      EXPECT_NEAR(made.loss.rounded, before, 1e-3 * before);
      EXPECT_NEAR(made.loss.stored, after, 1e-3 * after);
    }
  }
}

TEST(Feedback, bits_do_not_depend_on_threads_or_on_other_rows) {
  Values source(32);
  const std::vector<float> weights = source.normal(kRows * kColumns, 0.05f);
  const std::vector<float> moments = moments_of(source, 300, 5);
  const Made one = make(DType::kQ2, weights, moments, 1);
  const Made three = make(DType::kQ2, weights, moments, 3);
  EXPECT_TRUE(std::ranges::equal(one.panels.bytes(), three.panels.bytes()));
  std::vector<float> other = weights;
  for (int64_t c = 0; c < kColumns; ++c) other[3 * kColumns + c] *= 2;
  const Made changed = make(DType::kQ2, other, moments, 2);
  std::vector<float> a(kColumns), b(kColumns);
  for (int64_t row = 0; row < kRows; ++row) {
    panel_row({DType::kQ2, kRows, kColumns, one.panels.bytes().data()}, row, a);
    panel_row({DType::kQ2, kRows, kColumns, changed.panels.bytes().data()}, row, b);
    EXPECT_EQ(a == b, row != 3) << row;
  }
}

// Inputs that nothing was seen of, a column that is never there, rows of zeros and of one value.
TEST(Feedback, takes_what_has_no_say) {
  Values source(33);
  std::vector<float> weights = source.normal(kRows * kColumns, 0.05f);
  std::fill_n(weights.begin(), kColumns, 0.0f);
  std::fill_n(weights.begin() + kColumns, kColumns, 0.25f);
  std::fill_n(weights.begin() + 2 * kColumns, kColumns, 1e-30f);
  std::vector<float> nothing(kColumns * kColumns, 0.0f);
  std::vector<float> one = nothing;  // a single input, of one column
  one[7 * kColumns + 7] = 1e6f;
  std::vector<float> tiny = moments_of(source, 50, 2);
  for (float& moment : tiny) moment *= 1e-20f;
  for (const std::vector<float>& moments : {nothing, one, tiny}) {
    const Made made = make(DType::kQ3, weights, moments);
    EXPECT_TRUE(std::isfinite(made.loss.stored));
    EXPECT_LE(made.loss.stored, made.loss.rounded);
    for (int64_t row = 0; row < kRows; ++row) {
      std::vector<float> stored(kColumns);
      panel_row({DType::kQ3, kRows, kColumns, made.panels.bytes().data()}, row, stored);
      for (int64_t c = 0; c < kColumns; ++c) {
        ASSERT_NEAR(stored[c], weights[row * kColumns + c], 0.2) << row << " " << c;
      }
    }
  }
}

TEST(Feedback, scales_and_biases_are_as_the_arithmetic_asks) {
  Values source(34);
  for (const float size : {1e-9f, 1e-7f, 1e-3f, 1e3f}) {
    const std::vector<float> weights = source.normal(kRows * kColumns, size);
    const Made made = make(DType::kQ2, weights, moments_of(source, 60, 3));
    const Matrix matrix = {DType::kQ2, kRows, kColumns, made.panels.bytes().data()};
    for (int64_t row = 0; row < kRows; ++row) {
      for (int64_t block = 0; block < kColumns / kGroupColumns; ++block) {
        const AffineGroup group = panel_group(matrix, row, block);
        for (const uint16_t stored : {group.scale, group.bias}) {
          const float value = std::fabs(bf16_to_f32(stored));
          EXPECT_TRUE(value == 0 || (value >= 0x1p-28f && std::isfinite(value))) << value;
        }
      }
    }
  }
}

}  // namespace
}  // namespace penstock
