#include "experts/routed_rows.h"

#include <algorithm>

#include "experts/experts.h"

namespace penstock {
namespace {

std::span<const int32_t> choices_of(const Routing& routing) {
  return std::span(routing.experts)
      .first(static_cast<size_t>(routing.num_tokens) * static_cast<size_t>(routing.top_k));
}

bool is_expert(int32_t choice) {
  return choice != kNoExpert && choice != kElsewhere;
}

}  // namespace

void RoutedRows::turn_around(const Routing& routing, int num_experts) {
  const std::span<const int32_t> chosen = choices_of(routing);
  index_of_.assign(static_cast<size_t>(num_experts), -1);
  experts_.clear();
  left_out_.clear();
  for (size_t place = 0; place < chosen.size(); ++place) {
    if (!is_expert(chosen[place])) {
      if (chosen[place] == kNoExpert) left_out_.push_back(static_cast<int32_t>(place));
      continue;
    }
    index_of_[static_cast<size_t>(chosen[place])] = 0;
    if (routing.num_tokens == 1) experts_.push_back(chosen[place]);
  }
  if (routing.num_tokens > 1) {
    for (int32_t expert = 0; expert < num_experts; ++expert) {
      if (index_of_[static_cast<size_t>(expert)] == 0) experts_.push_back(expert);
    }
  }
  for (size_t i = 0; i < experts_.size(); ++i) {
    index_of_[static_cast<size_t>(experts_[i])] = static_cast<int32_t>(i);
  }
  // Counting sort of the choices by expert; within an expert, tokens stay in order.
  first_.assign(experts_.size() + 1, 0);
  for (const int32_t expert : chosen) {
    if (!is_expert(expert)) continue;
    ++first_[static_cast<size_t>(index_of_[static_cast<size_t>(expert)]) + 1];
  }
  for (size_t i = 0; i < experts_.size(); ++i) first_[i + 1] += first_[i];
  next_.assign(first_.begin(), first_.end() - 1);
  tokens_.resize(chosen.size());
  places_.resize(chosen.size());
  for (size_t place = 0; place < chosen.size(); ++place) {
    if (!is_expert(chosen[place])) continue;
    const auto i = static_cast<size_t>(index_of_[static_cast<size_t>(chosen[place])]);
    const auto at = static_cast<size_t>(next_[i]++);
    tokens_[at] = static_cast<int32_t>(place) / routing.top_k;
    places_[at] = static_cast<int32_t>(place);
  }
}

void rank_by_votes(const Routing& routing, int num_experts, std::vector<int32_t>& votes,
                   std::vector<int32_t>& ranked) {
  votes.assign(static_cast<size_t>(num_experts), 0);
  ranked.clear();
  for (const int32_t expert : choices_of(routing)) {
    if (!is_expert(expert)) continue;
    if (votes[static_cast<size_t>(expert)]++ == 0) ranked.push_back(expert);
  }
  if (routing.num_tokens == 1) return;
  std::ranges::sort(ranked, [&](int32_t a, int32_t b) {
    const int32_t for_a = votes[static_cast<size_t>(a)];
    const int32_t for_b = votes[static_cast<size_t>(b)];
    return for_a != for_b ? for_a > for_b : a < b;
  });
}

}  // namespace penstock
