#include "quality/traffic.h"

#include <algorithm>
#include <span>

#include "experts/experts.h"

namespace penstock {
namespace {

double mean(int64_t sum, int64_t count) {
  return count == 0 ? 0 : static_cast<double>(sum) / static_cast<double>(count);
}

}  // namespace

ExpertTraffic::ExpertTraffic(const ExpertTable& table)
    : table_(table), tokens_(table.layers.size()), chosen_(table.layers.size()) {}

RouteObserver ExpertTraffic::observer() {
  return [this](int64_t layer, const Routing& routing, Rows) { add(layer, routing); };
}

void ExpertTraffic::add(int64_t layer, const Routing& routing) {
  const auto i = static_cast<size_t>(layer);
  if (i >= tokens_.size()) return;
  tokens_[i] += routing.num_tokens;
  const auto chosen =
      std::span(routing.experts).first(static_cast<size_t>(routing.num_tokens * routing.top_k));
  chosen_[i] += std::ssize(chosen) - std::ranges::count(chosen, kNoExpert);
}

double ExpertTraffic::bytes_per_token() const {
  double bytes = 0;
  for (size_t i = 0; i < tokens_.size(); ++i) {
    uint64_t expert_bytes = 0;
    for (const PartPlace& part : table_.layers[i].parts) expert_bytes += part.bytes;
    bytes += mean(chosen_[i], tokens_[i]) * static_cast<double>(expert_bytes);
  }
  return bytes;
}

double ExpertTraffic::experts_per_token() const {
  int64_t chosen = 0, tokens = 0;
  for (const int64_t n : chosen_) chosen += n;
  for (const int64_t n : tokens_) tokens += n;
  return mean(chosen, tokens);
}

}  // namespace penstock
