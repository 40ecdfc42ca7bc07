#include "model/moe.h"

#include <algorithm>
#include <optional>

namespace penstock {
namespace {

// Turns the routing of a chunk around: distinct experts, and the rows that go through each.
void plan_experts(int64_t num_experts, MoeScratch& scratch) {
  const Routing& routing = scratch.routing;
  const auto choices = static_cast<size_t>(routing.num_tokens * routing.top_k);
  const std::span<const int32_t> chosen(routing.experts.data(), choices);
  std::vector<int32_t>& index_of = scratch.index_of;
  index_of.assign(static_cast<size_t>(num_experts), -1);
  for (const int32_t expert : chosen) index_of[static_cast<size_t>(expert)] = 0;
  scratch.experts.clear();
  if (routing.num_tokens == 1) {
    // Decode: the router's order, so that the strongest expert is read first.
    scratch.experts.assign(chosen.begin(), chosen.end());
  } else {
    for (int32_t expert = 0; expert < num_experts; ++expert) {
      if (index_of[static_cast<size_t>(expert)] == 0) scratch.experts.push_back(expert);
    }
  }
  for (size_t i = 0; i < scratch.experts.size(); ++i) {
    index_of[static_cast<size_t>(scratch.experts[i])] = static_cast<int32_t>(i);
  }
  // Counting sort of the choices by expert; within an expert, tokens stay in order.
  scratch.first.assign(scratch.experts.size() + 1, 0);
  for (const int32_t expert : chosen) {
    ++scratch.first[static_cast<size_t>(index_of[static_cast<size_t>(expert)]) + 1];
  }
  for (size_t i = 0; i < scratch.experts.size(); ++i) scratch.first[i + 1] += scratch.first[i];
  scratch.next.assign(scratch.first.begin(), scratch.first.end() - 1);
  scratch.tokens.resize(choices);
  scratch.places.resize(choices);
  for (size_t place = 0; place < choices; ++place) {
    const auto i = static_cast<size_t>(index_of[static_cast<size_t>(chosen[place])]);
    const auto at = static_cast<size_t>(scratch.next[i]++);
    scratch.tokens[at] = static_cast<int32_t>(place) / routing.top_k;
    scratch.places[at] = static_cast<int32_t>(place);
  }
}

// Tells the store what the next layer will probably choose, where it wants to know.
Result<void> wish_for_next(Step& step, int64_t next_layer, const Matrix& next_router, Rows h,
                   Rows logits) {
  MoeScratch& scratch = step.moe;
  const auto top_k = static_cast<int>(step.scratch.shape().experts_per_token);
  const Projection router[] = {{next_router, nullptr, logits}};
  step.backend.matmul(h, router);
  const auto choices = static_cast<size_t>(h.count * top_k);
  scratch.guess.experts.resize(choices);
  scratch.guess.weights.resize(choices);
  PENSTOCK_TRY(step.backend.route_top_k(logits, top_k, scratch.guess));

  scratch.votes.assign(static_cast<size_t>(next_router.rows), 0);
  scratch.wishes.clear();
  for (const int32_t expert : std::span(scratch.guess.experts).first(choices)) {
    if (scratch.votes[static_cast<size_t>(expert)]++ == 0) scratch.wishes.push_back(expert);
  }
  if (h.count > 1) {  // one token: the router's order already
    std::ranges::sort(scratch.wishes, [&](int32_t a, int32_t b) {
      const int32_t for_a = scratch.votes[static_cast<size_t>(a)];
      const int32_t for_b = scratch.votes[static_cast<size_t>(b)];
      return for_a != for_b ? for_a > for_b : a < b;
    });
  }
  step.experts.prefetch(static_cast<int>(next_layer), scratch.wishes);
  return {};
}

ExpertWork work_for(const MoeScratch& scratch, size_t i) {
  const auto begin = static_cast<size_t>(scratch.first[i]);
  const auto count = static_cast<size_t>(scratch.first[i + 1]) - begin;
  return {.gate_up = {},
          .down = {},
          .tokens = std::span(scratch.tokens).subspan(begin, count),
          .places = std::span(scratch.places).subspan(begin, count)};
}

// Computes experts as they come. A down part that overtook its gate and up waits here.
class ExpertRunner {
 public:
  ExpertRunner(Step& step, const ExpertShape& shape, Rows h, Rows hidden, Rows out)
      : step_(step), scratch_(step.moe), shape_(shape), h_(h), hidden_(hidden), out_(out) {
    scratch_.gate_up_done.assign(scratch_.experts.size(), false);
    scratch_.down.assign(scratch_.experts.size(), nullptr);
  }

