// The mixture-of-experts block: route, stream, compute what has arrived, combine in router order.
//
// The reads of a layer start the moment the router has chosen. While they are on their way the
// shared expert and the experts that are in memory are computed; a missing expert starts with its
// gate and up as soon as these are there. Every expert writes rows of its own, and the rows are
// added in the order in which the router ranked them, so the result does not depend on what
// arrived when, on what was cached, or on how the tokens were cut into chunks.
//
// The residual stream changes little from layer to layer, so the next layer's router, applied to
// this layer's input, foresees most of what it will choose. The store reads that ahead when the
// disk is idle; a wrong guess costs time and never changes a result.
//
// Shapes   n tokens, H hidden, I expert width, Is shared expert's width, E experts, K per token
// Errors   kIo, kCorrupt (from the store), kCancelled
// Source   spec section 4.7
#pragma once

#include "model/config.h"
#include "model/step.h"

namespace penstock {

struct MoeWeights {
  Matrix router;                               // [E, H]
  Matrix shared_gate;                          // [1, H]
  Matrix shared_gate_proj, shared_up_proj;     // [Is, H]
  Matrix shared_down_proj;                     // [H, Is]
};

// How the two parts of an expert's record are to be read as matrices.
struct ExpertShape {
  DType dtype = DType::kF32;
  int64_t hidden_size = 0;
  int64_t expert_width = 0;
};

// Parts of an expert record, in the order in which they are needed.
enum ExpertPart : int { kGateUpPart = 0, kDownPart = 1 };

// y = moe(h) for the first `tokens` rows of the scratch buffers h and y. next_router: of the layer
// after this one, nullptr when there is none.
Result<void> moe_block(Step& step, int64_t layer, const MoeWeights& weights,
                       const ExpertShape& shape, const Matrix* next_router, int64_t tokens);

}  // namespace penstock
