// A routing turned around: the distinct experts of some tokens, and the rows that go through each.
//
// Threads  one
// Memory   grows to the largest routing and stays
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "compute/backend.h"

namespace penstock {

class RoutedRows {
 public:
  // A single token's experts come in the router's order, so that the strongest is read first; those
  // of more tokens by number. The rows of an expert are in the order of the tokens. Choices that are
  // left out (kNoExpert) are none of anybody's, and those of others (kElsewhere) not ours.
  void turn_around(const Routing& routing, int num_experts);

  std::span<const int32_t> experts() const { return experts_; }
  // Of experts()[i].
  std::span<const int32_t> tokens(size_t i) const { return rows_of(tokens_, i); }  // rows of x
  std::span<const int32_t> places(size_t i) const { return rows_of(places_, i); }  // token * K + k
  int64_t num_choices() const {
    return std::ssize(places_);
  }  // tokens * K, also those that are not ours
  std::span<const int32_t> left_out() const { return left_out_; }  // places

 private:
  std::span<const int32_t> rows_of(const std::vector<int32_t>& rows, size_t i) const {
    const auto begin = static_cast<size_t>(first_[i]);
    return std::span(rows).subspan(begin, static_cast<size_t>(first_[i + 1]) - begin);
  }

  std::vector<int32_t> experts_;
  std::vector<int32_t> first_;            // [experts + 1]
  std::vector<int32_t> tokens_, places_;  // by expert
  std::vector<int32_t> left_out_;
  std::vector<int32_t> index_of_, next_;
};

// The distinct experts of a routing, those that most tokens want first; of a single token in the
// router's order. `votes` is scratch.
void rank_by_votes(const Routing& routing, int num_experts, std::vector<int32_t>& votes,
                   std::vector<int32_t>& ranked);

}  // namespace penstock
