// What the experts of each layer lose as 2, 3, 4 and 8 bits, measured before anything is packed.
//
// At most kSurveyExperts of a layer are quantised, evenly chosen; a layer has many groups of weights, so
// these speak for the others. The loss of a part is what they lose together as a share of what they are
// together, so that layers and parts can be compared:
//
//   alone       the quantiser's own error (compute/quantiser.h) / sum of value^2
//   calibrated  of the codes with feedback: sum of rows' loss (pack/feedback.h) / sum of w H w^T; experts
//               that saw nothing have no say
//
// Threads  one; quantising uses a team of its own. Sums are in one order: the same losses for any team
// Memory   one expert in f32 and, calibrated, as pack/calibrated_experts.h
// Errors   of reading the source; kCancelled; kOutOfMemory
#pragma once

#include <cstdint>
#include <functional>
#include <stop_token>
#include <vector>

#include "base/result.h"
#include "compute/quantiser.h"
#include "format/expert_parts.h"
#include "pack/bit_plan.h"
#include "pack/calibrated_experts.h"
#include "pack/pack.h"

namespace penstock {

inline constexpr int64_t kSurveyExperts = 16;

struct SurveyWork {
  ExpertShape shape;
  Quantiser quantiser = Quantiser::kSearch;
  int num_threads = 1;
  CalibratedExperts* calibrated = nullptr;  // of layers that it has
  // Hands out the values of a part of an expert: [2 * intermediate, hidden] or [hidden, intermediate].
  std::function<Result<void>(int64_t layer, int64_t expert, PackedPart part,
                             std::vector<float>& values)>
      read;
  std::function<void(uint64_t done, uint64_t total)> on_progress;  // may be empty; in experts
  std::stop_token stop;
};

Result<std::vector<LayerLosses>> survey_losses(const SurveyWork& work);

// kInvalidArgument where no plan can be within the bytes: known before anything is measured.
Result<void> check_target_bytes(const ExpertShape& shape, uint64_t target_bytes);

// For a pack: what its options say of the work; then the work, and what is chosen for their
// target_bytes, of which they are told.
SurveyWork survey_work(const PackOptions& options, const ExpertShape& shape, std::stop_token stop);
Result<std::vector<LayerTypes>> survey_and_plan(const SurveyWork& work, const PackOptions& options);

}  // namespace penstock