  Result<void> run(ExpertStream& stream) {
    for (;;) {
      PartTimer timer(step_.times.expert_wait_ns);
      const std::span<const ExpertArrival> arrivals = PENSTOCK_TRY(stream.next(step_.stop));
      if (arrivals.empty()) return {};
      timer.next(step_.times.experts_ns);
      compute(arrivals, stream);
    }
  }

 private:
  void compute(std::span<const ExpertArrival> arrivals, ExpertStream& stream) {
    scratch_.gate_up_work.clear();
    scratch_.down_work.clear();
    scratch_.finished.clear();
    for (const ExpertArrival& arrival : arrivals) {
      const auto i = static_cast<size_t>(arrival.index);
      if (arrival.part == kGateUpPart) {
        ExpertWork work = work_for(scratch_, i);
        work.gate_up = {shape_.dtype, 2 * shape_.expert_width, shape_.hidden_size,
                        arrival.data.data()};
        scratch_.gate_up_work.push_back(work);
        scratch_.gate_up_done[i] = true;
      } else {
        scratch_.down[i] = arrival.data.data();
      }
    }
    for (const ExpertArrival& arrival : arrivals) {
      const auto i = static_cast<size_t>(arrival.index);
      if (!scratch_.gate_up_done[i] || scratch_.down[i] == nullptr) continue;
      ExpertWork work = work_for(scratch_, i);
      work.down = {shape_.dtype, shape_.hidden_size, shape_.expert_width, scratch_.down[i]};
      scratch_.down_work.push_back(work);
      scratch_.finished.push_back(arrival.index);
      scratch_.down[i] = nullptr;  // both parts in one batch: listed twice, computed once
    }
    if (!scratch_.gate_up_work.empty()) {
      step_.backend.expert_gate_up(h_, scratch_.gate_up_work, hidden_);
      step_.experts.keep_reading();
    }
    if (!scratch_.down_work.empty()) step_.backend.expert_down(hidden_, scratch_.down_work, out_);
    for (const int32_t index : scratch_.finished) stream.release(index);
  }

  Step& step_;
  MoeScratch& scratch_;
  const ExpertShape& shape_;
  Rows h_, hidden_, out_;
};

}  // namespace

Result<void> moe_block(Step& step, int64_t layer, const MoeWeights& weights,
                       const ExpertShape& shape, const Matrix* next_router, int64_t tokens) {
  Backend& ops = step.backend;
  const ScratchRows& rows = step.scratch.rows();
  const int64_t top_k = step.scratch.shape().experts_per_token;
  const Rows h = rows.h.first(tokens);
  const Rows router_logits = rows.router_logits.first(tokens);
  const Rows shared = rows.shared.first(tokens);
  const Rows shared_gate = rows.shared_gate.first(tokens);

  std::optional<PartTimer> timer(std::in_place, step.times.router_ns);
  const Projection router[] = {{weights.router, nullptr, router_logits},
                               {weights.shared_gate, nullptr, shared_gate}};
  ops.matmul(h, router);
  step.moe.routing.experts.resize(static_cast<size_t>(tokens * top_k));
  step.moe.routing.weights.resize(static_cast<size_t>(tokens * top_k));
  PENSTOCK_TRY(ops.route_top_k(router_logits, static_cast<int>(top_k), step.moe.routing));
  if (step.reroute) step.reroute(layer, step.moe.routing);
  if (step.on_route) step.on_route(layer, step.moe.routing);
  plan_experts(weights.router.rows, step.moe);
  ExpertStream stream = step.experts.stream(static_cast<int>(layer), step.moe.experts);

  if (next_router != nullptr && step.experts.wants_prefetch()) {
    timer->next(step.times.prefetch_ns);
    PENSTOCK_TRY(wish_for_next(step, layer + 1, *next_router, h, router_logits));  // the logits are done with
  }

  timer->next(step.times.shared_ns);
  ops.dense_ffn(h, weights.shared_gate_proj, weights.shared_up_proj, weights.shared_down_proj,
                shared);
  step.experts.keep_reading();
  timer.reset();

  const Rows hidden = rows.expert_hidden.first(tokens * top_k);
  const Rows expert_rows = rows.expert_rows.first(tokens * top_k);
  ExpertRunner runner(step, shape, h, hidden, expert_rows);
  PENSTOCK_TRY(runner.run(stream));

  const PartTimer combine_timer(step.times.experts_ns);
  ops.combine(expert_rows, step.moe.routing, shared, shared_gate, rows.y.first(tokens));
  return {};
}

}  // namespace penstock
