// Fewer experts than a router chose: lossy, and nothing unless somebody asks for it by name.
//
// A token's choices come by falling weight; those behind the limit are left out, as if they had not been
// chosen, and where the model's weights sum to 1 those of the others do again. Two limits, both or either:
// so many in each layer, and so many that they have a share of the weight of all that were chosen.
//
// What is left out follows from the router's logits alone, so answers do not depend on budget, threads or
// chunks here either.
//
// Threads  plain functions
// Errors   kInvalidArgument: parse_layer_limits() with the text and an example, check_limits() with the
//          flag
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"
#include "compute/backend.h"

namespace penstock {

struct ExpertLimits {
  std::vector<int> by_layer;  // of the layers with experts, each at least 1; empty: none
  double weight = 1;          // (0, 1]; 1: all that were chosen

  bool is_off() const { return by_layer.empty() && weight >= 1; }
};

// "8*4,6,6": four layers with 8, two with 6.
Result<std::vector<int>> parse_layer_limits(const std::string& text);

// The same in words, for people and for what answers depend on, so of every digit: "8*4,6*2 by layer, 0.9
// of the weight".
std::string to_text(const ExpertLimits& limits);

// A number for each of the model's layers with experts, none above the `chosen` of a token; a share.
Result<void> check_limits(const ExpertLimits& limits, int64_t num_expert_layers, int64_t chosen);

// In place of an expert that is left out stands kNoExpert, with the weight 0. Weights may be those of a
// softmax over all experts (renormalise false): then they stay as they are.
void limit_choices(const ExpertLimits& limits, int64_t layer, bool renormalise, Routing& routing);

}  // namespace penstock
