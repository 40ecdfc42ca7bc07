// Where a benchmark's routing comes from: the model itself, chance, a model of a session, a record.
//
//   model        the router's own choice
//   uniform      every token any experts, independently: the worst that a cache can meet
//   session      one conversation on one topic: a router fitted to published statistics of
//                Qwen3.5-397B. A layer's logits are the sum of its popularity N(0, 0.3), of the
//                session's tilt N(0, 0.8), and of the token's noise N(0, 1), which follows an AR(1)
//                process with r = 0.5
//   trace:FILE   recorded from a model of the same shape (survey/recorded_routes.h); wraps around
//
// Popularity belongs to the shape, the tilt to the seed: all sequences of one seed are one session.
// Noise, and the place in a record, follow from the sequence's number too.
//
// Threads  const calls from several
// Errors   open(): kInvalidArgument for another word or a trace of another model; what
//          load_recorded_routes returns
// Source   Fitted: 512 experts, 4 per token: a quarter of the experts repeats from one token to the
//          next (measured 26.6 %), 209 distinct in 430 tokens (about 230); 10 per token over twenty
//          sessions: Gini 0.42 (0.38)
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "base/result.h"
#include "io/storage.h"
#include "survey/recorded_routes.h"
#include "survey/route_table.h"

namespace penstock {

class RoutingSource {
 public:
  static Result<RoutingSource> open(Storage& storage, const std::string& words,
                                    const RoutingShape& shape, uint64_t seed);

  const std::string& name() const { return name_; }  // the words it was opened with
  bool is_model() const { return kind_ == Kind::kModel; }

  // The choices of the first `num_tokens` tokens of a sequence. Not for the model's own routing.
  RouteTable make(uint64_t sequence, int64_t num_tokens) const;

 private:
  enum class Kind : uint8_t { kModel, kUniform, kSession, kRecorded };

  void make_uniform(uint64_t sequence, int64_t layer, RouteTable& table) const;
  void make_session(uint64_t sequence, int64_t layer, RouteTable& table) const;
  void copy_recorded(uint64_t sequence, RouteTable& table) const;

  std::string name_;
  Kind kind_ = Kind::kModel;
  RoutingShape shape_;
  uint64_t seed_ = 0;
  std::optional<RecordedRoutes> recorded_;
};

// Every expert of every layer at least once: what fills a cache that holds them all.
RouteTable routes_through_all(const RoutingShape& shape);

}  // namespace penstock
