// Figures of one generation: speeds, waits by name, traffic of the store, a hash of the logits.
#pragma once

#include <cstdint>
#include <vector>

#include "base/json.h"
#include "model/step.h"
#include "store/expert_store.h"

namespace penstock {

// One pass over one or several sequences.
struct PassFigures {
  int64_t wall_ns = 0;
  StepTimes times;
  int64_t loop_ends_ns = 0;  // within the times: ThreadPool::ends_ns
  StoreStats store;
  // Distinct experts that each segment's rows asked for, over all layers: where several sequences
  // share a pass, its reads and its time are shared out in these proportions. Zero: alone.
  std::vector<int64_t> asked;
};

// One phase: the prompt, or the answer.
struct PhaseMetrics {
  int64_t tokens = 0;  // evaluated by the model
  int64_t wall_ns = 0;
  StepTimes times;
  int64_t loop_ends_ns = 0;  // within the times, whichever they are
  StoreStats store;

  double tokens_per_second() const {
    return wall_ns == 0 ? 0 : 1e9 * static_cast<double>(tokens) / static_cast<double>(wall_ns);
  }
  int64_t unaccounted_ns() const { return wall_ns - times.accounted_ns(); }

  // Adds a segment's share of a pass. Shares of reads, hits and waits add up to what there was;
  // the time is everybody's own: each segment waited for the whole pass.
  void add(const PassFigures& pass, size_t segment, int64_t tokens);
};

struct GenerationMetrics {
  int64_t cached_tokens = 0;  // of the prompt, already in the session
  PhaseMetrics prompt;
  PhaseMetrics answer;
  int64_t answer_tokens = 0;    // sampled; the first one comes out of the prompt's pass
  int64_t first_token_ns = 0;   // from the call to the first sampled token
  uint64_t logits_hash = 0;     // XXH3 chained over every row of logits that was sampled from
  int64_t chunks = 0;           // of the prompt
  int64_t drafts = 0;           // tokens drafted by the prediction block
  int64_t drafts_accepted = 0;  // of these, what the sampler chose: passes saved
};

StoreStats operator-(const StoreStats& after, const StoreStats& before);
StoreStats operator+(const StoreStats& a, const StoreStats& b);

// llama.cpp's names: cache_n, prompt_n, prompt_ms, ..., predicted_per_second.
Json timings_json(const GenerationMetrics& metrics);
// expert_hits, expert_misses, prefetches, bytes_read, io_wait_ms, logits_hash, waits by name.
Json penstock_json(const GenerationMetrics& metrics);

}  // namespace penstock
