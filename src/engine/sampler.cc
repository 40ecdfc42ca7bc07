#include "engine/sampler.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace penstock {
namespace {

Result<void> in_range(const char* name, double value, double low, double high) {
  if (value >= low && value <= high) return {};
  return Error{ErrorCode::kInvalidArgument,
               fmt::format("{} is {}, expected {} to {}", name, value, low, high)};
}

Result<void> read_float(const Json& config, const char* key, float& field) {
  if (json_find(config, key) == nullptr) return {};
  field = static_cast<float>(PENSTOCK_TRY(json_number(config, key, "generation_config.json")));
  return {};
}

}  // namespace

Result<void> SamplingOptions::check() const {
  PENSTOCK_TRY(in_range("temperature", temperature, 0, 5));
  PENSTOCK_TRY(in_range("top-k", top_k, 0, 1 << 24));
  PENSTOCK_TRY(in_range("top-p", top_p, 1e-6, 1));
  PENSTOCK_TRY(in_range("min-p", min_p, 0, 1));
  PENSTOCK_TRY(in_range("presence-penalty", presence_penalty, -2, 2));
  PENSTOCK_TRY(in_range("frequency-penalty", frequency_penalty, -2, 2));
  PENSTOCK_TRY(in_range("repetition-penalty", repetition_penalty, 1e-3, 10));
  return {};
}

Result<SamplingOptions> sampling_defaults(const Json& config) {
  SamplingOptions options;
  bool do_sample = false;
  if (json_find(config, "do_sample") != nullptr) {
    do_sample = PENSTOCK_TRY(json_bool(config, "do_sample", "generation_config.json"));
  }
  if (do_sample) {
    options.temperature = 1.0f;
    PENSTOCK_TRY(read_float(config, "temperature", options.temperature));
  }
  if (json_find(config, "top_k") != nullptr) {
    options.top_k = static_cast<int>(
        PENSTOCK_TRY(json_int(config, "top_k", "generation_config.json", 0, 1 << 24)));
  }
  PENSTOCK_TRY(read_float(config, "top_p", options.top_p));
  PENSTOCK_TRY(read_float(config, "min_p", options.min_p));
  PENSTOCK_TRY(read_float(config, "presence_penalty", options.presence_penalty));
  PENSTOCK_TRY(read_float(config, "frequency_penalty", options.frequency_penalty));
  PENSTOCK_TRY(read_float(config, "repetition_penalty", options.repetition_penalty));
  const Result<void> checked = options.check();
  if (!checked) {
    return Error{ErrorCode::kCorrupt, "generation_config.json: " + checked.error().message};
  }
  return options;
}

Sampler::Sampler(const SamplingOptions& options, int64_t vocab_size,
                 std::span<const TokenId> prompt)
    : options_(options),
      vocab_size_(static_cast<size_t>(vocab_size)),
      random_state_(options.seed),
      answer_counts_(vocab_size_, 0),
      seen_(vocab_size_, false) {
  for (const TokenId id : prompt) {
    if (static_cast<size_t>(id) < vocab_size_) seen_[static_cast<size_t>(id)] = true;
  }
  candidates_.reserve(vocab_size_);
}

TokenId Sampler::sample(std::span<float> logits) {
  logits = logits.first(std::min(logits.size(), vocab_size_));
  apply_penalties(logits);
  TokenId id = 0;
  if (options_.temperature == 0.0f) {
    id = static_cast<TokenId>(std::max_element(logits.begin(), logits.end()) - logits.begin());
  } else {
    id = draw(logits);
  }
  ++answer_counts_[static_cast<size_t>(id)];
  seen_[static_cast<size_t>(id)] = true;
  return id;
}

void Sampler::apply_penalties(std::span<float> logits) const {
  const bool none = options_.presence_penalty == 0 && options_.frequency_penalty == 0 &&
                    options_.repetition_penalty == 1;
  if (none) return;
  for (size_t id = 0; id < logits.size(); ++id) {
    float& logit = logits[id];
    if (seen_[id]) {
      logit = logit > 0 ? logit / options_.repetition_penalty
                        : logit * options_.repetition_penalty;
    }
    if (answer_counts_[id] > 0) {
      logit -= options_.presence_penalty +
               options_.frequency_penalty * static_cast<float>(answer_counts_[id]);
    }
  }
}

TokenId Sampler::draw(std::span<const float> logits) {
  candidates_.clear();
  for (size_t id = 0; id < logits.size(); ++id) {
    candidates_.push_back({logits[id] / options_.temperature, static_cast<TokenId>(id)});
  }
  const auto stronger = [](const Candidate& a, const Candidate& b) {
    return a.logit != b.logit ? a.logit > b.logit : a.id < b.id;
  };
  if (options_.top_k > 0 && static_cast<size_t>(options_.top_k) < candidates_.size()) {
    std::partial_sort(candidates_.begin(), candidates_.begin() + options_.top_k,
                      candidates_.end(), stronger);
    candidates_.resize(static_cast<size_t>(options_.top_k));
  } else {
    std::sort(candidates_.begin(), candidates_.end(), stronger);
  }
  // Probabilities relative to the strongest; sums in double, in falling order.
  const double strongest = candidates_.front().logit;
  const auto weight = [&](const Candidate& c) { return std::exp(c.logit - strongest); };
  double total = 0;
  for (const Candidate& candidate : candidates_) total += weight(candidate);
  size_t kept = 0;
  double kept_total = 0;
  for (; kept < candidates_.size(); ++kept) {
    const double w = weight(candidates_[kept]);
    const bool enough = kept > 0 && kept_total >= options_.top_p * total;
    if (enough || w < options_.min_p) break;
    kept_total += w;
  }
  double point = next_uniform() * kept_total;
  for (size_t i = 0; i + 1 < kept; ++i) {
    point -= weight(candidates_[i]);
    if (point < 0) return candidates_[i].id;
  }
  return candidates_[kept - 1].id;
}

double Sampler::next_uniform() {
  // splitmix64: one addition and a mix per draw; the whole state is the seed.
  random_state_ += 0x9e3779b97f4a7c15ull;
  uint64_t z = random_state_;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
  z ^= z >> 31;
  return static_cast<double>(z >> 11) * 0x1p-53;
}

}  // namespace penstock
