#include "pack/feedback.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <numeric>
#include <utility>

#include "base/check.h"
#include "compute/panel.h"
#include "compute/quantiser.h"

namespace penstock {
namespace {

constexpr size_t kLanes = kPanelRows;
constexpr size_t kGroup = kGroupColumns;
constexpr float kDamping = 0.3f;
constexpr int kSweeps = 4;
// A line is moved only where the loss becomes clearly less, not by what rounding does to it.
constexpr double kClearly = 1e-6;
constexpr float kSmallest = 0x1p-28f;  // of scales and biases (compute/panel.h)

// A number of each row of a panel.
using Lanes = std::array<float, kLanes>;
using LanesOfGroup = std::array<Lanes, kGroup>;

void add_product(const Lanes& a, float b, Lanes& to) {
  for (size_t i = 0; i < kLanes; ++i) to[i] += a[i] * b;
}

float round_to_bf16(float value) {
  return bf16_to_f32(f32_to_bf16(value));
}

float nearest_code(float value, float scale, float bias, float steps) {
  const float exact = (value - bias) / scale;
  const float positive = exact > 0 ? exact : 0.0f;
  return std::nearbyint(std::min(positive, steps));
}

// All rows of a matrix at work.
class FeedbackRows {
 public:
  FeedbackRows(DType dtype, std::span<const float> weights, int64_t rows,
               const InputMoments& inputs, CpuBackend& backend)
      : bits_(bits_of(dtype)),
        steps_(static_cast<float>((1u << bits_) - 1u)),
        rows_(static_cast<size_t>(rows)),
        columns_(static_cast<size_t>(inputs.columns())),
        blocks_(columns_ / kGroup),
        inputs_(inputs),
        backend_(backend),
        weights_(weights.begin(), weights.end()),
        misses_(weights_.size(), 0.0f),
        products_(weights_.size()),
        from_others_(rows_ * kGroup),
        squares_(rows_, 0.0),
        counts_(rows_, 0.0f),
        common_(rows_, 0.0f),
        groups_(rows_ * blocks_, AffineGroup{}) {
    multiply_weights();
  }

  void round();
  void code_in_order();
  void sweep();
  std::vector<double> losses();
  double whole() const { return std::accumulate(squares_.begin(), squares_.end(), 0.0); }

  const AffineGroup& group(size_t row, size_t block) const {
    return groups_[row * blocks_ + block];
  }
  void take_row(size_t row, const FeedbackRows& from);

 private:
  AffineGroup& group(size_t row, size_t block) { return groups_[row * blocks_ + block]; }
  size_t at(size_t row, size_t block) const { return row * columns_ + block * kGroup; }

  // from_others_ = what `rows` have as products with the block's columns of a matrix.
  void multiply(std::vector<float>& rows, const Matrix& matrix);
  void multiply_weights();
  template <class Body>
  void for_panels(const Body& body);  // body(first row, rows)
  LanesOfGroup load(const std::vector<float>& from, size_t row, size_t count, size_t block) const;
  void set_misses(size_t row, size_t block);
  void code_panel(size_t block, size_t row, size_t count);
  void sweep_panel(size_t block, size_t row, size_t count);
  void move_line(size_t block, size_t row, const LanesOfGroup& outside, size_t lane);

