// Experts quantised for what they saw (pack/calibration.h, pack/feedback.h).
//
// What a part of an expert loses is counted by the square of the weight that the router gave each
// row. Gate and up see the layer's rows that went to them, and to a small part all others of the layer;
// down sees what gate and up of the source make of them. Gate and up of an expert that saw nothing are
// quantised for what the layer saw, its down matrix for nothing in particular.
//
// Threads  one at a time; products and quantising use all of the team
// Memory   a layer's rows, H of the widths [hidden, hidden] and [intermediate, intermediate], and some
//          copies of one expert in f32
// Errors   kIo of the calibration's file; kOutOfMemory
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "base/result.h"
#include "compute/cpu/cpu_backend.h"
#include "format/expert_parts.h"
#include "pack/calibration.h"
#include "pack/feedback.h"

namespace penstock {

class CalibratedExperts {
 public:
  // `calibration` outlives it.
  static Result<CalibratedExperts> create(const Calibration& calibration, const ExpertShape& shape,
                                          int num_threads);

  // Whether the run saw this layer; a prediction block is not run.
  bool has(int64_t layer) const { return layer < calibration_->shape().num_layers; }
  // Whether a row of it went to the expert.
  Result<bool> has_seen(int64_t layer, int64_t expert);

  // Of each expert gate and up first, [2 * intermediate, hidden], then down, [hidden, intermediate].
  Result<FeedbackLoss> quantise_gate_up(int64_t layer, int64_t expert, DType dtype,
                                        std::span<const float> weights, std::span<std::byte> out);
  // gate_up: the source's.
  Result<FeedbackLoss> quantise_down(int64_t layer, int64_t expert, DType dtype,
                                     std::span<const float> gate_up, std::span<const float> weights,
                                     std::span<std::byte> out);

  // The same as each of `types`, for what is lost: no codes are kept.
  Result<std::vector<FeedbackLoss>> survey_gate_up(int64_t layer, int64_t expert,
                                                   std::span<const DType> types,
                                                   std::span<const float> weights);
  Result<std::vector<FeedbackLoss>> survey_down(int64_t layer, int64_t expert,
                                                std::span<const DType> types,
                                                std::span<const float> gate_up,
                                                std::span<const float> weights);

 private:
  CalibratedExperts(const Calibration& calibration, const ExpertShape& shape)
      : calibration_(&calibration), shape_(shape) {}

  // Rows of an input with what they count, a few at a time.
  struct Chosen {
    std::vector<int32_t> tokens;
    std::vector<float> weights;
  };
  Result<void> load(int64_t layer);
  Chosen chosen(int64_t expert) const;
  // rows[i] = inputs of tokens [first, first + count) of `of`, times their weight where wanted.
  void gather(const Chosen& of, int64_t first, int64_t count, bool weighted);
  void add_moments(int64_t count, int64_t width, std::vector<float>& moments);
  std::vector<float> moments_of(const Chosen& of);
  Result<InputMoments> inputs_of_gate_up(int64_t layer, int64_t expert);
  Result<InputMoments> inputs_of_down(int64_t layer, int64_t expert,
                                      std::span<const float> gate_up);
  std::vector<FeedbackLoss> survey(std::span<const DType> types, std::span<const float> weights,
                                   int64_t rows, const InputMoments& inputs);

  const Calibration* calibration_;
  ExpertShape shape_;
  std::unique_ptr<CpuBackend> backend_;
  int64_t layer_ = -1;
  ExpertInputs inputs_;               // of layer_
  std::vector<float> layer_moments_;  // of all rows of layer_
  std::vector<float> rows_, turned_, products_;
  std::vector<std::byte> codes_;  // of a survey
  AlignedMemory panels_;
};

}  // namespace penstock
