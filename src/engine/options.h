// What a caller may choose about an engine. Defaults are exact and fit the machine.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/thread_pool.h"
#include "compute/cpu/product_cut.h"
#include "compute/panel.h"
#include "engine/memory_plan.h"
#include "engine/memory_watch.h"
#include "engine/prefix_store.h"
#include "engine/speculation.h"
#include "experts/expert_source.h"
#include "experts/gpu_options.h"
#include "io/reader.h"
#include "model/expert_limits.h"
#include "store/expert_store.h"

namespace penstock {

// Called with a sentence for a person, while the engine opens.
using TellNote = std::function<void(const std::string&)>;

// What a machine may like otherwise (engine/knobs.h, with `reader.depth`): time alone depends on it.
struct EngineTuning {
  PrefetchOptions ahead = {};
  int half_life_runs = kHalfLifeRuns;
  TaskCut tasks = {};
  int spins = ThreadPool::kSpins;
  int64_t chunk_tokens_max = kChunkTokensMax;
};

// Lossy: of a token's experts, by falling weight, those from a rank on come from a copy of the model in
// fewer bits (engine/low_bit_copy.h).
struct LowBitOptions {
  std::string folder;     // a packed model of the same checkpoint; empty: off
  int64_t from_rank = 0;  // 1: all of them; K + 1: none

  bool is_on() const { return !folder.empty(); }
};

struct EngineOptions {
  std::string model;              // folder of a penstock model, GGUF file, folder of a checkpoint
  uint64_t memory_bytes = 0;      // the whole budget; 0: what is available less a reserve
  int threads = 0;                // 0: one per processor that we may run on
  int64_t context = 0;            // positions; 0: the model's, at most kContextDefault
  int parallel = 1;               // sequences that may be evaluated in one pass
  int num_checkpoints = 0;        // kept places, for going back to a shared prefix
  int64_t experts_per_token = 0;  // 0: the trained number; any other is lossy
  ExpertLimits expert_limits;     // lossy; off
  LowBitOptions low_bits;         // lossy; off
  KvForm kv_form = KvForm::kFloat32;  // keys and values; kCodes8 is lossy
  bool verify = true;                 // checksums of experts at every read
  // Of a checkpoint run in place: where the checksums that its first reads make are kept. Empty: they
  // are forgotten with the engine.
  std::string checksum_file;
  // Folders with copies of the files that hold experts, on other drives: each read goes to whichever
  // drive brings it soonest. Needs `verify`.
  std::vector<std::string> mirrors;
  bool prefetch = true;  // reads the next layer's likely experts ahead, where it pays
  // Drafts by the model's prediction block, where it has one. kAuto: while the measured time pays,
  // and only where at least half of the experts fit, since each draft reads experts of its own.
  Speculation speculation = Speculation::kAuto;
  PrefixStoreOptions prefix_store;  // without a directory: nothing is kept on disk
  MemoryWatchOptions memory_watch;  // gives slots back when memory runs short
  // From so many bytes of slots on, open() does not wait until they are all there (slot_arrivals.h). What
  // is hit and missed by the first tokens is then a matter of time.
  uint64_t slots_come_later_from = UINT64_MAX;
  GpuOptions gpu;  // experts in the memory of a GPU; off
  ReaderOptions reader;
  EvictionPolicy policy{};  // the store's default
  std::string simd_target;  // empty: the best that this processor has
  Arithmetic arithmetic = Arithmetic::kFixed16;
  EngineTuning tuning = {};
  std::string chat_template_file;  // in place of the model's own template; empty: that
  TellNote tell;                   // may be empty

  // For tests and experiments; 0: planned.
  int64_t chunk_tokens = 0;
  int64_t num_slots = 0;  // of the model, and as many of a copy in fewer bits
  std::function<std::unique_ptr<Reader>()> reader_factory;  // in place of `reader`
  ExpertSourceFactory expert_source;                        // in place of the model's own file
};

inline constexpr int64_t kContextDefault = 8192;

}  // namespace penstock
