// The sampling in force: flags, environment and file over what the model's own
// generation_config.json says, and where each value came from.
//
// Errors  kInvalidArgument naming where the value came from
#pragma once

#include <set>
#include <string>

#include "cli/settings.h"
#include "engine/sampler.h"

namespace penstock {

struct SamplingChoice {
  SamplingOptions options;
  std::string text;  // "temp 0.6 (model), top-p 0.9 (--top-p), seed 17"
};

// kInvalidArgument when the values do not go together.
Result<SamplingChoice> choose_sampling(const Settings& settings, const SamplingOptions& model);

// {"temperature", "top_k", ...}
Json sampling_json(const SamplingOptions& options);

// The names of the flags among them that were given, at whatever place.
std::set<std::string> given_sampling(const Settings& settings);
// The values of these names as OpenAI's API and its relatives call them.
Json asked_sampling(const SamplingOptions& options, const std::set<std::string>& names);

// Sets one value by its flag's name ("temp"), as /set does. kInvalidArgument.
Result<void> set_sampling(SamplingOptions& options, const std::string& name,
                          const std::string& text);

}  // namespace penstock
