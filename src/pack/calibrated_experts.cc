#include "pack/calibrated_experts.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/check.h"
#include "compute/panel.h"

namespace penstock {
namespace {

constexpr int64_t kRowsAtOnce = 1024;
// What all rows of a layer have to say in each expert's moments, as a part of its own.
constexpr float kOfLayer = 0.1f;

double trace_of(const std::vector<float>& moments, int64_t width) {
  double trace = 0;
  for (int64_t c = 0; c < width; ++c) trace += moments[static_cast<size_t>(c * width + c)];
  return trace;
}

}  // namespace

Result<CalibratedExperts> CalibratedExperts::create(const Calibration& calibration,
                                                    const ExpertShape& shape, int num_threads) {
  CalibratedExperts made(calibration, shape);
  const int64_t widest = std::max({shape.hidden_size, 2 * shape.intermediate_size, kRowsAtOnce});
  const BackendLimits limits = {.tokens = widest,
                                .hidden_size = shape.hidden_size,
                                .width = widest,
                                .top_k = 1,
                                .expert_width = shape.intermediate_size};
  made.backend_ = PENSTOCK_TRY(
      CpuBackend::create(num_threads, limits, {.target = {}, .arithmetic = Arithmetic::kFloat32}));
  const int64_t largest =
      std::max(panel_bytes(DType::kF32, widest, kRowsAtOnce),
               panel_bytes(DType::kF32, 2 * shape.intermediate_size, shape.hidden_size));
  made.panels_ =
      PENSTOCK_TRY(AlignedMemory::create(static_cast<uint64_t>(largest), "the inputs of experts"));
  return made;
}

Result<void> CalibratedExperts::load(int64_t layer) {
  if (layer == layer_) return {};
  PENSTOCK_TRY(calibration_->load(layer, inputs_));
  layer_ = layer;
  // A token counts as much as all its experts' weights.
  Chosen all;
  const auto top_k = static_cast<size_t>(inputs_.top_k);
  for (int64_t token = 0; token < inputs_.tokens(); ++token) {
    float square = 0;
    for (size_t k = 0; k < top_k; ++k) {
      const float weight = inputs_.weights[static_cast<size_t>(token) * top_k + k];
      square += weight * weight;
    }
    all.tokens.push_back(static_cast<int32_t>(token));
    all.weights.push_back(std::sqrt(square));
  }
  layer_moments_ = moments_of(all);
  return {};
}

CalibratedExperts::Chosen CalibratedExperts::chosen(int64_t expert) const {
  Chosen chosen;
  for (size_t i = 0; i < inputs_.experts.size(); ++i) {
    if (inputs_.experts[i] != expert) continue;
    chosen.tokens.push_back(static_cast<int32_t>(i / static_cast<size_t>(inputs_.top_k)));
    chosen.weights.push_back(inputs_.weights[i]);
  }
  return chosen;
}

void CalibratedExperts::gather(const Chosen& of, int64_t first, int64_t count, bool weighted) {
  const auto width = static_cast<size_t>(inputs_.hidden_size);
  rows_.resize(static_cast<size_t>(count) * width);
  for (size_t i = 0; i < static_cast<size_t>(count); ++i) {
    const size_t place = static_cast<size_t>(first) + i;
    const float weight = weighted ? of.weights[place] : 1.0f;
    const uint16_t* row = inputs_.rows.data() + static_cast<size_t>(of.tokens[place]) * width;
    for (size_t c = 0; c < width; ++c) rows_[i * width + c] = weight * bf16_to_f32(row[c]);
  }
}

// moments += rows_^T rows_, of `count` rows.
void CalibratedExperts::add_moments(int64_t count, int64_t width, std::vector<float>& moments) {
  turned_.resize(static_cast<size_t>(count * width));
  for (int64_t i = 0; i < count; ++i) {
    for (int64_t c = 0; c < width; ++c) {
      turned_[static_cast<size_t>(c * count + i)] = rows_[static_cast<size_t>(i * width + c)];
    }
  }
  const auto bytes = static_cast<uint64_t>(panel_bytes(DType::kF32, width, count));
  make_panels(DType::kF32, turned_, width, count, panels_.bytes().first(bytes));
  products_.resize(static_cast<size_t>(width * width));
  const Projection product[] = {{{DType::kF32, width, count, panels_.bytes().data()},
                                 nullptr,
                                 {products_.data(), width, width, width}}};
  backend_->matmul({turned_.data(), width, count, count}, product);
  for (size_t i = 0; i < products_.size(); ++i) moments[i] += products_[i];
}

std::vector<float> CalibratedExperts::moments_of(const Chosen& of) {
  const int64_t width = inputs_.hidden_size;
  std::vector<float> moments(static_cast<size_t>(width * width), 0.0f);
  const auto rows = std::ssize(of.tokens);
  for (int64_t first = 0; first < rows; first += kRowsAtOnce) {
    const int64_t count = std::min(kRowsAtOnce, rows - first);
    gather(of, first, count, true);
    add_moments(count, width, moments);
  }
  return moments;
}

Result<bool> CalibratedExperts::has_seen(int64_t layer, int64_t expert) {
  PENSTOCK_TRY(load(layer));
  return std::ranges::find(inputs_.experts, expert) != inputs_.experts.end();
}

Result<InputMoments> CalibratedExperts::inputs_of_gate_up(int64_t layer, int64_t expert) {
  PENSTOCK_TRY(load(layer));
  std::vector<float> moments = moments_of(chosen(expert));
  const double own = trace_of(moments, shape_.hidden_size);
  const double all = trace_of(layer_moments_, shape_.hidden_size);
  const auto part = static_cast<float>(own > 0 && all > 0 ? kOfLayer * own / all : 1.0);
  for (size_t i = 0; i < moments.size(); ++i) moments[i] += part * layer_moments_[i];
  return InputMoments::create(std::move(moments), shape_.hidden_size, backend_->team());
}

Result<InputMoments> CalibratedExperts::inputs_of_down(int64_t layer, int64_t expert,
                                                       std::span<const float> gate_up) {
  PENSTOCK_TRY(load(layer));
  const int64_t width = shape_.intermediate_size, hidden = shape_.hidden_size;
  const Chosen of = chosen(expert);
  std::vector<float> moments(static_cast<size_t>(width * width), 0.0f);
  AlignedMemory panels = PENSTOCK_TRY(AlignedMemory::create(
      static_cast<uint64_t>(panel_bytes(DType::kF32, 2 * width, hidden)), "an expert"));
  make_panels(DType::kF32, gate_up, 2 * width, hidden, panels.bytes());
  const Matrix matrix = {DType::kF32, 2 * width, hidden, panels.bytes().data()};
  std::vector<int32_t> order(static_cast<size_t>(kRowsAtOnce));
  std::iota(order.begin(), order.end(), 0);
  const auto rows = std::ssize(of.tokens);
  std::vector<float> between;
  for (int64_t first = 0; first < rows; first += kRowsAtOnce) {
    const int64_t count = std::min(kRowsAtOnce, rows - first);
    gather(of, first, count, false);
    between.resize(static_cast<size_t>(count * width));
    const auto some = std::span<const int32_t>(order).first(static_cast<size_t>(count));
    const ExpertWork work[] = {work_of_gate_up(matrix, {}, some, some)};
    backend_->expert_gate_up({rows_.data(), count, hidden, hidden}, work,
                             {between.data(), count, width, width});
    rows_.resize(between.size());
    for (int64_t i = 0; i < count; ++i) {
      const float weight = of.weights[static_cast<size_t>(first + i)];
      for (int64_t c = 0; c < width; ++c) {
        rows_[static_cast<size_t>(i * width + c)] =
            weight * between[static_cast<size_t>(i * width + c)];
      }
    }
    add_moments(count, width, moments);
  }
  return InputMoments::create(std::move(moments), width, backend_->team());
}

Result<FeedbackLoss> CalibratedExperts::quantise_gate_up(int64_t layer, int64_t expert, DType dtype,
                                                         std::span<const float> weights,
                                                         std::span<std::byte> out) {
  const InputMoments inputs = PENSTOCK_TRY(inputs_of_gate_up(layer, expert));
  return quantise_with_feedback(dtype, weights, 2 * shape_.intermediate_size, inputs, *backend_,
                                out);
}

Result<FeedbackLoss> CalibratedExperts::quantise_down(int64_t layer, int64_t expert, DType dtype,
                                                      std::span<const float> gate_up,
                                                      std::span<const float> weights,
                                                      std::span<std::byte> out) {
  const InputMoments inputs = PENSTOCK_TRY(inputs_of_down(layer, expert, gate_up));
  return quantise_with_feedback(dtype, weights, shape_.hidden_size, inputs, *backend_, out);
}

std::vector<FeedbackLoss> CalibratedExperts::survey(std::span<const DType> types,
                                                    std::span<const float> weights, int64_t rows,
                                                    const InputMoments& inputs) {
  std::vector<FeedbackLoss> losses;
  for (const DType dtype : types) {
    codes_.resize(static_cast<size_t>(panel_bytes(dtype, rows, inputs.columns())));
    losses.push_back(quantise_with_feedback(dtype, weights, rows, inputs, *backend_, codes_));
  }
  return losses;
}

Result<std::vector<FeedbackLoss>> CalibratedExperts::survey_gate_up(
    int64_t layer, int64_t expert, std::span<const DType> types, std::span<const float> weights) {
  const InputMoments inputs = PENSTOCK_TRY(inputs_of_gate_up(layer, expert));
  return survey(types, weights, 2 * shape_.intermediate_size, inputs);
}

Result<std::vector<FeedbackLoss>> CalibratedExperts::survey_down(int64_t layer, int64_t expert,
                                                                 std::span<const DType> types,
                                                                 std::span<const float> gate_up,
                                                                 std::span<const float> weights) {
  const InputMoments inputs = PENSTOCK_TRY(inputs_of_down(layer, expert, gate_up));
  return survey(types, weights, shape_.hidden_size, inputs);
}

}  // namespace penstock
