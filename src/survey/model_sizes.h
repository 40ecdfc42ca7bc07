// Parameters, bytes and operations of a model, from its shape alone.
//
// What the cost model counts with: no file is needed, so that a model can be judged before it is
// downloaded. Where a packed model exists its own sizes go before these (they differ by padding,
// less than 0.1 %).
//
// Units   bytes; bits are those of storage, scales included: 4.5 for 4-bit groups of 64 (panel.h)
// Source  spec sections 4.8, 8.1-8.3; the tests compare with its tables
#pragma once

#include <cstdint>

#include "base/dtype.h"
#include "model/config.h"

namespace penstock {

// Elements of the text model, without the block for multi-token prediction.
struct ParameterCount {
  int64_t embedding = 0;  // read one row per token
  int64_t head = 0;       // 0 when tied to the embedding
  int64_t delta_layers = 0;
  int64_t attention_layers = 0;
  int64_t routers = 0;
  int64_t shared_experts = 0;
  int64_t shared_gates = 0;
  int64_t norms = 0;  // of blocks, and the final one
  int64_t one_expert = 0;
  int64_t experts = 0;
  int64_t kept_matrices = 0;  // of the above: matrices that no option quantises (routers, gates)
  int64_t plain_vectors = 0;  // of the above: norms, convolutions, rates; stored as f32

  int64_t resident() const {
    return embedding + head + delta_layers + attention_layers + routers + shared_experts +
           shared_gates + norms;
  }
  int64_t total() const { return resident() + experts; }
};
ParameterCount count_parameters(const ModelConfig& config);

// Elements that one token multiplies with, embedding row apart.
int64_t active_parameters(const ModelConfig& config, int64_t experts_per_token);

struct StoredBits {
  double experts = 4.5;
  double resident = 8.5;  // all matrices but the next
  double kept = 16;       // routers, gates, decay inputs
  double plain = 32;      // norms and other vectors
};

// Bits that a panel spends on one element: 4.5 for q4.
double stored_bits(DType dtype);

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

// Floating-point operations of prompt positions [first, end): two per active parameter without the
// head (needed once per prompt), and attention over what came before.
double prompt_flops(const ModelConfig& config, int64_t experts_per_token, int64_t first,
                    int64_t end);

}  // namespace penstock
