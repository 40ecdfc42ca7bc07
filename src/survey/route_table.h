// Which experts each token uses in each layer, written down in advance, and how to make a model use
// them.
//
// Made outside of the clock, so that a benchmark's own choice costs next to nothing while it runs.
//
// Threads  one
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

#include "base/check.h"
#include "model/step.h"

namespace penstock {

struct RoutingShape {
  int64_t num_layers = 0;
  int64_t num_experts = 0;
  int64_t top_k = 0;
};

// Ids of one token and layer are distinct, the strongest first.
struct RouteTable {
  RoutingShape shape;
  int64_t num_tokens = 0;
  std::vector<uint16_t> experts;  // [layer][token][rank]

  static RouteTable create(const RoutingShape& shape, int64_t num_tokens) {
    const int64_t size = shape.num_layers * num_tokens * shape.top_k;
    return {shape, num_tokens, std::vector<uint16_t>(static_cast<size_t>(size))};
  }

  std::span<uint16_t> at(int64_t layer, int64_t token) {
    return std::span(experts).subspan(offset(layer, token), static_cast<size_t>(shape.top_k));
  }
  std::span<const uint16_t> at(int64_t layer, int64_t token) const {
    return std::span(experts).subspan(offset(layer, token), static_cast<size_t>(shape.top_k));
  }

 private:
  size_t offset(int64_t layer, int64_t token) const {
    return static_cast<size_t>((layer * num_tokens + token) * shape.top_k);
  }
};

// Plays a table to one sequence from its first token on, in whatever chunks it is fed. More tokens
// than the table has are the caller's mistake.
class RoutePlayer {
 public:
  explicit RoutePlayer(RouteTable table)
      : table_(std::move(table)), next_(static_cast<size_t>(table_.shape.num_layers)) {}
  RoutePlayer(const RoutePlayer&) = delete;
  RoutePlayer& operator=(const RoutePlayer&) = delete;

  // The player outlives it.
  RouteOverride override_routes() {
    return [this](int64_t layer, Routing& routing) { play(layer, routing); };
  }

 private:
  void play(int64_t layer, Routing& routing) {
    PENSTOCK_CHECK(routing.top_k == table_.shape.top_k);
    int64_t& next = next_[static_cast<size_t>(layer)];
    PENSTOCK_CHECK(next + routing.num_tokens <= table_.num_tokens);
    auto out = routing.experts.begin();
    for (int64_t token = 0; token < routing.num_tokens; ++token) {
      out = std::ranges::copy(table_.at(layer, next++), out).out;
    }
  }

  RouteTable table_;
  std::vector<int64_t> next_;  // [layer]
};

}  // namespace penstock
