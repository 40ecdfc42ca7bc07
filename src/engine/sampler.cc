#include "engine/sampler.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "format/text.h"

namespace penstock {
namespace {

Result<void> in_range(const char* name, double value, double low, double high) {
  if (value >= low && value <= high) return {};
  return Error{ErrorCode::kInvalidArgument,
               fmt::format("{} is {}, expected {} to {}", name, value, low, high)};
}

// Members of generation_config.json; what cannot be used is noted and left as it was.
class Defaults {
 public:
  Defaults(const Json& config, std::vector<std::string>& notes) : config_(config), notes_(notes) {}

  bool is_on(const char* key) {
    const Json* value = json_find(config_, key);
    if (value == nullptr || value->is_boolean()) return value != nullptr && value->get<bool>();
    refuse(key, *value, "true or false");
    return false;
  }

  void read(const char* key, double low, double high, float& field) {
    double value = 0;
    if (read_number(key, low, high, value)) field = static_cast<float>(value);
  }

  // -1 is how others write "off".
  void read_top_k(int& field) {
    double value = 0;
    if (read_number("top_k", -1, 1 << 24, value)) field = std::max(0, static_cast<int>(value));
  }

 private:
  bool read_number(const char* key, double low, double high, double& number) {
    const Json* value = json_find(config_, key);
    if (value == nullptr) return false;
    if (value->is_number()) number = value->get<double>();
    if (value->is_number() && number >= low && number <= high) return true;
    refuse(key, *value, fmt::format("a number from {} to {}", low, high));
    return false;
  }

  void refuse(const char* key, const Json& value, const std::string& expected) {
    notes_.push_back(fmt::format("generation_config.json: {} is {}, expected {}; it is not used",
                                 key, escaped(to_text(value)), expected));
  }

