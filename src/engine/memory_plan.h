// Where every byte of the budget goes: a pure function from model, options and budget to a table.
//
// Everything is allocated at start (of slots the addresses at least), so the plan is the whole truth about
// memory. What every token
// needs comes first (weights, KV cache, states); then room for the largest prefill chunk that the
// budget can bear; all the rest becomes expert slots. The floor is one token's experts (top_k slots
// for every layer): below that, one token evicts what the next one needs and a cache is pointless.
// Where the last of a token's experts come from a copy in fewer bits, model and copy have slots in
// proportion to what a token asks of each, until all experts of one are in memory.
//
// Errors  plan_memory(): kOutOfMemory with the table of needs when the budget is below the floor.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "model/config.h"
#include "model/sequence_memory.h"

namespace penstock {

inline constexpr int64_t kChunkTokensMax = 1024;

struct PlanRequest {
  ModelConfig config;           // without mtp_num_hidden_layers where nothing is drafted
  uint64_t resident_bytes = 0;  // resident weights
  uint64_t record_bytes = 0;    // one expert
  uint64_t checksum_bytes = 0;  // of all experts
  uint64_t text_bytes = 0;      // tokenizer and template
  uint64_t layout_bytes = 0;    // of a thread that lays out what has come
  int64_t coded_columns = 0;    // of the widest matrix in coded rows
  int64_t experts_per_token = 0;
  // The same experts in fewer bits, of which a token takes its last ones; record_bytes 0: there is none.
  struct Copy {
    uint64_t record_bytes = 0;
    uint64_t checksum_bytes = 0;
    int64_t experts_per_token = 0;  // of all those above
  };
  Copy copy;
  int64_t context = 0;              // positions
  int parallel = 1;                 // sequences
  int num_checkpoints = 0;          // kept places
  KvForm kv_form = {};              // of keys and values
  uint64_t prefix_store_bytes = 0;  // to keep places on disk
  uint64_t gpu_bytes = 0;           // of this machine's memory, that a GPU uses
  int threads = 1;
  int64_t chunk_tokens = 0;                    // 0: choose
  int64_t chunk_tokens_max = kChunkTokensMax;  // of those to choose from
  int64_t num_slots = 0;  // 0: all that fit; a number below the floor is for tests
  uint64_t budget_bytes = 0;

  bool has_copy() const { return copy.record_bytes > 0; }
  // Tokens of the longest chunk that a plan may come to.
  int64_t largest_chunk() const {
    return chunk_tokens > 0 ? chunk_tokens : std::min(chunk_tokens_max, context);
  }
};

SequenceLimits sequence_limits(const PlanRequest& request);

// The purposes that change while an engine runs (engine/expert_slots.h).
inline constexpr std::string_view kSlotsItem = "expert slots";
inline constexpr std::string_view kCopySlotsItem = "slots of the copy";

struct PlanItem {
  std::string purpose;
  uint64_t bytes = 0;
};

struct MemoryPlan {
  std::vector<PlanItem> items;
  int64_t chunk_tokens = 0;
  int64_t num_slots = 0;
  int64_t floor_slots = 0;  // of these, one token's experts: never given back
  int64_t copy_slots = 0;   // of the copy in fewer bits, where there is one
  int64_t copy_floor_slots = 0;
  int64_t num_experts = 0;             // of all layers
  uint64_t kv_bytes_per_position = 0;  // of keys and values, in all layers
  uint64_t total_bytes = 0;            // sum of the items, at most the budget
  uint64_t minimum_bytes = 0;          // the smallest workable budget
  uint64_t all_resident_bytes = 0;     // the budget at which every expert stays in memory
  // Of the model and its copy, as far as a token asks them for anything: the fewer slots of both.
  int64_t slots_of_each = 0;
};

Result<MemoryPlan> plan_memory(const PlanRequest& request);

// The plan as lines for a person, with totals.
std::string to_table(const MemoryPlan& plan, uint64_t budget_bytes);

}  // namespace penstock
