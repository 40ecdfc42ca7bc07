#include "model/expert_limits.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <span>

#include "experts/experts.h"

namespace penstock {
namespace {

constexpr size_t kListedMax = 4096;

Error malformed(const std::string& text) {
  return {ErrorCode::kInvalidArgument,
          fmt::format("\"{}\" is not a list of numbers of experts, such as 8*4,6,6", text)};
}

bool parse_number(std::string_view text, size_t& value) {
  const auto [end, failure] = std::from_chars(text.data(), text.data() + text.size(), value);
  return failure == std::errc{} && end == text.data() + text.size() && value >= 1 &&
         value <= kListedMax;
}

// How many of a token's choices are used.
size_t num_used(const ExpertLimits& limits, size_t layer_limit, std::span<const float> weights) {
  const size_t most = std::min(weights.size(), layer_limit);
  if (limits.weight >= 1) return most;
  double all = 0;
  for (const float weight : weights) all += double{weight};
  double sum = 0;
  for (size_t k = 0; k < most; ++k) {
    sum += double{weights[k]};
    if (sum >= limits.weight * all) return k + 1;
  }
  return most;
}

}  // namespace

Result<std::vector<int>> parse_layer_limits(const std::string& text) {
  std::vector<int> limits;
  for (size_t begin = 0; begin <= text.size();) {
    const size_t end = std::min(text.find(',', begin), text.size());
    const std::string_view entry = std::string_view(text).substr(begin, end - begin);
    const size_t star = entry.find('*');
    size_t experts = 0, layers = 1;
    const bool good =
        parse_number(entry.substr(0, star), experts) &&
        (star == std::string_view::npos || parse_number(entry.substr(star + 1), layers));
    if (!good || limits.size() + layers > kListedMax) return malformed(text);
    limits.insert(limits.end(), layers, static_cast<int>(experts));
    begin = end + 1;
  }
  return limits;
}

std::string to_text(const ExpertLimits& limits) {
  std::string text;
  for (size_t begin = 0, end = 0; begin < limits.by_layer.size(); begin = end) {
    while (end < limits.by_layer.size() && limits.by_layer[end] == limits.by_layer[begin]) ++end;
    text += fmt::format("{}{}", begin == 0 ? "" : ",", limits.by_layer[begin]);
    if (end - begin > 1) text += fmt::format("*{}", end - begin);
  }
  if (!limits.by_layer.empty()) text += " by layer";
  if (limits.weight >= 1) return text;
  return fmt::format("{}{}{} of the weight", text, text.empty() ? "" : ", ", limits.weight);
}

Result<void> check_limits(const ExpertLimits& limits, int64_t num_expert_layers, int64_t chosen) {
  if (!(limits.weight > 0 && limits.weight <= 1)) {
    return Error{ErrorCode::kInvalidArgument,
                 fmt::format("--lossy-expert-weight: {} is not a share of the weight, above 0 and "
                             "at most 1",
                             limits.weight)};
  }
  if (limits.by_layer.empty()) return {};
  if (std::ssize(limits.by_layer) != num_expert_layers) {
    return Error{
        ErrorCode::kInvalidArgument,
        fmt::format("--lossy-experts-by-layer has {} numbers, the model has {} layers with "
                    "experts",
                    limits.by_layer.size(), num_expert_layers)};
  }
  const auto [least, most] = std::ranges::minmax(limits.by_layer);
  if (least < 1) {
    return Error{ErrorCode::kInvalidArgument,
                 "--lossy-experts-by-layer: each layer needs at least 1 expert"};
  }
  if (most <= chosen) return {};
  return Error{ErrorCode::kInvalidArgument,
               fmt::format("--lossy-experts-by-layer: {} are more than the {} that a token has; "
                           "--experts-per-token gives it more",
                           most, chosen)};
}

void limit_choices(const ExpertLimits& limits, int64_t layer, bool renormalise, Routing& routing) {
  if (limits.is_off()) return;
  const auto top_k = static_cast<size_t>(routing.top_k);
  const auto index = static_cast<size_t>(layer);
  // The prediction block's layer, behind those that the list is for, has no limit of its own.
  const size_t layer_limit =
      index < limits.by_layer.size() ? static_cast<size_t>(limits.by_layer[index]) : top_k;
  for (size_t t = 0; t < static_cast<size_t>(routing.num_tokens); ++t) {
    const auto experts = std::span(routing.experts).subspan(t * top_k, top_k);
    const auto weights = std::span(routing.weights).subspan(t * top_k, top_k);
    const size_t used = num_used(limits, layer_limit, weights);
    if (used == top_k) continue;
    std::ranges::fill(experts.subspan(used), kNoExpert);
    std::ranges::fill(weights.subspan(used), 0.0f);
    if (!renormalise) continue;
    double sum = 0;
    for (const float weight : weights.first(used)) sum += double{weight};
    for (float& weight : weights.first(used)) weight = static_cast<float>(double{weight} / sum);
  }
}

}  // namespace penstock
