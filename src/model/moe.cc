#include "model/moe.h"

#include <optional>

namespace penstock {
namespace {

// The top_k experts of each row of h by `router`, and what else is projected beside its logits.
Result<void> route(Step& step, Rows h, std::span<const Projection> projections, bool renormalise,
                   Routing& routing) {
  const int64_t top_k = step.scratch.shape().experts_per_token;
  const auto choices = static_cast<size_t>(h.count * top_k);
  step.backend.matmul(h, projections);
  routing.experts.resize(choices);
  routing.weights.resize(choices);
  return step.backend.route_top_k(projections.front().out, {static_cast<int>(top_k), renormalise},
                                  routing);
}

}  // namespace

Result<void> moe_block(Step& step, int64_t layer, const MoeWeights& weights,
                       const Matrix* next_router, int64_t tokens) {
  Backend& ops = step.backend;
  const ScratchRows& rows = step.scratch.rows();
  const Rows h = rows.h.first(tokens);
  const Rows router_logits = rows.router_logits.first(tokens);
  const Rows shared = rows.shared.first(weights.has_shared ? tokens : 0);
  const Rows shared_gate = rows.shared_gate.first(weights.has_shared ? tokens : 0);
  Routing& routing = step.moe.routing;

  std::optional<PartTimer> timer(std::in_place, step.times.router_ns);
  const Projection router[] = {{weights.router, nullptr, router_logits},
                               {weights.shared_gate, nullptr, shared_gate}};
  PENSTOCK_TRY(route(step, h, std::span(router).first(weights.has_shared ? 2 : 1),
                     weights.renormalise, routing));
  if (step.reroute) step.reroute(layer, routing);
  limit_choices(step.moe.limits, layer, weights.renormalise, routing);
  if (step.on_route) step.on_route(layer, routing, h);
  ExpertRun experts = step.experts.begin(static_cast<int>(layer), routing, h);

  if (next_router != nullptr && step.experts.wants_foresight()) {
    timer->next(step.times.prefetch_ns);
    const Projection next[] = {{*next_router, nullptr, router_logits}};  // those are done with
    PENSTOCK_TRY(route(step, h, next, true, step.moe.guess));
    limit_choices(step.moe.limits, layer + 1, true, step.moe.guess);
    step.experts.foresee(static_cast<int>(layer) + 1, step.moe.guess);
  }

  timer->next(step.times.shared_ns);
  if (weights.has_shared) {
    ops.dense_ffn(h, weights.shared_gate_proj, weights.shared_up_proj, weights.shared_down_proj,
                  shared);
  }
  timer.reset();

  const Rows expert_rows = rows.expert_rows.first(tokens * routing.top_k);
  const ExpertTimes times = PENSTOCK_TRY(experts.finish(expert_rows, step.stop));
  step.times.experts_ns += times.compute_ns;
  step.times.expert_wait_ns += times.wait_ns;

  const PartTimer combine_timer(step.times.experts_ns);
  ops.combine(expert_rows, routing, shared, shared_gate, rows.y.first(tokens));
  return {};
}

}  // namespace penstock
