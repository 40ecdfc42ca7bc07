// The mixture-of-experts block: route, ask for the experts, combine in router order.
//
// Whoever holds the experts (experts/experts.h) hears of a layer's choice the moment its router has
// made it; the shared expert is computed while what is missing is on its way. Every expert writes rows
// of its own, and the rows are added in the order in which the router ranked them, so the result does
// not depend on what was there when, or on how the tokens were cut into chunks.
//
// The residual stream changes little from layer to layer, so the next layer's router, applied to
// this layer's input, foresees most of what it will choose; a wrong guess costs time and never
// changes a result.
//
// Shapes   n tokens, H hidden, I expert width, Is shared expert's width, E experts, K per token
// Errors   kIo, kCorrupt (from the experts), kCancelled
// Source   docs/model.md, Experts
#pragma once

#include "model/config.h"
#include "model/step.h"

namespace penstock {

struct MoeWeights {
  Matrix router;                            // [E, H]
  bool renormalise = true;                  // the chosen experts' weights, to sum to 1
  bool has_shared = false;                  // then the next are bound
  Matrix shared_gate;                       // [1, H]
  Matrix shared_gate_proj, shared_up_proj;  // [Is, H]
  Matrix shared_down_proj;                  // [H, Is]
};

// y = moe(h) for the first `tokens` rows of the scratch buffers h and y. `layer`: of the experts,
// which count layers that have some. next_router: of the layer after this one, nullptr when there
// is none or it has no experts.
Result<void> moe_block(Step& step, int64_t layer, const MoeWeights& weights,
                       const Matrix* next_router, int64_t tokens);

}  // namespace penstock