  const Json& config_;
  std::vector<std::string>& notes_;
};

// The first of the largest of numbers. Comparing one after the other, each waits for the one before:
// a third of a millisecond for 250,000.
int64_t first_of_largest(std::span<const float> logits) {
  std::array<float, 16> chains;
  chains.fill(-std::numeric_limits<float>::infinity());
  size_t i = 0;
  for (; i + chains.size() <= logits.size(); i += chains.size()) {
    for (size_t c = 0; c < chains.size(); ++c) {
      chains[c] = logits[i + c] > chains[c] ? logits[i + c] : chains[c];
    }
  }
  for (; i < logits.size(); ++i) chains[0] = std::max(chains[0], logits[i]);
  return std::ranges::find(logits, std::ranges::max(chains)) - logits.begin();
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
  PENSTOCK_TRY(in_range("repeat-last-n", repeat_last_n, -1, 1 << 24));
  return {};
}

SamplingOptions sampling_defaults(const Json& config, std::vector<std::string>& notes) {
  SamplingOptions options;
  Defaults defaults(config, notes);
  if (defaults.is_on("do_sample")) {
    options.temperature = 1.0f;
    defaults.read("temperature", 0, 5, options.temperature);
  }
  defaults.read_top_k(options.top_k);
  defaults.read("top_p", 1e-6, 1, options.top_p);
  defaults.read("min_p", 0, 1, options.min_p);
  defaults.read("presence_penalty", -2, 2, options.presence_penalty);
  defaults.read("frequency_penalty", -2, 2, options.frequency_penalty);
  defaults.read("repetition_penalty", 1e-3, 10, options.repetition_penalty);
  return options;
}

Sampler::Sampler(const SamplingOptions& options, int64_t vocab_size,
                 std::span<const TokenId> prompt)
    : options_(options),
      vocab_size_(static_cast<size_t>(vocab_size)),
      random_state_(options.seed),
      answer_counts_(vocab_size_, 0),
      seen_(vocab_size_, false) {
  if (options.repeat_last_n >= 0) {
    const auto count = std::min(static_cast<size_t>(options.repeat_last_n), prompt.size());
    prompt = prompt.last(count);
    recent_.assign(prompt.begin(), prompt.end());
    recent_prompt_ = count;
  }
  for (const TokenId id : prompt) {
    if (static_cast<size_t>(id) < vocab_size_) seen_[static_cast<size_t>(id)] = true;
  }
  if (options.temperature > 0) {
    const size_t top_k = options.top_k > 0 ? static_cast<size_t>(options.top_k) : vocab_size_;
    candidates_.reserve(std::min(top_k, vocab_size_));
  }
}

// Before everything else, so that what is forbidden takes no share of top-k or top-p.
void Sampler::forbid(std::span<float> logits, std::span<const uint64_t> allowed) {
  constexpr float kNever = -std::numeric_limits<float>::infinity();
  for (size_t first = 0; first < logits.size(); first += 64) {
    const uint64_t word = first / 64 < allowed.size() ? allowed[first / 64] : 0;
    if (word == ~uint64_t{0}) continue;
    const size_t last = std::min(first + 64, logits.size());
    for (size_t id = first; id < last; ++id) {
      if ((word >> (id - first) & 1) == 0) logits[id] = kNever;
    }
  }
}

TokenId Sampler::sample(std::span<float> logits, std::span<const uint64_t> allowed) {
  logits = logits.first(std::min(logits.size(), vocab_size_));
  if (!allowed.empty()) forbid(logits, allowed);
  apply_penalties(logits);
  TokenId id = 0;
  if (options_.temperature == 0.0f) {
    id = static_cast<TokenId>(first_of_largest(logits));
  } else {
    id = draw(logits);
  }
  remember(id);
  return id;
}

bool Sampler::has_penalties() const {
  return options_.presence_penalty != 0 || options_.frequency_penalty != 0 ||
         options_.repetition_penalty != 1;
}

// The token that was drawn counts from now on; where penalties look back so far only, the one that is
// out of their sight does not any more.
void Sampler::remember(TokenId id) {
  ++answer_counts_[static_cast<size_t>(id)];
  seen_[static_cast<size_t>(id)] = true;
  if (options_.repeat_last_n < 0 || !has_penalties()) return;
  recent_.push_back(id);
  if (std::ssize(recent_) <= options_.repeat_last_n) return;
  const TokenId old = recent_.front();
  recent_.pop_front();
  if (static_cast<size_t>(old) >= vocab_size_) {
    --recent_prompt_;  // only a prompt has such tokens
    return;
  }
  if (recent_prompt_ > 0) {
    --recent_prompt_;
  } else {
    --answer_counts_[static_cast<size_t>(old)];
  }
  if (std::ranges::find(recent_, old) == recent_.end()) seen_[static_cast<size_t>(old)] = false;
}

void Sampler::apply_penalties(std::span<float> logits) const {
  if (!has_penalties()) return;
  for (size_t id = 0; id < logits.size(); ++id) {
    float& logit = logits[id];
    if (seen_[id]) {
      logit = logit > 0 ? logit / options_.repetition_penalty : logit * options_.repetition_penalty;
    }
    if (answer_counts_[id] > 0) {
      logit -= options_.presence_penalty +
               options_.frequency_penalty * static_cast<float>(answer_counts_[id]);
    }
  }
}

// Sorting a vocabulary of 250,000 takes longer than many a model's pass, so only what is kept is
// sorted, and only where an order decides what is kept.
TokenId Sampler::draw(std::span<const float> logits) {
  candidates_.clear();
  if (options_.top_k > 0 && static_cast<size_t>(options_.top_k) < logits.size()) {
    take_top_k(logits);
  } else {
    for (size_t id = 0; id < logits.size(); ++id) candidates_.push_back(candidate(logits, id));
  }
  const double strongest = std::ranges::max_element(candidates_, {}, &Candidate::logit)->logit;
  double total = 0;
  for (Candidate& candidate : candidates_) {
    candidate.weight = std::exp(candidate.logit - strongest);
    total += candidate.weight;
  }
  if (options_.top_p < 1) keep_top_p(options_.top_p * total);
  if (options_.min_p > 0) {
    std::erase_if(candidates_, [&](const Candidate& c) { return c.weight < options_.min_p; });
  }
  double kept = 0;
  for (const Candidate& candidate : candidates_) kept += candidate.weight;
  double point = next_uniform() * kept;
  TokenId last = candidates_.front().id;
  for (const Candidate& candidate : candidates_) {
    if (candidate.weight == 0) continue;  // forbidden, or too weak for a double
    point -= candidate.weight;
    if (point < 0) return candidate.id;
    last = candidate.id;
  }
  return last;  // the sum was rounded up
}

// A heap whose top is the weakest that is kept: nearly all others fail one comparison.
void Sampler::take_top_k(std::span<const float> logits) {
  const auto count = static_cast<size_t>(options_.top_k);
  for (size_t id = 0; id < count; ++id) candidates_.push_back(candidate(logits, id));
  std::ranges::make_heap(candidates_, &Sampler::is_stronger);
  float weakest = logits[static_cast<size_t>(candidates_.front().id)];
  for (size_t id = count; id < logits.size(); ++id) {
    if (logits[id] < weakest) continue;
    const Candidate next = candidate(logits, id);
    if (!is_stronger(next, candidates_.front())) continue;
    std::ranges::pop_heap(candidates_, &Sampler::is_stronger);
    candidates_.back() = next;
    std::ranges::push_heap(candidates_, &Sampler::is_stronger);
    weakest = logits[static_cast<size_t>(candidates_.front().id)];
  }
  std::ranges::sort_heap(candidates_, &Sampler::is_stronger);
}

// The fewest of the strongest whose weights add up to `least`; at least one.
void Sampler::keep_top_p(double least) {
  constexpr std::ptrdiff_t kFirstBand = 64;
  const auto end = candidates_.end();
  auto sorted = candidates_.begin();
  double sum = 0;
  for (std::ptrdiff_t band = kFirstBand; sorted != end; band *= 8) {
    const auto next = end - sorted > band ? sorted + band : end;
    if (next != end) std::nth_element(sorted, next, end, &Sampler::is_stronger);
    std::sort(sorted, next, &Sampler::is_stronger);
    for (; sorted != next; ++sorted) {
      if (sorted != candidates_.begin() && sum >= least) {
        candidates_.erase(sorted, end);
        return;
      }
      sum += sorted->weight;
    }
  }
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
