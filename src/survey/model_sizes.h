// Bytes and operations of a model, from its shape alone (parameters: model/tensors.h).
//
// What the cost model counts with: no file is needed, so that a model can be judged before it is
// downloaded. Where a packed model exists its own sizes go before these (they differ by padding,
// less than 0.1 %).
//
// Units   bytes; bits are those of storage, scales included: 4.5 for 4-bit groups of 64 (panel.h)
// Source  docs/model.md, Sizes; the tests compare with published totals
#pragma once

#include <cstdint>

#include "base/dtype.h"
#include "engine/model_files.h"
#include "format/container.h"
#include "model/tensors.h"

namespace penstock {

struct StoredBits {
  double experts = 4.5;
  double resident = 8.5;  // all matrices but the next
  double kept = 16;       // routers, gates, decay inputs
  double plain = 32;      // norms and other vectors
};

// Bits that a panel spends on one element: 4.5 for q4.
double stored_bits(DType dtype);

// The type of panels whose bits are nearest.
DType nearest_dtype(double bits);

struct ModelSizes {
  uint64_t expert_bytes = 0;  // what one expert's product reads
  uint64_t record_bytes = 0;  // what one expert takes on flash and in a slot
  uint64_t resident_bytes = 0;
  uint64_t dense_bytes = 0;            // of the resident ones, read for every token
  uint64_t shared_bytes = 0;           // of the dense ones, of shared experts: read beside the disk
  uint64_t recurrent_bytes = 0;        // delta-net states and histories of a sequence, f32
  uint64_t kv_bytes_per_position = 0;  // f32
};
ModelSizes model_sizes(const ModelConfig& config, const StoredBits& bits);

// The same, where a model says its own: packed, or a checkpoint to be run in place.
ModelSizes model_sizes(const ModelConfig& config, const Container& model);
ModelSizes model_sizes(const ModelFiles& files);

double expert_bits(const ModelConfig& config, const ModelSizes& sizes);  // of a weight

// Floating-point operations of prompts: two per active parameter without the head (needed once per
// prompt), the delta-nets' states, and attention over what came before.
struct PromptWork {
  double per_position = 0;
  double per_seen_position = 0;  // for each position that a position looks back on

  double flops(int64_t first, int64_t end) const;  // of positions [first, end)
};
PromptWork prompt_work(const ModelConfig& config, int64_t experts_per_token);

}  // namespace penstock