  int bits_;
  float steps_;
  size_t rows_, columns_, blocks_;
  const InputMoments& inputs_;
  CpuBackend& backend_;
  std::vector<float> weights_, misses_;  // [row][column]; misses: stored - weight
  std::vector<float> products_;          // H w
  std::vector<float> from_others_;       // [row][64]
  std::vector<double> squares_;          // [row]: w H w
  std::vector<float> counts_;            // [row]: kCommon / w H w
  std::vector<float> common_;            // [row]: d H w
  std::vector<AffineGroup> groups_;      // [row][block]
};

void FeedbackRows::multiply(std::vector<float>& rows, const Matrix& matrix) {
  const auto count = static_cast<int64_t>(rows_), width = static_cast<int64_t>(columns_);
  const Projection product[] = {{matrix, nullptr, {from_others_.data(), count, kGroup, kGroup}}};
  backend_.matmul({rows.data(), count, width, width}, product);
}

void FeedbackRows::multiply_weights() {
  for (size_t block = 0; block < blocks_; ++block) {
    multiply(weights_, inputs_.moments_of(static_cast<int64_t>(block)));
    for (size_t row = 0; row < rows_; ++row) {
      for (size_t i = 0; i < kGroup; ++i) {
        const float product = from_others_[row * kGroup + i];
        products_[at(row, block) + i] = product;
        squares_[row] += double{product} * weights_[at(row, block) + i];
      }
    }
  }
  for (size_t row = 0; row < rows_; ++row) {
    if (squares_[row] > 0) counts_[row] = static_cast<float>(kCommon / squares_[row]);
    if (!std::isfinite(counts_[row])) counts_[row] = 0;
  }
}

template <class Body>
void FeedbackRows::for_panels(const Body& body) {
  const auto panels = static_cast<int64_t>((rows_ + kLanes - 1) / kLanes);
  backend_.team().run(panels, [&](int64_t panel, int) {
    const size_t row = static_cast<size_t>(panel) * kLanes;
    body(row, std::min(kLanes, rows_ - row));
  });
}

LanesOfGroup FeedbackRows::load(const std::vector<float>& from, size_t row, size_t count,
                                size_t block) const {
  LanesOfGroup lanes{};
  for (size_t r = 0; r < count; ++r) {
    for (size_t i = 0; i < kGroup; ++i) lanes[i][r] = from[at(row + r, block) + i];
  }
  return lanes;
}

void FeedbackRows::set_misses(size_t row, size_t block) {
  const AffineGroup& stored = group(row, block);
  const float scale = bf16_to_f32(stored.scale), bias = bf16_to_f32(stored.bias);
  for (size_t i = 0; i < kGroup; ++i) {
    const size_t c = at(row, block) + i;
    misses_[c] = scale * stored.codes[i] + bias - weights_[c];
  }
}

void FeedbackRows::round() {
  for_panels([&](size_t first, size_t count) {
    for (size_t row = first; row < first + count; ++row) {
      for (size_t block = 0; block < blocks_; ++block) {
        const std::span<const float> values(weights_.data() + at(row, block), kGroup);
        group(row, block) = quantise_group(values.first<kGroup>(), bits_);
        set_misses(row, block);
      }
    }
  });
}

std::vector<double> FeedbackRows::losses() {
  std::vector<double> losses(rows_, 0.0), common(rows_, 0.0);
  for (size_t block = 0; block < blocks_; ++block) {
    multiply(misses_, inputs_.moments_of(static_cast<int64_t>(block)));
    for (size_t row = 0; row < rows_; ++row) {
      for (size_t i = 0; i < kGroup; ++i) {
        const double miss = misses_[at(row, block) + i];
        losses[row] += miss * from_others_[row * kGroup + i];
        common[row] += miss * products_[at(row, block) + i];
      }
    }
  }
  for (size_t row = 0; row < rows_; ++row) losses[row] += counts_[row] * common[row] * common[row];
  return losses;
}

void FeedbackRows::take_row(size_t row, const FeedbackRows& from) {
  for (size_t block = 0; block < blocks_; ++block) group(row, block) = from.group(row, block);
}

// All groups, each for what those before it lost; what comes behind has lost nothing yet.
void FeedbackRows::code_in_order() {
  std::ranges::fill(misses_, 0.0f);
  for (size_t block = 0; block < blocks_; ++block) {
    multiply(misses_, inputs_.feedback_of(static_cast<int64_t>(block)));
    for_panels([&](size_t row, size_t count) { code_panel(block, row, count); });
  }
}

void FeedbackRows::code_panel(size_t block, size_t row, size_t count) {
  const size_t first = block * kGroup;
  LanesOfGroup misses{};
  const LanesOfGroup weights = load(weights_, row, count, block);
  LanesOfGroup wanted = weights;
  const std::span<const float> importance = inputs_.importance().subspan(first, kGroup);
  Lanes scales{}, biases{};
  for (size_t r = 0; r < count; ++r) {
    std::array<float, kGroup> values;
    for (size_t i = 0; i < kGroup; ++i) {
      values[i] = wanted[i][r] -= from_others_[(row + r) * kGroup + i];
    }
    group(row + r, block) = search_group(values, bits_, importance);
    scales[r] = bf16_to_f32(group(row + r, block).scale);
    biases[r] = bf16_to_f32(group(row + r, block).bias);
  }
  for (size_t i = 0; i < kGroup; ++i) {
    const auto feedback = inputs_.feedback(static_cast<int64_t>(first + i));
    Lanes lost{};
    for (size_t k = 0; k < i; ++k) add_product(misses[k], feedback[first + k], lost);
    for (size_t r = 0; r < count; ++r) {
      const float code = nearest_code(wanted[i][r] - lost[r], scales[r], biases[r], steps_);
      group(row + r, block).codes[i] = static_cast<uint8_t>(code);
      misses[i][r] = scales[r] * code + biases[r] - weights[i][r];
    }
  }
  for (size_t r = 0; r < count; ++r) set_misses(row + r, block);
}

void FeedbackRows::sweep() {
  for (size_t row = 0; row < rows_; ++row) {
    float sum = 0;
    for (size_t c = 0; c < columns_; ++c) {
      sum += products_[row * columns_ + c] * misses_[row * columns_ + c];
    }
    common_[row] = sum;
  }
  for (size_t block = 0; block < blocks_; ++block) {
    multiply(misses_, inputs_.moments_of(static_cast<int64_t>(block)));
    for_panels([&](size_t row, size_t count) { sweep_panel(block, row, count); });
  }
}

// Each column's best code, given all others; then each row's best line.
void FeedbackRows::sweep_panel(size_t block, size_t row, size_t count) {
  const size_t first = block * kGroup;
  LanesOfGroup misses = load(misses_, row, count, block);
  const LanesOfGroup weights = load(weights_, row, count, block);
  const LanesOfGroup products = load(products_, row, count, block);
  LanesOfGroup outside{};
  for (size_t i = 0; i < kGroup; ++i) {
    const auto moments = inputs_.row(static_cast<int64_t>(first + i)).subspan(first, kGroup);
    Lanes inside{};
    for (size_t k = 0; k < kGroup; ++k) add_product(misses[k], moments[k], inside);
    for (size_t r = 0; r < count; ++r) {
      outside[i][r] = from_others_[(row + r) * kGroup + i] - inside[r];
    }
  }
  for (size_t i = 0; i < kGroup; ++i) {
    const auto moments = inputs_.row(static_cast<int64_t>(first + i)).subspan(first, kGroup);
    Lanes sum = outside[i];
    for (size_t k = 0; k < kGroup; ++k) {
      if (k != i) add_product(misses[k], moments[k], sum);
    }
    for (size_t r = 0; r < count; ++r) {
      AffineGroup& stored = group(row + r, block);
      const float scale = bf16_to_f32(stored.scale), bias = bf16_to_f32(stored.bias);
      const float product = products[i][r];
      const float counts = counts_[row + r] * product;
      const float others = common_[row + r] - misses[i][r] * product;
      const float best =
          weights[i][r] - (sum[r] + counts * others) / (moments[i] + counts * product);
      const float code = nearest_code(best, scale, bias, steps_);
      stored.codes[i] = static_cast<uint8_t>(code);
      misses[i][r] = scale * code + bias - weights[i][r];
      common_[row + r] = others + misses[i][r] * product;
    }
  }
  for (size_t r = 0; r < count; ++r) {
    set_misses(row + r, block);
    move_line(block, row + r, outside, r);
  }
}

// The scale and bias of least loss for a group's codes, given all else: a quadratic in two numbers.
void FeedbackRows::move_line(size_t block, size_t row, const LanesOfGroup& outside, size_t lane) {
  const size_t first = block * kGroup;
  AffineGroup& stored = group(row, block);
  const float* weights = weights_.data() + at(row, block);
  const float* misses = misses_.data() + at(row, block);
  const float* products = products_.data() + at(row, block);
  // Sums over H by codes (c), ones (o) and what is to be reached (r).
  double cc = 0, co = 0, oo = 0, cr = 0, orr = 0;
  double by_codes_all = 0, by_ones_all = 0, own = 0, wanted = 0;  // products with H w
  std::array<float, kGroup> codes;
  for (size_t i = 0; i < kGroup; ++i) codes[i] = stored.codes[i];
  LanesOfGroup sums{};  // [i][0, 1, 2]: of moments times codes, ones, weights
  for (size_t i = 0; i < kGroup; ++i) {
    const auto moments = inputs_.row(static_cast<int64_t>(first + i)).subspan(first, kGroup);
    Lanes by_codes{}, by_ones{}, by_weights{};
    for (size_t k = 0; k < kGroup; k += kLanes) {
      for (size_t l = 0; l < kLanes; ++l) {
        by_codes[l] += moments[k + l] * codes[k + l];
        by_ones[l] += moments[k + l];
        by_weights[l] += moments[k + l] * weights[k + l];
      }
    }
    for (size_t l = 0; l < kLanes; ++l) {
      sums[i][0] += by_codes[l];
      sums[i][1] += by_ones[l];
      sums[i][2] += by_weights[l];
    }
  }
  for (size_t i = 0; i < kGroup; ++i) {
    const double reach = double{sums[i][2]} - outside[i][lane];
    cc += double{codes[i]} * sums[i][0];
    co += double{codes[i]} * sums[i][1];
    oo += sums[i][1];
    cr += codes[i] * reach;
    orr += reach;
    by_codes_all += double{products[i]} * codes[i];
    by_ones_all += products[i];
    own += double{products[i]} * misses[i];
    wanted += double{products[i]} * weights[i];
  }
  const double counts = counts_[row], others = common_[row] - own;
  cc += counts * by_codes_all * by_codes_all;
  co += counts * by_codes_all * by_ones_all;
  oo += counts * by_ones_all * by_ones_all;
  cr += counts * by_codes_all * (wanted - others);
  orr += counts * by_ones_all * (wanted - others);
  const double determinant = cc * oo - co * co;
  if (!(determinant > 1e-9 * cc * oo)) return;
  const float scale = round_to_bf16(static_cast<float>((cr * oo - orr * co) / determinant));
  if (!(std::fabs(scale) >= kSmallest && std::fabs(scale) <= 1e38f)) return;
  float bias = round_to_bf16(static_cast<float>((orr - scale * co) / oo));
  if (std::fabs(bias) < kSmallest) bias = 0;
  if (!(std::fabs(bias) <= 1e38f)) return;
  const auto loss = [&](double s, double b) {  // up to a constant
    return s * s * cc + 2 * s * b * co + b * b * oo - 2 * s * cr - 2 * b * orr;
  };
  const double before = loss(bf16_to_f32(stored.scale), bf16_to_f32(stored.bias));
  if (!(loss(scale, bias) < before - kClearly * std::fabs(before))) return;
  stored.scale = f32_to_bf16(scale);
  stored.bias = f32_to_bf16(bias);
  set_misses(row, block);
  double made = 0;
  for (size_t i = 0; i < kGroup; ++i) made += double{products[i]} * misses[i];
  common_[row] = static_cast<float>(others + made);
}

void store(const FeedbackRows& rows, DType dtype, int64_t count, int64_t blocks,
           std::span<std::byte> out) {
  std::memset(out.data(), 0, out.size());
  for (int64_t row = 0; row < count; ++row) {
    std::byte* block = out.data() + row / kPanelRows * blocks * block_bytes(dtype);
    for (int64_t b = 0; b < blocks; ++b, block += block_bytes(dtype)) {
      put_group(dtype, rows.group(static_cast<size_t>(row), static_cast<size_t>(b)),
                row % kPanelRows, block);
    }
  }
}

}  // namespace

Result<InputMoments> InputMoments::create(std::vector<float> moments, int64_t columns,
                                          ThreadPool& team) {
  PENSTOCK_CHECK(std::ssize(moments) == columns * columns);
  InputMoments made(std::move(moments), columns);
  double diagonal = 0;
  for (int64_t c = 0; c < columns; ++c) diagonal += made.moments_[made.at(c, c)];
  const auto mean = static_cast<float>(diagonal / static_cast<double>(columns));
  const float more = mean > 0 ? kDamping * mean : 1.0f;
  for (int64_t c = 0; c < columns; ++c) made.moments_[made.at(c, c)] += more;
  made.factor(team);
  const auto bytes = static_cast<uint64_t>(panel_bytes(DType::kF32, columns, columns));
  made.moment_panels_ = PENSTOCK_TRY(AlignedMemory::create(bytes, "what experts saw"));
  made.feedback_panels_ = PENSTOCK_TRY(AlignedMemory::create(bytes, "what experts saw"));
  make_panels(DType::kF32, made.moments_, columns, columns, made.moment_panels_.bytes());
  make_panels(DType::kF32, made.feedback_, columns, columns, made.feedback_panels_.bytes());
  return made;
}

Matrix InputMoments::rows_of(const AlignedMemory& panels, int64_t block) const {
  const int64_t bytes = panel_bytes(DType::kF32, kGroupColumns, columns_);
  return {DType::kF32, kGroupColumns, columns_, panels.bytes().data() + block * bytes};
}

// From the last column to the first: what is left of H loses the product of the column with itself.
void InputMoments::factor(ThreadPool& team) {
  feedback_ = moments_;
  importance_.resize(static_cast<size_t>(columns_));
  for (int64_t j = columns_ - 1; j >= 0; --j) {
    float* column = feedback_.data() + at(j, 0);  // H is symmetric: a row is a column
    const float pivot = column[j];
    PENSTOCK_CHECK(pivot > 0);
    importance_[static_cast<size_t>(j)] = pivot;
    const auto subtract = [&](int64_t k) {
      const float factor = column[k] / pivot;
      float* row = feedback_.data() + at(k, 0);
      for (int64_t l = 0; l <= k; ++l) row[l] -= factor * column[l];
    };
    if (j < 512) {
      for (int64_t k = 0; k < j; ++k) subtract(k);
    } else {
      team.run((j + 63) / 64, [&](int64_t task, int) {
        for (int64_t k = 64 * task; k < std::min(j, 64 * task + 64); ++k) subtract(k);
      });
    }
    for (int64_t k = 0; k < j; ++k) column[k] /= pivot;
    std::fill(column + j, column + columns_, 0.0f);
  }
}

FeedbackLoss quantise_with_feedback(DType dtype, std::span<const float> weights, int64_t rows,
                                    const InputMoments& inputs, CpuBackend& backend,
                                    std::span<std::byte> out) {
  const int64_t columns = inputs.columns();
  PENSTOCK_CHECK(is_quantised(dtype) && columns % kGroupColumns == 0);
  PENSTOCK_CHECK(std::ssize(weights) == rows * columns);
  PENSTOCK_CHECK(std::ssize(out) == panel_bytes(dtype, rows, columns));
  FeedbackRows made(dtype, weights, rows, inputs, backend);
  FeedbackRows rounded = made;
  rounded.round();
  const std::vector<double> rounded_losses = rounded.losses();
  made.code_in_order();
  for (int i = 0; i < kSweeps; ++i) made.sweep();
  const std::vector<double> losses = made.losses();
  FeedbackLoss total{.whole = made.whole()};
  for (size_t row = 0; row < losses.size(); ++row) {
    total.rounded += rounded_losses[row];
    const bool is_worse = !(losses[row] <= rounded_losses[row]);
    if (is_worse) made.take_row(row, rounded);
    total.stored += is_worse ? rounded_losses[row] : losses[row];
  }
  store(made, dtype, rows, columns / kGroupColumns, out);
  return total;
}

}  // namespace penstock
