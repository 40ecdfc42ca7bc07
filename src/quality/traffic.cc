#include "quality/traffic.h"

#include <span>

#include "experts/experts.h"

namespace penstock {
namespace {

double mean(int64_t sum, int64_t count) {
  return count == 0 ? 0 : static_cast<double>(sum) / static_cast<double>(count);
}

double bytes_of(const ExpertTable& table, size_t layer) {
  uint64_t bytes = 0;
  for (const PartPlace& part : table.layers[layer].parts) bytes += part.bytes;
  return static_cast<double>(bytes);
}

}  // namespace

ExpertTraffic::ExpertTraffic(const ExpertTable& table, const ExpertTable* copy, int64_t from_rank)
    : table_(table),
      copy_(copy),
      from_rank_(from_rank),
      tokens_(table.layers.size()),
      chosen_(table.layers.size()),
      of_copy_(table.layers.size()) {}

RouteObserver ExpertTraffic::observer() {
  return [this](int64_t layer, const Routing& routing, Rows) { add(layer, routing); };
}

void ExpertTraffic::add(int64_t layer, const Routing& routing) {
  const auto i = static_cast<size_t>(layer);
  if (i >= tokens_.size()) return;
  tokens_[i] += routing.num_tokens;
  const auto chosen =
      std::span(routing.experts).first(static_cast<size_t>(routing.num_tokens * routing.top_k));
  for (size_t place = 0; place < chosen.size(); ++place) {
    if (chosen[place] == kNoExpert) continue;
    const auto rank = static_cast<int64_t>(place) % routing.top_k + 1;
    ++(copy_ != nullptr && rank >= from_rank_ ? of_copy_ : chosen_)[i];
  }
}

double ExpertTraffic::bytes_per_token() const {
  double bytes = 0;
  for (size_t i = 0; i < tokens_.size(); ++i) {
    bytes += mean(chosen_[i], tokens_[i]) * bytes_of(table_, i);
    if (copy_ != nullptr) bytes += mean(of_copy_[i], tokens_[i]) * bytes_of(*copy_, i);
  }
  return bytes;
}

double ExpertTraffic::experts_per_token() const {
  int64_t chosen = 0, tokens = 0;
  for (const int64_t n : chosen_) chosen += n;
  for (const int64_t n : of_copy_) chosen += n;
  for (const int64_t n : tokens_) tokens += n;
  return mean(chosen, tokens);
}

}  // namespace penstock
