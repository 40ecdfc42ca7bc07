// Which experts a model asked for, event by event: recorded in a run, replayed without the model.
//
// An event is one run of one layer: its distinct experts, in the order in which they were asked
// for. A step is one run of all layers (a decoded token or a prefill chunk); a sequence is one
// prompt with its answer. bench/cache_replay judges eviction policies on these.
//
// File  "PSTRACE1", u32 num_layers, u32 num_experts, u64 words, then the words as u16, then u64
//       XXH3-64 of all before it; little-endian. An event is layer, count, count ids. 0xffff opens
//       the next step, 0xfffe the next sequence (and its first step).
// Errors  kCorrupt for bytes that are no trace; kIo and kNotFound from the storage.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "io/storage.h"

namespace penstock {

struct RoutingEvent {
  int64_t sequence = 0;
  int64_t step = 0;  // counted through all sequences
  int layer = 0;
  std::span<const uint16_t> experts;  // into the trace
};

class RoutingTrace {
 public:
  RoutingTrace() = default;
  RoutingTrace(int num_layers, int num_experts)
      : num_layers_(num_layers), num_experts_(num_experts) {}

  int num_layers() const { return num_layers_; }
  int num_experts() const { return num_experts_; }

  // Recording. Ids below 65,536 - 2, layers likewise.
  void begin_sequence();
  void begin_step();
  void add(int layer, std::span<const int32_t> experts);

  // All events, in order.
  std::vector<RoutingEvent> events() const;

  Result<void> write(Storage& storage, const std::string& path) const;
  static Result<RoutingTrace> read(Storage& storage, const std::string& path);

 private:
  int num_layers_ = 0;
  int num_experts_ = 0;
  std::vector<uint16_t> words_;
};

}  // namespace penstock
