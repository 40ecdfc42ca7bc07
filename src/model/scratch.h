// The activations of one forward pass, allocated once for the largest chunk of tokens.
//
// Shapes   n = chunk tokens, H hidden, K experts per token, I expert width, E experts, V vocabulary
// Memory   one block of the given memory; bytes_needed() is exact and goes into the plan
// Errors   create(): kOutOfMemory
#pragma once

#include <vector>

#include "base/place.h"
#include "base/result.h"
#include "compute/backend.h"
#include "compute/rows.h"
#include "model/config.h"

namespace penstock {

inline constexpr int64_t kLogitsRowsMax = 32;  // that are made at a time

struct ScratchShape {
  int64_t chunk_tokens = 1;
  int64_t experts_per_token = 1;
  int64_t logits_rows = 1;  // logits are made this many rows at a time, at most kLogitsRowsMax
};

// Views of full size; a pass over fewer tokens takes first(n) of each.
struct ScratchRows {
  Rows x;              // [n, H] residual stream
  Rows h;              // [n, H] input of a block
  Rows y;              // [n, H] output of a block
  Rows mixer_in;       // [n, C] delta-net q, k, v; or [n, query_rows] queries and their gates;
                       // or [n, 2 * H] what the prediction block starts from
  Rows mixer_gate;     // [n, Hv * dv] delta-net z; or keys and values, side by side
  Rows beta, decay;    // [n, Hv]
  Rows mixer_out;      // [n, max(Hv * dv, heads * head_dim)]
  Rows router_logits;  // [n, E]
  Rows expert_hidden;  // [n * K, I]
  Rows expert_rows;    // [n * K, H]
  Rows shared;         // [n, H], without rows where there is no shared expert; as the next
  Rows shared_gate;    // [n, 1]
  Rows logits;         // [logits_rows, V]
};

class Scratch {
 public:
  static uint64_t bytes_needed(const ModelConfig& config, const ScratchShape& shape);
  static Result<Scratch> create(const ModelConfig& config, const ScratchShape& shape,
                                Memory& memory);

  const ScratchRows& rows() const { return rows_; }
  const ScratchShape& shape() const { return shape_; }
  // A layer's calls, one for each sequence; kept, so that layers allocate nothing.
  std::vector<DeltaNetCall>& delta_net_calls() { return delta_net_calls_; }

 private:
  Scratch() = default;

  Buffer buffer_;
  ScratchRows rows_;
  ScratchShape shape_;
  std::vector<DeltaNetCall> delta_net_calls_;
};

// `rows` cut to a width: two uses of one buffer differ only in that.
inline Rows with_width(Rows rows, int64_t width) {
  PENSTOCK_DCHECK(width <= rows.stride);
  rows.width = width;
  return rows;
}

}  // namespace penstock
